"""The timing analysis on synthetic times: numbers, verdicts, what is left out. No test asserts how long anything takes."""

import importlib.util
import itertools
import statistics

import numpy as np
import pytest
from runs import quick

import gradlab
from analyses import ALL, speed
from analyses import _speed_rows as rows
from analyses._speed_checks import CHECKED
from gradlab import plotting
from gradlab.errors import NumericalError
from gradlab.runs import main

# Ratios 0.5, 3, 1, 2, 0.25: their median is 1, the ratio of the medians of the two columns is 0.5.
UNEVEN = np.array([[1.0, 2.0], [3.0, 1.0], [4.0, 4.0], [8.0, 4.0], [2.0, 8.0]])
BASE = np.array([[0.5], [1.0], [2.0], [4.0], [8.0]])  # binary fractions: the ratios come out exactly
BY_NAME = {row.name: row for row in speed.ROWS}


@pytest.fixture(autouse=True)
def one_thread_of_torch():
    """Threads of torch that wait for each other take longer than such small nets, on a busy machine by far."""
    if not rows.installed("torch"):
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def without(name):
    """What `find_spec` is where a library is missing."""
    find = importlib.util.find_spec
    return lambda asked, *rest: None if asked == name else find(asked, *rest)


def times(**ratios):
    """The verdict on five equal pairs of these ratios gradlab / torch, "_" for the space in a row's name."""
    arrays = {f"{name.replace('_', ' ')}_seconds": BASE * np.array([ratio, 1.0]) for name, ratio in ratios.items()}
    return speed.check(quick.with_arrays("speed", **arrays))


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
    verdict = times(LSTM_float64=lstm, Elman_float64=elman)
    assert verdict.word == word
    assert f"LSTM float64 {lstm:.2f}, Elman float64 {elman:.2f}" in verdict.sentence


@pytest.mark.parametrize("row", [row for row in speed.ROWS if not row.claimed], ids=lambda row: row.name)
def test_no_other_row_has_a_part_in_the_verdict(row):
    result = quick.with_arrays("speed", **{f"{name} float64_seconds": BASE * np.array([0.5, 1.0]) for name in ("LSTM", "Elman")})
    for ours in (1e-9, 1e9):
        columns = np.array([ours, *np.ones(len(row.targets))])
        assert speed.check({**result, row.key: BASE * columns}).word == "confirmed"


def test_a_time_that_is_not_a_number_confirms_nothing():
    assert times(LSTM_float64=float("nan"), Elman_float64=0.5).word != "confirmed"


def test_the_ratio_is_the_median_of_paired_ratios_and_not_the_ratio_of_medians():
    numbers = speed.check(quick.with_arrays("speed", **{"LSTM float64_seconds": UNEVEN})).numbers
    assert numbers["LSTM float64: median ratio gradlab / torch"] == 1.0
    quartiles = [numbers[f"LSTM float64: {which} quartile of the ratio gradlab / torch"] for which in ("lower", "upper")]
    assert quartiles == [0.5, 2.0]
    assert (numbers["LSTM float64: gradlab, ms"], numbers["LSTM float64: torch, ms"]) == (3000.0, 4000.0)


def test_every_number_is_that_of_the_times():
    result = quick.result("speed")
    numbers = speed.check(result).numbers
    assert (numbers["torch"], numbers["jax"], numbers["torch threads"]) == ("2.13.0", "0.10.2", 2)
    for row in speed.ROWS:
        seconds = result[row.key].T
        assert numbers[f"{row.name}: gradlab, ms"] == pytest.approx(1e3 * statistics.median(seconds[0]), rel=1e-15)
        for (peer, target), theirs in zip(row.targets.items(), seconds[1:], strict=True):
            low, middle, high = statistics.quantiles(seconds[0] / theirs, n=4, method="inclusive")
            ratio = f"of the ratio gradlab / {peer}"
            found = {f"lower quartile {ratio}": low, f"median ratio gradlab / {peer}": middle, f"upper quartile {ratio}": high}
            found[f"{peer}, ms"] = 1e3 * statistics.median(theirs)
            if target is not None:
                found[f"times as fast as {peer}"] = 1.0 / middle
                assert numbers[f"{row.name}: meant to be as fast as {peer}, times"] == target
                assert numbers[f"{row.name}: {peer} target"] == ("met" if 1.0 / middle >= target else "missed")
            for label, expected in found.items():
                assert numbers[f"{row.name}: {label}"] == pytest.approx(expected, rel=1e-14)  # one interpolation


