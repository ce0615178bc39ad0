"""What the page and `results.json` of a run are made of: from measurements, edits and data to their entries."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxdebias import auditing
from jaxdebias.auditing import class_maps, draw_shares, patch_places
from jaxdebias.contracts import expect
from jaxdebias.core import Batch, Dataset, Params
from jaxdebias.files import read_arrays
from jaxdebias.mitigate._aug_cell.info import AugCellInfo
from jaxdebias.mitigate._dbvae.diagnostics import RATIO_EDGES
from jaxdebias.mitigate._fmd.config import FmdConfig, FmdInfo
from jaxdebias.report._page import Pictures
from jaxdebias.report.formats import percent, points
from jaxdebias.results.provenance import device_name, versions
from jaxdebias.train._log import Progress


def identity(dataset: Dataset, attribute: str, items: str, method: str, seed: int, model: str) -> dict[str, Any]:
    """What was run, on what, with what. `attribute` and `items`: what these are called in sentences."""
    return {
        "dataset": dataset.name,
        "variant": dict(dataset.variant),
        "method": method,
        "model": model,
        "seed": seed,
        "device": device_name(),
        "versions": versions(),
        "attribute": dataset.variant.get("attribute", attribute),
        "items": items,
        "level": 0.95,
        "pairing": dataset.pairing,
        "label_names": list(dataset.label_names),
        "attribute_names": list(dataset.attribute_names),
        "train_counts": auditing.train_counts(dataset),
        "aligned": dataset.aligned,
    }


def measurement(said: auditing.Measurement, dataset: Dataset) -> dict[str, Any]:
    """A measurement as a Measurement of `jaxdebias.results.records`."""
    report, none = said.groups, {"value": None, "low": None, "high": None, "n": 0}

    def rate(interval: Any) -> dict[str, Any] | None:
        return None if interval is None or not np.isfinite(interval.value) else interval._asdict()

    def group(label: int, attribute: int) -> str:
        return f"{dataset.label_names[label]} · {dataset.attribute_names[attribute]}"

    averages = (
        "accuracy",
        "group_mean_accuracy",
        "reweighted_accuracy",
        "worst_group_accuracy",
        "bias_aligned_accuracy",
        "bias_conflicting_accuracy",
    )
    differences = ("demographic_parity_difference", "equal_opportunity_difference", "equalised_odds_difference")
    worst = rate(report.worst_group_accuracy)
    if worst is not None:
        worst["group"] = group(*report.worst_group)
    cells = [
        (label, attribute)
        for label in range(len(dataset.label_names))
        for attribute in range(len(dataset.attribute_names))
    ]
    return {
        **{name: rate(getattr(report, name)) for name in averages},
        "worst_group_accuracy": worst,
        "counterfactual_bias": rate(said.counterfactual_bias),
        **{name: rate(getattr(said.fairness, name, None)) for name in differences},
        "groups": [
            {
                "label": label,
                "attribute": attribute,
                "label_name": dataset.label_names[label],
                "attribute_name": dataset.attribute_names[attribute],
                "aligned": bool(dataset.aligned[label, attribute]),
                "n": int(report.count[label, attribute]),
                "accuracy": rate(type(report.groups)(*(f[label, attribute].item() for f in report.groups))) or none,
                "flagged": bool(report.small[label, attribute] or report.count[label, attribute] == 0),
            }
            for label, attribute in cells
        ],
        "confusion_by_group": report.confusion,
    }


def edit(info: FmdInfo, params: Params, edited: Params, config: FmdConfig) -> dict[str, Any]:
    """What an edit did and why it ended, round by round."""
    rounds = [
        {
            "round": number,
            "u": r.u,
            "t": r.t,
            "predicted_change": r.predicted_change,
            "achieved_change": r.achieved_change,
            "accept_accuracy": r.accuracy,
            "accept_bias": r.bias,
            "aligned_accuracy": r.aligned_accuracy,
            "residual": r.residual,
            "smallest_pivot": r.smallest_pivot,
            "gradient_norm": r.gradient_norm,
            "seconds": r.seconds,
        }
        for number, r in enumerate(info.rounds, 1)
    ]
    taken = sum(r.u != 0.0 for r in info.rounds)
    if not info.accepted and taken:
        reason = (
            f"The bias of the acceptance pairs fell by {info.bias_drop_z:.1f} standard errors, less than the "
            f"{config.significance:g} asked for: rolled back."
        )
    elif not info.accepted:
        reason = "No step lowered the bias on the acceptance split at no more than a point of accuracy: rolled back."
    elif not config.search:
        reason = "One step at t = 1, taken without a line search."
    elif taken < len(info.rounds):
        reason = f"Ended after {taken} rounds: no further step helped on the acceptance split."
    else:
        reason = f"All {taken} rounds were taken, each by a line search on the acceptance split."
    return {
        "accepted": info.accepted,
        "reason": reason,
        **parameter_counts(params, edited),
        "rounds": rounds,
        "accept_before": {
            "accuracy": info.accuracy_before,
            "bias": info.bias_before,
            "aligned_accuracy": info.aligned_before,
        },
        "accept_after": {
            "accuracy": info.accuracy_after,
            "bias": info.bias_after,
            "aligned_accuracy": info.aligned_after,
        },
    }


def maps(seen: class_maps.MapAudit, dataset: Dataset) -> dict[str, Any]:
    """Where a model looks, as the Maps of `jaxdebias.results.records`."""
    test = dataset.splits["test"]
    k, a = dataset.aligned.shape
    sets = [
        ("all", None, None, seen.overall),
        ("aligned", None, None, seen.aligned),
        ("conflicting", None, None, seen.conflicting),
        *(
            ("group", label, attribute, seen.groups[label * a + attribute])
            for label in range(k)
            for attribute in range(a)
        ),
    ]

    def row(kind: str, label: int | None, attribute: int | None, looked: class_maps.MapSummary) -> dict[str, Any]:
        seen_any = looked.rows > looked.without_map
        return {
            "kind": kind,
            "label": label,
            "attribute": attribute,
            "n": looked.rows,
            "without_map": looked.without_map,
            "average": looked.average if seen_any else None,
            "regions": [
                {
                    "region": name,
                    "score": _rate_of(looked.score, i),
                    "chance": looked.chance[i],
                    "inside": _rate_of(looked.inside, i),
                    "area": looked.area[i],
                    "n": looked.used[i],
                    "flagged": bool(looked.small[i]),
                }
                for i, name in enumerate(seen.regions)
            ],
        }

    return {
        "method": "gradcam",
        "target": "predicted",
        "grid": list(seen.grid),
        "regions": list(seen.regions),
        "agreement": seen.agreement,
        "rows": [row(*one) for one in sets if one[3] is not None],
        "examples": [
            {
                "row": int(i),
                "label": int(test.label[i]),
                "attribute": int(test.attribute[i]),
                "predicted": int(seen.predicted[i]),
            }
            for i in seen.examples
        ],
    }


def patches(seen: patch_places.Places, dataset: Dataset) -> dict[str, Any]:
    """Where the data show the attribute and the label, as the Patches of `jaxdebias.results.records`."""
    split = dataset.splits[seen.split]

    def place(one: patch_places.Place) -> dict[str, Any]:
        return {
            "map": np.round(_coarse(one.map, seen.stride), 5),
            "information": one.information,
            "held": one.held,
            "spread": one.spread,
            "found": one.found,
            "area": one.area,
            "classes": one.classes,
        }

    return {
        **{name: getattr(seen, name) for name in ("split", "rows", "train_rows", "patch", "stride", "missing")},
        "top": patch_places.TOP,
        "attribute": place(seen.attribute),
        "label": place(seen.label),
        "overlap": seen.overlap,
        "chance": seen.chance,
        "examples": [
            {"row": int(i), "label": int(split.label[i]), "attribute": int(split.attribute[i])} for i in seen.examples
        ],
    }


def draws(seen: draw_shares.DrawAudit, dataset: Dataset, history: Sequence[Progress]) -> dict[str, Any]:
    """Who was drawn, as the Draws of `jaxdebias.results.records`."""
    train, n, report = dataset.splits["train"], len(seen.weight), seen.report

    def samples(rows: np.ndarray) -> list[dict[str, Any]]:
        return [
            {
                "index": int(i),
                "label": int(train.label[i]),
                "attribute": int(train.attribute[i]),
                "ratio": float(n * seen.weight[i]),
            }
            for i in rows
        ]

    logged = [record for record in history if "draw_ess" in record.info]
    return {
        "rows": n,
        "ess": report.ess,
        "largest": report.largest,
        "never_drawn": report.never_drawn,
        "edges": list(RATIO_EDGES),
        "histogram": report.histogram,
        "kl": seen.kl,
        "carrying": int((seen.kl >= 0.01).sum()),
        "epochs": [record.epoch for record in logged],
        "ess_by_epoch": [record.info["draw_ess"] for record in logged],
        "never_by_epoch": [record.info["draw_never"] for record in logged],
        "groups": [{"label": y, "attribute": a, **group._asdict()} for (y, a), group in seen.groups.items()],
        "conflicting": None if seen.conflicting is None else seen.conflicting._asdict(),
        "rarest": samples(report.rarest),
        "commonest": samples(report.commonest),
    }


def aug_cell(info: AugCellInfo, items: str) -> list[str]:
    """What AUG-CELL guessed, chose and noticed, in sentences."""
    said = [
        f"AUG-CELL read no attribute: {percent(info.cells.flagged_share)} of the training {items} look like "
        "another class to judges that have not seen them."
    ]
    if info.chosen != "erm":
        chosen, plain = info.scores[info.chosen], info.scores["erm"]
        said.append(
            f"Returned is the candidate {info.chosen!r}. Of held-out {items}, weighted so that guess and label "
            f"are independent, it gets {percent(chosen.cell_accuracy)} right and plain training "
            f"{percent(plain.cell_accuracy)}: {points(chosen.lead)} more, standard error "
            f"{points(chosen.lead_error)}."
        )
    return said + info.findings


def with_draws(shown: Pictures | None, results: Mapping[str, Any], dataset: Dataset, kept: Path) -> Pictures | None:
    """The pictures with the samples at both ends of the draws beside what the model makes of them, if there are any.

    Args:
      kept: the draws.npz of the run.
    """
    if shown is None or results.get("draws") is None or not kept.is_file():
        return shown
    decoded = read_arrays("draws", kept)
    expect({"rarest", "commonest"} <= set(decoded), str(kept), "arrays rarest and commonest", ", ".join(decoded))
    rare, common = decoded["rarest"], decoded["commonest"]
    rows = {name: [sample["index"] for sample in results["draws"][name]] for name in ("rarest", "commonest")}
    x = dataset.splits["train"].x
    return shown._replace(rare=x[rows["rarest"]], rare_decoded=rare, common=x[rows["commonest"]], common_decoded=common)


def _coarse(map: np.ndarray, cell: int, most: int = 32) -> np.ndarray:
    """Means over cells of a map, `most` a side at most."""
    for axis, length in enumerate(map.shape):
        edges = np.linspace(0, length, min(most, -(-length // cell)), endpoint=False).round().astype(int)
        sums = np.add.reduceat(map, edges, axis=axis)
        counts = np.diff(np.append(edges, length))
        map = sums / (counts[:, None] if axis == 0 else counts[None, :])
    return map


def _rate_of(interval: Any, i: int) -> dict[str, Any]:
    return {name: field[i] for name, field in interval._asdict().items()}


def parameter_counts(params: Params, edited: Params) -> dict[str, int]:
    """How many parameters there are, and how many lie in leaves that are not the same object any more."""
    old, new = jax.tree.leaves(params), jax.tree.leaves(edited)
    changed = sum(a.size for a, b in zip(old, new, strict=True) if a is not b)
    return {"parameters_changed": int(changed), "parameters": int(sum(leaf.size for leaf in old))}


def pictures(
    dataset: Dataset,
    harmful: list[auditing.Harmful],
    before: auditing.Measurement,
    after: auditing.Measurement | None = None,
    *,
    helpful: Sequence[auditing.Harmful] = (),
) -> Pictures | None:
    """The images of the page; None for a table."""
    train, test = dataset.splits["train"], dataset.splits["test"]
    if train.x.ndim != 4:
        return None
    rng = np.random.default_rng(0)
    worst = auditing.worst_rows(test, before) if before.groups.worst_group[0] >= 0 else np.zeros(0, np.int64)
    pictures = Pictures(train=train.x[np.sort(rng.choice(len(train.label), min(24, len(train.label)), replace=False))])
    if worst.size:
        pictures = pictures._replace(
            worst=test.x[worst],
            worst_label=test.label[worst],
            worst_before=before.logits[worst].argmax(-1),
            worst_after=None if after is None else after.logits[worst].argmax(-1),
        )
    if harmful:
        pictures = pictures._replace(harmful=train.x[[sample.index for sample in harmful]])
    if helpful:
        pictures = pictures._replace(helpful=train.x[[sample.index for sample in helpful]])
    if "test" in dataset.pairs:
        pairs = dataset.pairs["test"]
        rows = np.sort(rng.choice(len(pairs.label), min(8, len(pairs.label)), replace=False))
        pictures = pictures._replace(
            pairs=np.stack([pairs.x[rows], pairs.twin[rows]], axis=1),
            pairs_label=pairs.label[rows],
            pairs_before=before.pair_probability[rows],
            pairs_after=None if after is None else after.pair_probability[rows],
        )
    return pictures


def table_rows(dataset: Dataset, samples: list[auditing.Harmful]) -> list[dict[str, str]] | None:
    """For a table with named columns: the categories and standardised numbers of each ranked training sample."""
    if not dataset.feature_names:
        return None
    return [_row(dataset.splits["train"], sample.index, dataset.feature_names) for sample in samples]


def _row(batch: Batch, index: int, names: tuple[str, ...]) -> dict[str, str]:
    shown = {}
    for name, value in zip(names, batch.x[index].tolist(), strict=True):
        column, _, category = name.partition("=")
        if not category:
            shown[column] = f"{value:+.1f}"
        elif value > 0.5:
            shown[column] = category
    return shown
