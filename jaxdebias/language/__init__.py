"""Everything about text: models, sentences, stereotype scores, influence of sentences, and their repair."""

from jaxdebias.language import models
from jaxdebias.language._baselines import (
    LanguageTuningConfig,
    LanguageTuningInfo,
    counterfactual_texts,
    language_projection,
    language_tuning,
)
from jaxdebias.language._datasets import crows_pairs, stereoset, wikitext, winogender, winogender_pairs
from jaxdebias.language._evaluation import LanguageTests, language_changes, language_report
from jaxdebias.language._fmd import (
    LanguageFmdConfig,
    LanguageFmdInfo,
    SentenceInfluence,
    influence_on_bias,
    language_fmd,
)
from jaxdebias.language._gender_words import swap_gender
from jaxdebias.language._occupations import OccupationText, occupation_pairs, occupation_text
from jaxdebias.language._positions import (
    PairPositions,
    Positions,
    pair_positions,
    position_features,
    text_positions,
    token_block,
)
from jaxdebias.language._sentence_influence import (
    PairRows,
    TokenRows,
    sentence_bias_gradient,
    sentence_changes,
    sentence_differences,
    sentence_pair_gradient,
    soft_sentence_pair_bias,
)
from jaxdebias.language._sentence_scores import blank_scores, causal_scores, masked_scores, shared_positions
from jaxdebias.language._stereoset import icat, stereoset_change, stereoset_scores
from jaxdebias.language._stereotypes import (
    crows_pairs_change,
    crows_pairs_score,
    pair_bias_change,
    pair_differences,
    perplexity,
    perplexity_change,
    preference_rate,
    sentence_pair_bias,
)
from jaxdebias.language._text_scores import Scorer, pair_scores, stereoset_sentence_scores, text_scores
from jaxdebias.language._training import LanguageTraining, language_erm, train_language_model

__all__ = [
    "LanguageFmdConfig",
    "LanguageFmdInfo",
    "LanguageTests",
    "LanguageTraining",
    "LanguageTuningConfig",
    "LanguageTuningInfo",
    "OccupationText",
    "PairPositions",
    "PairRows",
    "Positions",
    "Scorer",
    "SentenceInfluence",
    "TokenRows",
    "blank_scores",
    "causal_scores",
    "counterfactual_texts",
    "crows_pairs",
    "crows_pairs_change",
    "crows_pairs_score",
    "icat",
    "influence_on_bias",
    "language_changes",
    "language_erm",
    "language_fmd",
    "language_projection",
    "language_report",
    "language_tuning",
    "masked_scores",
    "models",
    "occupation_pairs",
    "occupation_text",
    "pair_bias_change",
    "pair_differences",
    "pair_positions",
    "pair_scores",
    "perplexity",
    "perplexity_change",
    "position_features",
    "preference_rate",
    "sentence_bias_gradient",
    "sentence_changes",
    "sentence_differences",
    "sentence_pair_bias",
    "sentence_pair_gradient",
    "shared_positions",
    "soft_sentence_pair_bias",
    "stereoset",
    "stereoset_change",
    "stereoset_scores",
    "stereoset_sentence_scores",
    "swap_gender",
    "text_positions",
    "text_scores",
    "token_block",
    "train_language_model",
    "wikitext",
    "winogender",
    "winogender_pairs",
]
