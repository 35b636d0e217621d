"""The monitor: what it says is what happened, in bounded memory, readable at any time, with anybody's loop."""

import json
import os

import numpy as np
import pytest
from training.problems import neuron, run, setting

from gradlab import GRU, LSTM, Batch, Elman, Network, bptt, mean_squared_error
from gradlab.analysis import gate_saturation
from gradlab.errors import FormatError, GradlabError, ShapeError
from gradlab.training import Adam, ByNorm, Monitor, jumps, probes


def test_each_update_is_noted_as_it_was_made():
    net, params, sample = setting(LSTM())
    monitor = Monitor()
    found = run(net, params, sample, 8, clip=ByNorm(0.05), learning_rate=0.3, monitor=monitor, keep_path=True)
    np.testing.assert_array_equal(monitor.series("loss")[0], np.arange(8))
    np.testing.assert_array_equal(monitor.series("loss")[1], found.loss)
    np.testing.assert_array_equal(monitor.series("gradient_norm")[1], found.gradient_norm)
    np.testing.assert_array_equal(monitor.series("was_clipped")[1], found.clipped)
    np.testing.assert_array_equal(monitor.series("learning_rate")[1], 0.3)
    rng, total = np.random.default_rng(3), np.zeros(8)
    for k in range(8):
        own = {key: value[k] for key, value in found.path.items()}
        record = bptt(net, own, sample(rng), mean_squared_error)
        for key in params:
            norm = np.linalg.norm(record.gradients[key])
            after = monitor.series(f"clipped/{key}")[1][k]
            total[k] += after**2
            assert monitor.series(f"gradient/{key}")[1][k] == pytest.approx(norm, rel=1e-12)
            change = np.linalg.norm(found.path[key][k + 1] - own[key])
            assert change == pytest.approx(0.3 * after, rel=1e-9)  # a difference of parameters
            if np.linalg.norm(own[key]):
                assert monitor.series(f"ratio/{key}")[1][k] == pytest.approx(change / np.linalg.norm(own[key]), rel=1e-9)
    np.testing.assert_allclose(np.sqrt(total), np.minimum(found.gradient_norm, 0.05), rtol=1e-12)


@pytest.mark.parametrize("cell", [Elman("tanh"), LSTM(), GRU()], ids=repr)
@pytest.mark.parametrize("E", [None, 3])
def test_every_few_updates_the_adjoints_and_gates_are_looked_at(cell, E):
    net, params, sample = setting(cell, E=E)
    monitor = Monitor(every=4)
    found = run(net, params, sample, 9, monitor=monitor, keep_path=True, learning_rate=0.1)
    updates, logs = monitor.series("adjoint/0")
    np.testing.assert_array_equal(updates, [0, 4, 8])
    rng = np.random.default_rng(3)
    batches = [sample(rng) for _ in range(9)]
    for row, k in enumerate((0, 4, 8)):
        record = bptt(net, {key: value[k] for key, value in found.path.items()}, batches[k], mean_squared_error)
        adjoints = record.layers["0"].adjoints  # (T+1, *E, B, S)
        expected = np.sqrt((adjoints**2).sum(axis=-1).mean(axis=-1))
        np.testing.assert_allclose(np.exp(logs[row]), np.moveaxis(expected, 0, -1), rtol=1e-9, atol=1e-300)
        if record.layers["0"].gates:
            told = gate_saturation(record)
            for gate in record.layers["0"].gates:
                share = told.left_share[f"0/{gate}"] + told.right_share[f"0/{gate}"]
                np.testing.assert_allclose(monitor.series(f"saturated/0/{gate}")[1][row], share, rtol=1e-12)


def test_padding_has_no_part_in_what_is_looked_at():
    net, params, _ = setting(LSTM())
    rng = np.random.default_rng(1)
    x, target = rng.normal(size=(9, 2, 2)), rng.normal(size=(2, 1))
    padded = np.concatenate([x, np.full((4, 2, 2), np.nan)])
    lengths = np.array([9, 9])
    short, long = Monitor(), Monitor()
    for monitor, inputs, given in ((short, x, None), (long, padded, lengths)):
        batch = Batch(inputs, target, lengths=given)
        monitor.record(0, loss=0.0, record=bptt(net, params, batch, mean_squared_error))
    for name in ("saturated/0/i", "saturated/0/g"):
        np.testing.assert_allclose(long.series(name)[1], short.series(name)[1], rtol=1e-12)
    np.testing.assert_allclose(long.series("adjoint/0")[1][0, :10], short.series("adjoint/0")[1][0], rtol=1e-12)


