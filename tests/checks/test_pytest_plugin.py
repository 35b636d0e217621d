"""The pytest plugin: what a user of `gradcheck` sees, in sessions of pytest inside this one."""

import importlib.metadata
import json
import os
import re
import subprocess
import sys
import types
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from importlib.machinery import ModuleSpec
from pathlib import Path

import numpy as np
import pytest

import gradlab
import gradlab.checks
from gradlab.checks import _pytest_options as options
from gradlab.checks import check_gradient, random_example, strategies
from gradlab.checks._pytest_options import Settings
from gradlab.checks._pytest_state import State
from gradlab.checks._pytest_tally import KEPT, Tally
from gradlab.checks.control import Control
from gradlab.checks.doubts import KINKS
from gradlab.checks.judgement import REASONS, Counts
from gradlab.checks.oracle import CHOICES

pytest_plugins = "pytester"

ROOT = Path(gradlab.__file__).parents[1]
TITLE = "gradlab: gradient checks"

# A user's package: the Elman network, forward only, with its backward pass, and with a fault of one part in a million.
CELLS = """
import numpy as np

class Forward:
    def init(self, rng, D, H):
        return {"W": rng.normal(size=(H, D)), "U": rng.normal(size=(H, H)), "b": rng.normal(size=H)}

    def pre(self, params, x_t, s_prev):
        return x_t @ params["W"].T + s_prev @ params["U"].T + params["b"]

    def step(self, params, x_t, s_prev, t):
        return np.tanh(self.pre(params, x_t, s_prev))

class Right(Forward):
    def vjp(self, params, x_t, s_prev, delta, t):
        d = delta / np.cosh(self.pre(params, x_t, s_prev)) ** 2
        return {"W": d.T @ x_t, "U": d.T @ s_prev, "b": d.sum(axis=0)}, d @ params["W"], d @ params["U"]

class Wrong(Right):
    def vjp(self, params, x_t, s_prev, delta, t):
        gradients, dx, ds = super().vjp(params, x_t, s_prev, delta, t)
        gradients["U"] = gradients["U"] * (1.0 + 1e-6 * (t == 2))
        return gradients, dx, ds
"""

# Functions whose verdict is known: a sum of squares, and a sum of magnitudes, through which a complex step sees no slope.
FUNCTIONS = """
import numpy as np
x = np.array([0.5, -1.5])

def square(x):
    return (x * x).sum()

def right(x):
    return 2.0 * x

def magnitude(x):
    return np.abs(x).sum()
"""


def installed():
    return any(point.name == "gradlab" for point in importlib.metadata.entry_points(group="pytest11"))


def plugin_args():
    return [] if installed() else ["-p", "gradlab.checks.pytest_plugin"]


@pytest.fixture
def user(pytester, monkeypatch):
    """A folder for tests, and the user's package in another one."""
    package = pytester.mkdir("elsewhere") / "othercells"
    package.mkdir()
    (package / "__init__.py").write_text(CELLS, "utf-8")
    monkeypatch.syspath_prepend(package.parent)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(package.parent), str(ROOT), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    return pytester


def session(user, code, *args, process=False):
    """A session of pytest over `code`, warnings as errors: exit status and output."""
    user.makepyfile(test_user=FUNCTIONS + code)
    given = [*plugin_args(), "-p", "no:cacheprovider", "-W", "error", "--strict-markers", *args]
    if process:  # hypothesis' own plugin loads hypothesis, a second for each process
        return user.runpytest_subprocess("-p", "no:hypothesispytest", *given)
    return user.runpytest_inprocess(*given)


def summary(result):
    """The lines of the plugin in the terminal summary."""
    text = result.stdout.str()
    return [line for line in re.split("=+ .* =+\n?", text.partition(TITLE)[2].partition("\n")[2])[0].splitlines() if line]


