"""What a folder shows, and what `--maps` and `--patches` add to it."""

import dataclasses

import numpy as np
import pytest

from jaxdebias.app import show as showing
from jaxdebias.app.debias import DebiasConfig, debias
from jaxdebias.app.recipes import TrainConfig
from jaxdebias.app.run_folder import load
from jaxdebias.app.show import show
from jaxdebias.app.train import train
from jaxdebias.auditing import patch_places
from jaxdebias.contracts import ContractError
from jaxdebias.results.codec import read_results


def config(**changes):
    return TrainConfig(**{"data": "digits", "options": {"conflicting": 0.05}, "epochs": 15, "seed": 3} | changes)


def test_show_without_maps_reads_what_was_measured(trained, tmp_path):
    folder, results = trained
    assert show(folder) == results
    with pytest.raises(ContractError, match=r"results\.json that a command has written"):
        show(tmp_path)


def test_maps_of_what_has_none_are_refused_in_one_line(trained, monkeypatch):
    folder, _ = trained
    kept = (folder / "results.json").read_bytes()
    with pytest.raises(ContractError, match=r"`maps`: expected .*train with --model cnn or pooled-cnn\), got mlp"):
        show(folder, maps=True)
    run = load(folder)
    table = run.dataset.splits["test"]._replace(x=np.zeros((4, 3), np.float32))
    monkeypatch.setattr(
        showing,
        "load",
        lambda *_, **__: run._replace(
            dataset=dataclasses.replace(run.dataset, name="adult", splits={"train": table, "test": table})
        ),
    )
    with pytest.raises(ContractError, match="`maps`: expected a run on images, got adult, a table"):
        show(folder, maps=True)
    with pytest.raises(ContractError, match="`patches`: expected a run on images, got adult, a table"):
        show(folder, patches=True)
    assert (folder / "results.json").read_bytes() == kept


@pytest.mark.slow
@pytest.mark.unoptimised
def test_maps_are_added_to_a_run(tmp_path):
    folder = tmp_path / "scenes"
    sizes = {"train": 160, "edit": 40, "accept": 40, "test": 60}
    trained = train(config(data="scenes", options=sizes, epochs=1), folder)
    old_page = (folder / "report.html").read_text()
    results = show(folder, maps=True)
    assert read_results(folder) == results
    assert dataclasses.replace(results, maps=None, provenance=trained.provenance) == trained
    maps = results.maps
    assert maps.regions == ("object", "background")
    assert [row.n for row in maps.rows] == [60, 30, 30, 15, 15, 15, 15]
    for row in maps.rows:
        assert all(region.chance > region.area > 0 for region in row.regions)
    page = (folder / "report.html").read_text()
    start, end = page.index('<section id="maps">'), page.index('<section id="confusion">')
    # What was there before is there still, picture by picture; only the time has grown.
    assert (page[:start] + page[end:]).split("<footer")[0].split() == old_page.split("<footer")[0].split()
    assert "chance 0." in page[start:end]
    again = show(folder, maps=True)
    assert again.maps == maps
    assert set(again.provenance.seconds_by_step) == {*trained.provenance.seconds_by_step, "maps"}

    # Of a repaired run: the maps of the repaired model, and nothing else on its page changes.
    fixed = tmp_path / "fixed"
    repaired = debias(folder, DebiasConfig(method="dfr", baselines=False), fixed)
    old_page = (fixed / "report.html").read_text()
    of_fixed = show(fixed, maps=True)
    assert dataclasses.replace(of_fixed, maps=None, provenance=repaired.provenance) == repaired
    assert of_fixed.maps.rows != maps.rows
    page = (fixed / "report.html").read_text()
    start, end = page.index('<section id="maps">'), page.index('<section id="confusion">')
    assert (page[:start] + page[end:]).split("<footer")[0].split() == old_page.split("<footer")[0].split()
    assert "after the repair" in page[start:end]
    folder.rename(tmp_path / "elsewhere")
    with pytest.raises(ContractError, match="`run`: expected the trained run that it was repaired from"):
        show(fixed, maps=True)


@pytest.mark.slow
@pytest.mark.unoptimised
def test_patches_are_added_to_a_run(tmp_path, monkeypatch):
    find = patch_places.audit_patches
    monkeypatch.setattr(
        patch_places,
        "audit_patches",
        lambda key, dataset: find(key, dataset, patch_places.PlacesConfig(steps=20, train=120, examples=8)),
    )
    folder = tmp_path / "scenes"
    sizes = {"train": 160, "edit": 40, "accept": 40, "test": 60}
    trained = train(config(data="scenes", options=sizes, epochs=1), folder)
    old_page = (folder / "report.html").read_text()
    results = show(folder, patches=True)
    assert read_results(folder) == results
    patches = results.patches
    assert (patches.split, patches.rows, len(patches.examples)) == ("edit", 40, 8)
    kept = np.load(folder / "patches.npz")
    assert kept["attribute"].shape == kept["example_label"].shape[1:]
    assert np.shape(patches.attribute.map) == tuple(-(-side // patches.stride) for side in kept["attribute"].shape)
    page = (folder / "report.html").read_text()
    start, end = page.index('<section id="patches">'), page.index('<section id="confusion">')
    # What was there before is there still; and this part is, with its pictures, when maps are added.
    assert (page[:start] + page[end:]).split("<footer")[0].split() == old_page.split("<footer")[0].split()
    again = show(folder, maps=True)
    assert again.patches == patches
    assert page[start:end] in (folder / "report.html").read_text()
    assert set(again.provenance.seconds_by_step) == {*trained.provenance.seconds_by_step, "patches", "maps"}
