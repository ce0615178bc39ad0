"""From scores of single images to numbers of a model and of several models: by group, with intervals and chance.

Two protocols. A *heatmap* score compares the maps of two attributes, a *mask* score a map with a region. Images without
one of the two (a map without mass, a face without a hat) have the score NaN, and count by policy:

    policy          heatmap score    mask score
    official        left out         0, so that a rare region scores mostly its prevalence
    present_only    left out         left out

`used` in every result says how many images have a score. Batches are summed up first, the policy is chosen at the end.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from jaxdebias.contracts import check_choice, check_integers, check_numbers, describe, expect, row_count
from jaxdebias.core import Array, Key
from jaxdebias.measure._groups import SMALL_GROUP
from jaxdebias.measure._intervals import Interval
from jaxdebias.measure._mean_intervals import mean_interval
from jaxdebias.measure._seeds import over_seeds

POLICIES = ("official", "present_only")
SCORES = ("heatmap", "mask")
LABEL_GROUPS = ((1, 1), (1, 0), (0, 1), (0, 0))
"""(label, attribute) of the groups 0..3 of `label_groups`, in the paper's order; "all" follows them."""

Policy = Literal["official", "present_only"]
Score = Literal["heatmap", "mask"]


class ScoreSums(NamedTuple):
    """What a stream of batches has told so far about scores `[n *s]`, per group. Parts can be merged in any order."""

    rows: Float[Array, " g"]
    """Images per group, whether they have a score or not."""
    used: Float[Array, "g *s"]
    """Images with a score."""
    mean: Float[Array, "g *s"]
    """Over the images with a score; 0 where there are none."""
    deviation: Float[Array, "g *s"]
    """Sum of squared deviations from that mean."""


class GroupScores(NamedTuple):
    """Scores of one model, for each group and, last, for all images of any group. NaN where no image entered."""

    mean: np.ndarray
    """`[g+1 *s]`."""
    std: np.ndarray
    """`[g+1 *s]`, over images, population form."""
    rows: np.ndarray
    """`[g+1]` images."""
    used: np.ndarray
    """`[g+1 *s]` images that entered."""


class ModelScores(NamedTuple):
    """Scores over models that differ in their seed."""

    mean: np.ndarray | float
    std: np.ndarray | float
    """Population form (ddof 0), as the paper reports it."""
    interval: Interval
    """Student's t interval of the mean."""


class ScoreReport(NamedTuple):
    """What a table of scores needs: each with its interval and, for mask scores, the chance level beside it."""

    score: Interval
    """Arrays `[g+1 *s]`; n is the number of units that entered."""
    std: np.ndarray
    """`[g+1 *s]`, over images, population form."""
    rows: np.ndarray
    """`[g+1]` images."""
    used: np.ndarray
    """`[g+1 *s]` images that have a score; the others count by policy."""
    chance: np.ndarray | None
    """`[g+1 r]`, what a uniform map scores on the same images by the same policy; None for heatmap scores."""
    small: np.ndarray
    """Bool `[g+1 *s]`: not empty, but fewer than 30 units."""


def label_groups(label: Int[Array, " n"], attribute: Int[Array, " n"]) -> Int[np.ndarray, " n"]:
    """The paper's group of each image by its binary label and attribute, 0..3 as in `LABEL_GROUPS`; -1 if unknown.

    >>> label_groups(np.array([1, 0, 0, 1]), np.array([1, 1, 0, -1])).tolist()
    [0, 2, 3, -1]
    """
    n = row_count("label", label)
    check_integers("label", label, n, -1, 2)
    check_integers("attribute", attribute, n, -1, 2)
    label, attribute = np.asarray(label), np.asarray(attribute)
    return np.where((label < 0) | (attribute < 0), -1, 3 - 2 * label - attribute).astype(np.int32)


def empty_sums(groups: int, shape: Sequence[int] = ()) -> ScoreSums:
    """Sums before the first batch, for scores of `shape` per image."""
    expect(groups >= 1, "groups", "at least 1", groups)
    zero = jnp.zeros((groups, *shape))
    return ScoreSums(jnp.zeros(groups), zero, zero, zero)


def add_scores(sums: ScoreSums, scores: Float[Array, "n *s"], group: Int[Array, " n"]) -> ScoreSums:
    """The sums with one more batch.

    Args:
      sums: of `empty_sums(groups, scores.shape[1:])`, or of the batches before.
      scores: `[n *s]`, NaN where an image has none.
      group: `[n]` in 0..g-1; -1 leaves the row out everywhere (padding; give unknown attributes a group of their own
        if they are to count in "all").

    Raises:
      ContractError: arrays that do not fit each other or the sums; a group beyond them, where it is a NumPy array.
    """
    check_numbers("scores", scores, "n ...")
    n, shape = np.shape(scores)[0], tuple(sums.used.shape[1:])
    expect(
        n > 0 and np.shape(scores)[1:] == shape,
        "scores",
        f"float {['n', *shape]}, at least one image",
        describe(scores),
    )
    expect(np.shape(group) == (n,), "group", f"int [n={n}]", describe(group))
    if isinstance(group, jax.Array):  # on a device, or traced: not fetched for a check
        expect(jnp.issubdtype(group.dtype, jnp.integer), "group", f"int [n={n}]", describe(group))
    else:
        check_integers("group", group, n, -1, sums.rows.shape[0])
    return cast(ScoreSums, _add_scores(sums, jnp.asarray(scores), jnp.asarray(group)))


