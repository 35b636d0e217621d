"""Layers that are not used, truncation, initial states and Jacobians of few directions: planted, and absent where all is well."""

import ast

import numpy as np
import pytest
from flow_cases import MEASURED, evidence_of, healthy, linear, noise, orthogonal, recalling

from gradlab import GRU, LSTM, Batch, Elman, Network, bptt, inits, mean_squared_error, softmax_cross_entropy
from gradlab.diagnosis.catalogue_flow import FLOW
from gradlab.diagnosis.circumstances import Circumstances
from gradlab.diagnosis.evidence import Evidence, Look
from gradlab.diagnosis.rules_initial import initial_state, initial_statistic, last_output, latched_statistic
from gradlab.diagnosis.rules_structure import ill_conditioned, rank_statistic, truncation_short, truncation_statistic
from gradlab.diagnosis.rules_unused import UNSEEN, blindness_statistic, unused, unused_statistic

RULES = (truncation_short, unused, initial_state, ill_conditioned)


def findings(evidence, rules=RULES):
    with np.errstate(all="ignore"):
        return [one for rule in rules for one in rule(evidence)]


def stack(cell, layers=2, H=8, T=20, bidirectional=False, readout="last", B=8, D=3, **options):
    rng = np.random.default_rng(3)
    net = Network(cell, D, H, 2, num_layers=layers, bidirectional=bidirectional, readout=readout)
    targets = rng.normal(size=(B, 2) if readout == "last" else (T, B, 2))
    return net, net.init(rng, **options), Batch(rng.normal(size=(T, B, D)), targets)


# ---- what the loss does not see -------------------------------------------------------------------------------


@pytest.mark.parametrize("readout", ["last", "every"])
@pytest.mark.parametrize("sick", ["forward", "backward"])
@pytest.mark.parametrize(("factor", "severity"), [(0.0, "error"), (1e-6, "warning")])
@pytest.mark.parametrize("cell", [Elman(), GRU()], ids=repr)
def test_a_direction_that_the_read_out_leaves_out_is_named(cell, factor, severity, sick, readout):
    net, params, batch = stack(cell, 1, bidirectional=True, readout=readout)
    half = slice(0, 8) if sick == "forward" else slice(8, 16)
    params["readout.V"][:, half] *= factor
    evidence = evidence_of(net, params, batch, mean_squared_error)
    (found,) = findings(evidence, (unused,))
    assert (found.code, found.severity, found.place.layer) == ("unused-direction", severity, f"0.{sick}")
    assert found.place.direction == sick
    seen = next(one for one in evidence.layers if one.key == f"0.{sick}")
    assert unused_statistic(evidence, seen) == found.numbers["share"].value < UNSEEN.value
    if factor:  # entries of V of the same law, times the factor
        assert found.numbers["share"].value == pytest.approx(np.log(factor), abs=1.0)


def test_a_direction_below_that_the_next_level_leaves_out_is_named():
    net, params, batch = stack(LSTM(), 2, bidirectional=True)
    for direction in ("forward", "backward"):
        params[f"1.{direction}.W"][:, 8:] = 0.0
    (found,) = findings(evidence_of(net, params, batch, mean_squared_error), (unused,))
    assert (found.code, found.place.layer) == ("unused-direction", "0.backward")


@pytest.mark.parametrize("level", [1, 2])
@pytest.mark.parametrize("cell", [Elman(), LSTM(), GRU()], ids=repr)
def test_a_layer_below_weights_that_are_nearly_zero_is_named(cell, level):
    net, params, batch = stack(cell, 3)
    params[f"{level}.W"] *= 1e-6
    found = findings(evidence_of(net, params, batch, mean_squared_error), (unused,))
    assert [(one.code, one.place.layer, one.severity) for one in found] == [("unused-layer", str(level - 1), "warning")]


@pytest.mark.parametrize("level", [0, 1, 2])
def test_a_layer_whose_states_do_not_depend_on_its_input_is_named_and_so_is_what_nothing_reaches(level):
    net, params, batch = stack(GRU(), 3)
    params[f"{level}.W"][:] = 0.0
    params[f"{level}.b"][:] = 0.3
    evidence = evidence_of(net, params, batch, mean_squared_error)
    found = findings(evidence, (unused,))
    names = [one.place.layer for one in found]
    # nothing comes through to the layers above: their states are the same for all sequences too
    assert names == ([str(level - 1)] if level else []) + [str(k) for k in range(level, 3)]
    assert all(one.severity == "error" for one in found if one.place.layer == str(level - 1))
    assert blindness_statistic(evidence.layers[level]) < -30.0  # rounding of identical rows at most


