"""Which training samples FMD should replace: chosen at random among the aligned ones, or by influence on the bias.

Ranked sets are drawn anew in each round, from all training samples; the random set is kept. The line search, the
acceptance rule and everything else are the same. There are no margins: the table is the finding. Beside the rates, of
the samples that were chosen, `aligned_share`: mean over rounds; of all training samples 99.5 % are aligned.
"""

import contextlib
import functools
import importlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from jaxdebias.core import Params, repair_sets
from jaxdebias.mitigate import FmdConfig, fmd
from jaxdebias.reproduce._recoloured import counterfactuals
from jaxdebias.reproduce._repairs import Case, Repair

NUMBERS = (500, 5000)
SETS = {
    "replace, random aligned": ("replace", "none"),
    "replace, by action score": ("replace", "action"),
    "replace, by removal score": ("replace", "removal"),
    "remove, by removal score": ("remove", "removal"),
}
NAMES = tuple(f"{name}, K={number}" for number in NUMBERS for name in SETS)


@contextlib.contextmanager
def chosen_rows() -> Iterator[list[np.ndarray]]:
    """The rows that `fmd` ranks highest, one array per round, recorded where it ranks them."""
    module = importlib.import_module("jaxdebias.mitigate._fmd.sources")
    found: list[np.ndarray] = []
    top = module.top_harmful

    def recording(change: Any, count: int) -> tuple[np.ndarray, np.ndarray]:
        rows, scores = top(change, count)
        found.append(np.asarray(rows))
        return rows, scores

    module.top_harmful = recording  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield found
    finally:
        module.top_harmful = top  # pyright: ignore[reportAttributeAccessIssue]


def sample_repairs(case: Case) -> dict[str, Repair]:
    """FMD with K training samples, by how they are chosen and what is done to them."""
    dataset = case.dataset
    sets = repair_sets(dataset)
    assert sets.train is not None
    assert sets.edit is not None
    assert sets.accept is not None
    sets = sets._replace(train=sets.train._replace(twin=counterfactuals(case).x))
    held_out = len(sets.edit.label) + len(sets.accept.label)
    repairs = {}
    for number in NUMBERS:
        for name, (samples, ranking) in SETS.items():
            needs = "counterfactuals of training samples" if samples == "replace" else "training samples"
            fit = functools.partial(_edit, case, sets, samples, ranking, number)
            repairs[f"{name}, K={number}"] = Repair(f"{needs}, held-out pairs", held_out, fit)
    return repairs


def _edit(case: Case, sets: Any, samples: str, ranking: str, number: int) -> tuple[Params, dict[str, Any]]:
    classifier, params, *_ = case.trained
    count = min(number, len(sets.train.label) // 2) if case.trial else number
    config = FmdConfig(edit_with=samples, ranking=ranking, pairs=count)
    # Only the random set is told which samples are aligned: a score has to find them.
    aligned = case.dataset.aligned if ranking == "none" else None
    with chosen_rows() as rows:
        fitted, info = fmd(case.key("edit"), classifier.vector, params, sets, config, aligned=aligned)
    found = {**info._asdict(), "aligned_share": 1.0}
    if rows:
        is_aligned = case.dataset.aligned[sets.train.label, sets.train.attribute]
        found["aligned_share"] = float(np.mean([is_aligned[one].mean() for one in rows]))
        found["class_counts"] = " ".join(str(n) for n in np.bincount(sets.train.label[rows[0]], minlength=10))
    return fitted, found
