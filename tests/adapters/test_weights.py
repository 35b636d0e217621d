"""Weights files: what torch and Keras name is read as they compute it, what is ambiguous is asked for, and back."""

from itertools import product

import numpy as np
import pytest

import gradlab
from gradlab.adapters import Imported, load, save
from gradlab.errors import DTypeError, FormatError, ResourceRefused, ShapeError, UnsafeFileError, ValueRangeError

ENDINGS = (".npz", ".safetensors")


def network(cell, D=3, H=12, seed=0, **options):
    """An import of gradlab's own network with distinct random parameters."""
    rng = np.random.default_rng(seed)
    net = gradlab.Network(cell, D, H, **options)
    return Imported(net, {key: rng.normal(size=value.shape) for key, value in net.init(rng).items()}, "gradlab")


def assert_equal(found, wanted):
    assert repr(found.net) == repr(wanted.net)
    assert found.params.keys() == wanted.params.keys()
    for key, value in wanted.params.items():
        np.testing.assert_array_equal(found.params[key], value, strict=True)


# ---- there and back -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("cell", gradlab.cells.ALL, ids=repr)
def test_gradlabs_own_names_give_back_every_cell(cell, ending, tmp_path):
    path = tmp_path / f"w{ending}"
    for layers, both, outputs in ((1, False, None), (2, False, 3), (1, True, 3), (2, True, None)):
        own = network(cell, num_layers=layers, bidirectional=both, output_size=outputs)
        save(path, own)
        assert_equal(load(path, cell=cell, readout="every" if outputs else None), own)


EXPRESSED = [
    *(("torch", gradlab.Elman(name)) for name in ("tanh", "relu")),
    *(("keras", gradlab.Elman(name)) for name in gradlab.cells.activations.ALL),
    *product(("torch", "keras"), (gradlab.LSTM(), gradlab.GRU(reset="after"))),
    ("keras", gradlab.GRU(reset="before")),
]


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("prefix", ["", "encoder.rnn"])
@pytest.mark.parametrize(("layout", "cell"), EXPRESSED, ids=repr)
def test_other_namings_give_back_what_they_can_express(layout, cell, prefix, ending, tmp_path):
    path = tmp_path / f"w{ending}"
    told = {"nonlinearity": cell.activation.name} if isinstance(cell, gradlab.Elman) else {}
    for D, layers, both in ((3, 1, False), (12, 1, False), (3, 1, True), (3, 3, False), (3, 2, True)):
        own = network(cell, D, num_layers=layers, bidirectional=both)
        save(path, own, layout=layout, prefix=prefix)
        assert_equal(load(path, **told), own)
        assert_equal(load(path, layout, prefix=prefix, **told), own)


REFUSED = [
    ("torch", gradlab.Elman("sigmoid")),
    ("torch", gradlab.GRU(reset="before")),
    *product(
        ("torch", "keras"),
        [
            gradlab.LSTM(peepholes=True),
            gradlab.LSTM(coupled=True),
            gradlab.LSTM(forget_gate=False),
            gradlab.Clockwork((1, 2)),
            gradlab.Jordan(2),
            gradlab.SCRN(2),
        ],
    ),
]


@pytest.mark.parametrize(("layout", "cell"), REFUSED, ids=repr)
def test_what_a_framework_cannot_compute_is_not_written(layout, cell, tmp_path):
    with pytest.raises(ValueRangeError, match=f"{layout} has no layer that computes"):
        save(tmp_path / "w.npz", network(cell), layout=layout)
    assert list(tmp_path.iterdir()) == []


def test_a_read_out_and_ensembles_have_no_place_in_a_framework(tmp_path):
    with pytest.raises(ValueRangeError, match="no place for the read-out"):
        save(tmp_path / "w.npz", network(gradlab.LSTM(), output_size=2), layout="torch")
    one = network(gradlab.LSTM())
    many = Imported(one.net, {key: np.stack([value, 2 * value]) for key, value in one.params.items()}, "ensemble")
    with pytest.raises(ValueRangeError, match="ensemble axes"):
        save(tmp_path / "w.npz", many, layout="keras")
    save(tmp_path / "w.npz", many)
    assert_equal(load(tmp_path / "w.npz"), many)


