"""Do decisions depend on an attribute? Graded by evidence, from a table of predictions, labels and values.

The strongest evidence changes the attribute alone (`_interventions`). A table of predictions can show less than one
thinks: any table fits a model that reads only a legitimate cause whose distribution differs between the values. So a
lean of the mistakes is where the questions begin, and it is called reliance only if how the test set came about, and
tests on several sides, exclude what else makes mistakes lean.
"""

import itertools
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, overload

import jax
import numpy as np

from jaxdebias.contracts import check_choice, check_key
from jaxdebias.core import Key
from jaxdebias.measure._copies import are_copies, explained_by
from jaxdebias.measure._exchange import ExchangeTest
from jaxdebias.measure._given import given_strata
from jaxdebias.measure._intervals import Interval, checked_level
from jaxdebias.measure._lean import (
    EVEN,
    detectable_lean,
    largest_share,
    lean_interval,
    lean_test,
    sided_lean_p,
)
from jaxdebias.measure._reliance_inputs import Candidate, checked_counts, checked_rows, make_candidate
from jaxdebias.measure._reversed import reversed_sides_p
from jaxdebias.measure._significance import adjust_holm

Drawn = Literal["assigned", "as_they_come", "picked", "unknown"]
DRAWN: tuple[Drawn, ...] = ("assigned", "as_they_come", "picked", "unknown")
SMALL_LEAN = 0.10
"""A test set that would not show a lean of this size cannot tell."""
MIN_GROUP = 30
"""Units that a value needs to be compared; an attribute needs two such values."""
ALONE = "attribute"
"""Name of an attribute that comes without one."""


class Rival(NamedTuple):
    """Another explanation of mistakes that lean."""

    state: Literal["excluded", "open", "not_checked"]
    """Whether the data, or how they were drawn, exclude it."""
    figure: float | None
    """The number that decided; None where none did."""


class Rivals(NamedTuple):
    """The three rivals of reliance."""

    base_rates: Rival
    """Labels are differently frequent, and the model uses that as a calibrated model would. Figure: p of the test."""
    label_noise: Rival
    """Labels of one value are wrong in one direction. Figure: 1 if suspected, 0 if looked for and not found."""
    fallback: Rival
    """A class that the model predicts when it does not know. Figure: the largest training share in units of 1/k."""


UNCHECKED = Rivals(*[Rival("not_checked", None)] * 3)


class Reliance(NamedTuple):
    """What is known about one attribute, on the strongest evidence."""

    attribute: str
    """Name of the attribute."""
    state: Literal["shown", "shown_given", "consistent", "no_sign", "cannot_tell"]
    """Grade of the evidence."""
    drawn: Drawn
    """How the test set came about."""
    evidence: str
    """`twins`, `flipped_column`, `hidden_region`, `pixel_edit`, `given:COLUMNS` or `mistakes`."""
    lean: Interval | None
    """Accuracy where attribute and label are associated minus accuracy elsewhere; None where it is not defined."""
    p: float | None
    """Holm-adjusted p of the evidence; None where no test was made."""
    mistakes: int
    """Mistakes in the rows whose value is known."""
    detectable: float | None
    """Smallest lean that 80 % of such test sets would show; None where no test was made."""
    copies: tuple[str, ...]
    """Attributes that agree with this one: one finding. Where the state is `no_sign`: the one that explains it."""
    rivals: Rivals
    """Other explanations, and whether they are excluded."""


@overload
def assess_reliance(
    predicted: Any, label: Any, values: Mapping[str, Any], *args: Any, **options: Any
) -> dict[str, Reliance]: ...
@overload
def assess_reliance(predicted: Any, label: Any, values: np.ndarray, *args: Any, **options: Any) -> Reliance: ...


