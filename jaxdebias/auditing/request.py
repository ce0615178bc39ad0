"""What is audited, and what is asked of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Shaped

from jaxdebias.auditing.assessment import Questions
from jaxdebias.auditing.candidates import Candidate, with_attribute
from jaxdebias.auditing.embedded import Embedded
from jaxdebias.contracts import (
    check_aligned,
    check_attribute_region,
    check_batch,
    check_choice,
    check_one_shape,
    expect,
)
from jaxdebias.core import Array, Classifier, Dataset, Key, Params, Split
from jaxdebias.explain._taps import Tap
from jaxdebias.measure import Intervention

PIXELS = ("auto", "maps", "patches", "both", "none")
ALL = Questions()
"""The questions with their defaults."""
JUDGES = ("aug-cell", "sih")


@dataclass(frozen=True, kw_only=True)
class AuditedModel:
    """A trained model and where it can be cut."""

    apply_fn: Callable[[Params, Array], jax.Array]
    """(params, x) -> logits [n k], evaluation mode."""
    params: Params
    split: Split | None = None
    """Cut before the last layer; None: no influence and no repairs."""
    spatial: Split | Tap | None = None
    """Cut at the layer of the maps; None: no maps."""
    head_path: tuple[str | int, ...] | None = None
    """Where the last layer lies in params; None: it is looked for."""
    classifier: Classifier | None = None
    """With which all layers can be trained; None: only the last one."""


@dataclass(frozen=True, kw_only=True)
class AuditData:
    """A data set and, where the model can be cut, the same data set in features."""

    dataset: Dataset
    embedded: Embedded | None = None

    @property
    def has_pictures(self) -> bool:
        return self.dataset.splits["test"].x.ndim == 4

    def with_attribute(self, name: str, candidate: Candidate, counts: np.ndarray | None = None) -> "AuditData":
        """Both views with a candidate as their attribute."""
        embedded = self.embedded
        if embedded is not None:
            embedded = embedded._replace(dataset=with_attribute(embedded.dataset, name, candidate, counts))
        return AuditData(dataset=with_attribute(self.dataset, name, candidate, counts), embedded=embedded)


class AuditKeys(NamedTuple):
    """One random key per purpose, in a fixed order: equal seeds give equal numbers."""

    candidates: Key
    cells: Key
    errors: Key
    measure: Key
    changes: Key
    advice: Key
    maps: Key
    patches: Key


@dataclass(frozen=True, kw_only=True)
class AuditRequest:
    """What is audited and what is asked; the fields are the arguments of `jaxdebias.audit`.

    Raises:
      ContractError: malformed data, unknown choices, or both a model and predictions, or neither.
    """

    dataset: Dataset
    model: AuditedModel | None
    """None with `predictions`."""
    predictions: Shaped[Array, "n *k"] | None = None
    """On the test split, classes or logits."""
    probabilities: Shaped[Array, "n k"] | None = None
    """On the test split, of the classes, beside predicted classes."""
    candidates: Mapping[str, Candidate | Mapping[str, Any]] | None = None
    questions: Questions = ALL
    interventions: Mapping[str, Sequence[Intervention]] | None = None
    """Name of an attribute -> what changes of it did that were made elsewhere."""
    pixels: str = "auto"
    discover: bool | None = None
    judges: str = "aug-cell"
    fix: bool = False
    seed: int = 0
    batch_size: int = 256

    def __post_init__(self):
        check_choice("pixels", self.pixels, PIXELS)
        check_choice("judges", self.judges, JUDGES)
        _check_dataset(self.dataset)
        expect(
            (self.model is None) == (self.predictions is not None),
            "audit",
            "a model with its params, or predicted",
            "both" if self.model is not None else "neither",
        )

    @property
    def keys(self) -> AuditKeys:
        return AuditKeys(*jax.random.split(jax.random.key(self.seed), len(AuditKeys._fields)))


def _check_dataset(dataset: Dataset) -> None:
    """As `contracts.check_dataset`, but without a training split, which an audit can do without."""
    k, a = len(dataset.label_names), len(dataset.attribute_names)
    expect("test" in dataset.splits, "splits", "a split named test", ", ".join(dataset.splits) or "none")
    check_aligned(dataset.aligned, k, a)
    for name, batch in [*dataset.splits.items(), *dataset.pairs.items()]:
        check_batch(batch, classes=k, attributes=a, what=name)
    check_one_shape(dataset)
    check_attribute_region(dataset)