@pytest.mark.parametrize("ending", ENDINGS)
def test_equal_parameters_give_equal_bytes(ending, tmp_path):
    own = network(gradlab.GRU())
    for name in "ab":
        save(tmp_path / f"{name}{ending}", own)
    assert (tmp_path / f"a{ending}").read_bytes() == (tmp_path / f"b{ending}").read_bytes()


def test_other_libraries_read_what_is_written(tmp_path):
    safetensors = pytest.importorskip("safetensors.numpy")
    own = network(gradlab.LSTM(peepholes=True))
    for ending in ENDINGS:
        save(tmp_path / f"w{ending}", own)
    with np.load(tmp_path / "w.npz", allow_pickle=False) as read:
        first = dict(read)
    for found in (first, safetensors.load_file(tmp_path / "w.safetensors")):
        assert found.keys() == own.params.keys()
        for key, value in own.params.items():
            np.testing.assert_array_equal(found[key], value)


# ---- against the frameworks ---------------------------------------------------------------------------------


@pytest.mark.peer
@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True}, {"bias": False}], ids=str)
@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU", "RNNCell", "LSTMCell", "GRUCell"])
def test_a_state_dict_of_torch_computes_what_torch_computes(kind, options, tmp_path):
    torch = pytest.importorskip("torch", reason="torch is not installed: pip install torch==2.13.0")
    if "Cell" in kind and "num_layers" in options:
        options = {}
    module = getattr(torch.nn, kind)(3, 4, **options).double()
    rng = np.random.default_rng(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.from_numpy(rng.normal(size=tuple(parameter.shape))))
    whole = torch.nn.ModuleDict({"embedding": torch.nn.Embedding(5, 3), "rnn": module})
    np.savez(tmp_path / "w.npz", **{key: value.numpy() for key, value in whole.state_dict().items()})
    imported = load(tmp_path / "w.npz", **({"nonlinearity": "tanh"} if kind.startswith("RNN") else {}))
    x = rng.normal(size=(1 if "Cell" in kind else 5, 2, 3))
    with torch.no_grad():
        theirs = module(torch.from_numpy(x[0] if "Cell" in kind else x))
    theirs = (theirs[0] if isinstance(theirs, tuple) else theirs).numpy()
    ours = gradlab.forward(imported.net, imported.params, x).outputs
    assert np.abs(ours - theirs).max() <= 1e-12 * np.abs(theirs).max()  # rounding of two float64 programs
    assert "1 other tensors of the file are not read" in imported.notes


# ---- what must be told --------------------------------------------------------------------------------------


def torch_names(G, D=3, H=4, prefix="", level=0, back="", seed=0):
    rng = np.random.default_rng(seed)
    shapes = {"weight_ih": (G * H, D), "weight_hh": (G * H, H), "bias_ih": (G * H,), "bias_hh": (G * H,)}
    return {f"{prefix}{key}_l{level}{back}": rng.normal(size=shape) for key, shape in shapes.items()}


def keras_names(G, D=3, H=4, prefix="", bias=None):
    rng = np.random.default_rng(0)
    found = {f"{prefix}kernel": rng.normal(size=(D, G * H)), f"{prefix}recurrent_kernel": rng.normal(size=(H, G * H))}
    return found | ({} if bias is None else {f"{prefix}bias": rng.normal(size=bias)})


@pytest.fixture
def file(tmp_path):
    def write(arrays, name="w.npz"):
        np.savez(tmp_path / "w.npz", **arrays)
        return (tmp_path / "w.npz").rename(tmp_path / name)

    return write


ASKED = [
    (torch_names(1), {}, "nonlinearity=: .*tanh.*relu"),
    (keras_names(1), {}, "nonlinearity="),
    (keras_names(3), {}, "reset='after' or 'before'"),
    (keras_names(3, bias=12), {"reset": "after"}, "are those of reset='before'"),
    (torch_names(3), {"reset": "before"}, "are those of reset='after'"),
    (torch_names(4), {"nonlinearity": "tanh"}, "holds a LSTM, which has none"),
    (torch_names(4), {"readout": "last"}, "torch naming has no read-out"),
    (torch_names(4), {"cell": gradlab.LSTM()}, "torch naming says the cell itself"),
    (torch_names(1), {"nonlinearity": "sigmoid"}, "nonlinearity is 'sigmoid'"),
    (torch_names(4), {"layout": "pytorch"}, "layout is 'pytorch'"),
    (torch_names(4), {"layout": "keras"}, "no recurrent network fits layout='keras'.*torch naming, prefix=''"),
    (torch_names(4, prefix="a.") | torch_names(4, prefix="b."), {}, "2 recurrent networks fit.*prefix='a'; .*prefix='b'"),
    (
        torch_names(4, prefix="a.") | keras_names(4, prefix="a."),
        {"prefix": "a"},
        "2 recurrent networks fit.*torch naming.*keras naming",
    ),
    (torch_names(4, prefix="a."), {"prefix": "c"}, "no recurrent network fits.*prefix='a'"),
]