TARGETS = [(row, peer) for row in speed.ANALYSIS for peer, target in row.targets.items() if target is not None]


@pytest.mark.parametrize(("row", "peer"), TARGETS, ids=lambda value: getattr(value, "name", value))
def test_every_target_and_every_miss_is_in_the_sentence(row, peer):
    column, target = 1 + list(row.targets).index(peer), row.targets[peer]
    for fold, word in ((1.25 * target, "meant"), (target, "meant"), (0.75 * target, "MISSES")):
        seconds = np.ones((5, 1 + len(row.targets)))
        seconds[:, column] = fold
        verdict = speed.check(quick.with_arrays("speed", **{row.key: seconds}))
        assert f"{fold:.2g} {peer} ({word} {target:g})" in verdict.sentence.partition(f"{row.name} ")[2]
        assert verdict.numbers[f"{row.name}: {peer} target"] == ("met" if word == "meant" else "missed")


def test_ratios_are_told_in_two_digits_without_an_exponent():
    found = [rows.digits(fold) for fold in (240.4, 31.25, 25.0, 6.25, 0.3721, 1.0)]
    assert found == ["240", "31", "25", "6.2", "0.37", "1"]


@pytest.mark.parametrize(("share", "words"), [(0.02, "2.0% (meant at most 10%)"), (0.3, "30.0% (MISSES 10%)")])
def test_what_a_monitor_adds_is_told_with_what_it_may(share, words):
    arrays = {row.key: BASE * np.array([1.0 + share, 1.0]) for row in speed.MONITORS}
    verdict = speed.check({**quick.result("speed"), **arrays})
    assert words in verdict.sentence
    assert verdict.numbers["monitor of an LSTM: share of a training step"] == pytest.approx(share, rel=1e-12)


def test_the_targets_are_those_that_were_set():
    assert {(row.name, peer): row.targets[peer] for row, peer in TARGETS} == {
        ("all Jacobians", "torch"): 25.0,
        ("all Jacobians", "jax"): 5.0,
        ("loss surface", "torch"): 4.0,
        ("loss surface", "jax"): 1.0,
        ("Lyapunov LSTM", "torch"): 8.0,
        ("Lyapunov Elman", "torch"): 8.0,
        ("Hessian-vector product", "torch"): 1.0,
        ("32 Elman nets", "torch"): 4.0,
        ("32 Elman nets", "jax"): 2.0,
    }
    p = speed.PARAMETERS["full"]
    assert [p["jacobians"][key] for key in "TBH"] == [100, 4, 128]
    assert [p["surface"][key] for key in ("T", "B", "H", "points")] == [50, 16, 32, 25]
    assert [p["lyapunov"][key] for key in ("H", "k")] == [128, 10]
    assert [p["hessian"][key] for key in "TBH"] == [100, 32, 128]
    assert [p["ensembles"][key] for key in ("members", "T", "B", "H")] == [32, 100, 16, 32]


# ---- what is missing is said --------------------------------------------------------------------------------------


def test_without_torch_the_analysis_is_skipped_with_its_install_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", without("torch"))
    assert main(ALL, ["speed", "--out", str(tmp_path)], folder=tmp_path / "default") == 0
    out = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "skipped: needs torch: pip install" in out
    assert "torch==2.13.0" in out
    assert list(tmp_path.iterdir()) == []
    assert main(ALL, ["--list"], folder=tmp_path / "default") == 0
    assert "needs torch" in capsys.readouterr().out


def test_it_runs_alone_after_the_others():
    assert [stem for stem, analysis in ALL.items() if analysis.ALONE] == ["speed"]


def without_jax():
    result = {**quick.result("speed"), "jax_version": np.zeros(0, np.uint8)}
    for row in speed.ROWS:
        if "jax" in row.targets:
            result[row.key][:, 1 + list(row.targets).index("jax")] = np.nan
    return result


def test_times_of_a_missing_jax_are_left_out_aloud():
    verdict = speed.check(without_jax())
    assert "JAX is not installed, its times are left out" in verdict.sentence
    assert not any("jax" in key for key in verdict.numbers)
    assert all(np.isfinite(value) for value in verdict.numbers.values() if isinstance(value, float))
    assert "JAX" not in speed.check(quick.result("speed")).sentence
    with plotting.style():
        panel = speed.draw(without_jax()).axes
    absent = sum("jax" in row.targets for row in speed.ANALYSIS)
    assert [text.get_text() for ax in panel for text in ax.texts].count("not installed") == absent > 0


