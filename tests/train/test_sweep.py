import functools
import importlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from train.test_run import sequence
from train.tiny import BARE, table

from jaxdebias.contracts import ContractError
from jaxdebias.core import Batch, Learner
from jaxdebias.mitigate import erm
from jaxdebias.train import HELD_OUT_ACCURACY, EarlyStop, FitConfig, Monitor, Optimizer, Plateau, fit, sweep
from jaxdebias.train._schedule import Bookkeeping
from jaxdebias.train._schedule import judge as judge_on_host
from jaxdebias.train._sweep import Books, judge

sweep_room = importlib.import_module("jaxdebias.train._sweep")  # the package gives the function this name
DATA = [table(50, seed=i) for i in range(3)]
HELD_OUT = table(40, seed=9)
ERM = erm(BARE, optimizer=Optimizer(learning_rate=0.05))
CONFIG = FitConfig(epochs=6, batch_size=16, plateau=Plateau(patience=0), early_stop=EarlyStop(patience=2), keep="best")
KEYS = jax.random.split(jax.random.key(3), 3)


def close(a, b, atol=1e-6):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=atol, rtol=1e-5), a, b)


@functools.cache
def alone(i: int):
    return fit(KEYS[i], ERM, DATA[i], CONFIG, held_out=HELD_OUT, monitor=HELD_OUT_ACCURACY)


@pytest.mark.slow
def test_a_run_of_a_sweep_is_the_run_alone():
    """Whatever the portion (specification of SiH, check 14)."""
    seen = []
    for part in sweep(KEYS, ERM, DATA, CONFIG, held_out=HELD_OUT, monitor=HELD_OUT_ACCURACY, at_once=2):
        for place, i in enumerate(part.runs):
            seen.append(i)
            one = alone(i)
            close(jax.tree.map(lambda leaf, place=place: leaf[place], part.state), one.state)
            assert (part.epoch[place], part.best_epoch[place]) == (one.epoch, one.best_epoch)
            assert part.stopped_early[place] == one.stopped_early
            close(part.history["held_out"][place][: one.epoch], np.array([h.held_out for h in one.history]))
            close(part.history["loss"][place][: one.epoch], np.array([h.loss for h in one.history]))
            assert np.isnan(part.history["loss"][place][one.epoch :]).all()
    assert seen == [0, 1, 2]


@pytest.mark.slow
def test_vmapped_equals_in_turn(monkeypatch):
    config = FitConfig(epochs=4, batch_size=16, early_stop=EarlyStop(patience=1))

    def states():
        (part,) = sweep(KEYS, ERM, DATA, config, held_out=HELD_OUT, monitor=HELD_OUT_ACCURACY, at_once=3)
        return part

    in_turn = states()
    monkeypatch.setattr(sweep_room, "_in_turn", sweep_room._vmapped)
    vmapped = states()
    close(in_turn.state, vmapped.state, atol=1e-5)
    np.testing.assert_array_equal(in_turn.epoch, vmapped.epoch)


class Scaled(NamedTuple):
    variables: Any
    hyper: Any


def scaled() -> Learner:
    """Adds `hyper` in every step and reports the mean of x."""

    def step(key, state, batch):
        return Scaled(state.variables + state.hyper["rate"], state.hyper), {"loss": batch.x.astype(jnp.float32).mean()}

    return Learner(
        lambda key, batch: Scaled(jnp.float32(0), {"rate": jnp.float32(1)}),
        step,
        lambda state, x: jnp.zeros((x.shape[0], 3)),
    )


def test_settings_are_traced():
    traces, learner = [], scaled()

    def step(key, state, batch):
        traces.append(1)
        return learner.step(key, state, batch)

    counted = learner._replace(step=step)
    config = FitConfig(epochs=2, batch_size=25)
    rates = [{"rate": rate} for rate in (0.5, 2.0, 4.0)]
    parts = list(sweep(KEYS, counted, DATA[0], config, hyper=rates))
    assert [float(part.state.variables[0]) for part in parts] == [2.0, 8.0, 16.0]
    before = len(traces)
    list(sweep(KEYS, counted, DATA[0], config, hyper=rates[::-1]))
    assert len(traces) == before


