"""`jaxdebias compare A B`: what differs between two results, with intervals, paired over the test rows of both."""

import dataclasses
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
from jaxdebias.contracts import expect
from jaxdebias.core import Batch, Dataset
from jaxdebias.files import write_text
from jaxdebias.measure import excludes_zero
from jaxdebias.report import formats, wording
from jaxdebias.report._tables import markdown_table
from jaxdebias.results import build
from jaxdebias.results.codec import read_results, to_json, write_results
from jaxdebias.results.provenance import Clock, provenance
from jaxdebias.results.records import CompareResults, Interval, Quantity, RunResults

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


def write_comparison(a: Path, b: Path, out: Path, *, seed: int = 0, overwrite: bool = False) -> CompareResults:
    """Compares two results, writes results.json and report.md to `out` and returns the results.

    Raises:
      ContractError: no results there, nothing in common, or results of another call in `out`.
    """
    arguments = {name: str(Path(folder).resolve()) for name, folder in (("a", a), ("b", b))}
    digests = {f"{name}_results": file_digest(Path(folder) / "results.json") for name, folder in arguments.items()}
    with claim(out, "compare", {**arguments, **digests, "seed": seed}, overwrite=overwrite) as run:
        if run.complete:
            return read_results(run.folder)
        clock = Clock()
        record = compare(a, b, seed=seed)
        clock.lap("compare")
        record = dataclasses.replace(record, provenance=provenance(clock.laps, seed=seed, arguments=run.arguments))
        write_text(run.folder / "report.md", markdown(record))
        write_results(run.folder / "results.json", record)
        return record


def compare(a: Path, b: Path, *, seed: int = 0) -> CompareResults:
    """B minus A of every quantity that both results have.

    Args:
      a: folder of a result.
      b: folder of another one.
      seed: of the tests of paired differences.

    Raises:
      ContractError: no results there, other classes, or no quantity in common.
    """
    first, second = read_results(a), read_results(b)
    classes = [one.label_names if isinstance(one, RunResults) else None for one in (first, second)]
    expect(classes[0] == classes[1], "B", f"the classes of A, {classes[0]}", classes[1])
    of_a, of_b = (_rates_of(to_json(one)) for one in (first, second))
    for what, record, rates in (("A", first, of_a), ("B", second, of_b)):
        expect(bool(rates), what, "results with quantities and intervals", f"those of {record.command}, with none")
    common = [name for name in of_a if name in of_b]
    expect(bool(common), "B", f"a quantity of A, such as {next(iter(of_a))}", ", ".join(of_b))
    paired = _paired(jax.random.key(seed), first, read_predictions(a), read_predictions(b))
    quantities = {}
    for name in common:
        tested = paired.get(name)
        difference = tested or formats.change(of_a[name], of_b[name])
        if difference is not None:
            quantities[name] = Quantity(
                value=float(difference.value),
                low=float(difference.low),
                high=float(difference.high),
                a=of_a[name].value,
                b=of_b[name].value,
                paired=tested is not None,
                separable=bool(excludes_zero(difference) if tested is None else tested.separable),
                p=None if tested is None else build.finite(tested.p),
                discordant=None if tested is None else int(tested.discordant),
            )
    return CompareResults(
        command="compare",
        provenance=provenance({}, seed=seed),
        a=str(a),
        b=str(b),
        paired=bool(paired),
        quantities=quantities,
    )


def markdown(record: CompareResults) -> str:
    """The comparison as a Markdown table; of many groups, none."""
    rows = []
    groups = sum(name.startswith(GROUP) for name in record.quantities)
    for name, one in record.quantities.items():
        if name.startswith(GROUP) and groups > MOST_GROUPS:
            continue
        metric = wording.METRIC.get(name)
        show = (lambda value: formats.percent(value)) if metric is None or metric.higher_is_better else formats.points
        large = max(abs(one.a), abs(one.b)) > 1  # no fraction: a perplexity, a score out of 100
        rows.append(
            {
                "quantity": metric.name if metric else name,
                "A": f"{one.a:.3g}" if large else show(one.a),
                "B": f"{one.b:.3g}" if large else show(one.b),
                "B − A": f"{one.value:+.3g}" if large else formats.signed_points(one.value),
                "95 % interval": f"{one.low:+.3g} to {one.high:+.3g}"
                if large
                else f"{100 * one.low:+.1f} to {100 * one.high:+.1f}",
                "": "" if one.separable else "not separable",
            }
        )
    how = "paired over the same test samples" if record.paired else "from two independent intervals"
    return f"A: {record.a}\nB: {record.b}\n\n{markdown_table(rows, list(rows[0]))}\nDifferences are {how}.\n"


def _rates_of(plain: Mapping[str, Any]) -> dict[str, Interval]:
    """Every quantity with an interval, by its dotted name, after the repair if there was one."""
    return dict(_rates(plain.get("after") or plain.get("before") or {}))


def _rates(measured: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Interval]]:
    """Every quantity with an interval, by its dotted name."""
    for name, one in measured.items():
        if isinstance(one, Mapping):
            if "low" in one and "high" in one:
                if formats.interval(rate := _interval(one)):
                    yield prefix + name, rate
            else:
                yield from _rates(one, f"{prefix}{name}.")
        elif name == "groups":
            for group in one:
                if formats.interval(rate := _interval(group["accuracy"])):
                    yield f"{GROUP}{group['label_name']} · {group['attribute_name']}", rate


def _interval(rate: Mapping[str, Any]) -> Interval:
    return Interval(value=rate["value"], low=rate["low"], high=rate["high"], n=rate["n"])


def _paired(key: Any, record: Any, a: Predicted | None, b: Predicted | None) -> dict[str, Any]:
    """Differences over the same test rows; empty where rows differ or a set has no predictions."""
    if (
        not isinstance(record, RunResults)
        or a is None
        or b is None
        or a.rows != b.rows
        or not np.array_equal(a.test.label, b.test.label)
    ):
        return {}
    counts = np.asarray(record.train_counts)
    label, attribute = (
        np.repeat(index, counts.reshape(-1)) for index in np.divmod(np.arange(counts.size), counts.shape[1])
    )
    train = Batch(np.zeros((len(label), 1), np.float32), label.astype(np.int32), attribute.astype(np.int32))
    known = np.where(a.test.attribute == b.test.attribute, a.test.attribute, -1).astype(np.int32)
    same_pairs = a.pairs is not None and b.pairs is not None and np.array_equal(a.pairs.label, b.pairs.label)
    dataset = Dataset(
        name=record.dataset,
        variant={},
        splits={"train": train, "test": a.test._replace(attribute=known)},
        pairs={"test": a.pairs} if same_pairs else {},
        label_names=record.label_names,
        attribute_names=record.attribute_names,
        aligned=np.asarray(record.aligned, bool),
        pairing=record.pairing,
    )
    before, after = (
        auditing.Measurement(None, None, None, one.logits, one.pair_probability if same_pairs else None)
        for one in (a, b)
    )
    found = auditing.changes(key, before, after, dataset)
    return {name: one for name, one in found.items() if np.isfinite([one.value, one.low, one.high]).all()}
