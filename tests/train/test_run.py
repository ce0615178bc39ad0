import functools
import json
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from train.tiny import BARE, table

from jaxdebias.contracts import ContractError
from jaxdebias.core import Learner, take
from jaxdebias.mitigate import erm
from jaxdebias.models import cnn
from jaxdebias.train import HELD_OUT_ACCURACY, EarlyStop, FitConfig, Monitor, Optimizer, Plateau, epoch_plan, fit
from jaxdebias.train._run import _init

DATA, HELD_OUT = table(50), table(40, seed=1)
ERM = erm(BARE, optimizer=Optimizer(learning_rate=0.05))
CONFIG = FitConfig(epochs=4, batch_size=16)


def leaves_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.slow
def test_first_weights_have_the_bits_of_an_optimised_program(key):
    learner, example = (
        erm(cnn(channels=(8, 16), dense=16, classes=3)),
        table(4)._replace(x=np.zeros((4, 16, 16, 3), np.uint8)),
    )
    leaves_equal(_init(key, example, learner=learner), jax.jit(learner.init)(key, example))


class Counter(NamedTuple):
    """A state that only counts steps; it makes the monitor's values predictable."""

    variables: Any
    lr_scale: jax.Array
    seen: jax.Array


@functools.cache  # one object, compiled once for all tests
def counting() -> Learner:
    def init(key, batch):
        return Counter(jnp.float32(0), jnp.float32(1), jnp.zeros((50,), jnp.int32))

    def step(key, state, batch):
        seen = state.seen.at[batch.index].add((batch.weight > 0).astype(jnp.int32))
        return Counter(state.variables + 1, state.lr_scale, seen), {"loss": state.variables}

    def predict(state, x):
        return jnp.full((x.shape[0], 3), state.variables)

    return Learner(init, step, predict)


def sequence(values):
    """A monitor that takes these values after epochs 1, 2, ... of 4 steps each."""
    return Monitor(name="sequence", fn=lambda logits, batch: jnp.asarray(values)[(logits[0, 0] / 4).astype(int) - 1])


def test_learns():
    config = FitConfig(epochs=10, batch_size=32)
    result = fit(jax.random.key(0), ERM, table(500), config, held_out=HELD_OUT, monitor=HELD_OUT_ACCURACY)
    assert result.history[-1].held_out >= 0.9
    assert result.best_value == max(record.held_out for record in result.history)
    assert result.history[-1].step == 160


def test_equals_a_loop_of_single_steps(key):
    """Same plan, same keys, without scan, chunks or donation."""
    learner = erm(
        BARE, optimizer=Optimizer(learning_rate=0.05), augment=lambda key, x: x + jax.random.normal(key, x.shape)
    )
    result = fit(key, learner, DATA, CONFIG)
    key_init, key_run = jax.random.split(key)
    key_epochs, key_steps = jax.random.split(key_run)
    state, step, losses = learner.init(key_init, DATA), jax.jit(learner.step), []
    for epoch in range(4):
        plan = epoch_plan(jax.random.fold_in(key_epochs, epoch), 50, 16)
        for i in range(4):
            batch = take(DATA, plan.index[i])._replace(index=plan.index[i], weight=plan.weight[i])
            state, info = step(jax.random.fold_in(key_steps, 4 * epoch + i), state, batch)
            losses.append((epoch, float(info.loss), float(plan.weight[i].sum())))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), result.state, state)
    for epoch, record in enumerate(result.history):
        mean = sum(loss * rows for e, loss, rows in losses if e == epoch) / 50
        assert record.loss == pytest.approx(mean, rel=1e-5)


def test_the_cut_in_chunks_changes_no_bit(key):
    config = FitConfig(epochs=4, batch_size=16, epochs_per_chunk=3)  # 3 epochs, then 1
    leaves_equal(fit(key, ERM, DATA, config).state, fit(key, ERM, DATA, CONFIG).state)


def test_every_row_once_per_epoch_with_its_number(key):
    result = fit(key, counting(), DATA, CONFIG)
    assert result.state.seen.tolist() == [4] * 50
    dropped = fit(key, counting(), DATA, FitConfig(epochs=4, batch_size=16, drop_last=True))
    assert int(dropped.state.seen.sum()) == 4 * 48
    short = fit(key, counting(), DATA, FitConfig(epochs=4, batch_size=16, steps_per_epoch=2))
    assert int(short.state.seen.sum()) == 4 * 32


def test_a_batch_larger_than_the_data(key):
    result = fit(key, counting(), DATA, FitConfig(epochs=2, batch_size=64))
    assert result.state.seen.tolist() == [2] * 50


