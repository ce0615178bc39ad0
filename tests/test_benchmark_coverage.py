"""The simulation of intervals: designs are the written ones, a small part runs, margins find what is wrong."""

import importlib
import json
import pathlib

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture
def coverage(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks" / "reproduce"))
    return importlib.import_module("interval_coverage")


def test_designs_span_what_was_promised(coverage):
    designs = coverage.plan()
    assert len(set(designs)) == len(designs)
    sums = [design for design in designs if design.part == "sums of rates"]
    assert {design.groups for design in sums} == {2, 5, 20}
    assert {design.rows for design in sums} == {"5", "20", "100", "1000", "95 and 5"}
    units = {design.units for design in designs if design.part == "units: sums of rates"}
    assert {int(unit.split()[0]) for unit in units} == {8, 20, 60, 200}
    assert sum("largest difference, none" in design.part for design in designs) >= 40
    of = coverage.coverage_designs
    for design in designs:
        if not design.units and design.part.startswith(("sums", "changes", "worst", "largest", "separable")):
            assert of.sizes_of(design).shape == (design.groups,)
    np.testing.assert_array_equal(of.sizes_of(sums[0]._replace(rows="95 and 5", groups=5)), [95, 5, 95, 5, 95])
    np.testing.assert_allclose(of.WEIGHTS["re-weighted"](2), [0.95, 0.05])
    np.testing.assert_allclose(of.WEIGHTS["aligned - conflicting"](4), [0.5, -0.5, 0.5, -0.5])


@pytest.mark.parametrize(
    ("part", "place"),
    [
        ("one rate", 8),
        ("sums of rates", 61),
        ("changes", 130),
        ("worst group", 20),
        ("largest difference", 30),
        ("largest difference, none", 9),
        ("separable, none", 7),
        ("units: sums of rates", 100),
        ("units: changes", 20),
        ("units: separable, none", 4),
        ("units: worst group", 12),
        ("units: largest difference", 6),
        ("units: largest difference, none", 6),
        ("means", 20),
        ("calibration gap", 5),
    ],
)
def test_a_small_part_meets_its_margins(coverage, part, place):
    design = coverage.PARTS[part].designs(part)[place]
    row = coverage.measured(design, 200)
    assert not coverage.missed(row)
    assert row == {**coverage.measured(design, 200), "seconds": row["seconds"]}  # equal for equal designs


def test_power_is_no_less_than_mcnemars(coverage):
    part = "power of separable"
    row = coverage.measured(coverage.PARTS[part].designs(part)[1], 300)
    assert row["power"] > 0.3
    assert not coverage.missed(row)
    part = "power of the largest difference"
    assert coverage.measured(coverage.PARTS[part].designs(part)[0], 100)["power"] > 0.85


def test_units_are_correlated_and_rates_true(coverage):
    of = coverage.coverage_units
    for units in ("20 equal", "20 unequal", "20 equal, copied"):
        design = of.Design("units: sums of rates", "group mean, nested", 2, "10", "0.8", units)
        uniform, group, unit = of.drawn_rows(design, 400)
        assert np.mean(uniform < 0.8) == pytest.approx(0.8, abs=0.03)
        right = (uniform < 0.5) - 0.5
        together = np.mean(right[:, unit == 0][:, :1] * right[:, unit == 0][:, 1:]) / 0.25
        assert 0.1 < together < 0.4
        assert abs(np.mean(right[:, unit == 0][:, :1] * right[:, unit == 2][:, :1])) < 0.05
        for u in range(20):
            assert len(set(group[unit == u])) == 1
        spread = of.drawn_rows(design._replace(quantity="group mean, spread"), 2)[1]
        assert set(spread[unit == 0]) == {0, 1}


def test_margins(coverage):
    design = coverage.Design("changes", "group mean", 2, "20", "0.005 up")
    row = {**design._asdict(), "simulations": 2000, "coverage": 0.919, "zero_width": 0.0}
    assert not coverage.missed(row)
    assert coverage.missed(row | {"coverage": 0.918})
    assert coverage.missed(row | {"zero_width": 0.001})
    assert not coverage.missed(row | {"coverage": 0.898, "units": "8 equal"})
    assert coverage.missed(row | {"coverage": 0.898, "units": "20 equal"})
    assert not coverage.missed(row | {"coverage": 0.5, "part": "units: failing as a whole"})
    row = {**design._asdict(), "simulations": 2000, "claimed": 0.059}
    assert not coverage.missed(row)
    assert coverage.missed(row | {"claimed": 0.061})
    assert not coverage.missed(row | {"claimed": 0.075, "part": "units: largest difference, none"})
    row = {**design._asdict(), "simulations": 2000, "power": 0.39, "mcnemar": 0.4}
    assert not coverage.missed(row)
    assert coverage.missed(row | {"power": 0.37})


def test_run_resumes_and_is_shown(coverage, tmp_path, monkeypatch, tables):
    assert tables.interval_coverage() == "Not measured yet."
    out = tmp_path / "interval_coverage.json"
    arguments = ["interval_coverage.py", "--out", str(out), "--figure", str(tmp_path / "figure.png"), "--simulations"]
    monkeypatch.setattr("sys.argv", [*arguments, "50", "--parts", "one rate"])
    assert coverage.main() == 0
    first = json.loads(out.read_text())
    assert len(first["rows"]) == 20
    assert (tmp_path / "figure.png").stat().st_size > 5000
    assert {"device", "versions", "date", "seeds", "planned"} <= set(first)
    monkeypatch.setattr(coverage, "measured", lambda *_: pytest.fail("measured again"))
    assert coverage.main() == 0
    assert json.loads(out.read_text())["rows"] == first["rows"]
    said = f"Measured so far: 20 of {first['planned']:,} designs."
    assert tables.interval_coverage().startswith(said)
    out.write_text(json.dumps(first | {"planned": 20}))
    assert "| one rate | covered, least | 20 |" in tables.interval_coverage()
    monkeypatch.setattr("sys.argv", [*arguments, "60", "--parts", "one rate"])
    with pytest.raises(pytest.fail.Exception, match="measured again"):  # another number of simulations
        coverage.main()
