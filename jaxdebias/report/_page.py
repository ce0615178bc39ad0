"""One self-contained HTML page of a result: no script, no request, readable on a phone, in the dark and on paper."""

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxdebias.contracts import describe, expect
from jaxdebias.core import Array
from jaxdebias.files import write_text
from jaxdebias.report import (
    answers,
    candidate_view,
    discovery_view,
    draw_view,
    figures,
    formats,
    map_view,
    patch_view,
    wording,
)
from jaxdebias.report.figures import Series
from jaxdebias.report.formats import applies
from jaxdebias.results.records import check_results, to_json

CARDS = ("accuracy", "bias_conflicting_accuracy", "bias_aligned_accuracy", "counterfactual_bias",
         "worst_group_accuracy", "group_mean_accuracy", "equalised_odds_difference",
         "demographic_parity_difference")  # fmt: skip
MOST_CARDS = 6
COMPARED = ("accuracy", "bias_conflicting_accuracy", "worst_group_accuracy", "counterfactual_bias",
            "equalised_odds_difference")  # fmt: skip
MANY_GROUPS = 24
"""With more groups than this the page shows heatmaps instead of a row per group."""
MOST_COLUMNS = 24
"""A table of labels or attributes wider than this is left out: nobody could read it."""


_OF_ANY_SIZE = ("maps_shown", "patch_attribute", "patch_label", "rare_decoded", "common_decoded")


class Pictures(NamedTuple):
    """Images with 1 or 3 channels, uint8 or float in [0, 1], and what is written under them. Any field may be None."""

    worst: Array | None = None
    """`[m h w c]` test images of the worst group of the trained model."""
    worst_label: Array | None = None
    """`[m]` their true labels."""
    worst_before: Array | None = None
    """`[m]` what the trained model predicts."""
    worst_after: Array | None = None
    """`[m]` what the repaired model predicts."""
    harmful: Array | None = None
    """`[m h w c]` the training samples of the first m rows of `results["harmful"]`."""
    helpful: Array | None = None
    """`[m h w c]` those of `results["helpful"]`."""
    pairs: Array | None = None
    """`[m 2 h w c]` the aligned and the conflicting side: the same sample, or matched ones."""
    pairs_label: Array | None = None
    """`[m]` their labels."""
    pairs_before: Array | None = None
    """`[m 2]` probability of the true label, trained model."""
    pairs_after: Array | None = None
    """`[m 2]` the same, repaired model."""
    train: Array | None = None
    """`[m h w c]` training samples drawn at random."""
    maps: Array | None = None
    """`[m h w c]` the test images of `results["maps"]["examples"]`."""
    maps_shown: Array | None = None
    """`[m u v]` their maps, in 0..1."""
    patch: Array | None = None
    """`[m h w c]` the held-out images of `results["patches"]["examples"]`."""
    patch_attribute: Array | None = None
    """`[m u v]` their maps of the attribute, in 0..1."""
    patch_label: Array | None = None
    """`[m u v]` their maps of the label."""
    rare: Array | None = None
    """`[m h w c]` the training images of `results["draws"]["rarest"]`."""
    rare_decoded: Array | None = None
    """`[m h w c]` as the model's decoder rebuilds them."""
    common: Array | None = None
    """`[m h w c]` those of `results["draws"]["commonest"]`."""
    common_decoded: Array | None = None
    """`[m h w c]` as the decoder rebuilds them."""
    suspects: Array | None = None
    """`[m h w c]` the training images of `results["discovered"]["cells"]["typical"]`."""
    mistaken: Array | None = None
    """`[m h w c]` the test images of the `typical` rows of the first groups of `results["discovered"]["groups"]`."""


