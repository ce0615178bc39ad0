import dataclasses
import json

import jax
import numpy as np
import pytest
from oracles.files import write_mnist

from jaxdebias import models
from jaxdebias.app.check import gate
from jaxdebias.batching import predict_rows
from jaxdebias.contracts import ContractError
from jaxdebias.data import colored_mnist
from jaxdebias.mitigate import erm, sih, sih_monitor, sih_run_config
from jaxdebias.reproduce import EXPERIMENTS, Margin, TableConfig, compare, counts, paired, reproduce_table, summary
from jaxdebias.reproduce import _methods as methods
from jaxdebias.reproduce._fitting import Method, Swept
from jaxdebias.reproduce._summary import margins
from jaxdebias.reproduce._table import results_path
from jaxdebias.reproduce.published import Published, published
from jaxdebias.reproduce.view import rows_by_device
from jaxdebias.results.codec import read_results, write_results
from jaxdebias.results.provenance import device_name, provenance
from jaxdebias.results.records import TableResults
from jaxdebias.train import FitConfig, fit

NAME = "sih-colored-mnist"
SIH = EXPERIMENTS[NAME]
SMALL = models.mlp(hidden=(8,))
EPOCHS = FitConfig(epochs=2, batch_size=32)
BRANCHES = models.mlp_vae(latent=4, hidden=(8,), decoder=(8,))