def assess_reliance(
    predicted: Any,
    label: Any,
    values: Any,
    train_counts: Any = None,
    probabilities: Any = None,
    drawn: str = "unknown",
    given: Mapping[str, Any] | None = None,
    *,
    key: Key,
    wrong_labels: bool | None = None,
    unit: Any = None,
    weight: Any = None,
    classes: int | None = None,
    min_group: int = MIN_GROUP,
    level: float = 0.95,
) -> Any:
    """Grades the evidence that predictions depend on attributes, from their mistakes.

    1. Mistakes lean: T = sum of w[predicted, value] within labels, Holm over the attributes. If not: `no_sign`, or
       `cannot_tell` if a lean of 10 points would not have been found either.
    2. Attributes that only accompany another one that leans are explained by it.
    3. With `given`: if it leans on all sides among rows that agree in these columns, `shown_given`.
    4. `drawn="assigned"`: if it leans on all sides, `shown_given`. `drawn="as_they_come"`: if the model leans further
       than its own scores allow, `shown_given`. Otherwise `consistent`. Without probabilities, 3 and 4 show nothing if
       there is a class to fall back on.
    5. Where labels are suspected to be wrong, a lean is `consistent`.

    Args:
      predicted: `[n]` predicted classes, or `[n k]` logits or probabilities, on rows that were not trained on.
      label: `[n]` true classes.
      values: name -> `[n]` values of an attribute from 0, -1 unknown; or one such array.
      train_counts: name -> `[k a]` training rows per class and value; or one such array. Where they are missing, the
        rows' own association gives the direction, if it is significant.
      probabilities: `[n k]` predicted probabilities.
      drawn: how the rows came about: `assigned` (values were given to rows independently of their content),
        `as_they_come` (a plain sample), `picked` (selected by label and value), `unknown`.
      given: name -> `[n]` legitimate inputs, numbers or categories.
      key: randomness of permutations.
      wrong_labels: whether labels of one value are suspected to be wrong; None: nobody looked.
      unit: `[n]` integers, rows of one unit are not independent; None: every row is its own unit.
      weight: `[n]` weights of rows; 0 is padding. Other weights enter the size of the lean only.
      classes: k; by default from probabilities or counts, or one more than the largest label or prediction.
      min_group: units that a value needs; an attribute with fewer than two such values is `cannot_tell`.
      level: one minus the level of the tests; also that of the lean's interval.

    Returns:
      name -> Reliance in the order given; for one array, one Reliance.

    Raises:
      ContractError: wrong shapes or values, an unknown `drawn`, counts that do not fit the attribute.

    >>> label, colour = np.array([0, 1] * 200), np.array([0, 0, 1, 1] * 100)
    >>> counts = np.array([[90, 10], [10, 90]])
    >>> predicted = np.where(np.arange(400) % 5 < 2, colour, label)
    >>> assess_reliance(predicted, label, colour, counts, key=jax.random.key(0)).state
    'consistent'
    >>> assess_reliance(predicted, label, colour, counts, drawn="assigned", key=jax.random.key(0)).state
    'shown_given'
    >>> assess_reliance(label, label, colour, counts, key=jax.random.key(0)).state
    'no_sign'
    """
    if not isinstance(values, Mapping):
        counts = None if train_counts is None else {ALONE: train_counts}
        options = {"wrong_labels": wrong_labels, "unit": unit, "weight": weight, "classes": classes}
        options |= {"min_group": min_group, "level": level}
        alone = {ALONE: values}
        return assess_reliance(predicted, label, alone, counts, probabilities, drawn, given, key=key, **options)[ALONE]
    check_key("key", key)
    check_choice("drawn", drawn, DRAWN)
    alpha = 1.0 - checked_level(level)
    counts = train_counts or {}
    classes = checked_counts(counts, values, classes)
    rows, classes = checked_rows(predicted, label, probabilities, unit, weight, classes)
    candidates = {
        name: make_candidate(
            name, value, rows, classes, counts.get(name), min_group, alpha, jax.random.fold_in(key, number)
        )
        for number, (name, value) in enumerate(values.items())
    }
    tests, p = _lean_tests(candidates, alpha)
    leaning = sorted((name for name in p if p[name] <= alpha), key=lambda name: (tests[name].p, -tests[name].z))
    same = _copies(candidates)
    conditional = _conditional_p(candidates, leaning, same, alpha)
    explained = explained_by(leaning, conditional, same, alpha)
    columns = None
    if given is not None:
        answer = np.eye(classes)[rows.predicted] if rows.probabilities is None else rows.probabilities
        columns = ",".join(given), given_strata(rows.label, answer, given)

    found: dict[str, Reliance] = {}
    for name in [*leaning, *(name for name in values if name not in leaning)]:
        candidate, leads = candidates[name], [other for other in same[name] if other in found and other in leaning]
        answer = _described(candidate, tests.get(name), p.get(name), drawn, alpha / max(len(p), 1), level)
        if leads:  # one finding, both names: that of the copy that leans most
            shared = ("state", "evidence", "p", "rivals")
            answer = answer._replace(copies=same[name], **{field: getattr(found[leads[0]], field) for field in shared})
        elif name in explained:
            behind = explained[name]
            answer = answer._replace(state="no_sign", p=conditional[name, behind], copies=(behind,))
        elif name in leaning:
            answer = _graded(answer, candidate, columns, wrong_labels, alpha)._replace(copies=same[name])
        found[name] = answer
    return {name: found[name] for name in values}


