"""The loss at many points of parameter space, a few networks at a time."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab._math import log_norm
from gradlab._memory import gib, memory_limit
from gradlab._parameters import ParameterVector
from gradlab._validate import require_count
from gradlab.analysis._forward_only import forward_only, member_losses
from gradlab.analysis.surface_directions import checked_direction
from gradlab.backward import bptt, checked_inputs
from gradlab.batch import Batch
from gradlab.errors import DTypeError, NumericalError, ResourceRefused, ShapeError
from gradlab.forward_pass import checked_params
from gradlab.losses import Loss
from gradlab.network import Network, Params
from gradlab.workspace import Workspace

Array = npt.NDArray[Any]

BLOCK = 2**18
"""Bytes of one step's states that go through the network together: measured, they and what is made of them fit the cache."""


@dataclass(frozen=True)
class Grid:
    """Points theta_i = sum_k coefficients[i, k] vectors[k] at which a loss is asked for.

    Every parameter is in `vectors`, padded to the same number of ensemble axes: (*pad, *E, own).
    """

    net: Network
    batch: Batch
    loss: Loss
    vectors: Sequence[Params]
    lead: tuple[int, ...]
    initial_states: Mapping[str, Array] | None
    first_step: int

    @classmethod
    def of(
        cls,
        net: Network,
        params: Mapping[str, Array],
        batch: Batch,
        loss: Loss,
        directions: Mapping[str, Mapping[str, Array]],
        initial_states: Mapping[str, Array] | None,
        first_step: int,
    ) -> Grid:
        """`params`, and `directions` by the names that errors call them, in the dtype of the parameters.

        Errors: ShapeError, DTypeError, ValueRangeError.
        """
        inputs = checked_inputs(net, batch, loss)
        values = checked_params(net, params)
        for key, value in values.items():
            if np.iscomplexobj(value):
                raise DTypeError(f'params["{key}"] has dtype {value.dtype}; expected real parameters')
        given = [checked_direction(name, net, direction) for name, direction in directions.items()]
        leads = [net.ensemble_shape(key, value) for vector in (values, *given) for key, value in vector.items()]
        leads += [inputs.shape[1:-2], *(np.shape(value)[:-2] for value in _values(initial_states))]
        try:
            lead = np.broadcast_shapes(*leads)
        except ValueError as error:
            raise ShapeError(f"ensemble axes do not broadcast: {sorted(set(leads))}; expected equal sizes, or 1") from error

        def padded(key: str, value: Array) -> Array:
            own = net.ensemble_shape(key, value)
            return value.reshape((1,) * (len(lead) - len(own)) + value.shape)

        with np.errstate(over="ignore"):  # found where the points are made
            vectors = [
                {key: padded(key, value.astype(values[key].dtype, copy=False)) for key, value in vector.items()}
                for vector in (values, *given)
            ]
        return cls(net, batch, loss, vectors, lead, initial_states, first_step)

    def params(self, coefficients: Array) -> Params:
        """The parameters (G, *E, ...) of G points; what no direction moves is shared by all of them, without the first axis."""
        found: Params = {}
        for key in self.net.shapes:
            terms = [(c, vector[key]) for c, vector in zip(coefficients.T, self.vectors, strict=True) if key in vector]
            if len(terms) == 1 and bool((terms[0][0] == 1.0).all()):
                found[key] = terms[0][1]
                continue
            with np.errstate(all="ignore"):
                scaled = [c.astype(value.dtype).reshape(-1, *(1,) * value.ndim) * value for c, value in terms]
                total = sum(scaled[1:], scaled[0])
            if not np.isfinite(total).all():
                raise NumericalError(
                    f"{key} leaves the range of floats on the surface; expected smaller coordinates or directions"
                )
            found[key] = total
        return found

    def evaluate(
        self,
        coefficients: Array,
        *,
        with_gradient: bool,
        max_memory: int | None,
        threads: int,
        progress: Callable[[int, int], None] | None,
    ) -> tuple[Array, Array | None]:
        """Loss (n, *E), and the norm of its gradient by all parameters if wanted, at n points (n, K).

        Error: ResourceRefused if not even one point fits the memory.
        """
        threads = require_count("threads", threads)
        n = len(coefficients)
        few = self.at_once(n, with_gradient, max_memory, threads)
        dtype = np.result_type(*(value for vector in self.vectors for value in vector.values()), self.batch.inputs)
        losses = np.empty((n, *self.lead), dtype)
        norms = np.empty((n, *self.lead)) if with_gradient else None
        fast, own = forward_only(self.net), threading.local()

        def chunk(first: int) -> int:
            if not hasattr(own, "workspace"):
                own.workspace = Workspace()
            at = slice(first, min(first + few, n))
            params, shape = self.params(coefficients[at]), (at.stop - first, *self.lead)
            if norms is None:
                losses[at] = member_losses(
                    fast, params, self.batch, self.loss, shape, self.initial_states, self.first_step, own.workspace
                )
            else:
                losses[at], norms[at] = self._with_gradient(params, shape, own.workspace)
            return at.stop - first

        done = 0
        with ThreadPoolExecutor(threads) as pool:
            run = pool.map if threads > 1 else map
            for points in run(chunk, range(0, n, few)):
                done += points
                if progress is not None:
                    progress(done, n)
        return losses, norms

    def _with_gradient(self, params: Params, shape: tuple[int, ...], workspace: Workspace) -> tuple[Array, Array]:
        """Each member needs parameters of its own: the gradient of a shared one is a sum."""
        own = {key: np.broadcast_to(value, (*shape, *self.net.shapes[key])) for key, value in params.items()}
        record = bptt(
            self.net,
            own,
            self.batch,
            self.loss,
            (),
            initial_states=self.initial_states,
            first_step=self.first_step,
            workspace=workspace,
        )
        with np.errstate(all="ignore"):
            return record.loss, np.exp(log_norm(ParameterVector(self.net.shapes).pack(record.gradients)))

    def at_once(self, points: int, with_gradient: bool, max_memory: int | None, threads: int) -> int:
        """How many points go through the network together, of equal shares: as many as the cache and the memory hold."""
        T, B = self.batch.inputs.shape[0], self.batch.inputs.shape[-2]
        itemsize = max(value.itemsize for value in self.vectors[0].values())
        members = math.prod(self.lead)
        steps, weights, widest = 0, sum(math.prod(shape) for shape in self.net.shapes.values()), 0
        for layer in self.net.layers:
            blocks, columns = layer.cell.tape_shape(layer.input_size, layer.hidden_size)
            pre = layer.cell.pre_size(layer.input_size, layer.hidden_size)
            kept = blocks * columns + 2 * layer.state_size + 2 * pre if with_gradient else layer.input_size
            steps += kept + layer.state_size + 2 * layer.output_size + layer.input_size
            widest = max(widest, layer.state_size)
        steps += 4 * (self.net.output_size or self.net.top_size)
        each = members * itemsize * ((T + 1) * B * steps + 4 * weights)
        limit = memory_limit(max_memory)
        if each > limit // threads:
            raise ResourceRefused(
                f"one point of the surface with T = {T}, B = {B} needs {gib(each)} on each of {threads} thread(s), the limit is "
                f"{gib(limit)}; use fewer sequences, fewer threads or a larger max_memory"
            )
        few: int = max(1, min(BLOCK // max(1, members * B * widest * itemsize), limit // threads // each))
        rounds: int = -(-points // few)
        rounds += -rounds % threads if rounds > 1 or with_gradient else 0
        return -(-points // rounds)


def _values(initial_states: Any) -> list[Any]:
    """The arrays in `initial_states`; what else it may be, the forward pass refuses."""
    return list(initial_states.values()) if isinstance(initial_states, Mapping) else []