@pytest.mark.parametrize(("arrays", "told", "message"), ASKED, ids=[message for *_, message in ASKED])
def test_what_the_file_does_not_say_is_asked_for_and_never_guessed(arrays, told, message, file):
    with pytest.raises(ValueRangeError, match=message):
        load(file(arrays), **told)


def own_names(cell, **options):
    return dict(network(cell, **options).params)


@pytest.mark.parametrize(
    ("cell", "told"),
    [
        (gradlab.Elman("relu"), {"nonlinearity": "relu"}),
        (gradlab.LSTM(), {}),
        (gradlab.LSTM(peepholes=True), {}),
        (gradlab.GRU(reset="after"), {}),
        (gradlab.GRU(reset="before"), {"reset": "before"}),
    ],
    ids=repr,
)
def test_gradlabs_letters_say_the_cell_where_only_one_has_them(cell, told, file):
    assert repr(load(file(own_names(cell)), **told).net.layers[0].cell) == repr(cell)


@pytest.mark.parametrize("cell", [gradlab.Elman(), gradlab.GRU(reset="before"), gradlab.LSTM(coupled=True), gradlab.SCRN(2)])
def test_gradlabs_letters_that_fit_several_cells_ask_for_the_cell(cell, file):
    with pytest.raises(ValueRangeError, match="fit several cells or none; give cell="):
        load(file(own_names(cell)))


def test_a_read_out_asks_for_its_kind(file):
    path = file(own_names(gradlab.LSTM(), output_size=2))
    with pytest.raises(ValueRangeError, match="readout='every' or 'last'"):
        load(path)
    assert load(path, readout="last").net.readout == "last"


def test_another_cell_than_that_of_the_file_is_refused(file):
    path = file(own_names(gradlab.GRU()))
    with pytest.raises(FormatError, match="are not those of any size of LSTM"):
        load(path, cell=gradlab.LSTM())


def test_one_of_several_networks_is_chosen_by_its_prefix(file):
    arrays = torch_names(4, prefix="encoder.lstm.", seed=1) | torch_names(3, prefix="decoder.", seed=2)
    path = file(arrays)
    encoder = load(path, prefix="encoder.lstm")
    np.testing.assert_array_equal(encoder.params["0.W"], arrays["encoder.lstm.weight_ih_l0"])
    assert encoder.notes[0] == "4 other tensors of the file are not read"
    assert isinstance(load(path, prefix="decoder.").net.layers[0].cell, gradlab.GRU)


def test_names_of_keras_variables_are_read_with_both_directions(file):
    names = keras_names(4, prefix="bi/forward_lstm/lstm_cell/", bias=16) | keras_names(
        4, prefix="bi/backward_lstm/lstm_cell/", bias=16
    )
    imported = load(file(names | {"dense/kernel": np.zeros((8, 1)), "dense/bias": np.zeros(1)}))
    assert imported.net.bidirectional
    assert "'bi/'" in imported.source
    assert any("Keras' defaults" in note for note in imported.notes)


