"""Catalogue: how gradients flow through a layer, and what the loss sees of it."""

from __future__ import annotations

from gradlab.diagnosis.entry import Entry

_LONG_FORGET = """import math, torch
lstm = torch.nn.LSTM(input_size, hidden_size)  # also where an nn.RNN was
with torch.no_grad():
    for name, b in lstm.named_parameters():  # gates i, f, g, o; of the two biases one is enough
        if name.startswith("bias_ih"):
            b[hidden_size : 2 * hidden_size] = math.log(steps)  # forgets after about `steps` steps
        elif name.startswith("bias_hh"):
            b.zero_()"""

_LONG_FORGET_KERAS = """import math
lstm = keras.layers.LSTM(units)  # also where a SimpleRNN was
lstm.build(input_shape)
kernel, recurrent, bias = lstm.get_weights()
bias[units : 2 * units] = math.log(steps)  # gates i, f, c, o; forgets after about `steps` steps
lstm.set_weights([kernel, recurrent, bias])"""

_ORTHOGONAL = """import torch
with torch.no_grad():
    for name, U in rnn.named_parameters():
        if name.startswith("weight_hh"):  # gate by gate: LSTM 4, GRU 3, RNN 1
            for block in U.split(hidden_size):
                torch.nn.init.orthogonal_(block)"""

_ORTHOGONAL_KERAS = """layer = keras.layers.SimpleRNN(units, recurrent_initializer="orthogonal")  # also of LSTM and GRU"""

