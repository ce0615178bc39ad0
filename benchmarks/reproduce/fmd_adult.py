"""Adult: accuracy against bias for every method at hand: `python benchmarks/reproduce/fmd_adult.py --data-dir DIR`.

DIR holds UCI's `adult.data` and `adult.test`. Each (attribute, seed) is a fresh split, a trained MLP (the command
line's recipe), and a row per method and setting, written as soon as it is measured; a killed run carries on. Settings
are swept, not chosen: the picture is the frontier. Rates are those of the official test file:

    counterfactual_bias   mean |p(x) - p(x with the protected column flipped)|, p the probability of more than 50K
    flips                 share of decisions that change with the column
    demographic_parity_difference, equalised_odds_difference (the larger of both), equal_opportunity_difference

For fairlearn's randomised classifiers p is the probability of the positive decision, and the rates are expectations
over their draws; "flips" is then the least share that any coupling of two draws allows, equal to the counterfactual
bias. ThresholdOptimizer decides by the attribute itself, so for it the twin has the other attribute too. The model that
fairlearn gets is a logistic regression on the same columns.

The margins were fixed before this script was first run (they come from a prototype's three seeds).
"""

import argparse
import dataclasses
import functools
import json
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from fmd_table import RESULTS, _write

from jaxdebias import models
from jaxdebias.app.recipes import RECIPES
from jaxdebias.batching import predict_rows
from jaxdebias.core import Batch, Dataset, Params, RepairSets, repair_sets
from jaxdebias.data import adult
from jaxdebias.measure import over_seeds
from jaxdebias.mitigate import (
    DfrConfig,
    FineTuneConfig,
    FmdConfig,
    dfr,
    erm,
    fine_tune,
    fine_tune_head,
    flip_column,
    fmd,
    refit_head,
    retrain_counterfactual,
    self_influence,
    train_from_scratch,
    zero_column,
)
from jaxdebias.results.provenance import device_name, versions
from jaxdebias.train import FitConfig, Optimizer, fit, steps_per_epoch

RATES = (
    "accuracy",
    "accuracy_loss",
    "counterfactual_bias",
    "flips",
    "demographic_parity_difference",
    "equalised_odds_difference",
    "equal_opportunity_difference",
)
# attribute, method, setting, rate, sign, bound; "max" is that of all seeds, the others are medians
MARGINS = [
    ("sex", "erm", "", "median", "accuracy", ">=", 0.845),
    ("sex", "erm", "", "median", "counterfactual_bias", ">=", 0.04),
    ("sex", "erm", "", "median", "counterfactual_bias", "<=", 0.07),
    ("sex", "fmd head gradB", "K=4000, 5 searched rounds", "median", "counterfactual_bias", "<=", 0.03),
    ("sex", "fmd head gradB", "K=4000, 5 searched rounds", "median", "accuracy_loss", "<=", 0.005),
    ("sex", "zero column", "", "max", "counterfactual_bias", "<=", 1e-6),
]
NEAR = 0.0025
"""Of the searched rounds. With FMD's default of one point, direction `gradB` lost 0.7 points on the test split of one
trial run (sex, seed 0); this value, and four candidates an octave, were then chosen on the accept splits of seeds 100
to 102."""
FIXED_STEPS = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)
PROXIES = ("relationship", "marital-status", "occupation")

Predict = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
"""(x [n d], attribute [n]) -> probability of class 1 `[n]`, probability `[n]` that it decides for class 1."""


class Setup(NamedTuple):
    """One (attribute, seed)."""

    data_dir: Path
    attribute: str
    seed: int
    dataset: Dataset
    column: int
    classifier: Any
    params: Params
    """Of the trained MLP."""
    seconds: float
    """Of its training."""

    def key(self, method: str) -> jax.Array:
        return jax.random.fold_in(jax.random.key(self.seed), zlib.crc32(method.encode()) & 0x7FFFFFFF)