def config(folder, **options):
    return TableConfig(experiment=NAME, data_dir=folder, **options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_mnist(tmp_path_factory.mktemp("files") / "mnist")


@pytest.fixture(autouse=True)
def quick_methods(monkeypatch):
    monkeypatch.setitem(
        methods.COLORED_MNIST,
        "erm",
        Method("none", "last weights", Swept(learner_of=lambda case: erm(SMALL), config=EPOCHS)),
    )
    monkeypatch.setitem(
        methods.COLORED_MNIST,
        "sih",
        Method(
            "none",
            "own loss",
            Swept(
                learner_of=lambda case: sih(BRANCHES),
                config=sih_run_config(epochs=3, batch_size=32),
                held_out=True,
                monitor=sih_monitor(BRANCHES),
                others={"bias_branch": lambda state, x: BRANCHES.bias.apply(state.variables, x)},
            ),
        ),
    )


@pytest.mark.slow
def test_a_row_is_the_run_on_drawn_pixels(folder, tmp_path):
    """One grey array and a view give what a data set of stored pixels gives (specification of SiH, check 14)."""
    table = reproduce_table(config(folder, seeds=2, methods=("erm",), levels=(0.1,)), tmp_path / "table.json")
    assert [(row["seed"], row["epochs"]) for row in table.rows] == [(0, 2), (1, 2)]
    for seed, row in enumerate(table.rows):
        splits = colored_mnist(folder, conflicting=0.1, seed=seed, held_out=0).splits
        train, test = (splits[name]._replace(unit=None) for name in ("train", "test"))
        trained = fit(jax.random.key(seed), erm(SMALL), train, EPOCHS)
        right = np.asarray(predict_rows(SMALL.apply, trained.state.variables, test.x)).argmax(1) == test.label
        assert row["accuracy"] == right.mean()
        assert row["bias_aligned_accuracy"] == right[test.label == test.attribute].mean()
        assert row["bias_conflicting_accuracy"] == right[test.label != test.attribute].mean()


@pytest.mark.slow
@pytest.mark.unoptimised
def test_a_table_that_was_stopped_ends_the_same_on_another_device(folder, tmp_path):
    asked = config(folder, seeds=2, methods=("erm", "sih"), levels=(0.1, 0.2))
    whole = reproduce_table(asked, tmp_path / "whole")
    assert len(whole.rows) == 8
    assert {path.name for path in (tmp_path / "whole").iterdir()} == {"results.json", "results.md", "results.png"}
    kept = [dict(row) for row in whole.rows if (row["method"], row["seed"]) != ("sih", 1)]
    kept[0]["device"] = "another"
    part = dataclasses.replace(whole, rows=tuple(kept), summary=(), paired=())
    write_results(tmp_path / "part.json", part)
    said = []
    again = reproduce_table(asked, tmp_path / "part.json", observe=said.append)

    def timeless(table):
        return [{**row, "seconds": 0, "device": ""} for row in table.rows]

    assert timeless(again) == timeless(whole)
    # Each row keeps the device that made it, and its mean is of its device alone.
    assert [row["device"] for row in again.rows] == ["another"] + [device_name()] * 7
    means = {(row["device"], row["method"], row["level"]): row["seeds"] for row in again.summary}
    assert means["another", "erm", 0.1] == means[device_name(), "erm", 0.1] == 1
    assert not [row for row in again.paired if row["device"] == "another"]
    assert list(rows_by_device(again)) == ["another", device_name()]
    assert read_results(tmp_path / "part.json") == again
    assert "cannot be judged: reproduce measured no accuracy" in gate(again, min_accuracy=0.5).reason
    assert sum("rows)" in line for line in said) == 2
    assert {"bias_branch_accuracy", "best_epoch"} <= set(again.rows[-1])


def test_rows_of_other_settings_and_of_a_trial_stay_apart(folder, tmp_path, monkeypatch):
    asked = config(folder, seeds=1, methods=("erm",), levels=(0.1,))
    first = reproduce_table(asked, tmp_path / "table.json")
    assert reproduce_table(asked, tmp_path / "table.json").rows == first.rows
    longer = Swept(learner_of=lambda case: erm(SMALL), config=dataclasses.replace(EPOCHS, epochs=1))
    monkeypatch.setitem(methods.COLORED_MNIST, "erm", Method("none", "last weights", longer))
    second = reproduce_table(asked, tmp_path / "table.json")
    assert [row["epochs"] for row in second.rows] == [2, 1]
    assert second.summary[0]["seeds"] == 1
    assert second.summary[0]["accuracy"]["mean"] == second.rows[1]["accuracy"]
    trial = reproduce_table(
        TableConfig(experiment=NAME, trial=True, methods=("erm",), levels=(0.1,)), tmp_path / "table.json"
    )
    assert len(trial.rows) == 3
    assert trial.summary[0]["published"] is None
    assert len(reproduce_table(asked, tmp_path / "table.json").rows) == 3


def test_a_table_of_former_names_is_continued(folder, tmp_path):
    """Rows without a fingerprint and with `conflicting` in place of `level`, in a file called by its former name."""
    table = reproduce_table(config(folder, seeds=1, methods=("erm",), levels=(0.1,)), tmp_path / "table.json")
    plain = json.loads((tmp_path / "table.json").read_text())
    (row,) = plain["rows"]
    del row["fingerprint"]
    row["conflicting"] = row.pop("level")
    plain["data"] = "colored-mnist"
    (tmp_path / "former.json").write_text(json.dumps(plain))
    more = reproduce_table(config(folder, seeds=1, methods=("erm",), levels=(0.1, 0.2)), tmp_path / "former.json")
    assert len(more.rows) == 2
    assert more.rows[0] == row
    assert more.data == NAME
    assert more.summary[0]["accuracy"] == table.summary[0]["accuracy"]


def test_refuses(folder, tmp_path):
    with pytest.raises(ContractError, match="methods"):
        config(folder, methods=("ermm",))
    with pytest.raises(ContractError, match="methods"):
        TableConfig(experiment="sih-corrupted-cifar10", data_dir=folder, methods=("jtt",))
    with pytest.raises(ContractError, match="experiment"):
        TableConfig(experiment="cifar", data_dir=folder)
    with pytest.raises(ContractError, match="worst-class"):
        config(folder, methods=("erm@worst",))
    with pytest.raises(ContractError, match="epoch can be chosen"):
        config(folder, methods=("jtt@plain",))
    with pytest.raises(ContractError, match="levels"):
        config(folder, levels=(5.0,))
    (tmp_path / "former.json").write_text('{"data": "colored-mnist", "rows": []}')
    with pytest.raises(ContractError, match="schema"):
        reproduce_table(config(folder), tmp_path / "former.json")
    other = TableResults(command="reproduce", provenance=provenance({}, seed=0), data="adult", protocol="", rows=())
    write_results(tmp_path / "other.json", other)
    with pytest.raises(ContractError, match="sih-colored-mnist"):
        reproduce_table(config(folder), tmp_path / "other.json")
    with pytest.raises(ContractError, match="data_dir"):
        reproduce_table(config(tmp_path / "nowhere"), tmp_path / "new.json")


def test_a_folder_or_a_file_is_where_results_go(tmp_path):
    assert results_path(tmp_path / "a.json") == tmp_path / "a.json"
    assert results_path(tmp_path / "a") == tmp_path / "a" / "results.json"


@pytest.mark.slow
@pytest.mark.unoptimised
def test_the_choice_of_the_epoch_is_an_axis(folder, tmp_path):
    """The epoch that the monitor likes best on the tenth is kept; the table says what chose it, and by which labels."""
    asked = config(folder, seeds=1, methods=("erm", "erm@worst-group", "erm@plain"), levels=(0.2,))
    table = reproduce_table(asked, tmp_path / "table.json")
    said = {row["method"]: row for row in table.summary}
    assert said["erm@worst-group"]["labels"] == "a tenth of the training samples"
    assert "worst group" in said["erm@worst-group"]["selection"]
    assert said["erm@plain"]["labels"] == "none"
    assert said["erm@plain"]["published"] is None
    assert {row["best_epoch"] for row in table.rows if "@" in row["method"]} <= {1, 2}


def test_comparison_with_a_published_row():
    beside = Published("erm", 0.1, (50.0, 51.0, 49.0, 50.0))  # mean 50, deviation .816
    assert compare(np.array([50.2, 49.9, 50.1]), beside)["verdict"] == "match"
    assert compare(np.array([60.0, 61.0, 59.0]), beside)["verdict"] == "above"
    assert compare(np.array([40.0, 41.0, 39.0]), beside)["verdict"] == "below"
    assert compare(np.array([50.0, 60.0, 42.0]), beside)["verdict"] == "not separable"
    assert compare(np.array([50.0]), beside)["verdict"] == "not separable"
    assert compare(np.array([60.0, 61.0, 59.0]), beside, verified=False)["verdict"] == "unverified"
    assert compare(np.array([60.0, 61.0]), Published("erm", 0.1, (50.0,)))["verdict"] == "not separable"
    # Welch by hand: variances .02333/3 and .66667/4, freedom 3.27, t .975 = 3.04
    said = compare(np.array([50.2, 49.9, 50.1]), beside)
    assert said["high"] - said["difference"] == pytest.approx(3.0363 * 0.41767, rel=5e-3)


def row(method, seed, accuracy, ratio=0.02, device="d"):
    return {
        "method": method,
        "level": ratio,
        "seed": seed,
        "accuracy": accuracy,
        "seconds": 1.0,
        "bias_aligned_accuracy": 1.0,
        "bias_conflicting_accuracy": accuracy,
        "device": device,
    }


def test_summary_and_paired_differences():
    from scipy import stats

    rows = [row("erm", s, 0.73 + 0.001 * s) for s in range(3)] + [row("sih", s, 0.83 + 0.002 * s) for s in range(3)]
    rows += [row("lff", s, 0.80 - 0.03 * s) for s in range(3)]
    said = {one["method"]: one for one in summary(rows, SIH)}
    assert said["sih"]["accuracy"]["mean"] == pytest.approx(0.832)
    assert said["sih"]["accuracy"]["deviation"] == pytest.approx(0.002)
    assert said["sih"]["published"]["mean"] == pytest.approx(83.799, abs=1e-3)
    (beside,) = (one["published"] for one in summary([row("disent-official", 0, 0.8)], SIH))
    assert beside["mean"] == pytest.approx(82.386, abs=1e-2)  # that of `disent`
    gains = {(one["method"], one["against"]): one for one in paired(rows, SIH)}
    assert set(gains) == {("sih", "erm"), ("lff", "erm"), ("sih", "lff")}
    assert (gains["sih", "erm"]["seeds"], gains["sih", "erm"]["verdict"]) == (3, "above")
    assert gains["sih", "erm"]["difference"] == pytest.approx(0.101)
    sih, lff = ([one["accuracy"] for one in rows if one["method"] == name] for name in ("sih", "lff"))
    assert gains["sih", "lff"]["p"] == pytest.approx(stats.ttest_rel(sih, lff).pvalue)
    assert gains["sih", "lff"]["verdict"] == "not separable"
    (alone,) = paired([row("erm", 0, 0.7), row("sih", 0, 0.8)], SIH)
    assert (alone["verdict"], alone["low"], alone["p"]) == ("not separable", None, None)


def test_devices_are_never_mixed():
    rows = [row("erm", 0, 0.7), row("erm", 1, 0.9, device="e"), row("sih", 0, 0.8, device="e")]
    rows += [row("sih", 1, 0.95, device="e")]
    assert [(one["device"], one["method"], one["seeds"]) for one in summary(rows, SIH)] == [
        ("d", "erm", 1),
        ("e", "erm", 1),
        ("e", "sih", 2),
    ]
    (gain,) = paired(rows, SIH)
    assert (gain["device"], gain["seeds"]) == ("e", 1)
    assert gain["difference"] == pytest.approx(0.05)


def test_counts_and_margins():
    rows = [row("erm", s, 0.733 + 0.001 * s) for s in range(3)] + [row("sih", s, 0.95) for s in range(2)]
    means = summary(rows, SIH)
    assert counts(means) == {"d": {"match": 1, "above": 1}}
    bounded = dataclasses.replace(
        SIH, margins=(Margin("erm", 0.02, "accuracy", "<=", 0.7341), Margin("sih", 0.02, "accuracy", "<=", 0.9))
    )
    assert [(one["median"], one["met"]) for one in margins(means, bounded)] == [
        (pytest.approx(0.734), True),
        (pytest.approx(0.95), False),
    ]


def test_published_means_are_those_of_the_papers_tables():
    table = published(NAME)
    for method, mean, deviation in (
        ("erm", 43.70, 0.83),
        ("lff", 60.42, 2.72),
        ("disent", 63.98, 4.78),
        ("sih", 71.62, 2.49),
    ):
        runs = np.array(table.find(method, 0.005).runs)
        assert (round(runs.mean(), 2), round(runs.std(ddof=1), 2)) == (mean, deviation)
    assert len({len(row.runs) for row in table.rows}) == 1
    assert table.find("sih", 0.3) is None
    assert published("corrupted-cifar10").find("sih", 0.2).runs[0] == 66.88
    assert published("cifar") is None