def test_a_result_without_the_later_rows_still_has_its_verdict_and_its_figure():
    whole = quick.result("speed")
    old = {key: value for key, value in whole.items() if "version" in key or "threads" in key or "float" in key}
    before, after = speed.check(old), speed.check(whole)
    assert before.word == after.word
    assert after.sentence.startswith(before.sentence)
    assert after.numbers.items() >= before.numbers.items()
    with plotting.style():
        assert len(speed.draw(old).axes) == 1


# ---- how it is timed ----------------------------------------------------------------------------------------------

SMALL = {
    **{"T": 4, "B": 2, "D": 3, "H": 5, "pairs": 3, "runs_in_a_row": 2, "seconds_in_a_row": 0.5, "pause_seconds": 0.0},
    **{"threads": 2, "analysis_pairs": 1, "check_pairs": 1, "property_runs": 1, "property_examples": 5},
    "jacobians": {"T": 4, "B": 2, "D": 3, "H": 5},
    "surface": {"T": 4, "B": 2, "D": 3, "H": 5, "points": 3},
    "lyapunov": {"T": 6, "D": 3, "H": 5, "k": 2},
    "hessian": {"T": 4, "B": 2, "D": 3, "H": 5},
    "ensembles": {"members": 2, "T": 4, "B": 2, "D": 2, "H": 3, "threads": 2},
    "monitored_updates": 2,
}


def toy(calls, **peers):
    """A row that notes which side ran."""
    made = {peer: lambda peer=peer: calls.append(peer) for peer in peers.get("there", ("torch", "jax"))}
    return rows.Row("toy", lambda rng, p: (lambda: calls.append("gradlab"), made), {"torch": 2.0, "jax": None})


def test_the_sides_take_turns_and_the_first_run_of_each_turn_is_not_counted(monkeypatch):
    calls, told = [], []
    clock = itertools.count()
    monkeypatch.setattr(rows.time, "perf_counter", lambda: 0.001 * next(clock))
    seconds = rows.measure(toy(calls), np.random.default_rng(0), SMALL, 2, lambda: told.append(len(calls)))
    assert calls == 2 * (3 * ["gradlab"] + 3 * ["torch"] + 3 * ["jax"])
    assert told == [9, 18]
    np.testing.assert_allclose(seconds, 0.001, rtol=1e-9)  # one tick


def test_a_slow_side_is_run_less_often(monkeypatch):
    calls = []
    clock = itertools.count()
    monkeypatch.setattr(rows.time, "perf_counter", lambda: 7.0 * next(clock))
    assert rows.timed(lambda: calls.append(1), SMALL | {"runs_in_a_row": 50}) == 7.0
    assert len(calls) == 2


def test_a_peer_that_is_not_there_has_no_time():
    seconds = rows.measure(toy([], there=("torch",)), np.random.default_rng(0), SMALL, 3, lambda: None)
    assert np.isnan(seconds[:, 2]).all()
    assert (seconds[:, :2] > 0.0).all()


def test_every_pair_is_timed_and_all_sides_agree(monkeypatch):
    torch = pytest.importorskip("torch", reason="the other side of the comparison")
    monkeypatch.setattr(importlib.util, "find_spec", without("jax"))  # to compile takes longer than all else
    monkeypatch.setitem(speed.PARAMETERS, "quick", SMALL)
    told = []
    result = speed.compute(np.random.default_rng(1), "quick", lambda done, total: told.append((done, total)))
    assert told == [(k, 22) for k in range(1, 23)]  # 4 rows of 3 pairs, 10 of 1
    assert bytes(result["torch_version"]).decode() == torch.__version__
    pairs = dict.fromkeys((row.name for row in speed.TRAINING), 3)
    for row in (*speed.ROWS, *speed.MONITORS):
        seconds = result[row.key]
        assert seconds.shape == (pairs.get(row.name, 1), 1 + len(row.targets))
        there = [True] + [peer == "without" or rows.installed(peer) for peer in row.targets]
        np.testing.assert_array_equal(seconds > 0.0, np.broadcast_to(there, seconds.shape))
    assert result["property_seconds"].shape == (1,)
    assert "float64" in speed.check(result).sentence