def test_vanished_gradients_are_told_from_zero():
    # A linear unit with weight 1e-60: dL/dh_t shrinks by 60 decades a step, far below the smallest float of a square.
    net = Network(Elman("linear"), 1, 1, readout="last")
    params = {"0.W": np.ones((1, 1)), "0.U": np.full((1, 1), 1e-60), "0.b": np.zeros(1)}
    record = bptt(net, params, Batch(np.ones((6, 1, 1)), np.zeros((1, 1))), mean_squared_error)
    monitor = Monitor()
    monitor.record(0, loss=0.0, record=record)
    logs = monitor.series("adjoint/0")[1][0]
    np.testing.assert_allclose(np.diff(logs[2:]), 60.0 * np.log(10.0), rtol=1e-12)
    assert logs[0] == -np.inf  # 1e-360: no float


def test_memory_is_bounded_over_many_updates_and_the_run_is_covered_evenly():
    monitor = Monitor(every=2, capacity=64)
    for update in range(20_000):
        monitor.record(update, loss=np.full(3, update), adjoint_norms={"0": np.ones((3, 11))})
    for name, most in (("loss", 64), ("adjoint/0", 16)):
        updates = monitor.series(name)[0]
        assert most / 2 <= len(updates) <= most
        assert len(set(np.diff(updates))) == 1  # evenly
        assert updates[0] == 0
        assert updates[-1] >= 20_000 - 2 * np.diff(updates)[0]
    np.testing.assert_array_equal(monitor.series("loss")[1][:, 0], monitor.series("loss")[0])
    held = sum(memory.nbytes for rows in (monitor._light, monitor._deep) for memory in rows._values.values())
    assert held <= 8 * (64 * 3 + 16 * 33)


def test_bytes_are_bounded_where_rows_are_large():
    monitor = Monitor(every=1, max_bytes=10**6)
    for update in range(500):
        monitor.record(update, loss=0.0, adjoint_norms={"0": np.ones(10_000)})
    assert len(monitor.series("adjoint/0")[0]) <= 12  # 80 kB each
    assert sum(memory.nbytes for memory in monitor._deep._values.values()) <= 10**6


@pytest.mark.parametrize("spacing", [1, 3, 10])
def test_a_loop_that_records_now_and_then_is_thinned_evenly_too(spacing):
    monitor = Monitor(capacity=16)
    for update in range(5, 5 + 1000 * spacing, spacing):
        monitor.record(update, loss=1.0)
    updates = monitor.series("loss")[0]
    assert 8 <= len(updates) <= 16
    assert len(set(np.diff(updates))) == 1


def test_files_are_whole_at_any_time_and_say_what_memory_says(tmp_path):
    monitor = Monitor(tmp_path / "run.v2", every=2, flush_seconds=0.0)  # a dot in the name belongs to it
    for update in range(7):
        monitor.record(update, loss=1.0 / (update + 1), gradients={"w": np.ones(3)}, adjoint_norms={"0": np.ones(4)})
        read = Monitor.load(tmp_path / "run.v2.npz")
        assert read.names == monitor.names
        for name in read.names:
            for a, b in zip(read.series(name), monitor.series(name), strict=True):
                np.testing.assert_array_equal(a, b, strict=True)
        assert json.loads((tmp_path / "run.v2.json").read_text())["updates"] == update + 1
    assert sorted(os.listdir(tmp_path)) == ["run.v2.json", "run.v2.npz"]


def test_non_finite_numbers_are_null_in_json_and_themselves_in_the_arrays(tmp_path):
    monitor = Monitor(tmp_path / "m")
    for update, loss in enumerate([1.0, np.inf, np.nan]):
        monitor.record(update, loss=loss, gradients={"w": np.array([np.nan, 1.0])})
    monitor.flush()
    summary = json.loads((tmp_path / "m.json").read_text(), parse_constant=lambda text: pytest.fail(text))
    assert summary["loss_last"] is None
    assert summary["loss_first"] == 1.0
    assert summary["not_finite"] == 2
    np.testing.assert_array_equal(Monitor.load(tmp_path / "m").series("loss")[1], [1.0, np.inf, np.nan])
    assert np.isnan(monitor.series("gradient/w")[1]).all()


def test_an_update_recorded_again_replaces_it_and_what_came_after(tmp_path):
    first = Monitor(tmp_path / "m", every=2, flush_seconds=0.0)
    for update in range(10):
        first.record(update, loss=float(update), adjoint_norms={"0": np.ones(2)})
    again = Monitor(tmp_path / "m", every=2, flush_seconds=0.0)
    again.record(5, loss=-5.0)
    again.record(6, loss=-6.0, adjoint_norms={"0": np.ones(2)})
    np.testing.assert_array_equal(again.series("loss")[1], [0, 1, 2, 3, 4, -5, -6])
    np.testing.assert_array_equal(again.series("adjoint/0")[0], [0, 2, 4, 6])
    fresh = Monitor(tmp_path / "m")
    fresh.record(0, loss=7.0, other=1.0)  # a new run, of another kind
    np.testing.assert_array_equal(fresh.series("loss")[1], [7.0])
    assert "other" in fresh.names


