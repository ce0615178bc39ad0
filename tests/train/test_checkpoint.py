import contextlib
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from train.interrupted_run import EPOCHS, bits, train
from train.tiny import BARE, table

from jaxdebias.contracts import ContractError
from jaxdebias.mitigate import GceConfig, erm, gce, group_balanced
from jaxdebias.train import HELD_OUT_LOSS, EarlyStop, FitConfig, Monitor, Optimizer, fit, load_params, save_params
from jaxdebias.train._checkpoint import Checkpoints, Saved, fingerprint

ROOT = pathlib.Path(__file__).parents[2]
DATA, HELD_OUT = table(50), table(40, seed=1)
ERM = erm(BARE, optimizer=Optimizer(learning_rate=0.05))


class State(NamedTuple):
    weights: Any
    key: jax.Array
    count: jax.Array


def state(value: float) -> State:
    return State({"w": [jnp.full(3, value), jnp.full((2, 2), value, jnp.bfloat16)]}, jax.random.key(7), jnp.int32(5))


def assert_same(a, b):
    raw = lambda leaf: jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf  # noqa: E731
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for one, two in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert one.dtype == two.dtype
        np.testing.assert_array_equal(raw(one), raw(two))


def opened(folder, **made_by):
    return contextlib.closing(Checkpoints(folder, made_by or {"seed": 1}))


def test_round_trip_of_typed_keys_dtypes_and_the_best_state(tmp_path):
    host = {"books": {"best": float("inf"), "best_epoch": None}, "history": [{"loss": 0.1}]}
    with opened(tmp_path) as store:
        assert store.restore(like=state(0)) is None
        store.save(Saved(3, state(1), None, host))
    with opened(tmp_path) as store:
        assert store.restore(like=state(0)).best is None
        store.save(Saved(4, state(2), state(1), host))
    with opened(tmp_path) as store:
        saved = store.restore(like=state(0))
    assert saved.epoch == 4
    assert saved.host == host
    assert_same(saved.state, state(2))
    assert_same(saved.best, state(1))
    assert {path.name for path in tmp_path.iterdir()} == {"4", "manifest.json"}


def test_a_folder_in_use_is_refused(tmp_path):
    with opened(tmp_path), pytest.raises(ContractError, match="no other process writes to, got one in use"):
        Checkpoints(tmp_path, {"seed": 1})
    with opened(tmp_path) as store:
        assert store.restore(like=state(0)) is None


def test_refuses_another_run_by_what_differs(tmp_path):
    with_ = Checkpoints(tmp_path, {"config.epochs": "3", "key": [0, 1]})
    with_.save(Saved(1, state(1), None, {}))
    with_.close()
    with pytest.raises(ContractError, match=r"made with key=\[0, 2\], got key=\[0, 1\]; choose another folder"):
        Checkpoints(tmp_path, {"config.epochs": "3", "key": [0, 2]})


def test_fingerprint_sees_values_names_and_dtypes():
    trees = [
        None,
        {"a": np.zeros(3)},
        {"b": np.zeros(3)},
        {"a": np.zeros(3, np.float32)},
        {"a": np.ones(3)},
        {"a": np.zeros((3, 1))},
        {"a": np.zeros(3)[::2]},
        {"a": np.float64(0)},
    ]
    assert len({fingerprint(tree) for tree in trees}) == len(trees)
    turned = np.arange(6, dtype=np.float32).reshape(2, 3).T
    assert fingerprint({"a": turned}) == fingerprint({"a": jnp.asarray(turned)})


def changed(**what):
    base = {
        "key": jax.random.key(0),
        "learner": ERM,
        "data": DATA,
        "held_out": HELD_OUT,
        "config": FitConfig(epochs=1, batch_size=16),
    }
    return base | what


def test_a_run_refuses_the_checkpoint_of_another(tmp_path):
    fit(**changed(), checkpoint=tmp_path)
    assert fit(**changed(), checkpoint=tmp_path).epoch == 1
    cases = {
        "config.batch_size=8": changed(config=FitConfig(epochs=1, batch_size=8)),
        "config.early_stop": changed(config=FitConfig(epochs=1, batch_size=16, early_stop=EarlyStop(patience=1))),
        "method.optimizer.learning_rate=0.5": changed(learner=erm(BARE, optimizer=Optimizer(learning_rate=0.5))),
        "key": changed(key=jax.random.key(1)),
        "data=": changed(data=table(50, seed=3)),
        "held_out=": changed(held_out=None),
        "initial state=": changed(state=ERM.init(jax.random.key(0), DATA)),
    }
    for name, arguments in cases.items():
        with pytest.raises(ContractError, match=name):
            fit(**arguments, checkpoint=tmp_path)