def test_a_layer_to_which_no_gradient_comes_at_all_is_told():
    net, params, batch = stack(Elman(), 1)
    params["readout.V"][:] = 0.0
    (found,) = findings(evidence_of(net, params, batch, mean_squared_error), (unused,))
    assert (found.code, found.severity, found.place.layer) == ("unused-layer", "error", "0")


def test_a_loss_at_its_minimum_says_nothing():
    net, params, batch = stack(Elman(), 1)
    fitted = bptt(net, params, batch, mean_squared_error).outputs
    assert findings(evidence_of(net, params, Batch(batch.inputs, fitted), mean_squared_error), (unused,)) == []


def last_row(outputs, targets, mask=None):
    """What `output[:, -1]` of a bidirectional layer reads: of the reverse direction, the state after one input."""
    d = np.zeros_like(outputs)
    d[-1] = 1.0
    return outputs[-1].sum(), d


def test_the_reverse_direction_read_at_the_last_input_is_told():
    net, params, batch = stack(LSTM(), 1, bidirectional=True, readout="every")
    (found,) = findings(evidence_of(net, params, batch, last_row), (unused,))
    assert (found.code, found.severity, found.place.layer) == ("unused-direction", "warning", "0.backward")
    assert "first 1 of 20 steps" in found.message


# ---- truncation -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("reach", "short"), [(30, False), (20, False), (7, True), (5, True)])
def test_truncation_that_cuts_the_memory_is_told(reach, short):
    net, params, batch = linear(1.0, T=31)
    evidence = evidence_of(net, params, batch, mean_squared_error, truncation=reach)
    cosine, ratio = truncation_statistic(evidence, evidence.looks[0])
    found = findings(evidence, (truncation_short,))
    assert [one.code for one in found] == ["truncation-short"] * short
    if short:
        assert (found[0].numbers["cosine"].value, found[0].numbers["norm_ratio"].value) == (cosine, ratio)
        assert found[0].place.lag == reach


def test_truncation_behind_a_gradient_that_vanished_loses_nothing():
    net, params, batch = stack(GRU(), 1, T=60)
    assert findings(evidence_of(net, params, batch, mean_squared_error, truncation=30), (truncation_short,)) == []


def test_truncation_shorter_than_the_dependency_is_told_whatever_the_gradient_does():
    net, params, batch = stack(GRU(), 1, T=60)
    evidence = evidence_of(net, params, batch, mean_squared_error, truncation=30, dependency=40)
    assert [one.code for one in findings(evidence, (truncation_short,))] == ["truncation-short"]
    longer = evidence_of(net, params, batch, mean_squared_error, truncation=50, dependency=40)
    assert findings(longer, (truncation_short,)) == []
    assert findings(evidence_of(net, params, batch, truncation=5), (truncation_short,)) == []  # no loss to evaluate


def test_where_truncation_means_nothing_the_rule_is_silent():
    net, params, batch = stack(GRU(), 1, T=12, bidirectional=True)
    assert findings(evidence_of(net, params, batch, mean_squared_error, truncation=3), (truncation_short,)) == []
    assert findings(evidence_of(*linear(1.0, T=8), mean_squared_error, truncation=8), (truncation_short,)) == []
    bare = evidence_of(*linear(1.0, T=20), mean_squared_error, bare=True, truncation=2)
    assert findings(bare, (truncation_short,)) == []


# ---- the initial state -----------------------------------------------------------------------------------------------


def started(scale, T=30, B=8, H=6, gain=1.0, bare=True, level=0):
    """A linear net that keeps everything, whose sequences start from states of the size `scale`."""
    net, params, batch = linear(gain, H=H, T=T, B=B, layers=level + 1)
    start = scale * np.random.default_rng(9).normal(size=(B, H))
    return evidence_of(net, params, batch, mean_squared_error, bare, {str(level): start})


@pytest.mark.parametrize("bare", [True, False])
def test_states_carried_over_that_outweigh_the_inputs_are_told(bare):
    evidence = started(1e3, bare=bare)
    (found,) = findings(evidence, (initial_state,))
    assert (found.code, found.severity, found.place.layer) == ("initial-state", "warning", "0")
    assert found.numbers["share"].value == initial_statistic(evidence, evidence.layers[0])[0] > 0.99
    assert findings(started(0.1, bare=bare), (initial_state,)) == []
    assert findings(started(1e3, gain=0.5, bare=bare), (initial_state,)) == []  # forgotten: 0.5^30 * 1000 is 1e-6


def test_the_share_of_a_linear_net_is_the_ratio_of_variances():
    evidence = started(3.0)
    layer, record = evidence.layers[0].layer, evidence.looks[0].record
    start = np.square(layer.adjoints[0] * layer.states[0].std(axis=0)).sum(axis=-1)
    fed = np.square(record.input_gradient * record.inputs.reshape(-1, 2).std(axis=0)).sum(axis=(0, 2))
    expected = np.quantile(start / (start + fed), 0.5, method="inverted_cdf")
    assert initial_statistic(evidence, evidence.layers[0])[0] == pytest.approx(expected, rel=1e-12)


