"""Does Attention-IoU see a bias grow? `python benchmarks/reproduce/attention_iou.py --data-dir DIR`.

DIR has `objects_on_scenes`. A small network is trained at 50 to 100 % aligned pictures; the map of the predicted logit
(Grad-CAM on the network's own 8 x 8 grid, the official chain of minimum and maximum) is scored against the object and
against the background on 800 test pictures, 200 of each cell. Two data sets:

    composites    64 x 64, motorbike or not, in a forest or at sea: the place is much the easier cue
    scenes        32 x 32, generated: round or angular, on one of two kinds of texture
    fewer scenes  the same, half as many pictures: the second attempt. The first recipe missed the margins
                  of tau, because up to 80 % its networks learn the shape and little else

The score to expect of a map that looks everywhere alike stands beside every score. Nothing here was chosen by test
pictures: the recipes (`RECIPES`) were written down before, every run keeps its last step, and of the composites' cut-
outs and scenes only `SELECTION_SHARE`, the least that leaves one of each kind to the splits that are not used here, is
taken from training. A seed is a new data set (other held-out cut-outs and scenes), new first weights and a new order;
the levels of one seed have the same test pictures.

Intervals: of a network's score, over test pictures (over cut-outs where there are several pictures of one); of a mean,
Student's over seeds; of Kendall's tau-b with the accuracy on bias-conflicting pictures, over all draws of the seeds
with replacement, which with three seeds is little more than their range. Two taus: of the levels, each the mean of its
networks, as in the paper, and of all networks, each a point.

The networks at 50 % have to reach `LEARNED` before others are trained: what has not learned the object cannot stop
looking at it. `MARGINS` were fixed before this script was first run; the bounds for composites come from a prototype's
two seeds at other levels. tau of the object score on composites is reported without a goal: there it was not monotone.
The margins of `fewer scenes` are those of `scenes`; its recipe was written down after the rows of `scenes` and before
its own. Resumable: rows in the file are kept. When all rows are there, the script sums up and draws the figure.
"""

import argparse
import itertools
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from attention_iou_scenes import DATA, LEARNED, LEVELS, RECIPES, SEEDS, TEST, Recipe
from attention_iou_trends import ACCURACIES, OF, summary, trends, verdicts

from jaxdebias.batching import predict_rows
from jaxdebias.core import Batch, Classifier, Dataset, Params
from jaxdebias.data._sets.composites import REGIONS
from jaxdebias.explain import class_maps
from jaxdebias.explain.maps import as_published
from jaxdebias.measure import (
    Interval,
    area_fraction,
    chance_attention_iou,
    group_report,
    has_mass,
    mask_scores,
    region_masks,
    score_report,
)
from jaxdebias.mitigate import erm
from jaxdebias.results.provenance import device_name, versions
from jaxdebias.train import FitConfig, Optimizer, fit

RESULTS = Path(__file__).parents[1] / "results"


def measured(dataset: Dataset, recipe: Recipe, seed: int) -> dict[str, Any]:
    """One network, trained and scored: a row without its names."""
    key_train, _, key_scores = jax.random.split(jax.random.key(seed), 3)
    began = time.perf_counter()
    classifier, steps, per_epoch = recipe.network, recipe.steps, min(recipe.steps_per_epoch, recipe.steps)
    optimizer = Optimizer(name="adamw", learning_rate=2e-3, weight_decay=1e-4, schedule="cosine", steps=steps)
    config = FitConfig(
        epochs=steps // per_epoch,
        epochs_per_chunk=steps // per_epoch,
        batch_size=64,
        steps_per_epoch=per_epoch,
        drop_last=True,
    )
    train = dataset.splits["train"]._replace(twin=None, mask=None, unit=None)
    result = fit(key_train, erm(classifier, optimizer=optimizer), train, config)
    params, test, seconds = result.state.variables, dataset.splits["test"], time.perf_counter() - began

    logits = np.asarray(predict_rows(classifier.apply, params, test.x))
    report = group_report(logits, test, dataset.aligned)
    row: dict[str, Any] = {name: rounded(getattr(report, name)) for name in ACCURACIES}
    return {**row, **scored(key_scores, classifier, params, test, dataset.aligned), "seconds": seconds}


