"""Three questions about each attribute of a test set: served differently, relied on, associated in training?

    found = assess(key, logits, dataset, candidates, questions)
    found.disparity, found.reliance, found.association

Each is answered on its own. Nothing about reliance follows from a disparity, and only the association needs training
counts: where they are unknown it is unknown.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Shaped

from jaxdebias.auditing.candidates import Candidate, counted, counts_of
from jaxdebias.auditing.verdict import by_evidence, overall_disparity, overall_reliance
from jaxdebias.contracts import check_choice, expect
from jaxdebias.core import Array, Dataset, Key
from jaxdebias.measure import (
    Association,
    AttributeDisparity,
    Intervention,
    Reliance,
    assess_association,
    assess_disparity,
    assess_reliance,
    quote_interventions,
)
from jaxdebias.measure._disparity_entries import JOINED
from jaxdebias.measure._reliance import DRAWN


@dataclass(frozen=True, kw_only=True)
class Questions:
    """What counts as a disparity, and what is known about the test set."""

    tolerance: float = 0.05
    """Largest gap that is tolerated, as a fraction."""
    min_group: int = 30
    """Fewest units of a group that takes part."""
    slices: int = 2
    """How many attributes form groups together, at most: 1, 2 or 3."""
    drawn: str = "unknown"
    """How the test set came about: assigned, as_they_come, picked or unknown."""
    given: Mapping[str, Any] | None = None
    """Name -> `[n]` legitimate inputs of the test rows, numbers or categories."""
    train_counts: Mapping[str, Any] | None = None
    """Name of an attribute -> `[k a]` training rows by class and value, where they are known without training rows."""
    wrong_labels: bool | None = None
    """Whether labels of one value are suspected to be wrong in one direction; None: nobody looked."""

    def __post_init__(self):
        check_choice("drawn", self.drawn, DRAWN)
        expect(0 <= self.tolerance < 1, "tolerance", "a fraction in 0..1", self.tolerance)
        expect(self.min_group >= 1, "min_group", "at least 1", self.min_group)
        expect(self.slices in (1, 2, 3), "slices", "1, 2 or 3", self.slices)

    def of_rows(self, take: Callable[[Any], Any]) -> "Questions":
        """The same with rows of the legitimate inputs taken."""
        given = None if self.given is None else {name: take(values) for name, values in self.given.items()}
        return dataclasses.replace(self, given=given)


class Assessment(NamedTuple):
    """The three answers, before any advice."""

    disparity: tuple[AttributeDisparity, ...]
    """Worst first."""
    reliance: tuple[Reliance, ...]
    """One per attribute, the strongest evidence first."""
    association: tuple[Association, ...]
    """One per attribute."""

    @property
    def relies(self) -> bool:
        """Whether reliance on an attribute is shown."""
        return overall_reliance(self.reliance) in ("shown", "shown_given")

    @property
    def leans(self) -> bool:
        """Whether reliance is shown, or is consistent with the mistakes."""
        return any(one.state in ("shown", "shown_given", "consistent") for one in self.reliance)

    @property
    def exceeds(self) -> bool:
        """Whether groups are served differently, beyond the tolerance."""
        return overall_disparity(self.disparity) == "exceeds"

    @property
    def focus(self) -> str | None:
        """The attribute that the finding is about; None without attributes.

        The one that is relied on; else that of the worst disparity; else the one with the strongest evidence.
        """
        if not self.relies:
            worst = [entry for entry in self.disparity if entry.decides and entry.state == "exceeds"]
            single = [entry.attribute for entry in worst if JOINED not in entry.attribute]
            if single or worst:
                return single[0] if single else worst[0].attribute.split(JOINED)[0]
        return self.reliance[0].attribute if self.reliance else None


def assess(
    key: Key,
    predicted: Shaped[Array, "n *k"],
    dataset: Dataset,
    candidates: Mapping[str, Candidate],
    questions: Questions = Questions(),
    *,
    probabilities: Float[Array, "n k"] | None = None,
    interventions: Mapping[str, Sequence[Intervention]] | None = None,
    level: float = 0.95,
) -> Assessment:
    """Answers the three questions for every candidate, from predictions on the test split.

    Args:
      key: randomness of permutations.
      predicted: on the test split, classes `[n]` int or logits `[n k]` float.
      dataset: the data set.
      candidates: name -> values of an attribute, known on the test split.
      questions: tolerance, smallest groups, and what is known about the test set.
      probabilities: `[n k]`, of the classes.
      interventions: name -> what changing the attribute alone did.
      level: confidence level; tests are at 1 - level.
    """
    if not candidates:
        return Assessment((), (), ())
    key_disparity, key_reliance = jax.random.split(key)
    test, classes = dataset.splits["test"], len(dataset.label_names)
    values = {name: counted(test, candidate.values["test"]) for name, candidate in candidates.items()}
    unit = None if test.unit is None else np.asarray(test.unit)
    weight = None if test.weight is None else np.asarray(test.weight)
    counts = training_counts(dataset, candidates, questions)
    disparity = assess_disparity(
        predicted,
        np.asarray(test.label),
        values,
        key=key_disparity,
        names={name: candidate.names for name, candidate in candidates.items()},
        classes=classes,
        probabilities=probabilities,
        unit=unit,
        weight=weight,
        tolerance=questions.tolerance,
        min_group=questions.min_group,
        slices=questions.slices,
        level=level,
    )
    reliance = assess_reliance(
        predicted,
        np.asarray(test.label),
        values,
        {name: count for name, count in counts.items() if count.any()},
        probabilities,
        questions.drawn,
        None if not questions.given else dict(questions.given),
        key=key_reliance,
        wrong_labels=questions.wrong_labels,
        unit=unit,
        weight=weight,
        classes=classes,
        min_group=questions.min_group,
        level=level,
    )
    reliance = quote_interventions(reliance, dict(interventions or {}), level=level)
    return Assessment(
        disparity,
        tuple(sorted(reliance.values(), key=by_evidence)),
        tuple(assess_association(name, counts[name], level=level) for name in candidates),
    )


def training_counts(
    dataset: Dataset, candidates: Mapping[str, Candidate], questions: Questions = Questions()
) -> dict[str, np.ndarray]:
    """Name -> `[k a]` training rows by class and value: those given, else those of the train split; 0 where unknown."""
    given = dict(questions.train_counts or {})
    strays = set(given) - set(candidates)
    expect(not strays, "train_counts", f"names among {', '.join(candidates)}", ", ".join(map(str, sorted(strays))))
    found = {}
    for name, candidate in candidates.items():
        counts = np.asarray(given[name]) if name in given else counts_of(dataset, candidate)
        shape = (len(dataset.label_names), len(candidate.names))
        expect(counts.shape == shape, f"train_counts[{name!r}]", f"[k={shape[0]}, a={shape[1]}]", list(counts.shape))
        found[name] = counts
    return found
