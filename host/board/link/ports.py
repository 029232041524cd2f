"""Where a board is: `auto`, a port's name, `socket://HOST:PORT`, or `virtual:CHIP`; and whose flips a virtual board makes.

`virtual:CHIP[SPEC]` says of which memory the cells of a virtual board are.
"""

from __future__ import annotations

import re
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

from weakcell.host.board.errors import BoardError
from weakcell.host.board.link.transport import SerialTransport, Transport
from weakcell.memmodels.errors import UsageError

if TYPE_CHECKING:
    from weakcell.host.board.virtual.board import Flips, OnVoltage, VirtualBoard
    from weakcell.memmodels.address import Words
    from weakcell.memmodels.memory import Memory

FailsAt = Literal["retention", "read", "write"]
_CELLS_NAME = "arena"


def open_port(where: str, memory: str | None = None, seed: int = 0, pulses: int = 0, fails_at: FailsAt = "retention") -> Transport:
    """Open a transport. memory: the SPEC whose flips a virtual board makes; a real board has its own.

    pulses: how many a virtual board has had before, so that a resumed run does not draw the same errors again. fails_at: whether
    the memory's flips are cells that lose their bit, that read wrongly, or that are written wrongly while the voltage is low.
    """
    if virtual := re.fullmatch(r"virtual:([^\[\]]*)(?:\[(.*)\])?", where):
        spec = memory or virtual[2]
        if fails_at == "retention":
            return virtual_board(virtual[1], spec, seed, pulses)
        return virtual_board(virtual[1], None, seed, pulses, **{f"{fails_at}s": spec or ""})
    if memory is not None:
        raise UsageError(
            f"--memory {memory} with --port {where}", "a real board flips its own cells", "Leave it out, or use virtual:CHIP"
        )
    return SerialTransport(find_port() if where == "auto" else where)


def find_port() -> str:
    """The one USB serial port that is plugged in; BoardError names all of them if there are several."""
    found = [port for port, _ in usb_ports()]
    if not found:
        raise BoardError("Looking for a USB serial adapter", "there is none", "Plug it in, or name the port: --port /dev/ttyUSB0")
    if len(found) > 1:
        raise BoardError(
            "Looking for a USB serial adapter", f"there are several: {', '.join(found)}", f"Name one: --port {found[0]}"
        )
    return found[0]


def usb_ports() -> list[tuple[str, str]]:
    """(name, description) of every USB serial port, by name; BoardError if pyserial is not installed."""
    try:
        list_ports: Any = import_module("serial.tools.list_ports")
    except ModuleNotFoundError as error:
        do = "Install it with pip install 'weakcell[board]'"
        raise BoardError("Looking for a USB serial adapter", "pyserial is not installed", do) from error
    return sorted((port.device, str(port.description)) for port in list_ports.comports() if port.vid is not None)


def virtual_board(
    chip: str,
    memory: str | None = None,
    seed: int = 0,
    pulses: int = 0,
    *,
    reads: str | None = None,
    writes: str | None = None,
    misbehave: str = "",
    image: str = "ram",
) -> Transport:
    """A virtual board whose cells are a memory model's. pulses: of an earlier session, whose flips are not drawn again.

    memory: what cells lose while the voltage is low. reads, writes: what goes wrong only as they are read, or written, while it is
    low. misbehave: see `weakcell.host.board.virtual.faults`. image: ram or flash.
    """
    from weakcell.host.board.link.noise import NoisyTransport
    from weakcell.host.board.virtual.faults import parse_misbehaviour

    wrong = parse_misbehaviour(misbehave)
    try:
        from weakcell.host.board.virtual.board import VirtualBoard

        board = VirtualBoard(
            chip, flips_of(memory, seed, pulses) if memory else None, image, mask_of(reads, seed, pulses) if reads else None,
            mask_of(writes, seed, pulses) if writes else None, wrong, seed,
        )  # fmt: skip
    except ModuleNotFoundError as error:
        raise BoardError(
            f"A virtual {chip}", f"{error.name} is not installed", "Install it with pip install 'weakcell[virtual]'"
        ) from error
    return NoisyTransport(board, wrong.noise, seed) if wrong.noise else board


def mask_of(spec: str, seed: int = 0, pulses: int = 0) -> Flips:
    """Which bits of the arena a memory misreads, at a voltage as in `flips_of`."""
    flip = flips_of(spec, seed, pulses)

    def mask(board: VirtualBoard, volts: float) -> Words:
        before = board.arena.copy()
        flip(board, volts)
        changed = board.arena ^ before
        board.arena[:] = before
        return changed

    return mask


def flips_of(spec: str, seed: int = 0, pulses: int = 0) -> OnVoltage:
    """What a memory does to the arena when the voltage falls. Its condition `vdd`, if it has one, follows the regulator (V)."""
    from weakcell.memmodels.address import Layout
    from weakcell.memmodels.catalogue import open_memory
    from weakcell.memmodels.memory import Key

    memory = open_memory(spec, seed)
    _draw_once(open_memory(spec, seed))

    def flip(board: VirtualBoard, volts: float) -> None:
        nonlocal pulses
        there = memory.at(vdd=volts) if "vdd" in memory.conditions else memory
        region = there.write(board.arena.copy(), Layout(_CELLS_NAME, board.arena.size * 64, 1), Key(0, pulses))
        there.read(region, Key(0, pulses), board.arena)
        pulses += 1

    return flip


def _draw_once(memory: Memory) -> None:
    """Load and compile what a memory needs before a board waits for it: a host would take the delay for a silence."""
    import numpy as np

    from weakcell.memmodels.address import Layout
    from weakcell.memmodels.memory import Key

    region = memory.write(np.zeros(1, np.uint64), Layout(_CELLS_NAME, 64, 1), Key())
    memory.read(region, Key(), np.zeros(1, np.uint64))
