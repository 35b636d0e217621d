"""`watch`: what is refused by name, and replays that a proof must not pass."""

import dataclasses

import numpy as np
import pytest

from gradlab.adapters import watch, watch_job
from gradlab.adapters.watch_call import require_cpu
from gradlab.adapters.watch_proof import explained
from gradlab.errors import DTypeError, NumericalError, ValueRangeError

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'gradlab[torch]'")
pytestmark = pytest.mark.peer


def noise(*shape, seed=1, dtype=torch.float64):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape)).to(dtype)


def fresh(kind, *sizes, dtype=torch.float64, gain=None, seed=0, **options):
    """A module; `gain`: recurrent weights normal with that spectral radius."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = getattr(torch.nn, kind)(*sizes, **options).to(dtype)
        if gain is not None:
            with torch.no_grad():
                for name, weight in module.named_parameters():
                    if "weight_hh" in name:
                        weight.normal_(0.0, gain / weight.shape[1] ** 0.5)
    return module


def look(module, x, *, warns=False):
    """One update; the watch."""
    seen = watch(module)
    if warns:
        with pytest.warns(RuntimeWarning, match=r"gradlab\.adapters\.watch"), seen:
            module(x)[0][-1].sum().backward()
    else:
        with seen:
            module(x)[0][-1].sum().backward()
    return seen


# ---- sensitive dependence ------------------------------------------------------------------------------

CHAOTIC = {
    "tanh, float32": ("RNN", 200, 3.0, torch.float32, {}),
    "tanh, float64": ("RNN", 300, 3.0, torch.float64, {}),
    "LSTM, float32": ("LSTM", 300, 12.0, torch.float32, {}),
    "GRU, float64": ("GRU", 500, 12.0, torch.float64, {}),
    "two bidirectional levels": ("RNN", 150, 3.0, torch.float32, {"num_layers": 2, "bidirectional": True}),
}


@pytest.mark.parametrize("case", CHAOTIC)
def test_a_chaotic_network_comes_out_ill_conditioned_with_every_single_step_proved(case):
    kind, T, gain, dtype, options = CHAOTIC[case]
    one = look(fresh(kind, 5, 40, dtype=dtype, gain=gain, **options), noise(T, 3, 5, dtype=dtype))["model"]
    proof = one.proof
    assert proof.verdict == "ill-conditioned"
    assert proof.deviations["outputs"] > 0.1  # nothing in common after T steps
    assert proof.precisions["outputs"] > 0.1  # nor have two replays
    assert max(proof.steps.values()) <= proof.limit
    layers = one.record.layers
    assert set(proof.steps) >= {f"{name} {what}" for name in layers for what in ("state", "adjoint")}
    assert ("0 seen" in proof.steps) is (len(layers) == 1)
    assert "ill-conditioned" in str(one)
    assert "single steps" in str(one)


def test_the_same_network_at_the_edge_of_stability_is_proved():
    one = look(fresh("RNN", 5, 40, dtype=torch.float32, gain=0.9), noise(200, 3, 5, dtype=torch.float32))["model"]
    assert one.proof.verdict == "proved"
    assert one.proof.worst <= 1e-5


@pytest.mark.parametrize("seed", [0, 1])
def test_rounding_that_grows_but_leaves_common_digits_is_told_from_a_wrong_replay(seed):
    one = look(fresh("RNN", 5, 40, dtype=torch.float32, gain=1.5, seed=seed), noise(200, 3, 5, dtype=torch.float32))["model"]
    assert one.proof.verdict == "ill-conditioned"
    assert one.proof.worst > 1e-5
    assert max(one.proof.precisions.values()) < 1e-2


def test_what_rounding_explains_is_ten_times_the_gap_of_two_precisions_on_the_scale_of_the_finer_one():
    assert explained(9e-4, {"outputs": 1e-4, "h_n": 0.0}, np.dtype(np.float32))
    assert not explained(2e-3, {"outputs": 1e-4}, np.dtype(np.float32))
    # 2**-29 is the ratio of the two roundings
    assert explained(9e-3 * 2.0**-29, {"outputs": 1e-3}, np.dtype(np.float64))
    assert not explained(2e-2 * 2.0**-29, {"outputs": 1e-3}, np.dtype(np.float64))


# ---- replays that are wrong ------------------------------------------------------------------------------


def broken(monkeypatch, change):
    """A replay that computes something else: `change` of what it starts from."""
    sequence = watch_job.replay
    monkeypatch.setattr(watch_job, "replay", lambda call, *rest: sequence(change(call), *rest))


def scaled_state(call):
    return dataclasses.replace(call, dy=1.001 * call.dy)


def swapped_gates(call):
    """i and f of an LSTM in each other's place: same shapes, plausible numbers."""

    def swap(value):
        i, f, g, o = np.split(value, 4)
        return np.concatenate([f, i, g, o])

    return dataclasses.replace(call, params={key: swap(value) for key, value in call.params.items()})


