"""Influence against what it predicts: training the head again without the sample."""

import numpy as np
import pytest
from oracles import softmax_head as oracle
from oracles.fmd_toy import flip, l2, toy
from scipy.stats import pearsonr, spearmanr

from jaxdebias.contracts import ContractError
from jaxdebias.explain import influence
from jaxdebias.explain.influence import AffineHead, HeadPairs


def at_optimum(x, y, k, regulariser):
    """(theta in float64, the library's float32 problem at it, its factor)."""
    theta = oracle.fit(x, y, k, regulariser, tolerance=1e-9)
    head = AffineHead(theta.astype(np.float32), None)
    problem = influence.head_problem(x.astype(np.float32), y, head, l2=regulariser)
    return theta, problem, influence.factor(problem)


def toy_setting(seed):
    data, outside = toy(seed), toy(1000 + seed, n=500)
    theta, problem, inverse = at_optimum(data.x, data.y, 2, l2(len(data.y)))
    pairs = HeadPairs(outside.x.astype(np.float32), flip(outside.x).astype(np.float32), outside.y)
    return data, outside, theta, problem, inverse, pairs


def refitted_change(bias, x, y, theta, regulariser, rows, replacement=None):
    """The change of bias(theta) after leaving out (or replacing) each of `rows` and fitting again, in float64."""
    base, out = bias(theta), []
    for row in rows:
        weight, changed = np.ones(len(y)), x
        if replacement is None:
            weight[row] = 0.0
        else:
            changed = x.copy()
            changed[row] = replacement[row]
        again = oracle.fit(changed, y, theta.shape[1], regulariser, weight, start=theta, tolerance=1e-10)
        out.append(bias(again) - base)
    return np.array(out)


def judged_rows(change, seed=0):
    """The 40 most harmful samples and 60 random ones."""
    harmful, score = influence.top_harmful(change, 40)
    assert (np.diff(score) <= 0).all()
    assert (score > 0).all()
    rest = np.setdiff1d(np.arange(len(change)), harmful)
    return np.concatenate([harmful, np.random.default_rng(seed).choice(rest, 60, replace=False)])


@pytest.mark.parametrize("seed", [0, 1])
def test_leave_one_out_on_the_toy(seed):
    data, outside, theta, problem, inverse, pairs = toy_setting(seed)
    gradient = influence.bias_gradient(influence.pair_bias, problem.head, pairs)
    removed = np.asarray(influence.change_if_removed(problem, inverse, gradient))
    rows = judged_rows(removed)
    actual = refitted_change(
        lambda t: oracle.pair_bias(t, outside.x, flip(outside.x), outside.y), data.x, data.y, theta, l2(2000), rows
    )
    assert pearsonr(removed[rows], actual)[0] > 0.999
    assert spearmanr(removed[rows], actual)[0] > 0.999
    assert 0.95 < np.polyfit(removed[rows], actual, 1)[0] < 1.10

    twins = flip(data.x)
    replaced = np.asarray(influence.change_if_replaced(problem, inverse, gradient, twins.astype(np.float32)))
    rows = judged_rows(replaced)
    actual = refitted_change(
        lambda t: oracle.pair_bias(t, outside.x, flip(outside.x), outside.y),
        data.x,
        data.y,
        theta,
        l2(2000),
        rows,
        twins,
    )
    assert pearsonr(replaced[rows], actual)[0] > 0.998


def test_leave_one_out_of_a_multiclass_head():
    rng = np.random.default_rng(0)
    x, truth = rng.normal(size=(1500, 12)), rng.normal(size=(12, 4))
    y = np.array([rng.choice(4, p=p) for p in oracle.probabilities(truth, x)])
    outside, label = rng.normal(size=(300, 12)), rng.integers(0, 4, 300)
    twin = outside * np.where(np.arange(12) < 2, -1.0, 1.0)[None]
    theta, problem, inverse = at_optimum(x, y, 4, 1.5)
    pairs = HeadPairs(outside.astype(np.float32), twin.astype(np.float32), label)
    change = np.asarray(
        influence.change_if_removed(problem, inverse, influence.bias_gradient(influence.pair_bias, problem.head, pairs))
    )
    rows = judged_rows(change)
    actual = refitted_change(lambda t: oracle.pair_bias(t, outside, twin, label), x, y, theta, 1.5, rows)
    assert pearsonr(change[rows], actual)[0] > 0.995
    assert spearmanr(change[rows], actual)[0] > 0.995


def equal_opportunity_gap(head, x, label, attribute):
    """Soft: |E[p(1|x) | A=0, Y=1] - E[p(1|x) | A=1, Y=1]|."""
    p = influence.head_logits(head, x)
    p = 1.0 / (1.0 + np.e ** (p[:, 0] - p[:, 1]))
    means = [(p * ((attribute == a) & (label == 1))).sum() / ((attribute == a) & (label == 1)).sum() for a in (0, 1)]
    return abs(means[0] - means[1])


