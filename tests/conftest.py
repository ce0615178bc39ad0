"""What every test shares: strict JAX settings, keys, and the folder of real data."""

import os
import pathlib
import platform

import jax
import pytest

# No doctests there, and PyTorch need not be installed.
collect_ignore = ["oracles/torch_language.py", "oracles/torch_resnet.py", "oracles/torch_sih.py"]

jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_configure(config: pytest.Config) -> None:
    """Keeps compiled programs in pytest's cache folder: most of the time of these tests is the compiler's.

    Workers and child processes share them, and the next session finds them; `pytest --cache-clear` drops them, and
    `-p no:cacheprovider` does without. A folder for each machine: the programs are made for its processor.
    """
    cache = getattr(config, "cache", None)
    if cache is None or "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    settings = {
        "jax_compilation_cache_dir": str(cache.mkdir(f"jax-{platform.node() or 'programs'}")),
        "jax_persistent_cache_min_compile_time_secs": 0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    for name, value in settings.items():
        jax.config.update(name, value)
        os.environ[name.upper()] = str(value)  # for child processes


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "torch" in getattr(item, "fixturenames", ()):
            item.add_marker("torch")


@pytest.fixture
def key():
    return jax.random.key(0)


@pytest.fixture
def unoptimised():
    """Programs of this test compile fast and run slowly: for a large one that takes a few steps.

    For tests of what happens, never of what a number is: XLA's faults come with its optimisations.
    """
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="session")
def torch():
    """PyTorch, or a skip: it is no dependency of the tests, because its newest build brings gigabytes of CUDA."""
    return pytest.importorskip("torch")


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