def test_a_forward_only_cell_of_another_package_passes_and_the_summary_says_that_nothing_was_written_by_hand(user):
    result = session(
        user,
        """
import othercells
def test_cell(gradcheck):
    report = gradcheck(othercells.Forward(), steps=3, hidden_size=2, layers=1)
    assert report.verdict == "PASS"
""",
    )
    result.assert_outcomes(passed=1)
    found = summary(result)
    assert found[0] == "checks     1 in 1 tests: 1 PASS, 0 FAIL, 0 UNRESOLVED"
    assert found[-1].startswith("note       Forward(): the cell has no derivative written by hand")


def test_a_wrong_backward_fails_with_parameter_and_step_and_a_right_one_passes(user):
    result = session(
        user,
        """
import othercells
def test_right(gradcheck):
    assert gradcheck(othercells.Right()).verdict == "PASS"
def test_wrong(gradcheck):
    gradcheck(othercells.Wrong())
""",
    )
    result.assert_outcomes(passed=1, failed=1)
    text = result.stdout.str()
    assert re.search(r"E +gradlab FAIL +Wrong\(\)", text)
    assert "wrong where it is made: d0.U, step 2" in text
    assert "one step   wrong where it is made: d0.W" not in text
    assert "_pytest_fixture.py" not in text  # the report is the whole output: no frame of gradlab
    assert "checks     2 in 2 tests: 1 PASS, 1 FAIL in 1 tests, 0 UNRESOLVED" in summary(result)


def test_a_property_over_a_cell_passes_without_a_health_check_and_has_one_control(user):
    result = session(
        user,
        """
import othercells
from hypothesis import given, settings
from gradlab.checks import strategies

@settings(max_examples=15)
@given(example=strategies.examples(othercells.Right(), kinds=strategies.GENTLE))
def test_property(gradcheck, example):
    assert gradcheck(example).verdict == "PASS"
""",
    )
    result.assert_outcomes(passed=1)
    found = summary(result)
    assert found[0] == "checks     15 in 1 tests: 15 PASS, 0 FAIL, 0 UNRESOLVED"
    controlled = int(re.search(r"alterations in (\d+) checks", found[2])[1])
    assert 1 <= controlled <= 5  # the first examples have zero weights: alterations of zeros are void


def test_a_property_over_a_wrong_cell_shrinks_to_the_step_of_the_fault(user):
    result = session(
        user,
        """
import othercells
from hypothesis import Phase, given, settings
from gradlab.checks import strategies

@settings(max_examples=30, phases=[Phase.generate, Phase.shrink])
@given(example=strategies.examples(othercells.Wrong(), kinds=["plain"], layers=[1]))
def test_property(gradcheck, example):
    gradcheck(example)
""",
    )
    result.assert_outcomes(failed=1)
    text = result.stdout.str()
    assert "T=3 B=1 D=1 H=1" in text  # step 2 is the third
    assert "gradcheck=gradcheck," in text  # no address of an object in the example


UNRESOLVED = """
import pytest
MARK
def test_unresolved(gradcheck):
    report = gradcheck.gradient(magnitude, np.sign, x, oracle="complex"ARGUMENT)
    assert report.verdict == "UNRESOLVED"
    assert report.reasons == ("oracle-disagrees",)
"""


@pytest.mark.parametrize(
    ("mark", "argument", "args", "ini"),
    [
        ('@pytest.mark.gradcheck(allow={"oracle-disagrees"})', "", (), ""),
        ("", ', allow="oracle-disagrees"', (), ""),
        ("", "", ("--gradlab-allow=floor,oracle-disagrees",), ""),
        ("", "", (), "gradlab_allow = floor, oracle-disagrees"),
    ],
)
def test_unresolved_passes_where_its_reason_is_allowed(user, mark, argument, args, ini):
    user.makeini(f"[pytest]\n{ini}\n")
    result = session(user, UNRESOLVED.replace("MARK", mark).replace("ARGUMENT", argument), *args)
    result.assert_outcomes(passed=1)
    assert summary(result)[0] == "checks     1 in 1 tests: 0 PASS, 0 FAIL, 1 UNRESOLVED (oracle-disagrees 1; 1 accepted)"