FLOW: dict[str, Entry] = {
    "vanishing": Entry(
        "The gradient vanishes",
        "A gradient that enters at the end of a sequence is smaller than the rounding of floats by the time it reaches the first "
        "input, so the weights cannot learn what the early inputs mean for the end. If most of it is lost in one step, that step "
        "resets or saturates the state.",
        "Use an LSTM whose forget bias is ln of the number of steps to be remembered; keep a tanh layer only with an orthogonal "
        "recurrent matrix and small input weights. If one step takes all, look at the input there: scale it down.",
        _LONG_FORGET + "\n\n# or, a tanh layer:\n" + _ORTHOGONAL.partition("\n")[2] + "\n        "
        'elif name.startswith("weight_ih"):\n            U.mul_(0.1)',
        _LONG_FORGET_KERAS + "\n\n# or, a tanh layer:\n"
        'keras.layers.SimpleRNN(units, recurrent_initializer="orthogonal",\n'
        "                       kernel_initializer=keras.initializers.RandomNormal(stddev=0.02))",
        "Hochreiter (1991), diploma thesis, TU Munich; Bengio, Simard & Frasconi (1994), IEEE Trans. Neural Networks 5(2); "
        "forget bias: Gers, Schmidhuber & Cummins (2000), Neural Computation 12(10); Tallec & Ollivier (2018), ICLR, sec. 2",
    ),
    "exploding": Entry(
        "The gradient explodes",
        "A gradient grows from step to step on its way back, so that a few early steps decide each update, and a small change "
        "of the weights changes the output beyond any step size. In reverse, small differences of states grow.",
        "Bring the recurrent matrix to spectral radius 1 (orthogonal, gate by gate), and clip the gradient's norm while "
        "training. If one step does it, look at the input there.",
        _ORTHOGONAL + "\n\n# in the loop, between backward and step:\n"
        "torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm=1.0)",
        _ORTHOGONAL_KERAS + "\noptimizer = keras.optimizers.Adam(clipnorm=1.0)",
        "Pascanu, Mikolov & Bengio (2013), ICML, sec. 2 and 3.2; Saxe, McClelland & Ganguli (2014), ICLR (orthogonal weights)",
    ),
    "transient-growth": Entry(
        "Transient growth",
        "A gradient grows for some steps and decays afterwards, although the spectral radius of every Jacobian is below 1: the "
        "matrices are far from normal. Stability by eigenvalues says nothing about so few steps.",
        "Start from an orthogonal recurrent matrix, which is normal; do not judge the weights by their spectral radius, but by "
        "their largest singular value.",
        _ORTHOGONAL,
        _ORTHOGONAL_KERAS,
        "Trefethen & Embree (2005), Spectra and Pseudospectra, sec. 14-16; Ganguli, Huh & Sompolinsky (2008), PNAS 105(48)",
    ),
    "short-horizon": Entry(
        "The memory is shorter than the dependency",
        "In every layer less than 1 % of a gradient is left at the lag at which the task's dependency lies.",
        "Use an LSTM whose forget bias is ln of the dependency, or make the dependency shorter: fewer steps between cause and "
        "effect, by pooling or skipping.",
        _LONG_FORGET.replace("math.log(steps)", "math.log(dependency)").replace("`steps` steps", "`dependency` steps"),
        _LONG_FORGET_KERAS.replace("math.log(steps)", "math.log(dependency)").replace("`steps` steps", "`dependency` steps"),
        "Hochreiter & Schmidhuber (1997), Neural Computation 9(8), sec. 3; Gers, Schmidhuber & Cummins (2000)",
    ),
    "truncation-short": Entry(
        "Truncation cuts off the gradient",
        "Truncated backpropagation follows another direction than the full gradient, or a much shorter one, or it does not reach "
        "as far back as the dependency.",
        "Backpropagate through more steps: several times the dependency, or the whole sequence; if memory is short, use smaller "
        "batches or recompute activations.",
        "for chunk in sequence.split(k2):  # k2 several times the dependency\n"
        "    output, state = rnn(chunk, state)\n"
        "    criterion(output).backward()\n"
        "    state = state.detach()  # of an LSTM: tuple(s.detach() for s in state)",
        "dataset = keras.utils.timeseries_dataset_from_array(\n"
        "    data, targets, sequence_length=k2)  # k2 several times the dependency",
        "Williams & Peng (1990), Neural Computation 2(4); Tallec & Ollivier (2017), Unbiasing truncated BPTT, arXiv:1705.08209",
    ),
    "unused-layer": Entry(
        "A layer is not used",
        "Next to no gradient reaches this layer, or its states are the same whatever it reads: it does not learn, and nothing "
        "below it does.",
        "Check the wiring and the weights between the layers; draw them anew, or lead the input around the layer (a skip "
        "connection).",
        "with torch.no_grad():  # the input weights of every layer, also of the one above\n"
        "    for name, W in rnn.named_parameters():\n"
        '        if name.startswith("weight_ih"):\n'
        "            torch.nn.init.xavier_uniform_(W)",
        "y = keras.layers.Concatenate()([lower, keras.layers.LSTM(units, return_sequences=True)(lower)])  # a way around",
        "Glorot & Bengio (2010), AISTATS; Hermans & Schrauwen (2013), NeurIPS (what each layer of a deep RNN contributes)",
    ),
    "unused-direction": Entry(
        "A direction is not used",
        "The loss sees one direction of a bidirectional layer and next to nothing of the other: its read-out weights are nearly "
        "zero, or it is read where it has seen next to no input, as the last row of the output is by the backward direction.",
        "Read each direction at its own end; draw the weights that read it anew.",
        "output, h_n = gru(x)  # LSTM: output, (h_n, c_n)\n"
        "features = torch.cat([h_n[-2], h_n[-1]], dim=-1)  # not output[:, -1]\n"
        "torch.nn.init.xavier_uniform_(head.weight)",
        'features = keras.layers.Bidirectional(keras.layers.LSTM(units), merge_mode="concat")(x)\n'
        "# return_sequences=False takes each direction's own final state; y[:, -1] does not",
        "Schuster & Paliwal (1997), IEEE Trans. Signal Processing 45(11)",
    ),
    "initial-state": Entry(
        "The initial state decides",
        "What the states started from matters more to the loss, or to the last output, than what was read since.",
        "Start every sequence from zero, or from one learned state; where the state must be carried on, warm up for some steps "
        "that the loss does not count.",
        "output, state = rnn(x)  # no state from the batch before\nloss = criterion(output[warm_up:], target[warm_up:])",
        "layer = keras.layers.LSTM(units, stateful=False)\nmodel.reset_states()  # between sequences, of a stateful layer",
        "Jaeger (2001), GMD Report 148 (the echo state property); Zimmermann, Tietz & Grothmann (2012), Neural Networks: Tricks "
        "of the Trade, 2nd ed., ch. 27",
    ),
    "ill-conditioned": Entry(
        "Ill-conditioned Jacobians",
        "Each step passes the gradient in few directions and loses it in the others, down to rounding. A ReLU's units that are "
        "off are not counted.",
        "Draw the recurrent matrix orthogonal: all singular values are then 1; look for units that copy each other, and for "
        "saturated ones.",
        _ORTHOGONAL,
        _ORTHOGONAL_KERAS,
        "Pennington, Schoenholz & Ganguli (2017), NeurIPS (dynamical isometry); Roy & Vetterli (2007), EUSIPCO (effective rank)",
    ),
    "sensitive": Entry(
        "Sensitive dependence",
        "Rounding errors grow along the sequence until two correct computations of the same states differ: the layer is chaotic "
        "on these data, and its gradient has no more meaning than its last digits.",
        "Bring the recurrent matrix to spectral radius 1 (orthogonal, gate by gate), or shorten the sequences; single precision "
        "is then enough again.",
        _ORTHOGONAL,
        _ORTHOGONAL_KERAS,
        "Engelken, Wolf & Abbott (2023), Phys. Rev. Research 5, 043044; Vogt, Puelma Touzel, Shlizerman & Lajoie (2022), Front. "
        "Appl. Math. Stat. 8",
    ),
}