def test_a_resumed_history_is_thinned_like_an_undisturbed_one(tmp_path):
    whole = Monitor(capacity=16)
    for update in range(200):
        whole.record(update, loss=float(update))
    for first, last in ((0, 95), (80, 200)):
        part = Monitor(tmp_path / "m", capacity=16)
        for update in range(first, last):
            part.record(update, loss=float(update))
        part.flush()
    np.testing.assert_array_equal(part.series("loss")[0], whole.series("loss")[0])


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x05\x06" + bytes(18)])
def test_a_file_of_another_kind_is_neither_read_nor_written_over(content, tmp_path):
    (tmp_path / "m.npz").write_bytes(content)
    for read in (Monitor, Monitor.load):
        with pytest.raises(FormatError, match=r"m\.npz"):
            read(tmp_path / "m")
    assert (tmp_path / "m.npz").read_bytes() == content
    with pytest.raises(FormatError, match="no such regular file"):
        Monitor.load(tmp_path / "none")


@pytest.mark.peer
def test_a_torch_loop_can_call_it():
    torch = pytest.importorskip("torch", reason="torch is not installed: pip install torch==2.13.0")
    torch.manual_seed(0)
    module = torch.nn.LSTM(2, 4)  # float32, with gradients required
    optimiser = torch.optim.SGD(module.parameters(), lr=0.5)
    x, target = torch.randn(6, 3, 2), torch.randn(6, 3, 4)
    monitor = Monitor(every=1)
    norms, changes = [], []
    for update in range(5):
        optimiser.zero_grad()
        loss = torch.nn.functional.mse_loss(module(x)[0], target)
        loss.backward()
        before = {name: p.grad.clone() for name, p in module.named_parameters()}
        old = module.weight_hh_l0.detach().clone()
        total = torch.nn.utils.clip_grad_norm_(module.parameters(), 0.02)
        optimiser.step()
        monitor.record(
            update,
            loss=loss,
            gradients=before,
            clipped={name: p.grad for name, p in module.named_parameters()},
            gradient_norm=total,
            new_params=dict(module.named_parameters()),
            learning_rate=0.5,
        )
        norms.append(before["weight_hh_l0"].norm().item())
        changes.append(((module.weight_hh_l0 - old).norm() / old.norm()).item())
    np.testing.assert_allclose(monitor.series("gradient/weight_hh_l0")[1], norms, rtol=1e-6)  # float32
    np.testing.assert_array_equal(monitor.series("was_clipped")[1], 1.0)
    ratio = monitor.series("ratio/weight_hh_l0")[1]
    assert ratio[0] == 0.0  # nothing to compare the first with
    np.testing.assert_allclose(ratio[1:], changes[1:], rtol=1e-4)  # a difference of float32 parameters
    assert all(p.requires_grad for p in module.parameters())


def test_records_of_unequal_kinds_are_refused_with_what_differs():
    monitor = Monitor()
    monitor.record(0, loss=1.0, gradients={"a": np.ones(2)})
    with pytest.raises(ShapeError, match=r"update 1: gradient/a differ"):
        monitor.record(1, loss=1.0)
    with pytest.raises(ShapeError, match=r"update 1: gradient/a, loss differ|update 1: loss, gradient/a differ"):
        monitor.record(1, loss=np.ones(2), gradients={"a": np.ones((2, 2))})
    assert len(monitor.series("loss")[0]) == 1


BAD = {
    "every": [0, -1, 2.5, "3", True],
    "capacity": [0, 3, 10.0],
    "max_bytes": [0, "1"],
    "flush_seconds": [-1.0, np.nan, "5"],
    "probes": [[], {"a": 3}],
    "path": [3, 1.5],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in BAD.items() for value in values], ids=repr)
def test_a_wrong_argument_is_refused_by_name(name, value):
    with pytest.raises(GradlabError, match=rf"^{name}.* is .*; expected"):
        Monitor(**{name: value})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "low"}, "loss is a str"),
        ({"loss": 1.0, "gradients": {"w": None}}, r"gradient\['w'\] is a NoneType"),
        ({"loss": 1.0, "params": {"w": object()}}, r"params\['w'\] is a object"),
        ({"loss": 1j}, "loss is a complex"),
    ],
)
def test_what_is_no_number_is_refused_by_name(options, message):
    with pytest.raises(GradlabError, match=message):
        Monitor().record(0, **options)
    with pytest.raises(GradlabError, match="update is -1; expected an integer >= 0"):
        Monitor().record(-1, loss=0.0)


