"""The DMA of a virtual board: channels that move one word, or wait on the pacing timer, and chains of them.

A chain whose end interrupts the CPU runs to its end when it is started, since the CPU sleeps meanwhile. Any other chain
waits for its time: `advance` moves what is due.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from weakcell.host.board.boards import DmaMap

_INTERRUPTS, _ENABLED, _STATUS = 0x400, 0x404, 0x40C
_AT_ONCE, _FIRST_TIMER = 0x3F, 0x3B
_CYCLES_PER_US = 12
_CHANNEL = 0x40


@dataclass(eq=False)
class Dma:
    """The DMA controller.

    Attributes:
        map: what differs between chips.
        load, store: access a register as DMA does; None, or False, if DMA is kept out.
        now_us: returns the time in us.
        wait: lets time pass, in us, while a paced channel writes to an address; False: the chain goes on with `resume`.
        halted: returns whether the chip has failed, so that nothing more may happen.
    """

    map: DmaMap
    load: Callable[[int], int | None]
    store: Callable[[int, int], bool]
    now_us: Callable[[], int]
    wait: Callable[[int, int], bool]
    halted: Callable[[], bool]
    registers: dict[int, int] = field(default_factory=dict)
    _due: dict[int, int] = field(default_factory=dict)
    _running: bool = False
    _suspended: int = -1

    def read(self, offset: int) -> int:
        """Return a register."""
        return self.registers.get(offset, 0)

    def write(self, offset: int, value: int) -> bool:
        """Write a register; False if the chain that it starts is stuck."""
        if offset in (_STATUS, _INTERRUPTS):
            self.registers[_INTERRUPTS] = self.read(_INTERRUPTS) & ~value
        elif offset == self.map.abort:
            for channel in [channel for channel in self._due if value >> channel & 1]:
                del self._due[channel]
        elif offset == self.map.trigger:
            channel = value.bit_length() - 1
            if self._wakes_cpu(channel):
                return self._run(channel)
            self._start(channel)
        else:
            self.registers[offset] = value
        return True

    def advance(self) -> None:
        """Move what is due."""
        if self._running:
            return
        for channel, at in list(self._due.items()):
            if self.now_us() >= at and self._due.pop(channel, None) is not None:
                self._start(self._next(channel))

    @property
    def is_running(self) -> bool:
        """Whether a chain runs now while the CPU sleeps."""
        return self._running

    def _control(self, channel: int) -> int:
        return self.read(channel * _CHANNEL + 0x10)

    def _next(self, channel: int) -> int:
        """Return the channel that a channel chains to; -1 if it chains to itself, which ends the chain."""
        following = self._control(channel) >> self.map.chain & 15
        return -1 if following == channel else following

    def _paced(self, channel: int) -> bool:
        return self._control(channel) >> self.map.pace & 0x3F != _AT_ONCE

    def _wakes_cpu(self, channel: int) -> bool:
        while (following := self._next(channel)) >= 0:
            channel = following
        return bool(self.read(_ENABLED) >> channel & 1)

    def _start(self, channel: int) -> None:
        """Run a chain up to its next wait, which is noted."""
        while channel >= 0 and not self._paced(channel):
            if not self._move(channel):
                return
            channel = self._next(channel)
        if channel >= 0:
            self._due[channel] = self.now_us() + self._wait_us(channel)

    def _wait_us(self, channel: int) -> int:
        """Return how long a paced channel takes: its transfers, each after so many cycles of 12 MHz as its timer says."""
        timer = (self._control(channel) >> self.map.pace & 0x3F) - _FIRST_TIMER
        ratio = self.read(self.map.timer + 4 * timer)
        return round(self.read(channel * _CHANNEL + 8) * (ratio & 0xFFFF) / max(ratio >> 16, 1) / _CYCLES_PER_US)

    def resume(self) -> bool:
        """Go on with the chain that waits; False if it is stuck."""
        channel, self._suspended = self._suspended, -1
        return self._run(channel)

    def _run(self, channel: int) -> bool:
        """Run a chain to its end, or to a wait that is suspended."""
        self._running = True
        try:
            while channel >= 0 and not self.halted():
                if self._paced(channel):
                    if not self.wait(self._wait_us(channel), self.read(channel * _CHANNEL + 4)):
                        self._suspended = channel
                        return True
                elif not self._move(channel):
                    return False
                if not self._control(channel) & self.map.quiet:
                    self.registers[_INTERRUPTS] = self.read(_INTERRUPTS) | 1 << channel
                channel = self._next(channel)
        finally:
            self._running = False
        return True

    def _move(self, channel: int) -> bool:
        source, target = self.read(channel * _CHANNEL), self.read(channel * _CHANNEL + 4)
        word = self.load(source)
        return word is not None and self.store(target, word)
