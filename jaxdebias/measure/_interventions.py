"""Reliance shown by intervention: the attribute alone is changed, and predictions move toward its class.

This is the strongest evidence. It needs no labels and no assumption on how rows came about, but a *control change*:
any change of an input moves some predictions, and what the control moves toward the same class is subtracted.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, cast

import jax
import numpy as np

from jaxdebias.contracts import check_choice, check_integers, check_key, check_numbers, describe, expect, row_count
from jaxdebias.core import Key
from jaxdebias.measure._intervals import Interval, checked_level
from jaxdebias.measure._lean import ASSOCIATED, label_association
from jaxdebias.measure._reliance import Reliance, Rival, Rivals
from jaxdebias.measure._row_intervals import paired_change
from jaxdebias.measure._significance import ALPHA, LEAST_DISCORDANT, adjust_holm, numpy_generator

Evidence = Literal["twins", "flipped_column", "hidden_region", "pixel_edit"]
EVIDENCE: tuple[Evidence, ...] = ("twins", "flipped_column", "hidden_region", "pixel_edit")
LEAST_EFFECT = 0.01
"""Share of the rows that the lower limit must exceed."""
SOLE_CONTROL = 5
"""By what the level of the lean is divided where nothing else keeps harder samples from being called reliance."""


class Intervention(NamedTuple):
    """What changing one attribute alone did to the predictions."""

    evidence: Evidence
    """Kind of change."""
    moved: float
    """Share of rows whose prediction moved toward the associated class, minus that of rows that moved away from it."""
    moved_by_control: float
    """The same by the control change; 0 without one."""
    effect: Interval
    """Difference of the two, and its interval."""
    p: float
    """Of no difference, two-sided; not adjusted for other tests."""
    discordant: int
    """Rows (units) on which change and control differ."""
    controlled: bool = True
    """Whether changed samples that are only harder would show nothing; if not, mistakes must lean as well."""

    def shown(self, adjusted_p: float, alpha: float = ALPHA) -> bool:
        """Whether the change shows reliance, by its p value adjusted over all interventions."""
        enough = self.discordant >= LEAST_DISCORDANT and self.effect.low > LEAST_EFFECT
        return bool(enough and adjusted_p <= alpha)


def intervention_reliance(
    before: Any,
    after: Any,
    toward: Any,
    *,
    key: Key,
    control: Any = None,
    away: bool = False,
    evidence: str = "twins",
    unit: Any = None,
    weight: Any = None,
    level: float = 0.95,
) -> Intervention:
    """Compares how far a change of the attribute and a control change move predictions toward the associated class.

    Both changes start from the same rows, so the difference of the shares moved is that of two paired proportions: how
    often the associated class is predicted after the change, and after the control.

    Args:
      before: `[n]` predicted classes of the unchanged rows.
      after: `[n]` predicted classes after the change (the twin, the flipped column, the hidden region).
      toward: `[n]` the class associated with the value that the change brings in, or, with `away`, takes out; -1:
        there is none, and the row takes no part.
      key: randomness of the sign flips.
      control: `[n]` predicted classes after the control change, such as hiding another region of the same size; None:
        nothing is subtracted, and the result is not `controlled`.
      away: the change takes the value out (a hidden region), so reliance moves predictions away from the class.
      evidence: `twins`, `flipped_column`, `hidden_region` or `pixel_edit`.
      unit: `[n]` integers; None: every row is its own unit.
      weight: `[n]` weights of rows; 0 is padding.
      level: confidence level of the interval.

    >>> before, after = np.zeros(100, int), np.repeat([1, 0], [20, 80])
    >>> found = intervention_reliance(before, after, np.ones(100, int), key=jax.random.key(0))
    >>> found.moved, found.discordant, found.shown(found.p)
    (0.2, 20, True)
    """
    n = row_count("before", before)
    check_choice("evidence", evidence, EVIDENCE)
    kind = cast(Evidence, evidence)
    for name, value in (("before", before), ("after", after), ("control", before if control is None else control)):
        check_integers(name, value, n, 0, None)
    check_integers("toward", toward, n, -1, None)
    if unit is not None:
        check_integers("unit", unit, n, 0, None)
    if weight is not None:
        check_numbers("weight", weight, "n")
        expect(np.shape(weight) == (n,), "weight", f"[n={n}]", describe(np.asarray(weight)))
    toward = np.asarray(toward)
    start, changed = np.asarray(before) == toward, np.asarray(after) == toward
    controlled = start if control is None else np.asarray(control) == toward
    sign, group = -1.0 if away else 1.0, np.where(toward >= 0, 0, -1)
    if not (group == 0).any():
        return Intervention(kind, 0.0, 0.0, Interval(0.0, -1.0, 1.0, 0), 1.0, 0)
    change = paired_change(
        controlled.astype(int), changed.astype(int), group, [sign], key=key, unit=unit, weight=weight, level=level
    )
    counted = np.where(group == 0, 1.0 if weight is None else np.asarray(weight, np.float64), 0.0)

    def moved(now: np.ndarray) -> float:
        return sign * float((counted * (now.astype(float) - start)).sum() / max(counted.sum(), 1e-300))

    effect = Interval(change.value, change.low, change.high, change.n)
    p, discordant = float(change.p), int(change.discordant)
    return Intervention(kind, moved(changed), moved(controlled), effect, p, discordant, control is not None)


def flipped_column_reliance(
    predict: Callable[[Any], Any],
    table: Any,
    column: str,
    train_counts: Any,
    *,
    key: Key,
    names: Sequence[str] | None = None,
    values: Sequence[Any] | None = None,
    control: str | None = None,
    unit: Any = None,
    weight: Any = None,
    level: float = 0.95,
) -> Intervention:
    """Changes one column of a table and looks where a model's predictions go.

    Every row gets another value of the column, drawn at random among those associated with a class. The control is
    another column, shuffled over the rows; without one, the table as it is, predicted again (a model that answers
    differently each time moves, too).

    Args:
      predict: table -> `[n]` predicted classes.
      table: a pandas or polars frame, a mapping of columns, or an array `[n d]` with `names`.
      column: name of the column.
      train_counts: `[k a]` training rows per class and value, in the order of `values`.
      key: randomness of the new values, of the shuffling and of the sign flips.
      names: names of an array's columns.
      values: values of the column; by default the sorted ones that occur.
      control: name of the column that is shuffled as a control.
      unit: `[n]` integers; None: every row is its own unit.
      weight: `[n]` weights of rows; 0 is padding.
      level: confidence level of the interval.

    >>> table = {"sex": np.array([0, 1] * 50), "score": np.linspace(0, 1, 100)}
    >>> counts = np.array([[90, 10], [10, 90]])
    >>> found = flipped_column_reliance(lambda of: of["sex"], table, "sex", counts, key=jax.random.key(0))
    >>> found.moved, found.shown(found.p)
    (1.0, True)
    """
    check_key("key", key)
    old = _column(table, column, names)
    known = np.unique(old) if values is None else np.asarray(values)
    w = label_association(train_counts)
    expect(w.shape[1] == len(known), "train_counts", f"[k, a={len(known)}]", describe(np.asarray(train_counts)))
    usable = np.flatnonzero(w.max(0) > ASSOCIATED)
    expect(len(usable) > 0 and len(known) > 1, "train_counts", "a value associated with a class", "none")
    rng = numpy_generator(jax.random.fold_in(key, 0))
    is_known = old[:, None] == known[None]
    code = np.where(is_known.any(1), is_known.argmax(1), -1)
    new = other_values(rng, code, usable)
    toward = np.where((code >= 0) & (new != code), w.argmax(0)[new], -1)
    before = _predicted(predict, table, len(old))
    after = _predicted(predict, _with_column(table, column, known[new], names), len(old))
    shuffled = table
    if control is not None:
        expect(control != column, "control", "another column", repr(control))
        shuffled = _with_column(table, control, rng.permutation(_column(table, control, names)), names)
    other = _predicted(predict, shuffled, len(old))
    options: dict[str, Any] = {"unit": unit, "weight": weight, "level": level, "evidence": "flipped_column"}
    found = intervention_reliance(before, after, toward, key=jax.random.fold_in(key, 1), control=other, **options)
    return found._replace(controlled=control is not None)


def other_values(rng: np.random.Generator, own: np.ndarray, usable: np.ndarray) -> np.ndarray:
    """`[n]`, for each row one of the usable values drawn at random, but its own only where there is no other."""
    return usable[(rng.random((len(own), len(usable))) + (usable[None] == own[:, None])).argmin(1)]


def quote_interventions(
    found: Mapping[str, Reliance], interventions: Mapping[str, Sequence[Intervention]], *, level: float = 0.95
) -> dict[str, Reliance]:
    """The answers of `assess_reliance` with the strongest evidence: `shown` where an intervention shows reliance.

    p values are adjusted (Holm) over all interventions. An intervention that shows nothing leaves the answer as it is.
    One without a control (`Intervention.controlled`) shows reliance only where the mistakes on unchanged rows lean too:
    samples that are merely harder after the change give no such lean.

    Args:
      found: name -> answer from mistakes.
      interventions: name -> what was changed.
      level: one minus the level of the tests.
    """
    alpha = 1.0 - checked_level(level)
    strays = set(interventions) - set(found)
    expect(not strays, "interventions", f"names among {', '.join(found)}", ", ".join(map(str, strays)))
    every = [(name, one) for name, several in interventions.items() for one in several]
    adjusted: list[float] = adjust_holm([one.p for _, one in every]).tolist() if every else []
    best: dict[str, tuple[float, Intervention]] = {}
    for (name, one), p in zip(every, adjusted, strict=True):
        mistakes = found[name]
        leaning = mistakes.state in ("shown_given", "consistent") and (mistakes.p or 0.0) <= alpha / SOLE_CONTROL
        enough = one.controlled or leaning
        if enough and one.shown(p, alpha) and (name not in best or one.effect.low > best[name][1].effect.low):
            best[name] = p, one
    answers = dict(found)
    for name, (p, one) in best.items():
        excluded = Rivals(*[Rival("excluded", float(one.effect.low))] * 3)
        answers[name] = found[name]._replace(state="shown", evidence=one.evidence, p=p, rivals=excluded)
    return answers


def _predicted(predict: Callable[[Any], Any], table: Any, n: int) -> np.ndarray:
    predicted = np.asarray(predict(table))
    check_integers("predict(table)", predicted, n, 0, None)
    return predicted


def _column(table: Any, name: str, names: Sequence[str] | None) -> np.ndarray:
    """A column `[n]`; `names` are those of an array."""
    present = list(names) if names is not None else list(getattr(table, "columns", table))
    expect(name in present, "column", f"one of {', '.join(map(str, present))}", repr(name))
    return np.asarray(table)[:, present.index(name)] if names is not None else np.asarray(table[name])


def _with_column(table: Any, name: str, values: np.ndarray, names: Sequence[str] | None) -> Any:
    """A copy of the table with another column in its place."""
    if names is not None:
        copy = np.array(table)
        copy[:, list(names).index(name)] = values
        return copy
    if isinstance(table, Mapping):
        columns: dict[str, Any] = {**table, name: values}
        return columns
    import narwhals as nw

    frame = nw.from_native(table, eager_only=True)
    series = nw.new_series(name, values, backend=frame.implementation)
    return frame.with_columns(series).to_native()
