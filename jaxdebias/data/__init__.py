"""Data: from files, from scikit-learn or out of thin air to a `Dataset`; index plans for the training loop."""

from jaxdebias.data.adult import adult
from jaxdebias.data.aligned import aligned_cells, milestone_attribute
from jaxdebias.data.colored_mnist import colored_mnist
from jaxdebias.data.colour import every_colour
from jaxdebias.data.digits import digits
from jaxdebias.data.folder import folder
from jaxdebias.data.plans import Plan, epoch_plan, steps_per_epoch
from jaxdebias.data.registry import DATASETS, load
from jaxdebias.data.scenes import scenes
from jaxdebias.data.source import from_source

__all__ = [
    "DATASETS", "Plan", "adult", "aligned_cells", "colored_mnist", "digits", "epoch_plan", "every_colour", "folder",
    "from_source", "load", "milestone_attribute", "scenes", "steps_per_epoch",
]
