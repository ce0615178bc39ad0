"""The papers' table on Colored MNIST: methods x ratios x seeds, by the published protocol, beside the published rows.

All runs share the 70,000 grey digits; a run's own rows say which digit in which colour. The runs of a method are one
`train.sweep`. A row is written as soon as it is measured, so a table that was stopped carries on where it stopped and
ends the same. Test digits are only ever reported: see `Method.selection` for what chose the weights.
"""

import functools
import itertools
import json
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdebias.batching import map_rows
from jaxdebias.contracts import check_choice, expect
from jaxdebias.core import Array, Batch, Classifier, Learner, Params, take
from jaxdebias.data.aligned import cell_counts
from jaxdebias.data.colored_mnist import MnistDigits, all_digits, tinted_mnist
from jaxdebias.data.colour import draw_tints
from jaxdebias.data.streams import stream
from jaxdebias.measure.intervals import over_seeds, paired_over_seeds
from jaxdebias.mitigate.aug_cell import CANDIDATES, AugCellConfig, AugCellInfo, Candidate, aug_cell
from jaxdebias.mitigate.disent import disent
from jaxdebias.mitigate.erm import erm
from jaxdebias.mitigate.gce import gce
from jaxdebias.mitigate.group_balanced import group_balanced
from jaxdebias.mitigate.group_dro import group_dro
from jaxdebias.mitigate.jtt import JttConfig, jtt
from jaxdebias.mitigate.lff import lff
from jaxdebias.mitigate.sih import sih, sih_monitor, sih_run_config
from jaxdebias.models import cnn, mlp, mlp_two_encoders, mlp_vae
from jaxdebias.provenance import device_name, versions
from jaxdebias.published import Published, published
from jaxdebias.train.optimizer import Optimizer
from jaxdebias.train.run import RunConfig
from jaxdebias.train.schedule import HELD_OUT_LOSS, Monitor
from jaxdebias.train.sweep import map_runs, sweep

RATIOS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
Observe = Callable[[str], None]
Logits = Callable[[Any, Array], jax.Array]
"""(state, x) -> logits [n k]."""


class Case(NamedTuple):
    """One data set of the table."""

    conflicting: float
    seed: int
    train: Batch
    """60,000 undrawn rows in file order."""
    test: Batch


class Fitted(NamedTuple):
    """A trained run of a method."""

    case: Case
    logits: dict[str, np.ndarray]
    """On the test digits `[10000 10]`: `""` what the method predicts; further networks of it by name."""
    seconds: float
    """Wall time of its training; of a portion of runs that trained together, an equal share."""
    said: dict[str, Any]
    """What else a table may want, as JSON values."""


Fit = Callable[[Sequence[Case], MnistDigits, Observe], Iterator[Fitted]]


class Method(NamedTuple):
    """A row of the table."""

    labels: str
    """Which labels of the bias it needs."""
    selection: str
    """What chose the weights that are reported."""
    fit: Fit


@dataclass(frozen=True, kw_only=True)
class TableConfig:
    """Which part of the table."""

    data_dir: Path
    seeds: int = 1
    methods: tuple[str, ...] = ("erm", "sih", "aug-cell")
    ratios: tuple[float, ...] = RATIOS

    def __post_init__(self):
        expect(self.seeds >= 1, "seeds", "at least 1", self.seeds)
        for name in self.methods:
            check_choice("methods", name, METHODS)
        for ratio in self.ratios:
            expect(0 < ratio < 1, "ratios", "shares between 0 and 1", ratio)