@pytest.mark.slow
def test_a_view_makes_pixels_of_what_the_runs_share():
    """The rows of a run say which shared picture, in which shade."""
    pictures = np.random.default_rng(0).random((7, 2, 2)).astype(np.float32)
    rng = np.random.default_rng(1)
    rows = [
        {"picture": rng.integers(0, 7, 50).astype(np.int32), "shade": rng.random(50).astype(np.float32)} for _ in KEYS
    ]
    lazy = [DATA[i]._replace(x=rows[i]) for i in range(3)]
    drawn = [
        DATA[i]._replace(x=(pictures[one["picture"]] * one["shade"][:, None, None]).reshape(50, 4))
        for i, one in enumerate(rows)
    ]

    def view(shared, batch: Batch) -> Batch:
        x = shared[batch.x["picture"]] * batch.x["shade"][:, None, None]
        return batch._replace(x=x.reshape(-1, 4))

    config = FitConfig(epochs=2, batch_size=16)
    watch = Monitor(name="mean", fn=lambda outputs, batch: outputs.mean(), outputs=lambda state, batch: batch.x.mean(1))
    pairs = zip(
        sweep(KEYS, scaled(), lazy, config, shared=pictures, view=view, held_out=lazy, monitor=watch),
        sweep(KEYS, scaled(), drawn, config, held_out=drawn, monitor=watch),
        strict=True,
    )
    for lazily, plainly in pairs:
        close(lazily.history, plainly.history)


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize(
    ("plateau", "early_stop"),
    [
        (Plateau(), EarlyStop(patience=2)),
        (Plateau(patience=1, relative=False, threshold=0.3), EarlyStop(patience=3)),
        (None, EarlyStop(patience=1, threshold=0.5)),
        (Plateau(threshold=0.1), None),
    ],
)
def test_judging_on_the_device_is_judging_on_the_host(mode, plateau, early_stop):
    for seed in range(5):
        values = np.random.default_rng(seed).integers(0, 8, 12) / 4 - 1  # exact in float32, with ties
        host = Bookkeeping()
        books = Books(
            jnp.float32(jnp.inf), jnp.int32(0), jnp.int32(0), jnp.float32(jnp.inf), jnp.int32(0), jnp.bool_(False)
        )
        for epoch, value in enumerate(values, 1):
            rules = {"mode": mode, "plateau": plateau, "early_stop": early_stop}
            host, verdict = judge_on_host(host, float(value), epoch, **rules)
            books, improved, factor = judge(books, jnp.float32(value), epoch, **rules)
            assert bool(improved) == verdict.improved
            assert float(factor) == pytest.approx(verdict.lr_factor)
            assert bool(books.stopped) == host.stopped
            assert int(books.best_epoch) == (host.best_epoch or 0)


def test_published_schedule():
    """V = 5, 4, 4, 4 with patience 2: rates 1, 1, .1, .01, stop after epoch 4, the state of epoch 2 (check 13)."""
    from train.test_run import counting

    config = FitConfig(epochs=10, batch_size=16, plateau=Plateau(), early_stop=EarlyStop(patience=2))
    values = sequence([5.0, 4.0, 4.0, 4.0, 1.0])
    (part,) = sweep(KEYS[:1], counting(), DATA[0], config, held_out=HELD_OUT, monitor=values)
    assert (part.epoch[0], part.best_epoch[0], bool(part.stopped_early[0])) == (4, 2, True)
    assert float(part.state.variables[0]) == 8


def test_refuses():
    with pytest.raises(ContractError, match="hyper"):
        next(sweep(KEYS, ERM, DATA, CONFIG, held_out=HELD_OUT, hyper=[1.0]))
    with pytest.raises(ContractError, match="held_out"):
        next(sweep(KEYS, ERM, DATA, CONFIG))
    with pytest.raises(ContractError, match="run 1"):
        next(sweep(KEYS, ERM, [DATA[0], table(51), DATA[2]], FitConfig(batch_size=16), at_once=3))
    with pytest.raises(ContractError, match="data"):
        next(sweep(KEYS, ERM, DATA[:2], FitConfig()))
    with pytest.raises(ContractError, match="multiple"):
        next(sweep(KEYS, ERM, DATA, FitConfig(epochs=3, epochs_per_chunk=2)))


def test_names_the_run_that_broke():
    spoiled = [DATA[0], DATA[1]._replace(x=np.full_like(DATA[1].x, np.nan)), DATA[2]]
    with pytest.raises(FloatingPointError, match="loss: not finite in run 1, epoch 1"):
        list(sweep(KEYS, ERM, spoiled, FitConfig(epochs=2, batch_size=16), at_once=3))
