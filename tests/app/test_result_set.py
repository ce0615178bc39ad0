"""A result set is complete, or unfinished and carried on; nothing that happens leaves half of one, or loses one."""

import contextlib
import json
import os

import pytest

from jaxdebias.app import result_set
from jaxdebias.app.result_set import claim
from jaxdebias.contracts import ContractError
from jaxdebias.files import write_text


class Killed(BaseException):
    """Nothing is cleaned up after it."""


def make(out, value, *, overwrite=False, arguments=None):
    """A command of two steps, which writes what a former call has not."""
    steps = []
    with claim(out, "make", arguments or {"value": value}, overwrite=overwrite) as run:
        if run.complete:
            return "complete"
        for step in ("first", "second"):
            if step not in run.measured:
                steps.append(step)
                run.keep(**{step: value})
        write_text(run.folder / "report.md", f"{value}")
        if value > 1:
            write_text(run.folder / "draws.npz", "of large values")
        content = {"command": "make", "provenance": {"arguments": dict(run.arguments)}, "value": value}
        write_text(run.folder / "results.json", json.dumps(content))
    return steps


def files(out):
    return {path.name for path in out.iterdir()}


def value(out):
    return json.loads((out / "results.json").read_text())["value"]


def test_a_complete_set_is_handed_back(tmp_path):
    out = tmp_path / "a" / "out"
    assert make(out, 1) == ["first", "second"]
    assert files(out) == {"results.json", "report.md"}
    assert make(out, 1) == "complete"
    with pytest.raises(ContractError, match=r"a folder without results.*got .*, made with value=1, not 2"):
        make(out, 2)
    assert value(out) == 1


def test_other_results_are_refused(tmp_path):
    for content, said in (
        ({"command": "other"}, "which has results of other"),
        ({"dataset": "digits"}, "which has results of something else"),
    ):
        (tmp_path / "results.json").write_text(json.dumps(content))
        with pytest.raises(ContractError, match=said):
            make(tmp_path, 1)
    (tmp_path / "results.json").write_text("half of i")
    with pytest.raises(ContractError, match="which has results of something else"):
        make(tmp_path, 1)
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(ContractError, match=r"expected a folder, got .*which is a file"):
        make(file, 1)


def test_overwrite_replaces_as_a_whole_and_spares_what_is_not_ours(tmp_path):
    make(tmp_path, 2)
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights").write_text("mine")
    make(tmp_path, 1, overwrite=True)
    assert value(tmp_path) == 1
    assert files(tmp_path) == {"results.json", "report.md", "notes.txt", "model"}
    assert (tmp_path / "model" / "weights").read_text() == "mine"
    assert make(tmp_path, 1, overwrite=True) == ["first", "second"]  # asked for anew, done anew


def test_a_failed_overwrite_keeps_the_old_result(tmp_path):
    make(tmp_path, 2)
    with pytest.raises(ContractError, match="wrong name"), claim(tmp_path, "make", {"value": 3}, overwrite=True):
        raise ContractError("wrong name")
    assert value(tmp_path) == 2
    assert files(tmp_path) == {"results.json", "report.md", "draws.npz"}


def test_a_failure_before_anything_was_kept_leaves_no_trace(tmp_path):
    out = tmp_path / "a" / "out"
    with pytest.raises(ContractError), claim(out, "make", {"value": 1}):
        raise ContractError("wrong name")
    assert not (tmp_path / "a").exists()


def broken(out):
    """A call that fails after its first step."""
    with contextlib.suppress(MemoryError), claim(out, "make", {"value": 1}) as run:
        run.keep(first=1)
        raise MemoryError


def test_a_failure_later_keeps_what_was_measured_for_the_same_call(tmp_path):
    broken(tmp_path)
    with pytest.raises(ContractError, match=r"the command that was stopped there .* made with value=1, not 2"):
        make(tmp_path, 2)
    assert make(tmp_path, 1) == ["second"]
    broken(tmp_path / "b")
    assert make(tmp_path / "b", 2, overwrite=True) == ["first", "second"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_killed_at_any_moment_the_same_call_finishes(tmp_path, monkeypatch, overwrite):
    """Dies at the n-th change of the file system, for every n, with no chance to clean up."""
    real = {name: getattr(os, name) for name in ("replace", "rename", "rmdir", "unlink")}
    n, finished = 0, False
    while not finished:
        n += 1
        out = tmp_path / str(n)
        if overwrite:
            make(out, 2)
        left = [n]

        def counted(name, left=left):
            def call(*arguments, **options):
                if left[0] <= 1:
                    left[0] = 0
                    raise Killed
                left[0] -= 1
                return real[name](*arguments, **options)

            return call

        with monkeypatch.context() as patch:
            for name in real:
                patch.setattr(os, name, counted(name))
            try:
                make(out, 3, overwrite=overwrite)
                finished = True
            except Killed:
                pass
        if overwrite and (out / "results.json").exists():
            assert value(out) in (2, 3)
            assert (out / "report.md").read_text() in ("2", "3")
        assert make(out, 3, overwrite=overwrite) in (["first", "second"], ["second"], [], "complete")
        assert files(out) - {result_set.MOVING} == {"results.json", "report.md", "draws.npz"}
        assert value(out) == 3
        assert (out / "report.md").read_text() == "3"
    assert n > (8 if overwrite else 5)
