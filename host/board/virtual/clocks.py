"""The clocks of a virtual board: oscillators, PLLs, the multiplexers, and the frequency counter.

CLK_SYS and CLK_REF are behind glitchless multiplexers: they change over only while the old and the new source have edges. A source
without edges stops the core for ever, unless the watchdog is armed. The auxiliary source of a multiplexer has no such protection.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from weakcell.host.board.boards import ClockMap

_REF_CTRL, _REF_SELECTED, _SYS_CTRL, _SYS_SELECTED = 0x30, 0x38, 0x3C, 0x44
_INTERVAL, _SOURCE, _STATUS, _RESULT = 0x10, 0x14, 0x18, 0x1C
_ENABLE, _READY, _START_ONCE, _SENSOR_ON = 1 << 11, 1 << 8, 1 << 2, 1 << 1
_DONE, _RING, _LOCK = 1 << 4, 3, 1 << 31
_XOSC_ENABLED, _STABLE = 0xFAB, 1 << 31
_PLL_SYS, _PLL_USB, _ROSC, _XOSC = range(4)
LOCK_VOLTS = 0.9
"""Below this a PLL loses its lock, and finds it `LOCK_US` after the voltage is back. Both are assumed, on the safe side."""
LOCK_US = 2000
_THRESHOLD_V, _EXPONENT = 0.35, 1.3
"""Of a ring oscillator's frequency over the voltage, by the alpha-power law. Assumed."""


class Environment(Protocol):
    """What the clocks see of the chip."""

    def register(self, address: int) -> int:
        """Return a register as it was written, or its value after a reset."""
        ...

    def now_us(self) -> int:
        """Return the time in us."""
        ...

    def core_volts(self) -> float:
        """Return the core voltage in V."""
        ...


def ring_share(volts: float, nominal_v: float) -> float:
    """Return the frequency of a ring oscillator relative to that at nominal voltage, by the alpha-power law."""

    def speed(v: float) -> float:
        return float(max(v - _THRESHOLD_V, 1e-3) ** _EXPONENT / v)

    return speed(volts) / speed(nominal_v)