def scored(key: Any, classifier: Classifier, params: Params, test: Batch, aligned: np.ndarray) -> dict[str, Any]:
    """The scores of both regions, on aligned, on conflicting and on all pictures, with chance on all of them."""
    maps = as_published(class_maps(classifier.spatial, params, test.x, target="predicted").maps)
    masks = region_masks(test.mask, tuple(REGIONS.values()), grid=maps.shape[2:])
    scores = np.asarray(mask_scores(maps, masks))[:, 0]
    conflicting = np.where(aligned[test.label, test.attribute], 0, 1).astype(np.int32)
    report = score_report(
        key,
        scores,
        conflicting,
        groups=2,
        score="mask",
        unit=test.unit,
        chance=np.asarray(chance_attention_iou(area_fraction(masks))),
    )
    row: dict[str, Any] = {}
    for r, region in enumerate(REGIONS):
        for g, of in enumerate(OF):
            row[f"{region}_{of}"] = rounded(Interval(*(field[g, r] for field in report.score)))
        row[f"{region}_chance"] = float(report.chance[-1, r])
    return {**row, "grid": list(maps.shape[2:]), "empty_maps": int((~np.asarray(has_mass(maps))).sum())}


def rounded(interval: Interval) -> dict[str, float]:
    return {name: round(float(value), 5) for name, value in interval._asdict().items()}


COLOURS = {"object": "#0063b2", "background": "#c44e00"}


