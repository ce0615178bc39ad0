"""Methods that train without the shortcut (a `Learner` each), or take it out of a trained model (params -> params)."""

from jaxdebias.mitigate.dfr import DfrConfig, DfrInfo, balanced_weights, dfr
from jaxdebias.mitigate.erm import erm
from jaxdebias.mitigate.fine_tune import FineTuneConfig, FineTuneInfo, both_sides, fine_tune, train_from_scratch
from jaxdebias.mitigate.fmd import FmdConfig, FmdInfo, FmdRound, fmd

__all__ = [
    "DfrConfig",
    "DfrInfo",
    "FineTuneConfig",
    "FineTuneInfo",
    "FmdConfig",
    "FmdInfo",
    "FmdRound",
    "balanced_weights",
    "both_sides",
    "dfr",
    "erm",
    "fine_tune",
    "fmd",
    "train_from_scratch",
]
