"""Repair a last layer that comes as a file: feature matrices and weights in, the edited weights out.

For models that are not in JAX. Whoever can write the inputs of a last layer (PyTorch: the output of the penultimate
layer) and its weights to `.npz` files gets the weights back under the same names, in the same shapes and dtypes.

Features, `[n d]` float each, with labels `[n]` int, 0..k-1:

| array | what it is |
| --- | --- |
| `train`, `train_label` | the training set, for the curvature of its objective; not needed with a saved factor or DFR |
| `edit`, `edit_twin`, `edit_label` | held-out pairs that make the step: the aligned and the conflicting side |
| `accept`, `accept_label` | held-out examples on which candidates are judged, the attribute independent of the label |
| `accept_pairs`, `accept_twin`, `accept_pairs_label` | held-out pairs for the same purpose, as those of `edit` |
| `test`, `test_label`; `test_pairs`, `test_twin`, `test_pairs_label` | only ever reported; either or both may lack |
| `NAME_attribute` | `[n]` int, of train, edit, accept, accept_pairs, test or test_pairs; -1 unknown |

Where `accept_pairs` is missing, `accept` and `accept_twin` are the pairs. Where one of `accept` and `accept_pairs` is
missing, both sides of the pairs are the examples, on which the attribute says nothing. The same holds for `test`.
Without any test array the acceptance sets are reported, and a finding says that this is optimistic. The attribute of
the reported examples gives their groups; the attributes of the others are checked and not used.

The head: one matrix, `[d k]` or `[k d]` (PyTorch's), and at most one vector `[k]`, under any names: the side that has d
entries is the features'; a square matrix is `[d k]` if its name ends in `kernel` and `[k d]` if in `weight`.

`results.json`, whose keys are named as in `jaxdebias.results.records` where they mean the same:

| key | value |
| --- | --- |
| `method`, `bias`, `seed`, `device`, `versions` | what was done, with what |
| `seconds` | of the edit |
| `features`, `classes`, `head` | d, k, and a dict name -> shape of each array of the head |
| `rows` | set -> number of rows, as they were used |
| `factor` | true: the curvature came from a saved factor |
| `split` | "test", or "accept" where no test array was given |
| `before`, `after` | metrics: each {`value`, `low`, `high`, `n`}, or null where it does not apply |
| `changes` | metric -> {`value`, `low`, `high`}: after minus before, paired over the rows |
| `edit` | {`accepted`, `reason`, `parameters_changed`, `parameters`, `rounds`, ...} |
| `findings` | remarks in plain language |

The metrics: `accuracy` of the examples, and where their attribute is known `worst_group_accuracy` and
`group_mean_accuracy`; `bias_aligned_accuracy` and `bias_conflicting_accuracy`, of the two sides of the pairs;
`counterfactual_bias` of the pairs.
"""

import json
import os
import pathlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxdebias.contracts import ContractError, check_choice, check_finite, check_integers, describe, expect
from jaxdebias.core import Array, Batch, Key, Params, RepairSets, Split, unpair
from jaxdebias.explain import influence
from jaxdebias.explain.influence import InverseHessian
from jaxdebias.files import BROKEN, one_line, read_arrays, write_arrays, write_text
from jaxdebias.measure._bootstrap import Interval, paired_difference, rate_intervals
from jaxdebias.measure._counterfactual import counterfactual_bias_of_logits, true_class_probability
from jaxdebias.measure._groups import accuracy_differences, group_report
from jaxdebias.mitigate._dfr import dfr
from jaxdebias.mitigate._fmd.config import FmdConfig
from jaxdebias.mitigate._fmd.edit import fmd
from jaxdebias.results import build as content
from jaxdebias.results.provenance import device_name, versions
from jaxdebias.results.records import to_json

