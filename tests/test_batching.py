import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdebias.batching import map_rows, predict_rows


def affine(params, x):
    return x @ params + 1.0


@pytest.mark.parametrize("n", [1, 2, 7, 8, 9, 15, 16, 17, 23, 64])
def test_equals_the_direct_call_for_awkward_sizes(n):
    rng = np.random.default_rng(n)
    x, params = rng.normal(size=(n, 3)).astype(np.float32), rng.normal(size=(3, 2)).astype(np.float32)
    got = map_rows(affine, params, x, batch_size=8)
    assert got.shape == (n, 2)
    np.testing.assert_allclose(got, affine(params, x), rtol=1e-6, atol=1e-6)


def test_rows_and_results_may_be_pytrees():
    def fn(params, rows):
        return {"sum": rows["a"].sum(axis=(1, 2)) + params, "pair": (rows["b"], -rows["b"])}

    rows = {"a": np.arange(44.0, dtype=np.float32).reshape(11, 2, 2), "b": np.arange(11)}
    got, expected = map_rows(fn, 0.5, rows, batch_size=4), fn(0.5, rows)
    jax.tree.map(np.testing.assert_allclose, got, expected)


def test_at_most_one_row_less_than_chunks_is_padding():
    """Even chunks: 17 rows at most 8 at a time are three chunks of 6 with one row of padding, not of 8 with seven."""
    for n in (1, 8, 9, 17, 31, 33, 64, 65):
        seen = []

        def record(params, x, seen=seen):
            seen.append(x.shape[0])
            return x * params

        jax.eval_shape(lambda x, record=record: map_rows(record, 1.0, x, batch_size=8), jnp.zeros((n, 1)))
        chunks = -(-n // 8)
        assert max(seen) <= 8
        assert chunks * max(seen) - n <= chunks - 1


def test_one_trace_for_equal_shapes():
    traces = []

    def fn(params, x):
        traces.append(x.shape)
        return x * params

    for i in range(4):
        map_rows(fn, float(i), np.full((20, 2), i, np.float32), batch_size=8)
    assert traces == [(7, 2)]
    map_rows(fn, 1.0, np.zeros((21, 2), np.float32), batch_size=8)
    assert len(traces) == 2


def test_memory_is_that_of_one_chunk():
    """A hidden layer 2,000 wide of 4,096 rows would be 33 MB; of 64 rows it is 0.5 MB."""

    def wide(params, x):
        return jnp.tanh(jnp.tanh(x @ params) @ params.T)

    compiled = map_rows.lower(wide, jnp.ones((4, 2000)), jnp.ones((4096, 4)), batch_size=64).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 3 * 64 * 2000 * 4


def test_works_under_grad_and_vmap():
    x = jnp.arange(10.0).reshape(5, 2)

    def total(params):
        return jnp.sum(map_rows(affine, params, x, batch_size=2))

    params = jnp.ones((2, 3))
    np.testing.assert_allclose(jax.grad(total)(params), jnp.tile(x.sum(axis=0)[:, None], (1, 3)), rtol=1e-6)
    np.testing.assert_allclose(jax.vmap(total)(jnp.stack([params, 2 * params])), [total(params), total(2 * params)])


def test_predict_rows_takes_numpy_bytes():
    images = np.random.default_rng(0).integers(0, 256, (9, 2, 2, 1), dtype=np.uint8)

    def apply_fn(params, x):
        return x.astype(jnp.float32).reshape(x.shape[0], 4) @ params

    params = np.ones((4, 3), np.float32)
    got = predict_rows(apply_fn, params, images, batch_size=4)
    np.testing.assert_allclose(got, np.tile(images.reshape(9, 4).sum(axis=1)[:, None], (1, 3)))
