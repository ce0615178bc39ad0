"""A planted bias in small language models: `python benchmarks/reproduce/language_bias.py --data-dir DIR`.

A small GPT-2 and a small BERT are trained on generated sentences in which 12 occupations go with "she" and 12 with "he"
in 90 % of the cases, with short lines of WikiText-2 mixed in (without DIR: generated text alone, and the rows say so).
A seed is a new training text, new first weights and a new order. What is measured, for every repair:

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
"hides" in the table: of the fall on `edit` less than half is left on `both`, or of `pronoun`.

Influence: training sentences are ranked by it on the bias of the edit pairs. `auc`: how well that tells aligned from
conflicting sentences about those occupations. `removed`: GPT-2 is trained again without the 800 most harmful sentences,
and without 800 random ones; the bias on `edit` of both.

Settings were chosen on a seed and a text (without WikiText-2) that are not reported; `MARGINS` were fixed before the
first full run. Resumable: rows in the file are kept.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from language_repairs import EDIT, METHODS, PLAIN, RECIPES, Trained, methods

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
from jaxdebias.measure import over_seeds
from jaxdebias.results.provenance import device_name, versions

RESULTS = Path(__file__).parents[1] / "results"
KINDS = ("gpt2", "bert")
SEEDS, VOCABULARY, REMOVED = 3, 512, 800
RATES = (*PARTS, "edit_signed", "both_signed", "persons_signed", "persons_right", "perplexity", "pronoun")
# kind, method, quantity, sign, bound. "fall of X": share by which the bias on X falls, mean over seeds. "rise": share
# by which the perplexity rises.
MARGINS = (
    ("gpt2", PLAIN, "edit_signed", ">=", 0.15),
    ("bert", PLAIN, "edit_signed", ">=", 0.10),
    ("gpt2", "FMD, top", "fall of occupations", ">=", 0.5),
    ("gpt2", "FMD, top", "fall of both", ">=", 0.4),
    ("gpt2", "FMD, top", "persons_right", ">=", 0.95),
    ("gpt2", "FMD, top", "rise", "<=", 0.03),
    ("bert", "FMD, top", "fall of occupations", ">=", 0.3),
    ("bert", "FMD, top", "fall of both", ">=", 0.2),
    ("bert", "FMD, top", "persons_right", ">=", 0.95),
    ("bert", "FMD, top", "rise", "<=", 0.04),
    ("gpt2", "influence", "auc", ">=", 0.8),
    ("bert", "influence", "auc", ">=", 0.8),
    ("gpt2", "influence", "random less harmful", ">=", 0.02),
)


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


def changed(before: Params, after: Any) -> float:
    """Share of all numbers that differ; 0 where the parameters are others than the model's (a projection)."""
    if jax.tree.structure(before) != jax.tree.structure(after):
        return 0.0
    leaves = list(zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True))
    return float(sum((np.asarray(a) != np.asarray(b)).sum() for a, b in leaves) / sum(a.size for a, _ in leaves))


def train(kind: str, sets: LanguageSets, seed: int, recipe: LanguageTraining, brief: bool = False) -> Trained:
    tokenizer = word_tokenizer(sets.train, size=VOCABULARY)
    model = small_language_model(kind, tokenizer.size)
    key_train, key_repair = jax.random.split(jax.random.key(seed))
    params = train_language_model(key_train, model, tokenizer, sets.train, recipe)
    return Trained(model, tokenizer, jax.block_until_ready(params), sets, key_repair, recipe, brief)


def influence(kind: str, trained: Trained, seed: int, sentences: int, again: bool) -> dict[str, float]:
    """See the docstring of the script."""
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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = os.environ.get("JAXDEBIAS_DATA")
    parser.add_argument(
        "--data-dir",
        type=Path,
        default=Path(default) if default else None,
        help="folder with wikitext2_valid.txt and wikitext2_test.txt, or language/...; JAXDEBIAS_DATA",
    )
    parser.add_argument("--kinds", nargs="+", choices=KINDS, help="default: all; gpt2 in a trial")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--out", type=Path, default=RESULTS / "language_bias.json")
    parser.add_argument(
        "--trial",
        action="store_true",
        help="few sentences and steps, into a temporary folder, to see that everything runs",
    )
    args = parser.parse_args()
    args.kinds = args.kinds or (["gpt2"] if args.trial else list(KINDS))
    recipes, sentences = RECIPES, 4000
    if args.trial:
        recipes = {kind: LanguageTraining(steps=3, length=16, share=0.3) for kind in KINDS}
        sentences, args.seeds, args.out = 64, 1, Path(tempfile.mkdtemp()) / args.out.name
    table = json.loads(args.out.read_text()) if args.out.exists() else {"rows": []}
    for kind in args.kinds:
        for seed in range(args.seeds):
            fill(table, args.out, kind, seed, sentences, recipes[kind], args.data_dir, args.trial)
    wanted = {(kind, seed) for kind in KINDS for seed in range(SEEDS)}
    wanted = {(*cell, method) for cell in wanted for method in (PLAIN, *METHODS, "influence")}
    there = {(row["kind"], row["seed"], row["method"]) for row in table["rows"]}
    if not args.trial and wanted - there:
        print("not all rows are there yet: no summary")
        return 0
    table["summary"] = summary(table["rows"])
    table["margins"] = verdicts(table["summary"])
    write(args.out, table)
    print(args.out)
    for one in table["margins"]:
        print(
            f"{'met   ' if one['met'] else 'MISSED'} {one['kind']}, {one['method']}, {one['quantity']} "
            f"{one['margin']}, got {one['got']:.3f}"
        )
    return int(not args.trial and any(not one["met"] for one in table["margins"]))