def test_a_name_that_was_not_kept_is_refused_with_those_that_were():
    monitor = Monitor()
    with pytest.raises(GradlabError, match="nothing was recorded yet"):
        monitor.series("loss")
    monitor.record(0, loss=1.0)
    with pytest.raises(GradlabError, match="name is 'los'; expected one of loss"):
        monitor.series("los")


def test_probes_measure_what_is_known_of_an_orthogonal_linear_net():
    net = Network(Elman("linear"), 2, 4, output_size=1, readout="last")
    rng = np.random.default_rng(0)
    params = net.init(rng)
    params["0.U"] = 1.2 * np.linalg.qr(rng.normal(size=(4, 4)))[0]
    batch = Batch(rng.normal(size=(30, 3, 2)), rng.normal(size=(3, 1)))
    monitor = Monitor(probes={"radius": probes.spectral_radius(net), "exponent": probes.leading_exponent(net)})
    run(net, params, batch, 1, monitor=monitor)
    assert monitor.series("probe/radius")[1][0] == pytest.approx(1.2, rel=1e-12)
    assert monitor.series("probe/exponent")[1][0] == pytest.approx(np.log(1.2), rel=1e-9)


def test_probes_have_a_value_for_each_member():
    net, params, sample = setting(LSTM(), E=3, length=150)
    monitor = Monitor(every=1, probes={"radius": probes.spectral_radius(net), "exponent": probes.leading_exponent(net)})
    run(net, params, sample, 1, monitor=monitor)
    for e in range(3):
        alone = Monitor(every=1, probes={"radius": probes.spectral_radius(net), "exponent": probes.leading_exponent(net)})
        run(net, {k: v[e] for k, v in params.items()}, sample, 1, monitor=alone)
        (_, own), (_, lone) = monitor.series("probe/radius"), alone.series("probe/radius")
        assert own[0, e] == pytest.approx(lone[0], rel=1e-9)
        (_, own), (_, lone) = monitor.series("probe/exponent"), alone.series("probe/exponent")
        # Another tangent vector to start with: what is left of it after 150 steps, in nats per step.
        assert own[0, e] == pytest.approx(lone[0], abs=0.05)


def test_the_sharpness_of_a_quadratic_is_its_curvature():
    net, params, batch = neuron()
    monitor = Monitor(probes={"sharpness": probes.sharpness(net, batch, mean_squared_error)})
    run(net, params, batch, 1, monitor=monitor)
    # dL/db_y twice: 2. Along V and b nothing at zero, but the cross term d2L/dV db = 2 (V h + b_y - 3) = -6 has eigenvalue 6.
    assert monitor.series("probe/sharpness")[1][0] == pytest.approx(6.0, rel=1e-3)


def test_a_probe_of_a_layer_that_is_not_there_is_refused():
    net = setting(LSTM())[0]
    with pytest.raises(GradlabError, match="layer is '7'; expected one of 0"):
        probes.spectral_radius(net, "7")


def test_jumps_are_found_where_the_loss_jumps_and_nowhere_else():
    rng = np.random.default_rng(0)
    losses = np.exp(-np.arange(300) / 100.0) * (1.0 + 0.02 * rng.normal(size=300))
    losses[[70, 200]] *= 3.0
    losses[250] = np.nan
    np.testing.assert_array_equal(np.flatnonzero(jumps(losses)), [70, 200, 250])
    both = np.stack([losses, np.ones(300)], axis=1)
    np.testing.assert_array_equal(jumps(both)[:, 0], jumps(losses))
    assert not jumps(both)[:, 1].any()


def test_the_run_of_a_monitored_net_is_that_of_an_unmonitored_one():
    net, params, sample = setting(LSTM())
    one, other = (run(net, params, sample, 30, optimiser=Adam(), monitor=m) for m in (None, Monitor(every=1)))
    for key in params:
        np.testing.assert_array_equal(one.params[key], other.params[key])


def test_a_loss_that_nobody_knows_is_left_out_and_not_called_not_finite():
    monitor = Monitor()
    for update in range(3):
        monitor.record(update, gradients={"U": np.ones((2, 2))})
    assert "loss" not in monitor.names
    assert "not_finite" not in monitor.summary()
    np.testing.assert_array_equal(monitor.series("gradient/U")[1], 2.0)