@pytest.mark.parametrize(
    ("mark", "argument"),
    [("", ""), ('@pytest.mark.gradcheck(allow="floor")', ""), ("", ", allow=['kink', 'floor']"), ("", ", allow=()")],
)
def test_unresolved_fails_where_its_reason_is_not_allowed_and_the_nearest_setting_wins(user, mark, argument):
    result = session(
        user,
        UNRESOLVED.replace("MARK", mark).replace("ARGUMENT", argument),
        *["--gradlab-allow=oracle-disagrees"] * bool(mark + argument),
    )
    result.assert_outcomes(failed=1)
    assert "gradlab UNRESOLVED   magnitude" in result.stdout.str()
    assert summary(result)[0] == "checks     1 in 1 tests: 0 PASS, 0 FAIL, 1 UNRESOLVED (oracle-disagrees 1; 0 accepted)"


@pytest.mark.parametrize(("kink", "verdict"), [("interval", "PASS"), ("unresolved", "UNRESOLVED"), ("fail", "FAIL")])
def test_a_marker_says_what_a_kink_is_worth(user, kink, verdict):
    result = session(
        user,
        f"""
import pytest
@pytest.mark.gradcheck(kink="{kink}", oracle="richardson")
def test_relu(gradcheck):
    gradcheck.gradient(lambda x: np.maximum(x, 0.0).sum(), lambda x: (x > 0.0) * 1.0, np.array([0.0, 1.0]))
""",
    )
    assert f"1 {verdict}" in summary(result)[0]


def test_a_call_wins_over_its_marker_over_the_class_over_the_command_line_over_the_ini_file(user):
    user.makeini("[pytest]\ngradlab_rtol = 1e-1\ngradlab_oracle = richardson\n")
    code = """
import pytest

def rtol(gradcheck, **options):
    return gradcheck.gradient(square, right, x, **options).rtol

def test_plain(gradcheck):
    assert rtol(gradcheck) == BARE

@pytest.mark.gradcheck(rtol=1e-3)
class TestClass:
    def test_class(self, gradcheck):
        assert rtol(gradcheck) == 1e-3

    @pytest.mark.gradcheck(rtol=1e-4)
    def test_nearest(self, gradcheck):
        assert rtol(gradcheck) == 1e-4
        assert rtol(gradcheck, rtol=1e-5) == 1e-5
        assert rtol(gradcheck) == 1e-4

def test_the_marker_of_a_test_ends_with_it(gradcheck):
    assert rtol(gradcheck) == BARE
    assert "Richardson" in gradcheck.gradient(square, right, x).oracle
    assert "complex step" in gradcheck.gradient(square, right, x, oracle="complex").oracle
"""
    session(user, code.replace("BARE", "1e-1")).assert_outcomes(passed=4)
    session(user, code.replace("BARE", "1e-2"), "--gradlab-rtol=0.01").assert_outcomes(passed=4)