def fill(
    table: dict[str, Any],
    path: Path,
    kind: str,
    seed: int,
    sentences: int,
    recipe: LanguageTraining,
    data_dir: Path | None,
    brief: bool = False,
) -> None:
    """The missing rows of one model; the model is trained again where some are missing, to the same bits."""
    done = {row["method"] for row in table["rows"] if (row["kind"], row["seed"]) == (kind, seed)}
    if done >= {PLAIN, *METHODS, "influence"}:
        return
    sets = planted_sets(seed=seed, sentences=sentences, data_dir=data_dir)
    began, clock = time.perf_counter(), time.process_time()
    trained = train(kind, sets, seed, recipe, brief)

    def add(method: str, row: dict[str, Any]) -> None:
        here = {
            "kind": kind,
            "seed": seed,
            "method": method,
            **row,
            "seconds": time.perf_counter() - began,
            "cpu_seconds": time.process_time() - clock,
        }
        if method != "influence":
            here |= {"wiki": len(sets.train) > sentences}
        table["rows"].append(here)
        table.update({"device": device_name(), "versions": versions(), "date": time.strftime("%Y-%m-%d")})
        write(path, table)
        print(
            kind,
            seed,
            method,
            {
                name: round(here[name], 3)
                for name in ("edit", "both", "persons", "perplexity", "pronoun", "auc")
                if name in here
            },
            f"{here['cpu_seconds']:.0f} s",
            flush=True,
        )

    if PLAIN not in done:
        add(PLAIN, {**measured(trained, trained.scorer()), "changed": 0.0, "needs": "", "info": {}})
    for name, fit in methods(trained):
        if name in done:
            continue
        began, clock = time.perf_counter(), time.process_time()
        repair = fit()
        took = {"seconds_to_repair": time.perf_counter() - began, "cpu_seconds_to_repair": time.process_time() - clock}
        row = measured(trained, trained.scorer(repair.split, repair.params))
        add(
            name,
            {
                **row,
                "changed": changed(trained.params, repair.params),
                "needs": repair.needs,
                "info": repair.info,
                **took,
            },
        )
    if "influence" in done:
        return
    began, clock = time.perf_counter(), time.process_time()
    add("influence", influence(kind, trained, seed, sentences, again=kind == "gpt2"))


def summary(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Per kind and method: means over seeds with their t-intervals; falls and rises are paired by seed."""
    said = []
    for kind, method in dict.fromkeys((row["kind"], row["method"]) for row in rows):
        own = {row["seed"]: row for row in rows if (row["kind"], row["method"]) == (kind, method)}
        plain = {row["seed"]: row for row in rows if (row["kind"], row["method"]) == (kind, PLAIN)}
        numbers = [
            name
            for name, value in next(iter(own.values())).items()
            if isinstance(value, float) and name not in ("seconds", "cpu_seconds")
        ]
        one: dict[str, Any] = {"kind": kind, "method": method, "seeds": len(own)}
        one |= {name: interval([row[name] for row in own.values()]) for name in numbers}
        if method not in (PLAIN, "influence"):
            for part in PARTS:
                one[f"fall of {part}"] = interval([1 - row[part] / plain[seed][part] for seed, row in own.items()])
            one["rise"] = interval([row["perplexity"] / plain[seed]["perplexity"] - 1 for seed, row in own.items()])
            one["fall of pronoun"] = interval(
                [1 - row["pronoun"] / plain[seed]["pronoun"] for seed, row in own.items()]
            )
            fallen = one["fall of edit"]["value"]
            carried = {part: one[f"fall of {part}"]["value"] >= 0.5 * fallen for part in ("both", "pronoun")}
            one["hides"] = [part for part, far in carried.items() if fallen > 0.2 and not far]
            one["needs"] = next(iter(own.values()))["needs"]
            one["kept as it was"] = sum(
                row["info"].get("chosen") == "as it is" or row["info"].get("accepted") is False for row in own.values()
            )
        said.append(one)
    return said


def interval(values: Sequence[float]) -> dict[str, float]:
    return {name: round(float(value), 5) for name, value in over_seeds(values)._asdict().items()}


def verdicts(said: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    found = {(one["kind"], one["method"]): one for one in said}
    judged = []
    for kind, method, quantity, sign, bound in MARGINS:
        if quantity in found.get((kind, method), {}):
            got = found[kind, method][quantity]["value"]
            judged.append(
                {
                    "kind": kind,
                    "method": method,
                    "quantity": quantity,
                    "margin": f"{sign} {bound}",
                    "got": got,
                    "met": got >= bound if sign == ">=" else got <= bound,
                }
            )
    return judged


def write(path: Path, table: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(table, indent=1) + "\n")
    os.replace(temporary, path)


if __name__ == "__main__":
    sys.exit(main())