SETS = {
    "train": ("train", None, "train_label"),
    "edit": ("edit", "edit_twin", "edit_label"),
    "accept": ("accept", None, "accept_label"),
    "accept_pairs": ("accept_pairs", "accept_twin", "accept_pairs_label"),
    "test": ("test", None, "test_label"),
    "test_pairs": ("test_pairs", "test_twin", "test_pairs_label"),
}
"""Set -> its arrays: features, twins, labels."""


@dataclass(frozen=True, kw_only=True)
class FeatureConfig:
    """How to repair."""

    method: str = "fmd"
    """`fmd`, or `dfr`: the layer is fitted again on both sides of the edit pairs."""
    rounds: int = 10
    direction: str = "ext"
    """`ext` or `gradB`, see `FmdConfig`."""
    pairs: int | None = None
    """Edit pairs to use at most; None: all."""
    bias: str = "pair"
    """`pair`: a twin is the same example with another attribute. `gap`: a different example of the same label."""
    seed: int = 0

    def __post_init__(self):
        check_choice("method", self.method, ("fmd", "dfr"))
        check_choice("direction", self.direction, ("ext", "gradB"))
        check_choice("bias", self.bias, ("pair", "gap"))

    def fmd(self) -> FmdConfig:
        return FmdConfig(rounds=self.rounds, direction=self.direction, pairs=self.pairs, bias=self.bias)


class HeadFile(NamedTuple):
    """A last layer as it lies in its file, and the same as parameters."""

    arrays: dict[str, np.ndarray]
    kernel: str
    """The name of the matrix."""
    bias: str | None
    """The name of the vector."""
    transposed: bool
    """The matrix is `[k d]`."""

    @property
    def params(self) -> Params:
        """`{"head": {"kernel" [d k], "bias" [k]}}`, float32."""
        kernel = self.arrays[self.kernel]
        head = {"kernel": jnp.asarray((kernel.T if self.transposed else kernel).astype(np.float32))}
        if self.bias is not None:
            head["bias"] = jnp.asarray(self.arrays[self.bias].astype(np.float32))
        return {"head": head}

    def with_params(self, params: Params) -> dict[str, np.ndarray]:
        """The arrays with other values, in the shapes and dtypes of the file."""
        kernel = np.asarray(params["head"]["kernel"])
        new = {self.kernel: kernel.T if self.transposed else kernel}
        if self.bias is not None:
            new[self.bias] = np.asarray(params["head"]["bias"])
        out = {name: np.ascontiguousarray(new[name].astype(old.dtype)) for name, old in self.arrays.items()}
        check_finite("edited head", out)
        return out


class FeatureSets(NamedTuple):
    """The sets of a features file as batches of tables, after the rules of this module for what is missing."""

    train: Batch | None
    edit: Batch
    accept: Batch
    accept_pairs: Batch
    test: Batch | None
    test_pairs: Batch | None


