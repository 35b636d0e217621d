"""ONNX's RNN, LSTM and GRU in plain loops, straight from the operator specification: one row, one step, one gate at a time."""

import numpy as np

SIMPLE = {
    "Relu": lambda x, a, b: np.maximum(x, 0),
    "LeakyRelu": lambda x, a, b: np.where(x < 0, a * x, x),
    "ThresholdedRelu": lambda x, a, b: np.where(x >= a, x, 0),
    "Tanh": lambda x, a, b: np.tanh(x),
    "Sigmoid": lambda x, a, b: 1 / (1 + np.exp(-x)),
    "Affine": lambda x, a, b: a * x + b,
    "ScaledTanh": lambda x, a, b: a * np.tanh(b * x),
    "HardSigmoid": lambda x, a, b: np.minimum(np.maximum(a * x + b, 0), 1),
    "Elu": lambda x, a, b: np.where(x >= 0, x, a * (np.exp(x) - 1)),
    "Softsign": lambda x, a, b: x / (1 + np.abs(x)),
    "Softplus": lambda x, a, b: np.log(1 + np.exp(x)),
}


def cell(kind, x, h, c, W, R, Wb, Rb, P, functions, clip, coupled, after):
    """One step of one row: (h, c)."""
    f, g, k = (*functions, None, None)[:3]
    H = len(h)
    bound = (lambda v: v) if clip is None else (lambda v: np.clip(v, -clip, clip))

    def gate(n):
        rows = slice(n * H, (n + 1) * H)
        return W[rows] @ x + Wb[rows], R[rows], Rb[rows]

    if kind == "RNN":
        own, U, b = gate(0)
        return f(bound(own + U @ h + b)), c
    if kind == "GRU":
        z_x, U_z, b_z = gate(0)
        r_x, U_r, b_r = gate(1)
        n_x, U_n, b_n = gate(2)
        z, r = f(bound(z_x + U_z @ h + b_z)), f(bound(r_x + U_r @ h + b_r))
        n = g(bound(n_x + r * (U_n @ h + b_n))) if after else g(bound(n_x + U_n @ (r * h) + b_n))
        return (1 - z) * n + z * h, c
    parts = {name: gate(n) for n, name in enumerate("iofc")}
    pre = {name: w + U @ h + b for name, (w, U, b) in parts.items()}
    p_i, p_o, p_f = np.split(P, 3)
    i = f(bound(pre["i"] + p_i * c))
    forget = 1 - i if coupled else f(bound(pre["f"] + p_f * c))
    c = forget * c + i * g(bound(pre["c"]))
    return f(bound(pre["o"] + p_o * c)) * k(c), c


def run(kind, X, W, R, B, P, lengths, h_0, c_0, *, direction, functions, clip=None, coupled=False, after=False):
    """Y (T, D, N, H), Y_h and Y_c (D, N, H) for X (T, N, I): layout 0."""
    T, N, _ = X.shape
    D, H = W.shape[0], R.shape[-1]
    Y, Y_h, Y_c = np.zeros((T, D, N, H)), np.zeros((D, N, H)), np.zeros((D, N, H))
    for d in range(D):
        Wb, Rb = np.split(B[d], 2)
        for n in range(N):
            steps = range(lengths[n])
            h, c = h_0[d, n], c_0[d, n]
            for t in reversed(steps) if direction == "reverse" or d == 1 else steps:
                h, c = cell(kind, X[t, n], h, c, W[d], R[d], Wb, Rb, P[d], functions, clip, coupled, after)
                Y[t, d, n] = h
            Y_h[d, n], Y_c[d, n] = h, c
    return Y, Y_h, Y_c
