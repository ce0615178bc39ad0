"""The bias of sentence pairs and its gradients against finite differences; influence against retraining the block."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdebias.contracts import ContractError
from jaxdebias.explain.influence import AffineHead, Dense, HeadPairs, factor, head_problem, pair_gradient, refit
from jaxdebias.language import (
    PairRows,
    TokenRows,
    sentence_bias_gradient,
    sentence_changes,
    sentence_differences,
    sentence_pair_gradient,
    soft_sentence_pair_bias,
)
from jaxdebias.language._sentence_influence import sentence_gradient

rng = np.random.default_rng(0)
D, V, M, N = 3, 5, 14, 4
HEAD = AffineHead(jnp.asarray(rng.normal(size=(D, V)), jnp.float32), jnp.zeros(V))
ROWS = TokenRows(jnp.asarray(rng.normal(size=(M, D)), jnp.float32), jnp.asarray(rng.integers(0, V, M)))
PAIR = np.array([0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3])
WEIGHT = np.where(np.arange(M) % 2, -0.5, 0.5).astype(np.float32)
PAIRS = PairRows(ROWS, jnp.asarray(WEIGHT), jnp.asarray(PAIR), jnp.zeros(N, jnp.int32))


def slow_differences(kernel):
    logits = np.asarray(ROWS.features, np.float64) @ np.asarray(kernel, np.float64)
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    return [sum(WEIGHT[m] * log_p[m, int(ROWS.token[m])] for m in range(M) if PAIR[m] == j) for j in range(N)]


def test_differences_and_bias_are_those_of_a_loop():
    want = slow_differences(HEAD.kernel)
    np.testing.assert_allclose(sentence_differences(HEAD, PAIRS), want, rtol=1e-5)
    assert float(soft_sentence_pair_bias(HEAD, PAIRS)) == pytest.approx(np.abs(want).mean(), rel=1e-5)


def test_gradients_are_slopes():
    kernel = np.asarray(HEAD.kernel, np.float64)
    step = 1e-5
    for gradient, value in (
        (sentence_bias_gradient(HEAD, PAIRS), lambda k: np.abs(slow_differences(k)).mean()),
        # A loss is minus the log-probability.
        (sentence_pair_gradient(HEAD, PAIRS), lambda k: -np.sum(slow_differences(k))),
    ):
        slopes = np.zeros((D, V))
        for i, j in np.ndindex(D, V):
            moved = [kernel.copy(), kernel.copy()]
            moved[0][i, j] += step
            moved[1][i, j] -= step
            slopes[i, j] = (value(moved[0]) - value(moved[1])) / (2 * step)
        np.testing.assert_allclose(np.asarray(gradient)[: D * V].reshape(D, V), slopes, atol=1e-4)
    np.testing.assert_array_equal(sentence_gradient("gradB")(HEAD, PAIRS), -sentence_bias_gradient(HEAD, PAIRS))
    with pytest.raises(ContractError, match="direction"):
        sentence_gradient("learn")


def test_one_token_sentences_are_the_pairs_of_a_classifier():
    """FMD's right-hand side of a classifier is that of sentences of one token."""
    label = ROWS.token[:N]
    z, twin = ROWS.features[:N], ROWS.features[N : 2 * N]
    pairs = PairRows(
        TokenRows(jnp.concatenate([z, twin]), jnp.concatenate([label, label])),
        jnp.asarray([1.0] * N + [-1.0] * N),
        jnp.asarray([*range(N), *range(N)]),
        jnp.zeros(N, jnp.int32),
    )
    np.testing.assert_allclose(
        sentence_pair_gradient(HEAD, pairs), pair_gradient(HEAD, HeadPairs(z, twin, label)), atol=1e-5
    )


def test_the_influence_of_a_sentence_is_that_of_refitting_without_it():
    features = jnp.asarray(rng.normal(size=(300, D)), jnp.float32)
    token = jnp.asarray(rng.integers(0, V, 300))
    sentence = np.sort(np.concatenate([np.arange(60), rng.integers(0, 60, 240)]))
    problem = head_problem(features, token, HEAD, l2=1.0)
    problem = problem._replace(head=refit(problem)[0])
    gradient = sentence_bias_gradient(problem.head, PAIRS)
    got = sentence_changes(problem, factor(problem, Dense()), gradient, sentence)
    assert got.shape == (60,)
    bias = float(soft_sentence_pair_bias(problem.head, PAIRS))
    for number in np.argsort(-np.abs(got))[:3]:
        kept = sentence != number
        without = head_problem(features[kept], token[kept], problem.head, l2=1.0)
        change = float(soft_sentence_pair_bias(refit(without)[0], PAIRS)) - bias
        assert got[number] == pytest.approx(change, rel=0.3)
    with pytest.raises(ContractError, match="sentence"):
        sentence_changes(problem, factor(problem, Dense()), gradient, sentence[:5])


def test_bias_compiles_once():
    traced = jax.jit(soft_sentence_pair_bias)
    traced(HEAD, PAIRS)
    assert traced(HEAD, PAIRS._replace(weight=2 * PAIRS.weight)) == pytest.approx(
        2 * float(traced(HEAD, PAIRS)), rel=1e-5
    )
