"""Catalogue: gates, units, data and numbers that are not finite."""

from __future__ import annotations

from gradlab.diagnosis.entry import Entry

GATES: dict[str, Entry] = {
    "saturated": Entry(
        title="Stuck where its function is flat",
        meaning="The values of this gate, or of these units, lie at the flat ends of tanh or sigmoid and stay "
        "there. Every gradient "
        "through them is multiplied by a slope near 0, so their own weights hardly change any more.",
        remedy="Start the gate anew: its biases at 0 (1 or more for a forget gate) and its weights small, then "
        "train with a lower "
        "learning rate or with clipping. If the inputs are what drives it there, standardise them.",
        pytorch="rnn, k = model.rnn, 3  # which block of rows: nn.LSTM i, f, g, o = 0..3; nn.GRU r, z, n = 0..2; nn.RNN 0\n"
        "rows = slice(k * rnn.hidden_size, (k + 1) * rnn.hidden_size)\n"
        "with torch.no_grad():\n"
        "    rnn.bias_ih_l0[rows] = 0.0\n"
        "    rnn.bias_hh_l0[rows] = 0.0\n"
        "    torch.nn.init.xavier_uniform_(rnn.weight_ih_l0[rows])\n"
        "    torch.nn.init.orthogonal_(rnn.weight_hh_l0[rows])",
        keras="kernel, recurrent, bias = layer.get_weights()\n"
        "H, k = layer.units, 3  # which block of columns: LSTM i, f, g, o = 0..3; GRU z, r, n = 0..2; SimpleRNN 0\n"
        "at = slice(k * H, (k + 1) * H)\n"
        "kernel[:, at] = keras.initializers.GlorotUniform()((len(kernel), H))\n"
        "recurrent[:, at] = keras.initializers.Orthogonal()((H, H))\n"
        "bias[..., at] = 0.0\n"
        "layer.set_weights([kernel, recurrent, bias])",
        reference="Karpathy, Johnson & Fei-Fei (2015), sec. 4.2; Glorot & Bengio (2010), sec. 3",
    ),
    "forget-closed": Entry(
        title="The gate that keeps is closed",
        meaning="Even the unit that remembers longest multiplies its memory by so small a gate at each step "
        "that nothing is left of "
        "what lies as far back as the sequence, or the dependency, is long; the gradient is lost on the same way.",
        remedy="Start the bias of the forget gate (update gate of a GRU) so that it keeps for T steps, the number to bridge: "
        "b = -ln(exp(1/T) - 1), which is about ln T. It opens the gate; what it must forget it can still learn.",
        pytorch="rnn, T = model.rnn, 100  # steps to bridge\n"
        "rows = slice(rnn.hidden_size, 2 * rnn.hidden_size)  # f of nn.LSTM, z of nn.GRU\n"
        "with torch.no_grad():\n"
        "    rnn.bias_ih_l0[rows] = -math.log(math.expm1(1.0 / T))\n"
        "    rnn.bias_hh_l0[rows] = 0.0",
        keras="kernel, recurrent, bias = layer.get_weights()\n"
        "H, T = layer.units, 100  # steps to bridge\n"
        "at = slice(H, 2 * H)  # f of LSTM; slice(0, H), z, of GRU\n"
        "bias[..., at] = 0.0\n"
        "bias.reshape(-1, bias.shape[-1])[0, at] = -math.log(math.expm1(1.0 / T))\n"
        "layer.set_weights([kernel, recurrent, bias])",
        reference="Gers, Schmidhuber & Cummins (2000), sec. 3; Jozefowicz, Zaremba & Sutskever (2015); Tallec & Ollivier (2018), "
        "sec. 2",
    ),
    "dead-relu": Entry(
        title="Dead ReLU units",
        meaning="These units are 0 at every step of every sequence. The slope of ReLU is exactly 0 there, so no gradient reaches "
        "their weights and they stay as they are; they take part in nothing.",
        remedy="Draw the weights of these units anew with a small positive bias, and lower the learning rate: "
        "one update that was "
        "far too large is the usual cause. A leaky ReLU has no dead units.",
        pytorch="outputs, _ = model.rnn(inputs)\n"
        "dead = (outputs == 0).flatten(0, -2).all(dim=0)\n"
        "with torch.no_grad():\n"
        "    model.rnn.weight_ih_l0[dead] = 0.1 * torch.randn_like(model.rnn.weight_ih_l0[dead])\n"
        "    model.rnn.weight_hh_l0[dead] = torch.eye(len(dead))[dead]\n"
        "    model.rnn.bias_ih_l0[dead] = 0.1\n"
        "    model.rnn.bias_hh_l0[dead] = 0.0",
        keras="layer = keras.layers.SimpleRNN(units, activation='leaky_relu', recurrent_initializer='orthogonal')",
        reference="Maas, Hannun & Ng (2013), sec. 2; Le, Jaitly & Hinton (2015)",
    ),
    "nonfinite": Entry(
        title="NaN or infinity",
        meaning="A number that is not finite was first seen here. Whatever is computed from it is lost: states "
        "spread it to later "
        "steps and upper layers, adjoints to earlier steps and lower layers, and one update takes it into every weight.",
        remedy="Inputs or weights: replace them, and go back to the last checkpoint. Numbers of a pass: lower the learning rate, "
        "clip the norm of the gradient, and make no update from a gradient that is not finite.",
        pytorch="if not torch.isfinite(inputs).all():\n"
        "    raise ValueError('inputs are not finite')\n"
        "loss.backward()\n"
        "norm = torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm=1.0)\n"
        "if torch.isfinite(norm):\n"
        "    optimizer.step()\n"
        "optimizer.zero_grad()",
        keras="model.compile(optimizer=keras.optimizers.Adam(learning_rate=1e-4, global_clipnorm=1.0), loss=loss)\n"
        "model.fit(inputs, targets, callbacks=[keras.callbacks.TerminateOnNaN()])",
        reference="Pascanu, Mikolov & Bengio (2013), sec. 3.2; Goodfellow, Bengio & Courville (2016), sec. 10.11.1",
    ),
    "input-scale": Entry(
        title="Scale of the inputs",
        meaning="What the lowest layer reads is so large that it saturates its units by itself, so small that the state hardly "
        "depends on it, or its features are of very different scales, which makes the problem ill-conditioned.",
        remedy="Standardise every feature with its mean and standard deviation over the training set, and keep "
        "the two numbers for "
        "later data. Features that never change can be left out.",
        pytorch="mean = train_inputs.flatten(0, -2).mean(dim=0)\n"
        "std = train_inputs.flatten(0, -2).std(dim=0).clamp_min(1e-8)\n"
        "inputs = (inputs - mean) / std",
        keras="scale = keras.layers.Normalization(axis=-1)\n"
        "scale.adapt(train_inputs)\n"
        "model = keras.Sequential([scale, *model.layers])",
        reference="LeCun, Bottou, Orr & Mueller (1998), Efficient BackProp, sec. 4.3 and 5",
    ),
    "padding-counted": Entry(
        title="Padding counted as data",
        meaning="Sequences end in a constant vector, unequally far from the end, and the loss reads the network "
        "there. The state has "
        "then been driven on by padding, and gradients have to come back through all of it.",
        remedy="Give the true lengths: read each sequence at its own last step and leave the rest out of the loss.",
        pytorch="packed = torch.nn.utils.rnn.pack_padded_sequence(inputs, lengths.cpu(), batch_first=True, "
        "enforce_sorted=False)\n"
        "outputs, state = model.rnn(packed)  # the final state is that of each sequence's own last step\n"
        "loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-100)  # padded targets",
        keras="model = keras.Sequential([keras.layers.Masking(mask_value=0.0), *model.layers])\n"
        "# of symbols: keras.layers.Embedding(..., mask_zero=True)",
        reference="PyTorch, torch.nn.utils.rnn.pack_padded_sequence; Keras, guide on masking and padding",
    ),
}
