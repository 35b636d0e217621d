"""Small ONNX models with one recurrent node: distinct random weights, ragged rows, initial states."""

import numpy as np
import onnx_oracle

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
OUTPUTS = ("Y", "Y_h", "Y_c")
INPUTS = ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P")
DEFAULTS = {"LeakyRelu": (0.01, 0), "ThresholdedRelu": (1.0, 0), "HardSigmoid": (0.2, 0.5), "Elu": (1.0, 0)}
USUAL = {"RNN": ["Tanh"], "GRU": ["Sigmoid", "Tanh"], "LSTM": ["Sigmoid", "Tanh", "Tanh"]}


def model_of(kind, arrays, attributes, *, fed=("X",), opset=21):
    """An onnx.ModelProto; arrays named in `fed` are inputs of the graph, the others stored."""
    import onnx

    helper = onnx.helper
    names = INPUTS if kind == "LSTM" else INPUTS[:6]
    outputs = OUTPUTS if kind == "LSTM" else OUTPUTS[:2]
    node = helper.make_node(kind, [n if n in arrays else "" for n in names], outputs, name="n", **attributes)
    given = [helper.make_tensor_value_info(key, 1, np.shape(arrays[key])) for key in fed]
    made = [helper.make_tensor_value_info(key, 1, None) for key in outputs]
    stored = [onnx.numpy_helper.from_array(value, key) for key, value in arrays.items() if key not in fed]
    model = helper.make_model(helper.make_graph([node], "g", given, made, stored), opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = 10  # onnxruntime is behind onnx
    return model


class Case:
    """One node with `attributes`; `plain`: only X, W, R and B."""

    def __init__(self, kind, *, D=2, H=4, T=5, N=3, opset=21, peepholes=0, plain=False, **attributes):
        rng = np.random.default_rng(7)
        self.kind, self.D, self.H, self.T, self.N, self.opset, self.attributes = kind, D, H, T, N, opset, attributes
        self.directions = 2 if attributes.get("direction") == "bidirectional" else 1
        G, P = GATES[kind], self.directions

        def draw(*shape):
            return rng.normal(0.0, 0.9, shape).astype(np.float32)

        self.arrays = {"X": draw(T, N, D), "W": draw(P, G * H, D), "R": draw(P, G * H, H), "B": draw(P, 2 * G * H)}
        if not plain:
            self.arrays |= {"sequence_lens": np.array([5, 2, 3], np.int32), "initial_h": draw(P, N, H)}
            self.arrays |= {"initial_c": draw(P, N, H)} if kind == "LSTM" else {}
        if peepholes:
            self.arrays["P"] = draw(P, 3 * H)

    def __repr__(self):
        return f"{self.kind} {self.attributes}"

    @property
    def X(self):
        return self.arrays["X"]

    @property
    def model(self):
        return model_of(self.kind, self.arrays, {"hidden_size": self.H} | self.attributes, opset=self.opset)

    def running(self):
        """Everything but the weights."""
        return {key: value for key, value in self.arrays.items() if key not in "WRBP"}

    def model_with(self, running, **attributes):
        """The same weights with other inputs and attributes."""
        return model_of(self.kind, self.arrays | running, {"hidden_size": self.H} | self.attributes | attributes)

    def expected(self):
        """Y, Y_h, Y_c in float64 by the plain loops."""
        functions = []
        constants = {key: list(self.attributes.get(f"activation_{key}", [])) for key in ("alpha", "beta")}
        for name in self.attributes.get("activations", USUAL[self.kind])[: len(USUAL[self.kind])]:
            alpha, beta = DEFAULTS.get(name, (0, 0))
            if (name in DEFAULTS or name in ("Affine", "ScaledTanh")) and constants["alpha"]:
                alpha = float(np.float32(constants["alpha"].pop(0)))  # attributes are single precision
            if name in ("HardSigmoid", "Affine", "ScaledTanh") and constants["beta"]:
                beta = float(np.float32(constants["beta"].pop(0)))
            functions.append(lambda x, f=onnx_oracle.SIMPLE[name], a=alpha, b=beta: f(x, a, b))
        H, N, P, G = self.H, self.N, self.directions, GATES[self.kind]
        shapes = {"B": (P, 2 * G * H), "P": (P, 3 * H), "initial_h": (P, N, H), "initial_c": (P, N, H)}
        a = {key: np.zeros(shape) for key, shape in shapes.items()}
        a |= {key: value.astype(np.float64) for key, value in self.arrays.items() if key != "sequence_lens"}
        lengths = self.arrays.get("sequence_lens", [self.T] * N)
        found = onnx_oracle.run(
            self.kind,
            *(a[key] for key in ("X", "W", "R", "B", "P")),
            lengths,
            a["initial_h"],
            a["initial_c"],
            direction=self.attributes.get("direction", "forward"),
            functions=functions,
            clip=self.attributes.get("clip"),
            coupled=bool(self.attributes.get("input_forget")),
            after=bool(self.attributes.get("linear_before_reset")),
        )
        return found if self.kind == "LSTM" else found[:2]