@dataclass(eq=False)
class Clocks:
    """The clock registers of a chip.

    Attributes:
        map: addresses.
        chip: the chip.
        stop: called if the core's clock has stopped.
        nominal_v: nominal voltage, in V.
        ring_factor: frequency of this chip's ring oscillator relative to the assumed one; drawn once more for each count if noisy.
        counted: core voltages at the last counts, in V.
    """

    map: ClockMap
    chip: Environment
    stop: Callable[[], None]
    nominal_v: float
    ring_factor: Callable[[], float] = lambda: 1.0
    counted: deque[float] = field(default_factory=lambda: deque(maxlen=3))

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Forget everything that a reset ends; the time starts again at 0."""
        self._count_end = self._count = 0
        self._locked_from: dict[int, int] = {}

    def reads(self, address: int) -> int | None:
        """Return what a register of the clocks reads as; None if it is an ordinary one."""
        where, offset = self.map, address - self.map.base
        if address == where.xosc + 4:
            return _STABLE if self._runs(_XOSC) else 0
        if address == where.resets + 8:
            return ~self.chip.register(where.resets) & 0xFFFFFFFF
        if address in (where.pll_sys, where.pll_usb):
            pll = _PLL_SYS if address == where.pll_sys else _PLL_USB
            return self.chip.register(address) & ~_LOCK | (_LOCK if self._locked(pll) else 0)
        if offset == _SYS_SELECTED:
            return 1 << (self.chip.register(where.base + _SYS_CTRL) & 1)
        if offset == _REF_SELECTED:
            return 1 << (self.chip.register(where.base + _REF_CTRL) & 3)
        if offset == where.counter + _STATUS:
            return _DONE if self._count and self.chip.now_us() >= self._count_end else 0
        if offset == where.counter + _RESULT:
            return self._count if self.chip.now_us() >= self._count_end else 0
        return None

    def written(self, address: int, old: int) -> None:
        """Follow a write to a register whose contents were `old`."""
        where, value = self.map, self.chip.register(address)
        if address == where.base + _SYS_CTRL:
            self._switch(old, value, 1, 7)
        elif address == where.base + _REF_CTRL:
            self._switch(old, value, 3, 3)
        elif address == where.base + where.counter + _SOURCE:
            self._start_count(value)
        elif (
            address == where.resets
            or where.pll_sys <= address < where.pll_sys + 16
            or where.pll_usb <= address < where.pll_usb + 16
        ):
            self._check_core()

    def _switch(self, old: int, value: int, source_mask: int, aux_mask: int) -> None:
        """Change a multiplexer over. Its old source is that of the old register, with an auxiliary source that may have changed."""
        between = old & source_mask | value & ~source_mask
        system = source_mask == 1
        for setting in (between, value):
            if not self._has_edges(setting, source_mask, aux_mask, system):
                self.stop()
                return

    def _has_edges(self, setting: int, source_mask: int, aux_mask: int, system: bool) -> bool:
        source, aux = setting & source_mask, setting >> 5 & aux_mask
        if system:
            return self._runs(aux) if source else self._ref_runs()
        return (True, aux == 0 and self._runs(_PLL_USB), self._runs(_XOSC), True)[source]

    def _ref_runs(self) -> bool:
        return self._has_edges(self.chip.register(self.map.base + _REF_CTRL), 3, 3, system=False)

    def _check_core(self) -> None:
        if not self._has_edges(self.chip.register(self.map.base + _SYS_CTRL), 1, 7, system=True):
            self.stop()

    def _runs(self, source: int) -> bool:
        """Return whether a source of CLK_SYS has edges."""
        if source in (_PLL_SYS, _PLL_USB):
            base = self.map.pll_sys if source == _PLL_SYS else self.map.pll_usb
            return self._locked(source) and not self.chip.register(base + 4) & 8
        if source == _XOSC:
            return self.chip.register(self.map.xosc) >> 12 & 0xFFF == _XOSC_ENABLED
        return source == _ROSC

    def _locked(self, pll: int) -> bool:
        where = self.map
        base, reset = (where.pll_sys, where.pll_sys_reset) if pll == _PLL_SYS else (where.pll_usb, where.pll_usb_reset)
        power, feedback = self.chip.register(base + 4), self.chip.register(base + 8)
        on = not self.chip.register(where.resets) & reset and not power & 0x21 and 16 <= feedback <= 320 and self._runs(_XOSC)
        if not on:
            return False
        if self.chip.core_volts() < LOCK_VOLTS:
            self.lose_lock()
        return self.chip.now_us() >= self._locked_from.get(pll, 0)

    def usb_runs(self) -> bool:
        """Return whether the USB controller has its clock and is out of reset."""
        where = self.map
        enabled = self.chip.register(where.base + where.usb) & (7 << 5 | _ENABLE) == _ENABLE  # from PLL_USB
        return enabled and self._runs(_PLL_USB) and not self.chip.register(where.resets) & where.usb_reset

    def lose_lock(self) -> None:
        """Take the lock of the PLLs away, as a low voltage does."""
        self._locked_from = dict.fromkeys((_PLL_SYS, _PLL_USB), self.chip.now_us() + LOCK_US)

    def _start_count(self, source: int) -> None:
        interval_us = 1 << self.chip.register(self.map.base + self.map.counter + _INTERVAL)
        self._count_end = self.chip.now_us() + interval_us
        self.counted.append(self.chip.core_volts())
        khz = self.map.ring_khz * self.ring_factor() * ring_share(self.counted[-1], self.nominal_v)
        cycles = int(khz * interval_us / 1000)  # whole cycles, as the counter sees them
        reference = self.chip.register(self.map.base + self.map.counter)
        right = source == _RING and reference == 12000 and self._ref_runs()
        self._count = round(32 * cycles * 1000 / interval_us) if right else 0


@dataclass(eq=False)
class Converter:
    """The analog-to-digital converter, with the temperature sensor alone."""

    map: ClockMap
    base: int
    channel: int
    chip: Environment
    celsius: Callable[[], float]
    _result: int = 0

    def reads(self, address: int) -> int | None:
        """Return what a register of the converter reads as; None if it is not one of them."""
        if address == self.base + 4:
            return self._result
        if address == self.base:
            return self.chip.register(address) & ~_START_ONCE | (_READY if self._enabled() else 0)
        return None

    def written(self, address: int) -> None:
        """Convert at once if asked. Other channels read as 0, and so does a sensor that is off."""
        control = self.chip.register(self.base)
        if address == self.base and control & _START_ONCE and self._enabled():
            volts = 0.706 - 0.001721 * (self.celsius() - 27)
            on = control & _SENSOR_ON and control >> 12 & 15 == self.channel
            self._result = round(volts / 3.3 * 4096) if on else 0

    def _enabled(self) -> bool:
        clock = self.chip.register(self.map.base + self.map.adc)
        return bool(
            clock & _ENABLE and self.chip.register(self.base) & 1 and not self.chip.register(self.map.resets) & self.map.adc_reset
        )
