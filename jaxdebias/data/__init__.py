"""Data: from files, from scikit-learn or out of thin air to a `Dataset`; index plans for the training loop."""

from jaxdebias.data.adult import adult
from jaxdebias.data.aligned import aligned_cells, milestone_attribute
from jaxdebias.data.celeba import celeba
from jaxdebias.data.celeba_mask import celeba_mask
from jaxdebias.data.colored_mnist import colored_mnist
from jaxdebias.data.colour import every_colour
from jaxdebias.data.composites import composites
from jaxdebias.data.corrupted_cifar10 import corrupted_cifar10
from jaxdebias.data.darkened_utkface import darkened_utkface
from jaxdebias.data.digits import digits
from jaxdebias.data.faces import faces
from jaxdebias.data.fer2013 import fer2013
from jaxdebias.data.folder import folder
from jaxdebias.data.four_cells import four_cells
from jaxdebias.data.gender_words import swap_gender
from jaxdebias.data.matching import matched_pairs, nearest_partners
from jaxdebias.data.occupations import OccupationText, occupation_pairs, occupation_text
from jaxdebias.data.plans import Plan, epoch_plan, steps_per_epoch
from jaxdebias.data.planted import planted
from jaxdebias.data.raf_db import raf_db
from jaxdebias.data.registry import DATASETS, load
from jaxdebias.data.scenes import scenes
from jaxdebias.data.sentences import crows_pairs, stereoset, wikitext, winogender, winogender_pairs
from jaxdebias.data.source import from_source
from jaxdebias.data.subsample import Subsamples, matthews_correlation, one_sided, subsample_by_correlation
from jaxdebias.data.utkface import utkface
from jaxdebias.data.waterbirds import waterbirds

__all__ = [
    "DATASETS", "OccupationText", "Plan", "Subsamples", "adult", "aligned_cells", "celeba", "celeba_mask",
    "colored_mnist", "composites", "corrupted_cifar10", "crows_pairs", "darkened_utkface", "digits", "epoch_plan",
    "every_colour", "faces", "fer2013", "folder", "four_cells", "from_source", "load", "matched_pairs",
    "matthews_correlation", "milestone_attribute", "nearest_partners", "occupation_pairs", "occupation_text",
    "one_sided", "planted", "raf_db", "scenes", "steps_per_epoch", "stereoset", "subsample_by_correlation",
    "swap_gender", "utkface", "waterbirds", "wikitext", "winogender", "winogender_pairs",
]
