"""The full audit of a run on disk: what `jaxdebias audit RUN --out DIR` does."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxdebias._audit import AuditReport, audit
from jaxdebias.app.recipes import RECIPES
from jaxdebias.app.run_folder import claim, load
from jaxdebias.auditing.candidates import own_name
from jaxdebias.contracts import expect
from jaxdebias.core import Dataset
from jaxdebias.data import _registry as registry


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


def _further(config: AuditConfig, made: Mapping[str, Any], dataset: Dataset) -> dict[str, dict[str, list[str]]]:
    """The candidates by name, on the rows of the run's data set."""
    if not config.candidates:
        return {}
    for name in config.candidates:
        other = name not in (own_name(dataset), dataset.variant.get("target"))
        expect(other, "candidates", "other attributes than that of the run and than its label", name)
    place = config.data_dir or made["data_dir"]
    return registry.columns(made["data"], config.candidates, data_dir=place, seed=made["seed"], **made["options"])