def test_the_tolerance_of_an_example_counts_as_one_of_the_call(user):
    code = """
from dataclasses import replace
from gradlab.cells import Elman
from gradlab.checks import random_example

def test_rtol(gradcheck):
    example = random_example(Elman("tanh"), T=1, B=1, D=1, H=1)
    assert gradcheck(example).rtol == 1e-7
    assert gradcheck(replace(example, rtol=1e-6)).rtol == 1e-6
    assert gradcheck(replace(example, rtol=1e-6), rtol=1e-5).rtol == 1e-5
"""
    session(user, code, "--gradlab-rtol=1e-7").assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("mark", "complaint"),
    [
        ("rtool=1e-3", "has the keyword 'rtool'; expected rtol, oracle, kink, allow"),
        ("1e-3", "has the argument 0.001; expected keywords: rtol, oracle, kink, allow"),
        ("rtol=-1", "rtol is -1; expected a number above 0 and below 1"),
        ("rtol=True", "rtol is True; expected a number above 0 and below 1"),
        ("oracle='exact'", "oracle is 'exact'; expected one of auto, complex, richardson"),
        ("kink='skip'", "kink is 'skip'; expected one of interval, unresolved, fail"),
        ("allow={'noise'}", "allow has 'noise'; expected reasons out of kink, floor"),
        ("allow=3", "allow has '3'; expected reasons out of kink, floor"),
    ],
)
def test_a_marker_that_says_nonsense_stops_its_test_with_a_line_and_no_other(user, mark, complaint):
    result = session(
        user,
        f"""
import pytest
@pytest.mark.gradcheck({mark})
def test_marked(gradcheck):
    raise RuntimeError("not reached")
def test_other(gradcheck):
    gradcheck.gradient(square, right, x)
""",
    )
    result.assert_outcomes(errors=1, passed=1)
    result.stdout.fnmatch_lines(["the marker gradcheck of test_user.py::test_marked*"])
    text = result.stdout.str()
    assert complaint in text
    assert "not reached" not in text
    assert "During handling" not in text


