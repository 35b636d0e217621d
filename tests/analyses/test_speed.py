"""The timing analysis on synthetic times: numbers, verdicts, the skip without torch. No test asserts how long anything takes."""

import importlib.util
import statistics

import numpy as np
import pytest
from runs import quick

import gradlab
from analyses import ALL, speed
from gradlab import plotting
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


SMALL = {
    **{"T": 4, "B": 2, "D": 3, "H": 5, "pairs": 3, "runs_in_a_row": 2, "pause_seconds": 0.0},
    **{"check_pairs": 2, "property_runs": 1, "property_examples": 5},
}


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
    assert result["check_seconds"].shape == (2, 2)
    assert result["property_seconds"].shape == (1,)
    assert all((result[f"{name}_seconds"] > 0.0).all() for name in ("check", "property"))


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


# ---- what a gradient check costs ----------------------------------------------------------------------------------


def test_the_costs_of_checks_are_told_beside_the_verdict_and_have_no_part_in_it():
    plain = quick.result("speed")
    costs = {"check_seconds": np.array([[0.02, 0.08], [0.01, 0.05], [0.03, 0.06]]), "property_seconds": np.array([2.5])}
    before, after = speed.check(plain), speed.check({**plain, **costs})
    assert after.word == before.word
    assert after.sentence.startswith(before.sentence)
    assert after.sentence.endswith("takes 20 ms, torch's gradcheck 60 ms, a property of 100 random LSTMs 2.5 s")
    assert after.numbers.items() >= before.numbers.items()
    added = {key: value for key, value in after.numbers.items() if key not in before.numbers}
    assert added == {
        "check of an LSTM with 72 parameters: gradlab, ms": pytest.approx(20.0, rel=1e-15),
        "check of an LSTM with 72 parameters: torch gradcheck, ms": pytest.approx(60.0, rel=1e-15),
        # of 0.25, 0.2 and 0.5: the median of paired ratios, not 20/60
        "check of an LSTM with 72 parameters: median ratio gradlab / torch": pytest.approx(0.25, rel=1e-15),
        "check of an LSTM with 72 parameters: meant to take, ms": 15.0,
        "property of 100 random LSTMs: s": 2.5,
        "property of 100 random LSTMs: meant to take, s": pytest.approx(2.0, rel=1e-15),
    }


def test_without_hypothesis_no_property_is_timed_and_none_is_told(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "hypothesis" else find(name, *rest))
    assert speed.property_of(5) is None
    result = {**quick.result("speed"), "check_seconds": np.ones((2, 2)), "property_seconds": np.zeros(0)}
    verdict = speed.check(result)
    assert "property" not in verdict.sentence
    assert not any("property" in key for key in verdict.numbers)


def test_the_property_runs_the_check_on_as_many_examples_as_it_says_and_fails_on_a_wrong_one(monkeypatch):
    seen = []
    right = gradlab.checks.check_example
    monkeypatch.setattr(
        gradlab.checks, "check_example", lambda example, **options: seen.append(example) or right(example, **options)
    )
    speed.property_of(7)()
    assert len(seen) == 7
    assert {(repr(example.net.cell), example.net.num_layers) for example in seen} == {("LSTM()", 1)}

    class Wrong:
        verdict = "FAIL"

    monkeypatch.setattr(gradlab.checks, "check_example", lambda example, **options: Wrong())
    with pytest.raises(NumericalError, match="a right gradient is rejected"):
        speed.property_of(7)()


def test_both_checks_of_one_lstm_are_about_the_same_72_parameters(monkeypatch):
    torch = pytest.importorskip("torch", reason="the other side of the comparison")
    checked = []
    right = torch.autograd.gradcheck
    monkeypatch.setattr(torch.autograd, "gradcheck", lambda f, given: checked.append((f, given)) or right(f, given))
    ours, theirs = speed.checks()
    assert ours() is True
    assert theirs() is True
    f, given = checked[-1]
    example = gradlab.checks.random_example(gradlab.LSTM(), **speed.CHECKED)
    assert sum(value.numel() for value in given) == sum(value.size for value in example.params.values()) == 72
    np.testing.assert_allclose(f(*given).detach().numpy(), example.record.outputs, rtol=1e-13, atol=1e-15)  # rounding


def test_each_timed_check_starts_without_what_an_example_keeps(monkeypatch):
    pytest.importorskip("torch", reason="the other side of the comparison")
    ours, _ = speed.checks()
    given = []
    right = gradlab.checks.block_products
    monkeypatch.setattr(gradlab.checks, "block_products", lambda one, rng: given.append("record" in vars(one)) or right(one, rng))
    assert ours() is True
    assert ours() is True
    assert given == [False, False]


def test_no_check_is_timed_that_does_not_pass(monkeypatch):
    pytest.importorskip("torch", reason="the other side of the comparison")

    class Wrong:
        verdict = "FAIL"

    monkeypatch.setattr(gradlab.checks, "check_example", lambda example: Wrong())
    with pytest.raises(NumericalError, match="a check does not pass"):
        speed.checks()


@pytest.mark.parametrize("properties", [0, 3])
def test_the_costs_are_drawn_in_a_panel_of_their_own(properties):
    costs = {"check_seconds": np.array([[0.02, 0.08], [0.01, 0.05]]), "property_seconds": np.full(properties, 2.5)}
    with plotting.style():
        one = speed.draw(quick.result("speed"))
        two = speed.draw({**quick.result("speed"), **costs})
        two.draw_without_rendering()
    assert (len(one.axes), len(two.axes)) == (1, 2)
    ticks = [tick.get_text() for tick in two.axes[1].get_yticklabels()]
    assert ticks == ["one LSTM: gradlab", "one LSTM: torch gradcheck", "100 LSTMs: gradlab"][: 2 + bool(properties)]