class Entry(NamedTuple):
    """A method at one setting, not run yet."""

    method: str
    setting: str
    fit: Callable[[], tuple[Predict, Dataset]]
    """Returns what predicts, and the data set in the columns that it takes."""


# --- one row


def measured(predict: Predict, dataset: Dataset) -> dict[str, float]:
    """All rates of one classifier on the test split and its pairs."""
    test, pairs = dataset.splits["test"], dataset.pairs["test"]
    _, decided = predict(test.x, test.attribute)
    aligned = pairs.label  # x of a pair shows the attribute value that goes with its label
    (p, d), (p_twin, d_twin) = predict(pairs.x, aligned), predict(pairs.twin, 1 - aligned)
    y, a = np.asarray(test.label) == 1, np.asarray(test.attribute) == 1

    def gap(rows: np.ndarray) -> float:
        return float(abs(decided[rows & a].mean() - decided[rows & ~a].mean()))

    everyone = np.ones_like(y)
    return {
        "accuracy": float(np.where(y, decided, 1 - decided).mean()),
        "counterfactual_bias": float(np.abs(p - p_twin).mean()),
        "flips": float(np.abs(d - d_twin).mean()),
        "demographic_parity_difference": gap(everyone),
        "equalised_odds_difference": max(gap(y), gap(~y)),
        "equal_opportunity_difference": gap(y),
    }


def network(setup: Setup, params: Params, transform: Callable[[np.ndarray], np.ndarray] = lambda x: x) -> Predict:
    def predict(x, attribute):
        del attribute
        logits = predict_rows(setup.classifier.apply, params, transform(x))
        probability = np.asarray(jax.nn.softmax(logits)[:, 1], np.float64)
        return probability, np.asarray(logits.argmax(axis=1) == 1, np.float64)

    return predict


def train_network(key: jax.Array, classifier: Any, train: Batch) -> Params:
    recipe = RECIPES["adult"]
    steps = recipe.epochs * steps_per_epoch(len(train.label), recipe.batch_size)
    learner = erm(
        classifier,
        optimizer=Optimizer(
            name="adamw",
            learning_rate=recipe.learning_rate,
            weight_decay=recipe.weight_decay,
            schedule="cosine",
            steps=steps,
        ),
    )
    config = FitConfig(epochs=recipe.epochs, batch_size=recipe.batch_size, epochs_per_chunk=recipe.epochs)
    return fit(key, learner, train, config).state.variables


def set_up(data_dir: Path, attribute: str, seed: int) -> Setup:
    dataset = adult(data_dir, attribute=attribute, seed=seed)
    classifier = models.mlp(classes=2)
    start = time.perf_counter()
    params = jax.block_until_ready(train_network(jax.random.key(seed), classifier, dataset.splits["train"]))
    return Setup(
        data_dir,
        attribute,
        seed,
        dataset,
        dataset.variant["protected_column"],
        classifier,
        params,
        time.perf_counter() - start,
    )


# --- the methods


def entries(setup: Setup) -> Iterator[Entry]:
    """Every method and setting of the figure, in its order."""
    yield Entry("erm", "", lambda: (network(setup, setup.params), setup.dataset))
    yield from _fmd_entries(setup)
    yield from _head_and_network_entries(setup)
    yield from _fairlearn_entries(setup)


def _edited(setup: Setup, fit: Callable[[], tuple[Params, Any]]) -> tuple[Predict, Dataset]:
    params, _ = jax.block_until_ready(fit())
    return network(setup, params), setup.dataset


