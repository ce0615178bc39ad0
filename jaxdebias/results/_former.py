"""`results.json`: its schema, and writing and reading it without ever leaving half a file behind.

The keys are stable. Rates and differences are fractions in 0..1; rounding happens only when they are shown.

| key | value |
| --- | --- |
| `dataset`, `model`, `device` | names |
| `variant` | dict: what fixes the data besides the name |
| `method` | "erm", "fmd", ... |
| `seed` | int |
| `versions` | dict: package -> version |
| `seconds`, `seconds_by_step` | wall time: the sum, and a dict step -> seconds |
| `label_names`, `attribute_names` | lists of k and of a names |
| `train_counts` | [k][a] ints: training samples of each group |
| `aligned` | [k][a] bools: the groups where the attribute goes with the label |
| `before` | Measurement of the trained model on the test set |
| `after` | Measurement after the repair, or null |
| `baselines` | name -> {`measurement`: Measurement, `seconds`, `needs`: which labels and data}; may be empty |
| `edit` | null, or {`accepted`, `reason`, `parameters_changed`, `parameters`, `rounds`: [Round]} |
| `harmful` | [{`index`, `label`, `attribute`, `score`}], most harmful first; positive: removal lowers the bias |
| `training` | {`epochs`, `loss`: one value per epoch or chunk} |
| `findings` | remarks in plain language; may be empty |

| optional key | value |
| --- | --- |
| `attribute`, `items` | what they are called in sentences: "colour", "digits" (else "attribute", "samples") |
| `level` | of all intervals; 0.95 |
| `changes` | metric -> {`value`, `low`, `high`}: after minus before, paired over test samples |
| `edit.accept_before` | {`accuracy`, `bias`, `aligned_accuracy`} on the acceptance set before the first round |
| `pairing` | "counterfactual"; "matched": twins are other samples, `counterfactual_bias` is a gap of means |
| `helpful` | as `harmful`, most helpful first; the scores are negative: removal raises the bias |
| `harmful_rows`, `helpful_rows` | tables: one dict column -> value for each of the first samples |
| `candidates` | of `jaxdebias.audit`: [Candidate], shortcuts first, then by strength |
| `answers` | of `jaxdebias.audit`: five of {`question`, `said`: or "", `needs`: what would be needed} |
| `advice` | of `jaxdebias.audit`: Advice |
| `discovered` | of `jaxdebias.audit`, null if not looked for: Discovered |
| `inputs` | of `jaxdebias.audit`: `model`: what was given; `pixels`, `samples`: what these answers would need |
| `maps` | Maps: where the model looks on the test set, after the repair if there was one |
| `config`, `edit_config` | how the data set and the trained model were made, how it was repaired |
| `trained` | of a repair: the folder of the trained run |
| `patches` | Patches: where held-out images show the attribute and the label |
| `draws` | Draws: which training samples a method that draws by rarity drew more often |

Candidate (`measure.find_shortcuts`): `name`; `verdict`: "shortcut", "explained" (`explained_by` another one), "none" or
"unknown" (`reason`); `gap`: aligned minus conflicting accuracy, or null; `pull`, `z`: numbers or null; `p_value`; `n`.

Advice: `fix`: name of an option, "leave it" or "not tried"; `reason`: of leaving it; `missing`: what would be needed
to try more; `retrain`: sentences; `options`: [{`name`, `expected`: metric -> {`value`, `low`, `high`, `n`}, after minus
before on held-out samples that chose nothing, `gains`, `harm`: metrics that get separably better, worse, `seconds`}],
the best first; `verified`: null, or {`held`, `changes`: metric -> the same on the test set}.

Discovered: `cells`: null, or {`name`, `judges`: "aug-cell" or "sih", `flagged_share` of the training samples,
`confidence` of the judges: in flagged samples and in others, `followed`: of test samples whose guess contradicts the
label the share that the model takes for the guess, `plain`, `suspected`, `typical`: rows of train, `typical_label`:
theirs}; `groups`: [{`label`, `error`, `others`: rates, `p_value`, `mistaken_for`, `typical`: rows of test}].

Measurement: `accuracy`, `group_mean_accuracy`, `reweighted_accuracy`, `worst_group_accuracy` (with `group`, its
name), `bias_aligned_accuracy`, `bias_conflicting_accuracy`, `counterfactual_bias`, `demographic_parity_difference`,
`equal_opportunity_difference`, `equalised_odds_difference`: each {`value`, `low`, `high`, `n`}, or null where it does
not apply; `groups`: [{`label`, `attribute`, `label_name`, `attribute_name`, `aligned`, `n`, `accuracy`, `flagged`}],
flagged where n < 30; `confusion_by_group`: [k][a][k] ints: true label, attribute, predicted label.

Round: `round`, `u` (step, as rms change of the logits), `t` (the same step as a factor), `predicted_change` and
`achieved_change` of the bias, `accept_accuracy`, `accept_bias`, `aligned_accuracy` on the held-out acceptance set,
`residual` of the linear solve, `seconds`.

Maps: `method`, `target`: of the class maps; `grid`: [h, w]; `regions`: names, empty without masks; `agreement`:
mean Attention-IoU of these maps with HiResCAM's, or null; `rows`: [{`kind`:
"all", "aligned", "conflicting" or "group", `label`, `attribute`: of a group, else null, `n` images, `without_map`:
those whose map is empty, `average`: [h][w] mean map, 1 is what looking everywhere alike gives, or null, `regions`:
[{`region`, `score`: Attention-IoU over the images where it is present, `chance`: what a uniform map scores on them,
`inside`: share of the map within the region, `area`: share of the image that it fills, `n` images that entered,
`flagged`}]}]; `examples`: [{`row` of the test set, `label`, `attribute`, `predicted`}].

Patches: `split`: whose `rows` images the maps are of, `train_rows` that the networks were trained on, `patch`, `stride`
in pixels, `missing` groups without an image, `top`: share of the pixels called top, `attribute` and `label`: {`map`:
nested lists of nats, coarser than the images, `information`: what a patch in the top region tells of all there is to
know, a rate that may be below 0, `held`: share of the information in the top pixels, `spread`, `found`, `area`: share
of the pixels that holds 90 %, `classes` told apart}, `overlap`: IoU of both top regions, `chance` of it, `examples`:
[{`row` of the split, `label`, `attribute`}]. The maps at full size are in `patches.npz`.

Draws: `rows` of the training set, `ess`: effective sample size over rows, `largest`: share of the draws of the heaviest
row, `never_drawn`: expected share of rows left out of an epoch, all after the last epoch; `epochs`, `ess_by_epoch`,
`never_by_epoch`: at the last epoch of each chunk of training; `histogram`: rows by weight over mean weight, between
`edges`; `kl`: mean of each latent, in nats, `carrying`: how many have 0.01; `groups`: [{`label`, `attribute`, `rows`,
`row_share`, `draw_share`, `auc`: chance that a row outweighs another one of its label, or null}], `conflicting`: the
same of all bias-conflicting rows, or null; `rarest`, `commonest`: [{`index` of the training set, `label`, `attribute`,
`ratio`: weight over mean weight}]. All weights, and reconstructions of these samples, are in `draws.npz`.
"""

