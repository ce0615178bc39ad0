import numpy as np
import pytest

from jaxdebias.contracts import ContractError
from jaxdebias.data.streams import named_rng


def test_streams_depend_on_seed_and_purpose_only():
    draws = {(seed, name): named_rng(seed, name).random() for seed in (0, 1) for name in ("train", "test")}
    assert len(set(draws.values())) == 4
    assert all(named_rng(*of).random() == value for of, value in draws.items())


def test_the_global_generator_is_left_alone():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    named_rng(0, "x").random(100)
    np.testing.assert_array_equal(before, np.random.get_state()[1])  # noqa: NPY002


def test_a_negative_seed_is_refused():
    with pytest.raises(ContractError, match="`seed`: expected an integer of at least 0, got int -1"):
        named_rng(-1, "x")
