"""Many runs of one learner in one program: seeds, settings and data sets of one shape, compiled once.

A run of a sweep is `train.fit` with the same key, without checkpoints and log: chunk, held-out value, plateau, early
stop, but decided on the device, so that runs need no host and can be mapped. On an accelerator the runs of a portion
are vmapped (and sharded over a mesh axis `runs`, if there is one); on a CPU they follow one another in one program,
because vmapping gains nothing there.

Runs may share what they are made of. Sixty runs on Colored MNIST, six ratios and ten seeds, share one grey array;
a run's own rows say which picture in which colour, and a `View` makes pixels of them inside the step.
"""

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Bool, Float, Int

from jaxdebias.contracts import expect
from jaxdebias.core import Array, Batch, Learner, take
from jaxdebias.train._plans import steps_per_epoch
from jaxdebias.train._run import MONITORED, RUNS_ONCE, FitConfig, held_out_value
from jaxdebias.train._schedule import HELD_OUT_LOSS, EarlyStop, Monitor, Plateau
from jaxdebias.train.feed import View, train_epochs


class Books(NamedTuple):
    """`schedule.Bookkeeping` of one run, on the device. Values are turned so that smaller is better."""

    best: Float[Array, "*r"]
    best_epoch: Int[Array, "*r"]
    """0 where no epoch has been judged."""
    since_best: Int[Array, "*r"]
    plateau_best: Float[Array, "*r"]
    since_plateau: Int[Array, "*r"]
    stopped: Bool[Array, "*r"]


class _Carry(NamedTuple):
    state: Any
    best: Any
    """The state of the best chunk; None where the run does not keep it."""
    books: Books
    epoch: Any
    history: dict[str, Any]
    """`[chunks]` each, NaN where the run has not been or has stopped before."""


class Portion(NamedTuple):
    """Runs that were trained together; every field has them as its first axis, in the order given."""

    runs: tuple[int, ...]
    """Their numbers in the sweep."""
    state: Any
    """Of the best epoch if the run stopped early or `config.keep` is "best", else of the last one."""
    epoch: Int[np.ndarray, "r"]
    """Epochs done."""
    best_epoch: Int[np.ndarray, "r"]
    """Epochs done when the monitor was best; 0 without held-out rows."""
    stopped_early: Bool[np.ndarray, "r"]
    history: dict[str, Float[np.ndarray, "r chunks"]]
    """Per chunk: `loss`, what else the learner reports, and `held_out`; NaN after a run's end."""
    seconds: float
    """Wall time of the portion, compilation included."""


Rows = Batch | Sequence[Batch]
"""Of all runs, or of each."""


