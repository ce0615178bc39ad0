import threading

import jax
import numpy as np
import pytest
from train.test_run import counting, leaves_equal
from train.tiny import BARE, FEATURES, table

from jaxdebias.contracts import ContractError
from jaxdebias.core import Batch, take
from jaxdebias.mitigate import erm
from jaxdebias.train import EarlyStop, FitConfig, Optimizer, fit
from jaxdebias.train.stream import RowStream

ERM = erm(BARE, optimizer=Optimizer(learning_rate=0.05))


class Endless:
    """Ten million rows made on demand; it fails if more than a few thousand of them are asked for."""

    def __init__(self, budget: int):
        self.asked, self.budget, self.lock = 0, budget, threading.Lock()

    def __len__(self):
        return 10_000_000

    def __getitem__(self, i):
        with self.lock:
            self.asked += 1
        if self.asked > self.budget:
            raise MemoryError("the source was loaded whole")
        x = np.random.default_rng(int(i)).normal(size=FEATURES).astype(np.float32)
        return {"x": x, "label": int(x[:3].argmax())}


class Rows:
    """A small table as a source."""

    def __init__(self, batch: Batch):
        self.batch = batch

    def __len__(self):
        return len(self.batch.label)

    def __getitem__(self, i):
        return take(self.batch, i)


def test_trains_on_what_it_never_loads(key):
    source = Endless(budget=30 * 64 + 1 + 64)
    config = FitConfig(epochs=3, batch_size=64, steps_per_epoch=10, steps_per_dispatch=4)
    result = fit(key, ERM, source, config, held_out=table(200))
    assert result.history[-1].step == 30
    assert result.history[-1].held_out < 0.3 < result.history[0].held_out
    assert source.asked <= 30 * 64 + 1


def test_a_pass_visits_every_row_once_and_passes_differ():
    stream = RowStream(Rows(table(10)), seed=5, batch_size=4)
    assert stream.steps_per_pass == 3
    batches = [batch for stack in stream.stacks(0, 6, 1) for batch in [jax.tree.map(lambda leaf: leaf[0], stack)]]
    orders = []
    for start in (0, 3):
        weight = np.concatenate([batch.weight for batch in batches[start : start + 3]])
        index = np.concatenate([batch.index for batch in batches[start : start + 3]])
        assert weight.tolist() == [1.0] * 10 + [0.0] * 2
        assert sorted(index[:10]) == list(range(10))
        orders.append(index[:10].tolist())
    assert orders[0] != orders[1] != list(range(10))
    for batch in batches:
        np.testing.assert_array_equal(batch.x, table(10).x[batch.index])
        np.testing.assert_array_equal(batch.label, table(10).label[batch.index])


def test_batch_t_depends_on_the_seed_and_t_alone():
    stream = RowStream(Rows(table(10)), seed=5, batch_size=4)
    whole = jax.tree.map(lambda *leaves: np.concatenate(leaves), *stream.stacks(0, 9, 4))
    late = jax.tree.map(lambda *leaves: np.concatenate(leaves), *stream.stacks(5, 9, 3))
    leaves_equal(late, take(whole, slice(5, 9)))
    (other,) = RowStream(Rows(table(10)), seed=6, batch_size=4).stacks(0, 9, 9)
    assert not np.array_equal(other.index, whole.index)


def test_rows_counts_and_stacks(key):
    config = FitConfig(epochs=2, batch_size=16, steps_per_dispatch=3)
    result = fit(key, counting(), Rows(table(50)), config)
    assert result.state.seen.tolist() == [2] * 50
    assert [record.step for record in result.history] == [4, 8]
    again = fit(key, counting(), Rows(table(50)), FitConfig(epochs=2, batch_size=16, epochs_per_chunk=2))
    leaves_equal(result.state, again.state)


def test_one_stack_equals_many(key):
    ones = fit(key, ERM, Rows(table(50)), FitConfig(epochs=2, batch_size=16, steps_per_dispatch=1)).state
    many = fit(key, ERM, Rows(table(50)), FitConfig(epochs=2, batch_size=16, steps_per_dispatch=4)).state
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), ones, many)


def test_resumes_and_stops_early_as_data_in_memory_do(key, tmp_path):
    config = FitConfig(epochs=6, batch_size=16, early_stop=EarlyStop(patience=5), keep="best")
    unbroken = fit(key, ERM, Rows(table(50)), config, held_out=table(40))

    class Stop(Exception):
        pass

    def interrupt(record):
        if record.epoch == 3:
            raise Stop

    with pytest.raises(Stop):
        fit(key, ERM, Rows(table(50)), config, held_out=table(40), checkpoint=tmp_path, observe=interrupt)
    resumed = fit(key, ERM, Rows(table(50)), config, held_out=table(40), checkpoint=tmp_path)
    leaves_equal(resumed.state, unbroken.state)
    assert [r.held_out for r in resumed.history] == [r.held_out for r in unbroken.history]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"x": np.zeros(5, np.float32)}, "x, label and perhaps attribute"),
        ({"x": np.zeros(5, np.float32), "label": 0, "colour": 1}, "x, label and perhaps attribute"),
        ({"x": np.zeros(5), "label": 0}, r"uint8 or finite float32 \[h w c\] or \[d\], got float64 \[5\]"),
        ({"x": np.full(5, np.nan, np.float32), "label": 0}, "finite float32"),
        ({"x": np.zeros(5, np.float32), "label": -1}, "one integer of at least 0"),
        ((np.zeros(5), 0), "a Batch or a mapping"),
    ],
)
def test_refuses_a_row_by_its_number(row, message):
    with pytest.raises(ContractError, match=message) as error:
        RowStream([row], seed=0, batch_size=1).example()
    assert "data[0]" in str(error.value)


def test_refuses_methods_that_draw_by_weight(key):
    learner = ERM._replace(weights=lambda state, data: data.label)
    with pytest.raises(ContractError, match="a Batch in memory"):
        fit(key, learner, Rows(table(50)))
