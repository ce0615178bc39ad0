"""`jaxdebias debias-features`: repair a last layer that comes as a file. Feature matrices and weights in, weights out.

For models that are not in JAX. Whoever can write the inputs of a last layer (PyTorch: the output of the penultimate
layer) and its weights to `.npz` files (`feature_sets` lists the arrays) gets the weights back under the same names, in
the same shapes and dtypes.

`results.json` holds a `results.records.FeatureResults`. Its metrics: `accuracy` of the examples, and where their
attribute is known `worst_group_accuracy` and `group_mean_accuracy`; `bias_aligned_accuracy` and
`bias_conflicting_accuracy`, of the two sides of the pairs; `counterfactual_bias` of the pairs.
"""

import dataclasses
import os
import pathlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxdebias import auditing
from jaxdebias.app.ending import print_ending
from jaxdebias.app.feature_data import feature_data, feature_verdict
from jaxdebias.app.feature_sets import FeatureSets, HeadFile, feature_sets
from jaxdebias.app.option_types import Folder, Int
from jaxdebias.app.result_set import claim, file_digest, is_complete
from jaxdebias.batching import unpair
from jaxdebias.contracts import ContractError, check_choice, expect
from jaxdebias.core import Array, Batch, Key, Params, RepairSets, Split
from jaxdebias.explain import influence
from jaxdebias.explain.influence import InverseHessian
from jaxdebias.files import BROKEN, one_line, read_arrays, write_arrays
from jaxdebias.measure._design_effect import group_counts
from jaxdebias.measure._groups import units_in
from jaxdebias.measure._intervals import Interval, proportion_interval
from jaxdebias.measure._row_intervals import paired_change
from jaxdebias.mitigate._dfr import dfr
from jaxdebias.mitigate._fmd.config import FmdConfig
from jaxdebias.mitigate._fmd.edit import fmd
from jaxdebias.results import build
from jaxdebias.results.codec import read_results, write_results
from jaxdebias.results.provenance import provenance
from jaxdebias.results.records import FeatureResults, GroupRate, Metrics
from jaxdebias.train._checkpoint import fingerprint

METRICS = ("accuracy", "worst_group_accuracy", "group_mean_accuracy")
SIDES = ("bias_aligned_accuracy", "bias_conflicting_accuracy")


@dataclass(frozen=True, kw_only=True)
class FeatureConfig:
    """How to repair."""

    method: Literal["fmd", "dfr"] = "fmd"
    """fmd: edits the layer in rounds; dfr: refits it on both sides of the edit pairs."""
    rounds: int = 10
    """Rounds of FMD, each with a line search."""
    direction: Literal["ext", "gradB"] = "ext"
    """Step of FMD. ext: external pairs, as in the paper; gradB: the gradient of the bias alone."""
    pairs: Int = None
    """At most this many edit pairs."""
    bias: Literal["pair", "gap"] = "pair"
    """What twins are. pair: the same example with another attribute; gap: a different example with the same label."""
    seed: int = 0
    """Seed of the edit and of the intervals."""

    def __post_init__(self):
        check_choice("method", self.method, ("fmd", "dfr"))
        check_choice("direction", self.direction, ("ext", "gradB"))
        check_choice("bias", self.bias, ("pair", "gap"))

    def fmd(self) -> FmdConfig:
        return FmdConfig(rounds=self.rounds, direction=self.direction, pairs=self.pairs, bias=self.bias)


