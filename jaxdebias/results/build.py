"""From measurements, repairs and data to the records of `jaxdebias.results.records`.

    before = build.measurement(measured, dataset)
    record = build.run_results("train", provenance, dataset, method="erm", model="mlp", attribute="colour",
                               items="digits", before=before)
    record = dataclasses.replace(record, maps=build.maps(found, dataset))

Whatever comes from NumPy or JAX becomes a Python number here; NaN becomes None.
"""

from jaxdebias.results._build_audited import audit_results
from jaxdebias.results._build_located import draws, maps, patches
from jaxdebias.results._build_run import (
    edit,
    measurement,
    parameter_counts,
    refit,
    round_seconds,
    run_results,
    samples,
    table_rows,
)
from jaxdebias.results._build_verdict import verdict
from jaxdebias.results._intervals import change, changes, interval, known_changes, rate, rate_at
from jaxdebias.results._plain import finite, nested, plain

__all__ = [
    "audit_results",
    "change",
    "changes",
    "draws",
    "edit",
    "finite",
    "interval",
    "known_changes",
    "maps",
    "measurement",
    "nested",
    "parameter_counts",
    "patches",
    "plain",
    "rate",
    "rate_at",
    "refit",
    "round_seconds",
    "run_results",
    "samples",
    "table_rows",
    "verdict",
]
