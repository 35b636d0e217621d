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
from gradlab.checks.function_along import ENTRIES, FunctionAlong
from gradlab.checks.function_doubts import excuse
from gradlab.checks.judgement import FAILED, UNRESOLVED, count, findings, resolution
from gradlab.checks.oracle import Choice, choose, require_choice
from gradlab.checks.reading import read
from gradlab.checks.report import GradientReport
from gradlab.errors import DTypeError, ShapeError, ValueRangeError

Array = npt.NDArray[Any]


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
    along = FunctionAlong(f, args, list(given))
    oracle = choose([along.everything, *along.pieces()], wanted)
    quantities = along.judge(claims, cotangent, oracle, rtol)

    def again() -> tuple[Array, list[Array]]:
        return np.array(f(*args)), _claims(vjp, args, list(given), cotangent)

    note = excuse(again, cotangent, here, claims, along, quantities, oracle, kink)
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
