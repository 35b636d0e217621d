"""Long short-term memory and its variants: peepholes, coupled gates, no forget gate."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from gradlab._math import one_minus_sigmoid, sigmoid, sigmoid_and_slope, tanh, tanh_and_slope
from gradlab._validate import require_flag, require_number
from gradlab.cells.base import (
    Array,
    Cell,
    Init,
    Params,
    affine_rows,
    draw,
    outer_rows,
    row,
    rows,
    split_gates,
    sum_rows,
    transpose,
    turned,
    unrows,
)
from gradlab.errors import ValueRangeError


class LSTM(Cell):
    """i, f, o = sigmoid(W x_t + U h_{t-1} + b);  g = tanh(W_g x_t + U_g h_{t-1} + b_g);
    c_t = f * c_{t-1} + i * g;  h_t = o * tanh(c_t).

    Hochreiter & Schmidhuber (1997) with the forget gate of Gers, Schmidhuber & Cummins (2000): the "vanilla"
    network of Greff et al. (2015), sec. II. State: (c, h), 2H. f = 1 keeps.

    `peepholes`: p_i * c_{t-1} enters i, p_f * c_{t-1} enters f, p_o * c_t enters o, nothing enters g; the p are
    vectors (Gers & Schmidhuber 2000). `coupled`: i = 1 - f, the forget gate owns the parameters (Greff et al. 2015, CIFG).
    `forget_gate=False`: f = 1, the network of 1997, here with the full gradient instead of its truncated one.

    With F = f' (c_{t-1}, or c_{t-1} - g if coupled), A = diag(f + p_i g i' + p_f F),
    B = diag(i g')U_g + diag(g i')U_i + diag(F)U_f, G = diag(o (1 - tanh(c_t)^2) + p_o tanh(c_t) o'),
    K = diag(tanh(c_t) o')U_o:   J_t = [[A, B], [G A, G B + K]].   The block dh_t/dh_{t-1} alone is not
    the Jacobian: the path that carries the gradient runs through c.

    Parameters: W (G*H, D), U (G*H, H), b (G*H,), gates stacked i, f, g, o (coupled: f, g, o; without forget
    gate: i, g, o); with peepholes p_i, p_f, p_o (H,), those whose gate has parameters.
    """

    def __init__(self, *, peepholes: bool = False, coupled: bool = False, forget_gate: bool = True) -> None:
        for name, value in (("peepholes", peepholes), ("coupled", coupled), ("forget_gate", forget_gate)):
            require_flag(name, value)
        if coupled and not forget_gate:
            raise ValueRangeError("coupled is True and forget_gate is False; expected one of the two: coupling is i = 1 - f")
        self.peepholes, self.coupled, self.forget_gate = peepholes, coupled, forget_gate
        self.gates = ("f", "g", "o") if coupled else ("i", "f", "g", "o") if forget_gate else ("i", "g", "o")
        # The gates in the order of the tape: those with parameters, then the one that follows from them.
        self._blocks = self.gates + tuple(name for name in ("i", "f") if name not in self.gates)
        self._peeps = tuple(name for name in ("i", "f", "o") if name in self.gates) if peepholes else ()

    def __repr__(self) -> str:
        options = (
            ("peepholes=True", self.peepholes),
            ("coupled=True", self.coupled),
            ("forget_gate=False", not self.forget_gate),
        )
        return f"LSTM({', '.join(text for text, chosen in options if chosen)})"

    def init(
        self,
        rng: np.random.Generator,
        input_size: int,
        hidden_size: int,
        *,
        forget_bias: float = 1.0,
        W: Init | None = None,
        U: Init | None = None,
    ) -> Params:
        """Matrices by the inits `W` and `U`, gate by gate (default: uniform in +-1/sqrt(H)); b_f = `forget_bias`, all else 0.

        A forget bias of 1 after Jozefowicz, Zaremba & Sutskever (2015); at 0 the memory halves every step. Without a
        forget gate it has no effect. Peepholes start at 0.
        """
        require_number("forget_bias", forget_bias)
        G = len(self.gates)
        b = np.zeros(G * hidden_size)
        if "f" in self.gates:
            k = self.gates.index("f")
            b[k * hidden_size : (k + 1) * hidden_size] = forget_bias
        params = {"W": draw(rng, W, G, hidden_size, input_size), "U": draw(rng, U, G, hidden_size, hidden_size), "b": b}
        return params | {f"p_{gate}": np.zeros(hidden_size) for gate in self._peeps}

    def step(self, params: Params, x_t: Array, s_prev: Array, t: int) -> Array:
        H = s_prev.shape[-1] // 2
        c_prev, h_prev = s_prev[..., :H], s_prev[..., H:]
        pre = x_t @ transpose(params["W"]) + h_prev @ transpose(params["U"]) + row(params["b"])
        a = {gate: pre[..., k * H : (k + 1) * H] for k, gate in enumerate(self.gates)}
        for gate in ("i", "f"):
            if gate in self._peeps:
                a[gate] = a[gate] + row(params[f"p_{gate}"]) * c_prev
        i = sigmoid(-a["f"]) if self.coupled else sigmoid(a["i"])
        f = sigmoid(a["f"]) if self.forget_gate else 1.0
        c = f * c_prev + i * tanh(a["g"])
        if "o" in self._peeps:
            a["o"] = a["o"] + row(params["p_o"]) * c
        return np.concatenate([c, sigmoid(a["o"]) * tanh(c)], axis=-1)

    def state_size(self, hidden_size: int) -> int:
        return 2 * hidden_size

    def parts(self, hidden_size: int) -> dict[str, int]:
        return {"c": hidden_size, "h": hidden_size}

    def output(self, s: Array, s_prev: Array) -> Array:
        return s[..., s.shape[-1] // 2 :]

    def output_vjp(self, s: Array, s_prev: Array, dy: Array, ds: Array, ds_prev: Array) -> None:
        ds[..., ds.shape[-1] // 2 :] += dy

    # Blocks of H columns on the tape (no options): the pre-activations in the first 4, where a step leaves
    #   i  f  g  o | g i'  c_{t-1} f'  i g'  tanh(c_t) o' | o (1 - tanh(c_t)^2)
    # that is the gates, and all the factors that the adjoint and the Jacobian need.

    def tape_shape(self, input_size: int, hidden_size: int) -> tuple[int, int]:
        return len(self._blocks) + len(self.gates) + 1, hidden_size

    def pre_size(self, input_size: int, hidden_size: int) -> int:
        return len(self.gates) * hidden_size

    def prepare(self, params: Params, rows: tuple[int, ...]) -> dict[str, Any]:
        G, H, dtype = len(self.gates), params["U"].shape[-1], params["U"].dtype
        stacked = np.empty((*rows, G * H), dtype)
        return dict(
            {key: row(value) if key.startswith("p_") else value for key, value in params.items()},
            H=H,
            U_T=turned(params["U"]),
            recurrent=stacked,
            recurrent_by_gate=split_gates(stacked, G, -1),
            pre=np.empty((G, *rows, H), dtype),
            work=np.empty((*rows, H), dtype),
            spare=np.empty((*rows, H), dtype),
        )

    def project(self, p: dict[str, Any], x: Array, a: Array) -> None:
        G = len(self.gates)
        affine_rows(x[:, None], split_gates(p["W"], G, -2), split_gates(p["b"], G, -1), out=a[:, :G])

    def _tape(self, a: Array) -> tuple[dict[str, Array], dict[str, Array], Array]:
        """Blocks of the tape, whose first axis is theirs: gates by name, factors by gate, and the factor from h to c."""
        n = len(self._blocks)
        return dict(zip(self._blocks, a[:n], strict=True)), dict(zip(self.gates, a[n:-1], strict=True)), a[-1]

    def step_into(self, p: dict[str, Any], a_t: Array, s_prev: Array, s_out: Array, t: int) -> None:
        H, z, c, spare, G = p["H"], p["pre"], p["work"], p["spare"], len(self.gates)
        c_prev, h_prev = s_prev[..., :H], s_prev[..., H:]
        gate, to, to_c = self._tape(a_t)
        i, f, g, o = (gate[name] for name in "ifgo")
        factors = a_t[len(self._blocks) :]
        np.matmul(h_prev, p["U_T"], out=p["recurrent"])
        np.add(p["recurrent_by_gate"], a_t[:G], out=z)
        for k, name in enumerate(self.gates[:-2]):
            if name in self._peeps:
                z[k] += np.multiply(p[f"p_{name}"], c_prev, out=spare)
        sigmoid_and_slope(z[:-2], a_t[: G - 2], factors[: G - 2])  # i and f, as far as they have parameters
        tanh_and_slope(z[-2], g, to["g"])
        if self.coupled:
            one_minus_sigmoid(z[0], f, to["f"], out=i)
            np.subtract(c_prev, g, out=spare)
            to["f"] *= spare
        elif self.forget_gate:
            to["f"] *= c_prev
        else:
            f[...] = 1.0
        np.multiply(f, c_prev, out=c)
        np.multiply(i, g, out=spare)
        c += spare
        s_out[..., :H] = c
        if "o" in self._peeps:
            z[-1] += np.multiply(p["p_o"], c, out=spare)
        sigmoid_and_slope(z[-1], o, to["o"])
        tanh_and_slope(c, c, to_c)  # the work space now holds tanh(c_t)
        if "i" in to:
            to["i"] *= g
        to["g"] *= i
        to["o"] *= c
        to_c *= o
        if "o" in self._peeps:
            to_c += np.multiply(p["p_o"], to["o"], out=spare)
        np.multiply(o, c, out=s_out[..., H:])

    def step_vjp(
        self, p: dict[str, Any], a_t: Array, s_prev: Array, s_t: Array, delta: Array, da_out: Array, ds_out: Array, t: int
    ) -> None:
        H, dc, n = p["H"], p["work"], len(self._blocks)
        dh, da = delta[..., H:], split_gates(da_out, len(self.gates), -1)
        np.multiply(dh, a_t[-1], out=dc)
        dc += delta[..., :H]
        np.multiply(dc, a_t[n:-2], out=da[:-1])
        np.multiply(dh, a_t[-2], out=da[-1])
        np.multiply(dc, a_t[self._blocks.index("f")], out=ds_out[..., :H])
        for k, name in enumerate(self.gates[:-2]):
            if name in self._peeps:
                ds_out[..., :H] += np.multiply(p[f"p_{name}"], da[k], out=p["spare"])
        np.matmul(da_out, p["U"], out=ds_out[..., H:])

    def input_grad(self, p: dict[str, Any], da: Array) -> Array:
        return unrows(np.matmul(rows(da), p["W"]), da)

    def param_grads(self, p: dict[str, Any], x: Array, a: Array, s: Array, da: Array, delta: Array, t: Array) -> Params:
        H = p["H"]
        found = {"W": outer_rows(da, x), "U": outer_rows(da, s[:-1, ..., H:]), "b": sum_rows(da)}
        for name in self._peeps:
            k, c = self.gates.index(name), s[1:] if name == "o" else s[:-1]
            found[f"p_{name}"] = sum_rows(da[..., k * H : (k + 1) * H] * c[..., :H])
        return found

    def _through(self, M: Array, a: Array) -> tuple[Array, Array]:
        """d(c_t, h_t)/dv where v enters the pre-activations as M v: B and G B + K, with M (G*H, columns) in place of U."""
        _, to, to_c = self._tape(np.moveaxis(a, 1, 0)[..., None])
        blocks = dict(zip(self.gates, split_gates(M, len(self.gates), -2)[..., None, :, :], strict=True))
        B = to["g"] * blocks["g"]
        for name in self.gates[:-2]:
            B += to[name] * blocks[name]
        return B, to_c * B + to["o"] * blocks["o"]

    def jacobian(self, p: dict[str, Any], a: Array, s_prev: Array, s: Array, t: Array) -> Array:
        J = np.zeros((*s.shape, s.shape[-1]), a.dtype)
        self.jacobian_into(p, a, s_prev, s, t, J)
        return J

    def jacobian_into(self, p: dict[str, Any], a: Array, s_prev: Array, s: Array, t: Array, out: Array) -> None:
        # Row h of B and of G B + K is a sum over gates of (factor of the gate) * U_gate[h]. So for each h and for all
        # sequences of a step it is a product (B, gates) x (gates, H), written where it belongs.
        H, G, diagonal = p["H"], len(self.gates), np.arange(p["H"])
        gate, to, to_c = self._tape(np.moveaxis(a, 1, 0))
        A = gate["f"] + sum(p[f"p_{name}"] * to[name] for name in self._peeps if name != "o")
        factors = np.zeros((H, *s.shape[:-2], 2, s.shape[-2], G), a.dtype)  # of the rows of c, then of h
        for k, name in enumerate(self.gates[:-1]):
            factors[..., 0, :, k] = np.moveaxis(to[name], -1, 0)
            factors[..., 1, :, k] = np.moveaxis(to_c * to[name], -1, 0)
        factors[..., 1, :, -1] = np.moveaxis(to["o"], -1, 0)
        U = np.ascontiguousarray(np.moveaxis(split_gates(p["U"], G, -2), (0, -2), (-2, 0)))  # (H, *E, gates, H)
        by_part = split_gates(out, 2, -2)  # a view (2, T, *E, B, H, 2H)
        np.matmul(factors, U[:, None, ..., None, :, :], out=np.moveaxis(by_part[..., H:], (-2, 0), (0, -3)))
        by_part[0][..., diagonal, diagonal] = A
        by_part[1][..., diagonal, diagonal] = to_c * A

    def jacobian_products(self, p: dict[str, Any], a: Array) -> Iterator[Callable[[Array], Array]]:
        """Z -> J_t Z for each step of the tape, for any number n of tangent vectors Z (*E, B, S, n): J_t is never formed."""
        H, U = p["H"], p["U"][..., None, :, :]
        gate, to, to_c = self._tape(np.moveaxis(a, 1, 0)[..., None])
        A = gate["f"] + sum(p[f"p_{name}"][..., None] * to[name] for name in self._peeps if name != "o")
        factors = np.moveaxis(a[:, len(self._blocks) : -1], 1, -2)[..., None]  # (T, *E, B, gates, H, 1)

        def product(A: Array, factor: Array, to_c: Array, Z: Array) -> Array:
            da = np.matmul(U, Z[..., H:, :]).reshape(*factor.shape[:-1], -1)
            da *= factor
            out = np.empty(Z.shape, da.dtype)
            dc, dh = out[..., :H, :], out[..., H:, :]
            np.multiply(A, Z[..., :H, :], out=dc)
            for k in range(len(self.gates) - 1):
                dc += da[..., k, :, :]
            np.multiply(to_c, dc, out=dh)
            dh += da[..., -1, :, :]
            return out

        return (partial(product, *step) for step in zip(A, factors, to_c, strict=True))

    def input_jacobian(self, p: dict[str, Any], a: Array, s_prev: Array, s: Array, t: Array) -> Array:
        return np.concatenate(self._through(p["W"], a), axis=-2)

    def gate_values(self, a: Array) -> dict[str, Array]:
        gate, _, _ = self._tape(np.moveaxis(a, 1, 0))
        return {name: gate[name] for name in ("i", "f", "g", "o")}
