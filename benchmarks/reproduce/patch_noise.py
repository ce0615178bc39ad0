"""Does training with noise on what carries the bias help? `python benchmarks/reproduce/patch_noise.py --data-dir DIR`.

DIR has `utkface` and `objects_on_scenes`. Four biases at 95 % aligned training images:

    marker        UTKFace, gender; a striped patch in a corner: the case for which the method is made
    glyphs        generated letters, the left one the class, the right one the bias: a place, and a large one
    composites    motorbikes in forests and at sea: the background, everywhere; the negative control
    digits        coloured digits (98 %): the colour lies on the digit itself; the method cannot help

Per case and seed a patch net is trained for the bias attribute on the biased training images. Its map, `pointwise` over
the balanced split edit, gives the masks, and `localise` says of it, before anything else is trained, whether the bias
has a place. Then all arms are trained by the same recipe, first weights and order, in one program:

    plain          images as they are
    noise          sigma .5 on the top 30 % of the map, the paper's operation; zero, swap: black, other images' pixels
    random         noise on as many random pixels; elsewhere: on as many of the map's weakest
    ceiling        plain, trained without the marker, or where that cannot be on a data set without the bias
    zero budget    zero on the fewest pixels that hold 90 % of the map; zero protected: these without the top 30 % of
                   the target's own pointwise map
    zero image, swap image    on the fewest pixels that hold 90 % of the image's own out-of-fold map: for a background
                   this swaps most of the scene
    oracle         swap on the true region of each image

Each arm is tested on clean images and on images corrupted as in its own training. The last step is kept, nothing is
chosen by test images. A seed is a new data set (composites and faces: other held-out ones), new patch nets, new first
weights and a new order. Intervals: exact per network and cell, Student's over seeds, paired for differences.

`MARGINS` were fixed before this script was first run. Those of the marker come from a prototype's three seeds on one
set of faces; that of glyphs is ours. Resumable: rows in the file are kept. The figure is drawn of the rows that are
there; `--figure-only` does nothing else.
"""

import argparse
import functools
import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from patch_noise_cases import (
    ATTEMPTS,
    BUDGET,
    CASES,
    PAPERS,
    Case,
    regions_of,
    small,
)
from patch_noise_figure import figure
from scipy import ndimage

from jaxdebias.batching import predict_rows
from jaxdebias.core import Batch, Dataset
from jaxdebias.explain import PatchFit, PatchFitConfig, fit_patches, localise
from jaxdebias.measure import Interval, group_report, over_seeds, paired_over_seeds
from jaxdebias.mitigate import (
    Corruption,
    PatchNoiseConfig,
    PatchNoiseHyper,
    budget_mask,
    corrupt,
    corruption,
    erm,
    patch_noise,
    protect,
    quantile_mask,
)
from jaxdebias.models import patch_net
from jaxdebias.results.provenance import device_name, versions
from jaxdebias.train import FitConfig, Optimizer, sweep

RESULTS = Path(__file__).parents[1] / "results"
SEEDS = 5

# case, quantity, sign, bound; of means over seeds. "gap": aligned minus conflicting accuracy.
MARGINS = (
    ("marker", "bias in the top 10 %", ">=", 0.9),
    ("marker", "spread", "<=", 0.0),
    ("marker", "plain gap", ">=", 0.15),
    ("marker", "zero gap", "<=", 0.05),
    ("marker", "noise gap, own", "<=", 0.12),
    ("marker", "zero over plain", ">=", 0.05),
    ("glyphs", "mask near the bias", ">=", 0.9),
    ("glyphs", "spread", "<=", 0.0),
    ("glyphs", "noise over plain, own", ">=", 0.05),
    ("glyphs", "zero over plain", ">=", 0.05),
    ("glyphs", "random over plain, own", "<=", 0.05),
    ("composites", "spread", ">=", 1.0),
    ("digits", "spread", ">=", 1.0),
)


