"""Read-backs that are no memory's: nothing was read, or the bytes are not in the order in which they were written.

Refused, since every number made of them would be wrong: reads that hold one byte throughout whatever was written, at every voltage;
reads that match what was written far better once they are inverted, or once the bytes or bits of each word are reversed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from weakcell.memmodels.address import Words, popcount
from weakcell.memmodels.errors import InputError

if TYPE_CHECKING:
    from weakcell.host.board.readbacks.analysis import Measured, Readbacks

Bytes = npt.NDArray[np.uint8]
_SUSPECT, _BETTER = 0.2, 0.2
"""Share of wrong bits from which on other orders are tried, and the share of them that may be left for one to be believed."""


def check_readout(readbacks: Readbacks) -> None:
    """Raise InputError if the read-backs are not what was written, in a way that no failing cell explains."""
    counted = [one for one in readbacks.measured if one.errors is not None]
    if not counted:
        return
    voltages = {one.vdd for one in counted}
    if len(voltages) > 1 and (byte := constant_byte(counted, readbacks.bits)) is not None:
        found = f"every byte of every read is 0x{byte:02X}, at every voltage and whatever was written: nothing was read"
        raise InputError(f"Read-backs of {readbacks.title}", found, "Check the read-out, and give reads that saw the memory")
    highest = [one for one in counted if one.vdd == max(voltages)]
    suspect = [one for one in highest if _share(one, readbacks.bits) >= _SUSPECT]
    if len(suspect) == 1 and _is_solid(suspect[0], readbacks.bits):
        return
    for one in suspect:
        _check_order(readbacks, one)


def constant_byte(counted: Sequence[Measured], bits: int) -> int | None:
    """Return the byte that every read holds throughout though others were written, None if there is none."""
    for byte in (0x00, 0xFF):
        if all((_read(one, bits) == byte).all() for one in counted) and any(_share(one, bits) > _SUSPECT for one in counted):
            return byte
    return None


def _is_solid(one: Measured, bits: int) -> bool:
    """Whether the same byte was written everywhere, so that nothing tells its order."""
    written = _bytes(one.written, bits)
    return bool((written == written[0]).all())


def _check_order(readbacks: Readbacks, one: Measured) -> None:
    """Raise InputError if the reads match what was written far better in another order."""
    share = _share(one, readbacks.bits)
    for name, order in _orders():
        found = _matched(one, readbacks.bits, order)
        if found < _BETTER * share:
            told = (
                f"{100 * share:.3g} % of the bits of {one.pattern} at {one.vdd:.4g} V differ from what was written, "
                f"and {100 * found:.3g} % do when {name}"
            )
            do = "Give the bytes in the order in which they were written, and as they were written"
            raise InputError(f"Read-backs of {readbacks.title}", told, do)


def _share(one: Measured, bits: int) -> float:
    """Share of bits that differ from what was written, over all reads."""
    assert one.errors is not None
    return popcount(one.errors) / (len(one.errors) * bits)


def _read(one: Measured, bits: int) -> Bytes:
    """The bytes that came back, of all reads."""
    assert one.errors is not None
    return np.concatenate([_bytes(errors ^ one.written, bits) for errors in one.errors])


def _bytes(words: Words, bits: int) -> Bytes:
    return np.ascontiguousarray(words).view(np.uint8)[: bits // 8]


def _orders() -> Iterator[tuple[str, Callable[[Bytes], Bytes]]]:
    """Other ways to take bytes, in words and as functions."""
    yield "every bit is inverted", lambda read: ~read
    yield "the bits of each byte are reversed", lambda read: np.packbits(np.unpackbits(read, bitorder="little"), bitorder="big")
    for size in (2, 4, 8, 16):
        yield f"the bytes of each word of {size} are reversed", lambda read, size=size: _swapped(read, size)  # type: ignore[misc]
    for step in (1, -1, 2, -2, 4, -4, 8, -8):
        yield f"they are moved by {step} bytes", lambda read, step=step: np.roll(read, step)  # type: ignore[misc]


def _swapped(read: Bytes, size: int) -> Bytes:
    whole = read.size // size * size
    return np.concatenate([read[:whole].reshape(-1, size)[:, ::-1].reshape(-1), read[whole:]])


def _matched(one: Measured, bits: int, order: Callable[[Bytes], Bytes]) -> float:
    """Share of bits of the first read that differ from what was written once they are taken in another order."""
    assert one.errors is not None
    written, read = _bytes(one.written, bits), order(_bytes(one.errors[0] ^ one.written, bits))
    return float(np.bitwise_count(read ^ written).sum(dtype=np.int64)) / bits