def colored_mnist_table(config: TableConfig, out: Path, *, observe: Observe = lambda line: None) -> dict[str, Any]:
    """Measures what is missing of the table, writes `out` after every row, and returns the table with its summary.

    Args:
      out: a JSON file, made if missing; rows that it has are kept.
      observe: called with a line of text now and then.

    Raises:
      ContractError: unknown methods, missing files, an `out` of something else.
    """
    table = {"data": "colored-mnist", "protocol": published("colored-mnist").protocol, "rows": []}
    if out.exists():
        table = json.loads(out.read_text())
        expect(table.get("data") == "colored-mnist", str(out), "a table of colored-mnist", table.get("data"))
    digits = all_digits(config.data_dir)
    wanted = set(itertools.product(config.methods, config.ratios, range(config.seeds)))
    for name in config.methods:
        done = {(row["conflicting"], row["seed"]) for row in table["rows"] if row["method"] == name}
        # Seeds first: a table that is stopped early has every ratio.
        todo = [(ratio, seed) for seed in range(config.seeds) for ratio in config.ratios if (ratio, seed) not in done]
        cases = Cases(digits, todo)
        for fitted in METHODS[name].fit(cases, digits, lambda line, name=name: observe(f"{name}: {line}")):
            row = {"method": name, "conflicting": fitted.case.conflicting, "seed": fitted.case.seed,
                   **accuracies(fitted.logits, fitted.case.test), "seconds": fitted.seconds,
                   "selection": METHODS[name].selection, **fitted.said}
            table["rows"].append(row)
            table |= {"device": device_name(), "versions": versions(), "date": time.strftime("%Y-%m-%d")}
            _write(out, table)
            have = sum((one["method"], one["conflicting"], one["seed"]) in wanted for one in table["rows"])
            observe(f"{name}, {row['conflicting']:.1%}, seed {row['seed']}: accuracy {row['accuracy']:.2%}, "
                    f"conflicting {row['bias_conflicting_accuracy']:.2%}, {row['seconds']:.0f} s "
                    f"({have} of {len(wanted)} rows)")
    table["summary"] = summary(table["rows"])
    table["paired"] = paired(table["rows"])
    _write(out, table)
    return table


class Cases(Sequence):
    """Data sets by (ratio, seed), built when they are asked for: all of a large table would not fit."""

    def __init__(self, digits: MnistDigits, keys: Sequence[tuple[float, int]]):
        self.digits, self.keys = digits, keys

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, i: int) -> Case:
        ratio, seed = self.keys[i]
        return Case(ratio, seed, *tinted_mnist(self.digits, conflicting=ratio, seed=seed))


def accuracies(logits: Mapping[str, np.ndarray], test: Batch) -> dict[str, float]:
    """Plain, bias-aligned and bias-conflicting accuracy of each network; of `""` without a prefix."""
    label, aligned = np.asarray(test.label), np.asarray(test.label) == np.asarray(test.attribute)
    rates = {}
    for name, values in logits.items():
        right, prefix = np.asarray(values).argmax(axis=1) == label, f"{name}_" if name else ""
        rates[f"{prefix}accuracy"] = float(right.mean())
        rates[f"{prefix}bias_aligned_accuracy"] = float(right[aligned].mean())
        rates[f"{prefix}bias_conflicting_accuracy"] = float(right[~aligned].mean())
    return rates


# --- how each method is trained