def test_settings_that_only_init_or_weights_know_are_part_of_a_run(tmp_path):
    """As `state.hyper`, or how rows are drawn."""
    fit(**changed(learner=gce(BARE, GceConfig(q=0.7))), checkpoint=tmp_path / "gce")
    with pytest.raises(ContractError, match=r"method\.q=0.5"):
        fit(**changed(learner=gce(BARE, GceConfig(q=0.5))), checkpoint=tmp_path / "gce")
    drawn = group_balanced(BARE, groups=np.ones((3, 2), int))
    fit(**changed(learner=drawn), checkpoint=tmp_path / "drawn")
    with pytest.raises(ContractError, match="weights="):
        fit(**changed(learner=erm(BARE)), checkpoint=tmp_path / "drawn")


def test_a_finished_run_is_returned_and_its_log_restored(tmp_path):
    log = tmp_path / "log"
    arguments = changed(config=FitConfig(epochs=3, batch_size=16, keep="best"))
    first = fit(**arguments, checkpoint=tmp_path / "run", log=log)
    text = log.read_text()
    log.write_text(text + '{"epoch": 4}\n{"epo')
    second = fit(**arguments, checkpoint=tmp_path / "run", log=log, observe=pytest.fail)
    assert_same(second.state, first.state)
    assert second[1:] == first[1:]
    assert log.read_text() == text


def test_fewer_checkpoints_resume_to_the_same_bits(tmp_path):
    # The loss as a quantity to be large: the first epoch stays the best, so a forgotten best value shows.
    worst = Monitor(name="worst", fn=HELD_OUT_LOSS.fn, mode="max")
    config = FitConfig(epochs=5, batch_size=16, keep="best", chunks_per_checkpoint=2)
    arguments = changed(config=config) | {"monitor": worst}
    unbroken = fit(**arguments)

    class Stop(Exception):
        pass

    def interrupt(record):
        if record.epoch == 3:  # one epoch beyond the last checkpoint
            raise Stop

    with pytest.raises(Stop):
        fit(**arguments, checkpoint=tmp_path / "run", log=tmp_path / "log", observe=interrupt)
    assert len((tmp_path / "log").read_text().splitlines()) == 3
    seen = []
    resumed = fit(**arguments, checkpoint=tmp_path / "run", log=tmp_path / "log", observe=seen.append)
    assert [record.epoch for record in seen] == [3, 4, 5]
    assert [json.loads(line)["epoch"] for line in (tmp_path / "log").read_text().splitlines()] == [1, 2, 3, 4, 5]
    assert_same(resumed.state, unbroken.state)
    assert resumed[1:-1] == unbroken[1:-1]
    assert unbroken.best_epoch == 1


def killed_and_resumed(folder: pathlib.Path, kills: int) -> list[int]:
    """Runs `interrupted_run.py` until it ends, killing it so often; the epochs that were done at each kill."""
    paths = [str(ROOT), str(ROOT / "tests")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, str(ROOT / "tests" / "train" / "interrupted_run.py"), str(folder)]
    log, epochs = folder / "log.jsonl", []

    def done():
        return len(log.read_text().splitlines()) if log.exists() else 0

    for _ in range(kills):
        before, process = done(), subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
        while done() == before and process.poll() is None:
            time.sleep(0.005)
        time.sleep(random.uniform(0.0, 0.15))
        process.send_signal(signal.SIGKILL)
        process.wait()
        epochs.append(done())
    subprocess.run(command, env=environment, check=True, capture_output=True, timeout=240)
    return epochs


@pytest.mark.slow
@pytest.mark.parametrize("kills", [2])
def test_killed_at_random_moments_it_ends_with_the_bits_of_an_unbroken_run(tmp_path, kills):
    expected = bits(train(None))
    epochs = killed_and_resumed(tmp_path, kills)
    assert 0 < epochs[0] < EPOCHS, f"the first kill came at no epoch in between: {epochs}"
    with np.load(tmp_path / "final.npz") as found:
        assert set(found.files) == set(expected)
        for name, value in expected.items():
            np.testing.assert_array_equal(found[name], value, err_msg=f"{name}, killed at epochs {epochs}")
    lines = [json.loads(line)["epoch"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert lines == list(range(1, EPOCHS + 1))


def test_params_round_trip_and_name_what_is_wrong(tmp_path):
    path = tmp_path / "new" / "weights.npz"
    head = {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3, jnp.bfloat16)}
    params = {"params": {"head": head}, "list": [jnp.int32(4)]}
    save_params(path, params)
    save_params(path, params)
    assert [p.name for p in path.parent.iterdir()] == ["weights.npz"]
    assert_same(load_params(path, jax.eval_shape(lambda: params)), params)
    with pytest.raises(ContractError, match=r"none for params\.scale"):
        load_params(path, params | {"params": params["params"] | {"scale": jnp.ones(1)}})
    with pytest.raises(ContractError, match=r"also list\.0"):
        load_params(path, {"params": params["params"]})
    with pytest.raises(ContractError, match=r"params\.head\.kernel`: expected float32 \[3, 2\], got float32 \[2, 3\]"):
        load_params(path, params | {"params": {"head": head | {"kernel": jnp.ones((3, 2))}}})
    with pytest.raises(ContractError, match="a file written by save_params"):
        load_params(tmp_path / "none.npz", params)
