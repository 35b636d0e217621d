"""A record comes back from its file as it was, and what a caller does to it touches nothing else."""

import io
import json
import zipfile

import numpy as np
import pytest

from gradlab import LSTM, Batch, Elman, Network, bptt, forward, mean_squared_error, softmax_cross_entropy
from gradlab._files import HEADER, read_npz, write_npz
from gradlab.analysis import gradient_flow, jacobians
from gradlab.backward import DEFAULT_KEEP, KEEP
from gradlab.errors import FormatError, GradlabError, ResourceRefused, ValueRangeError
from gradlab.record import SERIES, LayerRecord, Record

KINDS = ["plain", "ensemble", "complex128", "float32"]


def setting(cell, kind="plain", layers=2):
    rng = np.random.default_rng(3)
    net = Network(cell, 2, 3, output_size=2, num_layers=layers)
    params, x, targets = net.init(rng), rng.normal(size=(4, 5, 2)), rng.normal(size=(4, 5, 2))
    if kind == "ensemble":
        params["0.U"] = params["0.U"] * np.array([1.0, -0.5]).reshape(2, 1, 1)
    if kind == "complex128":
        params = {k: v + 1e-30j for k, v in params.items()}
    if kind == "float32":
        params, x, targets = (
            {k: v.astype(np.float32) for k, v in params.items()},
            x.astype(np.float32),
            targets.astype(np.float32),
        )
    return net, params, Batch(x, targets)


def same(a, b):
    """Every array bit for bit, every other entry equal."""
    assert a.status == b.status
    assert dict(a.provenance) == dict(b.provenance)
    assert (a.input_gradient is None) == (b.input_gradient is None)
    pairs = [(a.loss, b.loss), (a.outputs, b.outputs), (a.inputs, b.inputs)]
    if a.input_gradient is not None:
        pairs.append((a.input_gradient, b.input_gradient))
    assert list(a.gradients) == list(b.gradients)
    pairs += [(a.gradients[k], b.gradients[k]) for k in a.gradients]
    assert list(a.layers) == list(b.layers)
    for name in a.layers:
        ours, theirs = a.layers[name], b.layers[name]
        assert dict(ours.parts) == dict(theirs.parts)
        assert list(ours.gates) == list(theirs.gates)
        pairs += [(ours.gates[g], theirs.gates[g]) for g in ours.gates]
        for series in SERIES:
            one, other = getattr(ours, series), getattr(theirs, series)
            assert (one is None) == (other is None), series
            if one is not None:
                pairs.append((one, other))
    for one, other in pairs:
        np.testing.assert_array_equal(one, other, strict=True)
    return len(pairs)