def _swept(learner_of: Callable[[Case], Learner], config: RunConfig, *, others: Mapping[str, Logits] | None = None,
           held_out: bool = False, monitor: Monitor = HELD_OUT_LOSS) -> Fit:
    """One sweep over all cases whose learner is the same, which for most methods are all.

    Args:
      others: further networks to be measured on the test digits.
      held_out: keep back a random tenth of the training digits, drawn by the seed.
    """
    def fit(cases: Sequence[Case], digits: MnistDigits, observe: Observe) -> Iterator[Fitted]:
        gray = jax.device_put(digits.gray)
        for learner, group in itertools.groupby(cases, key=learner_of):
            own = list(group)
            kept = [_tenth(case) if held_out else (case.train, None) for case in own]

            def look(runs: tuple[int, ...], epoch: int, means: Mapping[str, float], own: Sequence[Case] = own) -> None:
                which = ", ".join(f"{own[i].conflicting:.1%} seed {own[i].seed}" for i in runs[:3])
                observe(f"{which}{' ...' if len(runs) > 3 else ''}: epoch {epoch} of at most {config.epochs}, loss "
                        f"{means['loss']:.4g}")

            parts = sweep(
                [jax.random.key(case.seed) for case in own], learner, [train for train, _ in kept], config,
                held_out=[rest for _, rest in kept] if held_out else None, monitor=monitor, shared=gray,
                view=draw_tints, observe=look)
            for part in parts:
                tests = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(own[i].test for i in part.runs))
                networks = {"": learner.predict, **(others or {})}
                logits = {name: np.asarray(_logits(part.state, tests, gray, of=of)) for name, of in networks.items()}
                for place, i in enumerate(part.runs):
                    yield Fitted(own[i], {name: values[place] for name, values in logits.items()},
                                 part.seconds / len(part.runs),
                                 {"epochs": int(part.epoch[place]), "best_epoch": int(part.best_epoch[place])})

    return fit