@dataclass(frozen=True, kw_only=True)
class DebiasFeatures:
    """Repair the last layer of a model that was trained elsewhere, from files of its features and weights.

    Writes the repaired layer to OUT/head.npz, in the layout of HEAD, and results.json.
    """

    features: Path
    """.npz of feature matrices: train, train_label; edit, edit_twin, edit_label; accept, accept_label;
    accept_pairs, accept_twin, accept_pairs_label; the last five also as test."""
    head: Path
    """.npz of the last layer: one matrix [d k] or [k d] and at most one vector."""
    out: Path
    """Folder of the result."""
    factor: Folder = None
    """A factor that --save-factor wrote, instead of train and train_label."""
    save_factor: Folder = None
    """Write the factor of the training objective here, for edits without training data."""
    overwrite: bool = False
    """Replace a result in OUT, once the new one is complete."""
    repair: FeatureConfig = FeatureConfig()
    """How to repair."""

    def execute(self) -> int:
        from jaxdebias.report._tables import print_repair

        done_before = is_complete(self.out) and not self.overwrite
        print_repair(
            debias_features(
                self.features,
                self.head,
                self.out,
                self.repair,
                factor=self.factor,
                save_factor=self.save_factor,
                overwrite=self.overwrite,
            )
        )
        gate = f"jaxdebias check {self.out} --max-gap 0.1   for continuous integration"
        load = f"load {self.out / 'head.npz'} into your model: names, shapes and dtypes are those of {self.head}"
        print_ending("debias-features", self.out, done_before=done_before, next_steps=(load, gate))
        return 0


