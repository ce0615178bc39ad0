"""Why a model does what it does."""

from jaxdebias.explain import influence, maps
from jaxdebias.explain.cam import ClassMaps, class_maps
from jaxdebias.explain.cells import Cells, CellsConfig, find_cells, reweighing
from jaxdebias.explain.latent_shift import ShiftConfig, both_right, draw_targets, latent_shift, shift_images
from jaxdebias.explain.rollout import rollout
from jaxdebias.explain.taps import linen_paths, linen_tap, nnx_tap
from jaxdebias.explain.wrong_labels import WrongLabels, find_wrong_labels

__all__ = [
    "Cells", "CellsConfig", "ClassMaps", "ShiftConfig", "WrongLabels", "both_right", "class_maps",
    "draw_targets", "find_cells", "find_wrong_labels", "influence", "latent_shift", "linen_paths",
    "linen_tap", "maps", "nnx_tap", "reweighing", "rollout", "shift_images",
]
