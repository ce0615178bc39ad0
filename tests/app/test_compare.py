import json

import numpy as np
import pytest
from results.small_records import language

from jaxdebias.app.compare import compare, markdown, write_comparison
from jaxdebias.app.debias import DebiasConfig, debias
from jaxdebias.contracts import ContractError
from jaxdebias.results.codec import read_results, write_results


@pytest.fixture(scope="module")
def repaired(trained, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "fixed"
    return out, debias(trained[0], DebiasConfig(method="dfr", baselines=False), out)


def test_paired_over_the_same_rows(trained, repaired):
    found = compare(trained[0], repaired[0])
    assert found.paired
    accuracy = found.quantities["accuracy"]
    before, after = (np.load(folder / "predictions.npz") for folder in (trained[0], repaired[0]))
    right = [one["logits"].argmax(-1) == one["label"] for one in (before, after)]
    assert accuracy.value == pytest.approx(right[1].mean() - right[0].mean(), abs=1e-6)
    assert accuracy.a == pytest.approx(trained[1].before.accuracy.value)
    # What `debias` says of the same two models, up to the draws of the bootstrap.
    for name, change in repaired[1].changes.items():
        other = found.quantities[name]
        assert other.paired
        assert other.value == pytest.approx(change.value, abs=1e-5)
        assert other.low == pytest.approx(change.low, abs=0.02)
    backwards = compare(repaired[0], trained[0]).quantities["accuracy"]
    assert backwards.value == pytest.approx(-accuracy.value)
    assert "Differences are paired over the same test samples." in markdown(found)


def test_nothing_differs_from_itself(trained):
    for one in compare(trained[0], trained[0]).quantities.values():
        assert one.value == 0
        assert one.low <= 0 <= one.high


def copied(folder, out, change):
    out.mkdir()
    results = json.loads((folder / "results.json").read_text())
    change(results)
    (out / "results.json").write_text(json.dumps(results))
    return out


def test_by_intervals_where_rows_are_not_known_to_be_the_same(trained, repaired, tmp_path):
    other = copied(repaired[0], tmp_path / "other", lambda results: None)
    found = compare(trained[0], other)
    assert not found.paired
    paired = compare(trained[0], repaired[0]).quantities["accuracy"]
    accuracy = found.quantities["accuracy"]
    assert accuracy.value == pytest.approx(paired.value, abs=1e-6)
    assert accuracy.high - accuracy.low >= paired.high - paired.low
    assert "two independent intervals" in markdown(found)


def test_what_has_nothing_in_common_is_refused(trained, tmp_path):
    other = copied(trained[0], tmp_path / "other", lambda results: results["label_names"].__setitem__(0, "naught"))
    with pytest.raises(ContractError, match="the classes of A"):
        compare(trained[0], other)
    other = tmp_path / "language"
    other.mkdir()
    write_results(other / "results.json", language())
    with pytest.raises(ContractError, match="`B`: expected the classes of A"):
        compare(trained[0], other)


def test_the_comparison_is_written_and_carried_on(trained, repaired, tmp_path):
    out = tmp_path / "out"
    results = write_comparison(trained[0], repaired[0], out)
    assert results.command == "compare"
    assert read_results(out) == results
    assert (out / "report.md").read_text() == markdown(results)
    assert write_comparison(trained[0], repaired[0], out) == results
    with pytest.raises(ContractError, match="made with a="):
        write_comparison(repaired[0], trained[0], out)
