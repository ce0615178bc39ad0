"""Files that are cut short, of other bytes, or of something else: refused by their name, in one line."""

import json
import shutil

import jax
import jaxtyping
import numpy as np
import pytest
from fuzz.mutations import REFUSED, outcome
from report.fake_parts import changed
from report.fake_results import FAKES
from report.test_draw_view import drawn

from jaxdebias.app.debias import DebiasConfig, debias
from jaxdebias.app.recipes import TrainConfig, model_options
from jaxdebias.app.run_folder import load
from jaxdebias.app.show import show
from jaxdebias.app.training import build_training
from jaxdebias.contracts import ContractError
from jaxdebias.core import Batch
from jaxdebias.data import _registry as registry
from jaxdebias.explain import influence
from jaxdebias.files import read_arrays
from jaxdebias.mitigate import erm
from jaxdebias.models import mlp
from jaxdebias.report import Pictures
from jaxdebias.report.pictures import with_draws
from jaxdebias.results.codec import read_results, write_results
from jaxdebias.train import FitConfig, fit, save_params

DAMAGES = {
    "cut in half": lambda data: data[: len(data) // 2],
    "without its end": lambda data: data[:-30],
    "empty": lambda data: b"",
    "other bytes": lambda data: np.random.default_rng(0).bytes(200),
    "text": lambda data: b"not what it says\n",
    "zeros inside": lambda data: data[:80] + bytes(len(data) - 160) + data[-80:],
    "a lone array": lambda data: b"\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }"
                                 + b" " * 60 + b"\n" + bytes(8),
}  # fmt: skip


@pytest.fixture(autouse=True)
def unchecked(monkeypatch):
    """Annotations off, as they are for users."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


def refused(call, *names):
    with pytest.raises(ContractError) as error:
        call()
    text = str(error.value)
    assert "\n" not in text
    assert len(text) < 600
    for name in names:
        assert str(name) in text, text


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a run on digits whose network has not been trained."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    config = TrainConfig(data="digits", options={"conflicting": 0.05}, model="mlp")
    dataset = registry.load("digits", seed=0, conflicting=0.05)
    classifier = build_training("erm", "mlp", dataset, model_options(config)).classifier
    save_params(folder / "params.npz", classifier.init(jax.random.key(0), dataset.splits["train"].x[:1]))
    made = {"data": "digits", "data_dir": None, "seed": 0, "method": "erm", "options": {"conflicting": 0.05},
            "model": "mlp"}  # fmt: skip
    names = {name: tuple(getattr(dataset, name)) for name in ("label_names", "attribute_names")}
    write_results(folder / "results.json", changed(FAKES["digits_erm"](), config=made, **names))
    return folder


@pytest.fixture
def folder(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "run")
    return tmp_path / "run"


def test_the_whole_run_is_read(folder):
    assert load(folder).config.data == "digits"
    assert show(folder) == read_results(folder)


@pytest.mark.parametrize("damage", DAMAGES)
def test_params(folder, tmp_path, damage):
    path = folder / "params.npz"
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    refused(lambda: load(folder), "weights", path)
    refused(lambda: debias(folder, DebiasConfig(), tmp_path / "out"), path)
    refused(lambda: show(folder, maps=True), path)
    assert not (tmp_path / "out").exists()


def test_params_of_another_network(folder):
    with np.load(folder / "params.npz") as file:
        arrays = dict(file)
    name = sorted(arrays)[0]
    np.savez(folder / "params.npz", **{**arrays, name: arrays[name][:1].astype(np.float64)})
    refused(lambda: load(folder), folder / "params.npz", name)
    np.savez(folder / "params.npz", **{**arrays, name: np.array([object()])})
    refused(lambda: load(folder), folder / "params.npz")


def rewritten(folder, change):
    results = json.loads((folder / "results.json").read_text())
    change(results)
    (folder / "results.json").write_text(json.dumps(results))  # with NaN, if there is one


CHANGES = {
    "config of nothing": (lambda r: r.update(config=None), "run"),
    "no data": (lambda r: r["config"].pop("data"), "run"),
    "no options": (lambda r: r["config"].pop("options"), "config.options"),
    "a seed in words": (lambda r: r["config"].update(seed="one"), "config.seed"),
    "an unknown set": (lambda r: r["config"].update(data="digit"), "did you mean 'digits'?"),
    "an unknown method": (lambda r: r["config"].update(method="ermm"), "config.method"),
    "an unknown option": (lambda r: r["config"].update(options={"colours": 3}), ""),
    "an unknown network": (lambda r: r["config"].update(model="mpl"), ""),
    "NaN": (lambda r: r["provenance"].update(seconds=float("nan")), "NaN, which JSON does not have"),
    "a missing key": (lambda r: r["before"].pop("accuracy"), "'accuracy'"),
    "labels that are numbers": (lambda r: r.update(label_names=list(range(10))), "label_names"),
    "a group that is not there": (lambda r: r["before"]["groups"][0].update(label=10), "before.groups[0].label"),
    "a list that is none": (lambda r: r.update(helpful=3), "helpful"),
    "a former version": (lambda r: r.pop("schema"), "run the command again"),
    "the record of another command": (lambda r: r.update(command="debias-features"), "results.method"),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_results_with_other_keys_and_values(folder, name):
    change, said = CHANGES[name]
    rewritten(folder, change)
    refused(lambda: load(folder), said)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "3", '{"dataset": 1}', "[" * 100_000, "\x00"])
def test_results_that_are_none(folder, text):
    (folder / "results.json").write_text(text)
    for call in (lambda: load(folder), lambda: show(folder), lambda: read_results(folder)):
        refused(call, folder / "results.json")
    (folder / "results.json").write_bytes(b"\xff\xfe{}")
    refused(lambda: read_results(folder), folder / "results.json")


def test_rows_that_the_data_do_not_have(folder):
    rewritten(folder, lambda r: r["harmful"][0].update(index=10**6))
    refused(lambda: show(folder, patches=True), folder / "results.json", "rows 0..")


@pytest.mark.parametrize("damage", DAMAGES)
def test_arrays_of_patches_and_draws(folder, damage):
    fine = folder / "fine.npz"
    np.savez(fine, example_attribute=np.zeros((2, 40, 40)), rarest=np.zeros((2, 8, 8, 3)))
    for name in ("patches", "draws"):
        (folder / f"{name}.npz").write_bytes(DAMAGES[damage](fine.read_bytes()))
    refused(lambda: read_arrays("patches", folder / "patches.npz"), "patches", folder / "patches.npz")
    refused(lambda: with_draws(Pictures(), drawn(), None, folder / "draws.npz"), folder / "draws.npz")
    refused(lambda: influence.load(folder / "draws.npz"), "factor", folder / "draws.npz")


def test_arrays_under_other_names(folder):
    np.savez(folder / "draws.npz", weight=np.zeros(3))
    refused(lambda: with_draws(Pictures(), drawn(), None, folder / "draws.npz"), "rarest", "weight")
    refused(lambda: influence.load(folder / "draws.npz"), "inverse Hessian")
    for layout in ("[]", "{", '{"class": "Factor"}', '{"class": "Nothing", "fields": {}}', "null"):
        np.savez(folder / "factor.npz", inverse_hessian=layout)
        refused(lambda: influence.load(folder / "factor.npz"), "")


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["cut in half", "empty", "other bytes"])
def test_checkpoints(tmp_path, damage):
    """Whatever file of it is hurt: it carries on as if nothing were missing, or refuses; no other exception."""
    rng = np.random.default_rng(0)
    data = Batch(
        rng.normal(size=(32, 3)).astype(np.float32), rng.integers(0, 2, 32).astype(np.int32), np.zeros(32, np.int32)
    )
    learner, config = erm(mlp(hidden=(4,), classes=2)), FitConfig(epochs=2, batch_size=16)

    def carry_on(checkpoint):
        return fit(jax.random.key(0), learner, data, config, checkpoint=checkpoint)

    expected = carry_on(tmp_path / "whole")
    files = sorted(path.relative_to(tmp_path / "whole") for path in (tmp_path / "whole").rglob("*") if path.is_file())
    outcomes = []
    for number, name in enumerate(files):
        hurt = tmp_path / str(number)
        shutil.copytree(tmp_path / "whole", hurt)
        (hurt / name).write_bytes(DAMAGES[damage]((hurt / name).read_bytes()))
        outcomes.append(outcome(carry_on, {"checkpoint": hurt}))
        if outcomes[-1] is not REFUSED:
            jax.tree.map(np.testing.assert_array_equal, outcomes[-1].state.variables, expected.state.variables)
    assert any(one is REFUSED for one in outcomes)