def test_an_upper_layer_is_held_against_what_it_reads():
    (found,) = findings(started(1e3, level=1), (initial_state,))
    assert found.place.layer == "1"


def test_a_net_that_latches_is_worth_knowing():
    net, params, batch = stack(Elman(), 1, T=40)
    params["0.U"] = 4.0 * np.eye(8)
    params["0.W"] *= 1e-3
    evidence = evidence_of(net, params, batch, mean_squared_error)
    (found,) = findings(evidence, (initial_state,))
    assert (found.code, found.severity) == ("initial-state", "info")
    assert latched_statistic(evidence.layers[0])[0] > 0.999


def test_a_net_that_keeps_everything_owes_half_to_its_start():
    evidence = evidence_of(*linear(1.0, T=100, B=64, H=8), mean_squared_error)
    share, interval = latched_statistic(evidence.layers[0])
    # y(x, s) = Q^T s + f(x), s and f(x) of the same law: two draws of each; a median of 64 ratios of sums of 8 squares
    assert share == pytest.approx(0.5, abs=0.1)
    assert interval[0] < 0.5 < interval[1]


@pytest.mark.parametrize("cell", [Elman(), LSTM(peepholes=True), GRU()], ids=repr)
def test_a_layer_run_again_from_its_own_start_gives_its_own_output(cell):
    net, params, _ = stack(cell, 1)
    lengths = np.array([20, 3, 1, 20, 7, 9, 20, 11])
    evidence = evidence_of(net, params, Batch(noise(20, D=3), None, lengths=lengths))
    run = evidence.layers[0].run
    own = run.outputs()[lengths - 1, np.arange(8)]
    np.testing.assert_array_equal(last_output(run, run.states[0]), own)  # the same operations


# ---- conditioning ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rank", "H"), [(1, 16), (2, 40), (3, 64)])
def test_a_recurrent_matrix_of_low_rank_is_told(rank, H):
    net, params, batch = stack(Elman(), 1, H=H)
    Q = orthogonal(H)
    params["0.U"] = Q[:, :rank] @ Q[:, :rank].T
    evidence = evidence_of(net, params, batch, mean_squared_error)
    (found,) = findings(evidence, (ill_conditioned,))
    assert (found.code, found.severity, found.place.layer) == ("ill-conditioned", "warning", "0")
    # rank equal singular values, but for the slopes of tanh
    assert found.numbers["effective_rank"].value == pytest.approx(rank / H, rel=0.15)


def test_units_of_a_relu_that_are_off_do_not_count():
    net, params, batch = stack(Elman("relu"), 1, H=32, recurrent_init=inits.identity())
    seen = evidence_of(net, params, batch, mean_squared_error).layers[0]
    rank, condition = rank_statistic(seen)
    assert rank == pytest.approx(1.0, abs=1e-12)  # D I: as many ones as units that are on
    assert condition == pytest.approx(0.0, abs=1e-12)


def test_a_condition_beyond_the_digits_is_worth_knowing():
    net, params, batch = stack(Elman("linear"), 1, H=12, recurrent_init=inits.orthogonal())
    params["0.U"] = params["0.U"] @ np.diag([1.0] * 11 + [1e-12])
    assert findings(evidence_of(net, params, batch, mean_squared_error), (ill_conditioned,)) == []
    low = {key: value.astype(np.float32) for key, value in params.items()}
    small = Batch(batch.inputs.astype(np.float32), batch.targets.astype(np.float32))
    (found,) = findings(evidence_of(net, low, small, mean_squared_error), (ill_conditioned,))
    assert (found.code, found.severity) == ("ill-conditioned", "info")
    assert "float32" in found.message


def test_a_proof_that_rounding_errors_grow_too_far_is_handed_on_with_the_layer_that_amplifies_most():
    net, params, batch = linear(1.0, T=30, layers=2, factors={"1": 1.3})
    record = bptt(net, params, batch, mean_squared_error, MEASURED)
    look = Look(record, "encoder", net, params, ill_conditioned="ill-conditioned: 0.U differs by 3e-2")
    (found,) = findings(Evidence((look,)), (ill_conditioned,))
    assert (found.code, found.severity, found.place.layer) == ("sensitive", "warning", "encoder.1")
    assert found.numbers["slope"].value == pytest.approx(np.log(1.3), abs=1e-9)
    assert "0.U differs by 3e-2" in found.message
    (blind,) = findings(Evidence((Look(bptt(net, params, batch, mean_squared_error, ()), ill_conditioned="no"),)), RULES[3:])
    assert blind.code == "sensitive"