@pytest.mark.parametrize("keep", [DEFAULT_KEEP, KEEP, ()], ids=["default", "everything", "nothing"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cell", [Elman("tanh"), LSTM()], ids=repr)
def test_a_saved_record_comes_back_bit_for_bit(cell, kind, keep, tmp_path):
    net, params, batch = setting(cell, kind)
    record = bptt(net, params, batch, mean_squared_error, keep, provenance={"seed": 7, "note": "λ"})
    record.save(tmp_path / "r.npz")
    back = Record.load(tmp_path / "r.npz")
    assert same(record, back) >= 3 + len(params)
    assert back.provenance["seed"] == 7


def test_equal_records_are_equal_files(tmp_path):
    net, params, batch = setting(LSTM())
    for name in ("a", "b"):
        bptt(net, params, batch, mean_squared_error, KEEP).save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_loaded_record_serves_every_analysis(tmp_path):
    net, params, batch = setting(LSTM())
    record = bptt(net, params, batch, mean_squared_error, KEEP)
    record.save(tmp_path / "r.npz")
    back = Record.load(tmp_path / "r.npz")
    np.testing.assert_array_equal(gradient_flow(back).log_total["1/c"], gradient_flow(record).log_total["1/c"])
    np.testing.assert_array_equal(np.stack(list(jacobians(net, params, back))), np.stack(list(jacobians(net, params, record))))


def test_an_overflow_is_still_known_after_loading(tmp_path):
    net = Network(Elman("relu"), 1, 1)
    params = {"0.W": np.ones((1, 1)), "0.U": np.full((1, 1), 1e200), "0.b": np.ones(1)}
    record = bptt(net, params, Batch(np.ones((5, 1, 1)), np.zeros((5, 1, 1))), mean_squared_error)
    record.save(tmp_path / "r.npz")
    back = Record.load(tmp_path / "r.npz")
    assert back.status.code == "overflow"
    same(record, back)


def test_a_record_of_vanished_gradients_over_a_long_sequence_comes_back(tmp_path):
    # With the loss at the last step the immediate partials are zero in all rows but one: 70 MB that deflate to nothing.
    T, S = 2200, 4000
    layer = LayerRecord(parts={"h": (0, S)}, immediate=np.zeros((T + 1, 1, S)))
    record = Record(np.zeros(()), np.zeros((1, 1)), {}, {"0": layer}, np.zeros((T, 1, 1)))
    record.save(tmp_path / "r.npz")
    np.testing.assert_array_equal(Record.load(tmp_path / "r.npz").layers["0"].series("immediate"), layer.immediate)


def test_provenance_may_hold_numpy_numbers(tmp_path):
    net, params, batch = setting(Elman())
    record = bptt(net, params, batch, mean_squared_error, provenance={"seed": np.int64(7), "gain": np.float64(1.5)})
    record.save(tmp_path / "r.npz")
    assert Record.load(tmp_path / "r.npz").provenance["seed"] == 7


# ---- series -----------------------------------------------------------------------------------------------


def test_series_gives_the_columns_of_one_part():
    net, params, batch = setting(LSTM())
    layer = bptt(net, params, batch, mean_squared_error, KEEP).layers["1"]
    for name in ("states", "immediate", "adjoints"):
        whole = layer.series(name)
        np.testing.assert_array_equal(layer.series(name, "c"), whole[..., :3])
        np.testing.assert_array_equal(layer.series(name, "h"), whole[..., 3:])
    # h = o tanh(c): the parts are what their names say.
    np.testing.assert_allclose(
        layer.series("states", "h")[1:], layer.gates["o"] * np.tanh(layer.series("states", "c")[1:]), rtol=1e-15
    )  # one product, rounded twice


@pytest.mark.parametrize(
    ("name", "part", "message"),
    [
        ("jacobians", None, r'jacobians was not kept; expected a record made with keep=\(\.\.\., "jacobians"\)'),
        ("velocity", None, "name is 'velocity'; expected one of states, immediate, adjoints, jacobians"),
        ("gates", None, "name is 'gates'; expected one of"),
        ("states", "z", "part is 'z'; expected one of c, h"),
        ("states", "0", "part is '0'"),
    ],
)
def test_series_refuses_what_is_not_there_by_name(name, part, message):
    net, params, batch = setting(LSTM())
    layer = bptt(net, params, batch, mean_squared_error).layers["0"]
    with pytest.raises(ValueRangeError, match=message):
        layer.series(name, part)


def test_a_jacobian_has_no_single_part():
    net, params, batch = setting(LSTM())
    layer = bptt(net, params, batch, mean_squared_error, KEEP).layers["0"]
    with pytest.raises(ValueRangeError, match="part is 'h'; Jacobians belong to the full state"):
        layer.series("jacobians", "h")


# ---- aliasing ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", [Elman("tanh"), Elman("linear"), LSTM()], ids=repr)
@pytest.mark.parametrize("output_size", [None, 2])
def test_what_is_written_into_a_record_changes_no_later_result_and_no_input(cell, output_size):
    rng = np.random.default_rng(0)
    net = Network(cell, 2, 2, output_size=output_size)
    params, x, targets = net.init(rng), rng.normal(size=(4, 3, 2)), rng.normal(size=(4, 3, 2))
    initial = {"0": rng.normal(size=(3, net.layers[0].state_size))}
    before = {k: v.copy() for k, v in params.items()}
    x_before, targets_before, initial_before = x.copy(), targets.copy(), initial["0"].copy()
    first = bptt(net, params, Batch(x, targets), mean_squared_error, KEEP, initial_states=initial)
    second = bptt(net, params, Batch(x, targets), mean_squared_error, KEEP, initial_states=initial)
    layer = first.layers["0"]
    for array in (first.outputs, first.input_gradient, *first.gradients.values(), *layer.gates.values()):
        array[...] = 0.0
    for series in SERIES:
        layer.series(series)[...] = 0.0
    third = bptt(net, params, Batch(x, targets), mean_squared_error, KEEP, initial_states=initial)
    same(second, third)
    for key, value in params.items():
        np.testing.assert_array_equal(value, before[key])
    np.testing.assert_array_equal(x, x_before)
    np.testing.assert_array_equal(targets, targets_before)
    np.testing.assert_array_equal(initial["0"], initial_before)


def test_the_inputs_of_a_record_are_a_read_only_view():
    net, params, batch = setting(Elman())
    record = bptt(net, params, batch, mean_squared_error)
    assert np.shares_memory(record.inputs, batch.inputs)
    with pytest.raises(ValueError, match="read-only"):
        record.inputs[0, 0, 0] = 1.0
    assert batch.inputs.flags.writeable


def test_the_states_of_a_forward_pass_are_its_own():
    net, params, batch = setting(Elman("linear"), layers=1)
    run = forward(net, params, batch.inputs)
    run.states["0"][...] = 0.0
    assert forward(net, params, batch.inputs).states["0"].any()


# ---- files that are no records ----------------------------------------------------------------------------


def saved(tmp_path):
    net, params, batch = setting(LSTM(), layers=1)
    bptt(net, params, batch, mean_squared_error, KEEP).save(tmp_path / "r.npz")
    return tmp_path / "r.npz"


def test_another_schema_and_another_kind_are_refused_with_what_was_found(tmp_path):
    header, arrays = read_npz(saved(tmp_path))
    for change, message in (
        ({"schema": 2}, "schema 2; expected 'gradlab.Record', schema 1"),
        ({"schema": "1"}, "schema '1'"),
        ({"kind": "other"}, "kind 'other'"),
        ({"kind": None}, "kind None"),
    ):
        write_npz(tmp_path / "w.npz", header | change, arrays)
        with pytest.raises(FormatError, match=message):
            Record.load(tmp_path / "w.npz")


def test_an_archive_of_something_else_is_refused(tmp_path):
    write_npz(tmp_path / "w.npz", {"a": 1}, {"loss": np.zeros(())})
    with pytest.raises(FormatError, match=r"w\.npz': kind None, schema None; expected 'gradlab\.Record', schema 1"):
        Record.load(tmp_path / "w.npz")


@pytest.mark.parametrize("member", ["loss", "outputs", "inputs"])
def test_a_missing_member_is_refused_by_name(member, tmp_path):
    header, arrays = read_npz(saved(tmp_path))
    del arrays[member]
    write_npz(tmp_path / "w.npz", header, arrays)
    with pytest.raises(FormatError, match=rf"w\.npz'.*{member}"):
        Record.load(tmp_path / "w.npz")


@pytest.mark.parametrize(
    "change",
    [
        {"layers": None},
        {"layers": []},
        {"layers": 5},
        {"layers": {"0": None}},
        {"layers": {"0": {}}},
        {"layers": {"0": {"parts": 5}}},
        {"layers": {"0": {"parts": {"h": 5}}}},
        {"layers": {"0": {"parts": {"h": []}}}},
        {"layers": {"0": {"parts": {"h": [0]}}}},
        {"layers": {"0": {"parts": {"h": ["a", "b"]}}}},
        {"layers": {"0": {"parts": {"h": [0, 10**400]}}}},
        {"layers": {"0": {"parts": {"h": [None, 3]}}}},
        {"status": "ok"},
        {"status": []},
        {"status": None},
        {"provenance": 5},
        {"provenance": None},
    ],
    ids=lambda c: json.dumps(c)[:40],
)
def test_a_malformed_header_entry_is_refused(change, tmp_path):
    header, arrays = read_npz(saved(tmp_path))
    write_npz(tmp_path / "w.npz", header | change, arrays)
    with pytest.raises(FormatError, match=r"w\.npz"):
        Record.load(tmp_path / "w.npz")


def test_a_number_beyond_floats_in_the_parts_is_refused(tmp_path):
    header, arrays = read_npz(saved(tmp_path))
    header["layers"]["0"]["parts"] = {"h": [0, 5]}
    with zipfile.ZipFile(tmp_path / "w.npz", "w") as archive:
        archive.writestr(HEADER, json.dumps(header).replace('"h": [0, 5]', '"h": [0, 1e999]'))
        for name, array in arrays.items():
            buffer = io.BytesIO()
            np.save(buffer, array, allow_pickle=False)
            archive.writestr(f"{name}.npy", buffer.getvalue())
    with pytest.raises(FormatError, match=r"w\.npz"):
        Record.load(tmp_path / "w.npz")


@pytest.mark.parametrize("span", [[0, 99], [4, 2], [-3, 3]])
def test_parts_that_do_not_fit_the_state_are_refused(span, tmp_path):
    header, arrays = read_npz(saved(tmp_path))
    header["layers"]["0"]["parts"]["c"] = span
    write_npz(tmp_path / "w.npz", header, arrays)
    with pytest.raises(FormatError, match=r"w\.npz"):
        Record.load(tmp_path / "w.npz")


def test_a_record_beyond_max_memory_is_refused(tmp_path):
    path = saved(tmp_path)
    with pytest.raises(ResourceRefused, match=r"r\.npz' holds .* the limit is"):
        Record.load(path, max_memory=100)


def test_a_missing_record_and_a_cut_one_are_refused(tmp_path):
    path = saved(tmp_path)
    path.write_bytes(path.read_bytes()[:-1])
    for name in ("r.npz", "missing.npz"):
        with pytest.raises(GradlabError, match=name):
            Record.load(tmp_path / name)


def test_a_record_with_integer_targets_keeps_its_losses(tmp_path):
    net, params, batch = setting(Elman())
    labels = np.random.default_rng(0).integers(0, 2, (4, 5))
    record = bptt(net, params, Batch(batch.inputs, labels), softmax_cross_entropy)
    record.save(tmp_path / "r.npz")
    assert Record.load(tmp_path / "r.npz").loss == record.loss
