"""Find the shortcut a JAX classifier has learned, see where it comes from, and take it out again.

The names below are what most users need; everything else is found by its room: `data` builds data sets, `models`
networks, `train` runs the only loop, `measure` counts with intervals, `explain` says why, `mitigate` repairs, `report`
shows.
"""

from jaxdebias import auditing, data, explain, measure, mitigate, models, train
from jaxdebias._audit import AuditReport, audit
from jaxdebias.batching import map_rows, predict_rows
from jaxdebias.contracts import ContractError
from jaxdebias.core import Batch, Classifier, Dataset, Learner, RepairSets, Split, repair_sets
from jaxdebias.mitigate import FmdConfig, dfr, erm, fine_tune, fmd, train_from_scratch
from jaxdebias.train import FitConfig, Optimizer, fit

__all__ = [
    "AuditReport",
    "Batch",
    "Classifier",
    "ContractError",
    "Dataset",
    "FitConfig",
    "FmdConfig",
    "Learner",
    "Optimizer",
    "RepairSets",
    "Split",
    "audit",
    "auditing",
    "data",
    "dfr",
    "erm",
    "explain",
    "fine_tune",
    "fit",
    "fmd",
    "map_rows",
    "measure",
    "mitigate",
    "models",
    "predict_rows",
    "repair_sets",
    "train",
    "train_from_scratch",
]
