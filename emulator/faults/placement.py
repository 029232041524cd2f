"""Placement: which memory each stored bit lives in, (tensor, bit planes) -> SPEC.

Weights live in the default memory unless a rule says otherwise. Biases, thresholds, scales, zero points and activation buffers live
in a safe place (registers, logic) unless a rule names them. Equal SPECs share one array at disjoint addresses. Different SPECs
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
from weakcell.emulator.ir.network import Network
from weakcell.emulator.ir.values import Buffer, Role, Storable
from weakcell.memmodels.catalogue import MemorySpec
from weakcell.memmodels.errors import UsageError
from weakcell.memmodels.memory import ConditionValue

ROLES: tuple[Role, ...] = get_args(Role)
"""The roles that a rule can name, as `ROLE:NAME`."""


@dataclass(frozen=True)
class Slot:
    """Some bit planes of one tensor or buffer, and the index of the array that they live in."""

    tensor: str
    planes: tuple[int, ...]
    array: int


@dataclass(frozen=True)
class Placement:
    """Where everything lives.

    Attributes:
        arrays: one SPEC per array; array 0 is the default memory.
        slots: the slots that fill them, in the order of the network.
    """

    arrays: tuple[MemorySpec, ...]
    slots: tuple[Slot, ...]

    def at(self, **conditions: ConditionValue) -> Placement:
        """Return this placement with the default memory at another operating point."""
        return Placement((self.arrays[0].at(**conditions), *self.arrays[1:]), self.slots)

    def slots_of(self, tensor: str) -> tuple[Slot, ...]:
        """Return the slots of a tensor or buffer."""
        return tuple(slot for slot in self.slots if slot.tensor == tensor)

    def bits(self, network: Network) -> int:
        """Return the number of cells in use."""
        items = storable(network)
        return sum(len(slot.planes) * items[slot.tensor].elements for slot in self.slots)


def place(network: Network, memory: MemorySpec, rules: Sequence[tuple[str, MemorySpec]] = ()) -> Placement:
    """Place every weight of a network in `memory`, except what the rules move elsewhere.

    A rule is (`NAME` or `NAME@planes`, SPEC). Later rules win.

    - NAME is a tensor; or the layer that uses it, for its weight; or a pattern with `*` for weights; or a part of a name that only
      one layer with weights has: `conv1` for `/conv1/Conv`.
    - Planes are bit numbers and ranges, 0 the least significant: `fc1@6-7`, `*@7`.
    - `ROLE:NAME` names what else can be placed: the biases, thresholds, scales or zero points of a layer, and the `buffer` or
      `accumulator` of a value or of the layer that makes it, or the key-value `cache` of that name. Patterns work there, too:
      `scale:fc1`, `buffer:*`, `cache:*`.

    Args:
        network: the network.
        memory: the default memory.
        rules: what else lives where.

    Raises:
        UsageError: a rule names nothing, or a bit that is not there.
    """
    items, arrays = storable(network), [memory]
    array_of: dict[tuple[str, int], int] = {(t.name, plane): 0 for t in network.weights for plane in range(t.encoding.bits)}
    for target, spec in rules:
        if spec not in arrays:
            arrays.append(spec)
        name, _, planes = target.partition("@")
        matched = _match(network, items, name) or _match(network, items, _complete_name(network, target, name))
        if not matched:
            hint = _suggest([*layers_by_weight(network).values(), *network.tensors], name)
            raise UsageError(f"--place {target}={spec}", f"no layer or tensor is called {name!r}", hint)
        for tensor in matched:
            for plane in _parse_planes(target, planes, tensor):
                array_of[tensor.name, plane] = arrays.index(spec)
    return Placement(tuple(arrays), tuple(_make_slots(items, array_of)))


def _complete_name(network: Network, target: str, name: str) -> str:
    """Return the full name for one that gives only a part of its layer, as `conv1` for `/conv1/Conv`.

    Raises:
        UsageError: Several layers have the part.
    """
    role, colon, short = name.rpartition(":")
    candidates = [layer for layer in layers_by_weight(network).values() if _has_part(layer, short)]
    if len(candidates) > 1:
        found = f"{short!r} could be {', '.join(candidates[:-1])} or {candidates[-1]}"
        raise UsageError(f"--place {target}", found, "Give the whole name, or a pattern with * for all of them")
    return f"{role}{colon}{candidates[0]}" if candidates else name


def _has_part(name: str, short: str) -> bool:
    """Return whether `short` is one or several whole parts of a name; `/` and `.` separate parts."""
    whole, part = (f"/{text.replace('.', '/').strip('/')}/" for text in (name, short))
    return part != "//" and part in whole


def _suggest(known: Sequence[str], name: str) -> str:
    """Return what can be named instead of a name that nothing has; the nearest whole names or parts of names come first."""
    parts = {part: full for full in reversed(known) for part in (full, *re.split(r"[/.]", full)) if part}
    near = list(dict.fromkeys(parts[part] for part in get_close_matches(name, parts, n=3)))
    hint = f"Did you mean {' or '.join(near)}? " if near else ""
    return f"{hint}Known: {', '.join(known)}; and scales, zero points, buffers and caches, which weakcell inspect --storable lists"


def layers_by_weight(network: Network) -> dict[str, str]:
    """Return for each weight tensor the name of the layer that uses it first."""
    names: dict[str, str] = {}
    for layer in network.layers:
        for name in layer.tensor_names():
            if network.tensors[name].role == "weight":
                names.setdefault(name, layer.name)
    return names


def _match(network: Network, items: Mapping[str, Storable], pattern: str) -> list[Storable]:
    if pattern in items:
        return [items[pattern]]
    by_weight = layers_by_weight(network)
    used = {name for layer in network.layers if layer.name == pattern for name in layer.tensor_names()}
    exact: list[Storable] = [t for t in network.weights if t.name in used]
    if exact:
        return exact
    role, colon, name = pattern.partition(":")
    if colon and role in ROLES:
        users = _layers_by_tensor(network)
        return [item for item in items.values() if item.role == role and _has_name(item, users, name)]
    return [t for t in network.weights if fnmatchcase(t.name, pattern) or fnmatchcase(by_weight.get(t.name, ""), pattern)]


def _has_name(item: Storable, users: Mapping[str, Sequence[str]], pattern: str) -> bool:
    """Return whether a pattern names an item, a layer that uses it, or the value that it holds."""
    names = (item.name, item.value.name, item.layer or "") if isinstance(item, Buffer) else (item.name, *users.get(item.name, ()))
    return any(name == pattern or fnmatchcase(name, pattern) for name in names)


def _layers_by_tensor(network: Network) -> Mapping[str, Sequence[str]]:
    """Return for each storable tensor the names of the layers that read it."""
    users: dict[str, list[str]] = {}
    constants = collect_constants(network)
    for layer in network.layers:
        for name in storable_names(layer, constants):
            users.setdefault(name, []).append(layer.name)
    return users


def _parse_planes(target: str, text: str, tensor: Storable) -> list[int]:
    if not text:
        return list(range(tensor.encoding.bits))
    planes: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", part.strip(), re.ASCII)
        if not match or int(match[2] or match[1]) >= tensor.encoding.bits:
            raise UsageError(
                f"--place {target}",
                f"{part!r} is no bit or range of bits of {tensor.name} ({tensor.encoding})",
                "Count bits from 0",
            )
        low, high = sorted((int(match[1]), int(match[2] or match[1])))
        planes.update(range(low, high + 1))
    return sorted(planes)


def _make_slots(items: Mapping[str, Storable], array_of: Mapping[tuple[str, int], int]) -> list[Slot]:
    slots = []
    for name in items:
        arrays = {plane: array for (placed, plane), array in array_of.items() if placed == name}
        for array in sorted(set(arrays.values())):
            slots.append(Slot(name, tuple(sorted(plane for plane, a in arrays.items() if a == array)), array))
    return slots
