"""Why a model does what it does."""

from jaxdebias.explain import influence, maps
from jaxdebias.explain._cam import ClassMaps, class_maps
from jaxdebias.explain._cells import Cells, CellsConfig, find_cells, reweighing
from jaxdebias.explain._fit_patches import FoldMaps, PatchFit, PatchFitConfig, fit_patches, out_of_fold_maps
from jaxdebias.explain._latent_shift import ShiftConfig, both_right, draw_targets, latent_shift, shift_images
from jaxdebias.explain._patch_maps import Localised, fold, general_map, image_maps, localise, patch_confidence
from jaxdebias.explain._patches import patch_logits
from jaxdebias.explain._rollout import rollout
from jaxdebias.explain._taps import linen_paths, linen_tap, nnx_tap
from jaxdebias.explain._wrong_labels import WrongLabels, find_wrong_labels

__all__ = [
    "Cells",
    "CellsConfig",
    "ClassMaps",
    "FoldMaps",
    "Localised",
    "PatchFit",
    "PatchFitConfig",
    "ShiftConfig",
    "WrongLabels",
    "both_right",
    "class_maps",
    "draw_targets",
    "find_cells",
    "find_wrong_labels",
    "fit_patches",
    "fold",
    "general_map",
    "image_maps",
    "influence",
    "latent_shift",
    "linen_paths",
    "linen_tap",
    "localise",
    "maps",
    "nnx_tap",
    "out_of_fold_maps",
    "patch_confidence",
    "patch_logits",
    "reweighing",
    "rollout",
    "shift_images",
]
