"""What every command writes, against what it wrote before the package was rebuilt: values, arrays, files.

A move or a renaming inside the package changes nothing here. What changes on purpose is said in `values.RENAMED` and
`values.CHANGED`.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from golden import values
from golden.runs import CHAINS

import jaxdebias

HERE = Path(__file__).parent


@pytest.mark.parametrize(
    "chain", [pytest.param(name, marks=[pytest.mark.slow] if chain.slow else []) for name, chain in CHAINS.items()]
)
def test_commands_write_what_they_wrote(chain, tmp_path):
    """In a process of its own: what is computed depends on how it is compiled, which tests choose for themselves."""
    paths = [str(Path(jaxdebias.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, str(HERE / "runs.py"), str(tmp_path / "out"), chain],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path)},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = []
    for name in values.names(chain):
        golden = json.loads((HERE / f"{name}.json").read_text(encoding="utf-8"))
        now = values.kept(tmp_path / "out" / name)
        assert golden.keys() == now.keys()
        for part in golden:
            both = [one[part] if isinstance(one[part], dict) else {part: one[part]} for one in (golden, now)]
            found += [f"{name}, {part}: {line}" for line in values.differences(*both)]
    assert not found, f"{len(found)} differences:\n" + "\n".join(found[:40])


def test_every_golden_file_belongs_to_a_run():
    assert {path.stem for path in HERE.glob("*.json")} == {name for chain in CHAINS for name in values.names(chain)}


def test_what_is_said_to_have_changed_was_there():
    """A table of changes that names nothing would hide a difference of the same name later."""
    golden = [json.loads(path.read_text(encoding="utf-8")) for path in HERE.glob("*.json")]
    paths = {path for one in golden for part in ("values", "arrays") for path in one.get(part, {})}
    for old in values.RENAMED:
        assert any(path == old or path.startswith(f"{old}.") for path in paths), old


@pytest.mark.parametrize(
    ("now", "line"),
    [
        ({"verdict": "none", "n": 3, "gap": 0.5}, 'verdict: "shortcut" before, "none" now'),
        ({"verdict": "shortcut", "n": 4, "gap": 0.5}, "n: 3 before, 4 now"),
        ({"verdict": "shortcut", "n": 3, "gap": 0.5003}, "gap: 0.5 before, 0.5003 now"),
        ({"verdict": "shortcut", "n": 3}, "gap: gone, 0.5"),
        ({"verdict": "shortcut", "n": 3, "gap": 0.5, "z": 1}, "z: new, 1"),
    ],
)
def test_what_differs_is_seen(now, line):
    assert values.differences({"verdict": "shortcut", "n": 3, "gap": 0.5}, now, {}, {}) == [line]


def test_the_order_of_a_long_list_is_seen():
    rising = [i / 7 for i in range(50)]
    one, other = (values.values({"x": found}) for found in (rising, rising[::-1]))
    assert values.differences(one, other, {}, {})
    assert not values.differences(one, values.values({"x": [x * (1 + 1e-6) for x in rising]}), {}, {})