def sweep(
    keys: Any,
    learner: Learner,
    data: Rows,
    config: FitConfig = FitConfig(),
    *,
    hyper: Sequence[Any] | None = None,
    held_out: Rows | None = None,
    monitor: Monitor = HELD_OUT_LOSS,
    shared: Any = None,
    view: View | None = None,
    at_once: int | None = None,
    mesh: Mesh | None = None,
    chunks_per_look: int = 10,
    observe: Callable[[tuple[int, ...], int, dict[str, float]], None] | None = None,
) -> Iterator[Portion]:
    """Trains a learner once per key and yields the runs portion by portion, as they are done.

    Equal shapes, the same learner and an equal config compile one program for all portions of equal size. A run's
    result does not depend on its portion: it equals `fit(key, learner, data, config)` to rounding.

    Args:
      keys: `[r]`, or a sequence of r.
      learner: the training method.
      data: what to train on: one `Batch` for all runs or one per run, of equal shapes.
      config: as for `run`; `steps_per_dispatch` and `chunks_per_checkpoint` do not matter.
      monitor: what is measured on held-out rows, see `train.Monitor`.

    Other args:
      hyper: per run, what the learner's `state.hyper` is to be: numbers that are traced, so that they can differ.
      held_out: rows for the monitor, of all or of each.
      shared: anything, the same for all runs, that `view` makes pixels of; it is moved to the device once.
      view: (shared, rows) -> the batch that a step or the monitor sees. `learner.weights` gets the rows themselves.
      at_once: runs per portion; None: 1 on a CPU, all elsewhere.
      mesh: with an axis `runs`; portions must be a multiple of its size.
      chunks_per_look: the host looks once per so many chunks, to report and to notice that all runs have stopped.
      observe: called after every look with (runs of the portion, epochs done, means of what is reported).

    Raises:
      ContractError: shapes that differ between runs, a learner without `hyper`, held-out rows that are missing.
      FloatingPointError: a loss or held-out value that is not finite, naming the run and the chunk.
    """
    keys = list(keys)
    count = len(keys)
    expect(count > 0, "keys", "at least one", count)
    watches = config.plateau is not None or config.keeps_best
    expect(not watches or held_out is not None, "held_out", "rows, for plateau, early_stop or keep='best'", None)
    expect(hyper is None or len(hyper) == count, "hyper", f"{count} entries, one per key", hyper and len(hyper))
    for what, rows in (("data", data), ("held_out", held_out)):
        expect(
            rows is None or isinstance(rows, Batch) or len(rows) == count,
            what,
            f"a Batch or {count} of them",
            None if rows is None else len(rows),
        )
    expect(
        config.epochs % config.epochs_per_chunk == 0,
        "config.epochs",
        f"a multiple of epochs_per_chunk={config.epochs_per_chunk}",
        config.epochs,
    )
    accelerated = jax.default_backend() != "cpu"
    at_once = at_once or (count if accelerated else 1)
    shared = jax.device_put(shared) if mesh is None else jax.device_put(shared, NamedSharding(mesh, PartitionSpec()))
    n = (data if isinstance(data, Batch) else data[0]).label.shape[0]
    most = steps_per_epoch(n, config.batch_size, drop_last=config.drop_last)
    steps = config.steps_per_epoch or most
    expect(steps <= most, "config.steps_per_epoch", f"at most the {most} steps of a pass", steps)
    static = {
        "learner": learner,
        "config": config,
        "monitor": monitor,
        "view": view,
        "steps": steps,
        "mapped": _vmapped if accelerated else _in_turn,
    }

    for first in range(0, count, at_once):
        began = time.perf_counter()
        runs = tuple(range(first, min(first + at_once, count)))
        own = [
            {
                "key": keys[i],
                "data": _of(data, i),
                "held_out": _of(held_out, i),
                "hyper": None if hyper is None else hyper[i],
            }
            for i in runs
        ]
        own = _spread(_stacked(own), mesh)
        carry = _start(own, shared, **static)
        limit = 0
        while limit < config.epochs:
            limit = min(limit + chunks_per_look * config.epochs_per_chunk, config.epochs)
            carry = _advance(carry, own, shared, np.int32(limit), **static)
            epochs, stopped, history = jax.device_get((carry.epoch, carry.books.stopped, carry.history))
            _check_finite(history, epochs, runs, config.epochs_per_chunk)
            if observe is not None:
                last = (epochs - 1) // config.epochs_per_chunk
                means = {name: float(values[np.arange(len(runs)), last].mean()) for name, values in history.items()}
                observe(runs, int(epochs.max()), means)
            if stopped.all():
                break
        state = _returned(carry, keep=config.keep)
        yield Portion(
            runs, state, epochs, np.asarray(carry.books.best_epoch), stopped, history, time.perf_counter() - began
        )


def map_runs(fn: Callable[..., Any], *args: Any) -> Any:
    """`fn` of each run's slice of the arguments: vmapped on an accelerator, one after the other on a CPU."""
    return (_vmapped if jax.default_backend() != "cpu" else _in_turn)(fn, *args)


def _vmapped(fn: Callable[..., Any], *args: Any) -> Any:
    return jax.vmap(fn)(*args)


def _in_turn(fn: Callable[..., Any], *args: Any) -> Any:
    return jax.lax.map(lambda own: fn(*own), args)