def debias_features(
    features: str | os.PathLike,
    head: str | os.PathLike,
    out: str | os.PathLike,
    config: FeatureConfig = FeatureConfig(),
    *,
    factor: str | os.PathLike | None = None,
    save_factor: str | os.PathLike | None = None,
    overwrite: bool = False,
) -> FeatureResults:
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
      What `results.json` holds.

    Raises:
      ContractError: files that are missing or damaged, arrays that are missing, unknown, of the wrong shape, out of
        range or not finite, or results already in `out`.
    """
    out = pathlib.Path(out)
    expect(factor is None or config.method == "fmd", "factor", "none for dfr, which needs no curvature", factor)
    expect(save_factor is None or config.method == "fmd", "save_factor", "none for dfr", save_factor)
    expect(save_factor is None or factor is None, "save_factor", "training features, not a saved factor", factor)
    arrays, head_arrays = read_arrays("features", features), read_arrays("head", head)
    inverse = None if factor is None else _read_factor(factor)
    sets, found = feature_sets(arrays, head_arrays, needs_train=config.method == "fmd" and inverse is None)
    arguments = {
        "features": fingerprint(arrays),
        "head": fingerprint(head_arrays),
        "factor": None if factor is None else file_digest(factor),
        **dataclasses.asdict(config),
    }
    with claim(out, "debias-features", arguments, overwrite=overwrite) as run:
        if save_factor is not None:
            folder = pathlib.Path(save_factor).parent
            expect(folder.is_dir(), "save_factor", "a path in a folder that exists", save_factor)
            influence.save(save_factor, training_factor(sets.train, found, damping=config.fmd().damping))
        if run.complete:
            return read_results(run.folder)
        edited, record = debias_sets(jax.random.key(config.seed), sets, found, config, inverse=inverse)
        whence = dataclasses.replace(record.provenance, arguments=run.arguments, data=arguments["features"])
        record = dataclasses.replace(record, provenance=whence)
        write_arrays(run.folder / "head.npz", edited)
        write_results(run.folder / "results.json", record)
        return record


def debias_sets(
    key: Key,
    sets: FeatureSets,
    head: HeadFile,
    config: FeatureConfig = FeatureConfig(),
    *,
    inverse: InverseHessian | None = None,
) -> tuple[dict[str, np.ndarray], FeatureResults]:
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
        edit, parts = build.edit(info, params, edited, fmd_config), build.round_seconds(info.rounds)
    else:
        edited, info = dfr(key_edit, split, params, held_out._replace(edit=unpair(sets.edit)))
        reason = f"Last layer refitted with penalty {info.penalty:g}, chosen on the acceptance set."
        edit, parts = build.refit(reason, params, edited), {}
    arrays = head.with_params(edited) if edit.accepted else head.arrays
    reported = "test" if sets.test is not None or sets.test_pairs is not None else "accept"
    examples, pairs = (sets.test, sets.test_pairs) if reported == "test" else (sets.accept, sets.accept_pairs)
    # What is written is measured, in the dtype of the file.
    models = [head.params, head._replace(arrays=arrays).params]
    before, after, changes = _measured(key_measure, key_changes, models, examples, pairs, config.bias)
    judged = feature_verdict(jax.random.fold_in(key_changes, 1), AFFINE.head, models, sets, config.method, config.bias)
    kernel = params["head"]["kernel"]
    return arrays, FeatureResults(
        command="debias-features",
        provenance=provenance({"edit": info.seconds}, seed=config.seed, arguments=config, seconds_by_part=parts),
        method=config.method,
        bias=config.bias,
        features=kernel.shape[0],
        classes=kernel.shape[1],
        head={name: tuple(array.shape) for name, array in head.arrays.items()},
        rows={name: None if batch is None else len(batch.label) for name, batch in sets._asdict().items()},
        factor=inverse is not None,
        split=reported,
        before=_metrics(before),
        after=_metrics(after),
        changes=build.changes(changes),
        edit=edit,
        findings=tuple(_findings(sets, reported, config, fixed=inverse is not None)),
        verdict=judged,
    )


def _metrics(found: Mapping[str, Interval | None]) -> Metrics:
    """The metrics that apply, None where they do not."""
    rates = {name: build.rate(one) for name, one in found.items()}
    worst = rates["worst_group_accuracy"]
    if worst is not None:
        rates["worst_group_accuracy"] = GroupRate(value=worst.value, low=worst.low, high=worst.high, n=worst.n)
    return Metrics(**rates)


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


def _identity(params: Params, x: Array) -> jax.Array:
    del params
    return jnp.asarray(x)


def _affine(params: Params, z: Array) -> jax.Array:
    head = params["head"]
    logits = z @ head["kernel"]
    return logits + head["bias"][None, :] if "bias" in head else logits


AFFINE = Split(features=_identity, head=_affine, head_path=("head",))
"""A last layer alone, on features; its parameters lie at `("head",)`."""


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


def _measured(
    key: Key, key_changes: Key, models: list[Params], examples: Batch, pairs: Batch | None, bias: str
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """The metrics that apply before and after, as intervals, and their paired changes."""
    known = np.asarray(examples.attribute) >= 0
    k = models[0]["head"]["kernel"].shape[1]
    dataset = feature_data(k, {"test": examples}, {} if pairs is None else {"test": pairs}, bias)
    key_changes, *key_sides = jax.random.split(key_changes, 3)
    measured, right = [], []
    for params in models:
        sides = None if pairs is None else tuple(_logits(params, x) for x in (pairs.x, pairs.twin))
        measured.append(auditing.measure_predictions(key, _logits(params, examples.x), dataset, pair_logits=sides))
        right.append([] if sides is None else [logits.argmax(axis=1) == pairs.label for logits in sides])
    shown = METRICS if known.any() else METRICS[:1]
    found = [
        dict.fromkeys((*METRICS, *SIDES))
        | {name: getattr(one.groups, name) for name in shown}
        | {"counterfactual_bias": one.counterfactual_bias}
        | {name: _rate(values, pairs.unit) for name, values in zip(SIDES, sides, strict=False)}
        for one, sides in zip(measured, right, strict=True)
    ]
    every = auditing.changes(key_changes, *measured, dataset)
    changes = {name: every[name] for name in (*shown, "counterfactual_bias") if name in every}
    for one, name, *values in zip(key_sides, SIDES, *right, strict=False):
        changes[name] = paired_change(*values, np.zeros(len(pairs.label), np.int32), [1.0], key=one, unit=pairs.unit)
    return *found, changes


def _rate(right: np.ndarray, unit: np.ndarray | None) -> Interval:
    group = np.zeros(len(right), np.int32)
    x, n = group_counts(right, group, groups=1, unit=unit)
    return proportion_interval(x.item(), n.item())._replace(n=int(units_in(group, unit, 1)[0]))


def _logits(params: Params, x: Array) -> Float[np.ndarray, "n k"]:
    return np.asarray(_affine(params, jnp.asarray(x)))


def _findings(sets: FeatureSets, reported: str, config: FeatureConfig, *, fixed: bool) -> list[str]:
    remarks = []
    if reported == "accept":
        remarks.append(
            "No test arrays: the numbers are those of the acceptance sets, on which the repair was chosen, "
            "and are therefore optimistic."
        )
    elif sets.test_pairs is None:
        remarks.append("No test pairs: how far the attribute alone moves the model after the repair was not measured.")
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