def figure(table: dict[str, Any], path: Path) -> None:
    """Scores against the level, a panel per data set: networks with the intervals of their test pictures, the line
    through the means over seeds, the chance level of each region, and the accuracy that the scores should follow."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    names = list(dict.fromkeys(row["data"] for row in table["summary"]))
    drawn, axes = plt.subplots(
        1, len(names), figsize=(5.6 * len(names), 4.6), squeeze=False, sharey=True, layout="constrained"
    )
    for name, axis in zip(names, axes[0], strict=True):
        means = sorted((row for row in table["summary"] if row["data"] == name), key=lambda row: row["level"])
        levels = [row["level"] for row in means]
        for side, region in ((-1, "object"), (1, "background")):
            colour = COLOURS[region]
            axis.plot(
                levels,
                [row[f"{region}_all"]["value"] for row in means],
                color=colour,
                linewidth=1.8,
                label=f"{region} score",
            )
            axis.plot(
                levels,
                [row[f"{region}_chance"] for row in means],
                color=colour,
                linewidth=1.2,
                linestyle=(0, (4, 3)),
                label=f"chance, {region}",
            )
            for row in table["rows"]:
                if row["data"] == name:
                    one = row[f"{region}_all"]
                    # Side by side, so that the bars of one level do not hide each other.
                    axis.errorbar(
                        row["level"] + 0.45 * side + 0.6 * (row["seed"] - 1),
                        one["value"],
                        [[one["value"] - one["low"]], [one["high"] - one["value"]]],
                        color=colour,
                        fmt="o",
                        markersize=3.2,
                        linewidth=0.9,
                        capsize=1.5,
                    )
        axis.plot(
            levels,
            [row["bias_conflicting_accuracy"]["value"] for row in means],
            color="#888888",
            linewidth=1.4,
            linestyle=":",
            label="accuracy, conflicting pictures",
        )
        axis.set_title(name, fontsize=11)
        axis.set_xlabel("aligned training pictures, %")
        axis.set_xticks(levels)
        axis.set_ylim(0, 1.02)
        axis.grid(color="#eeeeee", zorder=0)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0, 0].set_ylabel("Attention-IoU; accuracy")
    drawn.suptitle(
        "Where networks look; bars: one network, 95 % interval over test pictures; lines: means over "
        f"{max(row['seeds'] for row in table['summary'])} networks",
        fontsize=11,
    )
    handles, labels = axes[0, 0].get_legend_handles_labels()
    drawn.legend(handles, labels, loc="outside lower center", ncols=5, fontsize=8.5, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn.savefig(path, dpi=110)
    plt.close(drawn)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path, help="of composites; default: JAXDEBIAS_DATA")
    parser.add_argument("--data", nargs="+", choices=DATA, default=list(DATA))
    parser.add_argument("--levels", nargs="+", type=int, choices=LEVELS, default=list(LEVELS))
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--out", type=Path, default=RESULTS / "attention_iou.json")
    parser.add_argument("--figure", type=Path, default=RESULTS.parent / "figures" / "attention_iou.png")
    parser.add_argument(
        "--trial",
        action="store_true",
        help="few pictures and steps, into a temporary folder, to see that everything runs",
    )
    args = parser.parse_args()
    recipes, test = RECIPES, TEST
    if args.trial:
        recipes = {data: recipe._replace(train=256, steps=4) for data, recipe in RECIPES.items()}
        test, args.levels, args.seeds = 48, [50, 100], 2
        folder = Path(tempfile.mkdtemp())
        args.out, args.figure = folder / args.out.name, folder / args.figure.name
    table = json.loads(args.out.read_text()) if args.out.exists() else {"rows": []}
    done = {(row["data"], row["level"], row["seed"]) for row in table["rows"]}
    for data in args.data:
        for level, seed in itertools.product(sorted(args.levels), range(args.seeds)):
            if level > LEVELS[0] and seed == 0 and not args.trial:
                check_learned(data, table["rows"])
            if (data, level, seed) in done:
                continue
            recipe = recipes[data]
            row = measured(DATA[data](args.data_dir, (100 - level) / 100, seed, recipe.train, test), recipe, seed)
            table["rows"].append({"data": data, "level": level, "seed": seed, "steps": recipe.steps, **row})
            table |= {"device": device_name(), "versions": versions(), "date": time.strftime("%Y-%m-%d")}
            write(args.out, table)
            print(
                f"{data} {level} %, seed {seed}: accuracy {row['accuracy']['value']:.3f}, conflicting "
                f"{row['bias_conflicting_accuracy']['value']:.3f}, object {row['object_all']['value']:.3f} (chance "
                f"{row['object_chance']:.3f}), background {row['background_all']['value']:.3f} (chance "
                f"{row['background_chance']:.3f}), {row['seconds']:.0f} s",
                flush=True,
            )

    wanted = {(data, level, seed) for data in DATA for level in LEVELS for seed in range(SEEDS)}
    if not args.trial and wanted - {(row["data"], row["level"], row["seed"]) for row in table["rows"]}:
        print("not all rows are there yet: no summary")
        return 0
    table["rows"].sort(key=lambda row: (list(DATA).index(row["data"]), row["level"], row["seed"]))
    table["summary"], table["trends"] = summary(table["rows"]), trends(table["rows"])
    table["margins"] = verdicts(table["trends"])
    write(args.out, table)
    figure(table, args.figure)
    print(args.out, args.figure)
    for verdict in table["margins"]:
        print(
            f"{'met   ' if verdict['met'] else 'MISSED'} {verdict['data']}, {verdict['quantity']} "
            f"{verdict['margin']}, got {verdict['got']:.3f}"
        )
    return int(not args.trial and any(not verdict["met"] for verdict in table["margins"]))


def write(path: Path, table: dict[str, Any]) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(table, indent=1) + "\n")
    os.replace(temporary, path)


def check_learned(data: str, rows: Sequence[dict[str, Any]]) -> None:
    """Stops the script if the networks without a bias have not learned the task, or are not there."""
    fair = [row["accuracy"]["value"] for row in rows if (row["data"], row["level"]) == (data, LEVELS[0])]
    if not fair or np.mean(fair) < LEARNED:
        raise SystemExit(
            f"{data}: accuracy at {LEVELS[0]} % has to be at least {LEARNED} before other levels are "
            f"trained, got {np.mean(fair) if fair else 'no rows'}"
        )


if __name__ == "__main__":
    sys.exit(main())