def _fmd_entries(setup: Setup) -> Iterator[Entry]:
    sets = repair_sets(setup.dataset)

    def sweeps(where: str, model: Any, **options: Any) -> Iterator[Entry]:
        def entry(method: str, setting: str, config: FmdConfig) -> Entry:
            return Entry(
                method,
                setting,
                lambda: _edited(
                    setup,
                    lambda: fmd(setup.key(method), model, setup.params, sets, config, **options),
                ),
            )

        for direction in ("ext", "gradB"):
            method = f"fmd {where} {direction}"
            for number, near in ((200, NEAR), (1000, NEAR), (4000, NEAR), (4000, 0.01)):
                config = FmdConfig(
                    direction=direction, pairs=number, rounds=5, accuracy_tolerance=near, steps_per_octave=4
                )
                setting = f"K={number}, 5 searched rounds"
                yield entry(method, setting if near == NEAR else f"{setting}, near {near}", config)
            for u in FIXED_STEPS:
                yield entry(f"{method}, one step", f"u={u:g}", FmdConfig(direction=direction, rounds=1, step=u))
        for number in (200, 4000):
            yield entry(
                f"fmd {where} ext, t = 1",
                f"K={number}",
                FmdConfig(direction="ext", pairs=number, rounds=1, search=False),
            )

    yield from sweeps("head", setup.classifier.vector)
    # The input row: the one row of layer 1 through which the column enters.
    yield from sweeps("row", setup.classifier.apply, block={"params/layers_0/kernel": (0, (setup.column,))})


def _head_and_network_entries(setup: Setup) -> Iterator[Entry]:
    dataset, classifier, params, column = setup.dataset, setup.classifier, setup.params, setup.column
    sets = repair_sets(dataset)
    train, edit = sets.train, sets.edit

    def entry(method: str, setting: str, fit: Callable[[jax.Array], tuple[Params, Any]]) -> Entry:
        return Entry(method, setting, lambda: _edited(setup, lambda: fit(setup.key(method))))

    paper = DfrConfig(
        penalty_kind="l1",
        penalties=(100.0, 30.0, 10.0, 3.0, 1.0),
        balance_by="subsamples",
        averaged=20,
        select="worst_group",
    )
    yield entry("dfr", "L2, weights", lambda key: dfr(key, classifier, params, sets))
    yield entry("dfr", "L1, 20 subsamples", lambda key: dfr(key, classifier, params, sets, paper))
    yield entry(
        "refit head",
        "train + flipped",
        lambda key: refit_head(key, classifier, params, sets, counterfactual=flip_column(train, column)),
    )
    yield entry(
        "refit head",
        "edit, both sides",
        lambda key: refit_head(
            key, classifier, params, RepairSets(train=edit), counterfactual=flip_column(edit, column)
        ),
    )
    tune = FineTuneConfig(epochs=5, batch_size=256)
    yield entry("fine-tune head", "", lambda key: fine_tune_head(key, classifier, params, sets))
    yield entry("fine-tune all", "", lambda key: fine_tune(key, classifier, params, sets, tune))
    yield entry(
        "from scratch",
        "",
        lambda key: train_from_scratch(key, classifier, params, sets, dataclasses.replace(tune, epochs=15)),
    )
    yield entry("self-influence", "no attribute", lambda key: self_influence(key, classifier, params, sets))
    recipe = RECIPES["adult"]
    yield entry(
        "retrain + flipped",
        "",
        lambda key: retrain_counterfactual(
            key,
            classifier,
            params,
            sets,
            FineTuneConfig(
                epochs=recipe.epochs,
                batch_size=recipe.batch_size,
                learning_rates=(recipe.learning_rate,),
                weight_decay=recipe.weight_decay,
            ),
            counterfactual=flip_column(train, column),
        ),
    )
    yield entry(
        "zero column",
        "",
        lambda key: (
            zero_column(
                params, ("params", "layers_0"), column, float(train.x[:, column].mean()), columns=train.x.shape[1]
            ),
            None,
        ),
    )
    for count in range(1 + len(PROXIES)):
        without = (setup.attribute, *PROXIES[:count])

        def fit(without: tuple[str, ...] = without) -> tuple[Predict, Dataset]:
            less = adult(setup.data_dir, attribute=setup.attribute, seed=setup.seed, without=without)
            trained = train_network(setup.key("without"), classifier, less.splits["train"])
            return network(setup, jax.block_until_ready(trained)), less

        yield Entry("retrain without", ", ".join(without), fit)


