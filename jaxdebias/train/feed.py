"""From data to steps: the compiled programs of the training loop, for data in memory and for streams."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxdebias.contracts import check_batch, expect
from jaxdebias.core import Array, Batch, Key, Learner, take
from jaxdebias.train._mesh import constrain, put
from jaxdebias.train._plans import Plan, epoch_plan, steps_per_epoch
from jaxdebias.train.draws import draw_summary, systematic_rows, usable_weights
from jaxdebias.train.stream import RowStream

View = Callable[[Any, Batch], Batch]
"""(shared, rows) -> batch. The rows' `x` may say how to make pixels (which picture, in which colour) of what many runs
share, so that each run needs memory for little more than its labels. Pure, row by row; one object compiles once."""


class Steps(NamedTuple):
    """What happened in some steps, one value each."""

    info: Any
    """What `learner.step` reports, every leaf `[s]`."""
    rows: Array
    """`[s]` sum of the row weights: the number of rows, padding not counted."""
    draws: Any = None
    """Of a learner with `weights`: `draw_summary` of the epoch, every leaf `[s]`."""


class Feed(NamedTuple):
    """Data behind one interface for the loop."""

    example: Batch
    """A batch of the shape that every step sees."""
    steps: int
    """Per epoch."""
    advance: Callable[[Any, int, int], tuple[Any, Steps]]
    """(state, first epoch, epochs) -> (state, what happened); takes the buffers of the state it is given."""


def memory_feed(
    key: Key,
    learner: Learner,
    data: Batch,
    *,
    batch_size: int,
    steps: int | None = None,
    drop_last: bool = False,
    draws: str = "independent",
    mesh: Mesh | None = None,
) -> Feed:
    """Data that fits: on the device once, as stored; some epochs are one program.

    Args:
      key: random key.
      learner: the training method.
      data: the training rows.
      batch_size: rows at a time.
      steps: per epoch, at most those of a pass; None: a pass.
      drop_last: leave out the last, incomplete batch of an epoch.
      draws: see `FitConfig.draws`.
      mesh: devices to spread the rows over; None: one.
    """
    check_batch(data)
    n = data.label.shape[0]
    most = steps_per_epoch(n, batch_size, drop_last=drop_last)
    steps = steps or most
    expect(steps <= most, "steps_per_epoch", f"at most the {most} steps of a pass over data in memory", steps)
    data = put(data._replace(index=None), mesh)
    static = {
        "learner": learner,
        "steps": steps,
        "batch_size": batch_size,
        "drop_last": drop_last,
        "draws": draws,
        "mesh": mesh,
    }

    def advance(state: Any, epoch: int, epochs: int) -> tuple[Any, Steps]:
        return train_epochs(key, state, data, np.int32(epoch), epochs=epochs, **static)

    example = _gather(data, np.arange(batch_size) % n, np.ones(batch_size, np.float32))
    return Feed(example, steps, advance)


@functools.partial(
    jax.jit,
    donate_argnames=("state",),
    static_argnames=("learner", "epochs", "steps", "batch_size", "drop_last", "draws", "mesh", "view"),
)
def train_epochs(
    key: Key,
    state: Any,
    data: Batch,
    first_epoch: Any,
    *,
    learner: Learner,
    epochs: int,
    steps: int,
    batch_size: int,
    drop_last: bool = False,
    draws: str = "independent",
    mesh: Mesh | None = None,
    shared: Any = None,
    view: View | None = None,
) -> tuple[Any, Steps]:
    """`epochs` epochs of `steps` steps each, from number `first_epoch` on. Pure, so runs can be mapped over keys.

    Args:
      key: random key.
      state: of the learner.
      data: the training rows.
      first_epoch: number of the first.
      learner: the training method.
      epochs: how many to run.
      steps: of an epoch.
      batch_size: rows at a time.
      drop_last: leave out the last, incomplete batch of an epoch.
      draws: how rows are drawn, as in `FitConfig`.
      mesh: devices to spread the rows over; None: one.
      shared: what `view` makes pixels of, the same for all runs that are mapped.
      view: turns gathered rows into what a step sees; None: the rows as they are.
    """
    key_epochs, key_steps = jax.random.split(key)
    n = data.label.shape[0]

    def epoch(state, number):
        draw = None if learner.weights is None else learner.weights(state, data)
        key_plan = jax.random.fold_in(key_epochs, number)
        plan = _plan(key_plan, n, batch_size, draw, draws=draws, drop_last=drop_last)
        plan = jax.tree.map(lambda leaf: leaf[:steps], plan)

        def step(state, row):
            t, plan = row
            plan = constrain(plan, mesh, "data")
            batch = _gather(data, *plan)
            batch = batch if view is None else view(shared, batch)
            return _step(jax.random.fold_in(key_steps, t), state, batch, learner, mesh)

        state, happened = jax.lax.scan(step, state, (number * steps + jnp.arange(steps), plan))
        if draw is not None:
            summary = jax.tree.map(lambda value: jnp.full(steps, value), draw_summary(draw))
            happened = happened._replace(draws=summary)
        return state, happened

    state, happened = jax.lax.scan(epoch, state, first_epoch + jnp.arange(epochs))
    return state, jax.tree.map(lambda leaf: leaf.reshape(epochs * steps, *leaf.shape[2:]), happened)


def stream_feed(
    key: Key,
    learner: Learner,
    source: Any,
    *,
    batch_size: int,
    steps: int | None = None,
    steps_per_dispatch: int = 16,
    drop_last: bool = False,
    mesh: Mesh | None = None,
) -> Feed:
    """Data that do not fit: a few stacked batches are one program, while the next ones are read.

    Args:
      key: random key.
      learner: the training method.
      source: rows that are streamed, see `RowStream`.
      batch_size: rows at a time.
      steps: per epoch; None: a pass over the source.
      steps_per_dispatch: batches per program. About three such stacks are in memory at a time.
      drop_last: leave out the last, incomplete batch of an epoch.
      mesh: devices to spread the rows over; None: one.
    """
    expect(learner.weights is None, "data", "a Batch in memory, because this method draws rows by weight", "a stream")
    key_order, key_steps = jax.random.split(key)
    seed = int(jax.random.bits(key_order, dtype=jnp.uint32))
    stream = RowStream(source, seed=seed, batch_size=batch_size, drop_last=drop_last)
    steps = steps or stream.steps_per_pass

    def advance(state: Any, epoch: int, epochs: int) -> tuple[Any, Steps]:
        parts, t = [], epoch * steps
        for batches in stream.stacks(t, t + epochs * steps, steps_per_dispatch):
            batches = put(batches, mesh, None, "data")
            state, part = train_stack(key_steps, state, batches, np.int32(t), learner=learner, mesh=mesh)
            parts.append(part)
            t += batches.label.shape[0]
            if len(parts) > 1:  # one program runs and one waits, not more: that bounds memory
                jax.block_until_ready(parts[-2])
        return state, jax.tree.map(lambda *leaves: np.concatenate(leaves), *jax.device_get(parts))

    return Feed(stream.example(), steps, advance)


@functools.partial(jax.jit, donate_argnames=("state",), static_argnames=("learner", "mesh"))
def train_stack(
    key_steps: Key, state: Any, batches: Batch, first_step: Any, *, learner: Learner, mesh: Mesh | None = None
) -> tuple[Any, Steps]:
    """One step per batch of a stack `[s b ...]`."""

    def step(state, row):
        t, batch = row
        return _step(jax.random.fold_in(key_steps, t), state, batch, learner, mesh)

    return jax.lax.scan(step, state, (first_step + jnp.arange(batches.label.shape[0]), batches))


def _plan(key: Key, n: int, batch_size: int, weights: Array | None, *, draws: str, drop_last: bool) -> Plan:
    if weights is None or draws == "independent":
        return epoch_plan(key, n, batch_size, draw_weights=weights, drop_last=drop_last)
    key_rows, key_order = jax.random.split(key)
    rows = systematic_rows(key_rows, weights, count=n)
    plan = epoch_plan(key_order, n, batch_size, drop_last=drop_last)
    return Plan(rows[plan.index], jnp.where(usable_weights(weights), plan.weight, jnp.nan))


def _gather(data: Batch, index: Any, weight: Any) -> Batch:
    """The rows of one step, with their numbers and weights."""
    batch = take(data, index)
    return batch._replace(index=index, weight=weight if batch.weight is None else weight * batch.weight)


def _step(key: Key, state: Any, batch: Batch, learner: Learner, mesh: Mesh | None) -> tuple[Any, Steps]:
    state, info = learner.step(key, state, constrain(batch, mesh, "data"))
    return constrain(state, mesh), constrain(Steps(info, batch.weight.sum()), mesh)
