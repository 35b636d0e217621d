"""The pytest plugin: fixture and marker `gradcheck`, options `--gradlab-*`, a summary when something was checked.

    def test_my_cell(gradcheck):
        gradcheck(MyCell())

    @pytest.mark.gradcheck(allow={"floor"})
    @given(example=strategies.examples(MyCell()))
    def test_my_cell_in_any_network(gradcheck, example):
        gradcheck(example)

Loaded in every session of pytest: the standard library and pytest only, until a test asks for the fixture.
PYTEST_DONT_REWRITE: nothing is asserted here.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING

import pytest

from gradlab.checks import _pytest_options as options
from gradlab.checks import _pytest_tally as tally
from gradlab.checks._pytest_state import State
from gradlab.errors import ValueRangeError

if TYPE_CHECKING:
    from gradlab.checks._pytest_fixture import GradCheck

_STATE = pytest.StashKey[State]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options and their twins in the ini file."""
    options.add_options(parser)


@pytest.hookimpl(trylast=True)  # behind hypothesis, whose own options then stay in force under a profile of ours
def pytest_configure(config: pytest.Config) -> None:
    """Read the options, and hook into the session."""
    config.addinivalue_line(
        "markers",
        "gradcheck(rtol=, oracle=, kink=, allow=): options of the gradient checks that the fixture gradcheck makes in this test",
    )
    settings = options.settings_of(config)
    if settings.profile is not None:
        options.load_profile(config, settings.profile)
    state = config.stash[_STATE] = State(settings, worker=hasattr(config, "workerinput"))
    config.pluginmanager.register(_Session(state), "gradlab_session")


@pytest.fixture(scope="session")
def gradcheck(request: pytest.FixtureRequest) -> GradCheck:
    """Check hand-written gradients against exact ones.

    gradcheck(cell), gradcheck(example), gradcheck.gradient(f, grad, x), gradcheck.vjp(f, vjp, *args), each with options.
    Returns the report; raises GradientMismatch for FAIL, and for UNRESOLVED unless its reasons are in `allow`.
    One object for the session, so that properties of hypothesis may use it.
    """
    from gradlab.checks._pytest_fixture import GradCheck

    return GradCheck(request.config.stash[_STATE])


class _Session:
    """Hooks that need to know their session."""

    def __init__(self, state: State) -> None:
        self.state = state

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        trouble = None
        try:
            self.state.begin(options.marked(item))
        except ValueRangeError as error:
            trouble = str(error)
        if trouble is not None:  # a usage error in a worker of xdist would take the worker with it
            pytest.fail(trouble, pytrace=False)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        self.state.attach(report)
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.state.collect(report)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        path = self.state.settings.report
        if path is None or self.state.worker or session.config.getoption("collectonly"):
            return
        self.state.trouble = tally.trouble_of_writing(path, self.state.tests)
        if self.state.trouble is not None and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.INTERNAL_ERROR

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        state = self.state
        lines = tally.lines(state.tests, state.settings.selftest) if state.tests else []
        if state.trouble is not None:
            lines.append(f"report     NOT written: {state.trouble}")
        elif state.tests and state.settings.report is not None:
            lines.append(f"report     {state.settings.report}")
        if lines:
            terminalreporter.section("gradlab: gradient checks")
            terminalreporter.write("".join(f"{line}\n" for line in lines))