MALFORMED = [
    ({"x": np.zeros(3)}, "no recurrent layer among its names .'x'"),
    ({}, "no recurrent layer"),
    (torch_names(2), "1, 3 or 4 blocks of 4 rows"),
    (torch_names(4, level=1), "have gaps"),
    (torch_names(4) | torch_names(4, level=2), "have gaps"),
    (torch_names(4) | torch_names(4, level=1, back="_reverse"), "have gaps"),
    (torch_names(4) | torch_names(4, D=5, level=1), r"layer 1: shapes are .*expected .*\(16, 4\)"),
    (torch_names(4) | {"bias_ih_l0": np.zeros((16, 1))}, "shapes are"),
    (torch_names(4) | {"weight_hr_l0": np.zeros((2, 4))}, "proj_size > 0"),
    ({k: v for k, v in torch_names(4).items() if "bias_hh" not in k}, "shapes are"),
    ({"weight_ih": np.zeros((16, 3)), "weight_hh": np.zeros((16, 4)), "bias": np.zeros(16)}, "as in Equinox"),
    (torch_names(4) | {"weight_ih": np.zeros((16, 3))}, "same weight of a cell and of a layer"),
    (keras_names(4, bias=(2, 16)), "LSTM with two rows of biases"),
    (keras_names(4, bias=(3, 16)), "one row of all gates, or two"),
    (keras_names(4, bias=12), "shapes are"),
    ({"weight_ih_l0": np.zeros((16, 3), int), "weight_hh_l0": np.zeros((16, 4), int)}, "has dtype int64"),
    ({"weight_ih_l0": np.zeros((0, 3)), "weight_hh_l0": np.zeros((0, 0))}, "none empty"),
    ({"0.W": np.zeros((16, 3)), "0.U": np.zeros((16, 4)), "0.b": np.zeros(15)}, "are not those of any size"),
    (own_names(gradlab.LSTM()) | {"1.W": np.zeros((4, 4))}, "1.U"),
]


@pytest.mark.parametrize(("arrays", "message"), MALFORMED, ids=[message for _, message in MALFORMED])
def test_names_and_shapes_that_make_no_network_are_refused(arrays, message, file):
    with pytest.raises(FormatError, match=message):
        load(file(arrays))


def test_a_huge_network_in_a_small_file_is_not_allocated(file):
    with pytest.raises(FormatError, match="are not those of any size"):
        load(file({"0.W": np.zeros((1, 3)), "0.U": np.zeros((1, 100_000)), "0.b": np.zeros(1)}), cell=gradlab.LSTM())


def test_weights_that_are_not_finite_are_read_and_reported(file):
    arrays = torch_names(4)
    arrays["weight_hh_l0"][1, 2] = np.inf
    assert "0.U has 1 non-finite values" in load(file(arrays)).notes


def test_parameters_are_copies_of_the_type_asked_for(file):
    path = file({key: value.astype(np.float32) for key, value in torch_names(4).items()})
    imported = load(path)
    assert imported.dtype == np.float32
    assert {value.dtype for value in imported.params.values()} == {np.dtype(np.float64)}
    assert {value.dtype for value in load(path, dtype="float32").params.values()} == {np.dtype(np.float32)}
    with pytest.raises(DTypeError, match="dtype is int64"):
        load(path, dtype=int)


def test_the_content_decides_and_a_note_says_that_the_name_disagrees(file, tmp_path):
    assert load(file(torch_names(4), "w.safetensors")).notes[0] == "the file is called .safetensors, its content is .npz"
    save(tmp_path / "a.safetensors", network(gradlab.LSTM()))
    (tmp_path / "a.safetensors").rename(tmp_path / "a.npz")
    assert load(tmp_path / "a.npz").notes[0] == "the file is called .npz, its content is .safetensors"


def test_the_memory_limit_holds(file):
    with pytest.raises(ResourceRefused):
        load(file(torch_names(4)), max_memory=100)


@pytest.mark.parametrize("name", ["m.pt", "m.pth", "m.ckpt", "m.bin", "m.pkl", "m.joblib"])
def test_pickles_are_refused_with_the_two_lines_that_convert_them(name, tmp_path):
    with pytest.raises(UnsafeFileError, match="a pickle, which runs code") as caught:
        load(tmp_path / name)
    lines = str(caught.value).split("\n")[1:]
    assert len(lines) == 2
    assert ".load(" in lines[0]
    assert "save" in lines[1]
    for line in lines:
        compile(line.strip(), "line", "exec")


def test_wrong_arguments_of_save_are_refused(tmp_path):
    own = network(gradlab.LSTM())
    with pytest.raises(ValueRangeError, match=r"expected one of \.safetensors, \.npz"):
        save(tmp_path / "w.pt", own)
    with pytest.raises(DTypeError, match="expected an Imported"):
        save(tmp_path / "w.npz", own.params)
    with pytest.raises(ValueRangeError, match="layout is 'jax'"):
        save(tmp_path / "w.npz", own, layout="jax")
    with pytest.raises(ShapeError):
        save(tmp_path / "w.npz", Imported(own.net, {**own.params, "0.b": np.zeros(3)}, "x"))