def measured(case: Case, seed: int, data_dir: Path | None, trial: bool) -> dict[str, Any]:
    """A row without its names: the map, and every arm."""
    began = time.perf_counter()
    key_map, key_own, key_target, key_train, key_test = jax.random.split(jax.random.key(seed), 5)
    dataset = case.load(data_dir, seed, trial, ceiling=False)
    train, edit, test = (dataset.splits[name] for name in ("train", "edit", "test"))
    fitted = functools.partial(fit_patches, config=PatchFitConfig(stride=case.stride, steps=case.patch_steps))
    net = patch_net(patch=case.patch, classes=len(dataset.attribute_names))
    fit = fitted(key_map, net, train.x, train.attribute)
    map_ = fit.general_map(edit.x, edit.attribute, confidence="pointwise")
    row: dict[str, Any] = {"map": described(case, fit, map_, edit, test)}
    print(f"  patches: accuracy {fit.accuracy:.3f}; {row['map']['warning'] or 'the bias has a place'}", flush=True)

    regions = regions_of(case, dataset, fit, map_, key_own)
    target_net = patch_net(patch=case.patch, classes=len(dataset.label_names))
    target = fitted(key_target, target_net, train.x, train.label)
    saved = protect(regions["zero budget"][0], target.general_map(edit.x, edit.label, confidence="pointwise"))
    row["map"] |= {"target overlap": saved.overlap, "target spared": saved.spared}
    if saved.mask.any():
        regions["zero protected"] = (saved.mask, saved.mask)

    ceiling = case.load(data_dir, seed, trial, ceiling=True).splits["train"]
    row["arms"] = trained(case, dataset, ceiling, regions, key_train, key_test)
    return {**row, "seconds": round(time.perf_counter() - began, 1)}


def described(case: Case, fit: PatchFit, map_: np.ndarray, edit: Batch, test: Batch) -> dict[str, Any]:
    """What the map says of itself, and what the true regions say of it."""
    said = localise(map_)
    row = {
        "patch accuracy": fit.accuracy,
        "raw share": said.raw_share,
        "top share": said.top_share,
        "gini": said.gini,
        "spread": float(said.spread),
        "warning": said.warning,
        "budget area": float(budget_mask(map_, BUDGET, floor=0.0).mean()),
        "spread, info_gain": float(localise(fit.general_map(edit.x)).spread),
    }
    if case.region is not None:
        there = np.asarray(test.mask) == case.region
        tops = {share: quantile_mask(map_, 1 - share / 100) for share in (10, 30)}
        inside = {f"bias in the top {share} %": float(there[:, top].sum() / there.sum()) for share, top in tops.items()}
        size = 2 * case.patch - 1  # up to P - 1 pixels away
        near = ndimage.maximum_filter(there, size=(1, size, size))
        mask = quantile_mask(map_)
        row |= {**inside, "mask near the bias": float(near[:, mask].mean()), "area near the bias": float(near.mean())}
    return row


def operation(arm: str) -> str:
    """What an arm does to its region."""
    return {"plain": "keep", "ceiling": "keep", "random": "noise", "elsewhere": "noise", "oracle": "swap"}.get(
        arm, arm.split()[0]
    )