def test_jax_is_left_as_it_was_found():
    jax = pytest.importorskip("jax", reason="the other side of the comparison")
    before = jax.config.jax_enable_x64
    for at_first in (False, True):
        jax.config.update("jax_enable_x64", at_first)
        try:
            with rows.jax_in_double():
                assert jax.config.jax_enable_x64
            assert jax.config.jax_enable_x64 == at_first
            with pytest.raises(ArithmeticError), rows.jax_in_double():
                raise ArithmeticError
            assert jax.config.jax_enable_x64 == at_first
        finally:
            jax.config.update("jax_enable_x64", before)


@pytest.mark.peer
@pytest.mark.parametrize("row", speed.ANALYSIS, ids=lambda row: row.name)
def test_each_row_is_built_for_all_its_peers_which_agree(row):
    pytest.importorskip("torch", reason="the other side of the comparison")
    jax = pytest.importorskip("jax", reason="the other side of the comparison")
    with rows.jax_in_double(), jax.disable_jit():  # to compile takes longer than to run once
        _, theirs = row.make(np.random.default_rng(0), SMALL)  # raises unless all sides agree
    assert list(theirs) == list(row.targets)


# ---- nothing is timed that is not equal ---------------------------------------------------------------------------


def spoiled(factor, where):
    """`where` of gradlab with its result off by `factor`."""
    owner, name, alter = {
        "training": (gradlab, "bptt", lambda record: record.gradients["0.U"].__imul__(factor)),
        "jacobians": (gradlab.forward_pass.LayerPass, "jacobians", lambda J: J.__imul__(factor)),
        "surface": (speed._speed_analysis, "loss_surface", lambda found: found.loss.__imul__(factor)),
        "lyapunov": (speed._speed_analysis, "network_lyapunov", lambda found: found["0"].exponents.__imul__(factor)),
        "hessian": (speed._speed_analysis, "hessian_vector_product", lambda found: found["0.U"].__imul__(factor)),
    }[where]
    right = getattr(owner, name)

    def wrong(*args, **options):
        found = right(*args, **options)
        alter(found)
        return found

    return owner, name, wrong


CASES = [(row, "training") for row in speed.TRAINING]
CASES += list(
    zip(speed.ANALYSIS, ("jacobians", "jacobians", "surface", "lyapunov", "lyapunov", "hessian", "training"), strict=True)
)


@pytest.mark.parametrize(("row", "where"), CASES, ids=lambda value: getattr(value, "name", ""))
def test_nothing_is_timed_where_the_results_differ(monkeypatch, row, where):
    pytest.importorskip("torch", reason="the other side of the comparison")
    monkeypatch.setattr(importlib.util, "find_spec", without("jax"))  # one peer is enough, and needs no compiler
    row.make(np.random.default_rng(1), SMALL)
    # a hundred times what two right answers may differ by
    monkeypatch.setattr(*spoiled(1.0 + (1e-2 if "float32" in row.name else 1e-8 if where != "training" else 1e-10), where))
    with pytest.raises(
        NumericalError,
        match=r"all Jacobians: the two"
        if "one by one" in row.name
        else rf"{row.name}: the two [\w. ]+ differ by .* a ratio of times would mean nothing",
    ):
        row.make(np.random.default_rng(1), SMALL)


@pytest.mark.parametrize(
    ("found", "expected"),
    [(np.ones(2), np.ones(3)), (np.full(2, np.nan), np.ones(2)), (np.ones(2), np.full(2, np.inf)), (np.zeros(2), np.zeros(2))],
    ids=["shapes", "nan", "inf", "nothing"],
)
def test_results_that_say_nothing_are_not_equal(found, expected):
    with np.errstate(invalid="ignore"), pytest.raises(NumericalError, match="toy: the two numbers differ by"):
        rows.require_equal("toy", "numbers", "torch", found, expected, 1e-3)


# ---- what a gradient check costs ----------------------------------------------------------------------------------


def test_the_costs_of_checks_are_told_with_what_they_were_meant_to_take():
    costs = {speed.CHECKS.key: np.array([[0.02, 0.08], [0.01, 0.05], [0.03, 0.06]]), "property_seconds": np.array([2.5])}
    verdict = speed.check({**quick.result("speed"), **costs})
    assert verdict.sentence.endswith(
        "takes 20 ms (MISSES 15 ms), torch's gradcheck 60 ms, a property of 100 random LSTMs 2.5 s (MISSES 2 s)"
    )
    assert (
        verdict.numbers.items()
        >= {
            "check of an LSTM with 72 parameters: gradlab, ms": pytest.approx(20.0, rel=1e-15),
            "check of an LSTM with 72 parameters: torch, ms": pytest.approx(60.0, rel=1e-15),
            # of 0.25, 0.2 and 0.5: the median of paired ratios, not 20/60
            "check of an LSTM with 72 parameters: median ratio gradlab / torch": pytest.approx(0.25, rel=1e-15),
            "check of an LSTM with 72 parameters: meant to take, ms": 15.0,
            "property of 100 random LSTMs: s": 2.5,
            "property of 100 random LSTMs: meant to take, s": pytest.approx(2.0, rel=1e-15),
        }.items()
    )
    quicker = {speed.CHECKS.key: np.full((3, 2), 0.01), "property_seconds": np.array([1.5])}
    sentence = speed.check({**quick.result("speed"), **quicker}).sentence
    assert "takes 10 ms (meant 15 ms)" in sentence
    assert sentence.endswith("1.5 s (meant 2 s)")


