import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdebias import contracts
from jaxdebias.contracts import ContractError
from jaxdebias.core import Batch, Dataset, Split


def batch(**change):
    images = np.zeros((4, 3, 3, 1), np.uint8)
    return Batch(images, np.array([0, 1, 0, 1]), np.array([0, 1, -1, 0]))._replace(**change)


def dataset(**change):
    fields = {
        "name": "toy",
        "variant": {},
        "splits": {"train": batch()},
        "pairs": {},
        "label_names": ("a", "b"),
        "attribute_names": ("c", "d"),
        "aligned": np.eye(2, dtype=bool),
    }
    return Dataset(**(fields | change))


def refuses(message, check, *args, **kwargs):
    with pytest.raises(ContractError) as caught:
        check(*args, **kwargs)
    assert str(caught.value) == message
    assert "\n" not in message


def test_an_error_is_a_value_error_of_one_line():
    assert issubclass(ContractError, ValueError)
    contracts.expect(True, "x", "anything", None)
    refuses("`x`: expected 1, got 2", contracts.expect, False, "x", "1", 2)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (np.zeros((2, 3), np.float32), "float32 [2, 3]"),
        (jnp.zeros(2, jnp.int32), "int32 [2]"),
        (3, "int 3"),
        (None, "NoneType None"),
        ("a\nb", r"str 'a\nb'"),
        ({"k": [1, 2]}, "dict {'k': [1, 2]}"),
        ("x" * 60, "str '" + "x" * 56 + "..."),
    ],
)
def test_describe(value, text):
    assert contracts.describe(value) == text


def test_choices():
    contracts.check_choice("method", "erm", ["erm", "fmd"])
    refuses(
        "`method`: expected one of erm, fmd, got 'fdm' (did you mean 'fmd'?)",
        contracts.check_choice,
        "method",
        "fdm",
        ["erm", "fmd"],
    )
    refuses("`method`: expected one of erm, fmd, got 'zzz'", contracts.check_choice, "method", "zzz", ["erm", "fmd"])
    refuses(
        "`method`: expected one of erm, fmd, got 'erm2' (did you mean 'erm'?)",
        contracts.check_choice,
        "method",
        "erm2",
        (name for name in ("erm", "fmd")),
    )


def test_integers():
    contracts.check_integers("y", np.array([0, 1, 2]), 3, 0, 3)
    contracts.check_integers("y", jnp.array([0, 1, 99]), 3, 0, None)
    contracts.check_integers("y", np.zeros(0, int), 0, 0, 3)
    refuses("`y`: expected int [n=3], got float64 [3]", contracts.check_integers, "y", np.zeros(3), 3, 0, 3)
    refuses("`y`: expected int [n=3], got int64 [2]", contracts.check_integers, "y", np.zeros(2, int), 3, 0, 3)
    refuses("`y`: expected int [n=3], got int64 [3, 1]", contracts.check_integers, "y", np.zeros((3, 1), int), 3, 0, 3)
    refuses("`y`: expected int [n=3], got bool [3]", contracts.check_integers, "y", np.zeros(3, bool), 3, 0, 3)
    refuses("`y`: expected values in 0..2, got 0..3", contracts.check_integers, "y", np.arange(4), 4, 0, 3)
    refuses("`y`: expected values in -1..2, got -2..1", contracts.check_integers, "y", np.arange(-2, 2), 4, -1, 3)
    refuses(
        "`y`: expected values of at least 0, got -1..1", contracts.check_integers, "y", np.arange(-1, 2), 3, 0, None
    )


def test_finite():
    contracts.check_finite("params", {"w": np.ones(2), "n": np.array([1]), "b": [jnp.zeros(1)]})
    refuses(
        "`params['b'][1]`: expected finite values, got 2 of 3 not finite",
        contracts.check_finite,
        "params",
        {"a": np.ones(2), "b": [np.ones(1), np.array([np.nan, np.inf, 0])]},
    )


