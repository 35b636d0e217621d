"""Which recurrent layers the names in a file spell, in the naming of torch, Keras or gradlab."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from gradlab.errors import FormatError, ValueRangeError

LAYOUTS = ("torch", "keras", "gradlab")

TORCH = re.compile(r"(?P<prefix>|.*\.)(?P<what>(?:weight|bias)_(?:ih|hh|hr))(?:_l(?P<level>\d+)(?P<back>_reverse)?)?")
KERAS = re.compile(r"(?P<prefix>|.*[/.])(?P<what>kernel|recurrent_kernel|bias)(?::0)?")
SIDE = re.compile(r"(?P<before>|.*[/.])(?P<side>forward|backward)_(?P<rest>\w+[/.].*)")
STACK = re.compile(r"(?P<prefix>|.*[/.])layer_(?P<level>\d+)[/.]")
GRADLAB = re.compile(r"(?P<prefix>|.*[/.])(?P<level>\d+)\.(?:(?P<side>forward|backward)\.)?(?P<what>[A-Za-z]\w*)")
READOUT = ("readout.V", "readout.b_y")
LETTERS = ({"W", "U"}, {"A", "R"})
"""Letters of which each of gradlab's own cells has a pair."""

Slot = tuple[int, str]
"""Level from the bottom up, and direction: "" if there is one, else "forward" or "backward"."""


@dataclass(frozen=True)
class Group:
    """The tensors of one recurrent network: `members[slot][what]` is a name in the file; `readout` by gradlab's key."""

    layout: str
    prefix: str
    members: Mapping[Slot, Mapping[str, str]]
    readout: Mapping[str, str]


def find_groups(names: Iterable[str], layout: str | None = None) -> list[Group]:
    """All recurrent networks that `names` spell, in any naming; told that it is gradlab's, with any letters."""
    names = list(names)
    return [*_torch(names), *_keras(names), *_gradlab(names, layout == "gradlab")]


def choose(label: str, names: tuple[str, ...], layout: str | None, prefix: str | None) -> Group:
    """The one group that `layout` and `prefix` leave. Error: ValueRangeError that lists what there is; never a guess."""
    groups = find_groups(names, layout)
    bare = None if prefix is None else prefix.rstrip("./")
    left = [g for g in groups if layout in (None, g.layout) and bare in (None, g.prefix.rstrip("./"))]
    if len(left) == 1:
        return left[0]
    told = "; ".join(f"{g.layout} naming, prefix={g.prefix.rstrip('./')!r}" for g in groups[:20])
    asked = f"layout={layout!r}, prefix={prefix!r}"
    if left:
        raise ValueRangeError(
            f"{label}: {len(left)} recurrent networks fit {asked}; give layout= or prefix= to choose from: {told}"
        )
    if groups:
        raise ValueRangeError(f"{label}: no recurrent network fits {asked}; there are: {told}")
    some = ", ".join(repr(name[:80]) for name in names[:8]) or "none"
    expected = "weight_hh_l0 (torch), recurrent_kernel (keras) or 0.U (gradlab)"
    raise FormatError(f"{label}: no recurrent layer among its names ({some}); expected {expected}")


def _torch(names: list[str]) -> list[Group]:
    found: dict[str, dict[Slot, dict[str, str]]] = {}
    for name in names:
        match = TORCH.fullmatch(name)
        if match:
            slot = int((match["level"] or "0")[:6]), "backward" if match["back"] else "forward"
            own = found.setdefault(match["prefix"], {}).setdefault(slot, {})
            if match["what"] in own:
                raise FormatError(f"{own[match['what']]!r} and {name!r} are the same weight of a cell and of a layer")
            own[match["what"]] = name
    groups = []
    for prefix, slots in found.items():
        if any("weight_hh" in own for own in slots.values()):
            both = any(side == "backward" for _, side in slots)
            members = {(level, side if both else ""): own for (level, side), own in slots.items()}
            other = [f"{prefix}{key}" for key in ("bias", "bias_n") if f"{prefix}{key}" in names]
            if other and not any("bias_ih" in own for own in slots.values()):
                raise FormatError(
                    f"{prefix}weight_hh has {', '.join(other)} beside it, as in Equinox; expected bias_ih and bias_hh"
                )
            groups.append(Group("torch", prefix, members, {}))
    return groups


def _keras(names: list[str]) -> list[Group]:
    cells: dict[str, dict[str, str]] = {}
    for name in names:
        match = KERAS.fullmatch(name)
        if match:
            cells.setdefault(match["prefix"], {})[match["what"]] = name
    cells = {prefix: own for prefix, own in cells.items() if "recurrent_kernel" in own}
    levels: dict[str, dict[str, dict[str, str]]] = {}
    for prefix, own in cells.items():
        match = SIDE.fullmatch(prefix)
        other = {"forward": "backward", "backward": "forward"}
        if match and f"{match['before']}{other[match['side']]}_{match['rest']}" in cells:
            before, _, rest = match["before"], match["side"], match["rest"]
            levels.setdefault(before or f"*{rest}", {})[match["side"]] = own
        else:
            levels.setdefault(prefix, {})[""] = own
    stacks: dict[str, dict[Slot, dict[str, str]]] = {}
    for prefix, sides in levels.items():
        prefix = "" if prefix.startswith("*") else prefix
        match = STACK.fullmatch(prefix)
        base, level = (match["prefix"], int(match["level"][:6])) if match else (prefix, 0)
        for side, own in sides.items():
            if (level, side) in stacks.setdefault(base, {}):
                raise FormatError(f"the layers at {prefix!r} cannot be told apart by their names")
            stacks[base][level, side] = own
    return [Group("keras", prefix, members, {}) for prefix, members in stacks.items()]


def _gradlab(names: list[str], any_letters: bool) -> list[Group]:
    found: dict[str, dict[Slot, dict[str, str]]] = {}
    for name in names:
        match = GRADLAB.fullmatch(name)
        if match and TORCH.fullmatch(name) is None and KERAS.fullmatch(name) is None:
            slot = int(match["level"][:6]), match["side"] or ""
            found.setdefault(match["prefix"], {}).setdefault(slot, {})[match["what"]] = name
    groups = []
    for prefix, slots in found.items():
        if any_letters or any(letters <= set(keys) for keys in slots.values() for letters in LETTERS):
            readout = {key: prefix + key for key in READOUT if prefix + key in names}
            groups.append(Group("gradlab", prefix, slots, readout))
    return groups


def check_slots(label: str, group: Group) -> tuple[int, bool]:
    """Number of levels, and whether there are two directions. Error: FormatError for gaps."""
    levels = sorted({level for level, _ in group.members})
    sides = sorted({side for _, side in group.members})
    complete = levels == list(range(len(levels))) and len(group.members) == len(levels) * len(sides)
    if not complete or sides not in ([""], ["backward", "forward"]):
        told = str(sorted(group.members))[:200]
        raise FormatError(f"{label}: the layers {told} have gaps; expected 0, 1, ... in each direction")
    return len(levels), len(sides) == 2
