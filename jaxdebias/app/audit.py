"""The full audit of a run on disk: what `jaxdebias audit RUN --out DIR` does."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxdebias._audit import AuditReport, audit
from jaxdebias.app.recipes import RECIPES
from jaxdebias.app.run_folder import claim, load
from jaxdebias.auditing.candidates import own_name
from jaxdebias.auditing.embedded import row_digests
from jaxdebias.contracts import check_choice, expect
from jaxdebias.core import Dataset
from jaxdebias.data import _registry as registry
from jaxdebias.data._folder import further_columns


@dataclass(frozen=True, kw_only=True)
class AuditConfig:
    """What is asked of a run."""

    candidates: Sequence[str] = ()
    """Further attributes: of a folder, columns of its metadata.csv; of adult, utkface and celeba, other values of their
    option `attribute`."""
    attribute: str | None = None
    """What the run's own attribute is called; None: as its data set calls it."""
    pixels: str = "auto"
    """As of `jaxdebias.audit`."""
    discover: bool | None = None
    judges: str = "aug-cell"
    """Both as of `jaxdebias.audit`."""
    fix: bool = False
    """Apply the recommended repair, and test it on the test split."""
    data_dir: Path | None = None
    seed: int = 0


def audit_in_full(
    folder: Path, out: Path, config: AuditConfig = AuditConfig(), *, overwrite: bool = False
) -> AuditReport:
    """Answers the five questions about a trained or a repaired run and writes the report to `out`.

    Raises:
      ContractError: no run there, unknown candidates, or results already in `out`.
    """
    folder, out = Path(folder), Path(out)
    expect(out.resolve() != folder.resolve(), "out", "another folder than the run", out)
    results, dataset, classifier, params, _ = load(folder, data_dir=config.data_dir, repaired=True)
    made = results["config"]
    given = _further(config, made, dataset)
    claim(out, "audit", overwrite=overwrite)
    recipe = RECIPES[made["data"]]
    attribute = config.attribute or dataset.variant.get("attribute", recipe.attribute)
    report = audit(
        classifier,
        params,
        dataset,
        candidates=given,
        attribute=attribute,
        items=recipe.items,
        name=results["model"],
        pixels=config.pixels,
        discover=config.discover,
        judges=config.judges,
        fix=config.fix,
        seed=config.seed,
    )
    report.results.update(config=made, trained=str(folder.resolve()))
    report.write(out, overwrite=True)
    return report


def _further(config: AuditConfig, made: Mapping[str, Any], dataset: Dataset) -> dict[str, dict[str, Any]]:
    """The candidates by name, on the rows of the run's data set."""
    if not config.candidates:
        return {}
    if made["data"] == "folder":
        root = registry.files_of("folder", config.data_dir or made["data_dir"])
        options = {name: value for name, value in made["options"].items() if name in ("edit_share", "accept_share")}
        columns = further_columns(root, seed=made["seed"], **options)
        for name in config.candidates:
            check_choice("candidates", name, columns)
        return {name: columns[name] for name in config.candidates}
    expect(
        "attribute" in registry.options_of(made["data"]),
        "candidates",
        "a data set with several attributes (folder, adult, utkface, celeba)",
        made["data"],
    )
    found = {}
    for name in config.candidates:
        expect(name != own_name(dataset), "candidates", "other attributes than that of the run", name)
        other = registry.load(
            made["data"],
            data_dir=config.data_dir or made["data_dir"],
            seed=made["seed"],
            **{**made["options"], "attribute": name},
        )
        # Splits may depend on the attribute, so that rows are found by what is in them.
        value = {
            digest: other.attribute_names[a] if a >= 0 else ""
            for batch in other.splits.values()
            for digest, a in zip(row_digests(batch.x), np.asarray(batch.attribute), strict=True)
        }
        found[name] = {
            split: [value.get(digest, "") for digest in row_digests(batch.x)] for split, batch in dataset.splits.items()
        }
    return found
