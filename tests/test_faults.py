"""Kills, flipped bits and machines that refuse: small versions of `benchmarks/faults`."""

import errno
import os
import resource
import shutil

import jax
import pytest
from train.tiny import BARE, table

from benchmarks.faults import flips, kills
from jaxdebias.app.result_set import claim
from jaxdebias.contracts import ContractError
from jaxdebias.mitigate import erm
from jaxdebias.train import FitConfig, fit, save_params

LEARNER, KEY, DATA = erm(BARE), jax.random.key(0), table(48)


def trained(out, epochs=2):
    """A training that leaves its weights and its log, and begins as the command does: without half-written files."""
    for part in out.glob(".*.part"):
        part.unlink()
    shutil.rmtree(out / "done", ignore_errors=True)
    config = FitConfig(epochs=epochs, batch_size=16)
    found = fit(KEY, LEARNER, DATA, config, checkpoint=out / "checkpoints", log=out / "log.jsonl")
    save_params(out / "params.npz", found.state.variables)
    os.replace(out / "checkpoints", out / "done")  # half removed they would be refused as damaged
    shutil.rmtree(out / "done")


def test_the_harness_sees_a_command_that_does_not_survive(tmp_path):
    def careless(out):
        out.mkdir(exist_ok=True)
        if not (out / "a").exists():
            (out / "a").write_text("whole")
            (out / "b").write_text("whole")

    found = kills.kill_everywhere(careless, tmp_path)
    assert found.states == 2
    assert found.failures == ["1: b"]
    assert found.equal == 1


@pytest.mark.slow
@pytest.mark.unoptimised
def test_a_training_killed_at_any_call_ends_with_the_same_bits(tmp_path):
    found = kills.kill_everywhere(trained, tmp_path)
    assert found.failures == []
    assert found.states == found.equal > 15


@pytest.mark.slow
@pytest.mark.unoptimised
def test_a_command_killed_at_any_call_ends_with_the_same_bits(tmp_path):
    found = kills.kill_everywhere(kills.commands(tmp_path)["audit-predictions"](), tmp_path / "kills")
    assert found.failures == []
    assert found.states == found.equal > 10


@pytest.mark.slow
@pytest.mark.unoptimised
def test_flipped_bits_are_noticed_and_named(tmp_path):
    outcomes, by_file, bad = flips.measure(60, 1, tmp_path)
    assert bad == []
    assert outcomes["refused, file named"] > 40
    assert len(by_file) > 8


@pytest.mark.slow
@pytest.mark.unoptimised
def test_a_limit_on_the_size_of_files_stops_in_one_line_and_resumes_to_the_same_bits(tmp_path):
    trained(tmp_path / "whole")
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (600, limit[1]))
        with pytest.raises(ContractError, match="expected room and permission to write it") as error:
            trained(tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert "\n" not in str(error.value)
    trained(tmp_path / "out")
    whole, again = kills.files(tmp_path / "whole"), kills.files(tmp_path / "out")
    assert whole["params.npz"] == again["params.npz"]
    assert set(whole) == set(again)


def claimed(out, work, **options):
    with claim(out, "a", {}, **options) as run:
        work(run)
    return run


def test_a_folder_that_vanishes_stops_the_command_and_leaves_no_half_set(tmp_path):
    out = tmp_path / "out"

    def removed(run):
        run.keep(first=1)
        shutil.rmtree(out)
        run.keep(second=2)

    def replaced(run):
        shutil.rmtree(out)
        out.mkdir()
        (out / "results.json").write_text("{}")

    for work in (removed, replaced):
        with pytest.raises(ContractError, match="the folder that was there at the start"):
            claimed(out, work)
        assert not (out / "results.json").exists()


def test_a_second_command_in_one_folder_is_refused_in_one_line(tmp_path):
    with pytest.raises(ContractError, match="got one in use"):
        claimed(tmp_path, lambda run: claimed(tmp_path, print))


def test_measurements_that_have_changed_are_not_carried_on(tmp_path):
    def stopped(run):
        run.keep(first=0.25)
        raise MemoryError

    with pytest.raises(MemoryError):
        claimed(tmp_path, stopped)
    path = tmp_path / "measurements.json"
    path.write_text(path.read_text().replace("0.25", "0.75"))
    with pytest.raises(ContractError, match=r"measurements\.json.*checksum differs"):
        claimed(tmp_path, print)
    assert claimed(tmp_path, lambda run: None, overwrite=True).measured == {}


def test_a_result_that_cannot_be_read_is_not_taken_for_another(tmp_path, monkeypatch):
    (tmp_path / "results.json").write_text("{}")
    refuse = PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    monkeypatch.setattr("pathlib.Path.read_text", lambda *_, **__: (_ for _ in ()).throw(refuse))
    with pytest.raises(ContractError, match=r"results\.json`: expected a file that can be read"):
        claimed(tmp_path, print)
