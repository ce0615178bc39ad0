"""FMD on language models (Chen et al. 2023): a planted bias in a small GPT-2 and a small BERT, repairs side by side.

Both are trained on generated sentences in which 12 occupations go with "she" and 12 with "he" in 90 % of the cases,
with short lines of WikiText-2 mixed in. A seed is a new training text, new first weights and a new order. What is
measured, for every repair:

    edit          pair bias of the 12 occupations that the edit's pairs are about, in its templates, at another time
    occupations   6 other occupations in the same templates
    templates     the 12 occupations in 4 other templates
    both          the 6 occupations in the 4 templates: nothing of it was in a pair
    persons       "the woman ... she": here the preference is right, and should stay
    perplexity    of test texts that the repair must leave alone: sentences about persons, and lines of WikiText-2

Pair bias: |log p(stereotype) - log p(other)| for each token, GPT-2; for each token that both sentences share, hidden in
turn, BERT (as CrowS-Pairs), which asks for the occupation given the pronoun. So for BERT `pronoun` is asked too: the
mean log-odds of the right pronoun against the other one where it is hidden, on `both`. A repair that only makes the
score even, and not this, has hidden the bias.

Edits and tuning choose on pairs of 6 more occupations and on other texts, never on what is reported. FMD sees 288
sentence pairs and 128 training texts; CDA and dropout see all training texts. Whatever repairs may raise the perplexity
of its held-out texts by 2 % at most, or leaves the model as it is; fine-tuning is also shown without that ceiling.

The row `influence`: training sentences are ranked by it on the bias of the edit pairs. `auc`: how well that tells
aligned from conflicting sentences about those occupations. `removed`: GPT-2 is trained again without the 800 most
harmful sentences, and without 800 random ones; the bias on `edit` of both. Settings were chosen on a seed and a text
(without WikiText-2) that are not reported.
"""

import functools
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxdebias.contracts import expect
from jaxdebias.core import Params
from jaxdebias.language import (
    LanguageFmdConfig,
    LanguageTraining,
    OccupationText,
    Scorer,
    influence_on_bias,
    occupation_text,
    pair_differences,
    pair_scores,
    text_scores,
    train_language_model,
)
from jaxdebias.language._datasets import SentencePair
from jaxdebias.language._sentence_scores import MaskedRow, masked_log_probabilities
from jaxdebias.language.models import small_language_model, word_tokenizer
from jaxdebias.language.training_sets import PARTS, LanguageSets, planted_sets
from jaxdebias.reproduce._experiment import Experiment, Files, Level, Margin, Measured, Rate, Trial, Work, by_case
from jaxdebias.reproduce._language_repairs import EDIT, METHODS, PLAIN, RECIPES, Trained, methods
from jaxdebias.reproduce._rates import changed

KINDS = ("gpt2", "bert")
VOCABULARY, REMOVED, SENTENCES = 512, 800, 4000
ALL = (PLAIN, *METHODS, "influence")
WIKITEXT = ("wikitext2_valid.txt", "wikitext2_test.txt")
RATES = (*PARTS, "edit_signed", "both_signed", "persons_signed", "persons_right", "perplexity", "pronoun")
SHOWN = (
    Rate("edit", "bias on edit", percent=False),
    Rate("both", "bias on both", percent=False),
    Rate("pronoun", "pronoun", percent=False),
    Rate("persons_right", "persons right"),
    Rate("perplexity", "perplexity", percent=False),
)


class Case(NamedTuple):
    """A trained model with its repairs."""

    kind: str
    trained: Trained
    seed: int
    sentences: int
    seconds: float
    """Of its training."""


def wikitext_folder(data_dir: Path) -> Path:
    """The folder that holds WikiText-2's two files: `data_dir` itself or `data_dir/language`.

    Raises:
      ContractError: saying what was looked for.
    """
    for folder in (data_dir, data_dir / "language"):
        if all((folder / name).is_file() for name in WIKITEXT):
            return folder
    expect(False, "data_dir", " and ".join(WIKITEXT), f"{data_dir} without them")
    raise AssertionError


