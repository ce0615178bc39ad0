"""How a method of a table is fitted to the cases of the table: one sweep, or a fit of its own."""

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdebias.batching import map_rows
from jaxdebias.core import Array, Batch, Learner
from jaxdebias.reproduce._cases import Case, Cases
from jaxdebias.train._run import FitConfig
from jaxdebias.train._schedule import (
    HELD_OUT_LOSS,
    Monitor,
)
from jaxdebias.train._sweep import map_runs, sweep
from jaxdebias.train.feed import View

Observe = Callable[[str], None]
Logits = Callable[[Any, Array], jax.Array]
"""(state, x) -> logits [n k]."""


class Fitted(NamedTuple):
    """A trained run of a method."""

    case: Case
    logits: dict[str, np.ndarray]
    """On the test rows `[10000 10]`: `""` what the method predicts; further networks of it by name."""
    seconds: float
    """Wall time of its training; of a portion of runs that trained together, an equal share."""
    said: dict[str, Any]
    """What else a table may want, as JSON values."""


Fit = Callable[[Cases, Observe], Iterator[Fitted]]


class Method(NamedTuple):
    """A row of the table."""

    labels: str
    """Which labels of the bias it needs."""
    selection: str
    """What chose the weights that are reported."""
    fit: Fit


def accuracies(logits: Mapping[str, np.ndarray], test: Batch) -> dict[str, float]:
    """Plain, bias-aligned and bias-conflicting accuracy of each network; of `""` without a prefix."""
    label, aligned = np.asarray(test.label), np.asarray(test.label) == np.asarray(test.attribute)
    rates = {}
    for name, values in logits.items():
        right, prefix = np.asarray(values).argmax(axis=1) == label, f"{name}_" if name else ""
        rates[f"{prefix}accuracy"] = float(right.mean())
        rates[f"{prefix}bias_aligned_accuracy"] = float(right[aligned].mean())
        rates[f"{prefix}bias_conflicting_accuracy"] = float(right[~aligned].mean())
    return rates


# --- how methods are trained


@dataclass(frozen=True, kw_only=True)
class Swept:
    """A `Fit`: one sweep over all cases whose learner is the same, which for most methods are all."""

    learner_of: Callable[[Case], Learner]
    config: FitConfig
    others: Mapping[str, Logits] = field(default_factory=dict)
    """Further networks to be measured on the test rows."""
    held_out: bool = False
    """Keep back a random tenth of the training rows, drawn by the seed."""
    monitor: Monitor = HELD_OUT_LOSS
    block: int | None = None
    """How many cases are in memory at a time; None: all."""

    def selected(self, monitor: Monitor) -> "Swept":
        """The same, with the epoch's weights that the monitor likes best on the tenth."""
        return replace(self, held_out=True, monitor=monitor, config=replace(self.config, keep="best"))

    def __call__(self, cases: Cases, observe: Observe) -> Iterator[Fitted]:
        for first in range(0, len(cases), self.block or max(1, len(cases))):
            some = [cases[i] for i in range(first, min(first + (self.block or len(cases)), len(cases)))]
            for learner, group in itertools.groupby(some, key=self.learner_of):
                yield from self._together(learner, list(group), cases, observe)

    def _together(self, learner: Learner, own: list[Case], cases: Cases, observe: Observe) -> Iterator[Fitted]:
        kept = [cases.tenth(case) if self.held_out else (case.train, None) for case in own]
        pictures = cases.pictures

        def look(runs: tuple[int, ...], epoch: int, means: Mapping[str, float]) -> None:
            which = ", ".join(f"{own[i].conflicting:.1%} seed {own[i].seed}" for i in runs[:3])
            observe(
                f"{which}{' ...' if len(runs) > 3 else ''}: epoch {epoch} of at most {self.config.epochs}, loss "
                f"{means['loss']:.4g}"
            )

        parts = sweep(
            [jax.random.key(case.seed) for case in own],
            learner,
            [train for train, _ in kept],
            self.config,
            held_out=[rest for _, rest in kept] if self.held_out else None,
            monitor=self.monitor,
            shared=pictures.shared,
            view=pictures.view,
            observe=look,
        )
        for part in parts:
            tests = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(own[i].test for i in part.runs))
            networks = {"": learner.predict, **self.others}
            logits = {
                name: np.asarray(_logits(part.state, tests, pictures.shared, of=of, view=pictures.view))
                for name, of in networks.items()
            }
            for place, i in enumerate(part.runs):
                yield Fitted(
                    own[i],
                    {name: values[place] for name, values in logits.items()},
                    part.seconds / len(part.runs),
                    {"epochs": int(part.epoch[place]), "best_epoch": int(part.best_epoch[place])},
                )


@functools.partial(jax.jit, static_argnames=("of", "view"))
def _logits(states: Any, tests: Batch, shared: Any, *, of: Logits, view: View | None) -> jax.Array:
    """`[r n k]` of each run on its own test rows."""

    def one(state: Any, test: Batch) -> jax.Array:
        def logits(both: Any, rows: Batch) -> jax.Array:
            return of(both[0], (rows if view is None else view(both[1], rows)).x)

        return map_rows(logits, (state, shared), test)

    return map_runs(one, states, tests)
