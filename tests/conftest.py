"""What every test shares: strict JAX settings, keys, and the folder of real data."""

import importlib
import os
import pathlib
import subprocess
import sys

import jax
import pytest

# No doctests there, and PyTorch need not be installed.
collect_ignore = [
    "oracles/torch_language.py",
    "oracles/torch_resnet.py",
    "oracles/torch_resnet_vae.py",
    "oracles/torch_sih.py",
]

jax.config.update("jax_numpy_rank_promotion", "raise")


FAST_COMPILATION = "--xla_cpu_use_fusion_emitters=false"
"""Tests mostly compile. With fusions made the older way that takes 40 % less CPU time (jaxlib 0.10), but newer releases
have this way no more, and a process with a flag in XLA_FLAGS that jaxlib does not know is aborted."""


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):  # a worker inherits the environment of the process that probed
        return
    if config.option.markexpr == "alone":  # what is timed is compiled as users have it
        return
    flags = f"{FAST_COMPILATION} {os.environ.get('XLA_FLAGS', '')}".strip()
    probe = [sys.executable, "-c", "import jax; jax.devices()"]
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    if subprocess.run(probe, env=environment, capture_output=True, check=False).returncode == 0:
        os.environ["XLA_FLAGS"] = flags


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "torch" in getattr(item, "fixturenames", ()):
            item.add_marker("torch")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """A third of compiling is optimising programs that then run for milliseconds.

    What is slow, or compared with PyTorch, is optimised as users have it, unless it is marked `unoptimised`: a large
    program that takes a few steps, in a test of what happens, not of what a number is.
    """
    optimise = any(item.get_closest_marker(name) for name in ("slow", "torch"))
    fast = not optimise or bool(item.get_closest_marker("unoptimised"))
    jax.config.update("jax_disable_most_optimizations", fast)
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = str(int(fast))  # of what the test starts: bits are compared


@pytest.fixture(autouse=True, scope="module")
def forgotten_programs():
    """Every compiled program maps memory, and a process may hold 65,530 maps: past that, mapping fails inside XLA."""
    yield
    jax.clear_caches()


@pytest.fixture
def key():
    return jax.random.key(0)


@pytest.fixture(scope="session")
def torch():
    """PyTorch, or a skip: it is no dependency of the tests, because its newest build brings gigabytes of CUDA."""
    return pytest.importorskip("torch")


@pytest.fixture
def tables(monkeypatch, tmp_path):
    """`benchmarks/tables.py`, which is no part of the package, with an empty folder of results."""
    monkeypatch.syspath_prepend(str(pathlib.Path(__file__).parents[1] / "benchmarks"))
    found = importlib.import_module("tables")
    monkeypatch.setattr(importlib.import_module("table_parts"), "RESULTS", tmp_path)
    return found


@pytest.fixture
def data_dir() -> pathlib.Path:
    """The folder of real data (see the README, section on tests), or a skip that says what is missing."""
    root = os.environ.get("JAXDEBIAS_DATA")
    if not root:
        pytest.skip("JAXDEBIAS_DATA is not set: no real data here")
    path = pathlib.Path(root)
    if not path.is_dir():
        pytest.fail(f"JAXDEBIAS_DATA={root} is not a folder")
    return path