def test_rows_of_weight_zero_change_nothing(key):
    spoiled = DATA._replace(weight=np.where(np.arange(50) < 30, 1.0, 0.0).astype(np.float32))
    other = spoiled._replace(x=np.where(np.arange(50)[:, None] < 30, DATA.x, 1e3))
    config = FitConfig(epochs=2, batch_size=16)
    leaves_equal(fit(key, ERM, spoiled, config).state, fit(key, ERM, other, config).state)


def test_draw_weights_are_asked_each_epoch(key):
    learner = counting()

    def weights(state, data):  # only rows of number e in epoch e
        return (jnp.arange(50) == state.variables / 4).astype(jnp.float32)

    result = fit(key, learner._replace(weights=weights), DATA, CONFIG)
    assert result.state.seen.tolist() == [50] * 4 + [0] * 46


def test_second_run_compiles_nothing(key):
    traces, compiled = [], []

    def step(key, state, batch):
        traces.append(batch.x.shape)
        return ERM.step(key, state, batch)

    learner = ERM._replace(step=step)
    config = {"epochs": 4, "batch_size": 16, "early_stop": EarlyStop(patience=3), "plateau": Plateau()}

    def count(event, seconds, **_):
        compiled.extend([event] if event.endswith("backend_compile_duration") else [])

    fit(key, learner, DATA, FitConfig(**config), held_out=HELD_OUT)
    assert traces == [(16, 5)]
    jax.monitoring.register_event_duration_secs_listener(count)
    fit(jax.random.key(1), learner, DATA, FitConfig(**config), held_out=HELD_OUT)
    assert traces == [(16, 5)]
    assert not compiled
    jax.jit(lambda x: x + 3)(np.ones(7))
    assert compiled  # the counter counts


def test_equal_keys_give_equal_bits_and_others_do_not(key):
    one, two, other = (fit(k, ERM, DATA, CONFIG).state for k in (key, key, jax.random.key(1)))
    leaves_equal(one, two)
    assert not np.array_equal(one.variables["hidden"][0], other.variables["hidden"][0])


def test_warm_start_leaves_the_given_state_usable(key):
    state = ERM.init(key, DATA)
    before = jax.tree.map(np.array, state)
    result = fit(key, ERM, DATA, CONFIG, state=state)
    leaves_equal(state, before)
    again = fit(key, ERM, DATA, CONFIG, state=state._replace(variables=result.state.variables))
    assert again.history[0].loss < result.history[0].loss


def test_uint8_pixels_stay_uint8_until_the_model(key):
    dtypes = []

    def step(key, state, batch):
        dtypes.append(batch.x.dtype)
        return counting().step(key, state, batch)

    pixels = DATA._replace(x=np.random.default_rng(0).integers(0, 255, (50, 5)).astype(np.uint8))
    fit(key, counting()._replace(step=step), pixels, CONFIG)
    assert dtypes == [np.uint8]


def test_schedule_of_the_paper(key):
    config = FitConfig(epochs=9, batch_size=16, plateau=Plateau(patience=0), early_stop=EarlyStop(patience=2))
    result = fit(key, counting(), DATA, config, held_out=HELD_OUT, monitor=sequence([5.0, 4.0, 4.0, 4.0, 0.0]))
    np.testing.assert_allclose([1e-3 * r.lr_scale for r in result.history], [1e-3, 1e-3, 1e-4, 1e-5], rtol=1e-6)
    assert result.stopped_early
    assert (result.epoch, result.best_epoch, result.best_value) == (4, 2, 4.0)
    assert float(result.state.variables) == 8.0  # 2 epochs of 4 steps
    assert float(result.state.lr_scale) == 1.0
    assert [r.improved for r in result.history] == [True, True, False, False]


@pytest.mark.parametrize(("keep", "steps"), [("last", 16.0), ("best", 8.0)])
def test_what_is_kept_when_the_epochs_run_out(key, keep, steps):
    config = FitConfig(epochs=4, batch_size=16, keep=keep, early_stop=EarlyStop(patience=3))
    result = fit(key, counting(), DATA, config, held_out=HELD_OUT, monitor=sequence([5.0, 4.0, 4.5, 4.6]))
    assert not result.stopped_early
    assert float(result.state.variables) == steps


def test_monitor_of_more_than_logits(key):
    monitor = Monitor(name="m", outputs=lambda state, b: b.label + state.variables, fn=lambda out, _: out.mean())
    config = FitConfig(epochs=1, batch_size=16, eval_batch_size=7)
    result = fit(key, counting(), DATA, config, held_out=HELD_OUT, monitor=monitor)
    assert result.history[0].held_out == pytest.approx(HELD_OUT.label.mean() + 4, rel=1e-6)


