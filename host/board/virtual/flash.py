"""The flash of a virtual board: its contents, its cache, its unique id, and what makes it readable.

The RP2040 reads flash through the SSI, which the second stage sets up. On the RP2350 the boot ROM sets flash up, but not after
SLEEP: the firmware then calls the boot ROM's functions, of which a stand-in is here. The cells of the cache are at the core
voltage: after it fell, flash reads as undefined instructions until the cache was flushed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from weakcell.host.board.boards import BoardType

_PAGE = 4096
_SSI = 0x18000000
_ENABLE, _SLAVES, _STATUS, _DATA = 0x08, 0x10, 0x28, 0x60
_READY = {0x00: 0x001F0300, 0xF4: 0x03000218, _ENABLE: 1}
_RECEIVED = 1 << 3
_UNIQUE_ID, _ID_AT, _ID_END = 0x4B, 5, 13
_LOOK_UP, _FUNCTIONS, _RETURN = 0x100, 0x110, b"\x70\x47"
_STEPS = ("IF", "EX", "FC", "CX")
"""Functions of the boot ROM: connect the flash's pads, end its other modes, flush the cache, read with 03h."""
_SECURE_ARM = 1 << 2
_UNDEFINED = 0xDE


@dataclass(eq=False)
class Flash:
    """A flash chip and what is between it and the core.

    Attributes:
        board: the kind of board.
        serial: returns the unique id.
        contents: from the flash's first address on; empty: nothing was ever stored.
        connected: the RP2350's controller is set up.
    """

    board: BoardType
    serial: Callable[[], int]
    contents: bytes = b""
    connected: bool = True
    _engine: Any = None
    _ssi: dict[int, int] = field(default_factory=dict)
    _sent: list[int] = field(default_factory=list)
    _answer: list[int] = field(default_factory=list)
    _calls: list[str] = field(default_factory=list)
    _lines: int = 0

    def attach(self, engine: Any) -> None:
        """Map flash into the address space of an engine that has just been reset."""
        self._engine = engine
        self._lines = 0
        for part in (self._ssi, self._sent, self._answer, self._calls):
            part.clear()
        if not self.contents:
            return
        unicorn: Any = import_module("unicorn")
        where, executable = self.board.map, unicorn.UC_PROT_READ | unicorn.UC_PROT_EXEC
        engine.mem_map(where.flash, -(-len(self.contents) // _PAGE) * _PAGE, executable)
        page = where.cache_flush[0] & ~(_PAGE - 1)
        engine.mmio_map(page, 4 * _PAGE, lambda *_: 0, None, self._flush, page)
        if self.board.boot2_address is not None:
            engine.mmio_map(_SSI, _PAGE, self._load, None, self._store, None)
        else:
            rom = bytearray(_PAGE)
            rom[0x16:0x18] = (_LOOK_UP | 1).to_bytes(2, "little")
            for address in (_LOOK_UP, *(_FUNCTIONS + 4 * at for at in range(len(_STEPS)))):
                rom[address : address + 2] = _RETURN
            engine.mem_map(0, _PAGE, executable)
            engine.mem_write(0, bytes(rom))
            engine.hook_add(unicorn.UC_HOOK_CODE, self._call_rom, begin=_LOOK_UP, end=_FUNCTIONS + 4 * len(_STEPS))
        self._show()

    def spoil_cache(self) -> None:
        """Do to the cache what a low voltage may do."""
        if self.contents and self._engine is not None:
            self._fill(bytes([_UNDEFINED]) * len(self.contents))

    def _show(self) -> None:
        """Let the core read what it would read: the contents if flash is set up, else all ones."""
        ready = self.connected
        if self.board.boot2_address is not None:
            ready = all(self._ssi.get(register) == value for register, value in _READY.items())
        self._fill(self.contents if ready else b"\xff" * len(self.contents))

    def _fill(self, data: bytes) -> None:
        self._engine.mem_write(self.board.map.flash, data)
        self._engine.ctl_flush_tb()

    def _flush(self, _engine: Any, offset: int, _size: int, _value: int, page: int) -> None:
        """Flush the cache once every line was written in its order."""
        first, count, step = self.board.map.cache_flush
        self._lines = 0 if page + offset == first else self._lines
        self._lines += page + offset == first + step * self._lines
        if self._lines == count:
            self._show()

    def _load(self, _engine: Any, offset: int, _size: int, _data: Any) -> int:
        if offset == _STATUS:
            return _RECEIVED if self._answer and self._ssi.get(_SLAVES, 1) else 0
        return self._answer.pop(0) if offset == _DATA and self._answer else 0

    def _store(self, _engine: Any, offset: int, _size: int, value: int, _data: Any) -> None:
        if offset == _DATA:  # one byte comes for each that is sent; the flash answers 4Bh
            self._sent.append(value)
            at = len(self._sent) - 1
            known = self._sent[0] == _UNIQUE_ID and _ID_AT <= at < _ID_END
            self._answer.append(self.serial() >> 8 * (_ID_END - 1 - at) & 255 if known else 0)
        elif offset in (_ENABLE, _SLAVES) or not self._ssi.get(_ENABLE, 0):  # while it is enabled, nothing else can be set
            self._ssi[offset] = value
        if offset == _ENABLE:
            self._sent.clear()
            self._answer.clear()
            self._show()

    def _call_rom(self, engine: Any, address: int, _size: int, _data: Any) -> None:
        arm: Any = import_module("unicorn.arm_const")
        if address == _LOOK_UP:
            codes = {ord(name[0]) | ord(name[1]) << 8: _FUNCTIONS + 4 * at | 1 for at, name in enumerate(_STEPS)}
            secure = engine.reg_read(arm.UC_ARM_REG_R1) & _SECURE_ARM
            engine.reg_write(arm.UC_ARM_REG_R0, codes.get(engine.reg_read(arm.UC_ARM_REG_R0), 0) if secure else 0)
            return
        self._calls.append(_STEPS[(address - _FUNCTIONS) // 4])
        if tuple(self._calls[-len(_STEPS) :]) == _STEPS:
            self.connected = True
            self._show()
