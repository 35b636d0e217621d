"""Gradients of any function of arrays: `check_gradient` and `check_vjp`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab._validate import as_numbers, require_callable, require_finite
from gradlab.checks.comparison import RTOL, checked_rtol
from gradlab.checks.control import negative_control
from gradlab.checks.doubts import KINKS, Kinks
from gradlab.checks.judgement import FAILED, PASSED, UNRESOLVED, Quantity, count, findings, resolution
from gradlab.checks.kink import COARSE, FINE, between, rounding
from gradlab.checks.oracle import Choice, Oracle, choose, derivative, require_choice, rescued
from gradlab.checks.reading import read
from gradlab.checks.report import GradientReport
from gradlab.checks.untied import FAINT
from gradlab.errors import DTypeError, ShapeError, ValueRangeError

Array = npt.NDArray[Any]

ENTRIES = 2000
"""Up to this many entries of all arguments each is differentiated; above, sums along random directions are compared."""
DIRECTIONS = 32


def check_gradient(
    f: Callable[[Any], Any],
    grad: Callable[[Any], Any],
    x: Any,
    *,
    oracle: Choice = "auto",
    rtol: float = RTOL,
    kink: Kinks = "interval",
    control: bool = True,
    name: str = "x",
) -> GradientReport:
    """Hold `grad(x)` against the derivative of the scalar function `f` at `x`.

    `x`: an array, or a dict of arrays, as `f` takes it; `grad` returns the like. Otherwise as `check_vjp`.

        >>> import numpy as np
        >>> report = check_gradient(lambda x: np.tanh(x).prod(), lambda x: 1 - np.tanh(x) ** 2, np.ones(3))
        >>> report.verdict
        'FAIL'

    Errors: ShapeError if f(x) is no scalar or grad(x) has another shape than x; DTypeError, ValueRangeError.
    """
    require_callable("f", f, "of x")
    require_callable("grad", grad, "of x")
    named = dict(x) if isinstance(x, Mapping) else {name: x}
    if not named:
        raise ShapeError("x is an empty dict; expected at least one array to differentiate by")
    single = not isinstance(x, Mapping)

    def value(*args: Array) -> Any:
        found = f(args[0] if single else dict(zip(named, args, strict=True)))
        if np.size(found) != 1:
            raise ShapeError(f"f(x) has shape {np.shape(found)}; expected a scalar; check_vjp takes functions with more outputs")
        return np.reshape(np.asarray(found), ())

    def vjp(*args: Array) -> tuple[Any, ...]:
        found = grad(args[0] if single else dict(zip(named, args[:-1], strict=True)))
        if single:
            return (found,)
        if not isinstance(found, Mapping) or set(found) != set(named):
            got = sorted(found) if isinstance(found, Mapping) else type(found).__name__
            raise DTypeError(f"grad(x) gave {got}; expected a dict with {sorted(named)}")
        return tuple(found[key] for key in named)

    return _check(value, vjp, named, np.ones(()), _named(f), oracle, rtol, kink, control)


def check_vjp(
    f: Callable[..., Any],
    vjp: Callable[..., Any],
    *args: Any,
    cotangent: Any = None,
    oracle: Choice = "auto",
    rtol: float = RTOL,
    kink: Kinks = "interval",
    control: bool = True,
    names: Sequence[str] | None = None,
) -> GradientReport:
    """Hold a vector-Jacobian product against the derivative of `f`: `vjp(*args, cotangent)` against sum(f(*args) * cotangent).

    `f(*args)` returns an array; `vjp` one array for each of `args`, in a tuple, or the array itself if there is but one.
    The functions may hide a torch or JAX model: where they refuse complex numbers, or drop them, Richardson extrapolation is the
    oracle, and the report's first lines say so. `cotangent`: random if None.
    `rtol`: of S, the sum of absolute terms. `kink`, `oracle`: as in `check_example`. `control`: alter what `vjp` returned and
    demand that it be rejected. With more than 2000 entries in all, sums along random directions are compared.
    Errors: ShapeError, DTypeError, ValueRangeError for what is not as described.
    """
    require_callable("f", f, "of the arguments")
    require_callable("vjp", vjp, "of the arguments and the cotangent")
    if not args:
        raise ShapeError("args is empty; expected at least one array to differentiate by")
    names = [f"args[{k}]" for k in range(len(args))] if names is None else list(names)
    if len(names) != len(args) or len(set(names)) != len(names):
        raise ShapeError(f"names has {len(names)} entries, {names}, for {len(args)} arguments; expected one of its own for each")
    out = np.asarray(f(*(np.array(value) for value in args)))
    _require_output(out)
    if cotangent is None:
        rng = np.random.default_rng(0)
        cotangent = rng.uniform(0.5, 1.5, out.shape) * rng.choice([-1.0, 1.0], out.shape)
    cotangent = np.asarray(cotangent)
    if cotangent.shape != out.shape:
        raise ShapeError(f"cotangent has shape {cotangent.shape}; expected {out.shape}, that of f's output")
    return _check(f, vjp, dict(zip(names, args, strict=True)), cotangent, _named(f), oracle, rtol, kink, control)


def _require_output(out: Array) -> None:
    if out.dtype.kind not in "fiu" or out.size == 0:
        raise DTypeError(f"f returned {out.dtype} of shape {out.shape}; expected real numbers, at least one")


def _named(f: Callable[..., Any]) -> str:
    return getattr(f, "__qualname__", None) or repr(f)


def _check(
    f: Callable[..., Any],
    vjp: Callable[..., Any],
    given: Mapping[str, Any],
    cotangent: Array,
    subject: str,
    wanted: Choice,
    rtol: float,
    kink: Kinks,
    control: bool,
) -> GradientReport:
    require_choice(wanted)
    rtol = checked_rtol(rtol)
    if kink not in KINKS:
        raise ValueRangeError(f"kink is {kink!r}; expected one of {', '.join(KINKS)}")
    cotangent = as_numbers("cotangent", cotangent, allow_complex=False)
    require_finite("cotangent", cotangent)
    if not cotangent.any():
        raise ValueRangeError("cotangent is zero throughout; expected numbers that make a loss of f's output")
    args = []
    for name, value in given.items():
        array = as_numbers(name, np.asarray(value))
        if array.dtype.kind == "c" or array.size == 0:
            raise DTypeError(f"{name} is {array.dtype} of shape {array.shape}; expected real numbers, at least one")
        require_finite(name, array)
        args.append(array.astype(float))
    before = [value.copy() for value in args]
    here = np.array(f(*args))
    _require_output(here)
    claims = _claims(vjp, args, list(given), cotangent)
    for name, value, old in zip(given, args, before, strict=True):
        if not np.array_equal(value, old):
            raise ValueRangeError(f"f or vjp changed {name} in place; expected functions that leave their arguments as they are")
    along = _Along(f, args, list(given))
    oracle = choose([along.everything, *along.pieces()], wanted)
    quantities = along.judge(claims, cotangent, oracle, rtol)
    note = _doubts(f, vjp, args, list(given), cotangent, here, claims, along, quantities, oracle, kink)
    found = findings(quantities)
    codes = {int(code) for quantity in quantities for code in np.unique(quantity.verdict)}
    entries = sum(value.size for value in args)
    return GradientReport(
        subject=subject,
        verdict="FAIL" if FAILED in codes else "UNRESOLVED" if UNRESOLVED in codes else "PASS",
        oracle=f"{oracle}{resolution(quantities)}",
        size=f"{here.dtype} " + " ".join(f"{name}{value.shape}" for name, value in zip(given, args, strict=True)),
        rtol=rtol,
        counts=count(quantities),
        findings=tuple(found),
        clean=tuple(quantity.name for quantity in quantities if not quantity.verdict.any()),
        reading=read(quantities, located=False) if entries <= ENTRIES else None,
        note=note,
        control=negative_control(quantities) if control else None,
        steps=1,
        located=False,
    ).with_control_counted()


def _claims(vjp: Callable[..., Any], args: list[Array], names: list[str], cotangent: Array) -> list[Array]:
    found = vjp(*args, np.array(cotangent))
    if not isinstance(found, (tuple, list)):
        found = (found,)
    if len(found) != len(args):
        raise ShapeError(f"vjp returned {len(found)} arrays for {len(args)} arguments; expected one for each, in their order")
    arrays = []
    for name, value, like in zip(names, found, args, strict=True):
        array = as_numbers(f"the gradient of {name}", np.asarray(value))
        if array.dtype.kind == "c":
            raise DTypeError(f"the gradient of {name} is {array.dtype}; expected real numbers")
        if array.shape != like.shape:
            raise ShapeError(f"the gradient of {name} has shape {array.shape}; expected {like.shape}")
        arrays.append(array)
    return arrays


class _Along:
    """The function along single entries of its arguments, or along random directions of each if they are many."""

    def __init__(self, f: Callable[..., Any], args: list[Array], names: list[str]) -> None:
        self.f, self.args, self.names = f, args, names
        self.single = sum(value.size for value in args) <= ENTRIES
        rng = np.random.default_rng(1)
        scale = [np.maximum(1.0, np.abs(value)) for value in args]  # a difference's step follows the size of the entry
        self.whole = [rng.uniform(0.5, 1.0, v.shape) * rng.choice([-1.0, 1.0], v.shape) for v in args]
        self.vectors: list[list[Array]] = []
        for value, size in zip(args, scale, strict=True):
            if self.single:
                units = np.eye(value.size).reshape(value.size, *value.shape)
                self.vectors.append([unit * size for unit in units])
            else:
                self.vectors.append([rng.choice([-1.0, 1.0], value.shape) for _ in range(min(DIRECTIONS, value.size))])

    def everything(self, shift: Any) -> Array:
        """Value of f with all arguments moved at once, for the pre-flight."""
        return np.asarray(self.f(*(value + shift * v for value, v in zip(self.args, self.whole, strict=True))))

    def pieces(self) -> list[Callable[[Any], Array]]:
        """F along up to 32 of the directions, for the pre-flight: an entry may hide behind a larger one."""
        every = [(k, v) for k, vectors in enumerate(self.vectors) for v in vectors]
        return [self.one(k, v) for k, v in every[:: max(1, len(every) // 32)]]

    def one(self, k: int, v: Array) -> Callable[[Any], Array]:
        def along(shift: Any) -> Array:
            return np.asarray(self.f(*(value + shift * v if j == k else value for j, value in enumerate(self.args))))

        return along

    def judge(self, claims: list[Array], cotangent: Array, oracle: Oracle, rtol: float) -> list[Quantity]:
        quantities = []
        for k, (name, claim) in enumerate(zip(self.names, claims, strict=True)):
            exact, scale, estimate, value = [], [], [], []
            for v in self.vectors[k]:
                along = self.one(k, v)
                slopes, error = derivative(along, oracle)
                if oracle.kind == "complex" and float(np.abs(slopes * (cotangent != 0.0)).max()) < FAINT:
                    slopes = rescued(along, slopes)
                size = float(np.abs(v).max()) if self.single else 1.0
                terms = slopes * cotangent / size
                exact.append(terms.sum())
                scale.append(np.abs(terms).sum())
                estimate.append((error * np.abs(cotangent)).sum() / size)
                value.append(0.0 if self.single else float((claim * v).sum()))
            shape = (1, 1, *self.args[k].shape) if self.single else (1, 1, len(value))
            flat = list(claim.ravel()) if self.single else value
            a, n, S, unsure = (np.asarray(side, float).reshape(shape) for side in (flat, exact, scale, estimate))
            if not self.single:  # sums of many entries: 1e-5 times an rtol of 1e-9 is what their rounding may be
                S = S + 1e-5 * np.array([np.abs(claim * v).sum() for v in self.vectors[k]]).reshape(shape)
            quantities.append(Quantity(name, a, n, S, unsure, rtol))
        return quantities


def _doubts(
    f: Callable[..., Any],
    vjp: Callable[..., Any],
    args: list[Array],
    names: list[str],
    cotangent: Array,
    here: Array,
    claims: list[Array],
    along: _Along,
    quantities: list[Quantity],
    oracle: Oracle,
    kink: Kinks,
) -> str | None:
    """What excuses a mismatch, in words; withheld entries are marked."""
    everything = [(quantity, np.ones(quantity.value.shape, bool)) for quantity in quantities]
    if not oracle.trusted:
        for quantity, where in everything:
            quantity.oracle = np.full(quantity.value.shape, np.nan)  # it was not asked
            quantity.withhold(where, "oracle-disagrees")
        return None
    if here.dtype == np.float32:
        for quantity in quantities:
            quantity.withhold(quantity.verdict == PASSED, "floor")
        return (
            "f computes in float32, whose differences cannot certify a gradient; let it compute in float64 "
            "(JAX: jax_enable_x64, torch: .double())"
        )
    if not np.isfinite(here).all():
        for quantity, where in everything:
            quantity.withhold(where, "nonfinite")
        return f"f is not finite at the point: {int((~np.isfinite(here)).sum())} of {here.size} outputs"
    if not any(quantity.verdict.any() for quantity in quantities):
        return None if along.single else f"too many entries to take one by one: sums along {DIRECTIONS} random directions agree"
    again, back = np.array(f(*args)), _claims(vjp, args, names, cotangent)
    if not np.array_equal(again, here) or not all(
        np.array_equal(a, b, equal_nan=True) for a, b in zip(back, claims, strict=True)
    ):
        for quantity in quantities:
            quantity.withhold(quantity.verdict != PASSED, "nondeterministic")
        return "two identical calls differ; freeze every generator that f and vjp use"
    if kink != "fail" and here.dtype == np.float64:  # the rounding of float32 looks like kinks
        for k, quantity in enumerate(quantities):
            _kinks(k, quantity, cotangent, here, along, kink)
    for quantity in quantities:  # subnormal numbers have lost digits on both sides
        tiny = np.finfo(float).tiny / np.finfo(float).eps * max(1.0, float(np.abs(cotangent).max()))
        with np.errstate(all="ignore"):
            quantity.withhold((quantity.verdict == FAILED) & (np.abs(quantity.value - quantity.oracle) <= tiny), "floor")
    return None


def _kinks(k: int, quantity: Quantity, cotangent: Array, here: Array, along: _Along, policy: Kinks) -> None:
    noise = rounding(float(np.abs(here * cotangent).sum()))
    for index in np.argwhere(quantity.verdict == FAILED):
        at = tuple(index)
        v = along.vectors[k][int(np.ravel_multi_index(at[2:], quantity.value.shape[2:])) if along.single else at[2]]
        f, size = along.one(k, v), float(np.abs(v).max()) if along.single else 1.0
        sides = []
        for h in (COARSE, FINE):
            above, below = np.array(f(np.asarray(h))), np.array(f(np.asarray(-h)))
            left, right = (np.asarray((d * cotangent).sum() / (h * size)) for d in (here - below, above - here))
            sides.append((left, right))
        if not between(quantity.value[at], sides[0], sides[1], quantity.scale[at], noise):
            continue
        if policy == "interval":
            quantity.verdict[at], quantity.kinks[at] = PASSED, True
        else:
            one = np.zeros(quantity.value.shape, bool)
            one[at] = True
            quantity.withhold(one, "kink")