def _lean_tests(candidates: Mapping[str, Candidate], alpha: float) -> tuple[dict[str, ExchangeTest], dict[str, float]]:
    """(tests, Holm-adjusted p) of the lean of every attribute that has a direction."""
    tested = [candidate for candidate in candidates.values() if candidate.w is not None]
    tests = {
        one.name: lean_test(one.rows, one.w, key=jax.random.fold_in(one.key, 0), resolve=alpha / len(tested))
        for one in tested
    }
    adjusted = adjust_holm([test.p for test in tests.values()]).tolist() if tests else []
    return tests, dict(zip(tests, adjusted, strict=True))


def _copies(candidates: Mapping[str, Candidate]) -> dict[str, tuple[str, ...]]:
    """Attributes that agree with each one on at least 90 % of the rows."""
    same: dict[str, list[str]] = {name: [] for name in candidates}
    for first, second in itertools.combinations(candidates, 2):
        if are_copies(candidates[first].value, candidates[second].value):
            same[first].append(second)
            same[second].append(first)
    return {name: tuple(others) for name, others in same.items()}


def _conditional_p(
    candidates: Mapping[str, Candidate], leaning: list[str], same: Mapping[str, tuple[str, ...]], alpha: float
) -> dict[tuple[str, str], float]:
    """(name, given) -> p of the lean within labels and values of another attribute that leans; Holm over all of them.

    An attribute that follows another one by chance would pass one such test in twenty; hence Holm.
    """
    pairs = [pair for pair in itertools.permutations(leaning, 2) if pair[1] not in same[pair[0]]]
    p = []
    for number, (name, given) in enumerate(pairs):
        candidate = candidates[name]
        other = candidates[given].value[candidate.value >= 0]
        key = jax.random.fold_in(jax.random.fold_in(candidate.key, 1), number)
        rows, resolve = candidate.rows.among(other >= 0), alpha / len(pairs)
        p.append(lean_test(rows, candidate.w, key=key, stratum=other[other >= 0], resolve=resolve).p)
    return dict(zip(pairs, adjust_holm(p).tolist(), strict=True)) if pairs else {}


def _described(
    candidate: Candidate, test: ExchangeTest | None, p: float | None, drawn: str, alpha: float, level: float
) -> Reliance:
    """Sizes, p, and the state of an attribute whose mistakes do not lean."""
    rows, w = candidate.rows, candidate.w
    lean, detectable, state = None, None, candidate.state
    if w is not None:
        lean = lean_interval(rows, w, level=level)
        detectable = detectable_lean(rows, w, alpha=alpha, design_effect=test.design_effect)
        state = "no_sign" if detectable <= SMALL_LEAN else "cannot_tell"
    mistakes = int((rows.predicted != rows.label).sum())
    return Reliance(candidate.name, state, drawn, "mistakes", lean, p, mistakes, detectable, (), UNCHECKED)


def _graded(
    answer: Reliance,
    candidate: Candidate,
    columns: tuple[str, np.ndarray] | None,
    wrong_labels: bool | None,
    alpha: float,
) -> Reliance:
    """What a lean shows: beyond the columns given, or else by how the rows came about."""
    rows, w, present = candidate.rows, candidate.w, candidate.present
    keys = [jax.random.fold_in(candidate.key, number) for number in (2, 3, 4)]
    share = largest_share(candidate.counts)
    fallback = share > EVEN
    p, passed, evidence = None, False, "mistakes"
    if columns is not None:
        names, stratum = columns
        p = sided_lean_p(rows, w, present, key=keys[0], stratum=stratum[candidate.value >= 0])
        passed = p <= alpha and not (fallback and rows.probabilities is None)
        evidence = f"given:{names}" if passed else "mistakes"
    if not passed and answer.drawn in ("assigned", "as_they_come"):
        if answer.drawn == "assigned":
            p = sided_lean_p(rows, w, present, key=keys[1])
        else:
            p = reversed_sides_p(rows, w, present, fallback=fallback, key=keys[2])
        passed = p <= alpha and not (fallback and rows.probabilities is None)
    decided = p is not None and p <= alpha
    rivals = Rivals(
        base_rates=Rival("excluded" if decided else "open", p),
        label_noise=UNCHECKED.label_noise
        if wrong_labels is None
        else Rival("open" if wrong_labels else "excluded", float(wrong_labels)),
        fallback=Rival("excluded" if passed or not fallback else "open", share),
    )
    state = "shown_given" if passed and not wrong_labels else "consistent"
    return answer._replace(state=state, evidence=evidence, rivals=rivals)