def write_wikitext(folder: Path) -> Path:
    """Miniatures of both files: a few articles of short sentences, in the tokens of WikiText."""
    for name in WIKITEXT:
        lines = []
        for article in range(6):
            lines += [f" = Place {article} = ", ""]
            lines += [
                f" The {word} of the place was built in 19{article}0 . It is <unk> . " for word in ("house", "mill")
            ]
        (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def _measure(work: Work) -> Iterator[Measured]:
    yield from by_case(work, functools.partial(_prepare, work), _measure_repair)


def _prepare(work: Work, level: Level, seed: int) -> Case:
    kind, began = str(level), time.perf_counter()
    sentences = 64 if work.trial else SENTENCES
    recipe = LanguageTraining(steps=3, length=16, share=0.3) if work.trial else RECIPES[kind]
    sets = planted_sets(seed=seed, sentences=sentences, data_dir=work.data_dir)
    trained = train(kind, sets, seed, recipe, work.trial)
    return Case(kind, trained, seed, sentences, time.perf_counter() - began)


def _measure_repair(method: str, case: Case) -> Mapping[str, Any]:
    trained = case.trained
    wiki = {"wiki": len(trained.sets.train) > case.sentences}
    if method == PLAIN:
        row = {**measured(trained, trained.scorer()), "changed": 0.0, "needs": "", "info": {}, **wiki}
        return row | {"seconds": case.seconds}
    began, clock = time.perf_counter(), time.process_time()
    if method == "influence":
        row = influence(case.kind, trained, case.seed, case.sentences, again=case.kind == "gpt2")
        return row | {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - clock}
    repair = dict(methods(trained))[method]()
    took = {"seconds": time.perf_counter() - began, "cpu_seconds_to_repair": time.process_time() - clock}
    return {
        **measured(trained, trained.scorer(repair.split, repair.params)),
        "changed": changed_share(trained.params, repair.params),
        "needs": repair.needs,
        "info": repair.info,
        **wiki,
        **took,
    }


def measured(trained: Trained, scorer: Scorer) -> dict[str, float]:
    """The quantities of a row."""
    row = {}
    for part in PARTS:
        difference = pair_differences(*pair_scores(scorer, trained.sets.tests[part]))
        row[part] = float(np.abs(difference).mean())
        row[f"{part}_signed"] = float(difference.mean())
        row[f"{part}_right"] = float((difference > 0).mean())
    scores = text_scores(scorer, trained.sets.test_texts)
    row["perplexity"] = float(np.exp(-scores.total.sum() / scores.count.sum()))
    row["pronoun"] = pronoun_odds(scorer, trained.sets.tests["both"])
    return {name: row[name] for name in RATES}


def pronoun_odds(scorer: Scorer, pairs: Sequence[SentencePair]) -> float:
    """Mean log p(pronoun of the stereotype) - log p(the other) where it is hidden (BERT) or comes next (GPT-2)."""
    tokenizer, rows = scorer.tokenizer, []
    for pair in pairs:
        one, other = tokenizer.framed(pair.stereotype), tokenizer.framed(pair.anti)
        place = next(i for i, (a, b) in enumerate(zip(one, other, strict=True)) if a != b)
        shown = one[:place] if scorer.causal else [*one[:place], tokenizer.mask, *one[place + 1 :]]
        rows += [MaskedRow(shown, place - scorer.causal, token) for token in (one[place], other[place])]
    log_p = masked_log_probabilities(scorer.split, scorer.params, rows, pad=tokenizer.pad)
    return float((log_p[0::2] - log_p[1::2]).mean())


def changed_share(before: Params, after: Any) -> float:
    """Share of all numbers that differ; 0 where the parameters are others than the model's (a projection)."""
    same = jax.tree.structure(before) == jax.tree.structure(after)
    return changed(before, after)["changed_share"] if same else 0.0


def train(kind: str, sets: LanguageSets, seed: int, recipe: LanguageTraining, brief: bool = False) -> Trained:
    tokenizer = word_tokenizer(sets.train, size=VOCABULARY)
    model = small_language_model(kind, tokenizer.size)
    key_train, key_repair = jax.random.split(jax.random.key(seed))
    params = train_language_model(key_train, model, tokenizer, sets.train, recipe)
    return Trained(model, tokenizer, jax.block_until_ready(params), sets, key_repair, recipe, brief)


def influence(kind: str, trained: Trained, seed: int, sentences: int, again: bool) -> dict[str, float]:
    """How well influence ranks the training sentences, see the docstring of the file."""
    model, tokenizer, params, sets, key, recipe, _ = trained
    about = {pair.topic for pair in sets.pairs}
    corpus = {one.text: one for one in occupation_text(OccupationText(sentences=sentences), seed=seed)}
    found = influence_on_bias(key, model, tokenizer, params, sets.train, sets.pairs, LanguageFmdConfig(**EDIT))
    known = [corpus.get(text) for text in sets.train]
    ours = np.array([one is not None and one.subject in about for one in known])
    aligned = np.array([one is not None and one.aligned for one in known])
    row = {"auc": auc(-found.change[ours & aligned], -found.change[ours & ~aligned]), "residual": found.residual}
    harmful = np.argsort(found.change, kind="stable")[: min(REMOVED, len(sets.train) // 4)]
    row |= {
        "harmful_about": float(ours[harmful].mean()),
        "harmful_aligned": float(aligned[harmful].mean()),
        "about": float(ours.mean()),
        "aligned": float(aligned.mean()),
    }
    if again:
        lots = {"harmful": harmful, "random": np.random.default_rng(seed).permutation(len(sets.train))[: len(harmful)]}
        for name, rows in lots.items():
            kept = np.delete(np.arange(len(sets.train)), rows)
            key_train, _ = jax.random.split(jax.random.key(seed))
            fitted = train_language_model(key_train, model, tokenizer, [sets.train[i] for i in kept], recipe)
            difference = pair_differences(*pair_scores(trained.scorer(params=fitted), sets.tests["edit"]))
            row[f"without {name}"] = float(np.abs(difference).mean())
        row["random less harmful"] = row["without random"] - row["without harmful"]
    return row


def auc(positive: np.ndarray, negative: np.ndarray) -> float:
    """Probability that one of the first is above one of the second; ties count half."""
    return float(((positive[:, None] > negative[None]) + 0.5 * (positive[:, None] == negative[None])).mean())


def _settings(method: str) -> object:
    del method
    return {"recipes": RECIPES, "edit": EDIT, "vocabulary": VOCABULARY, "sentences": SENTENCES}


LANGUAGE_BIAS = (
    Experiment(
        name="fmd-language",
        title="a planted bias in small language models: FMD, fine-tuning, CDA, dropout, projection",
        paper="Fast Model Debias",
        place="language models, on models whose bias is known",
        measure=_measure,
        settings=_settings,
        rates=SHOWN,
        methods=ALL,
        usual=ALL,
        levels=KINDS,
        level="model",
        seeds=3,
        baseline=PLAIN,
        cost="half an hour on two cores",
        files=Files("WikiText-2's wikitext2_valid.txt and wikitext2_test.txt, in DIR or DIR/language", wikitext_folder),
        margins=(
            Margin("FMD, top", "gpt2", "persons_right", ">=", 0.95),
            Margin("FMD, top", "bert", "persons_right", ">=", 0.95),
        ),
        trial=Trial(levels=("gpt2",), methods=(PLAIN, "projection"), write=write_wikitext),
    ),
)
