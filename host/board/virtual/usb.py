"""The USB device controller of a virtual board, as its registers, its DPRAM and the packets on the bus show it.

Modelled for both chips, which have the same controller: single buffers, data PIDs, handshakes, stalls, resets of the bus, and what
must be right before a host sees the device at all (clock, reset, transceiver, pull-up). Not modelled: double buffers, isochronous
endpoints, times on the bus, the errata. Rules that a chip may punish, though not for certain, are noted as hazards.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt

DPRAM, DPRAM_BYTES, REGISTERS, REGISTERS_BYTES = 0x50100000, 0x1000, 0x50110000, 0x4000
PACKET = 64
_TRANSACTION_US = 20
"""On the bus, for about every look at the controller's registers."""

_ADDRESS, _MAIN_CTRL, _SIE_CTRL, _SIE_STATUS, _BUFF_STATUS, _STALL_ARM, _MUXING, _POWER = (
    0x00,
    0x40,
    0x4C,
    0x50,
    0x58,
    0x68,
    0x74,
    0x78,
)
_ON, _HOST, _ISOLATED = 1, 2, 4
_PULL_UP, _EP0_NOTES = 1 << 16, 1 << 29
_TO_PHY, _VBUS = 1 | 1 << 3, 1 << 2 | 1 << 3
_BUS_RESET, _SETUP, _SEQUENCE_ERROR, _OVERFLOW, _SUSPENDED = 1 << 19, 1 << 17, 1 << 31, 1 << 26, 1 << 4
_CLEARED_BY_ONE = {_SIE_STATUS: 0xFF8F0800 & ~_SUSPENDED, _BUFF_STATUS: 0xFFFFFFFF}
_FULL, _DATA1, _STALL, _AVAILABLE, _LENGTH = 1 << 15, 1 << 13, 1 << 11, 1 << 10, 0x3FF
_ENDPOINT_ON, _NOTES = 1 << 31, 1 << 29
CONTROLS, CONTROLS_END = 0x80, 0x100


@dataclass(frozen=True)
class Handshake:
    """What a device answers to a token.

    Attributes:
        kind: `ack`, `nak`, `stall`, or `none` if it does not answer.
        pid: of data that it sends: 0 or 1.
        data: what it sends.
    """

    kind: str
    pid: int = 0
    data: bytes = b""


_NONE, _NAK, _ACK, _STALLED = (Handshake(kind) for kind in ("none", "nak", "ack", "stall"))


