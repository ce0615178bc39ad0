"""The only training loop: any `Learner`, on data in memory or streamed, on one device or a mesh.

Time is cut into chunks of whole epochs. A chunk runs on the device without the host (see `feed`); then the host looks
once at the losses and the held-out quantity, decides, logs, saves, and starts the next.
"""

import contextlib
import dataclasses
import functools
import inspect
import time
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxdebias.batching import map_rows
from jaxdebias.contracts import check_batch, check_choice, check_integers, check_key, check_type, expect
from jaxdebias.core import Batch, Key, Learner
from jaxdebias.train._checkpoint import Checkpoints, Path, Saved, fingerprint
from jaxdebias.train._log import Progress, open_log
from jaxdebias.train._mesh import check_mesh, put
from jaxdebias.train._schedule import HELD_OUT_LOSS, Bookkeeping, EarlyStop, Monitor, Plateau, Verdict, judge
from jaxdebias.train.feed import Feed, Steps, View, memory_feed, stream_feed

MONITORED = 0x6D6F6E
"""Folded into a run's key, with the epoch, for what a monitor draws."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FitConfig:
    """How long, in what portions, and what is kept."""

    epochs: int = 10
    batch_size: int = 256
    epochs_per_chunk: int = 1
    """Every so many epochs the held-out quantity is computed and everything on the host happens: schedules, log,
    checkpoint. A divisor of `epochs` compiles one program, another number two."""
    steps_per_epoch: int | None = None
    """End an epoch after so many steps. None: a pass over the data. A stream goes on where the last epoch ended; data
    in memory are shuffled anew."""
    steps_per_dispatch: int = 16
    """Streams only: batches stacked and scanned in one program. Host memory is about three such stacks."""
    drop_last: bool = False
    """Leave out the last, incomplete batch of a pass; otherwise it is filled with rows of weight 0."""
    draws: Literal["independent", "systematic"] = "independent"
    """How the rows of an epoch are drawn where the learner has `weights`: each for itself, or, with less noise, row i
    `floor` or `ceil` of n W_i times; then equal weights give every row once."""
    plateau: Plateau | None = None
    early_stop: EarlyStop | None = None
    keep: Literal["last", "best"] = "last"
    """The state returned when the epochs run out; a run that stops early returns the best one."""
    eval_batch_size: int = 1024
    """Held-out rows at a time."""
    chunks_per_checkpoint: int = 1
    """A save takes time, more for large states; the last chunk is always saved."""

    def __post_init__(self):
        check_choice("config.keep", self.keep, ("last", "best"))
        check_choice("config.draws", self.draws, ("independent", "systematic"))
        for name, value in vars(self).items():
            counted = isinstance(value, int) and not isinstance(value, bool)
            expect(not counted or value >= 1, f"config.{name}", "at least 1", value)

    @property
    def keeps_best(self) -> bool:
        """Whether the run holds a second state, that of the best chunk so far."""
        return self.keep == "best" or self.early_stop is not None


class FitResult(NamedTuple):
    """What a run returns."""

    state: Any
    """Of the best epoch if the run stopped early or `config.keep` is "best", else of the last one."""
    epoch: int
    """Epochs done."""
    best_epoch: int | None
    """Epochs done when the monitor was best; None without held-out rows."""
    best_value: float | None
    stopped_early: bool
    history: list[Progress]
    """One record per chunk, from the beginning of the run, resumed or not."""


def fit(
    key: Key,
    learner: Learner,
    data: Any,
    config: FitConfig = FitConfig(),
    *,
    state: Any = None,
    held_out: Batch | None = None,
    monitor: Monitor = HELD_OUT_LOSS,
    mesh: Mesh | None = None,
    checkpoint: Path | None = None,
    log: Path | None = None,
    observe: Callable[[Progress], None] | None = None,
) -> FitResult:
    """Trains a learner. Equal shapes, the same learner and an equal config compile nothing a second time.

    Epoch e draws its order from `fold_in(key_epochs, e)` and step t uses `fold_in(key_steps, t)`, with both keys from
    `key`; so the result does not depend on where a run was cut in chunks or interrupted.

    Args:
      key: random key.
      learner: the training method.
      data: a `Batch` that fits on the device, moved there once, as stored (drop fields that the learner does not read,
        `data._replace(twin=None)`); or a source of rows that is streamed (see `RowStream`). The learner gets batches
        with `index` and `weight` filled in.
      config: settings, see the class.
      monitor: what is measured on held-out rows, see `train.Monitor`.

    Other args:
      state: to start from, as `learner.init(...)._replace(variables=...)`; it is copied. None: `learner.init`.
      held_out: rows on which `monitor` is evaluated after each chunk; plateau, early_stop and keep="best" need them.
      mesh: see `data_mesh`; the batch size must be a multiple of its size. The held-out rows are not split.
      checkpoint: a folder. The run saves into it, and goes on from what it finds there.
      log: a file of JSON lines, one `Progress` each; lines after the point of resumption are dropped.
      observe: called with every new `Progress`.

    Raises:
      ContractError: bad data, a state without `lr_scale` under a plateau schedule, a checkpoint of another run.
      FloatingPointError: a loss, a held-out value or weights that are not finite. Nothing of that chunk is logged or
        saved: the last checkpoint holds the state before it.
    """
    check_key("key", key)
    check_type("config", config, FitConfig)
    check_type("learner", learner, Learner)
    mesh = check_mesh(mesh, config.batch_size)
    key_init, key_run = jax.random.split(key)
    key_monitor = jax.random.fold_in(key, MONITORED)
    feed = _feed(key_run, learner, data, config, mesh)
    with contextlib.ExitStack() as opened:
        store = None
        if checkpoint is not None:
            made_by = _made_by(key, learner, data, feed.example, config, state, held_out, monitor)
            store = opened.enter_context(contextlib.closing(Checkpoints(checkpoint, made_by)))
        state = put(_init(key_init, feed.example, learner=learner) if state is None else _copy(state), mesh)
        _check(learner, config, state, data, feed.example, held_out)
        held_out = None if held_out is None else put(held_out, mesh)

        books, best, history, epoch = Bookkeeping(), None, [], 0
        if store is not None and (saved := store.restore(like=state)) is not None:
            epoch, state, best = saved.epoch, saved.state, saved.best
            books = Bookkeeping(**saved.host["books"])
            history = [Progress(**record) for record in saved.host["history"]]
        write = opened.enter_context(open_log(log, history))

        while epoch < config.epochs and not books.stopped:
            began = time.perf_counter()
            epochs = min(config.epochs_per_chunk, config.epochs - epoch)
            state, steps = feed.advance(state, epoch, epochs)
            loss, info, lr_scale = _summary(steps, state, first_step=epoch * feed.steps)
            epoch += epochs

            value, verdict = None, Verdict(improved=False, lr_factor=1.0)
            if held_out is not None:
                value = float(
                    held_out_value(
                        jax.random.fold_in(key_monitor, epoch),
                        state,
                        held_out,
                        learner=learner,
                        monitor=monitor,
                        rows=config.eval_batch_size,
                    )
                )
                _stop_unless(np.isfinite(value), f"{monitor.name}: {value} after {epoch} epochs")
                rules = {"mode": monitor.mode, "plateau": config.plateau, "early_stop": config.early_stop}
                books, verdict = judge(books, value, epoch, **rules)
            if verdict.improved and config.keeps_best:
                best = _copy(state)  # the next chunk takes the buffers of `state`
            if verdict.lr_factor != 1.0:
                state = state._replace(lr_scale=state.lr_scale * verdict.lr_factor)
                lr_scale *= verdict.lr_factor

            seconds = round(time.perf_counter() - began, 4)
            step = epoch * feed.steps
            history.append(Progress(epoch, step, loss, info, value, verdict.improved, lr_scale, seconds))
            write(history[-1])
            ended = epoch >= config.epochs or books.stopped
            if store is not None and (ended or len(history) % config.chunks_per_checkpoint == 0):
                host = {"books": books._asdict(), "history": [record._asdict() for record in history]}
                store.save(Saved(epoch, state, best, host))
            if observe is not None:
                observe(history[-1])

    returned = best if books.stopped or config.keep == "best" else state
    best_value = None if books.best_epoch is None else (-books.best if monitor.mode == "max" else books.best)
    return FitResult(returned, epoch, books.best_epoch, best_value, books.stopped, history)


def _feed(key: Key, learner: Learner, data: Any, config: FitConfig, mesh: Mesh | None) -> Feed:
    same = {"batch_size": config.batch_size, "steps": config.steps_per_epoch, "drop_last": config.drop_last}
    if isinstance(data, Batch):
        return memory_feed(key, learner, data, **same, draws=config.draws, mesh=mesh)
    return stream_feed(key, learner, data, **same, mesh=mesh, steps_per_dispatch=config.steps_per_dispatch)


RUNS_ONCE = {"xla_backend_optimization_level": 1}
"""Compiler options of what is not worth optimising: of many a network, random kernels compile longer than the training.
The bits are the same."""


@functools.partial(jax.jit, static_argnames=("learner",), compiler_options=RUNS_ONCE)
def _init(key: Key, example: Batch, *, learner: Learner) -> Any:
    return learner.init(key, example)


@jax.jit
def _copy(tree: Any) -> Any:
    return jax.tree.map(jnp.copy, tree)


@functools.partial(jax.jit, static_argnames=("learner", "monitor", "rows", "view"))
def held_out_value(
    key: Key,
    state: Any,
    held_out: Batch,
    *,
    learner: Learner,
    monitor: Monitor,
    rows: int,
    shared: Any = None,
    view: View | None = None,
) -> jax.Array:
    """The monitor's value, its outputs computed `rows` rows at a time; `shared` and `view` as in `train_epochs`."""
    outputs = monitor.outputs or (lambda state, batch: learner.predict(state, batch.x))
    held_out = held_out if monitor.rows is None else monitor.rows(key, held_out)

    def of(both, part):
        return outputs(both[0], part if view is None else view(both[1], part))

    return monitor.fn(map_rows(of, (state, shared), held_out, batch_size=rows), held_out)