def test_log_has_the_records_and_observe_gets_them(key, tmp_path):
    seen = []
    log = tmp_path / "deep" / "log.jsonl"
    result = fit(key, ERM, DATA, CONFIG, held_out=HELD_OUT, log=log, observe=seen.append)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert lines == [record._asdict() for record in result.history]
    assert seen == result.history
    assert [(line["epoch"], line["step"]) for line in lines] == [(1, 4), (2, 8), (3, 12), (4, 16)]
    assert set(lines[0]["info"]) == {"accuracy"}
    assert [p.name for p in log.parent.iterdir()] == ["log.jsonl"]


def diverging(field):
    """A counting learner whose loss, or whose weights, are lost at step 6."""

    def step(key, state, batch):
        new, info = counting().step(key, state, batch)
        lost = state.variables == 6
        if field == "loss":
            return new, info | {"loss": jnp.where(lost, jnp.nan, info["loss"])}
        return new._replace(variables=jnp.where(lost, jnp.inf, new.variables)), info | {"loss": jnp.float32(0)}

    return counting()._replace(step=step)


def test_a_loss_that_is_not_finite_names_its_step(key, tmp_path):
    with pytest.raises(FloatingPointError, match="loss: not finite at step 6, counted from 0"):
        fit(key, diverging("loss"), DATA, CONFIG, log=tmp_path / "log", checkpoint=tmp_path / "run")
    assert len((tmp_path / "log").read_text().splitlines()) == 1
    assert (tmp_path / "run" / "1").is_dir()  # the checkpoint of the epoch before
    assert not (tmp_path / "run" / "2").exists()


def test_weights_and_values_that_are_not_finite_stop_the_run(key):
    with pytest.raises(FloatingPointError, match="weights: not finite after step 7"):
        fit(key, diverging("weights"), DATA, CONFIG)
    with pytest.raises(FloatingPointError, match="sequence: nan after 2 epochs"):
        fit(key, counting(), DATA, CONFIG, held_out=HELD_OUT, monitor=sequence([1.0, np.nan, 1.0, 1.0]))


def without_scale():
    class Bare(NamedTuple):
        variables: jax.Array

    return Learner(
        init=lambda key, batch: Bare(jnp.float32(0)),
        step=lambda key, state, batch: (state, {"loss": state.variables}),
        predict=lambda state, x: jnp.zeros((x.shape[0], 3)),
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"config": FitConfig(plateau=Plateau())}, "`held_out`: expected rows"),
        ({"config": FitConfig(keep="best")}, "`held_out`: expected rows"),
        ({"config": FitConfig(plateau=Plateau()), "held_out": HELD_OUT, "learner": without_scale()}, "lr_scale"),
        ({"data": DATA._replace(label=DATA.label + 1)}, r"`data.label`: expected values in 0\.\.2, got 1\.\.3"),
        ({"held_out": HELD_OUT._replace(label=HELD_OUT.label + 1)}, r"`held_out.label`: expected values in 0\.\.2"),
        ({"data": DATA._replace(x=DATA.x * np.nan)}, "not finite"),
        ({"data": 3}, "a source with __len__"),
        ({"config": FitConfig(batch_size=16, steps_per_epoch=5)}, "at most the 4 steps"),
        ({"config": FitConfig(drop_last=True)}, "at most n=50"),
        ({"learner": ERM._replace(step=lambda *a: (a[1], {"error": 0.0}))}, "a scalar named loss"),
    ],
)
def test_refuses(key, arguments, message):
    arguments = {"learner": ERM, "data": DATA, "config": FitConfig(epochs=1, batch_size=16)} | arguments
    with pytest.raises(ContractError, match=message):
        fit(key, **arguments)


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"batch_size": 0}, {"steps_per_epoch": 0}, {"epochs_per_chunk": -1}])
def test_config_refuses(wrong):
    with pytest.raises(ContractError, match=next(iter(wrong))):
        FitConfig(**wrong)


def test_the_host_sees_one_record_per_chunk(key):
    seen = []
    fit(key, counting(), DATA, FitConfig(epochs=1000, batch_size=16, epochs_per_chunk=1000), observe=seen.append)
    assert [record.step for record in seen] == [4000]
    assert seen[0].loss == pytest.approx(sum(t * (2 if t % 4 == 3 else 16) for t in range(4000)) / 50_000)