def write_page(results: Mapping[str, Any], pictures: Pictures | None, path: str | os.PathLike) -> None:
    """Writes the page of one run.

    Args:
      results: the content of `results.json`; its schema is in `jaxdebias.results.records`.
      pictures: images to go with it, None for a table.
      path: of the HTML file; written under a temporary name, then renamed.

    Raises:
      ContractError: if a key is missing or a picture has another shape than its legend says.
    """
    import jinja2

    results = to_json(results)
    check_results(results)
    pictures = pictures or Pictures()
    _check_pictures(pictures)
    here = pathlib.Path(__file__).parent
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(here), autoescape=True, trim_blocks=True,
                                     lstrip_blocks=True, undefined=jinja2.StrictUndefined)  # fmt: skip
    environment.filters |= {"count": formats.count, "seconds": formats.seconds, "percent": formats.percent}
    style = (here / "page.css").read_text(encoding="utf-8")
    html = environment.get_template("page.html.j2").render(style=style, **_view(results, pictures))
    # A number and its unit stay on one line.
    write_text(path, html.replace(" %", "\u202f%").replace(" points", "\u00a0points"))


def _check_pictures(pictures: Pictures) -> None:
    for name, value in pictures._asdict().items():
        if value is None or name in (
            "worst",
            "harmful",
            "helpful",
            "pairs",
            "train",
            "maps",
            "patch",
            "rare",
            "common",
            "suspects",
            "mistaken",
        ):
            continue
        images = getattr(pictures, name.split("_")[0])
        expect(images is not None, f"pictures.{name}", "the images that it describes", "none")
        shape = (len(images), 2) if name in ("pairs_before", "pairs_after") else (len(images),)
        shape += np.shape(value)[1:] if name in _OF_ANY_SIZE else ()
        expect(np.shape(value) == shape, f"pictures.{name}", f"shape {list(shape)}", describe(value))


def _view(results: dict[str, Any], pictures: Pictures) -> dict[str, Any]:
    """Everything the template shows, already worded and drawn."""
    results = dict(wording.as_shown(results))
    words = wording.words(results)
    repaired = results["after"] is not None
    runs = [("before", results["before"]), ("after", results["after"])] if repaired else [("", results["before"])]
    groups = [group for group in results["before"]["groups"] if group["n"] > 0]
    many = len(results["before"]["groups"]) > MANY_GROUPS
    return {
        "results": results,
        "words": words,
        "verdict": wording.verdict(results),
        "fall": _fall(results, runs),
        "method": wording.method_name(results["method"]),
        "repaired": repaired,
        "has_aligned": any(map(any, results["aligned"])),
        "confidence": f"{100 * results.get('level', 0.95):g} %",
        "cards": [_card(results, key) for key in _shown(results, CARDS, most=MOST_CARDS)],
        "rest": [_card(results, m.key) for m in wording.METRICS
                 if m.key not in _shown(results, CARDS, most=MOST_CARDS) and applies(results["before"][m.key])],
        "panels": _panels(results) if results["baselines"] else [],
        "baselines": _baselines(results),
        "baseline_remarks": wording.baseline_remarks(results),
        "many": many,
        "group_rows": _group_rows(results, groups if not many else _worst(groups, 10)),
        "group_maps": _group_maps(results, runs) if many else [],
        "flagged": sum(group["flagged"] for group in groups),
        "groups": len(groups),
        "empty_groups": len(results["before"]["groups"]) - len(groups),
        "confusions": _confusions(results, runs, by_group=not many),
        "worst_pictures": _worst_pictures(results, pictures),
        "answers": answers.answers(results) if results.get("advice") else [],
        "discovered": discovery_view.view(results, pictures.suspects, pictures.mistaken),
        "candidates": candidate_view.rows(results) if results.get("candidates") else [],
        "candidate_columns": candidate_view.COLUMNS,
        "about_candidates": candidate_view.ABOUT,
        "maps": map_view.view(results, pictures.maps, pictures.maps_shown),
        "patches": patch_view.view(results, pictures.patch, pictures.patch_attribute, pictures.patch_label),
        "draws": draw_view.view(results, (pictures.rare, pictures.rare_decoded),
                                (pictures.common, pictures.common_decoded)),
        "matched": wording.matched(results),
        "pairs": _pairs(results, pictures),
        "influence": _influence(results, pictures),
        "rounds": _rounds(results),
        "train": _train(results, pictures),
        "steps": _steps(results),
    }  # fmt: skip


