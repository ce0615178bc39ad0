"""Kills of a command at each of its calls to the file system, and what the same command makes of what is left.

    python benchmarks/faults/kills.py        # writes benchmarks/results/faults_kills.json

A command runs once. Before each of its calls that change a file or a folder, its folder is copied as it is: what
SIGKILL would leave at that moment, but for bytes of a file that is being written under a temporary name. From each of
these states that differs from all before, the same command runs again. All files must then equal those of the run that
nothing disturbed, bit by bit, with no other file beside them; the clock is stopped, so that no duration differs.
"""

import argparse
import contextlib
import datetime
import hashlib
import json
import re
import shutil
import sys
import tempfile
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

CHANGING = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.chmod", "os.truncate", "os.link", "os.symlink"}
"""Python's audit events of what changes a file system; `open` for writing comes on top."""
_watch: Callable[[], None] | None = None
HERE = Path(__file__).parent
ROOT = HERE.parents[1]


class Kills(NamedTuple):
    """What became of one command."""

    calls: int
    """Calls that change the file system."""
    states: int
    """Different states of its folder before such a call: the kills that were tried."""
    equal: int
    """Of these, the ones after which the same command ended with the same files, bit by bit."""
    failures: list[str]


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if _watch is None:
        return
    if event in CHANGING or (event == "open" and isinstance(arguments[2], int) and arguments[2] & 0o3):
        _watch()


sys.addaudithook(_audit)


@contextlib.contextmanager
def snapshots(folder: Path, into: Path) -> Iterator[list[Path]]:
    """Copies a folder to `into/0`, `into/1`, ... before each change of the file system that finds it in a new state.

    Args:
      folder: that is watched; it need not exist.
      into: where the copies go.

    Returns:
      A list that grows: the copies. `calls` of it counts the changes.
    """
    global _watch
    found, seen, busy = _Copies(), set(), False

    def watch() -> None:
        nonlocal busy
        if busy:  # copying is a change, too
            return
        busy = True
        try:
            found.calls += 1
            state = digest(folder)
            if state not in seen:
                seen.add(state)
                found.append(into / str(len(found)))
                copy(folder, found[-1])
        finally:
            busy = False

    _watch = watch
    try:
        yield found
    finally:
        _watch = None


class _Copies(list):
    calls = 0


def copy(folder: Path, into: Path) -> None:
    """Copies what is below a folder. What another thread removes meanwhile is left out: it would be gone as well."""
    into.mkdir(parents=True)
    for path in sorted(folder.rglob("*")):
        with contextlib.suppress(FileNotFoundError):
            there = into / path.relative_to(folder)
            there.mkdir() if path.is_dir() else shutil.copyfile(path, there)


def digest(folder: Path) -> str:
    """Names and bytes of all files below a folder; of a half-written file only that it is there."""
    state = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        half = re.sub(r"\.[^.]+\.part$", ".part", str(path.relative_to(folder)))
        state.update(f"{half} ".encode())
        if path.is_file() and not half.endswith(".part"):
            with contextlib.suppress(FileNotFoundError):  # removed by another thread
                state.update(hashlib.sha256(path.read_bytes()).digest())
    return state.hexdigest()


