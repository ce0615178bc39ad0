"""Feature matrices and a PyTorch-like head in files, against the calls that they stand for."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import softmax_head as oracle
from oracles.fmd_toy import flip, l2, toy

from jaxdebias.app import features as feature_files
from jaxdebias.app.feature_sets import feature_sets, find_head_arrays
from jaxdebias.app.features import FeatureConfig, debias_features, debias_sets
from jaxdebias.contracts import ContractError
from jaxdebias.core import Batch, RepairSets, Split
from jaxdebias.explain import influence
from jaxdebias.mitigate import FmdConfig, fmd
from jaxdebias.results.codec import read_results, read_run, to_json


def sides(data):
    """(x aligned, twin conflicting) of the rows of the toy, whose attribute goes with the label where they agree."""
    aligned = np.where((data.a == data.y)[:, None], data.x, flip(data.x)).astype(np.float32)
    return aligned, flip(aligned)


@pytest.fixture(scope="module")
def arrays():
    """Features of the toy and its head at the optimum, `[k d]` in float64."""
    train, edit, accept, test = (toy(seed, n) for seed, n in ((0, 1000), (100, 200), (300, 200), (900, 300)))
    made = {"train": train.x.astype(np.float32), "train_label": train.y}
    made["edit"], made["edit_twin"] = sides(edit)
    made["edit_label"] = edit.y
    for name, data in (("accept", accept), ("test", test)):
        # Every second row shows the attribute that goes with its label.
        shown = np.arange(len(data.y)) % 2 == 0
        aligned, conflicting = sides(data)
        made |= {
            name: np.where(shown[:, None], aligned, conflicting),
            f"{name}_label": data.y,
            f"{name}_pairs": aligned,
            f"{name}_twin": conflicting,
            f"{name}_pairs_label": data.y,
            f"{name}_attribute": np.where(shown, data.y, 1 - data.y),
        }
    theta = oracle.fit(train.x, train.y, 2, l2(1000), tolerance=1e-8)
    return made, {"fc.weight": np.ascontiguousarray(theta.T), "fc.bias": np.zeros(2)}


def written(folder, features, head):
    np.savez(folder / "F.npz", **features)
    np.savez(folder / "H.npz", **head)
    return folder / "F.npz", folder / "H.npz", folder / "out"


def accuracy(head, x, label):
    return np.mean((x @ head["fc.weight"].T + head["fc.bias"]).argmax(axis=1) == label)


def test_result_is_that_of_fmd_in_the_layout_of_the_file(arrays, tmp_path):
    features, head = arrays
    results = debias_features(*written(tmp_path, features, head), FeatureConfig(rounds=3, seed=5))
    with np.load(tmp_path / "out" / "head.npz") as file:
        edited = dict(file)
    assert {name: (a.shape, a.dtype) for name, a in edited.items()} == {
        name: (a.shape, a.dtype) for name, a in head.items()
    }

    def batch(x, label, twin=None):
        return Batch(x.astype(np.float32), label.astype(np.int32), np.full(len(label), -1, np.int32), twin=twin)

    split = Split(features=lambda p, x: x, head=lambda p, z: z @ p["head"]["w"].T + p["head"]["b"][None, :])
    sets = RepairSets(
        train=batch(features["train"], features["train_label"]),
        pairs=batch(features["edit"], features["edit_label"], features["edit_twin"]),
        accept=batch(features["accept"], features["accept_label"]),
        accept_pairs=batch(features["accept_pairs"], features["accept_pairs_label"], features["accept_twin"]),
    )
    params = {"head": {"w": jnp.asarray(head["fc.weight"], jnp.float32), "b": jnp.zeros(2)}}
    expected, info = fmd(jax.random.split(jax.random.key(5), 3)[0], split, params, sets, FmdConfig(rounds=3))
    assert info.accepted
    np.testing.assert_allclose(edited["fc.weight"], expected["head"]["w"], rtol=1e-6)
    np.testing.assert_allclose(edited["fc.bias"], expected["head"]["b"], rtol=1e-6)

    # The file says what plain counting finds on the test rows.
    saved = json.loads((tmp_path / "out" / "results.json").read_text())
    assert saved == to_json(results)
    assert read_results(tmp_path / "out") == results
    assert saved["split"] == "test"
    assert list(saved["provenance"]["seconds_by_part"]) == [f"round {n}" for n in range(1, len(info.rounds) + 1)]
    # Training rows have no attribute here, so that mistakes and pairs have no direction: error rates are what is seen.
    assert [(one.attribute, one.state) for one in results.verdict.reliance] == [("attribute", "cannot_tell")]
    assert results.verdict.advice.state.startswith("disparity")
    assert results.verdict.advice.repair == "fmd"
    assert results.verdict.advice.test.gain > 0
    assert saved["head"] == {"fc.weight": [2, 11], "fc.bias": [2]}
    for side, now in (("before", head), ("after", edited)):
        label = features["test_label"]
        assert saved[side]["accuracy"]["value"] == pytest.approx(accuracy(now, features["test"], label))
        for key, name in (("bias_aligned_accuracy", "test_pairs"), ("bias_conflicting_accuracy", "test_twin")):
            assert saved[side][key]["value"] == pytest.approx(accuracy(now, features[name], label))
        own = (
            [
                oracle.probabilities(now["fc.weight"].T, features[name].astype(np.float64) + 0.0)
                for name in ("test_pairs", "test_twin")
            ]
            if not now["fc.bias"].any()
            else None
        )
        if own is not None:
            rows = np.arange(len(label))
            assert saved[side]["counterfactual_bias"]["value"] == pytest.approx(
                np.abs(own[0][rows, label] - own[1][rows, label]).mean(), abs=1e-5
            )
        groups = [
            accuracy(now, features["test"][rows], label[rows])
            for y in (0, 1)
            for a in (0, 1)
            if (rows := (label == y) & (features["test_attribute"] == a)).any()
        ]
        assert saved[side]["worst_group_accuracy"]["value"] == pytest.approx(min(groups))
    change = saved["changes"]["counterfactual_bias"]
    assert change["value"] == pytest.approx(
        saved["after"]["counterfactual_bias"]["value"] - saved["before"]["counterfactual_bias"]["value"], abs=1e-6
    )
    assert change["high"] < 0


def test_a_saved_factor_takes_the_place_of_the_training_set(arrays, tmp_path):
    features, head = arrays
    files = written(tmp_path, features, head)
    debias_features(*files, FeatureConfig(rounds=1), save_factor=tmp_path / "factor.npz")
    # The same factor, by the library's own words.
    problem = influence.head_problem(
        jnp.asarray(features["train"]),
        jnp.asarray(features["train_label"], jnp.int32),
        influence.AffineHead(jnp.asarray(head["fc.weight"].T, jnp.float32), jnp.zeros(2)),
    )
    rhs = np.random.default_rng(0).normal(size=(24, 2))
    np.testing.assert_allclose(
        influence.load(tmp_path / "factor.npz").solve(rhs).value,
        influence.factor(problem, damping=1e-3 * 1000).solve(rhs).value,
        rtol=1e-6,
        atol=1e-12,
    )

    blind = {name: array for name, array in features.items() if not name.startswith("train")}
    np.savez(tmp_path / "blind.npz", **blind)
    results = debias_features(tmp_path / "blind.npz", files[1], tmp_path / "blind", factor=tmp_path / "factor.npz")
    assert results.factor
    assert any("saved factor" in text for text in results.findings)
    assert results.rows["train"] is None
    assert results.edit.accepted
    assert results.after.counterfactual_bias.value < 0.8 * results.before.counterfactual_bias.value


def test_dfr_needs_no_training_set(arrays, tmp_path):
    features, head = arrays
    blind = {name: array for name, array in features.items() if not name.startswith("train")}
    results = debias_features(*written(tmp_path, blind, head), FeatureConfig(method="dfr"))
    assert results.after.bias_conflicting_accuracy.value > results.before.bias_conflicting_accuracy.value


def test_what_is_not_accepted_comes_back_to_the_bit(arrays, key):
    features, head = arrays
    # Twins that are the examples themselves: there is no bias to take out.
    same = features | {
        name: features[other] for name, other in (("edit_twin", "edit"), ("accept_twin", "accept_pairs"))
    }
    sets, found = feature_sets(same, head)
    edited, results = debias_sets(key, sets, found)
    assert not results.edit.accepted
    assert all((edited[name] == head[name]).all() for name in head)
    assert results.after == results.before


def test_what_is_missing_is_made_of_the_pairs(arrays):
    features, head = arrays
    few = {
        name: features[name]
        for name in (
            "train",
            "train_label",
            "edit",
            "edit_twin",
            "edit_label",
            "accept_pairs",
            "accept_twin",
            "accept_pairs_label",
        )
    }
    sets, _ = feature_sets(few, head)
    assert sets.test is None
    assert sets.test_pairs is None
    np.testing.assert_array_equal(sets.accept.x, np.concatenate([few["accept_pairs"], few["accept_twin"]]))
    np.testing.assert_array_equal(sets.accept.unit, np.tile(np.arange(200), 2))
    # `accept` and its twin alone mean the same.
    renamed = {name.replace("accept_pairs", "accept"): array for name, array in few.items()}
    assert "accept" in renamed
    again, _ = feature_sets(renamed, head)
    jax.tree.map(np.testing.assert_array_equal, again, sets)


def test_without_test_arrays_the_numbers_are_called_optimistic(arrays, tmp_path):
    features, head = arrays
    few = {name: array for name, array in features.items() if not name.startswith("test")}
    results = debias_features(*written(tmp_path, few, head), FeatureConfig(rounds=1, bias="gap"))
    assert results.split == "accept"
    assert any("optimistic" in text for text in results.findings)
    assert any("different examples" in text for text in results.findings)
    # Without an attribute the sides of the pairs are judged, and without test arrays no repair is verified.
    assert {one.attribute for one in results.verdict.disparity} == {"attribute"}
    assert results.verdict.advice.test is None
    assert not results.verdict.advice.state.endswith("repaired")


@pytest.mark.parametrize(
    ("head", "transposed"),
    [
        ({"kernel": np.zeros((3, 5))}, False),
        ({"weight": np.zeros((5, 3)), "bias": np.zeros(5)}, True),
        ({"anything": np.zeros((5, 3)), "b": np.zeros(5)}, True),
        ({"classifier.weight": np.zeros((3, 3))}, True),
        ({"head.kernel": np.zeros((3, 3))}, False),
    ],
)
def test_heads_of_both_orientations(head, transposed):
    found = find_head_arrays(head, 3)
    assert found.transposed == transposed
    assert found.params["head"]["kernel"].shape == (3, 5 if 5 in next(iter(head.values())).shape else 3)
    rng = np.random.default_rng(0)
    full = {name: rng.normal(size=array.shape).astype(np.float16) for name, array in head.items()}
    found = find_head_arrays(full, 3)
    back = found.with_params(found.params)
    assert all((back[name] == full[name]).all() and back[name].dtype == np.float16 for name in full)


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (
            {"a": np.zeros((3, 5)), "b": np.zeros((5, 3))},
            r"one matrix and at most one vector, got a float64 \[3, 5\], b",
        ),
        ({"b": np.zeros(5)}, "one matrix and at most one vector"),
        ({}, "got none"),
        ({"w": np.zeros((4, 5))}, r"a matrix with d=3 features on one side.*w float64 \[4, 5\]"),
        ({"w": np.zeros((3, 5)), "b": np.zeros(4)}, r"a vector \[k=5\]"),
        ({"w": np.zeros((3, 3))}, "ends in kernel"),
        ({"w": np.zeros((3, 5), int)}, "expected float, got int64"),
        ({"w": np.full((3, 5), np.nan)}, "15 of 15 not finite"),
        ({"w": np.zeros((1, 3))}, "at least two classes"),
    ],
)
def test_bad_heads_are_named(head, message):
    with pytest.raises(ContractError, match=message):
        find_head_arrays(head, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"edit_twin": None}, "expected an array edit_twin, got accept, accept_attribute"),
        ({"train": None}, "an array train, or a saved factor"),
        ({"train": None, "train_label": None}, "an array train, or a saved factor"),
        ({"accept_label": None}, "an array accept_label to go with accept"),
        ({"accept_pairs": None}, "an array accept_pairs to go with"),
        ({"accept_pairs": None, "accept_twin": None, "accept_pairs_label": None}, "accept_pairs with accept_twin"),
        ({"test_pairs": None, "test_twin": None}, "an array test_pairs to go with test_pairs_label"),
        ({"edit_labels": np.zeros(3)}, r"got 'edit_labels' \(did you mean 'edit_label'\?\)"),
        ({"accept": np.zeros((200, 7), np.float32)}, r"`accept`: expected float \[n, d=11\]"),
        (
            {"edit_twin": np.zeros((199, 11), np.float32)},
            r"`edit_twin`: expected float \[m=200, d=11\], a row for each",
        ),
        ({"test": np.zeros((0, 11), np.float32)}, "at least one row"),
        ({"train": np.zeros((1000, 11), int)}, r"`train`: expected float"),
        ({"edit": np.full((200, 11), np.nan)}, "`edit`: expected finite values, got 2200 of 2200"),
        ({"edit": np.zeros(11)}, r"`edit`: expected float \[m d\]"),
        ({"edit_label": np.full(200, 2)}, "`edit_label`: expected values in 0..1, got 2..2"),
        ({"edit_label": np.zeros(200)}, r"`edit_label`: expected int \[n=200\]"),
        ({"test_attribute": np.full(300, -2)}, "`test_attribute`: expected values of at least -1"),
    ],
)
def test_bad_features_are_named(arrays, change, message):
    features, head = arrays
    features = {name: array for name, array in (features | change).items() if array is not None}
    with pytest.raises(ContractError, match=message) as error:
        feature_sets(features, head)
    assert "\n" not in str(error.value)


def test_bad_files_are_named(arrays, tmp_path):
    features, head = arrays
    files = written(tmp_path, features, head)
    (tmp_path / "text.npz").write_text("no archive")
    (tmp_path / "cut.npz").write_bytes(files[0].read_bytes()[:5000])
    np.save(tmp_path / "lone.npy", np.zeros(3))
    np.savez(tmp_path / "objects.npz", x=np.array([{}], dtype=object))
    for name in ("text.npz", "cut.npz", "lone.npy", "objects.npz", "nowhere.npz"):
        with pytest.raises(ContractError, match="`features`: expected an .npz file of arrays, got .*" + name) as error:
            debias_features(tmp_path / name, *files[1:])
        assert "\n" not in str(error.value)
        with pytest.raises(ContractError, match=name) as error:
            debias_features(*files, factor=tmp_path / name)
        assert "\n" not in str(error.value)
    other = feature_files.training_factor(
        Batch(np.ones((9, 3), np.float32), np.zeros(9, np.int32), np.zeros(9, np.int32)),
        find_head_arrays({"w": np.zeros((3, 2))}, 3),
    )
    influence.save(tmp_path / "other.npz", other)
    with pytest.raises(ContractError, match="one for the 24 parameters of the head, got one for 6"):
        debias_features(*files, factor=tmp_path / "other.npz")
    with pytest.raises(ContractError, match="training features, not a saved factor"):
        debias_features(*files, factor=tmp_path / "other.npz", save_factor=tmp_path / "x.npz")
    with pytest.raises(ContractError, match="a path in a folder that exists"):
        debias_features(*files, save_factor=tmp_path / "no" / "x.npz")
    assert not files[2].exists()


def test_results_are_not_written_over(arrays, tmp_path):
    files = written(tmp_path, *arrays)
    results = debias_features(*files, FeatureConfig(rounds=1))
    assert debias_features(*files, FeatureConfig(rounds=1)) == results
    with pytest.raises(ContractError, match=r"a folder without results.*made with rounds=1, not 2"):
        debias_features(*files, FeatureConfig(rounds=2))
    np.savez(files[0], **arrays[0] | {"test": arrays[0]["test"] + 1})
    with pytest.raises(ContractError, match="made with features="):
        debias_features(*files, FeatureConfig(rounds=1))
    debias_features(*files, FeatureConfig(rounds=2), overwrite=True)
    with pytest.raises(ContractError):
        read_run(files[2])  # another record: not taken for a run