def debias_features(
    features: str | os.PathLike,
    head: str | os.PathLike,
    out: str | os.PathLike,
    config: FeatureConfig = FeatureConfig(),
    *,
    factor: str | os.PathLike | None = None,
    save_factor: str | os.PathLike | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Repairs the last layer in a file; writes `head.npz` and `results.json` to the folder `out`.

    A repair that was not accepted gives the very numbers back that went in.

    Args:
      features: `.npz` file of the arrays that the module names.
      head: `.npz` file of the last layer.
      out: folder, made if missing.
      config: see there.
      factor: a factor of the training objective that `save_factor` or `influence.save` wrote, instead of training
        features. It holds the curvature at the head of its time, and its damping, for all rounds: on a model that
        fits its training set such an edit takes out far less than one that computes it anew.
      save_factor: where to write the factor of the training objective at the head that comes in, from all rows.
      overwrite: replace what is in `out`.

    Returns:
      The content of `results.json`.

    Raises:
      ContractError: files that are missing or damaged, arrays that are missing, unknown, of the wrong shape, out of
        range or not finite, or results already in `out`.
    """
    out = pathlib.Path(out)
    expect(not out.exists() or out.is_dir(), "out", "a folder", f"{out}, which is a file")
    done = (out / "results.json").exists() or (out / "head.npz").exists()
    expect(overwrite or not done, "out", "a folder without results (or --overwrite to debias anew)", out)
    expect(factor is None or config.method == "fmd", "factor", "none for dfr, which needs no curvature", factor)
    expect(save_factor is None or config.method == "fmd", "save_factor", "none for dfr", save_factor)
    expect(save_factor is None or factor is None, "save_factor", "training features, not a saved factor", factor)
    arrays, head_arrays = read_arrays("features", features), read_arrays("head", head)
    inverse = None if factor is None else _read_factor(factor)
    sets, found = feature_sets(arrays, head_arrays, needs_train=config.method == "fmd" and inverse is None)
    if save_factor is not None:
        folder = pathlib.Path(save_factor).parent
        expect(folder.is_dir(), "save_factor", "a path in a folder that exists", save_factor)
        influence.save(save_factor, training_factor(sets.train, found, damping=config.fmd().damping))
    edited, results = debias_sets(jax.random.key(config.seed), sets, found, config, inverse=inverse)
    out.mkdir(parents=True, exist_ok=True)
    write_arrays(out / "head.npz", edited)
    write_text(out / "results.json", json.dumps(results, indent=1, allow_nan=False, ensure_ascii=False) + "\n")
    return results


def debias_sets(
    key: Key,
    sets: FeatureSets,
    head: HeadFile,
    config: FeatureConfig = FeatureConfig(),
    *,
    inverse: InverseHessian | None = None,
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The same without files.

    Returns:
      (the arrays of the edited head, what `results.json` holds).
    """
    key_edit, key_measure, key_changes = jax.random.split(key, 3)
    split, params = AFFINE, head.params
    held_out = RepairSets(
        train=None if inverse is not None else sets.train,
        edit=sets.edit,
        pairs=sets.edit,
        accept=sets.accept,
        accept_pairs=sets.accept_pairs,
    )
    if config.method == "fmd":
        if inverse is not None:
            _check_size(inverse, params)
        fmd_config = config.fmd()
        edited, info = fmd(key_edit, split, params, held_out, fmd_config, inverse=inverse)
        edit = content.edit(info, params, edited, fmd_config)
    else:
        edited, info = dfr(key_edit, split, params, held_out._replace(edit=unpair(sets.edit)))
        edit = {
            "accepted": True,
            "reason": f"Last layer refitted with penalty {info.penalty:g}, chosen on the acceptance set.",
            **content.parameter_counts(params, edited),
            "rounds": [],
        }
    arrays = head.with_params(edited) if edit["accepted"] else head.arrays
    reported = "test" if sets.test is not None or sets.test_pairs is not None else "accept"
    examples, pairs = (sets.test, sets.test_pairs) if reported == "test" else (sets.accept, sets.accept_pairs)
    # What is written is measured, in the dtype of the file.
    models = [head.params, head._replace(arrays=arrays).params]
    before, after = (_measure(key_measure, one, examples, pairs, config.bias) for one in models)
    kernel = params["head"]["kernel"]
    return arrays, to_json(
        {
            "method": config.method,
            "bias": config.bias,
            "seed": config.seed,
            "device": device_name(),
            "versions": versions(),
            "seconds": info.seconds,
            "features": kernel.shape[0],
            "classes": kernel.shape[1],
            "head": {name: list(array.shape) for name, array in head.arrays.items()},
            "rows": {name: None if batch is None else len(batch.label) for name, batch in sets._asdict().items()},
            "factor": inverse is not None,
            "split": reported,
            "before": before,
            "after": after,
            "changes": _changes(key_changes, *models, examples, pairs, config.bias),
            "edit": edit,
            "findings": _findings(sets, reported, config, fixed=inverse is not None),
        }
    )


def training_factor(train: Batch, head: HeadFile, *, damping: float = FmdConfig.damping) -> InverseHessian:
    """The dense factor of the training objective at a head, from all rows: what `influence.save` keeps.

    Args:
      train: features and labels.
      head: the trained last layer.
      damping: on the curvature of the MEAN of the losses.
    """
    params = head.params
    affine, _ = influence.find_head(AFFINE.head, params, ("head",), train.x.shape[1])
    problem = influence.head_problem(jnp.asarray(train.x), jnp.asarray(train.label), affine)
    return influence.factor(problem, damping=damping * len(train.label))


def feature_sets(
    features: Mapping[str, np.ndarray], head: Mapping[str, np.ndarray], *, needs_train: bool = True
) -> tuple[FeatureSets, HeadFile]:
    """Checks the arrays of both files and sorts them into sets.

    Raises:
      ContractError: in one line, naming the array, what was expected and what was found.
    """
    present = ", ".join(sorted(features)) or "none"
    known = {name for names in SETS.values() for name in names if name} | {f"{name}_attribute" for name in SETS}
    for name in features:
        check_choice("features", name, sorted(known))
    for name in ("edit", "edit_twin", "edit_label", *(("train", "train_label") if needs_train else ())):
        hint = ", or a saved factor" if name.startswith("train") else ""
        expect(name in features, "features", f"an array {name}{hint}", present)
    wide = describe(features["edit"])
    expect(features["edit"].ndim == 2 and features["edit"].shape[1] > 0, "edit", "float [m d]", wide)
    d = features["edit"].shape[1]
    found = find_head_arrays(head, d)
    k = found.params["head"]["kernel"].shape[1]
    arrays = dict(features)
    for name in ("accept", "test"):
        own = any(f"{name}_pairs{end}" in arrays for end in ("", "_label", "_attribute"))
        if not own and f"{name}_twin" in arrays:
            for old, new in (
                (name, f"{name}_pairs"),
                (f"{name}_label", f"{name}_pairs_label"),
                (f"{name}_attribute", f"{name}_pairs_attribute"),
            ):
                if old in arrays:
                    arrays[new] = arrays.pop(old)
    paired = any(name.startswith("accept_pairs") for name in arrays)
    expect(paired, "features", "an array accept_pairs with accept_twin, or accept with accept_twin", present)
    made = {name: _batch(name, arrays, d, k, present) for name in SETS}
    for name in ("accept", "test"):
        if made[name] is None and made[f"{name}_pairs"] is not None:
            pairs = made[f"{name}_pairs"]
            made[name] = unpair(pairs)._replace(unit=np.tile(np.arange(len(pairs.label), dtype=np.int32), 2))
    return FeatureSets(**made), found


def find_head_arrays(arrays: Mapping[str, np.ndarray], d: int) -> HeadFile:
    """Which array of a file is the kernel, which the bias, and which way round the kernel lies."""
    found = ", ".join(f"{name} {describe(array)}" for name, array in arrays.items()) or "none"
    matrices = [name for name, array in arrays.items() if array.ndim == 2]
    vectors = [name for name, array in arrays.items() if array.ndim == 1]
    good = len(matrices) == 1 and len(vectors) <= 1 and len(arrays) == len(matrices) + len(vectors)
    expect(good, "head", "one matrix and at most one vector", found)
    for name, array in arrays.items():
        expect(np.issubdtype(array.dtype, np.floating), f"head {name}", "float", describe(array))
        check_finite(f"head {name}", array.astype(np.float32))
    kernel, bias = matrices[0], vectors[0] if vectors else None
    rows, columns = arrays[kernel].shape
    expect(d in (rows, columns), "head", f"a matrix with d={d} features on one side, as `edit` has", found)
    transposed = rows != d
    if rows == columns:
        side = next((side for end, side in (("kernel", False), ("weight", True)) if kernel.lower().endswith(end)), None)
        expect(
            side is not None, "head", "a name that ends in kernel ([d k]) or weight ([k d]) for a square matrix", found
        )
        transposed = side
    k = rows if transposed else columns
    expect(k >= 2, "head", "at least two classes (a single logit z is the two classes 0 and z)", found)
    expect(bias is None or arrays[bias].shape == (k,), "head", f"a vector [k={k}]", found)
    return HeadFile(dict(arrays), kernel, bias, transposed)


def _identity(params: Params, x: Array) -> jax.Array:
    del params
    return jnp.asarray(x)


def _affine(params: Params, z: Array) -> jax.Array:
    head = params["head"]
    logits = z @ head["kernel"]
    return logits + head["bias"][None, :] if "bias" in head else logits


AFFINE = Split(features=_identity, head=_affine, head_path=("head",))
"""A last layer alone, on features; its parameters lie at `("head",)`."""


def _batch(name: str, arrays: Mapping[str, np.ndarray], d: int, k: int, present: str) -> Batch | None:
    x_name, twin_name, label_name = SETS[name]
    attribute_name = f"{name}_attribute"
    if x_name not in arrays:
        orphan = next((other for other in (twin_name, label_name, attribute_name) if other in arrays), None)
        expect(orphan is None, "features", f"an array {x_name} to go with {orphan}", present)
        return None
    for needed in (label_name, *((twin_name,) if twin_name else ())):
        expect(needed in arrays, "features", f"an array {needed} to go with {x_name}", present)
    x, label = _features(x_name, arrays[x_name], d), arrays[label_name]
    n = len(x)
    twin = None
    if twin_name:
        twin = _features(twin_name, arrays[twin_name], d)
        expect(len(twin) == n, twin_name, f"float [m={n}, d={d}], a row for each of {x_name}", describe(twin))
    check_integers(label_name, label, n, 0, k)
    attribute = arrays.get(attribute_name, np.full(n, -1, np.int32))
    check_integers(attribute_name, attribute, n, -1, None)
    return Batch(x=x, label=label.astype(np.int32), attribute=attribute.astype(np.int32), twin=twin)


def _features(name: str, x: np.ndarray, d: int) -> Float[np.ndarray, "n d"]:
    good = x.ndim == 2 and x.shape[1] == d and len(x) > 0 and np.issubdtype(x.dtype, np.floating)
    expect(good, name, f"float [n, d={d}], at least one row", describe(x))
    x = x.astype(np.float32)
    check_finite(name, x)
    return x


def _read_factor(path: str | os.PathLike) -> InverseHessian:
    expect(pathlib.Path(path).is_file(), "factor", "a file that `influence.save` wrote", f"{path}, which is no file")
    try:
        return influence.load(path)
    except ContractError:
        raise
    except BROKEN as error:
        raise ContractError(
            f"`factor`: expected a file that `influence.save` wrote, got {path} ({one_line(error)})"
        ) from None


def _check_size(inverse: InverseHessian, params: Params) -> None:
    layers = getattr(inverse, "layers", None)
    if layers is None:
        return
    size, p = sum(size for _, size in layers), sum(leaf.size for leaf in jax.tree.leaves(params))
    expect(size == p, "factor", f"one for the {p} parameters of the head", f"one for {size}")


def _mean(sums: jax.Array) -> jax.Array:
    return sums[0, 1] / sums[0, 0]


def _measure(key: Key, params: Params, examples: Batch | None, pairs: Batch | None, bias: str) -> dict[str, Any]:
    """The metrics that apply, as intervals."""
    key_groups, key_pairs = jax.random.split(key)
    said: dict[str, Interval | None] = dict.fromkeys(
        (
            "accuracy",
            "worst_group_accuracy",
            "group_mean_accuracy",
            "bias_aligned_accuracy",
            "bias_conflicting_accuracy",
            "counterfactual_bias",
        )
    )
    if examples is not None:
        report = group_report(key_groups, _logits(params, examples.x), examples, _cells(params, examples))
        known = (np.asarray(examples.attribute) >= 0).any()
        said["accuracy"] = report.accuracy
        if known:
            said |= {
                "worst_group_accuracy": report.worst_group_accuracy,
                "group_mean_accuracy": report.group_mean_accuracy,
            }
    if pairs is not None:
        sides = [_logits(params, x) for x in (pairs.x, pairs.twin)]
        for name, logits in zip(("bias_aligned_accuracy", "bias_conflicting_accuracy"), sides, strict=True):
            rate = rate_intervals(logits.argmax(axis=1) == pairs.label, np.zeros(len(pairs.label), np.int32), pools=1)
            said[name] = Interval(*(field[0].item() for field in rate))
        said["counterfactual_bias"] = counterfactual_bias_of_logits(*sides, pairs.label, key=key_pairs, kind=bias)
    return said


def _changes(
    key: Key, before: Params, after: Params, examples: Batch | None, pairs: Batch | None, bias: str
) -> dict[str, Interval]:
    key_groups, *key_pairs = jax.random.split(key, 4)
    found: dict[str, Interval] = {}
    if examples is not None:
        differences = accuracy_differences(
            key_groups, *(_logits(p, examples.x) for p in (before, after)), examples, _cells(before, examples)
        )
        found["accuracy"] = differences.accuracy
        if (np.asarray(examples.attribute) >= 0).any():
            found |= {
                "worst_group_accuracy": differences.worst_group_accuracy,
                "group_mean_accuracy": differences.group_mean_accuracy,
            }
    if pairs is not None:
        models = [[_logits(p, x) for x in (pairs.x, pairs.twin)] for p in (before, after)]
        values = {
            name: [model[side].argmax(axis=1) == pairs.label for model in models]
            for side, name in enumerate(("bias_aligned_accuracy", "bias_conflicting_accuracy"))
        }
        values["counterfactual_bias"] = [_bias_terms(model, pairs.label, bias) for model in models]
        for one, (name, sides) in zip(key_pairs, values.items(), strict=True):
            terms = [np.stack([np.ones(len(v)), v], axis=1) for v in sides]
            found[name] = paired_difference(one, _mean, *terms)
    return found


def _bias_terms(sides: list[np.ndarray], label: np.ndarray, bias: str) -> np.ndarray:
    """`[m]`, what the bias is the mean of."""
    change = np.subtract(*(np.asarray(true_class_probability(logits, label)) for logits in sides))
    # The sign of a gap is fixed by the data, as in `counterfactual_bias_of_logits`.
    return np.abs(change) if bias == "pair" else change * (1.0 if change.sum() >= 0 else -1.0)


def _logits(params: Params, x: Array) -> Float[np.ndarray, "n k"]:
    return np.asarray(_affine(params, jnp.asarray(x)))


def _cells(params: Params, examples: Batch) -> np.ndarray:
    """`[k a]`: which cells are aligned is not known; their shape is needed."""
    attributes = max(1, int(np.max(examples.attribute)) + 1)
    return np.zeros((params["head"]["kernel"].shape[1], attributes), bool)


def _findings(sets: FeatureSets, reported: str, config: FeatureConfig, *, fixed: bool) -> list[str]:
    remarks = []
    if reported == "accept":
        remarks.append(
            "No test arrays: the numbers are those of the acceptance sets, on which the repair was chosen, "
            "and are therefore optimistic."
        )
    elif sets.test_pairs is None:
        remarks.append("No test pairs: how far the model follows the attribute after the repair was not measured.")
    if fixed:
        remarks.append(
            "The curvature came from a saved factor and stayed that of the model before the edit. Training "
            "features, with which each round computes it anew, can take out far more; DFR needs neither."
        )
    if config.bias == "gap":
        remarks.append(
            "Pairs are taken as different examples of one label: the bias is the gap between the mean "
            "probabilities of both sides."
        )
    return remarks