def trained(
    case: Case,
    dataset: Dataset,
    ceiling: Batch,
    regions: Mapping[str, tuple[np.ndarray, np.ndarray]],
    key_train: Any,
    key_test: Any,
) -> dict[str, Any]:
    """Every arm, trained in one sweep and tested clean and as it was trained."""
    train, test = dataset.splits["train"], dataset.splits["test"]
    shape = train.x.shape[:3]
    arms = [arm for arm in (*PAPERS, *ATTEMPTS) if arm in regions or operation(arm) == "keep"]

    def hidden(arm: str, part: int, shape: Sequence[int]) -> Corruption:
        region = regions[arm][part] if arm in regions else np.zeros(shape[1:], bool)
        return corruption(np.broadcast_to(region, shape), PatchNoiseConfig(operation=operation(arm)))

    steps = case.epochs * case.steps_per_epoch
    plain = erm(
        case.classifier,
        optimizer=Optimizer(
            name="adamw", learning_rate=case.learning_rate, weight_decay=1e-4, schedule="cosine", steps=steps
        ),
    )
    # One learner for all seeds: which region it hides, and how, is in `hyper`.
    learner = patch_noise(plain, corruption(np.ones(shape, bool)))
    config = FitConfig(
        epochs=case.epochs,
        epochs_per_chunk=case.epochs,
        batch_size=case.batch_size,
        steps_per_epoch=case.steps_per_epoch,
        drop_last=True,
    )
    rows = {arm: (ceiling if arm == "ceiling" else train)._replace(twin=None, mask=None, unit=None) for arm in arms}
    hyper = [PatchNoiseHyper(hidden(arm, 0, shape)) for arm in arms]
    said = {}
    for portion in sweep([key_train] * len(arms), learner, [rows[arm] for arm in arms], config, hyper=hyper):
        for i, number in enumerate(portion.runs):
            arm, params = arms[number], jax.tree.map(lambda leaf, i=i: leaf[i], portion.state.variables)
            said[arm] = {"loss": float(portion.history["loss"][i, -1])}
            if arm in regions:
                said[arm]["area"] = float(regions[arm][0].mean())
            views = {"clean": test.x}
            if arm in regions:
                views["own"] = corrupt(key_test, test.x, hidden(arm, 1, test.x.shape[:3]))
            for view, x in views.items():
                logits = np.asarray(predict_rows(case.classifier.apply, params, x, batch_size=256))
                said[arm][view] = accuracies(logits, test, dataset)
            own = said[arm].get("own", said[arm]["clean"])
            print(f"  {arm:15} clean {shown(said[arm]['clean'])}   own {shown(own)}", flush=True)
    return said


def accuracies(logits: np.ndarray, test: Batch, dataset: Dataset) -> dict[str, Any]:
    report = group_report(logits, test, dataset.aligned)
    row = {
        name: rounded(getattr(report, f"{name}_accuracy"))
        for name in ("bias_aligned", "bias_conflicting", "worst_group", "group_mean")
    }
    row["gap"] = round(row["bias_aligned"]["value"] - row["bias_conflicting"]["value"], 5)
    if report.count.size <= 4:
        row["cells"] = {name: np.round(getattr(report.groups, name), 5).tolist() for name in ("value", "low", "high")}
    return row


def rounded(interval: Interval) -> dict[str, float]:
    return {name: round(float(value), 5) for name, value in interval._asdict().items()}


def shown(row: Mapping[str, Any]) -> str:
    return (
        f"aligned {row['bias_aligned']['value']:.3f} conflicting {row['bias_conflicting']['value']:.3f} worst "
        f"{row['worst_group']['value']:.3f}"
    )


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, dict[str, Any]]]:
    """Per case every quantity as the mean over seeds with its t-interval, differences from plain paired."""
    said: dict[str, dict[str, dict[str, Any]]] = {}
    for name in dict.fromkeys(row["case"] for row in rows):
        of_case = [row for row in rows if row["case"] == name]
        quantities = {
            key: over_seeds([row["map"][key] for row in of_case])
            for key, value in of_case[0]["map"].items()
            if isinstance(value, float)
        }
        for arm in of_case[0]["arms"]:
            some = [row["arms"] for row in of_case if arm in row["arms"]]
            plain = [arms["plain"]["clean"]["bias_conflicting"]["value"] for arms in some]
            for view, suffix in (("clean", ""), ("own", ", own")):
                if view not in some[0][arm]:
                    continue
                tested = [arms[arm][view] for arms in some]
                quantities[f"{arm} gap{suffix}"] = over_seeds([one["gap"] for one in tested])
                for accuracy in ("bias_aligned", "bias_conflicting", "worst_group"):
                    quantities[f"{arm} {accuracy}{suffix}"] = over_seeds([one[accuracy]["value"] for one in tested])
                quantities[f"{arm} over plain{suffix}"] = paired_over_seeds(
                    plain, [one["bias_conflicting"]["value"] for one in tested]
                )
        said[name] = {key: rounded(value) for key, value in quantities.items()}
    return said