def _fall(results: dict[str, Any], runs: Sequence[tuple[str, Any]]) -> str:
    """The picture of the verdict: how far accuracy falls from aligned to conflicting samples."""
    keys = ("bias_aligned_accuracy", "bias_conflicting_accuracy")
    if not all(applies(results["before"][key]) for key in keys):
        return ""
    lines = [Series(title or "accuracy", title or "before", [m[key]["value"] for key in keys]) for title, m in runs
             if all(applies(m[key]) for key in keys)]  # fmt: skip
    return figures.lines(lines, ("aligned", "conflicting"))


def _shown(results: dict[str, Any], keys: Sequence[str], most: int) -> list[str]:
    return [key for key in keys if applies(results["before"][key])][:most]


def _card(results: dict[str, Any], key: str) -> dict[str, Any]:
    metric = wording.metric_of(results, key)
    before, after = results["before"][key], (results["after"] or {}).get(key)
    difference = wording.metric_change(results, key)
    tone = "same"
    if difference is not None and difference.separable:
        tone = "better" if (difference.value > 0) == metric.higher_is_better else "worse"
    return {
        "name": metric.name,
        "unit": metric.unit,
        "explanation": metric.explanation.format(**wording.words(results)._asdict()),
        "groups": list(dict.fromkeys(rate["group"] for rate in (before, after) if applies(rate) and rate.get("group"))),
        "before": _bare(metric.show(before)),
        "before_interval": formats.interval(before),
        "before_bar": figures.bar(before, "before"),
        "after": _bare(metric.show(after)) if applies(after) else "",
        "after_interval": formats.interval(after),
        "after_bar": figures.bar(after, "after") if applies(after) else "",
        "change": str(difference) if difference is not None else "",
        "tone": tone,
    }


def _bare(text: str) -> str:
    """A number without its unit, where the unit stands elsewhere."""
    return text.rsplit(" ", 1)[0]


def _panels(results: dict[str, Any]) -> list[dict[str, Any]]:
    """One panel per metric, one bar per model."""
    repaired = results["after"] is not None
    models = [("before" if repaired else "the model", "before", results["before"])]
    if repaired:
        models.append((wording.method_name(results["method"]), "after", results["after"]))
    models += [
        (wording.method_name(name), "other", baseline["measurement"]) for name, baseline in results["baselines"].items()
    ]
    panels = []
    for key in _shown(results, COMPARED, most=4):
        metric = wording.metric_of(results, key)
        rows = [{"name": name, "value": _bare(metric.show(m[key])), "interval": formats.interval(m[key]),
                 "bar": figures.bar(m[key], tone), "tone": tone}
                for name, tone, m in models if applies(m[key])]  # fmt: skip
        sense = f"{metric.unit}, {'higher' if metric.higher_is_better else 'lower'} is better"
        panels.append({"name": metric.name, "sense": sense, "rows": rows})
    return panels