def _fairlearn_entries(setup: Setup) -> Iterator[Entry]:
    """fairlearn's methods on logistic regression (and one of them on the MLP). They want float64."""
    train = setup.dataset.splits["train"]
    x, label, attribute = train.x.astype(np.float64), np.asarray(train.label), np.asarray(train.attribute)

    def regression() -> Any:
        from sklearn.linear_model import LogisticRegression

        # n much larger than d: a few Newton steps, where the default solver takes a hundred passes
        return LogisticRegression(solver="newton-cholesky")

    def plain(model: Any, transform: Callable[[np.ndarray], np.ndarray]) -> Predict:
        def predict(x, attribute):
            del attribute
            probability = model.predict_proba(transform(x.astype(np.float64)))[:, 1]
            return probability, (probability > 0.5).astype(np.float64)

        return predict

    def randomised(chance: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Predict:
        def predict(x, attribute):
            decided = chance(x.astype(np.float64), np.asarray(attribute))[:, 1]
            return decided, decided

        return predict

    def exponentiated(constraint: str, bound: float) -> Predict:
        from fairlearn import reductions

        made = getattr(reductions, constraint)(difference_bound=bound)
        model = reductions.ExponentiatedGradient(regression(), made)
        model.fit(x, label, sensitive_features=attribute)
        return randomised(lambda x, attribute: model._pmf_predict(x))

    def thresholds(constraint: str) -> Predict:
        from fairlearn.postprocessing import ThresholdOptimizer

        model = ThresholdOptimizer(estimator=regression(), constraints=constraint, predict_method="predict_proba")
        model.fit(x, label, sensitive_features=attribute)
        return randomised(lambda x, attribute: model._pmf_predict(x, sensitive_features=attribute))

    def remover(alpha: float) -> Callable[[np.ndarray], np.ndarray]:
        from fairlearn.preprocessing import CorrelationRemover

        return CorrelationRemover(sensitive_feature_ids=[setup.column], alpha=alpha).fit(x).transform

    def removed_regression(alpha: float) -> Predict:
        transform = remover(alpha)
        return plain(regression().fit(transform(x), label), transform)

    def removed_network(alpha: float) -> Predict:
        fitted = remover(alpha)

        def transform(x):
            return fitted(x.astype(np.float64)).astype(np.float32)

        params = train_network(setup.key("CorrelationRemover"), setup.classifier, train._replace(x=transform(x)))
        return network(setup, params, transform)

    def entry(method: str, setting: str, fit: Callable[[], Predict]) -> Entry:
        return Entry(method, setting, lambda: (fit(), setup.dataset))

    yield entry("logistic regression", "", lambda: plain(regression().fit(x, label), lambda x: x))
    for short, constraint in (("DP", "DemographicParity"), ("EO", "EqualizedOdds")):
        for bound in (0.1, 0.05, 0.02):
            yield entry(
                f"ExponentiatedGradient {short}",
                f"bound={bound:g}",
                functools.partial(exponentiated, constraint, bound),
            )
    for short, constraint in (("DP", "demographic_parity"), ("EO", "equalized_odds")):
        yield entry(f"ThresholdOptimizer {short}", "", functools.partial(thresholds, constraint))
    for alpha in (0.25, 0.5, 0.75, 1.0):
        yield entry("CorrelationRemover + LR", f"alpha={alpha:g}", functools.partial(removed_regression, alpha))
    for alpha in (0.5, 1.0):
        yield entry("CorrelationRemover + MLP", f"alpha={alpha:g}", functools.partial(removed_network, alpha))


# --- the table


def fill(
    path: Path, cells: list[tuple[str, int]], data_dir: Path, only: str | None, skip: str | None = None
) -> dict[str, Any]:
    """Measures what is missing of every (attribute, seed), writing `path` after each row; returns the table."""
    table = json.loads(path.read_text()) if path.exists() else {"data": "adult", "rows": []}
    done = {(row["attribute"], row["seed"], row["method"], row["setting"]) for row in table["rows"]}
    for attribute, seed in cells:
        setup = set_up(data_dir, attribute, seed)
        for entry in entries(setup):
            name = (attribute, seed, entry.method, entry.setting)
            if (
                name in done
                or (only is not None and not entry.method.startswith(only))
                or (skip is not None and entry.method.startswith(skip))
            ):
                continue
            start = time.perf_counter()
            predict, dataset = entry.fit()
            seconds = setup.seconds if entry.method == "erm" else time.perf_counter() - start
            row = dict(zip(("attribute", "seed", "method", "setting"), name, strict=True))
            table["rows"].append({**row, **measured(predict, dataset), "seconds": seconds})
            table.update(device=device_name(), versions=versions() | peers(), date=time.strftime("%Y-%m-%d"))
            _write(path, table)
            print(
                f"{attribute} {seed} {entry.method} {entry.setting}: accuracy {table['rows'][-1]['accuracy']:.4f}, "
                f"bias {table['rows'][-1]['counterfactual_bias']:.4f}, {seconds:.1f} s",
                flush=True,
            )
    return table


def peers() -> dict[str, str]:
    import importlib.metadata

    return {name: importlib.metadata.version(name) for name in ("fairlearn", "scikit-learn")}


def summary(table: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row per (attribute, method, setting): mean and 95 % t-interval over seeds, median and range.

    `accuracy_loss` is against the trained network of the same seed.
    """
    trained = {(row["attribute"], row["seed"]): row["accuracy"] for row in table["rows"] if row["method"] == "erm"}
    cells: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for row in table["rows"]:
        if (row["attribute"], row["seed"]) in trained:
            loss = trained[row["attribute"], row["seed"]] - row["accuracy"]
            cells.setdefault((row["attribute"], row["method"], row["setting"]), []).append(
                {**row, "accuracy_loss": loss}
            )
    rows = []
    for (attribute, method, setting), of_cell in cells.items():
        row = {"attribute": attribute, "method": method, "setting": setting, "seeds": len(of_cell)}
        for name in (*RATES, "seconds"):
            values = np.array([cell[name] for cell in of_cell], float)
            row[name] = {
                "median": float(np.median(values)),
                "min": float(values.min()),
                "max": float(values.max()),
                **over_seeds(values)._asdict(),
            }
        rows.append(row)
    return rows


def verdicts(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    cells = {(row["attribute"], row["method"], row["setting"]): row for row in rows}
    said = []
    for attribute, method, setting, statistic, rate, sign, bound in MARGINS:
        if (attribute, method, setting) not in cells:
            continue
        got = cells[attribute, method, setting][rate][statistic]
        met = got <= bound if sign == "<=" else got >= bound
        said.append(
            {
                "attribute": attribute,
                "method": method,
                "setting": setting,
                "rate": rate,
                "margin": f"{statistic} {sign} {bound}",
                "got": got,
                "met": bool(met),
            }
        )
    return said


# --- the picture

# Settings of one method share colour and marker; those of a sweep are joined by a line. Self-influence fine-tuning is
# left out: it loses 60 points of accuracy, and the scale would show nothing else.
STYLES = {
    "erm": ("MLP, trained", "#000000", "*"),
    "zero column": ("column held at its mean", "#000000", "X"),
    "retrain without": ("retrained without the column (and proxies)", "#000000", "d"),
    "retrain + flipped": ("retrained on train + flipped rows", "#000000", "P"),
    "fmd head ext": ("FMD head, ext: 5 searched rounds", "#7fb8de", "o"),
    "fmd head gradB": ("FMD head, gradB: 5 searched rounds", "#0b5fa5", "o"),
    "fmd head ext, one step": ("FMD head, ext: one step, swept", "#7fb8de", "."),
    "fmd head gradB, one step": ("FMD head, gradB: one step, swept", "#0b5fa5", "."),
    "fmd head ext, t = 1": ("FMD head, ext: one step, t = 1", "#7fb8de", "1"),
    "fmd row ext": ("FMD input row, ext: 5 searched rounds", "#f2a093", "o"),
    "fmd row gradB": ("FMD input row, gradB: 5 searched rounds", "#c1272d", "o"),
    "fmd row ext, one step": ("FMD input row, ext: one step, swept", "#f2a093", "."),
    "fmd row gradB, one step": ("FMD input row, gradB: one step, swept", "#c1272d", "."),
    "fmd row ext, t = 1": ("FMD input row, ext: one step, t = 1", "#f2a093", "1"),
    "dfr": ("DFR: L2, L1", "#7b3f9d", "s"),
    "refit head": ("head refitted: on train, on edit rows, + flipped", "#7b3f9d", "D"),
    "fine-tune head": ("head fine-tuned on pairs", "#7b3f9d", "v"),
    "fine-tune all": ("all layers fine-tuned on pairs", "#7b3f9d", "^"),
    "from scratch": ("from scratch on the pairs alone", "#7b3f9d", "<"),
    "logistic regression": ("logistic regression (LR)", "#6e6e6e", "*"),
    "CorrelationRemover + MLP": ("CorrelationRemover, MLP", "#7fc29b", "h"),
    "CorrelationRemover + LR": ("CorrelationRemover, LR", "#2e8b57", "H"),
    "ExponentiatedGradient DP": ("ExponentiatedGradient DP, LR", "#d98a00", "o"),
    "ExponentiatedGradient EO": ("ExponentiatedGradient EO, LR", "#8a5a00", "o"),
    "ThresholdOptimizer DP": ("ThresholdOptimizer DP, LR", "#d98a00", "^"),
    "ThresholdOptimizer EO": ("ThresholdOptimizer EO, LR", "#8a5a00", "^"),
}
PANELS = (
    ("counterfactual_bias", "counterfactual bias", 0.01, (0, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)),
    ("demographic_parity_difference", "demographic parity difference", 0.05, (0, 0.02, 0.05, 0.1, 0.2)),
)
LOSSES = (0.5, 0.25, 0, -0.25, -0.5, -1, -2, -5, -10)


def _swept(method: str) -> bool:
    return "one step" in method or method.startswith(("Exponentiated", "Correlation", "retrain without"))


def figure(rows: list[dict[str, Any]], path: Path) -> None:
    """Accuracy lost against counterfactual bias and against the parity difference; a row of panels per attribute.

    Means over seeds. The grey stairs are the frontier: to their right and below, something better was measured.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    attributes = list(dict.fromkeys(row["attribute"] for row in rows))
    height = 4.3 * len(attributes) + 0.5
    drawn, axes = plt.subplots(
        len(attributes), 2, figsize=(14.0, max(height, 6.6)), squeeze=False, sharey="row", layout="constrained"
    )
    known = [method for method in STYLES if any(row["method"] == method for row in rows)]
    handles: dict[str, Any] = {}
    for attribute, line_of_axes in zip(attributes, axes, strict=True):
        of_attribute = [row for row in rows if row["attribute"] == attribute]
        trained = next(row for row in of_attribute if row["method"] == "erm")
        for axis, (rate, label, linear, ticks) in zip(line_of_axes, PANELS, strict=True):
            spots = {
                method: np.array(
                    [
                        (row[rate]["value"], -100 * row["accuracy_loss"]["value"])
                        for row in of_attribute
                        if row["method"] == method
                    ]
                )
                for method in known
            }
            axis.axhline(0, color="#bbbbbb", linewidth=0.8, zorder=0)
            axis.plot(
                *_stairs(np.concatenate([spot for spot in spots.values() if len(spot)])),
                color="#cccccc",
                linewidth=5,
                solid_joinstyle="round",
                zorder=0,
            )
            for method, spot in spots.items():
                name, colour, marker = STYLES[method]
                if len(spot):
                    stroke = marker in ".1"  # no area to be outlined in white
                    (handles[name],) = axis.plot(
                        *spot.T,
                        color=colour,
                        marker=marker,
                        markersize=11 if marker == "*" else 8 if stroke else 6.5,
                        linewidth=1.0 if _swept(method) else 0.0,
                        markeredgecolor=colour if stroke else "white",
                        markeredgewidth=1.5 if marker == "1" else 0.5,
                        alpha=0.9,
                    )
            axis.set_xscale("symlog", linthresh=linear, linscale=0.6)
            axis.set_yscale("symlog", linthresh=0.5, linscale=0.7)
            axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            axis.set_yticks(LOSSES, [f"{loss:+g}" if loss else "0" for loss in LOSSES])
            axis.minorticks_off()
            every = np.concatenate([spot for spot in spots.values() if len(spot)])
            axis.set_xlim(-0.12 * linear, 1.25 * every[:, 0].max())
            axis.set_ylim(1.3 * min(every[:, 1].min(), -1), max(0.15, 1.4 * every[:, 1].max()))
            axis.grid(color="#eeeeee", zorder=0)
            axis.spines[["top", "right"]].set_visible(False)
            axis.set_xlabel(f"{label} ({attribute})")
        accuracy = f"{100 * trained['accuracy']['value']:.1f} %"
        line_of_axes[0].set_ylabel(f"accuracy, points against the trained MLP ({accuracy})")
    seeds = max(row["seeds"] for row in rows)
    drawn.suptitle(
        "Adult: what less bias costs in accuracy. Upper left is better, grey: frontier. "
        f"Test split, mean of {seeds} seed{'s' if seeds > 1 else ''}.",
        fontsize=11,
    )
    drawn.legend(handles.values(), handles.keys(), loc="outside right center", fontsize=8.5, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn.savefig(path, dpi=110)
    plt.close(drawn)


def _stairs(spots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The frontier of (lower is better, higher is better) as a line: the most of the second for at most the first."""
    order = np.lexsort((-spots[:, 1], spots[:, 0]))
    best = [spots[order[0]]]
    for spot in spots[order[1:]]:
        if spot[1] > best[-1][1]:
            best += [np.array([spot[0], best[-1][1]]), spot]
    return tuple(np.stack(best).T)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path, required=True, help="folder with adult.data and adult.test")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--attributes", nargs="+", choices=("sex", "race"), default=["sex", "race"])
    parser.add_argument("--skip", help="leave out methods whose name starts so, to be run another time")
    parser.add_argument("--only", help="only methods whose name starts so; erm is needed for the summary")
    parser.add_argument("--out", type=Path, default=RESULTS / "fmd_adult.json")
    parser.add_argument("--figure", type=Path, default=RESULTS.parent / "figures" / "fmd_adult.png")
    arguments = parser.parse_args()
    cells = [(attribute, seed) for seed in range(arguments.seeds) for attribute in arguments.attributes]
    table = fill(arguments.out, cells, arguments.data_dir, arguments.only, arguments.skip)
    table["summary"] = summary(table)
    table["margins"] = verdicts(table["summary"])
    _write(arguments.out, table)
    figure(table["summary"], arguments.figure)
    for verdict in table["margins"]:
        print(
            f"{'met   ' if verdict['met'] else 'MISSED'} {verdict['attribute']}, {verdict['method']} "
            f"{verdict['setting']}: {verdict['rate']} {verdict['margin']}, got {verdict['got']:.4f}"
        )
    sys.exit(any(not verdict["met"] for verdict in table["margins"]))
