"""What goes wrong on a virtual board: memory models for its cells, and failures of the board itself."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

import numpy as np
import numpy.typing as npt

from weakcell.host.board.boards import BOARDS
from weakcell.host.board.virtual.rail import RailFaults
from weakcell.memmodels.address import Layout, Words
from weakcell.memmodels.catalogue import MemorySpec, open_memory, parse_spec
from weakcell.memmodels.errors import MemorySpecError, UsageError
from weakcell.memmodels.memory import Key, Memory
from weakcell.memmodels.numbers import parse_number


class FaultyBoard(Protocol):
    """The part of a virtual board that a fault sees."""

    @property
    def sram(self) -> npt.NDArray[np.uint8]:
        """All SRAM: (bytes,) uint8, a view."""
        ...

    @property
    def arena(self) -> npt.NDArray[np.uint64]:
        """The cells under test: (words,) uint64, a view."""
        ...


RetentionFault = Callable[[FaultyBoard, float], None]
"""Changes the arena in place, given the board and the new voltage in V."""
AccessFault = Callable[[FaultyBoard, float], Words]
"""Returns the bits of the arena that are accessed wrongly, given the board and the voltage in V."""
_REGION = "arena"


class BoardFailure(StrEnum):
    """How a board fails.

    HANG: the CPU stops until the watchdog resets it. RESET: a watchdog reset, at once. BROWN_OUT: a moment without power; SRAM is
    lost, and only a flash image comes back.
    """

    HANG = "hang"
    RESET = "reset"
    BROWN_OUT = "brown-out"


@dataclass(frozen=True)
class Misbehaviour:
    """Random failures of a board.

    Attributes:
        hang, reset: probability at each lowering of the voltage.
        brown_out: voltage below which power is lost, in V.
        power_loss: probability of a loss of power at each lowering of the voltage.
        lock_up: probability of a hang at each lowering that only a power cycle ends.
        noise: share of frames, in each direction, that are damaged, lost, repeated or delayed.
        ignore_voltage: the regulator's register does not move.
        rail: how the core voltage differs from the register.
    """

    hang: float = 0.0
    reset: float = 0.0
    brown_out: float = 0.0
    noise: float = 0.0
    ignore_voltage: bool = False
    rail: RailFaults = field(default_factory=RailFaults)
    power_loss: float = 0.0
    lock_up: float = 0.0


_LIMITS = {
    "hang": 1.0,
    "reset": 1.0,
    "power-loss": 1.0,
    "lock-up": 1.0,
    "brown-out": max(board.regulator.nominal_v for board in BOARDS.values()),
    "noise": 1.0,
    "floor": max(board.regulator.nominal_v for board in BOARDS.values()),
    "fall": 1e6,
    "count-noise": 0.5,
}


_FLAGS = ("ignore-voltage", "bypass")


def parse_misbehaviour(text: str) -> Misbehaviour:
    """Parse `hang=0.1,noise=0.02,brown-out=0.7,fall=20,ignore-voltage`; UsageError names an unknown or wrong part."""
    values: dict[str, float] = {}
    flags: set[str] = set()
    for part in filter(None, text.split(",")):
        name, _, value = part.partition("=")
        if part in _FLAGS:
            flags.add(part)
            continue
        if name not in _LIMITS:
            known = ", ".join([*_LIMITS, *_FLAGS])
            raise UsageError(f"--misbehave {part}", "there is no such misbehaviour", f"Choose from {known}")
        try:
            values[name] = parse_number(value)
        except ValueError as error:
            raise UsageError(f"--misbehave {part}", f"{value!r} is not a number", f"Write for instance {name}=0.1") from error
        if not 0 <= values[name] <= _LIMITS[name]:
            raise UsageError(f"--misbehave {part}", "it is out of range", f"Give 0 to {_LIMITS[name]:g}")
    get = values.get
    rail = RailFaults("bypass" in flags, get("floor", 0.0), get("fall", 0.0), noise=get("count-noise", 0.0))
    voltages = get("brown-out", 0.0), get("noise", 0.0), "ignore-voltage" in flags
    losses = get("power-loss", 0.0), get("lock-up", 0.0)
    return Misbehaviour(get("hang", 0.0), get("reset", 0.0), *voltages, rail, *losses)


def make_retention_fault(spec: str, seed: int = 0, pulses: int = 0) -> RetentionFault:
    """Make the fault of cells that lose their bit.

    Args:
        spec: SPEC of the memory. Its condition `vdd`, if it has one, follows the regulator. Above the range of its law, errors are
            those at the upper end: the regulator passes there on the way down.
        seed: of the memory's die.
        pulses: low phases of an earlier session, whose errors are not drawn again.
    """
    memory = open_memory(spec, seed)
    _compile_sampler(open_memory(spec, seed))
    parsed = parse_spec(spec)
    vdd = next((condition for condition in parsed.technology.conditions if condition.name == "vdd"), None)
    highest = math.inf if vdd is None or vdd.high is None else vdd.high
    if vdd is not None and vdd.low is not None and vdd.high is not None:
        _check_law(parsed, vdd.low, vdd.high)

    def lose_bits(board: FaultyBoard, volts: float) -> None:
        nonlocal pulses
        at_voltage = memory.at(vdd=min(volts, highest)) if "vdd" in memory.conditions else memory
        region = at_voltage.write(board.arena.copy(), Layout(_REGION, board.arena.size * 64, 1), Key(0, pulses))
        at_voltage.read(region, Key(0, pulses), board.arena)
        pulses += 1

    return lose_bits


def _check_law(spec: MemorySpec, low: float, high: float) -> None:
    """Refuse cells that are known at some voltages only: a regulator passes all voltages on the way down.

    Args:
        spec: The memory.
        low: Lowest voltage that it covers, in V.
        high: Highest voltage that it covers, in V.
    """
    spec.at(vdd=high).check()
    try:
        spec.at(vdd=low + (high - low) / math.e).check()  # a voltage that nobody measured
    except MemorySpecError as error:
        do = "Emulate it without a board (--memory file:PATH), or measure more voltages with errors, so that a law is fitted"
        found = f"a board passes all voltages on the way down, and {error.found}"
        raise MemorySpecError(f"A virtual board with cells of {spec}", found, do) from error


def make_access_fault(spec: str, seed: int = 0, pulses: int = 0) -> AccessFault:
    """Make the fault of cells that are read or written wrongly; arguments as in `make_retention_fault`."""
    lose_bits = make_retention_fault(spec, seed, pulses)

    def find_wrong_bits(board: FaultyBoard, volts: float) -> Words:
        before = board.arena.copy()
        lose_bits(board, volts)
        changed = board.arena ^ before
        board.arena[:] = before
        return changed

    return find_wrong_bits


def _compile_sampler(memory: Memory) -> None:
    """Read one word, so that loading and compiling do not look like a silent board later."""
    region = memory.write(np.zeros(1, np.uint64), Layout(_REGION, 64, 1), Key())
    memory.read(region, Key(), np.zeros(1, np.uint64))
