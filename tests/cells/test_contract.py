"""One behavioural contract over every cell and option, held by the checks that gradlab ships."""

import pytest
from hypothesis import event, example, given, settings
from hypothesis import strategies as st

from gradlab import cells
from gradlab.checks import CONTRACT, check_cell, check_example, random_example, strategies

# Sums of some tens of terms through up to 3 layers keep 1e-13 of the sum of absolute terms or better where nothing saturates.
BOUND = 1e-11
GENTLE = strategies.examples(layers=(1, 2, 3), rtol=BOUND)


@pytest.mark.parametrize("check", CONTRACT, ids=lambda check: check.__name__)
@given(drawn=GENTLE)
@settings(max_examples=40)
def test_every_cell_keeps_the_contract(check, drawn):
    assert drawn.rtol == BOUND
    assert check(drawn) is None  # a check raises GradientMismatch


@given(drawn=GENTLE)
@example(random_example(cells.LSTM(), T=1, H=1))
@example(random_example(cells.LSTM(), scale=0.0))
@example(random_example(cells.Elman("relu"), scale=0.0))  # every pre-activation exactly at the kink
@example(random_example(cells.LSTM(), scale=40.0, rtol=1e-9))  # saturated gates
@settings(max_examples=200)
def test_every_contribution_to_every_gradient_equals_the_complex_step(drawn):
    report = check_example(drawn)
    for reason in report.reasons:
        event(reason)
    report.raise_for_failure(allow={"floor"})
    assert report.verdict == "PASS" or report.counts.unresolved["floor"] < report.counts.entries


@pytest.mark.parametrize("cell", cells.ALL, ids=repr)
def test_every_cell_passes_its_own_check_whole_with_its_control(cell):
    report = check_cell(cell)
    assert report.verdict == "PASS"
    assert {result.verdict for result in report.results} == {"PASS"}
    assert not report.without
    assert report.control.passed
    assert report.control.rejected > 10


@pytest.mark.slow
@pytest.mark.parametrize("shard", range(4))
def test_ten_thousand_examples_of_every_kind_raise_no_false_alarm(shard):
    seen = {"examples": 0, "UNRESOLVED": 0}

    @settings(max_examples=2500)
    @given(drawn=strategies.examples(kinds=strategies.PARAMETERS), _shard=st.just(shard))
    def run(drawn, _shard):
        report = check_example(drawn)
        seen["examples"] += 1
        seen["UNRESOLVED"] += report.verdict == "UNRESOLVED"
        assert report.verdict != "FAIL", str(report)
        assert set(report.reasons) <= {"floor", "nonfinite"}, str(report)  # saturated or huge weights alone

    run()
    assert seen["examples"] >= 2500
    assert seen["UNRESOLVED"] < 0.15 * seen["examples"]


def test_cells_all_holds_every_option_once():
    names = [repr(cell) for cell in cells.ALL]
    assert len(set(names)) == len(names)
    for option in (
        "peepholes=True",
        "coupled=True",
        "forget_gate=False",
        "reset='before'",
        "reset='after'",
        "Jordan",
        "Clockwork",
    ):
        assert any(option in name for name in names)
    for activation in ("tanh", "sigmoid", "relu", "leaky_relu", "hard_tanh", "linear"):
        assert f"Elman({activation!r})" in names
    assert any("learned=True" in name and "context='previous'" in name for name in names)