@jax.jit
def _all_finite(tree: Any) -> jax.Array:
    floats = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return jnp.all(jnp.asarray([jnp.isfinite(leaf).all() for leaf in floats] or [True]))


def _summary(steps: Steps, state: Any, *, first_step: int) -> tuple[float, dict[str, float], float | None]:
    """(mean loss, means of the other infos, lr_scale) of a chunk in one transfer, or an error where it went wrong."""
    info = steps.info._asdict() if hasattr(steps.info, "_asdict") else dict(steps.info)
    expect("loss" in info, "info of learner.step", "a scalar named loss", ", ".join(info))
    info |= steps.draws or {}
    finite, lr_scale = _all_finite(getattr(state, "variables", ())), getattr(state, "lr_scale", None)
    info, rows, finite, lr_scale = jax.device_get((info, steps.rows, finite, lr_scale))
    bad = np.flatnonzero(~np.isfinite(info["loss"]))
    _stop_unless(not bad.size, f"loss: not finite at step {first_step + bad[:1].sum()}, counted from 0")
    _stop_unless(finite, f"weights: not finite after step {first_step + rows.size - 1}, counted from 0")
    rows = rows.astype(np.float64)
    share = rows / np.maximum(rows.sum(), np.finfo(np.float32).tiny)
    means = {name: float((share * values).sum()) for name, values in info.items()}
    return means.pop("loss"), means, None if lr_scale is None else float(lr_scale)


