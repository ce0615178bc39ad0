"""Data: from files, from scikit-learn or out of thin air to a `Dataset`; index plans for the training loop."""

from jaxdebias.data._aligned import aligned_cells, milestone_attribute
from jaxdebias.data._arrays import from_arrays, from_frame
from jaxdebias.data._colour import every_colour
from jaxdebias.data._folder import folder
from jaxdebias.data._matching import matched_pairs, nearest_partners
from jaxdebias.data._registry import DATASETS, load
from jaxdebias.data._sets.adult import adult
from jaxdebias.data._sets.aligned_folders import aligned_folders
from jaxdebias.data._sets.celeba import celeba
from jaxdebias.data._sets.celeba_four_cells import celeba_four_cells
from jaxdebias.data._sets.celeba_mask import celeba_mask
from jaxdebias.data._sets.colored_mnist import colored_mnist
from jaxdebias.data._sets.composites import composites
from jaxdebias.data._sets.corrupted_cifar10 import corrupted_cifar10
from jaxdebias.data._sets.digits import digits
from jaxdebias.data._sets.faces import faces
from jaxdebias.data._sets.fer2013 import fer2013
from jaxdebias.data._sets.raf_db import raf_db
from jaxdebias.data._sets.scenes import scenes
from jaxdebias.data._sets.utkface import utkface
from jaxdebias.data._sets.utkface_darkened import utkface_darkened
from jaxdebias.data._sets.utkface_planted import utkface_planted
from jaxdebias.data._sets.waterbirds import waterbirds
from jaxdebias.data._source import from_source
from jaxdebias.data._subsample import Subsamples, matthews_correlation, one_sided, subsample_by_correlation

__all__ = [
    "DATASETS",
    "Subsamples",
    "adult",
    "aligned_cells",
    "aligned_folders",
    "celeba",
    "celeba_four_cells",
    "celeba_mask",
    "colored_mnist",
    "composites",
    "corrupted_cifar10",
    "digits",
    "every_colour",
    "faces",
    "fer2013",
    "folder",
    "from_arrays",
    "from_frame",
    "from_source",
    "load",
    "matched_pairs",
    "matthews_correlation",
    "milestone_attribute",
    "nearest_partners",
    "one_sided",
    "raf_db",
    "scenes",
    "subsample_by_correlation",
    "utkface",
    "utkface_darkened",
    "utkface_planted",
    "waterbirds",
]