@dataclass(eq=False)
class UsbController:
    """The controller in device mode.

    Attributes:
        reset_values: registers that are not 0 after a reset.
        runs: whether the controller has a clock and is out of reset.
        on_look: called when the firmware looks for news; the bus goes on meanwhile.
        dpram: (bytes,) uint8, its memory.
        hazards: where rules of the data sheet were broken.
        disconnects: how often the pull-up was taken off the bus.
        known_attached: it is attached, and no register of the chip was written since that was found.
    """

    reset_values: dict[int, int]
    runs: Callable[[], bool]
    hazards: list[str]
    on_look: Callable[[], None] | None = None
    registers: dict[int, int] = field(default_factory=dict)
    disconnects: int = 0
    known_attached: bool = False

    def __post_init__(self) -> None:
        self._memory = np.zeros(2 * DPRAM_BYTES, np.uint8)
        skip = -self._memory.ctypes.data % DPRAM_BYTES
        self.dpram: npt.NDArray[np.uint8] = self._memory[skip : skip + DPRAM_BYTES]
        self._words = self.dpram.view(np.uint32)

    def share_memory(self, memory: npt.NDArray[np.uint8]) -> None:
        """Take another array of DPRAM_BYTES as the controller's memory."""
        self.dpram, self._words = memory, memory.view(np.uint32)

    def reset(self) -> None:
        """Set every register to its value after a reset; the pull-up is off then."""
        self.disconnects += bool(self.registers.get(_SIE_CTRL, 0) & _PULL_UP)
        self.registers.clear()
        self.known_attached = False

    def attach(self, engine: Any, pass_time: Callable[[int], None]) -> None:
        """Map the controller into the address space of an engine; pass_time: lets time pass, in us."""
        unicorn: Any = import_module("unicorn")

        def load(_engine: Any, offset: int, _size: int, _data: Any) -> int:
            pass_time(_TRANSACTION_US)
            return self.load(offset & 0xFFF)

        def store(_engine: Any, offset: int, _size: int, value: int, _data: Any) -> None:
            pass_time(0)
            self.store(offset & 0xFFF, value, offset >> 12 & 3)

        def check(_engine: Any, _kind: int, address: int, _size: int, value: int, _data: Any) -> None:
            self.control_written(address - DPRAM, value)

        engine.mem_map_ptr(DPRAM, DPRAM_BYTES, unicorn.UC_PROT_ALL, ctypes.c_void_p(self.dpram.ctypes.data))
        engine.mmio_map(REGISTERS, REGISTERS_BYTES, load, None, store, None)
        engine.hook_add(unicorn.UC_HOOK_MEM_WRITE, check, begin=DPRAM + CONTROLS, end=DPRAM + CONTROLS_END - 1)

    # --- registers ----------------------------------------------------------------------------------------------------------------

    def load(self, offset: int) -> int:
        """Return a register."""
        if offset == _BUFF_STATUS and self.on_look is not None:
            self.on_look()
        return self.registers.get(offset, self.reset_values.get(offset, 0))

    def store(self, offset: int, value: int, alias: int) -> None:
        """Write a register; alias: 0 write, 1 XOR, 2 set, 3 clear."""
        self.known_attached = self.known_attached and offset in _CLEARED_BY_ONE
        if not self.known_attached and not self.runs():
            self.hazards.append("a write to the USB controller while it is in reset or has no clock")
            return
        old = self.registers.get(offset, self.reset_values.get(offset, 0))
        new = (value, old ^ value, old | value, old & ~value)[alias] & 0xFFFFFFFF
        cleared = _CLEARED_BY_ONE.get(offset)
        self.disconnects += offset == _SIE_CTRL and old & _PULL_UP > new & _PULL_UP
        self.registers[offset] = new if cleared is None else old & ~(value & cleared)

    def control_written(self, offset: int, value: int) -> None:
        """Check a write to a buffer's control: AVAILABLE comes last, and is not taken back while the bus may use the buffer."""
        old = int(self._words[offset // 4])
        if value & _AVAILABLE and (old | _AVAILABLE) != value:
            self.hazards.append(f"AVAILABLE was set together with other bits of the buffer control at {offset:#x}")

    @property
    def attached(self) -> bool:
        """Whether a host sees the pull-up."""
        if self.known_attached:
            return True
        read = self.registers.get
        main = read(_MAIN_CTRL, self.reset_values.get(_MAIN_CTRL, 0))
        self.known_attached = bool(
            self.runs()
            and main & _ON
            and not main & (_HOST | _ISOLATED)
            and read(_MUXING, 0) & _TO_PHY == _TO_PHY
            and read(_POWER, 0) & _VBUS == _VBUS
            and read(_SIE_CTRL, 0) & _PULL_UP
        )
        return self.known_attached

    # --- the bus ------------------------------------------------------------------------------------------------------------------

    def reset_bus(self) -> None:
        """Reset the bus. The address is the firmware's business."""
        self._note(_SIE_STATUS, _BUS_RESET)

    def suspend(self, suspended: bool) -> None:
        """Stop or start the frames on the bus."""
        status = self.registers.get(_SIE_STATUS, 0)
        self.registers[_SIE_STATUS] = status | _SUSPENDED if suspended else status & ~_SUSPENDED

    def setup(self, address: int, packet: bytes) -> Handshake:
        """Receive a SETUP transaction, which a device always accepts."""
        if not self._hears(address):
            return _NONE
        self.dpram[:8] = np.frombuffer(packet, np.uint8)
        self.registers[_STALL_ARM] = 0
        self._note(_SIE_STATUS, _SETUP)
        return _ACK

    def token_in(self, address: int, endpoint: int) -> Handshake:
        """Answer an IN token. The buffer stays as it is until `acknowledge`."""
        if not self._hears(address) or not self._is_on(endpoint, 0):
            return _NONE
        control = self._control(endpoint, 0)
        if self._stalls(control, endpoint, 0):
            return _STALLED
        if not (control & _AVAILABLE and control & _FULL):
            return _NAK
        at, length = self._buffer(endpoint, 0), control & _LENGTH
        return Handshake("ack", bool(control & _DATA1), self.dpram[at : at + length].tobytes())

    def acknowledge(self, endpoint: int) -> None:
        """Receive the host's ACK of what `token_in` sent."""
        self._words[(CONTROLS + 8 * endpoint) // 4] &= np.uint32(0xFFFFFFFF & ~(_AVAILABLE | _FULL))
        self._done(endpoint, 0)

    def token_out(self, address: int, endpoint: int, pid: int, data: bytes) -> Handshake:
        """Receive an OUT transaction. A repeated packet is acknowledged and dropped."""
        if not self._hears(address) or not self._is_on(endpoint, 1):
            return _NONE
        control = self._control(endpoint, 1)
        if self._stalls(control, endpoint, 1):
            return _STALLED
        if not control & _AVAILABLE or control & _FULL:
            return _NAK
        if bool(control & _DATA1) != bool(pid):
            self._note(_SIE_STATUS, _SEQUENCE_ERROR)
            return _ACK
        if len(data) > control & _LENGTH:
            self._note(_SIE_STATUS, _OVERFLOW)
            return _NONE
        at = self._buffer(endpoint, 1)
        self.dpram[at : at + len(data)] = np.frombuffer(data, np.uint8)
        self._words[(CONTROLS + 8 * endpoint + 4) // 4] = control & ~(_AVAILABLE | _LENGTH) | _FULL | len(data)
        self._done(endpoint, 1)
        return _ACK

    def _hears(self, address: int) -> bool:
        return self.attached and self.registers.get(_ADDRESS, 0) & 0x7F == address

    def _is_on(self, endpoint: int, out: int) -> bool:
        return endpoint == 0 or bool(self._endpoint_control(endpoint, out) & _ENDPOINT_ON)

    def _endpoint_control(self, endpoint: int, out: int) -> int:
        return int(self._words[2 * endpoint + out])

    def _control(self, endpoint: int, out: int) -> int:
        return int(self._words[CONTROLS // 4 + 2 * endpoint + out])

    def _buffer(self, endpoint: int, out: int) -> int:
        return 0x100 if endpoint == 0 else self._endpoint_control(endpoint, out) & 0xFFC0

    def _stalls(self, control: int, endpoint: int, out: int) -> bool:
        armed = endpoint != 0 or self.registers.get(_STALL_ARM, 0) >> out & 1
        return bool(control & _STALL and armed)

    def _done(self, endpoint: int, out: int) -> None:
        notes = self.registers.get(_SIE_CTRL, 0) & _EP0_NOTES if endpoint == 0 else self._endpoint_control(endpoint, out) & _NOTES
        if notes:
            self._note(_BUFF_STATUS, 1 << 2 * endpoint + out)

    def _note(self, register: int, bits: int) -> None:
        self.registers[register] = self.registers.get(register, 0) | bits