def test_leave_one_out_of_any_other_bias():
    data, outside, theta, problem, inverse, _ = toy_setting(0)
    gradient = influence.bias_gradient(
        equal_opportunity_gap, problem.head, outside.x.astype(np.float32), outside.y, outside.a
    )
    change = np.asarray(influence.change_if_removed(problem, inverse, gradient))
    rows = judged_rows(change)

    def exact(theta):
        p, positive = oracle.probabilities(theta, outside.x)[:, 1], outside.y == 1
        return abs(p[positive & (outside.a == 0)].mean() - p[positive & (outside.a == 1)].mean())

    actual = refitted_change(exact, data.x, data.y, theta, l2(2000), rows)
    assert pearsonr(change[rows], actual)[0] > 0.99


def test_every_score_is_the_product_it_is_defined_as():
    data, outside, theta, problem, inverse, _ = toy_setting(0)
    problem = problem._replace(weight=np.linspace(0.0, 2.0, 2000, dtype=np.float32))
    gradients = np.stack(
        [
            oracle.pair_bias_gradient(theta, outside.x[part], flip(outside.x[part]), outside.y[part])
            for part in (slice(0, 50), slice(50, 80))
        ],
        axis=1,
    )
    each = oracle.example_gradients(theta, data.x, data.y) * np.asarray(problem.weight)[:, None]
    twin = oracle.example_gradients(theta, flip(data.x), data.y) * np.asarray(problem.weight)[:, None]
    solution = np.linalg.solve(oracle.hessian(theta, data.x, l2(2000)), gradients)
    got = influence.change_if_removed(problem, inverse, gradients)
    tolerance = {"rtol": 1e-3, "atol": 1e-5 * np.abs(each @ solution).max()}
    np.testing.assert_allclose(got, each @ solution, **tolerance)
    one = influence.change_if_removed(problem, inverse, gradients[:, 0])
    np.testing.assert_allclose(one, got[:, 0], rtol=1e-5, atol=tolerance["atol"])
    replaced = influence.change_if_replaced(problem, inverse, gradients, flip(data.x).astype(np.float32))
    np.testing.assert_allclose(replaced, (each - twin) @ solution, **tolerance)
    with pytest.raises(ContractError, match="twin_features"):
        influence.change_if_replaced(problem, inverse, gradients, data.x[:5].astype(np.float32))


def test_the_prediction_is_first_order_exact():
    # Halving the weight that 8 samples lose divides the error of the predicted parameters by four.
    data, _, theta, _, inverse, _ = toy_setting(0)
    rows = np.arange(8)
    predicted = inverse.solve(oracle.example_gradients(theta, data.x, data.y)[rows].sum(0)[:, None]).value[:, 0]
    errors = []
    for share in (1.0, 0.5, 0.25):
        weight = np.ones(2000)
        weight[rows] -= share
        again = oracle.fit(data.x, data.y, 2, l2(2000), weight, start=theta)
        errors.append(np.linalg.norm((again - theta).reshape(-1) - share * predicted))
    ratios = np.array(errors[:2]) / errors[1:]
    assert ((ratios > 3.5) & (ratios < 4.5)).all(), ratios


@pytest.mark.parametrize("seed", range(3))
def test_harmful_samples_are_aligned_and_helpful_ones_conflicting(seed):
    data, _, _, problem, inverse, pairs = toy_setting(seed)
    change = influence.change_if_removed(
        problem, inverse, influence.bias_gradient(influence.pair_bias, problem.head, pairs)
    )
    aligned = data.a == data.y
    assert aligned[influence.top_harmful(change, 100)[0]].mean() >= 0.90
    assert (~aligned[influence.top_harmful(-change, 100)[0]]).mean() >= 0.75


def test_replacing_what_the_replacement_score_ranks_first_keeps_the_model_alive():
    # One step for 200 samples: ranked by replacement the bias falls and accuracy rises, ranked by removal it collapses.
    results = []
    for seed in range(5):
        data, outside, theta, problem, inverse, pairs = toy_setting(seed)
        test = toy(2000 + seed, n=4000, agreement=0.5)
        gradient = influence.bias_gradient(influence.pair_bias, problem.head, pairs)
        twins = flip(data.x)

        def outcome(change, theta=theta, data=data, twins=twins, inverse=inverse, outside=outside, test=test):
            rows = influence.top_harmful(change, 200)[0]
            moved = oracle.example_gradients(theta, data.x[rows], data.y[rows])
            moved = moved - oracle.example_gradients(theta, twins[rows], data.y[rows])
            after = theta + inverse.solve(moved.sum(0)[:, None]).value.reshape(theta.shape)
            right = oracle.probabilities(after, test.x).argmax(1) == test.y
            return oracle.pair_bias(after, outside.x, flip(outside.x), outside.y), right.mean()

        base = (oracle.probabilities(theta, test.x).argmax(1) == test.y).mean()
        replaced = influence.change_if_replaced(problem, inverse, gradient, twins.astype(np.float32))
        removed = influence.change_if_removed(problem, inverse, gradient)
        results.append([*outcome(replaced), base, outcome(removed)[1]])
    bias, accuracy, base, mismatched = np.median(results, axis=0)
    assert bias < 0.15
    assert accuracy > base
    assert mismatched < 0.40
