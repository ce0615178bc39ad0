"""Methods that train without the shortcut (a `Learner` each), or take it out of a trained model (params -> params)."""

from jaxdebias.mitigate.aug_cell import AugCellConfig, AugCellInfo, aug_cell, cell_balanced, cell_tables
from jaxdebias.mitigate.dfr import DfrConfig, DfrInfo, balanced_subsamples, balanced_weights, dfr
from jaxdebias.mitigate.disent import DisentConfig, disent
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
from jaxdebias.mitigate.gce import gce
from jaxdebias.mitigate.group_balanced import group_balanced, group_weighted
from jaxdebias.mitigate.group_dro import group_dro
from jaxdebias.mitigate.jtt import JttConfig, JttInfo, drawn_by_weight, error_set, jtt, jtt_weights
from jaxdebias.mitigate.lff import lff
from jaxdebias.mitigate.loss_history import LossHistory, difficulty
from jaxdebias.mitigate.protected_column import flip_column, zero_column
from jaxdebias.mitigate.refit_head import RefitHeadConfig, RefitHeadInfo, refit_head
from jaxdebias.mitigate.self_influence import (
    SelfInfluenceConfig,
    SelfInfluenceInfo,
    self_influence,
    self_influence_tuning,
)
from jaxdebias.mitigate.sih import SihConfig, signal_weight, sih, sih_monitor, sih_run_config

__all__ = [
    "AugCellConfig",
    "AugCellInfo",
    "DfrConfig",
    "DfrInfo",
    "DisentConfig",
    "FineTuneConfig",
    "FineTuneInfo",
    "FmdConfig",
    "FmdInfo",
    "FmdRound",
    "JttConfig",
    "JttInfo",
    "LossHistory",
    "RefitHeadConfig",
    "RefitHeadInfo",
    "SelfInfluenceConfig",
    "SelfInfluenceInfo",
    "SihConfig",
    "aug_cell",
    "balanced_subsamples",
    "balanced_weights",
    "both_sides",
    "cell_balanced",
    "cell_tables",
    "dfr",
    "difficulty",
    "disent",
    "drawn_by_weight",
    "erm",
    "error_set",
    "fine_tune",
    "fine_tune_block",
    "fine_tune_head",
    "flip_column",
    "fmd",
    "gce",
    "group_balanced",
    "group_dro",
    "group_weighted",
    "joined",
    "jtt",
    "jtt_weights",
    "lff",
    "refit_head",
    "retrain_counterfactual",
    "self_influence",
    "self_influence_tuning",
    "signal_weight",
    "sih",
    "sih_monitor",
    "sih_run_config",
    "train_from_scratch",
    "zero_column",
]