def test_without_hypothesis_no_property_is_timed_and_none_is_told(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", without("hypothesis"))
    assert speed.property_of(5) is None
    verdict = speed.check({**quick.result("speed"), "property_seconds": np.zeros(0)})
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


def both_checks():
    ours, theirs = speed.CHECKS.make(np.random.default_rng(0), SMALL)
    return ours, theirs["torch"]


def test_both_checks_of_one_lstm_are_about_the_same_72_parameters(monkeypatch):
    torch = pytest.importorskip("torch", reason="the other side of the comparison")
    checked = []
    right = torch.autograd.gradcheck
    monkeypatch.setattr(torch.autograd, "gradcheck", lambda f, given: checked.append((f, given)) or right(f, given))
    ours, theirs = both_checks()
    assert ours() is True
    assert theirs() is True
    f, given = checked[-1]
    example = gradlab.checks.random_example(gradlab.LSTM(), **CHECKED)
    assert sum(value.numel() for value in given) == sum(value.size for value in example.params.values()) == 72
    np.testing.assert_allclose(f(*given).detach().numpy(), example.record.outputs, rtol=1e-13, atol=1e-15)  # rounding


def test_each_timed_check_starts_without_what_an_example_keeps(monkeypatch):
    pytest.importorskip("torch", reason="the other side of the comparison")
    ours, _ = both_checks()
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
        both_checks()


# ---- the figure ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("properties", [0, 3])
def test_each_kind_of_row_is_drawn_in_a_panel_of_its_own(properties):
    with plotting.style():
        figure = speed.draw({**quick.result("speed"), "property_seconds": np.full(properties, 2.5)})
        figure.draw_without_rendering()
    panels = {ax.get_title(loc="left").partition("  ")[2]: ax for ax in figure.axes}
    ticks = {name: [tick.get_text() for tick in ax.get_yticklabels()] for name, ax in panels.items()}
    assert ticks["training step"] == [row.name for row in speed.TRAINING]
    called = {"torch": "torch", "jax": "JAX"}
    assert ticks["analyses"] == [f"{row.name}: {called[peer]}" for row in speed.ANALYSIS for peer in row.targets]
    assert (
        ticks["gradient checks"]
        == ["one LSTM: gradlab", "one LSTM: torch gradcheck", "100 LSTMs: gradlab"][: 2 + bool(properties)]
    )


@pytest.mark.parametrize(("fold", "missed"), [(2.0, True), (4.0, False), (200.0, False)])
def test_a_miss_is_drawn_open_beside_its_target_and_every_marker_is_inside(fold, missed):
    row = BY_NAME["loss surface"]
    seconds = np.ones((5, 3)) * np.array([1.0, fold, 3.0])
    with plotting.style():
        figure = speed.draw(quick.with_arrays("speed", **{row.key: seconds}))
        figure.draw_without_rendering()
    (ax,) = (ax for ax in figure.axes if "analyses" in ax.get_title(loc="left"))
    place = [tick.get_text() for tick in ax.get_yticklabels()].index("loss surface: torch")
    at = [line for line in ax.lines if len(line.get_xdata()) == 1 and line.get_ydata()[0] == place]
    (marker,) = at
    assert marker.get_xdata()[0] == pytest.approx(fold, rel=1e-15)
    assert (marker.get_markerfacecolor() == "white") == missed
    assert any(text.get_text().endswith("missed") and text.xy[1] == place for text in ax.texts) == missed
    assert any(list(line.get_xdata()) == [4.0, 4.0] and np.mean(line.get_ydata()) == place for line in ax.lines)
    low, high = ax.get_xlim()
    assert low < min(1.0, fold) <= max(fold, 25.0) < high
