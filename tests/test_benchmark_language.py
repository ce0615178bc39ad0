"""The script's rows mean what its docstring says, and the page says what the rows say."""

import importlib
import json
import pathlib
import re

import jax.numpy as jnp
import numpy as np
import pytest

from jaxdebias.core import Split
from jaxdebias.language import Scorer
from jaxdebias.language._datasets import SentencePair
from jaxdebias.language.models import word_tokenizer
from jaxdebias.language.training_sets import PARTS
from jaxdebias.reproduce._language_bias import RATES, auc, changed_share, pronoun_odds
from jaxdebias.reproduce._language_repairs import METHODS

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks" / "reproduce"))
    return importlib.import_module("language_bias")


def row(script, kind, seed, method, level, **values):
    rates = dict.fromkeys(RATES, 0.5) | dict.fromkeys(PARTS, level) | values
    return {
        "kind": kind,
        "seed": seed,
        "method": method,
        **rates,
        "changed": 0.1,
        "needs": "pairs",
        "info": {"accepted": True},
        "seconds": 9.0,
        "cpu_seconds": 8.0,
        "seconds_to_repair": 2.0,
        "cpu_seconds_to_repair": 1.0 + seed,
    }


def rows(script):
    for kind in script.KINDS:
        for seed in range(3):
            yield row(
                script, kind, seed, script.PLAIN, 0.2, edit_signed=0.2, persons_right=1.0, perplexity=4.0, pronoun=2.0
            )
            # Seed 0 halves the bias, the others take it away but for a tenth; on `both` BERT keeps nearly all.
            left = 0.1 if seed == 0 else 0.02
            yield row(
                script,
                kind,
                seed,
                "FMD, top",
                left,
                both=left if kind == "gpt2" else 0.18,
                persons_right=0.97,
                perplexity=4.04,
                pronoun=0.2,
            )
            yield row(script, kind, seed, "CDA", 0.02, perplexity=4.04, pronoun=1.9)
            yield {"kind": kind, "seed": seed, "method": "influence", "auc": 0.9, "residual": 0.1}


def test_falls_are_paired_and_what_hides_is_called_so(script):
    said = {(one["kind"], one["method"]): one for one in script.summary(list(rows(script)))}
    top = said["gpt2", "FMD, top"]
    assert top["seeds"] == 3
    assert top["fall of occupations"]["value"] == pytest.approx((0.5 + 0.9 + 0.9) / 3, abs=1e-4)
    assert top["rise"]["value"] == pytest.approx(0.01)
    assert top["cpu_seconds_to_repair"]["value"] == pytest.approx(2.0)
    assert (top["hides"], said["bert", "FMD, top"]["hides"]) == ([], ["both"])
    assert said["gpt2", "CDA"]["hides"] == ["pronoun"]
    assert top["kept as it was"] == 0
    assert "fall of both" not in said["gpt2", script.PLAIN]
    verdicts = {
        (one["kind"], one["method"], one["quantity"]): one["met"] for one in script.verdicts(list(said.values()))
    }
    assert verdicts["gpt2", "FMD, top", "fall of both"]
    assert not verdicts["bert", "FMD, top", "fall of both"]
    assert ("gpt2", "influence", "random less harmful") not in verdicts


def test_the_page(script, tables, tmp_path):
    assert tables.language_bias() == "Not measured yet."
    table = {
        "rows": list(rows(script)),
        "device": "cpu",
        "date": "today",
        "versions": {"jax": "1", "flax": "2", "python": "3"},
    }
    (tmp_path / "language_bias.json").write_text(json.dumps(table))
    assert tables.language_bias() == "Not measured yet."
    table["summary"] = script.summary(table["rows"])
    table["margins"] = script.verdicts(table["summary"])
    (tmp_path / "language_bias.json").write_text(json.dumps(table))
    page = tables.language_bias()
    assert page.count("| trained, no repair |") == 2
    assert page.count("hides the bias: pronoun fell by less than half as much") == 2
    assert page.count("hides the bias: both fell by less than half as much") == 1
    assert "- **missed**: bert, FMD, top, fall of both" in page
    assert "today" in page


def test_the_pronoun_is_asked_where_it_is_hidden():
    tokenizer = word_tokenizer(["the cook said she left", "he"])
    size = tokenizer.size
    table = jnp.asarray(np.random.default_rng(0).normal(size=size), jnp.float32)

    def features(params, tokens):
        return jnp.broadcast_to(params, (*tokens.shape, size))

    pairs = [SentencePair("the cook said she left", "the cook said he left", "cook")]
    she, he = tokenizer.encode("she he")
    for causal in (True, False):
        scorer = Scorer(Split(features, lambda params, z: z), table, tokenizer, causal, 8)
        assert pronoun_odds(scorer, pairs) == pytest.approx(float(table[she] - table[he]), rel=1e-5)


def test_auc_and_changed_numbers():
    assert auc(np.array([1.0, 3.0]), np.array([0.0, 2.0, 3.0])) == pytest.approx((1 + 2.5) / 6)
    before = {"a": np.zeros(3), "b": np.ones(1)}
    assert changed_share(before, {"a": np.array([0.0, 1.0, 0.0]), "b": np.ones(1)}) == 0.25
    assert changed_share(before, (before, np.ones(2))) == 0.0


def test_methods_are_those_that_the_rows_need():
    source = (ROOT / "jaxdebias" / "reproduce" / "_language_repairs.py").read_text()
    assert re.findall(r'^    yield \(?\s*"([^"]+)"', source, re.MULTILINE) == [*METHODS]
