"""Each demo shows the finding that it is named after."""

import pytest

import gradlab
from gradlab.diagnosis import CATALOGUE
from gradlab.diagnosis.demos import DEMOS


@pytest.mark.parametrize("name", DEMOS)
def test_a_demo_shows_what_it_promises(name):
    demo = DEMOS[name]
    given = dict(demo.arguments())
    found = gradlab.diagnose(given.pop("subject"), **given)
    if demo.code:
        assert demo.code == name
        assert demo.code in CATALOGUE
        assert found[demo.code], found.findings
    else:
        assert found.healthy, found.findings


def test_the_demos_are_the_same_at_every_call():
    for name in ("vanishing", "loss-jumps"):
        first, second = (gradlab.diagnose(**DEMOS[name].arguments()) for _ in range(2))
        assert first.as_json() == second.as_json()