def _baselines(results: dict[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for name, baseline in results["baselines"].items():
        difference = formats.change((results["after"] or results["before"])["accuracy"],
                                    baseline["measurement"]["accuracy"])  # fmt: skip
        rows.append({"name": wording.method_name(name), "seconds": formats.seconds(baseline["seconds"]),
                     "needs": baseline["needs"],
                     "change": str(difference) if difference is not None else formats.NONE})  # fmt: skip
    return rows


def _worst(groups: list[dict[str, Any]], most: int) -> list[dict[str, Any]]:
    known = [group for group in groups if applies(group["accuracy"])]
    return sorted(known, key=lambda g: (g["accuracy"]["value"], -g["n"]))[:most]


def _group_rows(results: dict[str, Any], groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    after = {(g["label"], g["attribute"]): g["accuracy"] for g in (results["after"] or {}).get("groups", [])}
    rows = []
    for group in groups:
        cell = group["label"], group["attribute"]
        bars = [{"tone": tone, "bar": figures.bar(rate, tone), "value": formats.percent(rate["value"]),
                 "interval": formats.interval(rate)}
                for tone, rate in (("before", group["accuracy"]), ("after", after.get(cell)))
                if applies(rate)]  # fmt: skip
        rows.append({"name": wording.group_name(group), "aligned": group["aligned"], "flagged": group["flagged"],
                     "n": group["n"], "train": results["train_counts"][cell[0]][cell[1]], "bars": bars})  # fmt: skip
    return rows


def _matrix(
    title: str, rows: Sequence[str], columns: Sequence[str], cells: list[list[dict[str, str]]], *, corner: str
) -> dict[str, Any]:
    """A table of coloured cells; long column names are written upwards."""
    return {"title": title, "rows": list(zip(rows, cells, strict=True)), "columns": columns, "corner": corner,
            "tall": max(map(len, columns)) > 3, "dense": len(columns) > 6}  # fmt: skip


def _group_maps(results: dict[str, Any], runs: Sequence[tuple[str, Any]]) -> list[dict[str, Any]]:
    """Accuracy of every group as a map of labels by attributes: the more errors, the stronger the colour."""
    if len(results["attribute_names"]) > MOST_COLUMNS:
        return []
    maps = []
    for title, measurement in runs:
        empty = {"look": figures.heat(None, "hot"), "text": "", "mark": ""}
        cells = [[empty for _ in results["attribute_names"]] for _ in results["label_names"]]
        for group in measurement["groups"]:
            if applies(group["accuracy"]):
                value = group["accuracy"]["value"]
                marks = "outlined" * group["aligned"] + " few" * group["flagged"]
                cells[group["label"]][group["attribute"]] = {
                    "look": figures.heat(1 - value, "hot"), "text": f"{100 * value:.0f}", "mark": marks}  # fmt: skip
        maps.append(_matrix(title, results["label_names"], results["attribute_names"], cells,
                            corner=f"label \\ {wording.words(results).attribute}"))  # fmt: skip
    return maps


def _confusions(results: dict[str, Any], runs: Sequence[tuple[str, Any]], *, by_group: bool) -> list[dict[str, Any]]:
    """Who is taken for whom, as blocks of one table per model.

    With few groups one row per group; with many the conflicting samples by label and by attribute, and the aligned.
    """
    labels, attributes = results["label_names"], results["attribute_names"]
    if max(len(labels), len(attributes)) > MOST_COLUMNS:
        return []
    attribute, items = wording.words(results)
    aligned = np.array(results["aligned"], bool)
    right = np.eye(len(labels), dtype=bool)
    counted = [(title, np.array(m["confusion_by_group"], np.int64)) for title, m in runs]
    if by_group:
        groups = [g for g in results["before"]["groups"] if g["n"] > 0]
        names, true = [wording.group_name(g) for g in groups], [g["label"] for g in groups]
        cells = true, [g["attribute"] for g in groups]
        return [{"title": "", "folded": False, "tables": [
            _confusion(title, "true \\ predicted", names, labels, c[cells], right[true], None)
            for title, c in counted]}]  # fmt: skip
    conflicting = ~aligned[:, :, None]
    blocks = [
        {"title": f"Bias-conflicting {items}, by their label", "folded": False, "tables": [
            _confusion(title, "true \\ predicted", labels, labels, (c * conflicting).sum(axis=1), right, ~right)
            for title, c in counted]},
        {"title": f"The same {items}, by their {attribute}: outlined is the label that the {attribute} goes with",
         "folded": False, "tables": [
            _confusion(title, f"{attribute} \\ predicted", attributes, labels, (c * conflicting).sum(axis=0), None,
                       aligned.T) for title, c in counted]},
        {"title": f"Bias-aligned {items}, by their label", "folded": True, "tables": [
            _confusion(title, "true \\ predicted", labels, labels, (c * ~conflicting).sum(axis=1), right, ~right)
            for title, c in counted]},
    ]  # fmt: skip
    return blocks if aligned.any() else [{**blocks[0], "title": ""}]


def _confusion(
    title: str,
    corner: str,
    rows: Sequence[str],
    columns: Sequence[str],
    counts: np.ndarray,
    cool: np.ndarray | None,
    hot: np.ndarray | None,
) -> dict[str, Any]:
    """Row shares; `cool` and `hot` say where a share is good or bad news, the rest stays grey."""
    cells = []
    for i, row in enumerate(counts):
        total = int(row.sum())
        line = []
        for j, c in enumerate(row.tolist()):
            share = c / total if total else None
            tone = "cool" if cool is not None and cool[i, j] else "hot" if hot is None or hot[i, j] else "grey"
            text = f"{100 * share:.0f}" if share is not None and share >= 0.005 else ""
            line.append({"look": figures.heat(share, tone), "mark": "outlined" * (cool is None and tone == "hot"),
                         "text": text})  # fmt: skip
        cells.append(line)
    return _matrix(title, rows, columns, cells, corner=corner)


def _worst_pictures(results: dict[str, Any], pictures: Pictures) -> list[dict[str, Any]]:
    if pictures.worst is None:
        return []
    names = results["label_names"]

    def guess(values: Array | None, i: int) -> dict[str, Any] | None:
        if values is None:
            return None
        right = pictures.worst_label is not None and int(values[i]) == int(pictures.worst_label[i])
        return {"name": names[int(values[i])], "right": right}

    return [{"image": figures.picture(image, "a sample of the worst group"), "before": guess(pictures.worst_before, i),
             "after": guess(pictures.worst_after, i)} for i, image in enumerate(pictures.worst)]  # fmt: skip


def _pairs(results: dict[str, Any], pictures: Pictures) -> list[dict[str, Any]]:
    if pictures.pairs is None:
        return []
    out = []
    for i, pair in enumerate(pictures.pairs):
        label = None if pictures.pairs_label is None else results["label_names"][int(pictures.pairs_label[i])]
        rows = [{"tone": tone, "shares": [formats.percent(float(p), 0) for p in values[i]]}
                for tone, values in (("before", pictures.pairs_before), ("after", pictures.pairs_after))
                if values is not None]  # fmt: skip
        images = [figures.picture(image, alt) for image, alt in zip(pair, ("aligned", "conflicting"), strict=True)]
        out.append({"images": images, "label": label, "rows": rows})
    return out


def _influence(results: dict[str, Any], pictures: Pictures) -> dict[str, Any] | None:
    """The most harmful and the most helpful training samples, with scores in one unit."""
    views = {name: _ranked(results, name, getattr(pictures, name)) for name in ("harmful", "helpful")}
    shown = {name: view for name, view in views.items() if view is not None}
    if not shown:
        return None
    power = formats.common_power([sample["score"] for view in shown.values() for sample in view["samples"]])
    for view in shown.values():
        for sample in view["samples"]:
            sample["score"] = f"{sample['score'] / 10.0**power:.2f}".replace("-", "−")
    total, among = _aligned_share(results)
    return {**views, "power": power, "train_share": formats.percent(among / total) if total else ""}


def _ranked(results: dict[str, Any], which: str, images: Array | None) -> dict[str, Any] | None:
    """Training samples as pictures, or as rows of a table, or at least as a list."""
    if not results.get(which):
        return None
    labels, attributes, aligned = results["label_names"], results["attribute_names"], results["aligned"]
    rows = results.get(f"{which}_rows") or []
    top = results[which][: (len(rows) or 12) if images is None else len(images)]

    def sample_view(i: int, sample: dict[str, Any]) -> dict[str, Any]:
        has_attribute = 0 <= sample["attribute"] < len(attributes)
        name = labels[sample["label"]] + (f" · {attributes[sample['attribute']]}" if has_attribute else "")
        return {"name": name, "score": sample["score"], "index": sample["index"],
                "image": None if images is None else figures.picture(images[i], name),
                "aligned": has_attribute and aligned[sample["label"]][sample["attribute"]],
                "row": list(rows[i].values()) if i < len(rows) else []}  # fmt: skip

    samples = [sample_view(i, sample) for i, sample in enumerate(top)]
    return {"samples": samples, "columns": list(rows[0]) if rows else [],
            "aligned": sum(sample["aligned"] for sample in samples)}  # fmt: skip


def _aligned_share(results: dict[str, Any]) -> tuple[int, int]:
    counts, aligned = np.array(results["train_counts"]), np.array(results["aligned"], bool)
    return int(counts.sum()), int(counts[aligned].sum())


def _rounds(results: dict[str, Any]) -> dict[str, Any] | None:
    if results["edit"] is None or not results["edit"]["rounds"]:
        return None
    rounds, start = results["edit"]["rounds"], results["edit"].get("accept_before")
    drawn = list(rounds)
    if start:
        drawn.insert(0, {"round": 0, "accept_accuracy": start["accuracy"], "accept_bias": start["bias"],
                         "aligned_accuracy": start["aligned_accuracy"]})  # fmt: skip
    chart = figures.lines(
        [Series("aligned accuracy", "muted", [r["aligned_accuracy"] for r in drawn]),
         Series("accuracy", "after", [r["accept_accuracy"] for r in drawn]),
         Series("bias", "before", [r["accept_bias"] for r in drawn])],
        [int(r["round"]) for r in drawn], step_name="round") if len(drawn) > 1 else ""  # fmt: skip

    def number(value: float | int | None, form: str) -> str:
        return formats.NONE if value is None else format(value, form).replace("-", "−")

    def hundredfold(value: float | int | None, sign: str = "") -> str:
        return number(None if value is None else 100 * value, f"{sign}.1f")

    table = [[number(r["round"], "g"), number(r["u"], ".3g"), hundredfold(r["predicted_change"], "+"),
              hundredfold(r["achieved_change"], "+"), hundredfold(r["accept_accuracy"]),
              hundredfold(r["aligned_accuracy"]), hundredfold(r["accept_bias"]), number(r["residual"], ".0e"),
              number(r["seconds"], ".2f")] for r in rounds]  # fmt: skip
    return {"chart": chart, "table": table, "columns": ["round", "step", "bias change predicted", "achieved",
            "accuracy", "aligned accuracy", "bias", "residual", "seconds"]}  # fmt: skip


def _train(results: dict[str, Any], pictures: Pictures) -> dict[str, Any]:
    total, among = _aligned_share(results)
    counts = np.array(results["train_counts"])
    matrix = None
    if len(results["attribute_names"]) <= MOST_COLUMNS and len(results["label_names"]) <= 2 * MOST_COLUMNS:
        most = max(int(counts.max()), 1)
        # The square root keeps the few conflicting samples visible beside the many aligned ones.
        cells = [[{"look": figures.heat((c / most) ** 0.5 if c else 0.0, "cool"),
                   "text": formats.count(c) if c else "·",
                   "mark": "outlined" if results["aligned"][i][j] else ""} for j, c in enumerate(row)]
                 for i, row in enumerate(counts.tolist())]  # fmt: skip
        matrix = _matrix("", results["label_names"], results["attribute_names"], cells,
                         corner=f"label \\ {wording.words(results).attribute}")  # fmt: skip
    images = [] if pictures.train is None else [figures.picture(i, "a training sample") for i in pictures.train]
    loss = [v for v in results["training"]["loss"] if v is not None]
    return {
        "matrix": matrix,
        "images": images,
        "total": total,
        "aligned": formats.percent(among / total) if total else "",
        "conflicting": total - among,
        "epochs": results["training"]["epochs"],
        "loss": [f"{loss[0]:.2g}", f"{loss[-1]:.2g}"] if loss else [],
        "spark": figures.spark(loss),
    }


def _steps(results: dict[str, Any]) -> list[dict[str, Any]]:
    """Where the time went, as bars on the scale of the longest step."""
    known = {name: value for name, value in results["seconds_by_step"].items() if value is not None}
    longest = max(known.values(), default=0.0) or 1.0
    return [{"name": name.replace("_", " "), "seconds": formats.seconds(value),
             "bar": figures.bar({"value": value, "low": None, "high": None}, "other", full=longest)}
            for name, value in known.items()]  # fmt: skip
