"""UART 0 of a virtual board, compiled: Unicorn calls it for every byte, and a Python function there would cost more than the rest.

Unicorn maps the UART's registers onto two native functions with this record as their argument. The queues are bounded; the firmware
is stopped when it has looked three times for a byte that has not come, or when what it sent has filled its queue.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import binding
from numba import carray, cfunc, types

_DR, _FR = 0x00, 0x18
_RX_EMPTY, _TX_FULL = 1 << 4, 1 << 5
_IDLE_LOOKS = 3
_QUEUE = 1 << 15
# The record: four numbers, then the bytes to the board, then those from it.
_TAKEN, _GIVEN, _SENT, _IDLE, _STOPPED, _NUMBERS = range(6)
_TO, _FROM, _SIZE = _NUMBERS, _NUMBERS + _QUEUE, _NUMBERS + 2 * _QUEUE


@cache
def _compiled(library: str) -> tuple[int, int]:
    """Addresses of the two functions. library: the file of Unicorn, whose `uc_emu_stop` they call."""
    binding.load_library_permanently(library)
    stop = types.ExternalFunction("uc_emu_stop", types.int32(types.voidptr))
    record = types.CPointer(types.int32)

    @cfunc(types.uint64(types.voidptr, types.uint64, types.uint32, record))  # type: ignore[untyped-decorator]
    def load(engine: Any, offset: Any, size: Any, pointer: Any) -> Any:
        uart = carray(pointer, (_SIZE,))
        register = offset & 0xFFF
        if register == _DR:
            if uart[_TAKEN] == uart[_GIVEN]:
                return 0
            byte = uart[_TO + uart[_TAKEN]]
            uart[_TAKEN] += 1
            return byte
        if register != _FR:
            return 0
        flags = 0
        if uart[_SENT] == _QUEUE:
            flags |= _TX_FULL
        if uart[_TAKEN] == uart[_GIVEN]:
            flags |= _RX_EMPTY
            uart[_IDLE] += 1
        else:
            uart[_IDLE] = 0
        if uart[_IDLE] >= _IDLE_LOOKS or uart[_SENT] == _QUEUE:
            uart[_STOPPED] = 1
            stop(engine)
        return flags

    @cfunc(types.void(types.voidptr, types.uint64, types.uint32, types.uint64, record))  # type: ignore[untyped-decorator]
    def store(engine: Any, offset: Any, size: Any, value: Any, pointer: Any) -> None:
        uart = carray(pointer, (_SIZE,))
        if offset & 0xFFF == _DR and uart[_SENT] < _QUEUE:
            uart[_FROM + uart[_SENT]] = value & 0xFF
            uart[_SENT] += 1
            uart[_IDLE] = 0

    return load.address, store.address


class Uart:
    """Queues between the host and a running engine."""

    def __init__(self) -> None:
        self._record: npt.NDArray[np.int32] = np.zeros(_SIZE, np.int32)
        self._waiting = bytearray()

    def attach(self, engine: Any, address: int, size: int) -> None:
        """Answer for these registers of an engine."""
        library: Any = import_module("unicorn.unicorn_py3.unicorn").uclib
        load, store = _compiled(library._name)
        record = self._record.ctypes.data
        failed = library.uc_mmio_map(engine._uch, address, size, load, record, store, record)
        if failed:
            raise RuntimeError(f"uc_mmio_map: error {failed}")

    def receive(self, data: bytes) -> None:
        """Bytes on their way to the board."""
        self._waiting += data

    def feed(self) -> bool:
        """Give the board what waits, if it has taken everything before; is there anything for it to take?"""
        record = self._record
        if record[_TAKEN] == record[_GIVEN] and self._waiting:
            given = np.frombuffer(bytes(self._waiting[:_QUEUE]), np.uint8)
            del self._waiting[:_QUEUE]
            record[_TO : _TO + given.size] = given
            record[_TAKEN], record[_GIVEN] = 0, given.size
        record[_IDLE] = 0
        return bool(record[_TAKEN] < record[_GIVEN])

    def sent(self) -> bytes:
        """Take what the board has sent."""
        count = int(self._record[_SENT])
        self._record[_SENT] = 0
        return self._record[_FROM : _FROM + count].astype(np.uint8).tobytes()

    def stopped(self) -> bool:
        """Did the firmware stop because of this UART since it was last asked?"""
        told = bool(self._record[_STOPPED])
        self._record[_STOPPED] = 0
        return told

    def busy(self) -> None:
        """The firmware has done something else than look for a byte."""
        self._record[_IDLE] = 0

    def clear(self) -> None:
        """Forget everything on its way: a reset."""
        self._record[:_NUMBERS] = 0
        self._waiting.clear()