@jax.jit  # pyright: ignore[reportUnknownMemberType]
def _add_scores(sums: ScoreSums, scores: Float[Array, "n *s"], group: Int[Array, " n"]) -> ScoreSums:
    groups, shape = sums.rows.shape[0], scores.shape[1:]
    flat = scores.reshape(scores.shape[0], -1).astype(sums.mean.dtype)

    def total(rows: jax.Array) -> jax.Array:
        return jax.ops.segment_sum(rows, group, num_segments=groups)  # drops negative groups

    there = ~jnp.isnan(flat)
    used = total(there.astype(flat.dtype))
    mean = total(jnp.where(there, flat, 0.0)) / jnp.maximum(used, 1.0)
    deviation = total(jnp.where(there, flat - mean[group], 0.0) ** 2)
    rows = total(jnp.ones(flat.shape[0], flat.dtype))
    return merge_sums(sums, ScoreSums(rows, *(part.reshape(groups, *shape) for part in (used, mean, deviation))))


def merge_sums(a: ScoreSums, b: ScoreSums) -> ScoreSums:
    """The sums of two disjoint sets of images (Chan, Golub and LeVeque 1983): no cancellation of large sums."""
    used = a.used + b.used
    part, apart = b.used / jnp.maximum(used, 1.0), b.mean - a.mean
    return ScoreSums(a.rows + b.rows, used, a.mean + apart * part, a.deviation + b.deviation + apart**2 * a.used * part)


def group_scores(sums: ScoreSums, *, score: Score, policy: Policy = "official") -> GroupScores:
    """Mean and spread of each group and of all, by policy; on the host, in double precision.

    Args:
      sums: of all batches.
      score: "heatmap" or "mask"; the official policy treats them differently.
      policy: "official" or "present_only", see the table above.
    """
    parts = ScoreSums(*(np.asarray(field, np.float64) for field in sums))
    # "All" merges the groups, as batches are merged.
    rows, used = parts.rows.sum(0, keepdims=True), parts.used.sum(0, keepdims=True)
    mean = _divided((parts.used * parts.mean).sum(0, keepdims=True), used, 0.0)
    deviation = (parts.deviation + parts.used * (parts.mean - mean) ** 2).sum(0, keepdims=True)
    rows, used, mean, deviation = (
        np.concatenate(both) for both in zip(parts, (rows, used, mean, deviation), strict=True)
    )
    n = used
    if _absent_is_zero(score, policy):
        n = np.broadcast_to(rows.reshape(-1, *[1] * (used.ndim - 1)), used.shape)
        share = _divided(used, n, 0.0)
        mean, deviation = mean * share, deviation + used * mean**2 * (1 - share)
    return GroupScores(
        _divided(n * mean, n, np.nan),
        np.sqrt(_divided(deviation, n, np.nan)),
        rows.astype(np.int64),
        used.astype(np.int64),
    )


def over_models(values: Any, *, level: float = 0.95) -> ModelScores:
    """Mean over models, with the paper's population deviation and with an interval.

    Args:
      values: `[m ...]`, for instance `group_scores(...).mean` of each model.
      level: confidence level of the interval.

    >>> scores = over_models([0.4, 0.6])
    >>> round(scores.mean, 3), round(scores.std, 3), scores.interval.n
    (0.5, 0.1, 2)
    """
    interval = over_seeds(values, level=level)
    std = np.asarray(values, np.float64).std(axis=0)
    return ModelScores(interval.value, std.item() if std.ndim == 0 else std, interval)


