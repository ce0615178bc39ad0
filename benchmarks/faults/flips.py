"""Flips of single bits in what a training leaves behind, and whether the next call notices.

    python benchmarks/faults/flips.py        # writes benchmarks/results/faults_flips.json

A small training saves checkpoints, its log, its weights and the measurements of an unfinished command. Of one of these
files, drawn uniformly, one bit, drawn uniformly, is turned over; then the files are read as the next call reads them.
It must end with the same bits (the flip was in a byte that means nothing), or refuse in one line that names the file.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[2]
OUTCOMES = ("the same result", "refused, file named", "refused, file not named", "another result", "traceback")


def left_behind(folder: Path) -> Callable[[Path], list[bytes]]:
    """Fills a folder, and returns what reads such a folder again: the bytes of everything that comes out."""
    import jax
    from train.tiny import BARE, table

    from jaxdebias.app.result_set import claim
    from jaxdebias.mitigate import erm
    from jaxdebias.train import FitConfig, fit, load_params, save_params

    learner, config = erm(BARE), FitConfig(epochs=2, batch_size=16, keep="best")
    key, data, held_out = jax.random.key(0), table(48), table(24, seed=1)
    like = jax.eval_shape(BARE.init, key, data.x[:1])

    def trained(folder: Path) -> Any:
        saved = {"checkpoint": folder / "checkpoints", "log": folder / "log.jsonl"}
        return fit(key, learner, data, config, held_out=held_out, **saved)

    def read(folder: Path) -> list[bytes]:
        found = trained(folder)
        weights = load_params(folder / "params.npz", like)
        with claim(folder, "flips", {"seed": 0}) as run:
            measured = json.dumps(run.measured)
        history = [record._replace(seconds=0.0) for record in found.history]
        leaves = jax.tree.leaves((found.state._replace(key=0) if hasattr(found.state, "key") else found.state, weights))
        return [np.asarray(leaf).tobytes() for leaf in leaves] + [repr((history, found[1:-1], measured)).encode()]

    save_params(folder / "params.npz", trained(folder).state.variables)
    with claim(folder, "flips", {"seed": 0}) as run:
        run.keep(before={"accuracy": 0.75, "groups": [0.5, 1.0]}, seconds=1.5)
    return read


def flip(path: Path, rng: np.random.Generator) -> int:
    """Turns over one bit of a file; which one."""
    data = bytearray(path.read_bytes())
    bit = int(rng.integers(8 * len(data)))
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)
    return bit


def measure(count: int, seed: int, scratch: Path) -> tuple[Counter, Counter, list[str]]:
    """Outcomes, flips by file, and a line about each outcome that must not be."""
    from jaxdebias.contracts import ContractError

    whole, hurt, rng = scratch / "whole", scratch / "hurt", np.random.default_rng(seed)
    read = left_behind(whole)
    expected = read(whole)
    assert read(whole) == expected, "the files do not give the same twice"
    names = sorted(str(path.relative_to(whole)) for path in whole.rglob("*") if path.is_file() and path.stat().st_size)
    outcomes, by_file, bad = Counter(dict.fromkeys(OUTCOMES, 0)), Counter(), []
    for _ in range(count):
        shutil.rmtree(hurt, ignore_errors=True)
        shutil.copytree(whole, hurt)
        name = names[int(rng.integers(len(names)))]
        bit = flip(hurt / name, rng)
        by_file[name] += 1
        try:
            outcome = OUTCOMES[0] if read(hurt) == expected else OUTCOMES[3]
        except ContractError as error:
            outcome = OUTCOMES[1] if Path(name).name in str(error) and "\n" not in str(error) else OUTCOMES[2]
        except Exception as error:
            outcome = f"{OUTCOMES[4]}"
            bad.append(f"{name}, bit {bit}: {type(error).__name__}: {' '.join(str(error).split())[:200]}")
        if outcome in OUTCOMES[2:4]:
            bad.append(f"{name}, bit {bit}: {outcome}")
        outcomes[outcome] += 1
    return outcomes, by_file, bad


def main() -> None:
    from jaxdebias.results.provenance import device_name, versions

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "faults_flips.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        outcomes, by_file, bad = measure(options.count, options.seed, Path(scratch))
    made = {"device": device_name(), "date": time.strftime("%Y-%m-%d"), "versions": versions(), "seed": options.seed}
    summary = {"flips": options.count, "files": len(by_file), "outcomes": dict(outcomes), "not_right": bad}
    options.out.write_text(json.dumps({"summary": summary, **made}, indent=1) + "\n")
    print(json.dumps(summary, indent=1))


if __name__ == "__main__":
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    main()