GOOD = {
    "bytes": {},
    "float pixels": {"x": np.ones((4, 3, 3, 1), np.float32)},
    "rounding": {"x": np.full((4, 3, 3, 1), 1.0005, np.float32)},
    "on the device": {"x": jnp.zeros((4, 3, 3, 1)), "label": jnp.array([0, 1, 0, 1])},
    "a table": {"x": np.full((4, 7), -30.0)},
    "everything": {
        "mask": np.zeros((4, 3, 3), int),
        "twin": np.zeros((4, 3, 3, 1), np.uint8),
        "weight": np.array([0.0, 1, 2, 0.5]),
        "unit": np.array([7, 7, 8, 900]),
    },
}


@pytest.mark.parametrize("change", GOOD.values(), ids=GOOD)
def test_good_batches(change):
    contracts.check_batch(batch(**change), classes=2, attributes=2)
    contracts.check_batch(batch(**change))


BAD = {
    "`data.x`: expected images [n h w c] or a table [n d], got uint8 [4, 3, 3]": {"x": np.zeros((4, 3, 3), np.uint8)},
    "`data.x`: expected images [n h w c]: x.transpose(0, 2, 3, 1) of [n c h w], got uint8 [4, 3, 8, 8]": {
        "x": np.zeros((4, 3, 8, 8), np.uint8)
    },
    "`data.x`: expected an array, such as numpy.asarray(...) of it, got list": {"x": [1, 2]},
    "`data.x`: expected at least one row, got uint8 [0, 3, 3, 1]": {"x": np.zeros((0, 3, 3, 1), np.uint8)},
    "`data.x`: expected uint8 or float, got int64 [4, 2]": {"x": np.zeros((4, 2), int)},
    "`data.x`: expected finite values, got 1 of 8 not finite": {"x": np.array([[0, np.nan], [0, 0], [0, 0], [0, 0]])},
    "`data.x`: expected pixels in [0, 1], got 0..255": {"x": np.linspace(0, 255, 4).reshape(4, 1, 1, 1)},
    "`data.x`: expected pixels in [0, 1], got -1..1": {"x": np.linspace(-1, 1, 4).reshape(4, 1, 1, 1)},
    "`data.label`: expected int [n=4], got float64 [4]": {"label": np.zeros(4)},
    "`data.label`: expected values in 0..1, got 0..2": {"label": np.array([0, 1, 2, 0])},
    "`data.label`: expected values in 0..1, got -1..1": {"label": np.array([0, 1, -1, 0])},
    "`data.attribute`: expected int [n=4], got int64 [3]": {"attribute": np.zeros(3, int)},
    "`data.attribute`: expected values in -1..1, got -1..2": {"attribute": np.array([0, -1, 2, 0])},
    "`data.mask`: expected int [4, 3, 3], got int64 [4, 3]": {"mask": np.zeros((4, 3), int)},
    "`data.twin`: expected uint8 [4, 3, 3, 1], got uint8 [3, 3, 3, 1]": {"twin": np.zeros((3, 3, 3, 1), np.uint8)},
    "`data.twin`: expected uint8 [4, 3, 3, 1], got float64 [4, 3, 3, 1]": {"twin": np.zeros((4, 3, 3, 1))},
    "`data.twin`: expected finite values, got 8 of 8 not finite": {
        "x": np.zeros((4, 2)),
        "twin": np.full((4, 2), np.inf),
    },
    "`data.weight`: expected float [n=4], got float64 [4, 1]": {"weight": np.ones((4, 1))},
    "`data.weight`: expected finite values, got 1 of 4 not finite": {"weight": np.array([1, 1, np.nan, 1])},
    "`data.weight`: expected no negative weight, got -0.5": {"weight": np.array([1, 1, -0.5, 1])},
    "`data.unit`: expected int [n=4], got float64 [4]": {"unit": np.ones(4)},
    "`data.unit`: expected values of at least 0, got -1..3": {"unit": np.array([-1, 0, 3, 3])},
}


