"""Does the audit say what is true? `python benchmarks/reproduce/audit_networks.py` (no files needed, 25 to 40 minutes).

Three parts, every data set generated (`audit_sets.py`), every network trained on it and audited by one call of
`jaxdebias.audit`, with the fix applied:

    sets            six families, from no shortcut over weak ones to 1 % conflicting samples; six candidate attributes
    small accept    a real shortcut, but 4 samples in the acceptance split: nothing can be estimated on them
    pictures only   no attribute given at all: digits, half of them biased by colour, and the other families
    biased branch   the same sets, judged by the biased branch of SiH

Whether a network follows the planted attribute is not taken from the plan but asked of the network: an oracle shows
it fresh test samples twice, with nothing changed but that attribute, on the label's own value and on another's. The
gap between the two accuracies, with its 95 % interval over test samples (normal, over digits where there are several
pictures of one), decides the state of a set:

    clean    nothing was planted: the attribute was drawn without regard to the label
    strong   planted, and the gap is surely above `STRONG`
    weak     planted, and it is not. Either verdict about the planted attribute is right here; reported apart

A verdict is right if the planted attribute and no other is called a shortcut where the set is strong, and none where
it is clean. A false alarm is a clean set with any attribute called a shortcut. Advice is right if it is "leave it" on
clean sets and, on strong ones, a fix that held on the test set. "Leave it" is right on a strong set too, unless a
repair is to be had: then all repairs are fitted again, and the oracle says whether the accuracy over both showings
surely rises by more than `GAIN`. Advice that did not hold is never right. With a small acceptance split any fix is
wrong: four samples cannot say what it is worth. A suspicion without attributes is right where the set is strong and
wrong where it is clean (of digits by the plan, of other families by the oracle).

The rules and margins were fixed before the full run. Networks and steps were chosen on other seeds, by accuracy without
a shortcut; on these the audit called attributes shortcuts that go with the label by chance alone, and was mended
(`auditing.candidates.by_chance`) before the full run. A first full run, on seeds from 0, met all margins, but called
what goes with the shortcut one too in 7 of 60 biased sets, and recommended repairs that were paid for on aligned
samples. The audit was mended again (the tests of what goes with a shortcut are adjusted; the mean over groups has to
rise), margins and oracle were not touched, and the seeds from `FIRST_SEED` are fresh. Sets of one family and seed share
digits and decoys over the strengths, so the intervals, which take sets for independent, are somewhat too narrow.
Suspicions were first counted on the digits alone, eight sets with two judges, all right. On seeds 0 and 1 they turned
out to be false on clean sets of two classes, where half is chance: confidence is measured above chance since, and all
families are in. Resumable: rows in the file are kept.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import audit_sets
import jax
import numpy as np
from audit_networks_summary import JUDGES, Cell, called, rounded, summary, verdicts
from audit_sets import FAMILIES, Made

import jaxdebias
from jaxdebias.auditing import advice as fixes
from jaxdebias.auditing import candidates as listing
from jaxdebias.auditing.embedded import embed
from jaxdebias.batching import predict_rows
from jaxdebias.core import Batch, Classifier, Params
from jaxdebias.measure import Interval
from jaxdebias.mitigate import erm
from jaxdebias.results.provenance import device_name, versions
from jaxdebias.train import FitConfig, Optimizer, fit

RESULTS = Path(__file__).parents[1] / "results"
LEVELS = {"colour": (0.5, 0.2, 0.1, 0.05, 0.01), "glyphs": (0.5, 0.2, 0.1, 0.05, 0.01)}
"""Shares of conflicting samples beside none. Of two classes, at 50 % an attribute says nothing: 30 % is the first."""
TWO_CLASSES = (0.3, 0.2, 0.1, 0.05, 0.01)
FIRST_SEED, SEEDS, CLEAN_SEEDS = 100, 2, 7
AUDIT_SEED = 0
"""As by default; sets of a family are then halved alike, and their programs compiled once."""
STRONG, GAIN = 0.05, 0.05
SMALL = (0.1, 0.05)
"""Shares of conflicting samples with a small acceptance split."""
FEW = 4
"""Samples in it, of which half choose and half estimate."""
PICTURES = (0.01, "random", 0.02, "grey", 0.05, "random", 0.02, "grey")
"""Share of conflicting samples, or clean digits: in random colours, or grey."""
BLIND = (0.02, 0.1, "none", "none")
"""Of every other family."""


def plan(seeds: int = SEEDS, clean_seeds: int = CLEAN_SEEDS) -> list[Cell]:
    """All data sets, seed by seed, so that a part of the run has some of everything."""
    cells, first = [], FIRST_SEED
    for family in FAMILIES:
        cells += [Cell("sets", family, "none", seed) for seed in range(first, first + clean_seeds)]
        cells += [
            Cell("sets", family, level, seed)
            for level in LEVELS.get(family, TWO_CLASSES)
            for seed in range(first, first + seeds)
        ]
        cells += [Cell("small accept", family, level, first) for level in SMALL]
    for part in JUDGES:
        cells += [Cell(part, "digits", kind, seed) for seed, kind in enumerate(PICTURES, first)]
        cells += [
            Cell(part, family, level, seed)
            for family in FAMILIES
            if family != "colour"
            for seed, level in enumerate(BLIND, first)
        ]
    return cells


def trained(key: Any, classifier: Classifier, train: Batch, steps: int) -> Params:
    """A network after `steps` of 64 samples, in epochs of ten batches."""
    config = FitConfig(
        epochs=steps // 10, epochs_per_chunk=steps // 10, batch_size=64, steps_per_epoch=10, drop_last=True
    )
    optimizer = Optimizer(name="adamw", learning_rate=1e-3, weight_decay=1e-4, schedule="cosine", steps=steps)
    train = Batch(x=train.x, label=train.label, attribute=train.attribute)
    return fit(key, erm(classifier, optimizer=optimizer), train, config).state.variables


def shown(classifier: Classifier, params: Params, pairs: Batch) -> np.ndarray:
    """The oracle: `[2 n]`, whether samples are right shown with their label's own value, and with another's."""
    return np.stack(
        [np.asarray(predict_rows(classifier.apply, params, x)).argmax(1) == pairs.label for x in (pairs.x, pairs.twin)]
    ).astype(np.float64)


def over_units(values: np.ndarray, unit: np.ndarray | None) -> Interval:
    """The mean with its normal interval, over units of equally many rows."""
    unit = np.arange(len(values)) if unit is None else unit
    of_unit = np.bincount(unit, values) / np.bincount(unit)
    mean, half = of_unit.mean(), 1.96 * of_unit.std(ddof=1) / len(of_unit) ** 0.5
    return Interval(float(mean), float(mean - half), float(mean + half), len(of_unit))


def best_gain(family: str, made: Made, params: Params, before: np.ndarray) -> Interval:
    """Of all repairs that the audit knows, fitted again: the largest rise of the accuracy over both showings."""
    of = FAMILIES[family]
    listed = listing.list_candidates(made.dataset, {of.planted: made.candidates[of.planted]})
    seen = embed(of.network.vector, params, listing.with_attribute(made.dataset, of.planted, listed[of.planted]))
    dataset = listing.with_attribute(made.dataset, of.planted, listed[of.planted])
    subject = fixes.Subject(seen.split, seen.dataset, of.network, dataset)
    tried = fixes.try_repairs(jax.random.key(AUDIT_SEED), subject, params).options
    gains = [over_units((shown(of.network, one.params, made.pairs) - before).mean(0), made.pairs.unit) for one in tried]
    return max(gains, key=lambda gain: gain.low)


def state_of(conflicting: float | str, gap: Interval) -> str:
    return "clean" if conflicting == "none" else "strong" if gap.low > STRONG else "weak"


def judged(state: str, planted: str, relied: Sequence[str], advice: str, gain: Interval | None) -> dict[str, bool]:
    """Whether the verdict and the advice are right.

    Args:
      state: what the oracle says of the set: clean, weak or strong.
      planted: name of the planted attribute.
      relied: names of attributes of which reliance is shown.
      advice: state of the advice.
      gain: the best to be had, where a strong set has no verified repair.
    """
    others = [name for name in relied if name != planted]
    nothing_better = gain is None or gain.low <= GAIN
    clean = not advice.startswith("reliance")
    return {
        "right": {"clean": not relied, "strong": list(relied) == [planted], "weak": not others}[state],
        "right_advice": clean if state == "clean" else advice.endswith("repaired") or nothing_better,
    }


def audited(cell: Cell, *, steps: int | None = None) -> dict[str, Any]:
    """One data set made, learned and audited: a row without its names."""
    of = FAMILIES[cell.family]
    made = audit_sets.make(cell.family, None if cell.conflicting == "none" else cell.conflicting, cell.seed)
    if cell.part == "small accept":
        made = few(made)
    began = time.perf_counter()
    params = trained(jax.random.key(cell.seed), of.network, made.dataset.splits["train"], steps or of.steps)
    learned = time.perf_counter()
    found = jaxdebias.audit(
        of.network, params, made.dataset, candidates=made.candidates, pixels="none", fix=True, drawn="assigned",
        seed=AUDIT_SEED,
    )  # fmt: skip
    seconds = time.perf_counter() - learned
    right = shown(of.network, params, made.pairs)
    gap = over_units(right[0] - right[1], made.pairs.unit)
    state, verdict = state_of(cell.conflicting, gap), found.verdict
    held, advice = verdict.advice.state.endswith("repaired"), verdict.advice.state
    relied = [one.attribute for one in verdict.reliance if one.state in ("shown", "shown_given")]
    gain = best_gain(cell.family, made, params, right) if state == "strong" and not held else None
    row = {
        "state": state,
        "gap": rounded(gap),
        "accuracy": round(float(right.mean()), 4),
        "verdicts": {one.attribute: one.state for one in verdict.reliance},
        "p_values": {one.attribute: one.p and float(f"{one.p:.3g}") for one in verdict.reliance},
        "fix": advice,
        "held": held,
        **judged(state, of.planted, relied, advice, gain),
    }
    if gain is not None:
        row["best_gain"] = rounded(gain)
    if held:
        after = shown(of.network, found.params, made.pairs)
        row |= {
            "gap_after": rounded(over_units(after[0] - after[1], made.pairs.unit)),
            "gain": rounded(over_units((after - right).mean(0), made.pairs.unit)),
        }
    if cell.part == "small accept":
        del row["right"]
        row["right_advice"] = not advice.endswith("repaired")
    return {
        **row,
        "repair": verdict.advice.repair,
        "seconds": {
            "training": round(learned - began, 2),
            "audit": round(seconds, 2),
            **{name: round(value, 2) for name, value in found.record.provenance.seconds_by_step.items()},
        },
    }


def few(made: Made) -> Made:
    """The same with `FEW` samples in the acceptance split: of each label some on its own value, some on another's."""
    accept, kept = made.dataset.splits["accept"], []
    values = np.array(made.dataset.attribute_names)
    own = next(iter(made.candidates.values()))["accept"] == values[accept.label]
    for side in (own, ~own):
        for y in (0, 1):
            kept.append(np.flatnonzero(side & (accept.label == y))[: FEW // 4])
    rows = np.concatenate(kept)
    splits = {**made.dataset.splits, "accept": jax.tree.map(lambda leaf: leaf[rows], accept)}
    columns = {name: {**of_split, "accept": of_split["accept"][rows]} for name, of_split in made.candidates.items()}
    dataset = jaxdebias.Dataset(**{**vars(made.dataset), "splits": splits})
    return made._replace(dataset=dataset, candidates=columns)


def suspected(cell: Cell, *, steps: int | None = None) -> dict[str, Any]:
    """One set audited by its pictures alone."""
    of, clean = FAMILIES["colour" if cell.family == "digits" else cell.family], {"random": 0.9, "grey": None}
    made = None
    if cell.family == "digits":
        dataset = audit_sets.pictures_only(clean.get(cell.conflicting, cell.conflicting), cell.seed)
    else:
        made = audit_sets.make(cell.family, None if cell.conflicting == "none" else cell.conflicting, cell.seed)
        dataset = made.dataset
    params = trained(jax.random.key(cell.seed), of.network, dataset.splits["train"], steps or of.steps)
    state = "clean" if cell.conflicting in (*clean, "none") else "biased"
    if made is not None:
        right = shown(of.network, params, made.pairs)
        seen = state_of(cell.conflicting, over_units(right[0] - right[1], made.pairs.unit))
        state = "biased" if seen == "strong" else seen
    began = time.perf_counter()
    found = jaxdebias.audit(
        of.network, params, dataset, pixels="none", judges=JUDGES[cell.part], fix=True, seed=AUDIT_SEED
    )
    cells = found.results["discovered"]["cells"]
    return {
        "state": state,
        "suspected": cells["suspected"],
        "plain": cells["plain"],
        "flagged_share": round(cells["flagged_share"], 4),
        "confidence": [round(c, 3) for c in cells["confidence"]],
        "followed": {name: value and round(value, 4) for name, value in cells["followed"].items()},
        "groups": len(found.results["discovered"]["groups"]),
        "fix": found.verdict.advice.state,
        "right": state == "weak" or cells["suspected"] == (state == "biased"),
        "seconds": {
            "audit": round(time.perf_counter() - began, 2),
            **{name: round(value, 2) for name, value in found.record.provenance.seconds_by_step.items()},
        },
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=RESULTS / "audit_networks.json")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="of each family and share with a shortcut")
    parser.add_argument("--clean-seeds", type=int, default=CLEAN_SEEDS, help="of each family without one")
    parser.add_argument("--parts", nargs="+", default=["sets", "small accept", *JUDGES])
    parser.add_argument(
        "--trial",
        action="store_true",
        help="a few sets, hardly trained, into a temporary folder, to see that everything runs",
    )
    args = parser.parse_args()
    cells, steps = [cell for cell in plan(args.seeds, args.clean_seeds) if cell.part in args.parts], None
    if args.trial:
        cells, steps = (
            [
                Cell("sets", "mark", 0.01, 0),
                Cell("pictures only", "digits", 0.02, 0),
            ],
            60,
        )
        args.out = Path(tempfile.mkdtemp()) / args.out.name
    table = json.loads(args.out.read_text()) if args.out.exists() else {"rows": []}
    done = {Cell(*(row[name] for name in Cell._fields)) for row in table["rows"]}
    for number, cell in enumerate(cells):
        if cell in done:
            continue
        row = (suspected if cell.part in JUDGES else audited)(cell, steps=steps)
        table["rows"].append({**cell._asdict(), **row})
        table |= {
            "planned": len(cells),
            "device": device_name(),
            "versions": versions(),
            "cores": len(os.sched_getaffinity(0)),
            "date": time.strftime("%Y-%m-%d"),
        }
        write(args.out, table)
        print(
            f"{number + 1} of {len(cells)}: {cell.part}, {cell.family}, {cell.conflicting}, seed {cell.seed}: "
            f"{row['state']}, "
            + (
                f"suspected {row['suspected']}"
                if cell.part in JUDGES
                else f"gap {row['gap']['value']:.3f}, accuracy {row['accuracy']:.3f}, shortcuts "
                f"{', '.join(called(row)) or 'none'}"
            )
            + f"; {row['fix']}{'' if row.get('held') is None else ', held' if row.get('held') else ', did not hold'}"
            f"; {row['seconds']['audit']:.1f} s",
            flush=True,
        )
    table["summary"] = summary(table["rows"])
    table["margins"] = verdicts(table["summary"])
    write(args.out, table)
    print(args.out)
    for verdict in table["margins"]:
        print(
            f"{'met   ' if verdict['met'] else 'MISSED'} {verdict['part']}, {verdict['quantity']} "
            f"{verdict['margin']}, got {verdict['got']:.3f}"
        )
    return int(not args.trial and any(not verdict["met"] for verdict in table["margins"]))


def write(path: Path, table: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(table, indent=1) + "\n")
    os.replace(temporary, path)


if __name__ == "__main__":
    sys.exit(main())