@pytest.mark.parametrize(
    ("option", "complaint"),
    [
        ("oracle=exact", "--gradlab-oracle is 'exact'; expected one of auto, complex, richardson"),
        ("rtol=1", "--gradlab-rtol is '1'; expected a number above 0 and below 1"),
        ("rtol=nan", "--gradlab-rtol is 'nan'; expected a number"),
        ("allow=floor,flor", "--gradlab-allow has 'flor'; expected reasons out of kink, floor"),
        ("selftest=twice", "--gradlab-selftest is 'twice'; expected one of item, always, never"),
        ("report=r.txt", "--gradlab-report is 'r.txt'; expected a file that ends in .json or .html"),
        ("report=none/r.json", "none'; make it first"),
        ("profile=quick", "--gradlab-profile is 'quick'; expected one of gradlab-quick, gradlab-thorough, gradlab-nightly"),
    ],
)
def test_a_wrong_option_is_a_usage_error_of_one_line_and_so_is_its_twin_in_the_ini_file(user, option, complaint):
    result = session(user, "def test_nothing(): pass", f"--gradlab-{option}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert complaint in result.stderr.str()
    assert "Traceback" not in result.stderr.str()
    user.makeini(f"[pytest]\ngradlab_{option}\n")
    result = session(user, "def test_nothing(): pass")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert complaint.split("'; ")[-1] in result.stderr.str()


def test_the_words_of_the_options_are_those_of_the_checks():
    assert (options.ORACLES, options.KINKS, options.REASONS) == (CHOICES, KINKS, REASONS)


CONTROLLED = """
from gradlab.cells import Elman
from gradlab.checks import random_example

def test_one(gradcheck):
    for seed in range(3):
        gradcheck(random_example(Elman("tanh"), T=2, B=1, D=1, H=1, seed=seed))

def test_two(gradcheck):
    gradcheck.gradient(square, right, x)
    gradcheck.gradient(square, right, x)
    gradcheck.gradient(lambda x: (x**3).sum(), lambda x: 3.0 * x * x, x)
"""


@pytest.mark.parametrize(("selftest", "checks"), [("item", 3), ("always", 6), ("never", 0)])
def test_the_control_runs_once_for_each_cell_or_function_of_a_test_or_always_or_never(user, selftest, checks):
    args = [] if selftest == "item" else [f"--gradlab-selftest={selftest}"]
    found = summary(session(user, CONTROLLED, *args))
    assert found[0] == "checks     6 in 2 tests: 6 PASS, 0 FAIL, 0 UNRESOLVED"
    if checks:
        tried, controlled, rejected, void = map(int, re.findall(r"\d+", found[2]))
        assert controlled == checks
        assert rejected + void == tried
        assert rejected > void
    else:
        assert found[2] == "control    none: --gradlab-selftest=never"


def report_with(**parts):
    report = check_gradient(lambda x: (x * x).sum(), lambda x: 2.0 * x, np.ones(2), control=False)
    return replace(report, **parts)


def test_the_control_goes_on_until_its_alterations_could_be_seen_and_after_one_was_missed():
    state = State(Settings())
    state.begin({})
    assert state.wants_control("a")
    state.checked("a", report_with(control=Control(10, 2, 8, ())), False)  # most of them changed nothing
    assert state.wants_control("a")
    state.checked("a", report_with(control=Control(10, 9, 0, ("dx zeroed",))), False)
    assert state.wants_control("a")  # hypothesis runs that example again and must see it fail again
    state.checked("a", report_with(control=Control(10, 8, 2, ())), False)
    assert not state.wants_control("a")
    assert state.wants_control("b")
    assert state.pending.counts["missed"] == 1
    state.begin({})
    assert state.wants_control("a")


MIXED = """
import pytest
from gradlab.cells import ALL, Elman
from gradlab.checks import random_example

@pytest.mark.parametrize("k", range(3))
def test_examples(gradcheck, k):
    gradcheck(random_example(ALL[k], T=2, B=1, D=1, H=1))

def test_relu_at_its_kink(gradcheck):
    gradcheck.gradient(lambda x: np.maximum(x, 0.0).sum(), lambda x: (x > 0.0) * 1.0, np.array([0.0, 1.0]), oracle="richardson")

def test_wrong(gradcheck):
    gradcheck.gradient(square, np.negative, x)

@pytest.mark.gradcheck(allow="oracle-disagrees")
def test_unresolved(gradcheck):
    gradcheck.gradient(magnitude, np.sign, x, oracle="complex")

@pytest.fixture
def checked(gradcheck):
    gradcheck.gradient(square, right, x)
    yield
    gradcheck.gradient(square, right, x)

def test_around(checked):
    pass
"""


def test_summary_and_report_are_the_same_in_one_process_and_in_two(user):
    alone = session(user, MIXED, "--gradlab-report=alone.json")
    spread = session(user, MIXED, "--gradlab-report=spread.json", "-n", "2", process=True)
    alone.assert_outcomes(passed=6, failed=1)
    spread.assert_outcomes(passed=6, failed=1)
    found = summary(alone)
    assert found[:-1] == summary(spread)[:-1]
    assert found[0] == "checks     8 in 7 tests: 6 PASS, 1 FAIL in 1 tests, 1 UNRESOLVED (oracle-disagrees 1; 1 accepted)"
    assert "1 accepted at a kink" in found[1]
    first, second = ((user.path / name).read_bytes() for name in ("alone.json", "spread.json"))
    assert first == second
    data = json.loads(first)
    assert data["schema"] == 1
    assert data["summary"]["verdicts"] == {"PASS": 6, "FAIL": 1, "UNRESOLVED": 1}
    assert data["summary"]["unresolved"] == {"oracle-disagrees": 1}
    assert [one["test"].partition("::")[2] for one in data["reports"]] == [
        "test_around",
        "test_around",
        *(f"test_examples[{k}]" for k in range(3)),
        "test_relu_at_its_kink",
        "test_unresolved",
        "test_wrong",
    ]
    worst = data["reports"][-1]["findings"][0]
    assert (worst["backward"], worst["oracle"]) == (-0.5, 1.0)  # -x and 2 x at 0.5, the first of two equal errors/S


def test_what_a_worker_checked_outlives_it(user):
    result = session(
        user,
        """
import os
def test_a(gradcheck):
    gradcheck.gradient(square, right, x)
def test_b():
    os._exit(1)
""",
        *("-n", "1", "--max-worker-restart=0"),
        process=True,
    )
    result.assert_outcomes(passed=1, failed=1)
    assert summary(result)[0] == "checks     1 in 1 tests: 1 PASS, 0 FAIL, 0 UNRESOLVED"


def test_stopping_at_the_first_failure_keeps_the_summary_and_the_report(user):
    result = session(user, MIXED, "-x", "--gradlab-report=r.json", "-k", "wrong or unresolved")
    result.assert_outcomes(failed=1, deselected=5)
    assert summary(result)[0] == "checks     1 in 1 tests: 0 PASS, 1 FAIL in 1 tests, 0 UNRESOLVED"
    assert json.loads((user.path / "r.json").read_bytes())["summary"]["reports"] == 1


@pytest.mark.parametrize("by", ["option", "ini file"])
def test_a_report_lands_where_it_was_asked_for(user, monkeypatch, by):
    start, other = user.mkdir("start"), user.mkdir("other")
    if by == "ini file":
        user.makeini("[pytest]\ngradlab_report = r.json\n")  # beside the ini file
    code = f"""
import os
def test_a(gradcheck):
    gradcheck.gradient(square, right, x)
    os.chdir({str(other)!r})
"""
    monkeypatch.chdir(start)
    args = ["--gradlab-report=r.json"] * (by == "option")
    session(user, code, *args, str(user.path / "test_user.py")).assert_outcomes(passed=1)
    found = [path.parent for path in user.path.rglob("r.json")]
    assert found == [start if by == "option" else user.path]


def test_collecting_alone_prints_nothing_and_writes_nothing(user):
    result = session(user, MIXED, "--collect-only", "--gradlab-report=r.json")
    assert result.ret == 0
    assert TITLE not in result.stdout.str()
    assert not (user.path / "r.json").exists()


def test_a_session_without_checks_prints_nothing_and_its_report_is_empty_not_old(user):
    (user.path / "r.json").write_text("old", "utf-8")
    result = session(user, "def test_nothing(): pass", "--gradlab-report=r.json")
    assert TITLE not in result.stdout.str()
    assert json.loads((user.path / "r.json").read_bytes())["reports"] == []


def test_a_report_that_cannot_be_written_is_said_and_changes_the_exit_status(user):
    result = session(
        user,
        """
import os
def test_a(gradcheck):
    gradcheck.gradient(square, right, x)
    os.rmdir("out")
""",
        f"--gradlab-report={user.mkdir('out') / 'r.json'}",
    )
    result.assert_outcomes(passed=1)
    assert result.ret == pytest.ExitCode.INTERNAL_ERROR
    assert re.match("report     NOT written: .*cannot be written", summary(result)[-1])


def test_the_page_is_left_to_the_room_of_reports(user, monkeypatch):
    pages = types.ModuleType("gradlab.report")
    pages.__spec__ = ModuleSpec("gradlab.report", None)
    seen = []
    pages.write_html = lambda path, reports: seen.append((path, reports))
    monkeypatch.setitem(sys.modules, "gradlab.report", pages)
    session(user, MIXED, "--gradlab-report=r.html", "-k", "wrong").assert_outcomes(failed=1, deselected=6)
    ((path, reports),) = seen
    assert path.name == "r.html"
    assert [(one["test"], one["verdict"]) for one in reports] == [("test_user.py::test_wrong", "FAIL")]


def test_junit_xml_stays_valid_and_free_of_our_data(user):
    session(user, MIXED, "--junit-xml=j.xml", "-o", "junit_family=xunit2", "-k", "wrong or around")
    tree = ElementTree.parse(user.path / "j.xml")
    assert [case.get("name") for case in tree.iter("testcase")] == ["test_wrong", "test_around"]
    assert list(tree.iter("properties")) == []


def test_hypothesis_counts_what_was_let_pass(user):
    result = session(
        user,
        """
from hypothesis import given, settings, strategies as st

@settings(max_examples=5)
@given(seed=st.integers(1, 9))
def test_property(gradcheck, seed):
    gradcheck.gradient(magnitude, np.sign, x * seed, oracle="complex", allow={"oracle-disagrees"})
    gradcheck.gradient(lambda x: np.maximum(x, 0.0).sum(), lambda x: 0.3 * (x == 0.0), 0.0 * x, oracle="richardson")
""",
        "--hypothesis-show-statistics",
    )
    result.assert_outcomes(passed=1)
    text = result.stdout.str()
    assert "100.00%, gradlab UNRESOLVED (oracle-disagrees)" in text
    assert "100.00%, gradlab kink" in text


def test_hypothesis_takes_what_fails_and_what_is_undecided_for_two_faults(user):
    result = session(
        user,
        """
from hypothesis import Phase, given, settings, strategies as st

@settings(max_examples=20, phases=[Phase.generate, Phase.shrink], report_multiple_bugs=True)
@given(seed=st.integers(0, 9))
def test_property(gradcheck, seed):
    if seed > 3:
        gradcheck.gradient(magnitude, np.sign, x, oracle="complex")
    if seed > 1:
        gradcheck.gradient(square, np.negative, x)
""",
    )
    result.assert_outcomes(failed=1)
    text = result.stdout.str()
    for words in ("gradlab FAIL   square", "gradlab UNRESOLVED   magnitude", "seed=2", "seed=4"):
        assert words in text


def test_what_is_no_check_is_refused_in_words(user):
    result = session(
        user,
        """
import othercells
def test_class(gradcheck):
    gradcheck(othercells.Right)
def test_rtol(gradcheck):
    gradcheck.gradient(square, right, x, rtol="small")
""",
    )
    result.assert_outcomes(failed=2)
    text = result.stdout.str()
    assert "cell is the class Right; expected an instance; try Right()" in text
    assert "rtol is 'small'; expected a number above 0 and below 1" in text


@pytest.mark.skipif(not hasattr(pytest, "Subtests"), reason="subtests came with pytest 9")
def test_what_a_subtest_checks_counts_once(user):
    result = session(
        user,
        """
def test_parts(gradcheck, subtests):
    for k in range(3):
        with subtests.test(k=k):
            gradcheck.gradient(square, right, x * k)
    gradcheck.gradient(square, right, x)
""",
    )
    assert summary(result)[0] == "checks     4 in 1 tests: 4 PASS, 0 FAIL, 0 UNRESOLVED"


def test_a_failed_report_counts_as_that_and_not_by_its_undecided_entries():
    tally = Tally()
    counts = Counts(entries=3, passed=0, failed=1, unresolved={"floor": 2}, kinks=0, exact_zeros=0, worst=0.0)
    for verdict in ("FAIL", "UNRESOLVED"):
        tally.add(report_with(verdict=verdict, counts=counts), accepted=False, whole=False)
    assert {key: n for key, n in tally.counts.items() if " " in key} == {
        "verdict FAIL": 1,
        "verdict UNRESOLVED": 1,
        "reason floor": 1,
    }


def test_of_many_reports_the_first_and_the_last_are_kept_and_the_rest_counted():
    tally = Tally()
    for k in range(2 * KEPT + 7):
        tally.add(report_with(subject=str(k)), accepted=False, whole=True)
    kept = [int(json.loads(text)["subject"]) for text in tally.reports]
    assert kept == [*range(KEPT), *range(KEPT + 7, 2 * KEPT + 7)]
    assert tally.counts["left_out"] == 7
    assert tally.counts["reports"] == 2 * KEPT + 7


def fresh(folder, code):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60, check=False, cwd=folder
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def entry_point(user, monkeypatch):
    """The plugin as an installed distribution brings it, if this interpreter does not have it yet."""
    if not installed():
        folder = user.mkdir("site")
        info = folder / "gradlab_entry-0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: gradlab-entry\nVersion: 0\n", "utf-8")
        (info / "entry_points.txt").write_text("[pytest11]\ngradlab = gradlab.checks.pytest_plugin\n", "utf-8")
        monkeypatch.syspath_prepend(folder)
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), os.environ["PYTHONPATH"]]))
    return user


