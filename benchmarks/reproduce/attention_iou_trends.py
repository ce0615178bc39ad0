"""What the rows of attention_iou.py say: means, Kendall's tau over levels, margins."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from attention_iou_scenes import LEVELS
from scipy.stats import kendalltau

from jaxdebias.data._sets.composites import REGIONS
from jaxdebias.measure import (
    Interval,
    over_seeds,
    paired_over_seeds,
)

# data, quantity, sign, bound. "fall" and "rise": from 50 to 100 %, mean over seeds. The taus are with the accuracy on
# conflicting pictures: a score of the object should go with it, one of the background against it.
MARGINS = (
    ("composites", "object fall", ">=", 0.15),
    ("composites", "background rise", ">=", 0.15),
    ("composites", "background tau, levels", "<=", -0.7),
    ("composites", "background tau, networks", "<=", -0.7),
    *(
        (data, *margin)
        for data in ("scenes", "fewer scenes")
        for margin in (
            ("object fall", ">=", 0.15),
            ("background rise", ">=", 0.15),
            ("object tau, levels", ">=", 0.9),
            ("object tau, networks", ">=", 0.9),
            ("background tau, levels", "<=", -0.9),
            ("background tau, networks", "<=", -0.9),
        )
    ),
)
ACCURACIES = ("accuracy", "bias_aligned_accuracy", "bias_conflicting_accuracy", "worst_group_accuracy")
OF = ("aligned", "conflicting", "all")
SCORES = tuple(f"{region}_{of}" for region in REGIONS for of in OF)
CHANCES = tuple(f"{region}_chance" for region in REGIONS)


class Taus(NamedTuple):
    """Kendall's tau-b of two quantities `[levels, seeds]`, with the interval over draws of the seeds."""

    levels: Interval
    """Of the means over seeds."""
    networks: Interval
    """Of all networks."""
    seeds: list[float]
    """Of each seed's networks."""


def taus(score: np.ndarray, accuracy: np.ndarray) -> Taus:
    count = score.shape[1]
    every = range(count)
    if count**count <= 5000:
        draws = list(itertools.product(every, repeat=count))
    else:
        draws = np.random.default_rng(0).integers(0, count, (5000, count)).tolist()

    def interval(tau: Callable[[Sequence[int]], float]) -> Interval:
        value, (low, high) = tau(every), np.quantile([tau(draw) for draw in draws], (0.025, 0.975))
        return Interval(value, min(low, value), max(high, value), count)

    return Taus(
        interval(lambda drawn: tau_b(score[:, drawn].mean(1), accuracy[:, drawn].mean(1))),
        interval(lambda drawn: tau_b(score[:, drawn].ravel(), accuracy[:, drawn].ravel())),
        [tau_b(score[:, seed], accuracy[:, seed]) for seed in every],
    )


def tau_b(a: np.ndarray, b: np.ndarray) -> float:
    """NaN where one of the two is constant."""
    return float(kendalltau(a, b, variant="b").statistic)


def summary(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Per data set and level: means over seeds with their t-intervals."""
    said = []
    for data, level in dict.fromkeys((row["data"], row["level"]) for row in rows):
        cell = [row for row in rows if (row["data"], row["level"]) == (data, level)]
        means = {name: over_seeds([row[name]["value"] for row in cell])._asdict() for name in (*ACCURACIES, *SCORES)}
        chances = {name: float(np.mean([row[name] for row in cell])) for name in CHANCES}
        said.append(
            {
                "data": data,
                "level": level,
                "seeds": len(cell),
                **means,
                **chances,
                "empty_maps": sum(row["empty_maps"] for row in cell),
            }
        )
    return said


def trends(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Per data set: how far the scores move from the first level to the last, and how they go with accuracy."""
    said = {}
    for data in dict.fromkeys(row["data"] for row in rows):
        at = {(row["level"], row["seed"]): row for row in rows if row["data"] == data}
        levels, seeds = (sorted(set(of)) for of in zip(*at, strict=True))
        seeds = [seed for seed in seeds if all((level, seed) in at for level in levels)]
        if not seeds or len(levels) < 2:
            continue

        def values(name: str, at: dict = at, levels: list = levels, seeds: list = seeds) -> np.ndarray:
            return np.array([[at[level, seed][name]["value"] for seed in seeds] for level in levels])

        accuracy, objects, background = map(values, ("bias_conflicting_accuracy", "object_all", "background_all"))
        of_object, of_background = taus(objects, accuracy), taus(background, accuracy)
        said[data] = {
            "levels": levels,
            "seeds": seeds,
            "object fall": paired_over_seeds(objects[-1], objects[0])._asdict(),
            "background rise": paired_over_seeds(background[0], background[-1])._asdict(),
            **{
                f"{region} tau, {name}": getattr(of, name)._asdict()
                for name in ("levels", "networks")
                for region, of in (("object", of_object), ("background", of_background))
            },
            "object tau, seeds": of_object.seeds,
            "background tau, seeds": of_background.seeds,
        }
    return said


def verdicts(said: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """The margins on what was measured at all levels; a value that does not exist (NaN) has missed."""
    out = []
    for data, quantity, sign, bound in MARGINS:
        if data not in said or said[data]["levels"] != list(LEVELS):
            continue
        got = said[data][quantity]["value"]
        out.append(
            {
                "data": data,
                "quantity": quantity,
                "margin": f"{sign} {bound}",
                "got": got,
                "met": bool(got >= bound if sign == ">=" else got <= bound),
            }
        )
    return out
