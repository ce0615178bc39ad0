"""Training of patch networks: what they find, what they were not shown, and the two losses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import patches as oracle

from jaxdebias.contracts import ContractError
from jaxdebias.core import Batch
from jaxdebias.explain import PatchFitConfig, fit_patches, out_of_fold_maps
from jaxdebias.explain._fit_patches import State, patch_learner
from jaxdebias.explain._patch_calibration import fit_temperature
from jaxdebias.models import patch_net
from jaxdebias.models.patch_layers import Conv, Pool
from jaxdebias.train import Optimizer

NET = patch_net(patch=6, layers=(Conv(width=8), Pool()), hidden=8)
KEY = jax.random.key(0)


def marked(n, seed=0):
    """Noise images, and a bright spot at rows 6..8, columns 8..10 in those of class 1."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, n).astype(np.int32)
    x = rng.integers(90, 130, (n, 16, 20, 3)).astype(np.uint8)
    x[label == 1, 6:9, 8:11] = 250
    return x, label


def test_finds_what_carries_the_label_and_where():
    x, label = marked(240)
    config = PatchFitConfig(stride=2, steps=200, batch_size=32, learning_rate=1e-2)
    fit = fit_patches(KEY, NET, x, label, config)
    assert len(fit.held_out) == 24
    assert fit.vote_accuracy >= 0.95
    assert fit.position_accuracy[2:4, 3:5].mean() >= 0.95  # patches at rows 4, 6 and columns 6, 8 show the spot whole
    assert 0.2 <= fit.position_accuracy[:, 6:].mean() <= 0.8  # those at columns 12, 14 do not, and guess
    assert fit.accuracy == pytest.approx(fit.position_accuracy.mean())
    assert fit.cross_entropy < np.log(2)
    found = fit.general_map(x[fit.held_out])
    peak = np.unravel_index(found.argmax(), found.shape)
    assert 4 <= peak[0] <= 9
    assert 6 <= peak[1] <= 11
    assert found.max() > 4 * np.median(found)


def test_losses_are_the_mean_over_patches():
    """The dense loss is the mean over all patches; the random one of a batch of equal images is near it."""
    x, label = marked(3)
    batch = Batch(x=x, label=label, attribute=label, weight=np.array([1.0, 0.5, 0.0], np.float32))
    variables = jax.tree.map(jnp.asarray, oracle.drawn(NET))
    state = State(variables, Optimizer().build().init(variables["params"]), jnp.ones(()))
    logits = oracle.patch_logits(NET, state.variables, x / 255, 2)
    log_q = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    target = 0.9 * np.eye(2)[label][:, None, None] + 0.05
    per_image = -(target * log_q).sum(-1).mean((1, 2))
    dense = patch_learner(NET, 2, loss="dense")
    after, info = jax.jit(dense.step)(KEY, state, batch)
    assert float(info.loss) == pytest.approx((per_image[0] + 0.5 * per_image[1]) / 1.5, rel=1e-4)
    assert (
        float(
            jnp.abs(after.variables["params"]["hidden"]["kernel"] - state.variables["params"]["hidden"]["kernel"]).max()
        )
        > 1e-4
    )
    many = Batch(x=np.repeat(x[:1], 2000, 0), label=np.repeat(label[:1], 2000), attribute=np.zeros(2000, np.int32))
    values = -(target * log_q).sum(-1)[0]
    _, info = jax.jit(patch_learner(NET, 2).step)(KEY, state, many)
    assert float(info.loss) == pytest.approx(values.mean(), abs=4 * values.std() / np.sqrt(2000))
    np.testing.assert_allclose(dense.predict(state, x).reshape(logits.shape), log_q, atol=1e-4)


