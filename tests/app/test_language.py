"""A checkpoint in, a repaired one out: end to end on small and on randomly initialised models, and the command line."""

import importlib
import json
import pathlib

import jax
import numpy as np
import pytest

from jaxdebias.app import cli
from jaxdebias.app.language import LanguageDebiasConfig, debias_language
from jaxdebias.app.language_tests import language_tests
from jaxdebias.contracts import ContractError
from jaxdebias.language.models import (
    BertConfig,
    Gpt2Config,
    bert,
    gpt2,
    load_checkpoint,
    read_tokenizer,
    save_checkpoint,
    word_tokenizer,
)
from jaxdebias.language.training_sets import checkpoint_sets
from jaxdebias.report.language_markdown import markdown, side_by_side
from jaxdebias.results.codec import read_results, to_json

ROOT = pathlib.Path(__file__).parents[2]
SIZE = {"positions": 64, "width": 8, "depth": 2, "heads": 2, "hidden": 16}


def checkpoint(kind, folder):
    """A randomly initialised one, in the layout of Hugging Face."""
    sets = checkpoint_sets(None)
    every = [*sets.train, *(text for pairs in sets.tests.values() for pair in pairs for text in pair[:2])]
    tokenizer = word_tokenizer(every)
    model = (
        gpt2(Gpt2Config(vocabulary=tokenizer.size, **SIZE))
        if kind == "gpt2"
        else bert(BertConfig(vocabulary=tokenizer.size, **SIZE))
    )
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: (0.3 * rng.normal(size=leaf.shape) + (leaf.ndim == 1)).astype(np.float32),
        jax.eval_shape(model.init, jax.random.key(0)),
    )
    save_checkpoint(folder, model, params, tokenizer)
    return folder


def sentences(folder):
    """A StereoSet and a CrowS-Pairs of two items each."""
    items = [
        {
            "id": str(i),
            "target": "nurse",
            "bias_type": "gender",
            "context": f"The nurse was {when} BLANK.",
            "sentences": {
                kind: f"The nurse was {when} {word}."
                for kind, word in (("stereotype", "late"), ("anti-stereotype", "ready"), ("unrelated", "mirror"))
            },
        }
        for i, when in enumerate(("again", "tired"))
    ]
    (folder / "stereoset_gender.json").write_text(json.dumps(items))
    (folder / "crows_pairs_anonymized.csv").write_text(
        ",sent_more,sent_less,stereo_antistereo,bias_type\n0,she was late.,he was late.,stereo,gender\n"
        "1,the nurse left.,the chef left.,antistereo,socioeconomic\n"
    )
    return folder


def test_bad_input_is_one_line(tmp_path):
    with pytest.raises(ContractError, match="did you mean 'mlp'"):
        debias_language(LanguageDebiasConfig(block="mpl"), tmp_path / "out")
    with pytest.raises(ContractError, match=r"a folder with config\.json"):
        debias_language(LanguageDebiasConfig(checkpoint=tmp_path), tmp_path / "out")
    with pytest.raises(ContractError, match="another folder than the checkpoint"):
        debias_language(LanguageDebiasConfig(checkpoint=tmp_path), tmp_path)
    with pytest.raises(ContractError, match="`data_dir`: expected a folder"):
        debias_language(LanguageDebiasConfig(data_dir=tmp_path / "no"), tmp_path / "out")
    (tmp_path / "results.json").write_text("{}")
    with pytest.raises(ContractError, match=r"a folder without results.*results of something else"):
        debias_language(LanguageDebiasConfig(), tmp_path)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("debias-language", "--checkpoint", "nowhere"), "a folder with config.json"),
        (("debias-language", "run"), "run"),
        (("debias-language", "--method", "dfr"), "--method"),
        (("debias-language", "--block", "last-2"), "expected one of transform, mlp, top"),
        (("debias", "run", "--checkpoint", "folder"), "--checkpoint"),
    ],
)
def test_the_command_line_says_what_is_wrong(capsys, tmp_path, monkeypatch, arguments, expected):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("JAXDEBIAS_DATA", raising=False)
    with pytest.raises(SystemExit) as stop:
        cli.main([*arguments, "--out", "out"])
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert error.count("\n") == 1
    assert expected in error


LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 665\n"


