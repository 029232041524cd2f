"""UART 0 of a virtual board, as compiled code: a Python function called for every byte would dominate the time.

Unicorn maps the UART's registers onto two native functions that share one record. The queues are bounded. The firmware is stopped
when it has polled three times for a byte that has not come, or when the queue of sent bytes is full.
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
# The record: five numbers, then the bytes to the board, then those from it.
_TAKEN, _GIVEN, _SENT, _IDLE, _STOPPED, _NUMBERS = range(6)
_TO, _FROM, _SIZE = _NUMBERS, _NUMBERS + _QUEUE, _NUMBERS + 2 * _QUEUE


@cache
def _compile(library: str) -> tuple[int, int]:
    """Return the addresses of the two compiled functions; library: Unicorn's file."""
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
        """Map the UART's registers of an engine onto the compiled functions."""
        library: Any = import_module("unicorn.unicorn_py3.unicorn").uclib
        load, store = _compile(library._name)
        record = self._record.ctypes.data
        failed = library.uc_mmio_map(engine._uch, address, size, load, record, store, record)
        if failed:
            raise RuntimeError(f"uc_mmio_map: error {failed}")

    def receive(self, data: bytes) -> None:
        """Queue bytes for the board."""
        self._waiting += data

    def feed(self) -> bool:
        """Give the board the queued bytes once it has taken all earlier ones.

        Returns:
            Whether there are bytes for it to take.
        """
        record = self._record
        if record[_TAKEN] == record[_GIVEN] and self._waiting:
            given = np.frombuffer(bytes(self._waiting[:_QUEUE]), np.uint8)
            del self._waiting[:_QUEUE]
            record[_TO : _TO + given.size] = given
            record[_TAKEN], record[_GIVEN] = 0, given.size
        record[_IDLE] = 0
        return bool(record[_TAKEN] < record[_GIVEN])

    def sent(self) -> bytes:
        """Take the bytes that the board has sent."""
        count = int(self._record[_SENT])
        self._record[_SENT] = 0
        return self._record[_FROM : _FROM + count].astype(np.uint8).tobytes()

    def stopped(self) -> bool:
        """Return whether the UART stopped the firmware since the last call."""
        stopped = bool(self._record[_STOPPED])
        self._record[_STOPPED] = 0
        return stopped

    def busy(self) -> None:
        """Note that the firmware did something else than poll for a byte."""
        self._record[_IDLE] = 0

    def clear(self) -> None:
        """Drop everything in the queues, as a reset does."""
        self._record[:_NUMBERS] = 0
        self._waiting.clear()