def _tenth(case: Case) -> tuple[Batch, Batch]:
    """Nine tenths of the training digits, and the tenth, as biased, on which a method watches its own loss."""
    order = stream(case.seed, "colored-mnist held out").permutation(len(case.train.label))
    return take(case.train, np.sort(order[len(order) // 10:])), take(case.train, np.sort(order[:len(order) // 10]))


@functools.partial(jax.jit, static_argnames=("of",))
def _logits(states: Any, tests: Batch, gray: jax.Array, *, of: Logits) -> jax.Array:
    """`[r n k]` of each run on its own test digits."""
    def one(state: Any, test: Batch) -> jax.Array:
        return map_rows(lambda both, rows: of(both[0], draw_tints(both[1], rows).x), (state, gray), test)

    return map_runs(one, states, tests)


ADAM = Optimizer(learning_rate=1e-3)
EPOCHS = RunConfig(epochs=100, batch_size=256)
BRANCHES = mlp_vae()


def _bias_branch(state: Any, x: Array) -> jax.Array:
    return BRANCHES.bias.apply(state.variables, x)


def _biased_network(state: Any, x: Array) -> jax.Array:
    return mlp().apply(state.biased_variables, x)


def _fit_jtt(cases: Sequence[Case], digits: MnistDigits, observe: Observe) -> Iterator[Fitted]:
    """One epoch, then 100 in which its errors weigh 51 times as much; settings that were not tuned."""
    config = JttConfig(first=RunConfig(epochs=1, batch_size=256), second=EPOCHS)
    for case in cases:
        began = time.perf_counter()
        trained, info = jtt(jax.random.key(case.seed), mlp(), ADAM, _drawn(digits, case.train), config)
        seconds, conflicting = time.perf_counter() - began, case.train.label != case.train.attribute
        logits = map_rows(mlp().apply, trained.state.variables, _drawn(digits, case.test).x)
        yield Fitted(case, {"": np.asarray(logits)}, seconds,
                     {"flagged_precision": _share(conflicting[info.errors]),
                      "flagged_recall": _share(info.errors[conflicting])})


def _aug_cell(classifier: Classifier, config: AugCellConfig = AugCellConfig()) -> Fit:
    """AUG-CELL whose judges are the small MLP; rows say how every candidate does, which is its ablation."""
    def fit(cases: Sequence[Case], digits: MnistDigits, observe: Observe) -> Iterator[Fitted]:
        gray = jax.device_put(digits.gray)
        for case in cases:
            began = time.perf_counter()
            unlabelled = case.train._replace(attribute=np.full_like(case.train.label, -1))
            params, info = aug_cell(jax.random.key(case.seed), classifier, unlabelled, config, judge=mlp(),
                                    shared=gray, view=draw_tints)
            seconds = time.perf_counter() - began
            test = _drawn(digits, case.test).x
            yield Fitted(case, {"": np.asarray(map_rows(classifier.apply, params, test))}, seconds,
                         aug_cell_said(info, case.train, case.test, lambda trained, test=test: np.asarray(
                             map_rows(classifier.apply, trained, test))))

    return fit


def aug_cell_said(info: AugCellInfo, train: Batch, test: Batch,
                  logits: Callable[[Params], np.ndarray]) -> dict[str, Any]:
    """What a table keeps of a run of AUG-CELL, as JSON values; the true attribute is used here alone.

    Args:
      logits: from a candidate's parameters to its logits on the test rows.
    """
    flagged, conflicting = info.cells.guess != train.label, train.label != train.attribute
    return {
        "chosen": info.chosen, "said": info.said, "confidence": [_known(one) for one in info.confidence],
        "scores": {name: one._asdict() for name, one in info.scores.items()}, "directed": _known(info.directed),
        "candidates": {name: accuracies({"": logits(trained)}, test) for name, trained in info.trained.items()},
        "flagged_share": info.cells.flagged_share, "flagged_precision": _share(conflicting[flagged]),
        "flagged_recall": _share(flagged[conflicting]), "left_out": int(info.suspect.sum()),
        "left_out_conflicting": int((info.suspect & conflicting).sum())}


def _drawn(digits: MnistDigits, rows: Batch) -> Batch:
    return rows._replace(x=np.asarray(draw_tints(digits.gray, rows).x))


def _share(flags: np.ndarray) -> float | None:
    return float(flags.mean()) if flags.size else None


def _counts(case: Case) -> tuple[tuple[int, ...], ...]:
    return tuple(map(tuple, cell_counts(case.train.label, case.train.attribute, 10, 10).tolist()))


CNN_RECIPE = AugCellConfig(steps=5000, learning_rate=2e-3, candidates=(
    CANDIDATES[0], Candidate(name="aug-cell", tau=0.5, augmented=True)))
"""Chosen on 50,000 of the training digits of seed 101, by the other 10,000 in balanced colours; test digits and the
table's seeds played no part, colours of training digits did."""
LAST = "last weights"
GUESSED = "guessed cells of a held-out tenth, no bias label"
METHODS: dict[str, Method] = {
    "erm": Method("none", LAST, _swept(lambda case: erm(mlp(), ADAM), RunConfig(epochs=100, batch_size=256,
                                                                             drop_last=True))),
    "gce": Method("none", LAST, _swept(lambda case: gce(mlp(), ADAM), EPOCHS)),
    "sih": Method("none", "own loss on a biased tenth of the training digits (official protocol)", _swept(
        lambda case: sih(BRANCHES), sih_run_config(), others={"bias_branch": _bias_branch}, held_out=True,
        monitor=sih_monitor(BRANCHES, protocol="official"))),
    "sih-fixed": Method("none", "own loss on a biased tenth of the training digits (all of them, every epoch)", _swept(
        lambda case: sih(BRANCHES), sih_run_config(), others={"bias_branch": _bias_branch}, held_out=True,
        monitor=sih_monitor(BRANCHES))),
    "aug-cell": Method("none", GUESSED, _aug_cell(mlp())),
    "aug-cell-cnn": Method("none", GUESSED, _aug_cell(cnn(channels=(16, 32, 64), dense=128), CNN_RECIPE)),
    "lff": Method("none", LAST, _swept(lambda case: lff(mlp(), ADAM, samples=len(case.train.label)), EPOCHS,
                                       others={"biased_network": _biased_network})),
    "disent": Method("none", LAST, _swept(
        lambda case: disent(mlp_two_encoders(), samples=len(case.train.label)),
        RunConfig(epochs=214, steps_per_epoch=234, batch_size=256))),
    "jtt": Method("none, with settings that were not tuned", LAST, _fit_jtt),
    "group-balanced": Method("all training samples", LAST, _swept(
        lambda case: group_balanced(mlp(), ADAM, classes=10, attributes=10), EPOCHS)),
    "group-dro": Method("all training samples", LAST, _swept(
        lambda case: group_dro(mlp(), ADAM, counts=_counts(case)), EPOCHS)),
}


# --- the table

def summary(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row per method and ratio: mean, interval over seeds, the published row and how the two compare."""
    cells: dict[tuple[str, float], list[Mapping[str, Any]]] = {}
    for row in rows:
        cells.setdefault((row["method"], row["conflicting"]), []).append(row)
    found = []
    for (method, ratio), of_cell in cells.items():
        row = {"method": method, "conflicting": ratio, "seeds": len(of_cell), "labels": METHODS[method].labels,
               "selection": METHODS[method].selection}
        for rate in ("accuracy", "bias_aligned_accuracy", "bias_conflicting_accuracy", "seconds"):
            values = np.array([one[rate] for one in of_cell])
            interval = over_seeds(values)
            deviation = float(values.std(ddof=1)) if len(values) > 1 else None
            row[rate] = {"mean": interval.value, "low": _known(interval.low), "high": _known(interval.high),
                         "deviation": deviation}
        row["published"] = None
        if (beside := published("colored-mnist").find(method, ratio)) is not None:
            row["published"] = compare(100 * np.array([one["accuracy"] for one in of_cell]), beside)
        found.append(row)
    return sorted(found, key=lambda row: (list(METHODS).index(row["method"]), row["conflicting"]))


def compare(ours: np.ndarray, beside: Published) -> dict[str, Any]:
    """Ours against a published row, both in per cent: difference of the means with Welch's 95 % interval.

    The verdict is `above` or `below` where the interval leaves out 0; `match` where it holds 0 and lies within two
    standard deviations of the published runs; otherwise `not separable`, as with a single run.
    """
    from scipy import special

    theirs = np.asarray(beside.runs)
    spread = theirs.std(ddof=1)
    said = {"mean": float(theirs.mean()), "deviation": float(spread), "runs": len(theirs),
            "difference": float(ours.mean() - theirs.mean()), "low": None, "high": None, "verdict": "not separable"}
    if len(ours) < 2:
        return said
    parts = np.array([ours.var(ddof=1) / len(ours), theirs.var(ddof=1) / len(theirs)])
    freedom = parts.sum() ** 2 / (parts**2 / (np.array([len(ours), len(theirs)]) - 1)).sum()
    half = float(special.stdtrit(freedom, 0.975) * np.sqrt(parts.sum()))
    low, high = said["difference"] - half, said["difference"] + half
    verdict = "above" if low > 0 else "below" if high < 0 else "match" if max(-low, high) <= 2 * spread else \
        "not separable"
    return said | {"low": low, "high": high, "verdict": verdict}


def paired(rows: Sequence[Mapping[str, Any]], baseline: str = "erm") -> list[dict[str, Any]]:
    """Each method's gain in accuracy over the baseline, with an interval over the seeds that both have."""
    cells = {(row["method"], row["conflicting"], row["seed"]): row["accuracy"] for row in rows}
    found = []
    for method, ratio in dict.fromkeys((row["method"], row["conflicting"]) for row in rows):
        seeds = [seed for name, share, seed in cells if (name, share) == (method, ratio)
                 and (baseline, ratio, seed) in cells]
        if method == baseline or not seeds:
            continue
        gain = paired_over_seeds([cells[baseline, ratio, seed] for seed in seeds],
                                 [cells[method, ratio, seed] for seed in seeds])
        certain = bool(gain.low > 0 or gain.high < 0)  # NaN bounds, of one seed, are not
        found.append({"method": method, "against": baseline, "conflicting": ratio, "seeds": len(seeds),
                      "difference": gain.value, "low": _known(gain.low), "high": _known(gain.high),
                      "verdict": ("above" if gain.value > 0 else "below") if certain else "not separable"})
    return found


def _known(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _write(path: Path, table: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(table, indent=1) + "\n")
    os.replace(temporary, path)