@pytest.mark.parametrize(("message", "change"), BAD.items(), ids=BAD)
def test_bad_batches(message, change):
    refuses(message, contracts.check_batch, batch(**change), classes=2, attributes=2)


def test_a_batch_is_named_and_has_to_be_one():
    with pytest.raises(ContractError, match=re.escape("`splits['test'].label`: expected int")):
        contracts.check_batch(batch(label=np.zeros(4)), what="splits['test']")


def test_what_is_no_batch(monkeypatch):
    import jaxtyping

    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as it is for users
    refuses("`data`: expected a jaxdebias.Batch, got dict", contracts.check_batch, {"x": 1})


def test_a_mask_needs_images():
    refuses(
        "`data.mask`: expected int [4, 3], got int64 [4, 3, 3]",
        contracts.check_batch,
        batch(x=np.zeros((4, 3)), mask=np.zeros((4, 3, 3), int)),
    )


def test_datasets():
    with_twins = batch(twin=np.zeros((4, 3, 3, 1), np.uint8))
    contracts.check_dataset(dataset())
    contracts.check_dataset(dataset(splits={"train": batch(), "test": batch()}, pairs={"test": with_twins}))
    refuses(
        "`aligned`: expected bool [k=2, a=2], got bool [2, 3]",
        contracts.check_dataset,
        dataset(aligned=np.zeros((2, 3), bool)),
    )
    refuses(
        "`splits`: expected a split named train, got test", contracts.check_dataset, dataset(splits={"test": batch()})
    )
    refuses("`splits`: expected a split named train, got none", contracts.check_dataset, dataset(splits={}))
    refuses(
        "`splits['test'].label`: expected values in 0..1, got 0..5",
        contracts.check_dataset,
        dataset(splits={"train": batch(), "test": batch(label=np.array([0, 1, 5, 1]))}),
    )
    refuses(
        "`pairs['edit'].attribute`: expected values in -1..1, got 0..2",
        contracts.check_dataset,
        dataset(pairs={"edit": with_twins._replace(attribute=np.array([0, 1, 2, 1]))}),
    )
    refuses(
        "`pairs['edit'].twin`: expected the conflicting rendering of x, got None",
        contracts.check_dataset,
        dataset(pairs={"edit": batch()}),
    )


def test_logits():
    contracts.check_logits(np.zeros((3, 2)), 3)
    contracts.check_logits(jnp.zeros((3, 2)), 3, classes=2)
    for bad, got in [
        (np.zeros((3, 4)), "float64 [3, 4]"),
        (np.zeros((2, 2)), "float64 [2, 2]"),
        (np.zeros(3, int), "int64 [3]"),
        (np.zeros((3, 2), int), "int64 [3, 2]"),
        ([0, 1], "list [0, 1]"),
    ]:
        refuses(f"`logits`: expected float [n=3, k=2], got {got}", contracts.check_logits, bad, 3, classes=2)
    whole = np.zeros(3, int)
    refuses("`z`: expected float [n=3, k=classes], got int64 [3]", contracts.check_logits, whole, 3, what="z")
    refuses(
        "`logits`: expected finite values, got 1 of 4 not finite",
        contracts.check_logits,
        np.array([[0, np.nan], [1, 1]]),
        2,
    )