def score_intervals(
    key: Key,
    scores: Float[Array, "n *s"],
    group: Int[Array, " n"],
    *,
    groups: int,
    score: Score,
    policy: Policy = "official",
    unit: Int[Array, " n"] | None = None,
    level: float = 0.95,
) -> Interval:
    """The mean scores of one model by group and over all, with intervals over the test images: `mean_interval`.

    Args:
      key: randomness of the resamples.
      scores: `[n *s]` in 0..1, NaN where an image has none.
      group: `[n]` in 0..groups-1; -1 leaves the row out.
      groups: how many groups; an empty one is NaN.
      score: as in `group_scores`.
      policy: as in `group_scores`.
      unit: `[n]`, images of one unit are no independent evidence (many pictures of one object); None: each is its own.
      level: confidence level.

    Returns:
      Interval of arrays `[groups+1 *s]`, all images last; n is the number of units that entered.

    Raises:
      ContractError: malformed arrays, scores out of range or an unknown policy.
    """
    check_numbers("scores", scores, "n ...")
    n = np.shape(scores)[0]
    expect(n > 0, "scores", "at least one image", describe(scores))
    check_integers("group", group, n, -1, groups)
    if unit is not None:
        check_integers("unit", unit, n, 0, None)
    group, unit = np.asarray(group), None if unit is None else np.asarray(unit)
    flat = np.asarray(scores, np.float64).reshape(n, -1)
    there = ~np.isnan(flat)
    within = bool(np.all((flat[there] >= -1e-5) & (flat[there] <= 1 + 1e-5)))
    expect(within, "scores", "values in 0..1, or NaN", describe(scores))
    entered = np.ones_like(there) if _absent_is_zero(score, policy) else there
    flat = np.clip(np.where(there, flat, 0.0), 0.0, 1.0)
    value, low, high = (np.full((groups + 1, flat.shape[1]), np.nan) for _ in range(3))
    counts = np.zeros((groups + 1, flat.shape[1]), np.int64)
    # Scores that the same images have are resampled together.
    patterns, pattern = np.unique(entered, axis=1, return_inverse=True)
    for i, some in enumerate(patterns.T):
        columns = np.flatnonzero(pattern.ravel() == i)
        for row, members in enumerate([*(group == g for g in range(groups)), group >= 0]):
            rows = np.flatnonzero(members & some)
            if not len(rows):
                continue
            mean = mean_interval(
                flat[np.ix_(rows, columns)].T,
                key=key,
                unit=None if unit is None else unit[rows],
                bounds=(0.0, 1.0),
                level=level,
            )
            value[row, columns], low[row, columns], high[row, columns] = mean[:3]
            counts[row, columns] = mean.n
    shape = groups + 1, *np.shape(scores)[1:]
    value, low, high, counts = (field.reshape(shape) for field in (value, low, high, counts))
    return Interval(value, low, high, counts)


def score_report(
    key: Key,
    scores: Float[Array, "n *s"],
    group: Int[Array, " n"],
    *,
    groups: int,
    score: Score,
    chance: Float[Array, "n r"] | None = None,
    policy: Policy = "official",
    unit: Int[Array, " n"] | None = None,
    level: float = 0.95,
) -> ScoreReport:
    """Scores of one model by group, with intervals and, for mask scores, the chance level of the same images.

    Args:
      chance: `[n r]`, for mask scores `[n k r]` or `[n r]`: `chance_attention_iou` of their
        `area_fraction`. Needed for them, and refused for heatmap scores, which have no such level.
      key: as in `score_intervals`.
      scores: as in `score_intervals`.
      group: as in `score_intervals`.
      groups: as in `score_intervals`.
      score: as in `score_intervals`.
      policy: as in `score_intervals`.
      unit: as in `score_intervals`.
      level: as in `score_intervals`.

    Raises:
      ContractError: malformed arrays, an unknown policy, or mask scores without their chance level.
    """
    check_numbers("scores", scores, "n ...")
    n, shape = np.shape(scores)[0], np.shape(scores)[1:]
    expect(n > 0, "scores", "at least one image", describe(scores))
    check_integers("group", group, n, -1, groups)
    level_of = None
    if score == "mask":
        fits = chance is not None and np.shape(chance) == (n, *shape[-1:]) and np.asarray(chance).dtype.kind == "f"
        expect(fits, "chance", f"the chance level of each mask, {[n, *shape[-1:]]}", describe(chance))
        within = bool(((np.asarray(chance) >= 0) & (np.asarray(chance) <= 1)).all())
        expect(within, "chance", "values in 0..1", describe(chance))
        there = np.asarray(chance) > 0  # an absent region has chance 0
        levels = np.where(there, np.asarray(chance, np.float32), np.float32(np.nan))
        level_of = _scores_of(levels, group, groups, score, policy).mean
    else:
        expect(chance is None, "chance", "None for heatmap scores", describe(chance))
    interval = score_intervals(key, scores, group, groups=groups, score=score, policy=policy, unit=unit, level=level)
    summary, units = _scores_of(scores, group, groups, score, policy), np.asarray(interval.n)
    return ScoreReport(interval, summary.std, summary.rows, summary.used, level_of, (units > 0) & (units < SMALL_GROUP))


def _scores_of(scores: Array, group: Array, groups: int, score: Score, policy: Policy) -> GroupScores:
    sums = add_scores(empty_sums(groups, np.shape(scores)[1:]), jnp.asarray(scores), jnp.asarray(group))
    return group_scores(sums, score=score, policy=policy)


def _absent_is_zero(score: str, policy: str) -> bool:
    check_choice("score", score, SCORES)
    check_choice("policy", policy, POLICIES)
    return score == "mask" and policy == "official"


def _divided(part: Array, whole: Array, otherwise: float) -> np.ndarray:
    return np.where(whole > 0, part / np.where(whole > 0, whole, 1.0), otherwise)
