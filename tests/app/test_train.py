"""Runs on disk: what is written, read back and refused."""

import contextlib
import json

import numpy as np
import pytest

from jaxdebias.app.debias import DebiasConfig, debias
from jaxdebias.app.recipes import TrainConfig
from jaxdebias.app.run_folder import load
from jaxdebias.app.show import show
from jaxdebias.app.train import _in_all, train
from jaxdebias.contracts import ContractError
from jaxdebias.mitigate import reconstructions
from jaxdebias.mitigate._aug_cell.info import Stage
from jaxdebias.report import print_summary
from jaxdebias.results.codec import read_results
from jaxdebias.results.records import METRICS

KEYS = ("schema", "command", "provenance", "dataset", "variant", "before", "after")
RATES = (
    "accuracy",
    "group_mean_accuracy",
    "worst_group_accuracy",
    "bias_aligned_accuracy",
    "bias_conflicting_accuracy",
    "counterfactual_bias",
)


def config(**changes):
    return TrainConfig(**{"data": "digits", "options": {"conflicting": 0.05}, "epochs": 15, "seed": 3} | changes)


def test_the_stable_keys(trained):
    folder, results = trained
    assert read_results(folder) == results
    assert set(KEYS) <= set(json.loads((folder / "results.json").read_text()))
    assert {*RATES} <= set(METRICS)
    for rate in RATES:
        measured = getattr(results.before, rate)
        assert 0 <= measured.low <= measured.value <= measured.high <= 1
    assert len(results.before.groups) == 100
    assert not (folder / "checkpoints").exists()
    assert len((folder / "log.jsonl").read_text().splitlines()) == 15


def test_the_run_is_judged(trained, capsys):
    """Terminal, page and record say the same of a model that relies on the colour: its twins show it."""
    folder, results = trained
    verdict = results.verdict
    assert [(one.attribute, one.state, one.evidence) for one in verdict.reliance] == [("colour", "shown", "twins")]
    assert (verdict.advice.state, verdict.advice.repair) == ("reliance_retrain", None)
    assert verdict.headline.startswith("The model relies on colour")
    print_summary(results)
    printed = " ".join(capsys.readouterr().out.split())
    page = (folder / "report.html").read_text()
    for text in (printed, page):
        assert verdict.advice.sentence.split(".")[0] in text
        for old in ("follows the", "leans on the", "eave it"):
            assert old not in text
    assert printed.startswith(verdict.headline)


def test_a_run_is_read_back(trained):
    folder, results = trained
    run = load(folder)
    test = run.dataset.splits["test"]
    right = np.asarray(run.classifier.apply(run.params, test.x)).argmax(-1) == test.label
    assert right.mean() == pytest.approx(results.before.accuracy.value)


@pytest.mark.slow
@pytest.mark.unoptimised
def test_aug_cell_says_what_it_guessed_and_chose(tmp_path):
    seen = []

    @contextlib.contextmanager
    def watch(epochs, label):
        yield lambda record: seen.append((record["epoch"], epochs))

    options = {"classes": 2, "train": 400, "edit": 20, "accept": 20, "test": 60, "image_size": 16}
    results = train(
        config(data="scenes", options=options, method="aug-cell", epochs=2, model="mlp"), tmp_path / "run", watch=watch
    )
    assert results.findings[0].startswith("AUG-CELL read no attribute: ")
    assert seen == sorted(seen)
    assert {(0, 8), (2, 8), (8, 8)} <= set(seen)
    assert "AUG-CELL read no attribute" in (tmp_path / "run" / "report.html").read_text()
    run = load(tmp_path / "run")
    test = run.dataset.splits["test"]
    right = np.asarray(run.classifier.apply(run.params, test.x)).argmax(-1) == test.label
    assert right.mean() == pytest.approx(results.before.accuracy.value)


def test_the_count_of_epochs_does_not_fall_where_candidates_are_trained_again():
    seen = []
    tell = _in_all(lambda record: seen.append(record["epoch"]), 6)
    for name, epoch in (
        ("2 judges guess", 0),
        ("erm", 3),
        ("aug-cell", 3),
        ("wrong labels are looked for", 0),
        ("aug-cell", 2),
        ("aug-cell, not augmented", 3),
    ):
        tell(Stage(name, epoch, 3 if epoch else 0, 0.5))
    assert seen == [0, 6, 18, 18, 18, 24]


@pytest.mark.slow
@pytest.mark.unoptimised
def test_dbvae_says_who_was_drawn(tmp_path):
    folder, sizes = tmp_path / "faces", {"train": 400, "edit": 20, "accept": 20, "test": 60}
    trained = train(
        config(data="faces", options=sizes | {"classes": 2, "grey": True}, method="dbvae", epochs=8, batch_size=16),
        folder,
    )
    draws = trained.draws
    assert draws.epochs == tuple(range(1, 9))
    np.testing.assert_allclose(draws.ess_by_epoch[:2], 1.0, rtol=1e-5)  # the warm-up
    assert draws.ess_by_epoch[-1] < 0.9
    kept = np.load(folder / "draws.npz")
    assert kept["weight"].shape == (400,)
    assert kept["weight"].argmax() == draws.rarest[0].index
    assert sum(draws.histogram) == 400
    page = (folder / "report.html").read_text()
    section = page[page.index('<section id="draws">') : page.index('<section id="confusion">')]
    assert section.count("<img") == 2 * 32
    # The network is read back whole, and what was there stays when maps are added.
    run = load(folder)
    rows = [sample.index for sample in draws.rarest]
    decoded = reconstructions(run.vae, run.params, run.dataset.splits["train"].x[rows])
    np.testing.assert_allclose(255 * np.asarray(decoded), kept["rarest"], atol=1)
    assert show(folder, maps=True).draws == draws
    assert section in (folder / "report.html").read_text()
    fixed = debias(folder, DebiasConfig(rounds=1, baselines=False), tmp_path / "fixed")
    assert fixed.edit.parameters_changed in (0, 128 * 2 + 2)


def test_refusals(trained, tmp_path):
    folder, results = trained
    assert train(config(), folder) == results  # the same call again has nothing to do
    with pytest.raises(ContractError, match=r"made with epochs=15, not 16"):
        train(config(epochs=16), folder)
    with pytest.raises(ContractError, match="finished `jaxdebias train`"):
        load(tmp_path)
    with pytest.raises(ContractError, match="another folder"):
        debias(folder, DebiasConfig(), folder)
    assert not (tmp_path / "x").exists()
    with pytest.raises(ContractError, match=r"metadata\.csv"):
        train(config(data="folder", data_dir=tmp_path, options={}), tmp_path / "x")
    assert not (tmp_path / "x").exists()  # a call that could not begin leaves no trace


@pytest.mark.slow
def test_equal_seeds_give_equal_bits(trained, tmp_path):
    again = train(config(), tmp_path / "again")
    assert again.before == trained[1].before
    old, new = (np.load(folder / "params.npz") for folder in (trained[0], tmp_path / "again"))
    for name in old.files:
        np.testing.assert_array_equal(old[name], new[name])
