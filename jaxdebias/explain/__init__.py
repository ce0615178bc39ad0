"""Why a model does what it does."""

from jaxdebias.explain import influence
from jaxdebias.explain.cells import Cells, CellsConfig, find_cells, reweighing
from jaxdebias.explain.latent_shift import ShiftConfig, both_right, draw_targets, latent_shift, shift_images

__all__ = [
    "Cells", "CellsConfig", "ShiftConfig", "both_right", "draw_targets", "find_cells", "influence",
    "latent_shift", "reweighing", "shift_images",
]
