"""The hooks on a torch model: they copy what recurrent modules read, emit and get back, and change nothing.

Nothing of a call is held here: the graph of the user's own forward pass holds it, through a hook on the nodes of its outputs,
and lets it go when the graph goes. A backward pass is recognised by the first of these hooks that it reaches; its end by the
callback that torch's engine then takes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from itertools import count
from typing import Any
from weakref import ref

import numpy.typing as npt

from gradlab.adapters.pytorch import Spec, weights_of
from gradlab.adapters.watch_call import (
    Call,
    copied,
    lengths_of,
    parse,
    redraw_masks,
    require_cpu,
    require_precision,
    shape_of,
    states_of,
)
from gradlab.errors import ValueRangeError

Array = npt.NDArray[Any]


class Tracker:
    """Captures calls of `modules` while it is attached, and tells `ended(calls, weight gradients)` of every backward pass.

    Calls that no gradient can reach are told to `idle(name, reason)`; what goes wrong in a hook to `failed(error)`, so that
    no exception of this tool ever reaches the user's forward or backward pass.
    """

    def __init__(
        self,
        torch: Any,
        modules: Mapping[str, tuple[Any, Spec]],
        ended: Callable[[list[Call], dict[int, Array]], None],
        idle: Callable[[str, str], None],
        failed: Callable[[Exception], None],
    ) -> None:
        self.torch, self.modules = torch, modules
        self._ended, self._idle, self._failed = ended, idle, failed
        self._module_hooks: list[Any] = []
        self._weight_hooks: dict[int, tuple[Any, Any]] = {}  # tensor and handle, by id of the tensor, which is so kept alive
        self._ticks: list[Any] = []
        self._copies: dict[int, tuple[Any, int, Array]] = {}  # tensor, its version, its values
        self._generators: dict[str, Any] = {}
        self._numbers: Counter[str] = Counter()
        self._order = count()
        self._made: list[tuple[str, ref[Call]]] = []
        self._ends: dict[int, tuple[Any, Any, ref[Call]]] = {}  # of cells: what a call left, by id of h
        self._compiled = ""
        self._task = -1
        self._reached: dict[Call, None] = {}
        self._weight_gradients: dict[int, Array] = {}

    # ---- on and off -----------------------------------------------------------------------------------

    def attach(self) -> None:
        """Capture from now on."""
        self._drop(self._ticks)
        if not self._module_hooks:
            for name, (module, spec) in self.modules.items():
                after = module.register_forward_hook(partial(self._after, name, spec), with_kwargs=True, prepend=True)
                self._module_hooks.append(after)
                self._module_hooks.append(module.register_forward_pre_hook(partial(self._before, name, spec)))

    def detach(self, counted: Iterable[Any] = ()) -> None:
        """Capture no more; on the tensors `counted` stays a hook that sees a backward pass go by."""
        self._drop(self._module_hooks)
        self._drop([handle for _, handle in self._weight_hooks.values()])
        self._weight_hooks.clear()
        for _, made in self._made:
            call = made()
            if call is not None:
                self._drop(call.handles)
        self._made.clear()
        self._copies.clear()
        self._ends.clear()
        self._drop(self._ticks)
        self._ticks = [tensor.register_hook(self._tick) for tensor in counted]

    @staticmethod
    def _drop(handles: list[Any]) -> None:
        for handle in handles:
            handle.remove()
        handles.clear()

    # ---- forward --------------------------------------------------------------------------------------

    def _before(self, name: str, spec: Spec, module: Any, args: Any) -> None:
        if self.torch.compiler.is_compiling():
            self._compiled = name  # traced by the compiler: it can do no more here
            return
        if self.torch._C._current_graph_task_id() != -1:
            text = f"module {name!r} is run again inside the backward pass, as torch.utils.checkpoint does"
            self._failed(ValueRangeError(f"{text}; expected one forward pass; try a few updates without checkpointing"))
        elif spec.dropout and module.training:
            self._generators[name] = self.torch.get_rng_state()

    def _after(self, name: str, spec: Spec, module: Any, args: Any, kwargs: Any, output: Any) -> None:
        if self.torch.compiler.is_compiling():
            return
        try:
            self._capture(name, spec, module, args, kwargs, output)
        except Exception as error:
            self._failed(error)

    def _capture(self, name: str, spec: Spec, module: Any, args: Any, kwargs: Any, output: Any) -> None:
        torch = self.torch
        if torch._C._current_graph_task_id() != -1:
            return  # a checkpoint, refused above
        number = self._numbers[name]
        self._numbers[name] += 1
        x, hx = parse(args, kwargs)
        shape = shape_of(torch, spec, x)
        y, final = (None, output) if spec.single else output
        emitted = dict(zip(("h_n", "c_n"), states_of(spec, final), strict=True))
        if y is not None and shape.packed is not None:
            y = y.data
        if y is not None:
            emitted["y"] = y
        emitted = {what: tensor for what, tensor in emitted.items() if tensor is not None}
        if not any(tensor.requires_grad for tensor in emitted.values()):
            self._idle(name, "no gradient can arrive: torch.no_grad, inference mode, or nothing in it requires a gradient")
            return
        tensors = weights_of(module, spec)
        data = x if shape.packed is None else x.data
        require_precision(torch, name, {"input": data, **tensors, "output": emitted["h_n"]})
        masks: dict[int, Array] = {}
        if spec.dropout and module.training:
            require_cpu(name, data.device, spec.dropout)
            masks = redraw_masks(torch, spec, shape, x, self._generators.pop(name))
        h_0, c_0 = (None if tensor is None else shape.state(tensor) for tensor in states_of(spec, hx))
        h_n = shape.state(emitted["h_n"])
        call = Call(
            name=name,
            number=number,
            order=next(self._order),
            spec=spec,
            shape=shape,
            training=module.training,
            x=shape.sequence(torch, data),
            initial={},
            lengths=lengths_of(torch, shape),
            weights={key: (id(tensor), self._copy(tensor)) for key, tensor in tensors.items()},
            trainable=frozenset(key for key, tensor in tensors.items() if tensor.requires_grad),
            y=h_n if y is None else shape.sequence(torch, y),
            h_n=h_n,
            c_n=shape.state(emitted["c_n"]) if "c_n" in emitted else None,
            masks=masks,
        )
        call.initial = call.by_layer(h_0, c_0)
        if spec.single:
            self._link(call, hx, output)
        for what, tensor in emitted.items():
            if tensor.grad_fn is not None:  # the node, and not the tensor: what arrives here has passed the user's own hooks
                hook = partial(self._arrived, call, what, tensor.output_nr)
                call.handles.append(tensor.grad_fn.register_prehook(hook))
        for tensor in tensors.values():
            self._hook_weight(tensor)
        self._made.append((name, ref(call)))
        if len(self._made) > 1000:
            self._made = self._told(lambda call: True)

    def _link(self, call: Call, hx: Any, output: Any) -> None:
        """Join a cell's call to the one whose output it reads; and note how the graph counts the gradient at c."""
        h, c = states_of(call.spec, hx)
        before = self._ends.pop(id(h), None)
        if before is not None and before[0]() is h and (c is None or before[1]() is c):
            previous = before[2]()
            if previous is not None and {k for k, _ in previous.weights.values()} == {k for k, _ in call.weights.values()}:
                call.previous = previous
        h, c = states_of(call.spec, output)
        self._ends[id(h)] = (ref(h), None if c is None else ref(c), ref(call))
        inner = [f for f, _ in h.grad_fn.next_functions if f is not None] if h.grad_fn is not None else []
        call.through_h = c is not None and any(f is c.grad_fn for g in inner for f, _ in g.next_functions)

    def _copy(self, tensor: Any) -> Array:
        known = self._copies.get(id(tensor))
        if known is None or known[1] != tensor._version:
            known = self._copies[id(tensor)] = tensor, tensor._version, copied(tensor)
        return known[2]

    def _hook_weight(self, tensor: Any) -> None:
        if tensor.requires_grad and id(tensor) not in self._weight_hooks:
            handle = tensor.register_hook(partial(self._weight, id(tensor)))
            own = tensor._backward_hooks
            rest = [(key, hook) for key, hook in own.items() if key != handle.id]
            for key, _ in rest:
                del own[key]
            own.update(rest)  # now behind this one: the user's own hooks may clip
            self._weight_hooks[id(tensor)] = tensor, handle

    # ---- backward -------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """A backward pass has come by; whatever an interrupted one left is forgotten."""
        task = self.torch._C._current_graph_task_id()
        if task != self._task:
            self._clear()
            self._task = task
            self.torch.autograd.Variable._execution_engine.queue_callback(self._end)

    def _arrived(self, call: Call, what: str, index: int, gradients: Any) -> None:
        try:
            self._begin()
            gradient = gradients[index]
            if gradient is not None:
                self._reached[call] = None
                call.arrived[what] = call.shape.sequence(self.torch, gradient) if what == "y" else call.shape.state(gradient)
        except Exception as error:
            self._failed(error)

    def _weight(self, key: int, gradient: Any) -> None:
        try:
            self._begin()
            self._weight_gradients[key] = copied(gradient)
        except Exception as error:
            self._failed(error)

    def _tick(self, gradient: Any) -> None:
        self._begin()

    def _end(self) -> None:
        try:
            calls = sorted(self._reached, key=lambda call: call.order)
            seen = {key for call in calls for key, _ in call.weights.values()}
            lost = self._weight_gradients.keys() - seen
            waiting = []
            for name, made in self._told(lambda call: call not in self._reached):
                call = made()
                if call is not None and lost & {key for key, _ in call.weights.values()}:
                    self._idle(name, "a gradient reached its weights, but not by its outputs: were they changed in place?")
                else:
                    waiting.append((name, made))
            self._made = waiting
            self._ended(calls, self._weight_gradients)
        except Exception as error:
            self._failed(error)
        finally:
            self._forget()

    def _clear(self) -> None:
        for call in self._reached:
            call.arrived = {}
        self._reached, self._weight_gradients, self._task = {}, {}, -1

    def _forget(self) -> None:
        """What belongs to the pass that has ended, forward and back."""
        self._clear()
        self._numbers.clear()
        self._copies.clear()
        self._ends.clear()
        for key in [key for key, (tensor, _) in self._weight_hooks.items() if not tensor.is_leaf]:
            self._weight_hooks.pop(key)[1].remove()

    @property
    def attached(self) -> bool:
        """Whether calls are captured."""
        return bool(self._module_hooks)

    def _told(self, keep: Callable[[Call], bool]) -> list[tuple[str, ref[Call]]]:
        """Captured calls that may still get a gradient; of those whose graph is gone it is told that none came."""
        waiting = []
        for name, made in self._made:
            call = made()
            if call is None:
                self._idle(name, "no gradient arrived: its outputs were detached, or no loss was made of them")
            elif keep(call):
                waiting.append((name, made))
        return waiting

    def close(self) -> None:
        """Remove every hook, and tell of calls that no backward pass reached."""
        for name, _ in self._told(lambda call: True):
            self._idle(name, "no backward pass came")
        if self._compiled:
            text = f"module {self._compiled!r} is called under torch.compile, which hides it from hooks; expected eager mode"
            self._failed(ValueRangeError(text))
            self._compiled = ""
        self.detach()