def one_step_late(call):
    return dataclasses.replace(call, x=np.roll(call.x, 1, axis=0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("change", [scaled_state, swapped_gates, one_step_late])
def test_a_wrong_replay_is_refused_with_numbers_and_the_training_goes_on(monkeypatch, change, dtype):
    broken(monkeypatch, change)
    module = fresh("LSTM", 3, 4, dtype=dtype)
    seen = look(module, noise(8, 2, 3, dtype=dtype), warns=True)
    assert module.weight_hh_l0.grad is not None
    with pytest.raises(NumericalError, match=r"weight_ih_l0 \d\.\de[-+]\d+ \(two precisions .* the replay is wrong"):
        _ = seen.results
    with pytest.raises(NumericalError, match="the replay is wrong"):
        _ = seen["model"]


@pytest.mark.parametrize("change", [swapped_gates, one_step_late])
def test_a_wrong_replay_of_a_chaotic_network_is_refused_by_its_single_steps(monkeypatch, change):
    broken(monkeypatch, change)
    module = fresh("LSTM", 5, 40, dtype=torch.float32, gain=12.0)
    with pytest.raises(NumericalError, match=r"single steps of 0 (state|seen)"):
        look(module, noise(300, 3, 5, dtype=torch.float32), warns=True).results  # noqa: B018


def test_an_error_of_this_tool_never_reaches_the_training_loop(monkeypatch):
    def fail(*rest):
        raise ZeroDivisionError("ours")

    monkeypatch.setattr(watch_job, "replay", fail)
    module = fresh("GRU", 3, 4)
    seen = look(module, noise(5, 2, 3), warns=True)
    assert module.weight_hh_l0.grad is not None
    with pytest.raises(ZeroDivisionError, match="ours"):
        _ = seen.results


# ---- what is refused by name -----------------------------------------------------------------------------


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing_is_refused_by_name(reentrant):
    module, x = fresh("GRU", 3, 4), noise(5, 2, 3).requires_grad_()
    with pytest.warns(RuntimeWarning, match="checkpoint"), watch(module) as seen:  # noqa: PT031
        y = torch.utils.checkpoint.checkpoint(lambda x: module(2.0 * x)[0], x, use_reentrant=reentrant)
        y.sum().backward()
    with pytest.raises(ValueRangeError, match=r"'model' is run again inside the backward pass.*checkpoint"):
        _ = seen.results


def test_compiled_and_wrapped_models_are_refused_by_name():
    module = torch.nn.Sequential(fresh("GRU", 3, 4))
    for wrapped, name in (
        (torch.compile(module, backend="eager"), "model is compiled by torch.compile"),
        (torch.nn.Sequential(torch.compile(module, backend="eager")), "0 is compiled by torch.compile"),
        (torch.nn.DataParallel(module), "DataParallel"),
    ):
        with pytest.raises(ValueRangeError, match=name):
            watch(wrapped)
    module[0].compile(backend="eager")
    with pytest.raises(ValueRangeError, match=r"0 is compiled by torch\.compile"):
        watch(module)


def test_autocast_and_half_precision_are_refused_by_name():
    module = fresh("LSTM", 3, 4, dtype=torch.float32)
    seen = watch(module)
    with pytest.warns(RuntimeWarning, match="half precision"), seen, torch.autocast("cpu", dtype=torch.bfloat16):
        module(noise(5, 2, 3, dtype=torch.float32))[0].float().sum().backward()
    with pytest.raises(DTypeError, match=r"output torch\.bfloat16"):
        _ = seen.results


def test_dropout_masks_of_another_device_are_refused_by_name():
    with pytest.raises(ValueRangeError, match=r"dropout=0\.5 between layers and runs on cuda:0"):
        require_cpu("encoder", torch.device("cuda:0"), 0.5)


def test_a_projected_layer_is_refused_with_the_names_of_the_others():
    model = torch.nn.ModuleDict({"a": torch.nn.LSTM(3, 4, proj_size=2), "b": torch.nn.GRU(3, 4)})
    with pytest.raises(ValueRangeError, match=r"a: .*proj_size=2.*only=\['b'\]"):
        watch(model)
    with watch(model, only=["b"]) as seen:
        model["b"](noise(5, 2, 3, dtype=torch.float32))[0].sum().backward()
    assert seen["b"].proof.verdict == "proved"


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"model": torch.nn.Linear(2, 2)}, ValueRangeError, "no recurrent layer"),
        ({"model": "lstm.pt"}, DTypeError, r"expected a torch\.nn\.Module"),
        ({"every": 0}, ValueRangeError, "every is 0"),
        ({"every": 2.0}, DTypeError, "every"),
        ({"history": 0}, ValueRangeError, "history"),
        ({"loss_scale": 0.0}, ValueRangeError, "loss_scale"),
        ({"keep": "states"}, ValueRangeError, "keep is 'states'"),
        ({"keep": ("sates",)}, ValueRangeError, "expected a sequence of names out of"),
        ({"monitor": 3}, DTypeError, r"monitor\.record"),
        ({"only": ["decoder"]}, ValueRangeError, "out of model"),
    ],
)
def test_bad_arguments_are_named_before_anything_runs(arguments, error, text):
    model = arguments.pop("model", None) or torch.nn.GRU(3, 4)
    with pytest.raises(error, match=text):
        watch(model, **arguments)


def test_one_watch_runs_once_at_a_time():
    seen = watch(fresh("GRU", 3, 4))
    with seen, pytest.raises(ValueRangeError, match="running already"), seen:
        pass


def test_a_compiled_function_around_a_cell_is_refused_by_name():
    cell = fresh("GRUCell", 3, 4)
    step = torch.compile(lambda x, h: cell(x, h).sum(), backend="eager")
    with pytest.warns(RuntimeWarning, match=r"torch\.compile"), watch(cell) as seen:
        step(noise(2, 3), noise(2, 4)).backward()
    with pytest.raises(ValueRangeError, match=r"called under torch\.compile"):
        _ = seen.results
