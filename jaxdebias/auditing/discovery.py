"""Suspicions without any attribute: bias cells that easy features give away, and groups with many mistakes.

Neither is proof. Bias cells (`explain.cells`) say what class a sample looks like to judges who have seen little of the
data: where the model's mistakes follow them, something easy may be a shortcut. The judges are networks that see shapes
badly (`augmented_judges`), or, where the shortcut may itself be a shape, the biased branch of SiH, which relies on what
is learned first (`sih_judges`). Groups with many mistakes are found among one half of the test samples and counted on
the other. Both end in pictures for a person to look at, who may see what it is; a name and a column then make a test of
it (`auditing.candidates`).
"""

import functools
from collections.abc import Mapping
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int

from jaxdebias.auditing.candidates import Candidate, counted, counts_of
from jaxdebias.contracts import expect
from jaxdebias.core import Array, Batch, Classifier, Dataset, Key, Learner
from jaxdebias.explain._cells import PLAIN, Cells, CellsConfig, find_cells, plain_from
from jaxdebias.measure._intervals import Interval, proportion_interval
from jaxdebias.measure._reliance import assess_reliance
from jaxdebias.measure._significance import adjust_holm
from jaxdebias.mitigate._gce import gce
from jaxdebias.mitigate._sih import SihConfig, SihState, sih
from jaxdebias.models._vae import Branches
from jaxdebias.train._augment import Augment, random_affine
from jaxdebias.train._optimizer import Optimizer

CELLS = "unnamed feature"
"""What a candidate is called that is made of bias cells."""
LEAST = 30
"""Samples of a group, in each half, below which it is not looked at."""
CLUSTERS, DIMENSIONS = 4, 8
"""Groups per label, and principal components of the features in which they are sought."""


class SearchPower(NamedTuple):
    """How often a search without attributes suspects something where a cue was planted."""

    pictures: str
    """Kind of pictures."""
    found: int
    """Sets in which something was suspected."""
    planted: int
    """Sets with a planted cue that the model relied on."""


POWER: Mapping[str, tuple[SearchPower, ...]] = {
    "aug-cell": (SearchPower("generated pictures", 11, 14), SearchPower("photographs", 15, 49)),
    "sih": (SearchPower("generated pictures", 9, 14), SearchPower("photographs", 8, 49)),
}
"""By judges. Generated pictures: `benchmarks/results/audit_networks.json` (of 14 clean sets, 0 and 1 were suspected).
Photographs: 49 sets of pairs of CIFAR-10 classes, UTKFace, FER2013 and composites, 32 to 64 pixels, 2,000 for training,
13 kinds of cue (of 27 clean sets, 0 and 1 were suspected); measured once, not yet a committed benchmark."""


class Judges(NamedTuple):
    """Who guesses what a sample shows, from pictures and labels alone."""

    learner: Learner
    """Its `predict` is the guess."""
    config: CellsConfig
    hesitation: float
    """Confidence above chance in the samples which contradict their label, as a share of that in the others: judges
    below see samples that are hard rather than a feature that is plain, and then there is nothing to suspect."""
    followed: float
    """Of test samples whose guess is not their label, the model has to take at least this share for the guess."""


def augmented_judges(
    classifier: Classifier, config: CellsConfig = CellsConfig(), *, augment: Augment | None = None
) -> Judges:
    """Builds the judges of AUG-CELL: networks that see shapes badly and hold on to what is easy.

    Args:
      classifier: a small one: `models.mlp`, or a `models.cnn` for pictures that need it.
      config: settings of their training.
      augment: a view of the pictures that breaks the true feature and leaves the suspected one; None: turning,
        stretching and shifting, `train.random_affine()`.
    """
    view = random_affine() if augment is None else augment
    return Judges(gce(classifier, optimizer=config.optimizer, augment=view), config, hesitation=PLAIN, followed=0.0)


def sih_judges(branches: Branches, classes: int, config: CellsConfig = CellsConfig(steps=400, batch_size=64)) -> Judges:
    """Builds judges from the biased branch of SiH, trained only as long as it takes to learn what is learned first.

    It sees whole pictures, so that also a shape can be a shortcut to it; but nothing keeps it from the true feature.
    Its guesses about a shortcut that is not much easier than the label are worse than those of `augmented_judges`, and
    it finds the same samples hard as the model does. Two bounds, both chosen on generated sets, guard against that: the
    model has to take at least a fifth of the samples that contradict their label for the guess, and with few classes,
    where every mistake agrees with the guess, the branch has to be nearly as confident as elsewhere. How often that is
    right: `benchmarks/reproduce/audit_networks.py`. The settings are greedier and reconstruct less than the paper's,
    because the signal branch is not needed here.

    Args:
      branches: `models.mlp_vae` or `models.resnet_vae`, for so many classes.
      classes: number of classes k.
      config: settings of their training.
    """
    return Judges(_biased_learner(branches), config, hesitation=0.9 if classes < 5 else 0.5, followed=0.2)