import json
import math
import numbers
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxdebias.contracts import ContractError, describe, expect
from jaxdebias.files import write_text

METRIC_KEYS = (
    "accuracy",
    "group_mean_accuracy",
    "reweighted_accuracy",
    "worst_group_accuracy",
    "bias_aligned_accuracy",
    "bias_conflicting_accuracy",
    "counterfactual_bias",
    "demographic_parity_difference",
    "equal_opportunity_difference",
    "equalised_odds_difference",
)

Number = numbers.Real
_KEYS: Mapping[str, type | tuple[type, ...]] = {
    "dataset": str,
    "variant": Mapping,
    "method": str,
    "seed": int,
    "device": str,
    "versions": Mapping,
    "seconds": Number,
    "seconds_by_step": Mapping,
    "label_names": list,
    "attribute_names": list,
    "train_counts": list,
    "aligned": list,
    "model": str,
    "before": Mapping,
    "after": (Mapping, type(None)),
    "baselines": Mapping,
    "edit": (Mapping, type(None)),
    "harmful": list,
    "training": Mapping,
    "findings": list,
}
_GROUP = {"label": int, "attribute": int, "label_name": str, "attribute_name": str, "aligned": bool, "n": int,
          "accuracy": (Mapping, type(None)), "flagged": bool}  # fmt: skip
_BASELINE = {"measurement": Mapping, "seconds": Number, "needs": str}
_EDIT = {"accepted": bool, "reason": str, "parameters_changed": int, "parameters": int, "rounds": list}
_ROUND = dict.fromkeys(
    ("round", "u", "t", "predicted_change", "achieved_change", "accept_accuracy", "accept_bias", "aligned_accuracy",
     "residual", "seconds"), (Number, type(None)))  # fmt: skip