def verdicts(said: Mapping[str, Mapping[str, Mapping[str, float]]]) -> list[dict[str, Any]]:
    """The margins on the cases of which all seeds are there; what does not exist has missed."""
    out = []
    for case, quantity, sign, bound in MARGINS:
        if case not in said:
            continue
        got = said[case].get(quantity, {"value": float("nan")})["value"]
        met = got >= bound if sign == ">=" else got <= bound
        out.append({"case": case, "quantity": quantity, "margin": f"{sign} {bound}", "got": got, "met": bool(met)})
    return out


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path, help="of marker and composites; default: JAXDEBIAS_DATA")
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES), help="cases")
    parser.add_argument("--seeds", nargs="+", type=int, default=list(range(SEEDS)))
    parser.add_argument("--out", type=Path, default=RESULTS / "patch_noise.json")
    parser.add_argument("--figure", type=Path, default=RESULTS.parent / "figures" / "patch_noise.png")
    parser.add_argument("--figure-only", action="store_true", help="draw the rows that are there, train nothing")
    parser.add_argument(
        "--trial",
        action="store_true",
        help="few pictures and steps, into a temporary folder, to see that everything runs",
    )
    args = parser.parse_args()
    if args.figure_only:
        figure(json.loads(args.out.read_text())["rows"], args.figure)
        print(args.figure)
        return 0
    if args.trial:
        folder = Path(tempfile.mkdtemp())
        args.out, args.figure, args.seeds = folder / args.out.name, folder / args.figure.name, args.seeds[:1]
    table = json.loads(args.out.read_text()) if args.out.exists() else {"rows": []}
    done = {(row["case"], row["seed"]) for row in table["rows"]}
    for name in args.only:
        for seed in args.seeds:
            if (name, seed) in done:
                continue
            print(f"{name}, seed {seed}", flush=True)
            case = small(CASES[name]) if args.trial else CASES[name]
            row = measured(case, seed, args.data_dir, args.trial)
            table["rows"].append({"case": name, "seed": seed, **row})
            table["rows"].sort(key=lambda row: (list(CASES).index(row["case"]), row["seed"]))
            table |= {"device": device_name(), "versions": versions(), "date": time.strftime("%Y-%m-%d")}
            write(args.out, table)
            print(f"  {row['seconds']:.0f} s", flush=True)

    there = {name: sum(row["case"] == name for row in table["rows"]) for name in CASES}
    whole = [row for row in table["rows"] if args.trial or there[row["case"]] >= SEEDS]
    table["summary"] = summary(whole)
    table["margins"] = verdicts(table["summary"])
    write(args.out, table)
    if table["rows"]:
        figure(table["rows"], args.figure)
    print(args.out, args.figure)
    for verdict in table["margins"]:
        print(
            f"{'met   ' if verdict['met'] else 'MISSED'} {verdict['case']}, {verdict['quantity']} "
            f"{verdict['margin']}, got {verdict['got']:.3f}"
        )
    missing = {name: SEEDS - count for name, count in there.items() if count < SEEDS}
    if missing and not args.trial:
        print("seeds to come: " + ", ".join(f"{count} of {name}" for name, count in missing.items()))
    return int(not args.trial and any(not verdict["met"] for verdict in table["margins"]))


def write(path: Path, table: dict[str, Any]) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(table, indent=1) + "\n")
    os.replace(temporary, path)


if __name__ == "__main__":
    sys.exit(main())
