"""The repairs of a language model that a table compares, on one trained model."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxdebias.core import Params, Split
from jaxdebias.language import (
    LanguageFmdConfig,
    LanguageTraining,
    LanguageTuningConfig,
    Scorer,
    counterfactual_texts,
    language_fmd,
    language_projection,
    language_tuning,
)
from jaxdebias.language._baselines import both_sentences, with_dropout
from jaxdebias.language.models import LanguageModel, Tokenizer
from jaxdebias.language.training_sets import LanguageSets

RECIPES = {
    "gpt2": LanguageTraining(steps=900, learning_rate=5e-3, length=16),
    "bert": LanguageTraining(steps=900, learning_rate=3e-3, length=16, share=0.3),
}
EDIT = {"curvature_texts": 128, "rounds": 8}
PLAIN = "trained, no repair"

METHODS = (
    "FMD, transform",
    "FMD, mlp",
    "FMD, top",
    "FMD, top, `ext`",
    "pairs",
    "pairs and texts",
    "CDA",
    "dropout",
    "projection",
    "pairs and texts, no ceiling",
    "CDA, no ceiling",
)


class Repair(NamedTuple):
    """What a method gives."""

    split: Split
    params: Params
    info: dict[str, Any]
    needs: str


class Trained(NamedTuple):
    """A model and everything around it."""

    model: LanguageModel
    tokenizer: Tokenizer
    params: Params
    sets: LanguageSets
    key: jax.Array
    recipe: LanguageTraining
    brief: bool
    """Of a trial: as little as will run."""

    def scorer(self, split: Split | None = None, params: Params | None = None) -> Scorer:
        return Scorer(
            split or self.model.split,
            self.params if params is None else params,
            self.tokenizer,
            self.model.causal,
            self.model.config.positions,
        )


def methods(trained: Trained) -> Iterator[tuple[str, Callable[[], Repair]]]:
    """By name, in the order of the table."""
    model, tokenizer, params, sets, key, recipe, brief = trained
    held_out = (sets.accept_texts, sets.accept_pairs)
    some = [sets.train[i] for i in np.random.default_rng(0).permutation(len(sets.train))[: EDIT["curvature_texts"]]]

    def edit(**settings: Any) -> Callable[[], Repair]:
        def fit() -> Repair:
            fitted, info = language_fmd(
                key,
                model,
                tokenizer,
                params,
                sets.train,
                sets.pairs,
                *held_out,
                LanguageFmdConfig(**settings, **(EDIT | {"rounds": 1} if brief else EDIT)),
            )
            said = {
                "accepted": info.accepted,
                "rounds": len(info.rounds),
                "fall": info.fall,
                "residual": max((one.residual for one in info.rounds), default=0.0),
            }
            return Repair(model.split, fitted, said, "288 pairs, 128 training texts")

        return fit

    def tune(
        texts: Sequence[str], needs: str, tuned: LanguageModel = model, perplexity: float = 0.02
    ) -> Callable[[], Repair]:
        def fit() -> Repair:
            config = LanguageTuningConfig(
                length=recipe.length,
                share=recipe.share,
                perplexity=perplexity,
                **({"steps": 1, "looks": 1} if brief else {}),
            )
            fitted, info = language_tuning(key, tuned, tokenizer, params, texts, *held_out, config)
            return Repair(model.split, fitted, {"chosen": info.chosen}, needs)

        return fit

    def project() -> Repair:
        split, fitted, info = language_projection(model, tokenizer, params, sets.pairs, *held_out)
        return Repair(split, fitted, {"chosen": info.chosen}, "288 pairs")

    pairs = both_sentences(sets.pairs)
    yield "FMD, transform", edit(block="transform")
    yield "FMD, mlp", edit(block="mlp")
    yield "FMD, top", edit(block="top")
    yield "FMD, top, `ext`", edit(block="top", direction="ext")
    yield "pairs", tune(pairs, "288 pairs")
    yield "pairs and texts", tune([*pairs, *some], "288 pairs, 128 training texts")
    yield "CDA", tune(counterfactual_texts(sets.train), "all training texts, a word list")
    yield "dropout", tune(sets.train, "all training texts", with_dropout(model, 0.2, 0.15))
    yield "projection", project
    yield "pairs and texts, no ceiling", tune([*pairs, *some], "288 pairs, 128 training texts", perplexity=np.inf)
    yield (
        "CDA, no ceiling",
        tune(counterfactual_texts(sets.train), "all training texts, a word list", perplexity=np.inf),
    )