# ---- what is not to be found ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", healthy())
def test_healthy_networks_are_left_alone(name):
    net, params, batch, loss = healthy()[name]
    found = findings(evidence_of(net, params, batch, loss))
    assert [one for one in found if one.severity != "info"] == []


def test_truncation_at_half_of_a_text_is_healthy():
    net, params, batch, loss = healthy()["cross-entropy at every step"]
    assert findings(evidence_of(net, params, batch, loss, truncation=25), (truncation_short,)) == []


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_the_size_of_the_loss_changes_nothing(scale):
    net, params, batch = stack(GRU(), 2, bidirectional=True)
    params["readout.V"][:, 8:] *= 1e-7
    params["0.forward.W"][:] = 0.0

    def scaled(outputs, targets, mask=None):
        value, d = mean_squared_error(outputs, targets, mask)
        return scale * value, scale * d

    one, other = (findings(evidence_of(net, params, batch, loss)) for loss in (mean_squared_error, scaled))
    assert len(one) >= 2
    assert [(f.code, f.severity, f.place) for f in one] == [(f.code, f.severity, f.place) for f in other]
    for mine, theirs in zip(one, other, strict=True):  # gradients were multiplied: numbers agree to their rounding
        values = [[n.value for n in f.numbers.values()] for f in (mine, theirs)]
        np.testing.assert_allclose(values[0], values[1], rtol=1e-12)


@pytest.mark.parametrize("T", [1, 2])
@pytest.mark.parametrize("cell", [Elman(), LSTM(), GRU()], ids=repr)
def test_a_step_of_one_unit_in_one_sequence_raises_nothing(cell, T):
    net, params, batch = stack(cell, 2, H=1, T=T, B=1, D=1, bidirectional=True)
    for bare in (False, True):
        found = findings(evidence_of(net, params, batch, mean_squared_error, bare=bare, truncation=1, dependency=1))
        assert all(one.severity != "error" for one in found)


def test_numbers_beyond_the_range_of_floats_and_records_without_series_raise_nothing():
    net, params, batch = stack(Elman("linear"), 2, H=3, T=6)
    params["0.U"] = 1e200 * np.eye(3)
    for bare in (False, True):
        assert findings(evidence_of(net, params, batch, mean_squared_error, bare=bare, truncation=2)) == []
    plain = stack(Elman(), 2, H=3, T=6)
    assert findings(Evidence((Look(bptt(*plain, mean_squared_error, ())),), None, Circumstances(truncation=2))) == []
    assert findings(Evidence()) == []


def test_ensembles_raise_nothing():
    net, params, batch = stack(Elman(), 2)
    pair = params | {"0.U": np.stack([params["0.U"]] * 2)}
    record = bptt(net, pair, batch, mean_squared_error, MEASURED)
    told = Circumstances(truncation=5)
    look = Look(record, "", net, pair, batch=batch, loss=mean_squared_error)
    assert [one.code for one in findings(Evidence((look,), None, told)) if one.code != "truncation-short"] == []


# ---- the catalogue ----------------------------------------------------------------------------------------------------


CODES = "vanishing exploding transient-growth short-horizon truncation-short unused-layer unused-direction initial-state "
CODES += "ill-conditioned sensitive"


def test_every_code_of_these_rules_has_an_entry_whose_code_parses():
    assert sorted(FLOW) == sorted(CODES.split())
    for code, entry in FLOW.items():
        assert all((entry.title, entry.meaning, entry.remedy, entry.reference)), code
        for source in (entry.pytorch, entry.keras):
            ast.parse(source)


@pytest.mark.parametrize("steps", [60, 100])
def test_the_remedy_for_vanishing_makes_it_go_away(steps):
    from gradlab.diagnosis.rules_memory import vanishing

    rng = np.random.default_rng(5)
    net = Network(LSTM(), 2, 24, 1, readout="last")
    batch = Batch(noise(steps), rng.normal(size=(8, 1)))
    sick = net.init(rng, forget_bias=0.0)
    assert [one.code for one in vanishing(evidence_of(net, sick, batch, mean_squared_error))] == ["vanishing"]
    sick["0.b"][24:48] = np.log(steps)  # as the entry's code does
    assert list(vanishing(evidence_of(net, sick, batch, mean_squared_error))) == []


def test_recalling_is_what_the_helper_says():
    assert recalling(10)["forget_bias"] == pytest.approx(np.log(np.exp(-0.1) / (1.0 - np.exp(-0.1))), rel=1e-12)


@pytest.mark.parametrize("readout", ["every", "last"])
def test_both_losses_read_both_read_outs(readout):
    net, params, batch = stack(LSTM(), 2, readout=readout)
    labels = np.random.default_rng(0).integers(0, 2, batch.targets.shape[:-1])
    assert findings(evidence_of(net, params, Batch(batch.inputs, labels), softmax_cross_entropy)) == []
