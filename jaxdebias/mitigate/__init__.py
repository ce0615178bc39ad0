"""Methods that train without the shortcut (a `Learner` each), or take it out of a trained model (params -> params)."""

from jaxdebias.mitigate.dfr import DfrConfig, DfrInfo, balanced_subsamples, balanced_weights, dfr
from jaxdebias.mitigate.erm import erm
from jaxdebias.mitigate.fine_tune import (
    FineTuneConfig,
    FineTuneInfo,
    both_sides,
    fine_tune,
    fine_tune_block,
    fine_tune_head,
    joined,
    retrain_counterfactual,
    train_from_scratch,
)
from jaxdebias.mitigate.fmd import FmdConfig, FmdInfo, FmdRound, fmd
from jaxdebias.mitigate.protected_column import flip_column, zero_column
from jaxdebias.mitigate.refit_head import RefitHeadConfig, RefitHeadInfo, refit_head
from jaxdebias.mitigate.self_influence import (
    SelfInfluenceConfig,
    SelfInfluenceInfo,
    self_influence,
    self_influence_tuning,
)

__all__ = [
    "DfrConfig",
    "DfrInfo",
    "FineTuneConfig",
    "FineTuneInfo",
    "FmdConfig",
    "FmdInfo",
    "FmdRound",
    "RefitHeadConfig",
    "RefitHeadInfo",
    "SelfInfluenceConfig",
    "SelfInfluenceInfo",
    "balanced_subsamples",
    "balanced_weights",
    "both_sides",
    "dfr",
    "erm",
    "fine_tune",
    "fine_tune_block",
    "fine_tune_head",
    "flip_column",
    "fmd",
    "joined",
    "refit_head",
    "retrain_counterfactual",
    "self_influence",
    "self_influence_tuning",
    "train_from_scratch",
    "zero_column",
]
