import jax
import numpy as np
import pytest
from oracles import attention as oracle

from jaxdebias.contracts import ContractError
from jaxdebias.measure import (
    add_scores,
    area_fraction,
    chance_attention_iou,
    empty_sums,
    group_scores,
    label_groups,
    mask_scores,
    merge_sums,
    over_models,
    score_intervals,
    score_report,
)

GROUPS = 4


def example(n=24, seed=0):
    """Scores `[n 2]` of which a quarter do not exist, groups 0, 1 and 3 (2 is empty), and rows left out."""
    rng = np.random.default_rng(seed)
    scores = rng.random((n, 2)).astype(np.float32)
    scores[rng.random((n, 2)) < 0.25] = np.nan
    return scores, np.where(np.arange(n) % 7 == 6, -1, np.array([0, 1, 3])[rng.integers(0, 3, n)]).astype(np.int32)


POLICIES = [
    ("heatmap", "official", None),
    ("heatmap", "present_only", None),
    ("mask", "present_only", None),
    ("mask", "official", 0.0),
]


@pytest.mark.parametrize(("score", "policy", "absent"), POLICIES)
def test_means_and_deviations_by_policy(score, policy, absent):
    scores, group = example()
    found = group_scores(add_scores(empty_sums(GROUPS, (2,)), scores, group), score=score, policy=policy)
    for column in range(2):
        mean, std = oracle.group_scores(scores[:, column].astype(float), group, GROUPS, absent)
        np.testing.assert_allclose(found.mean[:, column], mean, atol=1e-6)
        np.testing.assert_allclose(found.std[:, column], std, atol=1e-6)
        assert np.isnan(found.mean[2]).all()
        assert np.isnan(found.std[2]).all()
    known = group >= 0
    assert found.rows.tolist() == [*np.bincount(group[known], minlength=GROUPS), known.sum()]
    assert found.used[-1].tolist() == (~np.isnan(scores[known])).sum(0).tolist()


def test_batches_and_merged_parts_give_the_same_sums():
    scores, group = example(60)
    scores += 100  # far from 0, where sums of squares would cancel
    whole = add_scores(empty_sums(GROUPS, (2,)), scores, group)
    streamed, parts = empty_sums(GROUPS, (2,)), []
    for start in range(0, 60, 20):
        streamed = add_scores(streamed, scores[start : start + 20], group[start : start + 20])
        parts.append(add_scores(empty_sums(GROUPS, (2,)), scores[start : start + 20], group[start : start + 20]))
    merged = merge_sums(parts[2], merge_sums(parts[0], parts[1]))
    expected = group_scores(whole, score="mask")
    for sums in (streamed, merged):
        found = group_scores(sums, score="mask")
        np.testing.assert_array_equal(found.used, expected.used)
        np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-6)
        np.testing.assert_allclose(
            group_scores(sums, score="heatmap").std, group_scores(whole, score="heatmap").std, rtol=1e-3
        )
    mean, std = oracle.group_scores(scores[:, 0].astype(float), group, GROUPS, None)
    np.testing.assert_allclose(group_scores(streamed, score="heatmap").mean[:, 0], mean, rtol=1e-6)
    np.testing.assert_allclose(group_scores(streamed, score="heatmap").std[:, 0], std, rtol=1e-3)


def test_three_models_of_twelve_samples():
    label, attribute = np.array([1, 1, 1, 0, 0, 0] * 2), np.array([1, 0, 0, 0, 0, 0] * 2)
    group = label_groups(label, attribute)
    assert group.tolist() == [0, 1, 1, 3, 3, 3] * 2
    scores = np.random.default_rng(1).random((3, 12)).astype(np.float32)
    scores[:, 4] = np.nan
    means = np.stack(
        [group_scores(add_scores(empty_sums(4), of_one, group), score="heatmap").mean for of_one in scores]
    )
    found = over_models(means)
    for g, rows in enumerate([[0, 6], [1, 2, 7, 8], [], [3, 5, 9, 10, 11], [i for i in range(12) if i != 4]]):
        of_models = [sum(float(scores[m, row]) for row in rows) / len(rows) if rows else np.nan for m in range(3)]
        middle = sum(of_models) / 3
        spread = (sum((value - middle) ** 2 for value in of_models) / 3) ** 0.5
        np.testing.assert_allclose([found.mean[g], found.std[g]], [middle, spread], atol=1e-6)
    assert (found.interval.low[[0, 1, 3, 4]] < found.mean[[0, 1, 3, 4]]).all()
    assert found.interval.n == 3


N, COLUMNS, THREE = 400, 18, {"groups": 3}


