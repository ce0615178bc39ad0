"""What `import jaxdebias` costs and pulls in, seen from fresh processes."""

import json
import os
import pathlib
import statistics
import subprocess
import sys

import pytest

import jaxdebias

HEAVY = (
    "tensorflow",
    "tensorflow_datasets",
    "matplotlib",
    "sklearn",
    "tyro",
    "orbax",
    "rich",
    "jinja2",
    "PIL",
    "pandas",
    "grain",
)

# flax and optax may import some of these themselves (flax has imported rich, and orbax where it is installed);
# only what our own import adds to theirs is ours.
SCRIPT = """
import json, sys, time
import jax, flax, optax
theirs = {name.partition(".")[0] for name in sys.modules}
start = time.perf_counter()
import jaxdebias, jaxdebias.core, jaxdebias.contracts, jaxdebias.batching, jaxdebias.measure
seconds = time.perf_counter() - start
ours = {name.partition(".")[0] for name in sys.modules} - theirs
from jax._src import xla_bridge
print(json.dumps({"ours": sorted(ours), "seconds": seconds, "backends": sorted(xla_bridge._backends)}))
"""


@pytest.fixture(scope="module")
def fresh():
    """Three fresh imports, each `{"ours": modules, "seconds": ..., "backends": ...}`."""
    root = pathlib.Path(jaxdebias.__file__).parents[1]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])}
    runs = []
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT], capture_output=True, text=True, env=environment, check=False
        )
        assert done.returncode == 0, done.stderr
        runs.append(json.loads(done.stdout))
    return runs


def test_nothing_heavy_is_imported(fresh):
    assert "jaxdebias" in fresh[0]["ours"]
    assert not set(HEAVY) & set(fresh[0]["ours"])


@pytest.mark.slow
@pytest.mark.alone
def test_import_adds_less_than_a_second(fresh):
    assert statistics.median(run["seconds"] for run in fresh) < 1.0


def test_import_starts_no_backend(fresh):
    assert fresh[0]["backends"] == []