_MAPS = {"method": str, "target": str, "grid": list, "regions": list,
         "agreement": (Number, type(None)), "rows": list, "examples": list}  # fmt: skip
_MAPS_ROW = {"kind": str, "label": (int, type(None)), "attribute": (int, type(None)), "n": int, "without_map": int,
             "average": (list, type(None)), "regions": list}  # fmt: skip
_REGION = {"region": str, "score": Mapping, "chance": (Number, type(None)), "inside": Mapping,
           "area": (Number, type(None)), "n": int, "flagged": bool}  # fmt: skip
_EXAMPLE = {"row": int, "label": int, "attribute": int, "predicted": int}
_PATCHES = {"split": str, "rows": int, "train_rows": int, "patch": int, "stride": int, "missing": int, "top": Number,
            "attribute": Mapping, "label": Mapping, "overlap": Number, "chance": Number, "examples": list}  # fmt: skip
_PLACE = {"map": list, "information": Mapping, "held": Number, "spread": bool, "found": bool, "area": Number,
          "classes": int}  # fmt: skip
_PATCH_EXAMPLE = {"row": int, "label": int, "attribute": int}
_DRAWS = {"rows": int, "ess": Number, "largest": Number, "never_drawn": Number, "edges": list, "histogram": list,
          "kl": list, "carrying": int, "epochs": list, "ess_by_epoch": list, "never_by_epoch": list, "groups": list,
          "conflicting": (Mapping, type(None)), "rarest": list, "commonest": list}  # fmt: skip
_DRAWN_SET = {"rows": int, "row_share": Number, "draw_share": Number, "auc": (Number, type(None))}
_DRAWN_GROUP = {"label": int, "attribute": int, **_DRAWN_SET}
_DRAWN = {"index": int, "label": int, "attribute": int, "ratio": Number}
_HARMFUL = {"index": int, "label": int, "attribute": int, "score": Number}
_ANSWER = {"question": str, "said": str, "needs": str}
_ADVICE = {"fix": str, "reason": str, "missing": str, "retrain": list, "options": list,
           "verified": (Mapping, type(None))}  # fmt: skip
_OPTION = {"name": str, "expected": Mapping, "gains": list, "harm": list, "seconds": Number}
_CELLS = {
    "name": str,
    "judges": str,
    "flagged_share": Number,
    "confidence": list,
    "followed": Mapping,
    "plain": bool,
    "suspected": bool,
    "typical": list,
    "typical_label": list,
}
_ERROR_GROUP = {"label": int, "error": Mapping, "others": Mapping, "p_value": Number, "mistaken_for": int,
                "typical": list}  # fmt: skip
_RATE = {"value": (Number, type(None)), "low": (Number, type(None)), "high": (Number, type(None)),
         "n": (int, type(None))}  # fmt: skip


def check_results(results: Mapping[str, Any]) -> None:
    """Checks that results, as plain JSON values, follow the schema of this module.

    Raises:
      ContractError: naming the first key that is missing or holds something else.

    >>> check_results({"dataset": "digits"})
    Traceback (most recent call last):
    jaxdebias.contracts.ContractError: `results`: expected a key 'variant', got only dataset
    """
    _check_mapping("results", results, _KEYS)
    for key in ("label_names", "attribute_names", "findings"):
        expect(all(isinstance(text, str) for text in results[key]), key, "a list of texts", describe(results[key]))
    k, a = len(results["label_names"]), len(results["attribute_names"])
    expect(k > 0 and a > 0, "label_names", "at least one label and one attribute value", f"{k} and {a}")
    for key in ("attribute", "items"):
        expect(isinstance(results.get(key), str | None), key, "a text or null", describe(results.get(key)))
    _check_counts("train_counts", results["train_counts"], (k, a))
    _check_table("aligned", results["aligned"], (k, a))
    _check_measurement("before", results["before"], k, a)
    if results["after"] is not None:
        _check_measurement("after", results["after"], k, a)
    for name, baseline in results["baselines"].items():
        _check_mapping(f"baselines[{name!r}]", baseline, _BASELINE)
        _check_measurement(f"baselines[{name!r}].measurement", baseline["measurement"], k, a)
    if results["edit"] is not None:
        _check_mapping("edit", results["edit"], _EDIT)
        for i, row in enumerate(results["edit"]["rounds"]):
            _check_mapping(f"edit.rounds[{i}]", row, _ROUND)
    for name in ("harmful", "helpful"):
        rows = results.get(name, [])
        expect(isinstance(rows, list), name, "a list", describe(rows))
        for i, row in enumerate(rows):
            _check_mapping(f"{name}[{i}]", row, _HARMFUL)
            _check_cell(f"{name}[{i}]", row, k, a)
    _check_mapping("training", results["training"], {"epochs": Number, "loss": list})
    loss = results["training"]["loss"]
    expect(all(isinstance(one, Number | None) for one in loss), "training.loss", "numbers or null", describe(loss))
    if results.get("maps") is not None:
        _check_maps(results["maps"])
    if results.get("patches") is not None:
        _check_patches(results["patches"])
    if results.get("draws") is not None:
        _check_draws(results["draws"])
    if results.get("advice") is not None:
        _check_audit(results)


