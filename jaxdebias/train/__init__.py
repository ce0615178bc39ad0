"""Training: the one loop that runs any `Learner`, and what it is made of."""

from jaxdebias.train._augment import chain, random_affine, random_flip, random_resized_crop, random_shift
from jaxdebias.train._checkpoint import load_params, save_params
from jaxdebias.train._cross_fit import CrossFit, cross_fit
from jaxdebias.train._log import Progress
from jaxdebias.train._losses import (
    binary_cross_entropy,
    correct,
    cross_entropy,
    detached_generalised_cross_entropy,
    generalised_cross_entropy,
    weighted_mean,
)
from jaxdebias.train._mesh import data_mesh
from jaxdebias.train._optimizer import Optimizer, trainable, with_trainable
from jaxdebias.train._plans import Plan, epoch_plan, steps_per_epoch
from jaxdebias.train._run import FitConfig, FitResult, fit
from jaxdebias.train._schedule import (
    HELD_OUT_ACCURACY,
    HELD_OUT_LOSS,
    EarlyStop,
    Monitor,
    Plateau,
    worst_class_accuracy,
    worst_group_accuracy,
)
from jaxdebias.train._sweep import Portion, map_runs, sweep

__all__ = [
    "HELD_OUT_ACCURACY",
    "HELD_OUT_LOSS",
    "CrossFit",
    "EarlyStop",
    "FitConfig",
    "FitResult",
    "Monitor",
    "Optimizer",
    "Plan",
    "Plateau",
    "Portion",
    "Progress",
    "binary_cross_entropy",
    "chain",
    "correct",
    "cross_entropy",
    "cross_fit",
    "data_mesh",
    "detached_generalised_cross_entropy",
    "epoch_plan",
    "fit",
    "generalised_cross_entropy",
    "load_params",
    "map_runs",
    "random_affine",
    "random_flip",
    "random_resized_crop",
    "random_shift",
    "save_params",
    "steps_per_epoch",
    "sweep",
    "trainable",
    "weighted_mean",
    "with_trainable",
    "worst_class_accuracy",
    "worst_group_accuracy",
]
