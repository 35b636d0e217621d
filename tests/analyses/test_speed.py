"""The timing analysis on synthetic times: numbers, verdicts, the skip without torch. No test asserts how long anything takes."""

import importlib.util
import statistics

import numpy as np
import pytest
from runs import quick

import gradlab
from analyses import ALL, speed
from gradlab.errors import NumericalError
from gradlab.runs import main

# Ratios 0.5, 3, 1, 2, 0.25: their median is 1, the ratio of the medians of the two columns is 0.5.
UNEVEN = np.array([[1.0, 2.0], [3.0, 1.0], [4.0, 4.0], [8.0, 4.0], [2.0, 8.0]])


def times(lstm, elman):
    """The verdict on five equal pairs of these ratios."""
    base = np.array([[0.5], [1.0], [2.0], [4.0], [8.0]])  # binary fractions: the ratios come out exactly
    return speed.check(
        quick.with_arrays(
            "speed",
            **{"LSTM float64_seconds": base * np.array([lstm, 1.0]), "Elman float64_seconds": base * np.array([elman, 1.0])},
        )
    )


@pytest.mark.parametrize(
    ("lstm", "elman", "word"),
    [
        (0.9, 0.7, "confirmed"),
        (1.0, 1.0, "confirmed"),  # "no longer than"
        (1.1, 0.7, "depends"),
        (0.9, 1.5, "depends"),
        (1.1, 1.2, "contradicted"),
    ],
)
def test_the_verdict_follows_the_two_median_ratios(lstm, elman, word):
    verdict = times(lstm, elman)
    assert verdict.word == word
    assert f"LSTM float64 {lstm:.2f}, Elman float64 {elman:.2f}" in verdict.sentence


def test_a_time_that_is_not_a_number_confirms_nothing():
    assert times(float("nan"), 0.5).word != "confirmed"


def test_the_ratio_is_the_median_of_paired_ratios_and_not_the_ratio_of_medians():
    numbers = speed.check(quick.with_arrays("speed", **{"LSTM float64_seconds": UNEVEN})).numbers
    assert numbers["LSTM float64: median ratio gradlab / torch"] == 1.0
    assert (numbers["LSTM float64: lower quartile"], numbers["LSTM float64: upper quartile"]) == (0.5, 2.0)
    assert (numbers["LSTM float64: gradlab, ms"], numbers["LSTM float64: torch, ms"]) == (3000.0, 4000.0)


def test_every_number_is_that_of_the_times():
    result = quick.result("speed")
    numbers = speed.check(result).numbers
    assert (numbers["torch"], numbers["torch threads"]) == ("2.13.0", 2)
    for name in speed.ROWS:
        ours, theirs = result[f"{name}_seconds"].T
        low, middle, high = statistics.quantiles(ours / theirs, n=4, method="inclusive")
        for label, expected in (("lower quartile", low), ("median ratio gradlab / torch", middle), ("upper quartile", high)):
            assert numbers[f"{name}: {label}"] == pytest.approx(expected, rel=1e-14)  # one interpolation
        assert numbers[f"{name}: gradlab, ms"] == pytest.approx(1e3 * statistics.median(ours), rel=1e-15)
        assert numbers[f"{name}: torch, ms"] == pytest.approx(1e3 * statistics.median(theirs), rel=1e-15)


def test_without_torch_the_analysis_is_skipped_with_its_install_line(tmp_path, capsys, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "torch" else find(name, *rest))
    assert main(ALL, ["speed", "--out", str(tmp_path)], folder=tmp_path / "default") == 0
    out = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "skipped: needs torch: pip install" in out
    assert "torch==2.13.0" in out
    assert list(tmp_path.iterdir()) == []
    assert main(ALL, ["--list"], folder=tmp_path / "default") == 0
    assert capsys.readouterr().out.rstrip().endswith("[needs torch]")


def test_it_runs_alone_after_the_others():
    assert [stem for stem, analysis in ALL.items() if analysis.ALONE] == ["speed"]


SMALL = {"T": 4, "B": 2, "D": 3, "H": 5, "pairs": 3, "runs_in_a_row": 2, "pause_seconds": 0.0}


def test_every_pair_is_timed_and_both_sides_agree_on_the_gradient(monkeypatch):
    torch = pytest.importorskip("torch", reason="the other side of the comparison")
    monkeypatch.setitem(speed.PARAMETERS, "quick", SMALL)
    told = []
    result = speed.compute(np.random.default_rng(1), "quick", lambda done, total: told.append((done, total)))
    assert told == [(k, 12) for k in range(1, 13)]
    assert bytes(result["torch_version"]).decode() == torch.__version__
    for name in speed.ROWS:
        assert result[f"{name}_seconds"].shape == (3, 2)
        assert (result[f"{name}_seconds"] > 0.0).all()


@pytest.mark.parametrize("name", speed.ROWS)
def test_nothing_is_timed_where_the_two_gradients_differ(monkeypatch, name):
    pytest.importorskip("torch", reason="the other side of the comparison")
    original = gradlab.bptt

    def wrong(*args, **options):
        record = original(*args, **options)
        record.gradients["0.U"][...] *= 1.0 + (
            1e-10 if "float64" in name else 1e-2
        )  # a hundred times what two right answers differ by
        return record

    speed.pairs_of(name, np.random.default_rng(1), SMALL)
    monkeypatch.setattr(gradlab, "bptt", wrong)
    with pytest.raises(NumericalError, match=f"{name}: the two gradients differ by"):
        speed.pairs_of(name, np.random.default_rng(1), SMALL)
