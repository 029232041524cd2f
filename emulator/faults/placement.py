"""Which memory each stored bit lives in: (tensor, bit planes) -> SPEC.

Weights live in the default memory unless a rule says otherwise; biases, thresholds, scales, zero points and activation buffers live
in a safe place (registers, logic) unless a rule names them. Equal SPECs share one array at disjoint addresses; different SPECs
never share cells.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import get_args

from weakcell.emulator.ir.faultable import collect_constants, storable, storable_names
from weakcell.emulator.ir.layers import Buffer, Network, Role, Storable
from weakcell.memmodels.catalogue import MemorySpec
from weakcell.memmodels.errors import UsageError
from weakcell.memmodels.memory import ConditionValue

ROLES: tuple[Role, ...] = get_args(Role)
"""What a rule can name by `ROLE:NAME`."""


@dataclass(frozen=True)
class Slot:
    """Some bit planes of one tensor or buffer, and the number of the array they live in."""

    tensor: str
    planes: tuple[int, ...]
    array: int


@dataclass(frozen=True)
class Placement:
    """Arrays (one SPEC each, array 0 is the default memory) and the slots that fill them, in the network's order."""

    arrays: tuple[MemorySpec, ...]
    slots: tuple[Slot, ...]

    def at(self, **conditions: ConditionValue) -> Placement:
        """The same placement with the default memory at another operating point."""
        return Placement((self.arrays[0].at(**conditions), *self.arrays[1:]), self.slots)

    def slots_of(self, tensor: str) -> tuple[Slot, ...]:
        return tuple(slot for slot in self.slots if slot.tensor == tensor)

    def bits(self, network: Network) -> int:
        """Cells used in all."""
        items = storable(network)
        return sum(len(slot.planes) * items[slot.tensor].elements for slot in self.slots)


def place(network: Network, memory: MemorySpec, rules: Sequence[tuple[str, MemorySpec]] = ()) -> Placement:
    """Place a network: every weight in `memory`, less what the rules move.

    A rule is (`NAME` or `NAME@planes`, SPEC). NAME is a tensor or the layer that uses it (then its weight), or a pattern with `*`
    that is tried on weights, or a part of a name that only one layer with weights has: `conv1` for `/conv1/Conv`. Planes are bit
    numbers and ranges, 0 the least significant: `fc1@6-7`, `*@7`. `ROLE:NAME` names what
    else can be placed: the biases, thresholds, scales or zero points of a layer, and the `buffer` or `accumulator` of a value or of
    the layer that makes it; patterns work there too: `scale:fc1`, `buffer:*`. Later rules win. UsageError if a rule names nothing.
    """
    items, arrays = storable(network), [memory]
    homes: dict[tuple[str, int], int] = {(t.name, plane): 0 for t in network.weights for plane in range(t.encoding.bits)}
    for target, spec in rules:
        if spec not in arrays:
            arrays.append(spec)
        name, _, planes = target.partition("@")
        matched = _matched(network, items, name) or _matched(network, items, _full_name(network, target, name))
        if not matched:
            also = _also([*layers_by_weight(network).values(), *network.tensors], name)
            raise UsageError(f"--place {target}={spec}", f"no layer or tensor is called {name!r}", also)
        for tensor in matched:
            for plane in _planes(target, planes, tensor):
                homes[tensor.name, plane] = arrays.index(spec)
    return Placement(tuple(arrays), tuple(_slots(items, homes)))


def _full_name(network: Network, target: str, name: str) -> str:
    """Return a name in full whose layer is given by a part of it, as `conv1` for `/conv1/Conv`.

    Raises:
        UsageError: Several layers have the part.
    """
    role, colon, short = name.rpartition(":")
    fitting = [layer for layer in layers_by_weight(network).values() if _has_part(layer, short)]
    if len(fitting) > 1:
        found = f"{short!r} could be {', '.join(fitting[:-1])} or {fitting[-1]}"
        raise UsageError(f"--place {target}", found, "Give the whole name, or a pattern with * for all of them")
    return f"{role}{colon}{fitting[0]}" if fitting else name


def _has_part(name: str, short: str) -> bool:
    """Whether one or several whole parts of a name, which `/` and `.` separate, are `short`."""
    whole, part = (f"/{text.replace('.', '/').strip('/')}/" for text in (name, short))
    return part != "//" and part in whole


def _also(known: Sequence[str], name: str) -> str:
    """What can be named instead of a name that nothing has, the nearest first: by the whole name, or a part of it."""
    parts = {part: one for one in reversed(known) for part in (one, *re.split(r"[/.]", one)) if part}
    near = list(dict.fromkeys(parts[part] for part in get_close_matches(name, parts, n=3)))
    hint = f"Did you mean {' or '.join(near)}? " if near else ""
    return f"{hint}Known: {', '.join(known)}; and scales, zero points and buffers, which weakcell inspect --storable lists"


def layers_by_weight(network: Network) -> dict[str, str]:
    """Weight tensor -> the name of the layer that uses it first."""
    names: dict[str, str] = {}
    for layer in network.layers:
        for name in layer.tensor_names():
            if network.tensors[name].role == "weight":
                names.setdefault(name, layer.name)
    return names


def _matched(network: Network, items: Mapping[str, Storable], pattern: str) -> list[Storable]:
    if pattern in items:
        return [items[pattern]]
    by_weight = layers_by_weight(network)
    used = {name for layer in network.layers if layer.name == pattern for name in layer.tensor_names()}
    exact: list[Storable] = [t for t in network.weights if t.name in used]
    if exact:
        return exact
    role, colon, name = pattern.partition(":")
    if colon and role in ROLES:
        users = _users(network)
        return [item for item in items.values() if item.role == role and _called(item, users, name)]
    return [t for t in network.weights if fnmatchcase(t.name, pattern) or fnmatchcase(by_weight.get(t.name, ""), pattern)]


def _called(item: Storable, users: Mapping[str, Sequence[str]], pattern: str) -> bool:
    """Whether a pattern names an item, a layer that uses it, or the value that it holds."""
    own = (item.name, item.value.name, item.layer or "") if isinstance(item, Buffer) else (item.name, *users.get(item.name, ()))
    return any(fnmatchcase(name, pattern) for name in own)


def _users(network: Network) -> Mapping[str, Sequence[str]]:
    """Tensor -> the layers that read it."""
    users: dict[str, list[str]] = {}
    constants = collect_constants(network)
    for layer in network.layers:
        for name in storable_names(layer, constants):
            users.setdefault(name, []).append(layer.name)
    return users


def _planes(target: str, text: str, tensor: Storable) -> list[int]:
    if not text:
        return list(range(tensor.encoding.bits))
    planes: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", part.strip())
        if not match or int(match[2] or match[1]) >= tensor.encoding.bits:
            raise UsageError(
                f"--place {target}",
                f"{part!r} is no bit or range of bits of {tensor.name} ({tensor.encoding})",
                "Count bits from 0",
            )
        low, high = sorted((int(match[1]), int(match[2] or match[1])))
        planes.update(range(low, high + 1))
    return sorted(planes)


def _slots(items: Mapping[str, Storable], homes: Mapping[tuple[str, int], int]) -> list[Slot]:
    slots = []
    for name in items:
        own = {plane: home for (placed, plane), home in homes.items() if placed == name}
        for array in sorted(set(own.values())):
            slots.append(Slot(name, tuple(sorted(p for p, home in own.items() if home == array)), array))
    return slots