def _of(rows: Rows | None, i: int) -> Batch | None:
    return rows if rows is None or isinstance(rows, Batch) else rows[i]


def _stacked(own: Sequence[Any]) -> Any:
    shapes = [jax.tree.map(jnp.shape, one) for one in own]
    for i, shape in enumerate(shapes):
        expect(shape == shapes[0], f"run {i}", f"the shapes of the first run, {shapes[0]}", shape)
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *own)


def _spread(tree: Any, mesh: Mesh | None) -> Any:
    if mesh is None:
        return tree
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec("runs")))


_STATIC = ("learner", "config", "monitor", "view", "steps", "mapped")


@functools.partial(jax.jit, static_argnames=_STATIC, compiler_options=RUNS_ONCE)
def _start(
    own: Any,
    shared: Any,
    *,
    learner: Learner,
    config: FitConfig,
    monitor: Monitor,
    view: View | None,
    steps: int,
    mapped: Callable[..., Any],
) -> _Carry:
    def start(own: Any) -> _Carry:
        key_init, key_run = jax.random.split(own["key"])
        data = own["data"]
        index = jnp.arange(config.batch_size) % data.label.shape[0]
        example = take(data._replace(index=None), index)
        example = example._replace(index=index, weight=jnp.ones(config.batch_size))
        state = learner.init(key_init, example if view is None else view(shared, example))
        if own["hyper"] is not None:
            expect(hasattr(state, "hyper"), "hyper", "None, for a learner without a field `hyper`", "values")
            state = state._replace(
                hyper=jax.tree.map(
                    lambda new, old: jnp.broadcast_to(jnp.asarray(new, old.dtype), old.shape), own["hyper"], state.hyper
                )
            )
        expect(
            config.plateau is None or hasattr(state, "lr_scale"),
            "state",
            "a field lr_scale, for config.plateau",
            type(state).__name__,
        )
        books = Books(jnp.inf, 0, 0, jnp.inf, 0, False)
        books = Books(
            *(
                jnp.asarray(value, kind)
                for value, kind in zip(
                    books, (jnp.float32, jnp.int32, jnp.int32, jnp.float32, jnp.int32, bool), strict=True
                )
            )
        )
        chunks = -(-config.epochs // config.epochs_per_chunk)
        names = jax.eval_shape(
            lambda: _reported(
                train_epochs(
                    key_run,
                    state,
                    data,
                    0,
                    learner=learner,
                    epochs=1,
                    steps=1,
                    batch_size=config.batch_size,
                    drop_last=config.drop_last,
                    draws=config.draws,
                    shared=shared,
                    view=view,
                )[1]
            )
        )
        names = [*names, "held_out"] if own["held_out"] is not None else list(names)
        history = {name: jnp.full(chunks, jnp.nan, jnp.float32) for name in names}
        return _Carry(state, state if config.keeps_best else None, books, jnp.int32(0), history)

    return mapped(start, own)


@functools.partial(jax.jit, static_argnames=_STATIC, donate_argnames=("carry",))
def _advance(
    carry: _Carry,
    own: Any,
    shared: Any,
    until: Any,
    *,
    learner: Learner,
    config: FitConfig,
    monitor: Monitor,
    view: View | None,
    steps: int,
    mapped: Callable[..., Any],
) -> _Carry:
    """Every run up to epoch `until`, or to its early stop."""

    def advance(carry: _Carry, own: Any) -> _Carry:
        _, key_run = jax.random.split(own["key"])
        key_monitor = jax.random.fold_in(own["key"], MONITORED)
        per_chunk = config.epochs_per_chunk

        def chunk(carry: _Carry) -> _Carry:
            state, happened = train_epochs(
                key_run,
                carry.state,
                own["data"],
                carry.epoch,
                learner=learner,
                epochs=per_chunk,
                steps=steps,
                batch_size=config.batch_size,
                drop_last=config.drop_last,
                draws=config.draws,
                shared=shared,
                view=view,
            )
            epoch = carry.epoch + per_chunk
            said, books, best = _reported(happened), carry.books, carry.best
            if own["held_out"] is not None:
                value = held_out_value(
                    jax.random.fold_in(key_monitor, epoch),
                    state,
                    own["held_out"],
                    learner=learner,
                    monitor=monitor,
                    rows=config.eval_batch_size,
                    shared=shared,
                    view=view,
                )
                said["held_out"] = value
                books, improved, factor = judge(
                    books, value, epoch, mode=monitor.mode, plateau=config.plateau, early_stop=config.early_stop
                )
                if config.keeps_best:
                    best = jax.tree.map(lambda new, old: jnp.where(improved, new, old), state, best)
                if config.plateau is not None:
                    state = state._replace(lr_scale=state.lr_scale * factor)
            at = epoch // per_chunk - 1
            history = {name: values.at[at].set(said[name]) for name, values in carry.history.items()}
            return _Carry(state, best, books, epoch, history)

        return jax.lax.while_loop(lambda carry: ~carry.books.stopped & (carry.epoch < until), chunk, carry)

    return mapped(advance, carry, own)


@functools.partial(jax.jit, static_argnames=("keep",))
def _returned(carry: _Carry, *, keep: str) -> Any:
    if carry.best is None or keep == "best":
        return carry.state if carry.best is None else carry.best
    return jax.vmap(lambda stopped, best, last: jax.tree.map(lambda a, b: jnp.where(stopped, a, b), best, last))(
        carry.books.stopped, carry.best, carry.state
    )


def judge(
    books: Books, value: Any, epoch: Any, *, mode: str, plateau: Plateau | None, early_stop: EarlyStop | None
) -> tuple[Books, Any, Any]:
    """`schedule.judge` on the device: (books, improved, factor of the learning rate)."""
    value = -value if mode == "max" else value
    improved = (value <= books.best - (early_stop.threshold if early_stop else 0.0)) & (value < books.best)
    since_best = jnp.where(improved, 0, books.since_best + 1)
    books = books._replace(
        best=jnp.where(improved, value, books.best),
        best_epoch=jnp.where(improved, epoch, books.best_epoch).astype(jnp.int32),
        since_best=since_best.astype(jnp.int32),
        stopped=since_best >= early_stop.patience if early_stop else books.stopped,
    )
    if plateau is None:
        return books, improved, jnp.float32(1.0)
    first = jnp.isinf(books.plateau_best)
    share = jnp.where(first, 0.0, jnp.abs(books.plateau_best)) if plateau.relative else 1.0
    good = first | (value < books.plateau_best - plateau.threshold * share)
    since_plateau = jnp.where(good, 0, books.since_plateau + 1)
    lower = since_plateau > plateau.patience
    books = books._replace(
        plateau_best=jnp.where(good, value, books.plateau_best),
        since_plateau=jnp.where(lower, 0, since_plateau).astype(jnp.int32),
    )
    return books, improved, jnp.where(lower, plateau.factor, 1.0).astype(jnp.float32)


def _reported(happened: Any) -> dict[str, Any]:
    """Means over the chunk's rows of what the steps report."""
    info = happened.info._asdict() if hasattr(happened.info, "_asdict") else dict(happened.info)
    info |= happened.draws or {}
    share = happened.rows / jnp.maximum(happened.rows.sum(), 1.0)
    return {name: (share * values).sum().astype(jnp.float32) for name, values in info.items()}


def _check_finite(history: dict[str, Any], epochs: Any, runs: tuple[int, ...], per_chunk: int) -> None:
    for name in ("loss", "held_out"):
        for i, run in enumerate(runs):
            done = history[name][i][: epochs[i] // per_chunk] if name in history else np.zeros(0)
            bad = np.flatnonzero(~np.isfinite(done))
            if bad.size:
                raise FloatingPointError(f"{name}: not finite in run {run}, epoch {(bad[0] + 1) * per_chunk}")
