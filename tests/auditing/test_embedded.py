"""Every row goes through the network once, and the features are those that it makes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from auditing.toys import table

from jaxdebias.auditing.embedded import embed, row_digests
from jaxdebias.contracts import ContractError
from jaxdebias.core import Split


def features(params, x):
    return jnp.tanh(x @ params)


def head(params, z):
    return z


PARAMS = jnp.array([[1.0, 0.5, 0.2], [-1.0, 0.3, 0.1]])


def test_the_features_of_all_splits_and_pairs():
    dataset = table()
    seen = embed(Split(features, head), PARAMS, dataset, batch_size=64)
    for name, batch in dataset.splits.items():
        np.testing.assert_allclose(seen.dataset.splits[name].x, features(PARAMS, batch.x), atol=1e-6)
    for name, pairs in dataset.pairs.items():
        np.testing.assert_allclose(seen.dataset.pairs[name].twin, features(PARAMS, pairs.twin), atol=1e-6)
    z = seen.dataset.splits["test"].x
    np.testing.assert_array_equal(seen.split.features(PARAMS, z), z)


def test_a_row_that_is_in_several_places_is_computed_once():
    rows, dataset = [], table()

    def counted(params, x):
        jax.debug.callback(lambda x: rows.append(len(x)), x)
        return features(params, x)

    seen = embed(Split(counted, head), PARAMS, dataset, batch_size=10_000)
    jax.effects_barrier()
    distinct = {digest for batch in dataset.splits.values() for digest in row_digests(batch.x)}
    distinct |= {digest for pairs in dataset.pairs.values() for x in (pairs.x, pairs.twin) for digest in row_digests(x)}
    # All rows of test, which are as they are, and every other distinct row; there are four of this toy's.
    assert len(distinct) == 4
    assert sum(rows) == 400
    assert seen.repeated == {"train": 400, "edit": 400, "accept": 400}


def test_spatial_features_come_along():
    dataset = table()
    seen = embed(Split(features, head), PARAMS, dataset, spatial=Split(lambda p, x: x[:, None, None, :] * 2.0, head))
    np.testing.assert_allclose(seen.spatial[:, 0, 0], 2 * dataset.splits["test"].x)
    assert embed(Split(features, head), PARAMS, dataset).spatial is None


def test_features_that_are_no_vectors_are_refused():
    with pytest.raises(ContractError, match="vectors"):
        embed(Split(lambda p, x: x[:, None, :], head), PARAMS, table())