@functools.cache
def _biased_learner(branches: Branches) -> Learner:
    """SiH that predicts by its biased branch; the same object for the same networks, so that nothing compiles twice."""

    def predict(state: SihState, x: Array) -> jax.Array:
        return branches.bias.apply(state.variables, x)

    config = SihConfig(q=0.9, gamma=0.7, reconstruction_weight=10.0)
    return sih(branches, config, Optimizer(learning_rate=1e-3))._replace(predict=predict)


class Guesses(NamedTuple):
    """What the judges say of the samples."""

    candidate: Candidate
    """Guesses on every split, -1 where the judges hesitate."""
    flagged_share: float
    """Of the training samples, the share whose guess is not their label."""
    confidence: tuple[float, float]
    """Mean over flagged training samples, and over the others."""
    followed: Interval
    """Of the test samples whose guess is not their label, the share that the model takes for the guess."""
    plain: bool
    """The judges have learned, flagging less than half of what guessing at random would, and are nearly as sure of
    flagged samples as of the others: what they go by is plain to see. And the model follows it, as far as these judges
    ask for that."""
    typical: Int[np.ndarray, " m"]
    """Rows of the training set: of each label, the flagged samples of which the judges are surest."""


class ErrorGroup(NamedTuple):
    """Test samples of one label that lie together in the model's features and on which it is often wrong."""

    label: int
    error: Interval
    """Share of mistakes among them, counted on the half of the test samples that did not find the group."""
    others: Interval
    """Share of mistakes among all others of the label, on the same half."""
    p_value: float
    """Of the difference, one-sided, adjusted over all groups (Holm)."""
    mistaken_for: int
    """The class that the wrong ones are most often taken for."""
    typical: Int[np.ndarray, " m"]
    """Rows of the test split: mistakes nearest to the middle of the group."""


def guess_cells(
    key: Key, dataset: Dataset, judges: Judges, predicted: Int[Array, " m"], *, typical: int = 2
) -> Guesses:
    """Bias cells of every split, as a candidate attribute.

    Args:
      key: random key.
      dataset: x and label of train are learned from, the rest is only predicted; attributes are not looked at.
      judges: who judges the pictures.
      predicted: classes, by the model that is audited, of the test split.
      typical: so many samples of each label to show.
    """
    train = dataset.splits["train"]
    expect(train.x.ndim == 4, "train.x", "pictures [n h w c]", f"{train.x.ndim} dimensions")
    k, n = len(dataset.label_names), len(train.label)
    # All splits at once: the rows of weight 0 are predicted by all judges and learned by none.
    names = ["train", *(name for name in dataset.splits if name != "train")]
    batches = [dataset.splits[name] for name in names]
    ends = np.cumsum([len(batch.label) for batch in batches])
    weight = (np.arange(ends[-1]) < n).astype(np.float32)
    rows = Batch(
        x=np.concatenate([batch.x for batch in batches]),
        label=np.concatenate([batch.label for batch in batches]).astype(np.int32),
        attribute=np.full(ends[-1], -1, np.int32),
        weight=weight,
    )
    cells = find_cells(key, judges.learner, rows, judges.config)
    of_train = Cells(
        cells.guess[:n],
        cells.probability[:n],
        cells.fold[:, :n],
        np.array([[np.count_nonzero((train.label == y) & (cells.guess[:n] == s)) for s in range(k)] for y in range(k)]),
    )
    flagged, other = of_train.confidence(train.label)
    sure = cells.probability.max(axis=1)
    least = plain_from(other, k, judges.hesitation)
    known = np.where(sure >= least, cells.guess, -1).astype(np.int32)
    values = dict(zip(names, np.split(known, ends[:-1]), strict=True))
    contrary = (values["test"] >= 0) & (values["test"] != np.asarray(dataset.splits["test"].label))
    count = int(np.count_nonzero(contrary))
    taken = np.count_nonzero(np.asarray(predicted)[contrary] == values["test"][contrary])
    followed = proportion_interval(taken, count)
    wrong = np.flatnonzero(of_train.guess != np.asarray(train.label))
    wrong = wrong[np.argsort(-sure[wrong], kind="stable")]
    shown = [wrong[np.asarray(train.label)[wrong] == y][:typical] for y in range(k)]
    learned = of_train.flagged_share < 0.5 * (1 - 1 / k)
    plain = learned and flagged >= least and followed.low >= judges.followed
    return Guesses(
        Candidate(values, tuple(f"looks like {name}" for name in dataset.label_names)),
        of_train.flagged_share,
        (flagged, other),
        followed,
        bool(plain),
        np.concatenate(shown),
    )