def files(folder: Path) -> dict[str, bytes]:
    """All files below a folder by their paths in it."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@contextlib.contextmanager
def stopped_clock() -> Iterator[None]:
    """Durations of 0 and one date in all modules of the package: what is left to differ is the result."""
    still = types.SimpleNamespace(perf_counter=lambda: 0.0, monotonic=lambda: 0.0, strftime=lambda layout: "2026-01-01")
    day = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    date = types.SimpleNamespace(
        UTC=datetime.UTC, datetime=types.SimpleNamespace(now=lambda zone: day), timedelta=datetime.timedelta
    )
    with contextlib.ExitStack() as patches:
        for name, module in list(sys.modules.items()):
            for attribute, value, fake in (("time", time, still), ("datetime", datetime, date)):
                if name.startswith("jaxdebias.") and getattr(module, attribute, None) is value:
                    patches.enter_context(mock.patch.object(module, attribute, fake))
        yield


def kill_everywhere(run: Callable[[Path], Any], scratch: Path, every: int = 1) -> Kills:
    """Kills `run(out)` at each change of the file system, and runs it again from there.

    Args:
      run: fills the folder that it is given; called again on an unfinished one, it carries on.
      scratch: an empty folder.
      every: try only each so-manieth state, and the last.
    """
    out = scratch / "out"
    with stopped_clock():
        with snapshots(out, scratch / "states") as states:
            run(out)
        whole, failures = files(out), []
        tried = [*states[::every], *states[-1:]] if every > 1 else list(states)
        for state in tried:
            shutil.rmtree(out, ignore_errors=True)
            shutil.copytree(state, out)
            try:
                run(out)
            except BaseException as error:
                failures.append(f"{state.name}: {type(error).__name__}: {' '.join(str(error).split())[:200]}")
                continue
            again = files(out)
            if again != whole:
                differs = [name for name in sorted(whole | again) if whole.get(name) != again.get(name)]
                failures.append(f"{state.name}: {', '.join(differs)}")
    return Kills(states.calls, len(tried), len(tried) - len(failures), failures)


def commands(scratch: Path) -> dict[str, Callable[[], Callable[[Path], Any]]]:
    """Name -> what makes a command that fills a folder. A command that reads a run is given one in `scratch`."""
    import numpy as np

    from jaxdebias.app import cli

    def call(*arguments: Any) -> Callable[[Path], None]:
        def run(out: Path) -> None:
            with contextlib.redirect_stdout(None):
                cli.main([str(one) for one in (*arguments, "--out", out)])

        return run

    def trained(epochs: int) -> Path:
        if not (made := scratch / f"made-{epochs}").exists():
            call("train", "--data", "digits", "--epochs", epochs)(made)
        return made

    rng = np.random.default_rng(0)
    label, group = rng.integers(0, 2, (2, 400))
    predicted = np.where(rng.random(400) < 0.8, label, group)
    lines = ["label,predicted,sex", *(f"{y},{p},{a}" for y, p, a in zip(label, predicted, group, strict=True))]
    (scratch / "p.csv").write_text("\n".join(lines) + "\n")
    return {
        "debias": lambda: call("debias", trained(2), "--method", "dfr", "--no-baselines"),
        "audit": lambda: call("audit", trained(2), "--pixels", "none"),
        "audit-predictions": lambda: call("audit-predictions", scratch / "p.csv"),
        "compare": lambda: call("compare", trained(2), trained(1)),
        "reproduce": lambda: _table(scratch, call),
        "train": lambda: call("train", "--data", "digits", "--epochs", "2"),
    }


def _table(scratch: Path, call: Callable[..., Callable[[Path], None]]) -> Callable[[Path], Any]:
    """A table of four rows on files of the right format, with a small network in place of the paper's."""
    from oracles.files import write_mnist

    from jaxdebias import models
    from jaxdebias.mitigate import erm
    from jaxdebias.reproduce import _methods as methods
    from jaxdebias.reproduce._fitting import Method, Swept
    from jaxdebias.train import FitConfig

    folder, network = write_mnist(scratch / "mnist"), models.mlp(hidden=(8,))
    quick = Swept(learner_of=lambda case: erm(network), config=FitConfig(epochs=2, batch_size=32))
    arguments = ("--data-dir", folder, "--seeds", 2, "--methods", "erm", "--levels", 0.1, 0.2)
    table = call("reproduce", "sih-colored-mnist", *arguments)

    def run(out: Path) -> None:
        with mock.patch.dict(methods.COLORED_MNIST, {"erm": Method("none", "last weights", quick)}):
            table(out)

    return run


def main() -> None:
    from jaxdebias.results.provenance import device_name, versions

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", help="commands; all if not said")
    parser.add_argument("--every", type=int, default=1, help="try each so-manieth state")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "faults_kills.json")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for name, make in commands(Path(scratch)).items():
            if options.only and name not in options.only:
                continue
            run = make()
            began = time.perf_counter()
            place = Path(scratch) / f"killed-{name}"
            place.mkdir()
            kills = kill_everywhere(run, place, options.every)
            rows.append({"command": name, **kills._asdict(), "seconds": round(time.perf_counter() - began, 1)})
            print(json.dumps(rows[-1]), flush=True)
            made = {"device": device_name(), "date": time.strftime("%Y-%m-%d"), "versions": versions()}
            options.out.write_text(json.dumps({"summary": rows, **made}, indent=1) + "\n")


if __name__ == "__main__":
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    import jax

    jax.config.update("jax_compilation_cache_dir", tempfile.mkdtemp())
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    main()