def _check_audit(results: Mapping[str, Any]) -> None:
    for i, one in enumerate(results.get("answers", [])):
        _check_mapping(f"answers[{i}]", one, _ANSWER)
    _check_mapping("advice", results["advice"], _ADVICE)
    for i, one in enumerate(results["advice"]["options"]):
        _check_mapping(f"advice.options[{i}]", one, _OPTION)
        for name, rate in one["expected"].items():
            _check_mapping(f"advice.options[{i}].expected.{name}", rate, _RATE)
    found = results.get("discovered")
    if found is not None:
        _check_mapping("discovered", found, {"cells": (Mapping, type(None)), "groups": list})
        if found["cells"] is not None:
            _check_mapping("discovered.cells", found["cells"], _CELLS)
        for i, one in enumerate(found["groups"]):
            _check_mapping(f"discovered.groups[{i}]", one, _ERROR_GROUP)


def _check_maps(maps: Any) -> None:
    _check_mapping("maps", maps, _MAPS)
    for i, row in enumerate(maps["rows"]):
        _check_mapping(f"maps.rows[{i}]", row, _MAPS_ROW)
        if row["average"] is not None:
            _check_table(f"maps.rows[{i}].average", row["average"], tuple(maps["grid"]))
        count = len(maps["regions"])
        expect(len(row["regions"]) == count, f"maps.rows[{i}].regions", f"{count} of them", len(row["regions"]))
        for j, region in enumerate(row["regions"]):
            _check_mapping(f"maps.rows[{i}].regions[{j}]", region, _REGION)
            for key in ("score", "inside"):
                _check_rate(f"maps.rows[{i}].regions[{j}].{key}", region[key])
    for i, example in enumerate(maps["examples"]):
        _check_mapping(f"maps.examples[{i}]", example, _EXAMPLE)


def _check_patches(patches: Any) -> None:
    _check_mapping("patches", patches, _PATCHES)
    for name in ("attribute", "label"):
        what, place = f"patches.{name}", patches[name]
        _check_mapping(what, place, _PLACE)
        _check_mapping(f"{what}.information", place["information"], _RATE)
        _check_table(f"{what}.map", place["map"], (len(place["map"]), len(place["map"][0]) if place["map"] else 0))
    for i, example in enumerate(patches["examples"]):
        _check_mapping(f"patches.examples[{i}]", example, _PATCH_EXAMPLE)


def _check_draws(draws: Any) -> None:
    _check_mapping("draws", draws, _DRAWS)
    _check_table("draws.histogram", draws["histogram"], (len(draws["edges"]) - 1,))
    for name in ("ess_by_epoch", "never_by_epoch"):
        _check_table(f"draws.{name}", draws[name], (len(draws["epochs"]),))
    for name, keys in (("groups", _DRAWN_GROUP), ("rarest", _DRAWN), ("commonest", _DRAWN)):
        for i, row in enumerate(draws[name]):
            _check_mapping(f"draws.{name}[{i}]", row, keys)
    if draws["conflicting"] is not None:
        _check_mapping("draws.conflicting", draws["conflicting"], _DRAWN_SET)


def _check_mapping(what: str, value: Any, keys: Mapping[str, Any]) -> None:
    expect(isinstance(value, Mapping), what, "a dict", describe(value))
    for key, kind in keys.items():
        expect(key in value, what, f"a key {key!r}", f"only {', '.join(map(str, value)) or 'none'}")
        kinds = kind if isinstance(kind, tuple) else (kind,)
        good = isinstance(value[key], kinds) and not (isinstance(value[key], bool) and bool not in kinds)
        name = " or ".join({Mapping: "dict", Number: "number", type(None): "null"}.get(one, one.__name__)
                           for one in kinds)  # fmt: skip
        expect(good, f"{what}.{key}", name, describe(value[key]))