def error_groups(
    key: Key,
    z: Float[Array, "n d"],
    predicted: Int[Array, " n"],
    label: Int[Array, " n"],
    *,
    unit: Int[Array, " n"] | None = None,
    level: float = 0.95,
    typical: int = 8,
) -> list[ErrorGroup]:
    """Groups of test samples on which the model is worse than on the rest of their label; the worst first.

    Each label's samples of one half are gathered into at most `CLUSTERS` groups by k-means in `DIMENSIONS` principal
    components of their features; the other half says how often the model is wrong in each.

    Args:
      key: random key.
      z: features before the last layer.
      predicted: `[n]` int, predicted classes.
      label: `[n]` int, 0..k-1.
      unit: samples of one unit are kept on one side.
      level: one minus the chance of naming any group where none is worse.
      typical: samples to show of each group.
    """
    from scipy.cluster import vq  # a second to import, which only whoever asks should wait for
    from scipy.stats import fisher_exact

    z, predicted, label = np.asarray(z, np.float64), np.asarray(predicted), np.asarray(label)
    n = len(label)
    unit = np.arange(n) if unit is None else np.asarray(unit)
    key_half, key_means = jax.random.split(key)
    finds = (np.asarray(jax.random.permutation(key_half, int(unit.max(initial=0)) + 1)) % 2 == 0)[unit]
    seed = int(jax.random.randint(key_means, (), 0, 2**31 - 1))
    wrong, groups = predicted != label, []
    for y in np.unique(label):
        rows = np.flatnonzero(label == y)
        if min(np.count_nonzero(finds[rows]), np.count_nonzero(~finds[rows])) < 2 * LEAST:
            continue
        where = _components(z[rows], finds[rows])
        centres, _ = vq.kmeans2(where[finds[rows]], CLUSTERS, minit="++", rng=seed)
        cluster, distance = vq.vq(where, centres)
        for c in range(len(centres)):
            inside, counts_here = cluster == c, ~finds[rows]
            if (
                min(
                    np.count_nonzero(inside & counts_here),
                    np.count_nonzero(inside & ~counts_here),
                    np.count_nonzero(~inside & counts_here),
                )
                < LEAST
            ):
                continue
            table = np.array(
                [
                    [np.count_nonzero(side[part & counts_here]) for side in (wrong[rows], ~wrong[rows])]
                    for part in (inside, ~inside)
                ]
            )
            p = fisher_exact(table, alternative="greater").pvalue  # pyright: ignore[reportAttributeAccessIssue]
            mistakes = np.flatnonzero(inside & wrong[rows])
            if not len(mistakes):
                continue
            nearest = rows[mistakes[np.argsort(distance[mistakes], kind="stable")]][:typical]
            error, others = (
                proportion_interval(*counts)._replace(n=int(counts[1]))
                for counts in ((table[0, 0], table[0].sum()), (table[1, 0], table[1].sum()))
            )
            taken_for = int(np.bincount(predicted[rows[mistakes]]).argmax())
            groups.append(ErrorGroup(int(y), error, others, float(p), taken_for, nearest))
    adjusted = adjust_holm([group.p_value for group in groups]) if groups else []
    groups = [group._replace(p_value=float(p)) for group, p in zip(groups, adjusted, strict=True)]
    return sorted(
        (group for group in groups if group.p_value < 1 - level),
        key=lambda group: group.others.value - group.error.value,
    )


def _components(z: np.ndarray, fitted: np.ndarray) -> np.ndarray:
    """Principal components, of the `fitted` rows."""
    centred = z - z[fitted].mean(0)
    _, _, axes = np.linalg.svd(centred[fitted], full_matrices=False)
    return centred @ axes[: min(DIMENSIONS, len(axes))].T


def suspected(key: Key, guesses: Guesses, predicted: Int[Array, " n"], dataset: Dataset) -> bool:
    """Whether the bias cells are worth a look: they are plain, and the model's mistakes lean toward them.

    Args:
      key: randomness of permutations.
      guesses: the cells.
      predicted: `[n]` predicted classes of the test split.
      dataset: the data set.
    """
    counts = counts_of(dataset, guesses.candidate)
    if not guesses.plain or not counts.any():
        return False
    test = dataset.splits["test"]
    found = assess_reliance(
        np.asarray(predicted), np.asarray(test.label), {CELLS: counted(test, guesses.candidate.values["test"])},
        {CELLS: counts}, key=key, classes=len(dataset.label_names),
        unit=None if test.unit is None else np.asarray(test.unit),
    )[CELLS]  # fmt: skip
    return found.state in ("shown_given", "consistent")