def test_temperature_in_closed_form():
    """Two classes, logits +-a, right in a share p: the odds a / T must be log(p / (1 - p)) / 2."""
    for a, right in ((3.0, 8), (0.2, 8), (1.0, 5.5)):
        logits = np.broadcast_to(np.array([a, -a], np.float32), (20, 1, 1, 2))
        label = (np.arange(20) >= 2 * right).astype(np.int32)
        share = 1 - label.mean()
        wanted = 2 * a / np.log(share / (1 - share))
        assert fit_temperature(logits, label) == pytest.approx(wanted, rel=1e-3)
    assert np.isfinite(fit_temperature(logits, np.zeros(20, np.int32)))


def test_learners_are_cached():
    config = PatchFitConfig(stride=2)
    assert patch_learner(NET, 2, config.optimizer) is patch_learner(NET, 2, PatchFitConfig().optimizer)


@pytest.mark.slow
def test_maps_are_made_by_nets_that_have_not_seen_the_image():
    """Labels drawn by lot: a net knows those it was trained on, not those of the other fold."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (60, 16, 20, 3)).astype(np.uint8)
    label = rng.integers(0, 2, 60).astype(np.int32)
    config = PatchFitConfig(stride=5, steps=600, batch_size=30, learning_rate=1e-2, label_smoothing=0.0)
    fit = fit_patches(KEY, NET, x, label, config)
    shown = np.setdiff1d(np.arange(60), fit.held_out)
    known = (np.asarray(fit.logits(x[shown]).argmax(-1)) == label[shown][:, None, None]).mean()
    found = out_of_fold_maps(KEY, NET, x, label, config, edge="nearest")
    assert known > 0.75
    assert 0.4 < found.accuracy < 0.6
    assert found.maps.shape == (60, 16, 20)
    assert set(np.unique(found.fold)) == {0, 1}


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["random", "dense"])
def test_maps_follow_the_rows(loss):
    """Images of class 1 have their information at the spot; a patch without it may be of either class."""
    x, label = marked(200)
    found = out_of_fold_maps(KEY, NET, x, label, PatchFitConfig(stride=2, steps=200, batch_size=32, loss=loss))
    assert found.accuracy > 0.55
    spot, corner = found.maps[:, 6:9, 8:11].mean((1, 2)), found.maps[:, 12:, :4].mean((1, 2))
    assert ((spot > 0.25) == (label == 1)).mean() > 0.97
    assert corner.max() < 0.25
    np.testing.assert_allclose(found.general, found.maps.mean(0), atol=1e-6)


@pytest.mark.slow
def test_positions_and_batch_norm_are_trained():
    x, label = marked(120)
    net = patch_net(patch=6, layers=(Conv(width=4, norm="batch"),), head="mean", hidden=6, position="late", grid=(6, 8))
    fit = fit_patches(KEY, net, x, label, PatchFitConfig(stride=2, steps=60, batch_size=30))
    assert np.abs(np.asarray(fit.params["params"]["position"])).max() > 1e-3
    assert np.abs(np.asarray(fit.params["batch_stats"]["layer0"]["mean"])).max() > 1e-3


def test_refuses():
    x, label = marked(20)
    with pytest.raises(ContractError, match=r"labels.*0\.\.1"):
        fit_patches(KEY, NET, x, label + 1)
    with pytest.raises(ContractError, match=r"labels.*every class"):
        fit_patches(KEY, NET, x, np.zeros(20, np.int32))
    with pytest.raises(ContractError, match="images"):
        fit_patches(KEY, NET, x[..., :1], label)
    with pytest.raises(ContractError, match=r"loss.*batch statistics"):
        patch_learner(patch_net(patch=6, layers=(Conv(width=4, norm="batch"),)), 2, loss="dense")
    with pytest.raises(ContractError, match=r"loss.*condition 1"):
        patch_learner(patch_net(patch=6, layers=(Conv(width=4, padding=1),)), 2, loss="dense")
    with pytest.raises(ContractError, match="edge"):
        out_of_fold_maps(KEY, NET, x, label, edge="flush")
    with pytest.raises(ContractError, match="steps"):
        PatchFitConfig(steps=0)
