"""What a run trains, by the name of a method: its network and learner, and what is refused."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxdebias import models
from jaxdebias.app import cli, training
from jaxdebias.app import train as training_command
from jaxdebias.app.recipes import RECIPES, TrainConfig, resolve
from jaxdebias.app.training import build_training, default_augment
from jaxdebias.contracts import ContractError
from jaxdebias.core import Batch, Dataset
from jaxdebias.mitigate import AugCellInfo, JttInfo
from jaxdebias.mitigate._methods import METHODS, REPAIRS, TRAINING, choices
from jaxdebias.report import _tables as tables
from jaxdebias.train import Optimizer, random_shift


def toy(shape):
    batch = Batch(
        x=np.zeros((6, *shape), np.float32), label=np.arange(6, dtype=np.int32) % 2, attribute=np.zeros(6, np.int32)
    )
    return Dataset(
        name="toy",
        variant={},
        splits={"train": batch},
        pairs={},
        label_names=("no", "yes"),
        attribute_names=("blue", "red"),
        aligned=np.eye(2, dtype=bool),
    )


@pytest.mark.parametrize(("command", "table"), [("train", TRAINING), ("debias", REPAIRS)])
def test_the_command_line_offers_what_the_table_says(capsys, command, table):
    with pytest.raises(SystemExit):
        cli.main([command, "--help"])
    printed = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert f"--method {{{','.join(choices(table))}}}" in printed
    for name in choices(table):
        assert f"{name}: {table[name].help}" in printed


def test_the_command_line_passes_them_on(monkeypatch):
    given = []
    monkeypatch.setattr(training_command, "train", lambda config, out, **more: given.append(config))
    monkeypatch.setattr(tables, "print_summary", lambda results: None)
    monkeypatch.setattr(training_command, "print_ending", lambda *arguments, **options: None)
    cli.main(["train", "--data", "faces", "--out", "x", "--method", "dbvae", "--augment", "False"])
    cli.main(["train", "--data", "faces", "--out", "x"])
    assert [(config.method, config.augment) for config in given] == [("dbvae", False), ("erm", None)]


@pytest.mark.parametrize("method", choices(TRAINING))
def test_what_is_trained_predicts_and_is_one_object(method):
    dataset = toy((16, 16, 3))
    model = METHODS[method].model or "cnn"
    made, again = build_training(method, model, dataset), build_training(method, model, dataset)
    data = dataset.splits["train"]
    assert made.classifier is again.classifier
    assert (made.learner is None) == (made.fit is not None) == (method in ("aug-cell", "jtt"))
    if made.learner is not None:
        assert made.learner(Optimizer(), data, None) is again.learner(Optimizer(), data, None)
    assert (made.vae is not None) == (method == "dbvae")
    assert made.classifier.apply is (made.vae.classifier if made.vae else made.classifier).apply


@pytest.mark.parametrize(
    ("method", "model", "shape", "message"),
    [
        ("dbvae", "cnn", (7,), "`method`: expected one for tables: erm, gce"),
        ("sih", "mlp", (7,), "`method`: expected one for tables"),
        ("gce", "cnn", (7,), "`model`: expected mlp for a table, got cnn"),
        ("dbvae", "resnet18", (32, 32, 3), "without batch normalisation"),
        ("sih", "cnn", (32, 32, 3), "mlp or resnet18, for the branches"),
        ("sih", "resnet18", (16, 16, 3), "mlp for pictures other than 32 x 32"),
        ("erm", "mpl", (8, 8, 1), "did you mean 'mlp'"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(method, model, shape, message):
    with pytest.raises(ContractError, match=message):
        build_training(method, model, toy(shape))


def test_the_encoder_of_dbvae_may_be_any_network():
    vae = build_training("dbvae", "pooled-cnn", toy((48, 40, 1))).vae
    assert vae.encoder is models.pooled_cnn(classes=2)
    assert (vae.latent, build_training("dbvae", "cnn", toy((32, 32, 1))).vae.latent) == (16, 8)


def test_defaults_of_the_method_come_before_those_of_the_data():
    config = resolve(TrainConfig(data="digits", method="dbvae"))
    assert (config.model, config.augment, config.epochs) == ("cnn", True, RECIPES["digits"].epochs)
    config = resolve(TrainConfig(data="digits", method="gce", augment=True))
    assert (config.model, config.augment) == ("mlp", True)
    assert resolve(TrainConfig(data="digits", method="dbvae", model="mlp", augment=False)).augment is False
    with pytest.raises(ContractError, match="`weights`: expected a method that trains one classifier, got lff"):
        resolve(TrainConfig(data="utkface", method="lff", model="resnet18", weights=Path("w.npz")))


def test_what_aug_cell_cannot_do_without_or_with_is_refused():
    assert resolve(TrainConfig(data="digits", method="aug-cell")).augment is True
    with pytest.raises(ContractError, match="`augment`: expected left on"):
        resolve(TrainConfig(data="digits", method="aug-cell", augment=False))
    with pytest.raises(ContractError, match="`weight_decay`: expected none with aug-cell"):
        resolve(TrainConfig(data="digits", method="aug-cell", weight_decay=0.1))


def test_aug_cell_compares_on_more_of_few_samples(monkeypatch, key):
    given = []

    def noted(key, network, data, config, optimizer, **more):
        given.append((config, optimizer))
        return {}, AugCellInfo("erm", {}, None, 0.0, None, None, 0, {}, (0.0, 0.0), False)

    monkeypatch.setattr(training, "aug_cell", noted)
    fit = build_training("aug-cell", "mlp", toy((8, 8, 1))).fit
    for n in (19_999, 20_000):
        rows = Batch(x=np.zeros((n, 8, 8, 1), np.uint8), label=np.zeros(n, np.int32), attribute=np.zeros(n, np.int32))
        fit(key, rows, random_shift(1), epochs=1, batch_size=32, learning_rate=0.01, observe=print)
    assert [config.held_out for config, _ in given] == [0.25, 0.1]
    config, optimizer = given[0]
    assert (config.steps, config.batch_size, config.cleaning_steps) == (625, 32, 625)
    assert optimizer == Optimizer(learning_rate=0.01)


def test_jtt_trains_one_epoch_and_then_all(monkeypatch, key):
    given, info = [], JttInfo(np.array([True, False, False, False]), None, None, 0.0)

    def noted(key, network, data, config, optimizer, **more):
        given.append((config, optimizer))
        return {}, info

    monkeypatch.setattr(training, "jtt", noted)
    rows = Batch(x=np.zeros((70, 8), np.float32), label=np.zeros(70, np.int32), attribute=np.zeros(70, np.int32))
    made = build_training("jtt", "mlp", toy((8,)))
    made.fit(key, rows, None, epochs=3, batch_size=32, learning_rate=0.01, observe=print)
    ((config, optimizer),) = given
    assert (config.first.epochs, config.second.epochs, config.upweight) == (1, 3, 50.0)
    assert optimizer == Optimizer(learning_rate=0.01, schedule="cosine", steps=9)
    with pytest.raises(ContractError, match="`weight_decay`: expected none with jtt"):
        resolve(TrainConfig(data="digits", method="jtt", weight_decay=0.1))
    assert training_command._findings(info, "digits") == [
        "After the first, brief training 25.0 % of the training digits were wrong: these then counted more."
    ]


def test_default_augment_mirrors_only_where_the_label_survives(key):
    dataset = toy((48, 48, 1))
    ramp = np.tile(np.arange(48, dtype=np.float32)[None, None, :, None], (64, 48, 1, 1))
    middle = slice(8, 40)

    def falls(mirrored):
        seen = np.asarray(default_augment(dataset, mirrored=mirrored)(key, ramp))[:, 24, middle, 0]
        return (np.diff(seen, axis=1) < 0).all(axis=1)

    turned = np.asarray(default_augment(dataset, mirrored=False, turned=True)(key, np.ones_like(ramp)))
    np.testing.assert_allclose(turned[:, 24, 24], 1, rtol=1e-5)
    assert (turned == 0).any(axis=(1, 2, 3)).mean() > 0.9  # from outside
    assert not falls(False).any()
    assert 10 < falls(True).sum() < 54
    with pytest.raises(ContractError, match="`augment`: expected pictures, got toy, a table"):
        default_augment(toy((7,)), mirrored=False)
    assert {name for name, recipe in RECIPES.items() if recipe.mirrored} <= set(RECIPES) - {
        "digits",
        "colored-mnist",
        "glyphs",
        "adult",
        "folder",
        "utkface-planted",
    }
    assert RECIPES["faces"].mirrored


@pytest.mark.parametrize("method", ["group-balanced", "group-dro"])
def test_methods_that_balance_groups_say_that_they_need_the_attribute(method):
    data = toy((8, 8, 1))
    unknown = data.splits["train"]._replace(attribute=np.full(6, -1, np.int32))
    data = dataclasses.replace(data, splits={"train": unknown})
    with pytest.raises(ContractError) as caught:
        build_training(method, "mlp", data)
    assert str(caught.value) == (
        "`method`: expected one that does without the attribute of every training sample: "
        "erm, gce, lff, disent, sih, dbvae, aug-cell, jtt, "
        f"got {method}, which needs the attribute of every training sample"
    )


def test_a_learner_knows_rows_and_groups_of_its_data():
    data = toy((8, 8, 1))
    rows = data.splits["train"]
    learner = build_training("lff", "mlp", data).learner(Optimizer(), rows, None)
    assert learner.init(jax.random.key(0), rows).history.label.shape == (6,)
    learner = build_training("group-dro", "mlp", data).learner(Optimizer(), rows, None)
    np.testing.assert_allclose(learner.init(jax.random.key(0), rows).group_weight, [0.5, 0, 0.5, 0])