def test_an_idle_plugin_loads_no_numpy_and_prints_nothing(entry_point):
    (entry_point.path / "test_idle.py").write_text("def test_nothing(): pass\n", "utf-8")
    heavy = ["numpy", "scipy", "matplotlib", "hypothesis", "gradlab.checks.report", "gradlab.cells"]
    text = fresh(
        entry_point.path,
        f"""
import sys, pytest
given = "-q --strict-markers -W error -p no:cacheprovider test_idle.py".split()
assert pytest.main([*given, "-p", "no:hypothesispytest"]) == 0  # hypothesis' own plugin loads hypothesis
assert "gradlab.checks.pytest_plugin" in sys.modules  # it was there
print("loaded:", *[name for name in {heavy!r} if name in sys.modules])
""",
    )
    assert "loaded:\n" in text
    assert "gradlab" not in text


def test_the_plugin_takes_at_most_fifty_milliseconds_to_load(user):
    code = """
import time, pytest
start = time.process_time()
import gradlab.checks.pytest_plugin
print(time.process_time() - start)
"""
    assert min(float(fresh(user.path, code)) for _ in range(3)) < 0.05  # the best of three, of processor time


def test_without_the_plugin_nothing_of_it_is_there(entry_point):
    entry_point.makepyfile(test_user="def test_a(gradcheck): pass")
    given = ["-W", "error", "-p", "no:cacheprovider"]
    entry_point.runpytest_inprocess(*given).assert_outcomes(passed=1)
    result = entry_point.runpytest_inprocess(*given, "-p", "no:gradlab")
    result.assert_outcomes(errors=1)
    assert "fixture 'gradcheck' not found" in result.stdout.str()


