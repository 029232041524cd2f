"""UART 0 of a virtual board, as compiled code: a Python function called for every byte would dominate the time.

Unicorn maps the UART's registers onto two native functions that share one record. The queues are bounded. The firmware is stopped
when it has polled eight times for a byte that has not come, or when the queue of sent bytes is full.

By default a byte arrives when the firmware looks for it. With a line rate it arrives in its time, into a queue of 32 like the
chip's, and is lost if that is full. Time is then counted in instructions, at one and a half cycles each.
"""

from __future__ import annotations

import ctypes
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import binding
from numba import carray, cfunc, types

_DR, _FR = 0x00, 0x18
_BUSY, _RX_EMPTY, _TX_FULL = 1 << 3, 1 << 4, 1 << 5
_IDLE_LOOKS = 8
_QUEUE = 1 << 15
_FIFO = 32
_SYSTEM_HZ, _BAUD, _BITS_A_BYTE = 48_000_000, 923_077, 10
BYTE_CYCLES = _SYSTEM_HZ * _BITS_A_BYTE // _BAUD
# The record: numbers, then the bytes to the board, then those from it. ARRIVED to DRAINED are of a line with a rate: bytes
# before ARRIVED are in the chip's queue, a lost one is taken out, and DRAINED is when the last byte will have been sent.
_TAKEN, _GIVEN, _SENT, _IDLE, _STOPPED, _ARRIVED, _CYCLES, _NEXT, _OVERRUNS, _DRAINED, _NUMBERS = range(11)
_TO, _FROM, _SIZE = _NUMBERS, _NUMBERS + _QUEUE, _NUMBERS + 2 * _QUEUE


@cache
def _compile(library: str) -> tuple[int, int]:
    """Return the addresses of load and store for a line without a rate; library: Unicorn's file."""
    stop, record = _stop_function(library), types.CPointer(types.int32)

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


@cache
def _compile_with_rate(library: str) -> tuple[int, int, int]:
    """Return the addresses of load, store, and a count of instructions for a line with a rate; library: Unicorn's file."""
    stop, record = _stop_function(library), types.CPointer(types.int32)

    @cfunc(types.uint64(types.voidptr, types.uint64, types.uint32, record))  # type: ignore[untyped-decorator]
    def load(engine: Any, offset: Any, size: Any, pointer: Any) -> Any:
        uart = carray(pointer, (_SIZE,))
        register = offset & 0xFFF
        if uart[_TAKEN] == uart[_ARRIVED] and uart[_ARRIVED] < uart[_GIVEN] and uart[_CYCLES] < uart[_NEXT]:
            uart[_IDLE] += 1
            if uart[_IDLE] >= _IDLE_LOOKS:  # nothing else to do until the next byte is there
                uart[_CYCLES] = uart[_NEXT]
        while uart[_ARRIVED] < uart[_GIVEN] and uart[_CYCLES] >= uart[_NEXT]:
            uart[_NEXT] += BYTE_CYCLES
            if uart[_ARRIVED] - uart[_TAKEN] < _FIFO:
                uart[_ARRIVED] += 1
            else:
                uart[_OVERRUNS] += 1
                uart[_GIVEN] -= 1
                for i in range(uart[_ARRIVED], uart[_GIVEN]):
                    uart[_TO + i] = uart[_TO + i + 1]
        if register == _DR:
            if uart[_TAKEN] == uart[_ARRIVED]:
                return 0
            byte = uart[_TO + uart[_TAKEN]]
            uart[_TAKEN] += 1
            return byte
        if register != _FR:
            return 0
        flags = 0
        if uart[_DRAINED] - uart[_CYCLES] >= _FIFO * BYTE_CYCLES or uart[_SENT] == _QUEUE:
            flags |= _TX_FULL
        if uart[_DRAINED] > uart[_CYCLES]:
            flags |= _BUSY
        if uart[_TAKEN] == uart[_ARRIVED]:
            flags |= _RX_EMPTY
            if uart[_ARRIVED] == uart[_GIVEN] and not flags & (_TX_FULL | _BUSY):
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
            uart[_DRAINED] = max(uart[_DRAINED], uart[_CYCLES]) + BYTE_CYCLES

    @cfunc(types.void(types.voidptr, types.uint64, types.uint32, record))  # type: ignore[untyped-decorator]
    def count(engine: Any, address: Any, size: Any, pointer: Any) -> None:
        uart = carray(pointer, (_SIZE,))
        uart[_CYCLES] += 3 * size // 4

    return load.address, store.address, count.address


def _stop_function(library: str) -> Any:
    binding.load_library_permanently(library)
    return types.ExternalFunction("uc_emu_stop", types.int32(types.voidptr))


class Uart:
    """Queues between the host and a running engine.

    Attributes:
        has_rate: bytes arrive at the line's rate; to be set before the engine starts.
    """

    def __init__(self) -> None:
        self._record: npt.NDArray[np.int32] = np.zeros(_SIZE, np.int32)
        self._waiting = bytearray()
        self.has_rate = False

    def attach(self, engine: Any, address: int, size: int) -> None:
        """Map the UART's registers of an engine onto the compiled functions."""
        library: Any = import_module("unicorn.unicorn_py3.unicorn").uclib
        record = self._record.ctypes.data
        if self.has_rate:
            load, store, count = _compile_with_rate(library._name)
            handle, every_block = ctypes.c_size_t(), 1 << 3
            pointers = ctypes.c_void_p(count), ctypes.c_void_p(record)
            failed = library.uc_hook_add(
                engine._uch, ctypes.byref(handle), every_block, *pointers, ctypes.c_uint64(1), ctypes.c_uint64(0)
            )
            if failed:
                raise RuntimeError(f"uc_hook_add: error {failed}")
        else:
            load, store = _compile(library._name)
        failed = library.uc_mmio_map(engine._uch, address, size, load, record, store, record)
        if failed:
            raise RuntimeError(f"uc_mmio_map: error {failed}")

    @property
    def overruns(self) -> int:
        """Bytes that were lost because the chip's queue was full."""
        return int(self._record[_OVERRUNS])

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
            record[_TAKEN], record[_GIVEN], record[_ARRIVED] = 0, given.size, 0
            record[_NEXT] = BYTE_CYCLES
            record[_DRAINED] = max(record[_DRAINED] - record[_CYCLES], 0)
            record[_CYCLES] = 0
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
