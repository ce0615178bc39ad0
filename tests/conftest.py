"""What every test shares: strict JAX settings, keys, and the folder of real data."""

import os
import pathlib

import jax
import pytest

collect_ignore = ["oracles/torch_resnet.py", "oracles/torch_sih.py"]  # no doctests, and PyTorch need not be there

jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def key():
    return jax.random.key(0)


@pytest.fixture
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