def _stop_unless(finite: Any, message: str) -> None:
    if not finite:
        raise FloatingPointError(message)


def _check(learner: Learner, config: FitConfig, state: Any, data: Any, example: Batch, held_out: Batch | None) -> None:
    watches = config.plateau is not None or config.keeps_best
    expect(not watches or held_out is not None, "held_out", "rows, for plateau, early_stop or keep='best'", None)
    if config.plateau is not None:
        expect(hasattr(state, "lr_scale"), "state", "a field lr_scale, for config.plateau", type(state).__name__)
    classes = jax.eval_shape(learner.predict, state, example.x).shape[-1]
    if isinstance(data, Batch):
        check_integers("data.label", data.label, data.label.shape[0], 0, classes)
    if held_out is not None:
        check_batch(held_out, classes=classes, what="held_out")


def _made_by(key, learner, data, example, config, state, held_out, monitor) -> dict[str, Any]:
    """What fixes the bits of a run, as JSON, by the names that an error message uses.

    Of a learner that is what its functions close over, as far as it can be written down (numbers, names,
    configurations).
    """
    key_data = jax.random.key_data(key) if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else key
    step, closed = inspect.unwrap(learner.step), {}
    for function in map(inspect.unwrap, filter(None, (learner.init, learner.weights, step))):
        closed |= inspect.getclosurevars(function).nonlocals if inspect.isfunction(function) else {}
    return {
        "method": getattr(step, "__module__", type(step).__name__),
        "weights": getattr(inspect.unwrap(learner.weights), "__module__", "some") if learner.weights else None,
        **{name: entry for field in sorted(closed) for name, entry in _settings(f"method.{field}", closed[field])},
        **dict(_settings("config", config)),
        "key": np.asarray(key_data).tolist(),
        "data": fingerprint(data) if isinstance(data, Batch) else f"{len(data)} rows as {fingerprint(example)}",
        "initial state": fingerprint(state),
        "held_out": fingerprint(held_out),
        "monitor": monitor.name,
    }


def _settings(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Numbers, texts and the fields of configurations, as (name, JSON value); nothing for anything else."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field, entry in vars(value).items():
            yield from _settings(f"{name}.{field}", entry)
        return
    entries = value if isinstance(value, tuple) else (value,)
    if all(entry is None or isinstance(entry, int | float | str) for entry in entries):
        yield name, value