@pytest.mark.parametrize("field", ["x", "label", "attribute", "weight", "unit"])
def test_what_is_indexed_by_label_and_not_by_position_is_refused(field):
    """A shuffled Series gives other rows; a frame, a list or a tensor of another library fails later and worse."""
    pandas = pytest.importorskip("pandas")
    good = Batch(
        x=np.zeros((3, 2), np.float32),
        label=np.array([0, 1, 1]),
        attribute=np.array([0, 0, 1]),
        weight=np.ones(3),
        unit=np.arange(3),
    )
    contracts.check_batch(good)
    value = getattr(good, field)
    labelled = pandas.DataFrame(value) if value.ndim == 2 else pandas.Series(value, index=[2, 0, 1])
    for bad in (labelled, value.tolist()):
        with pytest.raises(ContractError, match=rf"`data.{field}`: expected an array, such as numpy.asarray"):
            contracts.check_batch(good._replace(**{field: bad}))


def test_tables_in_half_precision_are_floats():
    contracts.check_batch(Batch(jnp.zeros((2, 3), jnp.bfloat16), np.array([0, 1]), np.array([0, 1])))


def test_an_object_of_another_class_is_named():
    with pytest.raises(ContractError, match="`config`: expected Batch, got int 3"):
        contracts.check_type("config", 3, Batch)
    with pytest.raises(ContractError, match="`rows`: expected rows of the training set, at least 1, got 0"):
        contracts.check_rows(0)
    assert contracts.check_rows(4) == 4


def test_one_logit_is_refused_with_what_to_do():
    with pytest.raises(ContractError, match=r"a single logit z is the two classes 0 and z") as caught:
        contracts.check_logits(np.zeros((3, 1), np.float32), 3)
    assert "float32 [3, 1]" in str(caught.value)
    with pytest.raises(ContractError, match=r"a single logit z"):
        contracts.check_logits(np.zeros((3, 1), np.float32), 3, classes=2)
    with pytest.raises(ContractError, match=r"float32 \[3\] \(a single logit z.*return jnp.stack"):
        contracts.check_logits(np.zeros(3, np.float32), 3)


SOFTMAX = np.array([[0.2, 0.8], [0.999, 0.001]], np.float32)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, jnp.bfloat16])
def test_probabilities_are_no_logits(dtype):
    outputs = jnp.asarray(SOFTMAX, dtype)
    with pytest.raises(ContractError, match=r"expected logits, got probabilities \(every row is in 0..1"):
        contracts.check_logits(outputs, 2)
    contracts.check_logits(outputs, 2, probabilities=True)
    contracts.check_logits(jnp.log(outputs), 2)


@pytest.mark.parametrize(
    "logits",
    [np.eye(3), np.zeros((3, 3)), np.log(SOFTMAX), [[0.2, 0.8], [0.2, 0.9]], [[-0.1, 1.1]], [[0.2, 0.8], [3.0, -2.0]]],
)
def test_what_is_no_probability(logits):
    assert not contracts.are_probabilities(np.asarray(logits))


def test_a_split_is_the_model_cut_in_two():
    x = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    kernel = np.random.default_rng(1).normal(size=(3, 2)).astype(np.float32)
    model = lambda params, x: jnp.maximum(x, 0) @ params  # noqa: E731
    right = Split(lambda params, x: jnp.maximum(x, 0), lambda params, z: z @ params)
    contracts.check_split(model, right, kernel, x)
    coarse = Split(lambda params, x: jnp.maximum(x, 0).astype(jnp.bfloat16), lambda params, z: z @ params)
    contracts.check_split(model, coarse, kernel.astype(jnp.bfloat16), x)
    for other in (
        Split(lambda params, x: x, right.head),  # without the last nonlinearity
        Split(right.features, lambda params, z: z @ params + 0.01),
        Split(right.features, lambda params, z: jax.nn.softmax(z @ params)),
    ):
        with pytest.raises(ContractError, match=r"`split`: expected the model cut .* got logits that differ by"):
            contracts.check_split(model, other, kernel, x)
    wide = Split(right.features, lambda params, z: jnp.concatenate([z @ params, z[:, :1]], 1))
    with pytest.raises(ContractError, match=r"logits \[8, 2\], got head\(features\(x\)\) \[8, 3\]"):
        contracts.check_split(model, wide, kernel, x)