def _check_measurement(what: str, measurement: Any, k: int, a: int) -> None:
    _check_mapping(what, measurement, dict.fromkeys(METRIC_KEYS, (Mapping, type(None)))
                   | {"groups": list, "confusion_by_group": list})  # fmt: skip
    for key in METRIC_KEYS:
        _check_rate(f"{what}.{key}", measurement[key])
    for i, group in enumerate(measurement["groups"]):
        _check_mapping(f"{what}.groups[{i}]", group, _GROUP)
        _check_cell(f"{what}.groups[{i}]", group, k, a)
        _check_rate(f"{what}.groups[{i}].accuracy", group["accuracy"])
    _check_counts(f"{what}.confusion_by_group", measurement["confusion_by_group"], (k, a, k))


def _check_cell(what: str, row: Mapping[str, Any], k: int, a: int) -> None:
    for key, count in (("label", k), ("attribute", a)):
        least = 0 if key == "label" else -1  # an unknown attribute
        expect(least <= row[key] < count, f"{what}.{key}", f"a number in {least}..{count - 1}", row[key])


def _check_rate(what: str, rate: Any) -> None:
    if rate is None:
        return
    _check_mapping(what, rate, _RATE)
    for key in ("value", "low", "high"):
        number = rate[key]
        expect(number is None or 0 <= number <= 1, f"{what}.{key}", "a fraction in 0..1", number)


def _check_counts(what: str, table: Any, shape: tuple[int, ...]) -> None:
    _check_table(what, table, shape)
    least, most = np.min(table), np.max(table)
    expect(bool(least >= 0 and most < 2**53), what, "counts", f"{least:g}..{most:g}")


def _check_table(what: str, table: Any, shape: tuple[int, ...]) -> None:
    try:
        array = np.array(table)
    except ValueError:  # rows of unequal length
        array = np.array(None)
    good = array.shape == shape and array.dtype.kind in "biuf"
    expect(good, what, f"numbers in nested lists {list(shape)}", list(array.shape) or "something else")


def to_json(value: Any, what: str = "results") -> Any:
    """Plain JSON values: arrays and tuples become lists, NamedTuples dicts, NaN and infinities null.

    >>> to_json({"rate": np.float32("nan"), "n": np.int32(3), "counts": np.arange(2)})
    {'rate': None, 'n': 3, 'counts': [0, 1]}
    """
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, np.bool_):
        return bool(value)
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, pathlib.Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): to_json(item, f"{what}.{key}") for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return to_json(value._asdict(), what)
    if isinstance(value, list) and all(type(item) in (int, str, bool) for item in value):
        return list(value)  # nothing to convert: spares the tables of counts a call for each number
    if isinstance(value, list | tuple):
        return [to_json(item, f"{what}[{i}]") for i, item in enumerate(value)]
    numeric = hasattr(value, "dtype") and hasattr(value, "shape") and np.asarray(value).dtype.kind in "biufU"
    expect(numeric, what, "a JSON value or an array of numbers", describe(value))
    return to_json(np.asarray(value).tolist(), what)


def write_results(results: Mapping[str, Any], path: str | os.PathLike) -> None:
    """Writes results, checked, as strict JSON; a reader never sees half a file."""
    plain = to_json(results)
    check_results(plain)
    write_text(path, json.dumps(plain, indent=1, allow_nan=False, ensure_ascii=False) + "\n")


def read_results(path: str | os.PathLike) -> dict[str, Any]:
    """Reads and checks a `results.json`; `path` may be the folder of a run.

    Raises:
      ContractError: in one line, if there is no such file, it is no JSON, or a key is missing.
    """
    path = pathlib.Path(path)
    path = path / "results.json" if path.is_dir() else path
    expect(path.is_file(), str(path), "a results.json that a run has written", "no such file")
    try:
        results = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        expect(False, str(path), "JSON", f"{' '.join(str(error).split())}")
    expect(isinstance(results, dict), str(path), "a JSON object", describe(results))
    try:
        check_results(results)
    except ContractError as error:
        raise ContractError(f"{path}, {error}") from None
    return results


def _no_number(token: str) -> None:
    raise ValueError(f"{token}, which JSON does not have")
