"""Two diagnoses, finding by finding."""

import json

from gradlab.diagnosis import Diagnosis, Finding, Number, Place
from gradlab.diagnosis.compare import compare


def of(*findings):
    return Diagnosis("a model", findings)


def one(code="vanishing", severity="warning", layer="0", timestep=None, value=1.0, interval=None, **place):
    return Finding(
        code, severity, Place(layer, timestep=timestep, **place), "it is so", {"gain": Number(value, "nats", interval)}
    )


def changes(before, after):
    return {(row.finding.code, row.change): row.what for row in compare(of(*before), of(*after)).rows}


def test_a_finding_is_gone_new_changed_or_the_same():
    before = [one("vanishing"), one("saturated", gate="i"), one("dead-relu")]
    after = [one("vanishing", value=2.0), one("saturated", gate="i"), one("exploding", "error")]
    assert changes(before, after) == {
        ("exploding", "new"): "",
        ("vanishing", "changed"): "gain 1 nats -> 2 nats",
        ("saturated", "same"): "",
        ("dead-relu", "gone"): "",
    }
    found = compare(of(*before), of(*after))
    assert found.verdict == "1 gone, 1 new, 1 changed, 1 same"
    assert [row.change for row in found.rows] == ["new", "changed", "same", "gone"]


def test_a_step_may_move_but_another_gate_layer_or_direction_is_another_finding():
    assert changes([one(timestep=3, lag=5)], [one(timestep=7, lag=5)]) == {("vanishing", "changed"): "timestep 3 -> 7"}
    for other in (one(layer="1"), one(gate="f"), one(direction="backward"), one(parameter="0.U"), one(phase="forward")):
        assert set(changes([one()], [other])) == {("vanishing", "gone"), ("vanishing", "new")}


def test_numbers_differ_when_their_intervals_do_not_meet_or_by_one_percent_without():
    assert changes([one(value=1.0)], [one(value=1.009)]) == {("vanishing", "same"): ""}  # below 1 %
    assert ("vanishing", "changed") in changes([one(value=1.0)], [one(value=1.02)])  # above
    assert changes([one(interval=(0.5, 1.5))], [one(value=1.4, interval=(1.2, 1.6))]) == {("vanishing", "same"): ""}
    assert ("vanishing", "changed") in changes([one(interval=(0.9, 1.1))], [one(value=1.4, interval=(1.2, 1.6))])
    nan = float("nan")
    assert changes([one(value=nan)], [one(value=nan)]) == {("vanishing", "same"): ""}
    assert ("vanishing", "changed") in changes([one(value=nan)], [one(value=1.0)])
    inf = float("inf")
    assert ("vanishing", "changed") in changes([one(value=inf)], [one(value=1.0)])


def test_worse_is_what_is_new_or_graver():
    rows = compare(of(one("a"), one("b"), one("c", "error"), one("d")), of(one("a", "error"), one("b"), one("c"), one("e"))).rows
    assert {row.finding.code: row.worse for row in rows} == {"a": True, "b": False, "c": False, "d": False, "e": True}


def test_several_findings_at_one_place_are_matched_in_their_order():
    found = compare(of(one(timestep=1), one(timestep=5)), of(one(timestep=1)))
    assert [(row.change, row.finding.place.timestep) for row in found.rows] == [("same", 1), ("gone", 5)]


def test_a_comparison_is_plain_json_and_nothing_with_nothing_is_said():
    data = compare(of(one(value=float("inf"))), of()).as_json()
    assert data["schema"] == "gradlab-comparison-1"
    assert [row["change"] for row in data["rows"]] == ["gone"]
    json.dumps(data, allow_nan=False)
    assert compare(of(), of()).verdict == "no findings in either"
