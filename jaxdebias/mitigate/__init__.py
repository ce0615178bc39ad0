"""Methods that train without the shortcut (a `Learner` each), or take it out of a trained model (params -> params)."""

from jaxdebias.mitigate._aug_cell import AugCellConfig, AugCellInfo, aug_cell, cell_balanced, cell_tables
from jaxdebias.mitigate._dbvae.diagnostics import DrawReport, draw_report, weight_auc
from jaxdebias.mitigate._dbvae.learner import DbVaeConfig, dbvae, encode_all, reconstructions
from jaxdebias.mitigate._dbvae.rarity import EQUATION_4, MIT_LAB, LatentWeights, RarityConfig, latent_weights
from jaxdebias.mitigate._dfr import DfrConfig, DfrInfo, balanced_subsamples, balanced_weights, dfr
from jaxdebias.mitigate._disent import DisentConfig, disent
from jaxdebias.mitigate._erm import erm
from jaxdebias.mitigate._fine_tune import (
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
from jaxdebias.mitigate._fmd.edit import FmdConfig, FmdInfo, FmdRound, fmd
from jaxdebias.mitigate._gce import gce
from jaxdebias.mitigate._group_balanced import group_balanced, group_weighted
from jaxdebias.mitigate._group_dro import group_dro
from jaxdebias.mitigate._jtt import JttConfig, JttInfo, drawn_by_weight, error_set, jtt, jtt_weights
from jaxdebias.mitigate._lff import lff
from jaxdebias.mitigate._loss_history import LossHistory, difficulty
from jaxdebias.mitigate._patch_noise.learner import (
    Corruption,
    PatchNoiseConfig,
    PatchNoiseHyper,
    corrupt,
    corruption,
    corruptions_of_mode,
    patch_noise,
)
from jaxdebias.mitigate._patch_noise.masks import (
    Protected,
    budget_mask,
    mask_iou,
    protect,
    quantile_mask,
    soft_strength,
)
from jaxdebias.mitigate._protected_column import flip_column, zero_column
from jaxdebias.mitigate._refit_head import RefitHeadConfig, RefitHeadInfo, refit_head
from jaxdebias.mitigate._self_influence import (
    SelfInfluenceConfig,
    SelfInfluenceInfo,
    self_influence,
    self_influence_tuning,
)
from jaxdebias.mitigate._sih import SihConfig, signal_weight, sih, sih_monitor, sih_run_config

__all__ = [
    "EQUATION_4",
    "MIT_LAB",
    "AugCellConfig",
    "AugCellInfo",
    "Corruption",
    "DbVaeConfig",
    "DfrConfig",
    "DfrInfo",
    "DisentConfig",
    "DrawReport",
    "FineTuneConfig",
    "FineTuneInfo",
    "FmdConfig",
    "FmdInfo",
    "FmdRound",
    "JttConfig",
    "JttInfo",
    "LatentWeights",
    "LossHistory",
    "PatchNoiseConfig",
    "PatchNoiseHyper",
    "Protected",
    "RarityConfig",
    "RefitHeadConfig",
    "RefitHeadInfo",
    "SelfInfluenceConfig",
    "SelfInfluenceInfo",
    "SihConfig",
    "aug_cell",
    "balanced_subsamples",
    "balanced_weights",
    "both_sides",
    "budget_mask",
    "cell_balanced",
    "cell_tables",
    "corrupt",
    "corruption",
    "corruptions_of_mode",
    "dbvae",
    "dfr",
    "difficulty",
    "disent",
    "draw_report",
    "drawn_by_weight",
    "encode_all",
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
    "latent_weights",
    "lff",
    "mask_iou",
    "patch_noise",
    "protect",
    "quantile_mask",
    "reconstructions",
    "refit_head",
    "retrain_counterfactual",
    "self_influence",
    "self_influence_tuning",
    "signal_weight",
    "sih",
    "sih_monitor",
    "sih_run_config",
    "soft_strength",
    "train_from_scratch",
    "weight_auc",
    "zero_column",
]