def edited(**changes):
    def change(folder):
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return change


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda folder: (folder / "config.json").write_text(LFS), "got a Git LFS pointer (run `git lfs pull`"),
        (
            lambda folder: (folder / "config.json").write_text("<html>"),
            "`config.json`: expected a JSON file, got Exp",
        ),
        (lambda folder: (folder / "config.json").write_text("[]"), "`config.json`: expected a JSON object"),
        (edited(n_head=None), "`n_head in config.json`: expected a whole number of at least 1, got None"),
        (edited(vocab_size="12"), "`vocab_size in config.json`: expected a whole number of at least 1"),
        (edited(resid_pdrop=[]), "`resid_pdrop in config.json`: expected a number in 0..1, below 1"),
        (lambda folder: (folder / "tokenizer.json").write_text(LFS), "got a Git LFS pointer (run `git lfs pull`"),
        (
            lambda folder: (folder / "tokenizer.json").write_text('{"model": 3}'),
            "`model in tokenizer.json`: expected an",
        ),
        (
            lambda folder: (folder / "tokenizer.json").write_text('{"model": {}}'),
            "`tokenizer.json`: expected a token",
        ),
    ],
)
def test_damaged_checkpoints_are_one_line(capsys, tmp_path, monkeypatch, change, expected):
    monkeypatch.delenv("JAXDEBIAS_DATA", raising=False)
    folder = checkpoint("gpt2", tmp_path / "mine")
    change(folder)
    with pytest.raises(SystemExit) as stop:
        cli.main(["debias-language", "--checkpoint", str(folder), "--out", str(tmp_path / "out")])
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert error.count("\n") == 1
    assert expected in error
    assert not (tmp_path / "out").exists()


def test_a_byte_order_mark_is_no_fault(tmp_path):
    folder = checkpoint("gpt2", tmp_path / "mine")
    for name in ("config.json", "tokenizer.json"):
        (folder / name).write_bytes(b"\xef\xbb\xbf" + (folder / name).read_bytes())
    load_checkpoint(folder)
    read_tokenizer(folder)


def test_sentences_that_do_not_fit_are_left_out(tmp_path):
    sentences(tmp_path)
    sets = checkpoint_sets(None)
    tokenizer = word_tokenizer(sets.train)
    model = gpt2(Gpt2Config(vocabulary=tokenizer.size, **{**SIZE, "positions": 8}))
    tests = language_tests(sets, model, tokenizer, tmp_path)
    assert [len(item.sentences) for item in tests.stereoset["gender"]] == [3, 3]
    assert set(tests.crows) == {"all", "gender"}
    assert "edit" not in tests.pairs or all(len(tokenizer.encode(pair.stereotype)) <= 6 for pair in tests.pairs["edit"])


@pytest.mark.slow
@pytest.mark.unoptimised
@pytest.mark.parametrize("kind", ["gpt2", "bert"])
def test_a_random_checkpoint_end_to_end(kind, tmp_path, monkeypatch, capsys):
    """One command gives both tables before and after; what is written can be read again."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks" / "reproduce"))
    stereosets = importlib.import_module("stereosets")
    folder = checkpoint(kind, tmp_path / "mine")
    data = tmp_path / "data"
    data.mkdir()
    arguments = [str(folder), "--data-dir", str(sentences(data)), "--out", str(tmp_path / "out"), "--rounds", "1"]
    assert stereosets.main(arguments) == 0
    page = capsys.readouterr().out
    assert page.count("| mine | gender, SS |") == 1
    assert "## CrowS-Pairs" in page
    results = read_results(tmp_path / "out" / "mine")
    assert json.loads((tmp_path / "out" / "stereosets.json").read_text())["mine"] == to_json(results)
    assert markdown(results) == (tmp_path / "out" / "mine" / "report.md").read_text()
    assert side_by_side({"mine": results}) + "\n" == page
    assert set(results.before.stereoset) == {"gender"}
    assert set(results.before.crows) == {"all", "gender"}
    assert len(results.harmful) == len({one.text for one in results.harmful}) == 8
    assert set(results.baselines) == {"projection"}
    (model, params), (again, repaired) = load_checkpoint(folder), load_checkpoint(tmp_path / "out" / "mine" / "model")
    assert again is model
    changed = sum(
        int((np.asarray(a) != np.asarray(b)).sum())
        for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(repaired), strict=True)
    )
    assert 0 <= changed <= results.edit.parameters
    assert (changed > 0) == results.edit.accepted
    # A second call keeps what is there.
    stamp = (tmp_path / "out" / "mine" / "results.json").stat().st_mtime_ns
    assert stereosets.main(arguments) == 0
    assert (tmp_path / "out" / "mine" / "results.json").stat().st_mtime_ns == stamp


@pytest.mark.slow
@pytest.mark.unoptimised
def test_the_small_model_from_the_command_line(capsys, tmp_path):
    """A few steps only: that the whole way runs, and that what it writes can be repaired once more."""
    config = LanguageDebiasConfig(steps=2, rounds=1, sentences=150)
    results = debias_language(config, tmp_path / "one")
    capsys.readouterr()
    assert set(results.baselines) == {"projection", "cda"}
    assert results.before.stereoset == {}
    assert "## StereoSet" not in markdown(results)
    load_checkpoint(tmp_path / "one" / "model", head_bias=True)
    with pytest.raises(SystemExit) as stop:
        cli.main(["check", str(tmp_path / "one"), "--min-accuracy", "0.5"])
    assert stop.value.code == 1
    assert capsys.readouterr().out == "cannot be judged: debias-language measured no accuracy here\n"
    cli.main(["show", str(tmp_path / "one")])
    assert capsys.readouterr().out.strip() == markdown(results).strip()