def test_a_profile_is_registered_when_asked_for_and_keeps_the_settings_in_force(user):
    user.makepyfile(
        test_user="""
from hypothesis import settings
def test_profile():
    one = settings.default
    assert (one.max_examples, one.deadline, one.derandomize) == (20, None, True)
"""
    )
    fresh(
        user.path,
        f"""
import pytest
from hypothesis import errors, settings
settings.register_profile("own", derandomize=True, database=None)
settings.load_profile("own")
given = {plugin_args()!r} + ["-q", "-p", "no:cacheprovider", "test_user.py"]
assert pytest.main(given) == 1
assert settings.get_current_profile_name() == "own"
with pytest.raises(errors.InvalidArgument):
    settings.get_profile("gradlab-quick")
assert pytest.main([*given, "--gradlab-profile=gradlab-quick", "--hypothesis-profile=own"]) == 4
assert pytest.main([*given, "--hypothesis-profile=own", "-o", "gradlab_profile=gradlab-quick"]) == 1
assert pytest.main([*given, "--gradlab-profile=gradlab-quick"]) == 0
assert settings.get_profile("gradlab-thorough").max_examples == 1000
assert settings.get_profile("gradlab-nightly").max_examples == 10_000
""",
    )


def test_every_name_of_the_room_resolves_and_none_is_loaded_before_it_is_used(user):
    text = fresh(user.path, "import sys, gradlab.checks as c; print('numpy' in sys.modules, sorted(c.__all__) == dir(c))")
    assert text.split() == ["False", "True"]
    assert [name for name in gradlab.checks.__all__ if getattr(gradlab.checks, name, None) is None] == []
    assert gradlab.checks.strategies is strategies
    with pytest.raises(AttributeError, match=r"module 'gradlab.checks' has no attribute 'nothing'"):
        gradlab.checks.nothing  # noqa: B018


def test_a_replayed_example_gives_the_same_report():
    example = random_example(gradlab.GRU(), T=2, B=1, D=1, H=2)
    again = gradlab.checks.replay(gradlab.checks.code_of(example), gradlab.GRU())
    assert str(again) == str(gradlab.checks.check_example(example))
