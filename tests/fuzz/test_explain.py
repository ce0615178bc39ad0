"""Public functions of `explain` and the post-hoc ones of `mitigate`: refused in one line, or answered."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fuzz.mutations import Call, cheap, check, each
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jaxdebias import explain
from jaxdebias.contracts import ContractError
from jaxdebias.core import Batch, RepairSets, Split
from jaxdebias.explain import fold, influence, patch_confidence, patch_logits
from jaxdebias.explain._patches import grid_of
from jaxdebias.mitigate import DfrConfig, FmdConfig, balanced_subsamples, balanced_weights, dfr, fmd
from jaxdebias.mitigate._patch_noise import masks as patch_masks

latent_weights = importlib.import_module("jaxdebias.mitigate._dbvae.rarity")  # the package has a function of the name

FUZZ = settings(
    deadline=None, derandomize=True, database=None, max_examples=80, suppress_health_check=[HealthCheck.too_slow]
)
KEY, RNG = jax.random.key(0), np.random.default_rng(0)
N, K = 12, 3
LABEL = (np.arange(N) % K).astype(np.int32)
ATTRIBUTE = (np.arange(N) // 3 % 2).astype(np.int32)
Z, TWIN = RNG.normal(size=(2, N, K)).astype(np.float32)
IMAGES = RNG.random((2, 5, 6, 1)).astype(np.float32)
OF_CROPS = RNG.normal(size=(9, K)).astype(np.float32)
MAPS = RNG.random((2, 4, 5)).astype(np.float32)
PRIOR = np.full(K, 1 / K, np.float32)
KERNEL = RNG.normal(size=(K, K)).astype(np.float32)
PARAMS = {"params": {"head": {"kernel": jnp.asarray(KERNEL), "bias": jnp.zeros(K)}}}
ROWS = Batch(Z, LABEL, ATTRIBUTE, weight=np.ones(N, np.float32))
HELD_OUT = Batch(TWIN, LABEL, ATTRIBUTE)
PAIRS = Batch(Z, LABEL, ATTRIBUTE, twin=TWIN)


def of_crops(params, x):
    return x.reshape(len(x), -1)[:, :9] @ params


def same(params, x):
    return x


def affine(params, z):
    head = params["params"]["head"]
    return z @ head["kernel"] + head["bias"][None]


def pooled(params, z):
    return z.mean((1, 2)) @ params


SPLIT, PLACES = Split(same, affine), Split(same, pooled)


def scored(features, label, weight, kernel, bias, gradient):
    problem = influence.head_problem(features, label, influence.AffineHead(kernel, bias), weight=weight)
    return influence.change_if_removed(problem, influence.factor(problem, damping=1.0), gradient)


CALLS = {
    "reweighing": Call(explain.reweighing, {"counts": np.array([[9, 1], [2, 8]])}, ("counts",), alone=("counts",)),
    "fold": Call(
        lambda confidences: fold(confidences, (5, 6), patch=3, stride=1),
        {"confidences": RNG.random((2, 3, 4)).astype(np.float32)},
        ("confidences",),
        alone=("confidences",),
    ),
    "patch_logits": Call(
        lambda images: patch_logits(of_crops, OF_CROPS, images, stride=1, patch=3),
        {"images": IMAGES},
        ("images",),
        alone=("images",),
    ),
    "patch_confidence": Call(
        lambda logits, prior: patch_confidence(logits, prior=prior),
        {"logits": RNG.normal(size=(2, 3, 4, K)).astype(np.float32), "prior": PRIOR},
        ("logits", "prior"),
        alone=("logits",),
    ),
    "general_map": Call(
        lambda images, labels: explain.general_map(
            of_crops, OF_CROPS, images, labels=labels, prior=PRIOR, stride=1, patch=3
        ),
        {"images": IMAGES, "labels": np.array([0, 1], np.int32)},
        ("labels",),
        optional=("labels",),
    ),
    "localised": Call(explain.localise, {"map": MAPS[0]}, ("map",), alone=("map",)),
    "class_maps": Call(
        lambda label: explain.class_maps(PLACES, jnp.ones((1, K)), IMAGES, target="label", label=label),
        {"label": np.array([0, 1], np.int32)},
        ("label",),
    ),
    "influence": Call(
        scored,
        {
            "features": Z,
            "label": LABEL,
            "weight": np.ones(N, np.float32),
            "kernel": KERNEL,
            "bias": np.zeros(K, np.float32),
            "gradient": np.ones(K * K + K),
        },
        ("features", "label", "weight", "kernel", "bias", "gradient"),
        alone=("gradient",),
        optional=("weight", "bias"),
    ),
    "top_harmful": Call(
        lambda change: influence.top_harmful(change, 2), {"change": Z[:, 0]}, ("change",), alone=("change",)
    ),
    "dfr": Call(
        lambda **k: dfr(KEY, SPLIT, PARAMS, RepairSets(**k), DfrConfig(penalties=(1.0,)))[0],
        {"edit": ROWS, "accept": HELD_OUT},
        ("edit.label", "edit.attribute", "edit.weight", "accept.label"),
        optional=("edit.weight",),
    ),
    "balanced_weights": Call(balanced_weights, {"label": LABEL, "attribute": ATTRIBUTE}, ("label", "attribute")),
    "balanced_subsamples": Call(
        lambda **k: balanced_subsamples(KEY, **k), {"label": LABEL, "attribute": ATTRIBUTE}, ("label", "attribute")
    ),
    "fmd": Call(
        lambda **k: fmd(KEY, SPLIT, PARAMS, RepairSets(**k), FmdConfig(rounds=1))[0],
        {"train": HELD_OUT, "pairs": PAIRS, "accept": HELD_OUT, "accept_pairs": PAIRS},
        ("train.label", "pairs.twin", "pairs.label", "accept.label", "accept_pairs.twin"),
    ),
    "quantile_mask": Call(patch_masks.quantile_mask, {"maps": MAPS}, ("maps",), alone=("maps",)),
    "budget_mask": Call(patch_masks.budget_mask, {"maps": MAPS}, ("maps",), alone=("maps",)),
    "soft_strength": Call(patch_masks.soft_strength, {"maps": MAPS}, ("maps",), alone=("maps",)),
    "protect": Call(
        patch_masks.protect,
        {"mask": MAPS > 0.5, "target_map": MAPS},
        ("mask", "target_map"),
        alone=("mask", "target_map"),
    ),
    "mask_iou": Call(patch_masks.mask_iou, {"a": MAPS > 0.5, "b": MAPS > 0.3}, ("a", "b"), alone=("a", "b")),
    "weakest_pixels": Call(
        patch_masks.weakest_pixels, {"maps": MAPS, "area": np.array([2, 3])}, ("maps", "area"), alone=("maps", "area")
    ),
    "latent_weights": Call(
        lambda **k: latent_weights.latent_weights(config=latent_weights.RarityConfig(bins=4), classes=K, **k),
        {"mean": Z, "log_variance": TWIN, "label": LABEL},
        ("mean", "log_variance", "label"),
    ),
}


@FUZZ
@given(st.sampled_from(cheap(CALLS)))
def test_refused_in_one_line_or_answered(one):
    name, argument, mutation = one
    check(CALLS[name], argument, mutation)


@pytest.mark.slow
@pytest.mark.unoptimised
@pytest.mark.parametrize("name", CALLS)
def test_every_change_of_every_argument(name):
    for _, argument, mutation in each({name: CALLS[name]}):
        check(CALLS[name], argument, mutation)


@settings(FUZZ, max_examples=40)
@given(st.integers(-1, 9), st.integers(-1, 9), st.integers(-1, 6), st.integers(-1, 6), st.booleans())
def test_grids_of_any_size(height, width, patch, stride, flush):
    """As many patches as fit, counted one by one; with `flush` all pixels are covered where the stride allows it."""
    try:
        grid = grid_of((height, width), patch, stride, flush=flush)
    except ContractError:
        assert patch < 1 or stride < 1 or min(height, width) < patch
        return
    for count, length in zip(grid, (height, width), strict=True):
        starts = [start for start in range(length) if start % stride == 0 and start + patch <= length]
        end = length - patch
        assert count == len(starts) + (flush and end not in starts)


def test_floats_are_asked_for_where_the_curvature_needs_them():
    """A table of bytes as features of the last layer failed inside a loop of the Hessian."""
    bytes_ = HELD_OUT._replace(x=np.zeros((N, K), np.uint8))
    sets = RepairSets(train=bytes_, pairs=PAIRS, accept=HELD_OUT, accept_pairs=PAIRS)
    with pytest.raises(ContractError, match=r"`features`: expected float \[n d\], got uint8"):
        fmd(KEY, SPLIT, PARAMS, sets, FmdConfig(rounds=1))


def test_masks_that_do_not_fit_each_other():
    one, three = np.ones((1, 4, 5), bool), np.ones((3, 4, 5), bool)
    assert patch_masks.mask_iou(one, three) == patch_masks.mask_iou(one[0], three) == 1.0
    for other in (np.ones((2, 4, 5), bool), np.ones((3, 5, 4), bool), np.ones((4, 4), bool)):
        with pytest.raises(ContractError, match="`b`: expected the masks"):
            patch_masks.mask_iou(three, other)
    with pytest.raises(ContractError, match="`area`: expected an integer, or one for each of 2 maps"):
        patch_masks.weakest_pixels(MAPS, np.array([1, 2, 3]))


def test_a_ranking_knows_no_nan():
    """NaN would stand last, as the most helpful of all."""
    with pytest.raises(ContractError, match="`change`: expected finite"):
        influence.top_harmful(np.array([0.1, np.nan]), 1)
