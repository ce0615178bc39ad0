"""Methods that train without the shortcut (a `Learner` each), or take it out of a trained model (params -> params)."""

from jaxdebias.mitigate._aug_cell.cell_balanced import CellBalancedConfig, cell_balanced, cell_tables
from jaxdebias.mitigate._aug_cell.info import AugCellInfo
from jaxdebias.mitigate._aug_cell.training import AugCellConfig, aug_cell
from jaxdebias.mitigate._dbvae.diagnostics import DrawReport, draw_report, weight_auc
from jaxdebias.mitigate._dbvae.learner import DbVaeConfig, dbvae, encode_all, reconstructions
from jaxdebias.mitigate._dbvae.rarity import EQUATION_4, MIT_LAB, LatentWeights, RarityConfig, latent_weights
from jaxdebias.mitigate._dfr import DfrConfig, DfrInfo, balanced_subsamples, balanced_weights, dfr
from jaxdebias.mitigate._disent import DisentConfig, disent
from jaxdebias.mitigate._erm import ErmConfig, erm
from jaxdebias.mitigate._fine_tune import (
    FineTuneConfig,
    FineTuneInfo,
    fine_tune,
    fine_tune_head,
    retrain_counterfactual,
    train_from_scratch,
)
from jaxdebias.mitigate._fine_tune_block import fine_tune_block, mixing_block
from jaxdebias.mitigate._fmd.config import FmdConfig, FmdInfo, FmdRound
from jaxdebias.mitigate._fmd.edit import fmd
from jaxdebias.mitigate._gce import GceConfig, gce
from jaxdebias.mitigate._group_balanced import group_balanced, group_weighted
from jaxdebias.mitigate._group_dro import GroupDroConfig, group_dro
from jaxdebias.mitigate._jtt import JttConfig, JttInfo, drawn_by_weight, error_set, jtt, jtt_weights
from jaxdebias.mitigate._lff import LffConfig, lff
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
from jaxdebias.mitigate._protected_column import (
    ProtectedColumnConfig,
    ProtectedColumnInfo,
    flip_column,
    protected_column,
    zero_column,
)
from jaxdebias.mitigate._refit_head import RefitHeadConfig, RefitHeadInfo, refit_head
from jaxdebias.mitigate._self_influence import (
    SelfInfluenceConfig,
    SelfInfluenceInfo,
    self_influence,
    self_influence_scores,
)
from jaxdebias.mitigate._sih import SihConfig, signal_weight, sih, sih_monitor, sih_run_config

__all__ = [
    "EQUATION_4",
    "MIT_LAB",
    "AugCellConfig",
    "AugCellInfo",
    "CellBalancedConfig",
    "Corruption",
    "DbVaeConfig",
    "DfrConfig",
    "DfrInfo",
    "DisentConfig",
    "DrawReport",
    "ErmConfig",
    "FineTuneConfig",
    "FineTuneInfo",
    "FmdConfig",
    "FmdInfo",
    "FmdRound",
    "GceConfig",
    "GroupDroConfig",
    "JttConfig",
    "JttInfo",
    "LatentWeights",
    "LffConfig",
    "LossHistory",
    "PatchNoiseConfig",
    "PatchNoiseHyper",
    "Protected",
    "ProtectedColumnConfig",
    "ProtectedColumnInfo",
    "RarityConfig",
    "RefitHeadConfig",
    "RefitHeadInfo",
    "SelfInfluenceConfig",
    "SelfInfluenceInfo",
    "SihConfig",
    "aug_cell",
    "balanced_subsamples",
    "balanced_weights",
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
    "jtt",
    "jtt_weights",
    "latent_weights",
    "lff",
    "mask_iou",
    "mixing_block",
    "patch_noise",
    "protect",
    "protected_column",
    "quantile_mask",
    "reconstructions",
    "refit_head",
    "retrain_counterfactual",
    "self_influence",
    "self_influence_scores",
    "signal_weight",
    "sih",
    "sih_monitor",
    "sih_run_config",
    "soft_strength",
    "train_from_scratch",
    "weight_auc",
    "zero_column",
]
