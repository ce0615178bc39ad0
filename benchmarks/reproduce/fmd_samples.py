"""Which training samples should FMD replace? `python benchmarks/reproduce/fmd_samples.py --data-dir DIR` (MNIST files).

Colored MNIST, 0.5 % conflicting: FMD with K training samples that are replaced by (or removed with) their
counterfactuals, chosen at random among the aligned ones or by influence on the bias. Ranked sets are drawn anew in each
round, from all training samples; the random set is kept. The line search, the acceptance rule and everything else are
the same. No margins: the table is the finding. Beside the rates, of the samples that were chosen:

    aligned_share     mean over rounds; 99.5 % of all training samples are aligned
    class_counts      of the first round, by class
"""

import contextlib
import importlib
import sys
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import numpy as np
from fmd_colored_mnist import training_counterfactuals
from fmd_methods import Cell, Method, Setup, fill, parser
from fmd_table import RESULTS

from jaxdebias.app.recipes import TrainConfig
from jaxdebias.core import Params, repair_sets
from jaxdebias.mitigate import FmdConfig, fmd

fmd_module = importlib.import_module("jaxdebias.mitigate._fmd.sources")  # the package's attribute `fmd` is the function
NUMBERS = (500, 5000)
SETS = {
    "replace, random aligned": ("replace", "none"),
    "replace, by action score": ("replace", "action"),
    "replace, by removal score": ("replace", "removal"),
    "remove, by removal score": ("remove", "removal"),
}


@contextlib.contextmanager
def chosen_rows() -> Iterator[list[np.ndarray]]:
    """The rows that `fmd` ranks highest, one array per round."""
    found, top = [], fmd_module.top_harmful

    def recording(change: Any, count: int) -> tuple[np.ndarray, np.ndarray]:
        rows, scores = top(change, count)
        found.append(np.asarray(rows))
        return rows, scores

    with mock.patch.object(fmd_module, "top_harmful", recording):
        yield found


def methods(setup: Setup) -> Iterator[Method]:
    dataset, classifier, params = setup.trained.dataset, setup.trained.classifier, setup.trained.params
    splits = dataset.splits
    twins = training_counterfactuals(setup)
    train = splits["train"]._replace(twin=twins.x)
    sets = repair_sets(dataset)._replace(train=train)
    aligned_row = dataset.aligned[train.label, train.attribute]

    def entry(samples: str, ranking: str, number: int) -> Callable[[], tuple[Params, dict[str, Any]]]:
        def fit() -> tuple[Params, dict[str, Any]]:
            config = FmdConfig(edit_with=samples, ranking=ranking, pairs=number)
            # Only the random set is told which samples are aligned: a score has to find them.
            aligned = dataset.aligned if ranking == "none" else None
            with chosen_rows() as rows:
                fitted, info = fmd(
                    setup.key("edit"),
                    classifier,
                    params,
                    sets,
                    config,
                    aligned=aligned,
                )
            found = {**info._asdict(), "aligned_share": 1.0}
            if rows:
                found["aligned_share"] = float(np.mean([aligned_row[one].mean() for one in rows]))
                found["class_counts"] = " ".join(str(n) for n in np.bincount(train.label[rows[0]], minlength=10))
            return fitted, found

        return fit

    for number in NUMBERS:
        for name, (samples, ranking) in SETS.items():
            needs = "counterfactuals of training samples" if samples == "replace" else "training samples"
            yield Method(
                f"{name}, K={number}",
                f"{needs}, held-out pairs",
                len(splits["edit"].label) + len(splits["accept"].label),
                entry(samples, ranking, number),
            )


if __name__ == "__main__":
    arguments = parser(__doc__.splitlines()[0], RESULTS / "fmd_samples.json", seeds=3).parse_args()
    cells = [
        Cell(
            "0.5 %",
            TrainConfig(data="colored-mnist", data_dir=arguments.data_dir, seed=seed, options={"conflicting": 0.005}),
        )
        for seed in range(arguments.seeds)
    ]
    sys.exit(fill(arguments, cells, methods, ()) > 0)
