"""`jaxdebias compare A B`: what differs between two results, with intervals, paired over the test rows of both."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
from tyro.conf import Positional, arg

from jaxdebias import auditing
from jaxdebias.app.ending import print_ending
from jaxdebias.app.option_types import Folder
from jaxdebias.app.predicted import Predicted, read_predictions
from jaxdebias.app.result_set import claim, file_digest, is_complete
from jaxdebias.app.run_folder import envelope, read_set
from jaxdebias.contracts import expect
from jaxdebias.core import Batch, Dataset
from jaxdebias.files import write_text
from jaxdebias.report import formats, wording
from jaxdebias.report._tables import markdown_table
from jaxdebias.results.provenance import Clock
from jaxdebias.results.records import to_json

GROUP, MOST_GROUPS = "accuracy of ", 16
"""How the quantity of a group is named, and how many of them a table shows."""


@dataclass(frozen=True, kw_only=True)
class Compare:
    """Compare two results: every quantity of B minus A, with its interval.

    Paired over the test samples where both were measured on the same ones, else from the two intervals. Judged is
    what each measured after its repair, if it had one.
    """

    a: Annotated[Path, Positional, arg(metavar="A")]
    """Folder that a command wrote."""
    b: Annotated[Path, Positional, arg(metavar="B")]
    """Folder that a command wrote."""
    out: Folder = None
    """Folder for results.json and report.md; without it the table is only printed."""
    overwrite: bool = False
    """Replace a comparison in OUT, once the new one is complete."""
    seed: int = 0
    """Seed of the paired intervals."""

    def execute(self) -> int:
        if self.out is None:
            print(markdown(compare(self.a, self.b, seed=self.seed)))
            print(f"Next:\n  jaxdebias compare {self.a} {self.b} --out DIR   keeps the table")
            return 0
        done_before = is_complete(self.out) and not self.overwrite
        print(markdown(write_comparison(self.a, self.b, self.out, seed=self.seed, overwrite=self.overwrite)))
        gate = f"jaxdebias check {self.b} --min-accuracy 0.9   for continuous integration"
        print_ending("compare", self.out, done_before=done_before, next_steps=(gate,))
        return 0


def write_comparison(a: Path, b: Path, out: Path, *, seed: int = 0, overwrite: bool = False) -> dict[str, Any]:
    """Compares two results, writes results.json and report.md to `out` and returns the results.

    Raises:
      ContractError: no results there, nothing in common, or results of another call in `out`.
    """
    arguments = {name: str(Path(folder).resolve()) for name, folder in (("a", a), ("b", b))}
    digests = {f"{name}_results": file_digest(Path(folder) / "results.json") for name, folder in arguments.items()}
    with claim(out, "compare", {**arguments, **digests, "seed": seed}, overwrite=overwrite) as run:
        if run.complete:
            return read_set(run.folder)
        clock = Clock()
        found = compare(a, b, seed=seed)
        clock.lap("compare")
        results = to_json({**envelope(run, clock.laps, seed, None), **found})
        write_text(run.folder / "report.md", markdown(results))
        write_text(run.folder / "results.json", json.dumps(results, indent=1, allow_nan=False) + "\n")
        return results


def compare(a: Path, b: Path, *, seed: int = 0) -> dict[str, Any]:
    """B minus A of every quantity that both results have.

    Args:
      a: folder of a result.
      b: folder of another one.
      seed: of the bootstrap of paired differences.

    Returns:
      {`command`: "compare", `a`, `b`: folders, `paired`: whether the test rows are the same, `quantities`: name ->
      {`value`, `low`, `high`: of the difference, `a`, `b`: the values, `paired`}}.

    Raises:
      ContractError: no results there, other classes, or no quantity in common.
    """
    first, second = read_set(a), read_set(b)
    classes = [one.get("label_names") for one in (first, second)]
    expect(classes[0] == classes[1], "B", f"the classes of A, {classes[0]}", classes[1])
    of_a, of_b = (dict(_rates(one.get("after") or one.get("before") or {})) for one in (first, second))
    common = [name for name in of_a if name in of_b]
    expect(bool(common), "B", f"a quantity of A, such as {next(iter(of_a), 'none')}", ", ".join(of_b) or "none")
    paired = _paired(jax.random.key(seed), first, read_predictions(a), read_predictions(b))
    quantities = {}
    for name in common:
        difference = paired.get(name) or formats.change(of_a[name], of_b[name])
        if difference is not None:
            quantities[name] = {
                **difference._asdict(),
                "a": of_a[name]["value"],
                "b": of_b[name]["value"],
                "paired": name in paired,
            }
    return to_json(
        {
            "command": "compare",
            "a": str(a),
            "b": str(b),
            "paired": bool(paired),
            "quantities": {
                name: {key: one[key] for key in ("value", "low", "high", "a", "b", "paired")}
                for name, one in quantities.items()
            },
        }
    )


def markdown(results: Mapping[str, Any]) -> str:
    """The comparison as a Markdown table; of many groups, none."""
    rows = []
    groups = sum(name.startswith(GROUP) for name in results["quantities"])
    for name, one in results["quantities"].items():
        if name.startswith(GROUP) and groups > MOST_GROUPS:
            continue
        metric = wording.METRIC.get(name)
        change = formats.Change(one["value"], one["low"], one["high"])
        show = (lambda value: formats.percent(value)) if metric is None or metric.higher_is_better else formats.points
        large = max(abs(one["a"]), abs(one["b"])) > 1  # no fraction: a perplexity, a score out of 100
        rows.append(
            {
                "quantity": metric.name if metric else name,
                "A": f"{one['a']:.3g}" if large else show(one["a"]),
                "B": f"{one['b']:.3g}" if large else show(one["b"]),
                "B − A": f"{one['value']:+.3g}" if large else formats.signed_points(one["value"]),
                "95 % interval": f"{one['low']:+.3g} to {one['high']:+.3g}"
                if large
                else f"{100 * one['low']:+.1f} to {100 * one['high']:+.1f}",
                "": "" if change.separable else "not separable",
            }
        )
    how = "paired over the same test samples" if results["paired"] else "from two independent intervals"
    return f"A: {results['a']}\nB: {results['b']}\n\n{markdown_table(rows, list(rows[0]))}\nDifferences are {how}.\n"


def _rates(measured: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every quantity with an interval, by its dotted name."""
    for name, one in measured.items():
        if isinstance(one, Mapping):
            if "low" in one and "high" in one:
                if formats.interval(one):
                    yield prefix + name, one
            else:
                yield from _rates(one, f"{prefix}{name}.")
        elif name == "groups":
            for group in one:
                if formats.interval(group["accuracy"]):
                    yield f"{GROUP}{group['label_name']} · {group['attribute_name']}", group["accuracy"]


