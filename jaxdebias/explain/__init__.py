"""Why a model does what it does."""

from jaxdebias.explain import influence
from jaxdebias.explain.latent_shift import ShiftConfig, both_right, draw_targets, latent_shift, shift_images

__all__ = ["ShiftConfig", "both_right", "draw_targets", "influence", "latent_shift", "shift_images"]
