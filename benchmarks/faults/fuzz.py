"""Calls of public functions with arguments that a caller may hand over by mistake, drawn at random.

    python benchmarks/faults/fuzz.py --calls 100000        # writes benchmarks/results/faults_fuzz.json

Every call is one of the tables in `tests/fuzz`, with one or two of its arguments changed. It must be refused in one
line (`ContractError`), or answer; the same answer as the good call where only the kind of array has changed. Nothing
may take more than ten seconds or end the process.
"""

import argparse
import json
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[2]
OUTCOMES = ("refused in one line", "answered", "another exception", "a wrong answer", "over 10 s")
SECONDS = 10


class Slow(BaseException):
    """Ten seconds have gone."""


def attempt(call: Any, names: list[str], mutations: list[str], good: Any) -> tuple[str, str]:
    """What became of one call, and a line about it."""
    import jax
    from fuzz import mutations as fuzz

    from jaxdebias.contracts import ContractError

    arguments = call.good
    try:
        for name, mutation in zip(names, mutations, strict=True):
            arguments = fuzz.changed(arguments, name, mutation)
    except Exception:
        return "", ""  # there is no such array
    signal.alarm(SECONDS)
    try:
        found = jax.block_until_ready(call.fn(**arguments))
    except ContractError as error:
        one_line = "\n" not in str(error) and 0 < len(str(error)) < 600
        return (OUTCOMES[0], "") if one_line else (OUTCOMES[2], "a message of several lines")
    except Slow:
        return OUTCOMES[4], ""
    except Exception as error:
        return OUTCOMES[2], f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
    finally:
        signal.alarm(0)
    if set(mutations) <= set(fuzz.SAME):
        for one, other in zip(fuzz._numbers(found), good, strict=True):
            if not np.allclose(one, other, rtol=1e-5, equal_nan=True):
                return OUTCOMES[3], "another number for another kind of array"
    return OUTCOMES[1], ""


def measure(calls: int, seed: int, seconds: float) -> dict[str, Any]:
    """Outcomes of random calls, until so many were made or the time is over."""
    import jax
    from fuzz import mutations as fuzz
    from fuzz import test_explain, test_losses, test_measure

    def stop(number: int, frame: Any) -> None:
        raise Slow

    signal.signal(signal.SIGALRM, stop)
    tables = {**test_measure.CALLS, **test_explain.CALLS, **test_losses.CALLS}
    rng, names, kinds = np.random.default_rng(seed), sorted(tables), sorted(fuzz.MUTATIONS)
    good = {name: fuzz._numbers(call.fn(**call.good)) for name, call in tables.items()}
    outcomes, bad, began, made = Counter(dict.fromkeys(OUTCOMES, 0)), Counter(), time.monotonic(), 0
    while made < calls and time.monotonic() - began < seconds:
        name = names[int(rng.integers(len(names)))]
        call = tables[name]
        count = min(len(call.fuzzed), int(rng.integers(1, 3)))
        chosen = [call.fuzzed[i] for i in rng.choice(len(call.fuzzed), count, replace=False)]
        drawn = [kinds[i] for i in rng.integers(len(kinds), size=count)]
        outcome, said = attempt(call, chosen, drawn, good[name])
        if not outcome:
            continue
        made += 1
        outcomes[outcome] += 1
        if outcome in OUTCOMES[2:]:
            bad[f"{name}: {', '.join(f'{a} {m}' for a, m in zip(chosen, drawn, strict=True))}: {outcome}; {said}"] += 1
        if made % 1000 == 0:
            jax.clear_caches()  # every new shape compiles, and programs map memory
            print(json.dumps({"calls": made, **outcomes}), flush=True)
    return {"calls": made, "functions": len(names), "outcomes": dict(outcomes), "not_right": dict(bad.most_common(50))}


def main() -> None:
    from jaxdebias.results.provenance import device_name, versions

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so long")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "faults_fuzz.json")
    options = parser.parse_args()
    summary = measure(options.calls, options.seed, options.seconds)
    made = {"device": device_name(), "date": time.strftime("%Y-%m-%d"), "versions": versions(), "seed": options.seed}
    options.out.write_text(json.dumps({"summary": summary, **made}, indent=1) + "\n")
    print(json.dumps(summary, indent=1))


if __name__ == "__main__":
    sys.path[:1] = [str(ROOT), str(ROOT / "tests")]  # in place of this folder, whose `fuzz` is this file
    main()