@pytest.mark.parametrize(("score", "policy"), [("heatmap", "official"), ("mask", "official")])
def test_intervals_have_the_right_middle_width_and_size(key, score, policy):
    scores = np.random.default_rng(0).normal(0.5, 0.1, (N, COLUMNS)).astype(np.float32)
    scores[::4, 17] = np.nan
    group = np.where(np.arange(N) < 300, 0, 1).astype(np.int32)
    found = score_intervals(key, scores, group, score=score, policy=policy, **THREE)
    expected = group_scores(add_scores(empty_sums(3, (COLUMNS,)), scores, group), score=score, policy=policy)
    assert found.value.shape == (4, COLUMNS)
    np.testing.assert_allclose(found.value, expected.mean, rtol=1e-5)
    assert np.isnan(found.low[2]).all()
    assert np.isnan(found.value[2]).all()
    n_zero = 0 if score == "heatmap" else 25
    assert found.n[:, 17].tolist() == [225 + 3 * n_zero, 75 + n_zero, 0, 300 + 4 * n_zero]
    half = (found.high - found.low)[[0, 1, 3]] / 2
    theory = 1.96 * expected.std[[0, 1, 3]] / np.sqrt(found.n[[0, 1, 3]])
    np.testing.assert_allclose(half, theory, rtol=0.35)


def test_pictures_of_one_unit_are_resampled_together(key):
    of_unit = np.random.default_rng(0).random((20, COLUMNS)).astype(np.float32)
    unit = np.repeat(np.arange(20), N // 20).astype(np.int32)
    scores, group = of_unit[unit], np.zeros(N, np.int32)
    alone = score_intervals(key, scores, group, score="heatmap", **THREE)
    tied = score_intervals(key, scores, group, score="heatmap", unit=unit, **THREE)
    np.testing.assert_array_equal(tied.value, alone.value)
    assert np.median((tied.high - tied.low)[0] / (alone.high - alone.low)[0]) > 3  # sqrt(20) = 4.5
    assert (tied.n[[0, 3]] == 20).all()
    assert (alone.n[[0, 3]] == N).all()


def test_a_report_puts_chance_beside_mask_scores(key):
    masks = np.zeros((N, 2, 4, 4), np.float32)
    masks[:, 0, :2, :2] = 1
    masks[::2, 1, :2] = 1  # the second region is in every second image only
    maps = np.random.default_rng(0).random((N, COLUMNS // 2, 4, 4)).astype(np.float32)
    scores, level = np.asarray(mask_scores(maps, masks)), np.asarray(chance_attention_iou(area_fraction(masks)))
    group = np.where(np.arange(N) < 40, 0, np.arange(N) % 2 + 1).astype(np.int32)
    official = score_report(key, scores, group, score="mask", chance=level, **THREE)
    honest = score_report(key, scores, group, score="mask", chance=level, policy="present_only", **THREE)
    np.testing.assert_allclose(honest.chance[[0, 1, 3]], [[4 / 7, 0.8]] * 3, rtol=1e-5)
    np.testing.assert_allclose(honest.chance[2], [4 / 7, np.nan], rtol=1e-5)  # only rows without the second region
    np.testing.assert_allclose(official.chance[[0, 2, 3]], [[4 / 7, 0.4], [4 / 7, 0], [4 / 7, 0.4]], rtol=1e-5)
    assert official.used[3].tolist() == [[400, 200]] * 9
    assert (official.score.n[3] == 400).all()
    assert honest.score.n[3].tolist() == [[400, 200]] * 9
    np.testing.assert_allclose(official.score.value[3, :, 1], honest.score.value[3, :, 1] / 2, rtol=1e-5)
    assert honest.small[0].tolist() == [[False, True]] * 9  # 40 and 20 images
    assert not official.small.any()
    heatmap = score_report(key, scores.reshape(N, COLUMNS), group, score="heatmap", **THREE)
    assert heatmap.chance is None
    np.testing.assert_array_equal(heatmap.score.value, honest.score.value.reshape(4, COLUMNS))


def test_adding_a_batch_compiles_once():
    traces = 0

    def step(sums, scores, group):
        nonlocal traces
        traces += 1
        return add_scores(sums, scores, group)

    compiled, sums = jax.jit(step), empty_sums(GROUPS, (2,))
    for seed in range(3):
        sums = compiled(sums, *example(seed=seed))
    assert traces == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"score": "maps"}, "`score`: expected one of heatmap, mask, got 'maps'"),
        ({"score": "mask", "policy": "present"}, "`policy`: expected one of official, present_only, got 'pre"),
        ({"score": "mask", "chance": None}, r"`chance`: expected the chance level of each mask, .24, 2., got NoneType"),
        ({"score": "heatmap", "chance": np.ones((24, 2), np.float32)}, "`chance`: expected None for heatmap scores"),
        ({"score": "heatmap", "groups": 3}, r"`group`: expected values in -1..2, got -1..3"),
    ],
)
def test_bad_arguments_are_refused(unchecked, key, options, message):
    scores, group = example()
    level = np.ones((24, 2), np.float32) if options["score"] == "mask" else None
    options = {"groups": GROUPS, "chance": level} | options
    with pytest.raises(ContractError, match=message):
        score_report(key, scores, group, **options)
