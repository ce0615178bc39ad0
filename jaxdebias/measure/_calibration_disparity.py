"""Are probabilities equally well calibrated for the values of an attribute?"""

import numpy as np

from jaxdebias.measure._calibration import calibration_gap
from jaxdebias.measure._disparity import studentised_range_point
from jaxdebias.measure._disparity_entries import AttributeDisparity, RatedGroup, Slices, SmallGroup, group_sizes
from jaxdebias.measure._intervals import Interval


def compare_calibration(
    slices: Slices,
    predicted: np.ndarray,
    label: np.ndarray,
    probabilities: np.ndarray,
    unit: np.ndarray | None,
    weight: np.ndarray | None,
    level: float,
) -> tuple[AttributeDisparity, float] | None:
    """(entry, p of equal gaps) of the signed gap mean(event) - mean(probability), among groups of 100 units or more.

    The event is class 1; with more classes, that the prediction is right. p is that of the chi-square of the gaps
    around their precision-weighted mean.
    """
    from scipy import special

    binary = probabilities.shape[1] == 2
    event = label == 1 if binary else predicted == label
    probability = probabilities[:, 1] if binary else probabilities[np.arange(len(label)), predicted]
    probability = np.clip(probability, 0.0, 1.0)
    size = group_sizes(slices.group[None], len(slices.names), unit)[0]

    def gaps(at: float) -> list[Interval]:
        return [
            calibration_gap(
                event[rows], probability[rows], unit=None if unit is None else np.asarray(unit)[rows],
                weight=None if weight is None else np.asarray(weight)[rows], level=at,
            )
            for rows in (slices.group == group for group in range(len(slices.names)))
        ]  # fmt: skip

    each = gaps(level)
    known = np.array([np.isfinite(gap.low) for gap in each])
    if known.sum() < 2:
        return None
    point = studentised_range_point(int(known.sum()), 1.0 - level) / np.sqrt(2.0)
    wide = gaps(float(1.0 - 2.0 * special.ndtr(-point)))
    value = np.array([gap.value for gap in each])
    half, wide_half = (np.array([gap.high - gap.value for gap in of_level]) for of_level in (each, wide))
    index = np.flatnonzero(known)
    highest = index[value[index].argmax()]
    lowest = index[::-1][value[index[::-1]].argmin()]  # another group, even where all gaps are equal
    difference = value[index][:, None] - value[index]
    low = (difference - np.hypot(wide_half[index][:, None], wide_half[index])).max()
    high = (difference + np.hypot(half[index][:, None], half[index])).max()
    precision = 1.0 / (half[index] / special.ndtri((1.0 + level) / 2.0)) ** 2
    mean = (precision @ value[index]) / precision.sum()
    p = float(special.chdtrc(len(index) - 1, precision @ (value[index] - mean) ** 2))

    def rated(i: int) -> RatedGroup:
        value, low, high = (float(end) for end in each[i][:3])
        return RatedGroup(slices.names[i], int(size[i]), value, low, high)

    entry = AttributeDisparity(
        attribute=slices.attribute,
        measure="calibration_error",
        class_=1 if binary else None,
        state="cannot_tell",
        gap=Interval(float(difference.max()), max(float(low), 0.0), float(high), int(size[index].sum())),
        p=p,
        highest=rated(int(highest)),
        lowest=rated(int(lowest)),
        left_out=tuple(SmallGroup(slices.names[i], int(size[i])) for i in np.flatnonzero(~known & (size > 0))),
        indistinguishable=int((value[index] - value[lowest] <= np.hypot(wide_half[index], wide_half[lowest])).sum())
        - 1,
    )
    return entry, p