def _paired(key: Any, results: Mapping[str, Any], a: Predicted | None, b: Predicted | None) -> dict[str, Any]:
    """Differences over the same test rows; empty where rows differ or a set has no predictions."""
    if a is None or b is None or a.rows != b.rows or not np.array_equal(a.test.label, b.test.label):
        return {}
    counts = np.asarray(results["train_counts"])
    label, attribute = (
        np.repeat(index, counts.reshape(-1)) for index in np.divmod(np.arange(counts.size), counts.shape[1])
    )
    train = Batch(np.zeros((len(label), 1), np.float32), label.astype(np.int32), attribute.astype(np.int32))
    known = np.where(a.test.attribute == b.test.attribute, a.test.attribute, -1).astype(np.int32)
    same_pairs = a.pairs is not None and b.pairs is not None and np.array_equal(a.pairs.label, b.pairs.label)
    dataset = Dataset(
        name=results["dataset"],
        variant={},
        splits={"train": train, "test": a.test._replace(attribute=known)},
        pairs={"test": a.pairs} if same_pairs else {},
        label_names=tuple(results["label_names"]),
        attribute_names=tuple(results["attribute_names"]),
        aligned=np.asarray(results["aligned"], bool),
        pairing=results.get("pairing", "counterfactual"),
    )
    before, after = (
        auditing.Measurement(None, None, None, one.logits, one.pair_probability if same_pairs else None)
        for one in (a, b)
    )
    found = auditing.changes(key, before, after, dataset)
    return {name: one for name, one in found.items() if np.isfinite([one.value, one.low, one.high]).all()}
