"""What `benchmarks/reproduce/dbvae.py` makes of its rows."""

import dataclasses
import importlib
import pathlib
import types

import numpy as np
import pytest

from jaxdebias.measure import paired_interval

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture
def script(monkeypatch):
    """The scripts are no package: they import each other from their own folder."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks" / "reproduce"))
    modules = map(importlib.import_module, ("dbvae_summary", "dbvae"))
    return types.SimpleNamespace(**{name: value for module in modules for name, value in vars(module).items()})


def row(script, case, arm, seed, *, rare=0.5, common=0.9, worst=0.4, precision=0.8, **drawn):
    """Of 40 rare and 20 common test faces; the first ones are recognised."""
    intervals = {
        name: {"value": value, "low": 0.0, "high": 1.0, "n": 60}
        for name, value in (("accuracy", 0.7), ("rare", rare), ("common", common), ("worst", worst))
    }
    right = {
        "rare": script.packed(np.arange(40) < round(40 * rare)),
        "common": script.packed(np.arange(20) < round(20 * common)),
    }
    return {
        "case": case,
        "arm": arm,
        "seed": seed,
        **intervals,
        "precision": precision,
        "variance": 9.0,
        "right": right,
        **drawn,
    }


def test_gains_are_paired_by_seed_and_by_face(script):
    rows = [row(script, "inverted", "vae", seed, rare=rare) for seed, rare in ((0, 0.5), (1, 0.7), (3, 0.1))]
    rows += [
        row(script, "inverted", "dbvae", seed, rare=rare, auc=0.9) for seed, rare in ((1, 0.8), (0, 0.7), (2, 1.0))
    ]
    of = script.Rows(rows, "inverted")
    gain = of.quantity("dbvae.rare - vae.rare")
    assert gain.value == pytest.approx((0.2 + 0.1) / 2)
    assert gain.n == 2  # seeds 2 and 3 have one arm only
    faces = of.over_faces("dbvae", "vae", "rare")
    assert (faces.value, faces.n) == (pytest.approx(0.15), 80)
    # 8 of 40 and 4 of 40 faces differ, all gains.
    assert faces == paired_interval([8, 4], [0, 0], [40, 40], [0.5, 0.5])
    assert 0 < faces.low < faces.value < faces.high
    assert of.quantity("dbvae.auc").value == pytest.approx(0.9)
    assert of.quantity("oracle.rare") is None
    assert script.Rows(rows, "cue").quantity("dbvae.rare") is None


def test_bits_come_back(script):
    right = np.random.default_rng(0).random(37) < 0.5
    np.testing.assert_array_equal(script.unpacked(script.packed(right)), right)


def test_margins_summary_and_aim(script):
    rows = []
    for seed in range(3):
        rare = {"plain": 0.5, "vae": 0.55, "dbvae": 0.65, "oracle": 0.75}
        drawn = {"dbvae": {"share": 0.2, "auc": 0.95, "ess": 0.2, "largest": 0.01, "never_drawn": 0.5}}
        rows += [
            row(script, "inverted", arm, seed, rare=value + seed / 20, **drawn.get(arm, {}))
            for arm, value in rare.items()
        ]
        rows += [
            row(script, "old", arm, seed, worst=0.4 + gain + 0.001 * seed)
            for arm, gain in (("plain", 0.0), ("loss", 0.05), ("dbvae", 0.01), ("oracle", 0.1))
        ]
    rows[-2]["rare"]["value"] = 0.1  # seed 2 of dbvae on `old`: .4 below plain, on average .133
    said = {(one["case"], one["quantity"]): one for one in script.verdicts(rows)}
    assert said["inverted", "dbvae.rare - vae.rare"]["got"] == pytest.approx(0.1)
    assert said["inverted", "recovered"]["got"] == pytest.approx(0.5)
    assert said["inverted", "dbvae.common - vae.common"]["met"]
    assert not said["old", "dbvae.rare - plain.rare"]["met"]
    assert ("inverted", "product of 100.ess") not in said
    assert {case for case, _ in said} == {"inverted", "old"}

    summary = {(one["case"], one["arm"]): one for one in script.summary(rows)}
    assert summary["inverted", "dbvae"]["follows"]
    assert summary["inverted", "dbvae"]["gain over plain"]["rare"]["value"] == pytest.approx(0.15)
    assert "share" not in summary["inverted", "plain"]
    assert "gain over vae" not in summary["old", "loss"]

    reached = {one["arm"]: one["reached"] for one in script.aim(rows)}
    assert reached == {"loss": True, "dbvae": False, "oracle": False}


def test_plan_and_the_check_of_the_plain_network(script):
    plan = script.plan(script.CASES, script.ARMS, None)
    assert len(set(plan)) == len(plan)
    assert max(seed for case, _, seed in plan if case == "cue") == 4
    assert max(seed for case, _, seed in plan if case == "disgust") == 2
    assert ("disgust", "oracle", 0) not in plan
    assert all(plan.index((case, "plain", 0)) < plan.index((case, "dbvae", 0)) for case in script.CASES)
    assert {case for case, *_ in script.MARGINS} <= set(script.CASES)
    script.check_learned("cue", "dbvae", [row(script, "cue", "plain", 0, common=0.9)])
    script.check_learned("old", "dbvae", [])
    with pytest.raises(SystemExit, match=r"cue: accuracy on common faces has to be at least 0.85 .* got 0.8"):
        script.check_learned("cue", "dbvae", [row(script, "cue", "plain", 0, common=0.8)])


def test_a_case_is_judged_when_it_is_whole(script):
    whole = [row(script, *one) for one in script.plan(["cue"], list(script.ARMS), None)]
    found = script.unfinished_cases([*whole, row(script, "dark", "plain", 0)])
    assert "cue" not in found
    assert found["dark"] == (1, 39)
    assert script.unfinished_cases(whole[1:])["cue"] == (39, 40)


@pytest.mark.slow
@pytest.mark.unoptimised
@pytest.mark.parametrize("arm", ["contrastive", "all faces", "flow"])
def test_what_was_tried_on_natural_groups_trains(script, arm):
    cases = importlib.import_module("dbvae_cases")
    assert set(cases.TRIED) <= set(cases.CASES["old"].arms) & set(script.ARMS)
    data = script.dataset_of("inverted", None, 0, True)
    data = dataclasses.replace(data, splits={**data.splits, "others": data.splits["train"]})
    row = script.measured("inverted", arm, data, 0, True)
    assert 0 < row["ess"] <= 1
    assert len(row["histogram"]) == 24
    if arm != "flow":
        # Weights that were there before: those of the first epoch are those of the last.
        assert row["ess_by_epoch"] == pytest.approx([row["ess"]] * 3, rel=1e-3)
    if arm == "contrastive":  # in so short a training no latent of a VAE carries anything
        assert row["ess"] < 0.99


def test_natural_groups_are_rare_and_nobody_is_in_two_splits(script):
    cases = importlib.import_module("dbvae_cases")
    rng = np.random.default_rng(0)
    label, attribute = rng.integers(0, 2, 4000), rng.integers(-1, 2, 4000)
    for aligned in (np.eye(2, dtype=bool), np.array([[True, False]] * 2)):
        train, test = cases.rare_group_rows(rng, label, attribute, aligned, train=1000, test_cell=50)
        assert not set(train) & set(test)
        assert np.bincount(2 * label[test] + attribute[test]).tolist() == [50] * 4
        assert (attribute[train] >= 0).all()
        for y in (0, 1):
            of = train[label[train] == y]
            assert len(of) == 500
            assert (~aligned[y, attribute[of]]).sum() == 25


def test_what_reached_the_aim_is_repeated_on_fresh_seeds(script):
    again = script.plan(script.AGAIN, script.ARMS, None, again=True)
    assert not set(again) & set(script.plan(script.CASES, script.ARMS, None))
    assert len({seed for _, _, seed in again}) == 5
    rows = [row(script, *one) for one in again]
    assert script.unfinished_cases(rows, again=True) == {}
    assert script.unfinished_cases(rows[1:], again=True) == {"old": (19, 20)}
