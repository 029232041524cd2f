"""Open a virtual board: its cells, its failures, and how it is connected."""

from __future__ import annotations

from weakcell.host.board.errors import BoardError
from weakcell.host.board.link.transport import NoisyTransport, Transport
from weakcell.host.board.virtual.faults import make_access_fault, make_retention_fault, parse_misbehaviour
from weakcell.host.board.virtual.usb_port import connect_usb
from weakcell.host.board.virtual.virtual_board import VirtualBoard


def open_virtual_board(
    chip: str,
    memory: str | None = None,
    seed: int = 0,
    pulses: int = 0,
    *,
    reads: str | None = None,
    writes: str | None = None,
    misbehave: str = "",
    image: str = "ram",
    usb: bool = False,
) -> Transport:
    """Start a virtual board whose cells are those of memory models.

    Args:
        chip: name in `BOARDS`.
        memory: SPEC of the memory whose cells lose their bit while the voltage is low.
        seed: of the memories, the failures and the noise.
        pulses: low phases of an earlier session, whose errors are not drawn again.
        reads: SPEC of the memory whose cells read wrongly while the voltage is low.
        writes: SPEC of the memory whose cells store wrongly what is written while the voltage is low.
        misbehave: see `parse_misbehaviour`.
        image: `ram` or `flash`.
        usb: talk to it over its USB, which only a flash image has; the noise is on that cable.

    Raises:
        BoardError: Unicorn is not installed.
    """
    misbehaviour = parse_misbehaviour(misbehave)
    try:
        board = VirtualBoard(
            chip,
            make_retention_fault(memory, seed, pulses) if memory else None,
            "flash" if usb else image,
            on_read=make_access_fault(reads, seed, pulses) if reads else None,
            on_write=make_access_fault(writes, seed, pulses) if writes else None,
            misbehaviour=misbehaviour,
            seed=seed,
        )
    except ModuleNotFoundError as error:
        raise BoardError(
            f"A virtual {chip}", f"{error.name} is not installed", "Install it with pip install 'weakcell[virtual]'"
        ) from error
    if usb:
        return connect_usb(board, misbehaviour.noise, seed)
    return NoisyTransport(board, misbehaviour.noise, seed) if misbehaviour.noise else board
