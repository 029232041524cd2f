"""Where things are on the two chips, as far as a virtual board needs them; sources as in `firmware/board/CHIP/chip.h`."""

from __future__ import annotations

from dataclasses import dataclass

SRAM = 0x20000000
FLASH = 0x10000000
SSI = 0x18000000
NOMINAL = 11
VECTOR_MAGIC = 0xB007C0D3


@dataclass(frozen=True)
class Map:
    """Addresses and sizes. boot_vector: four words from which the boot ROM jumps, before it looks into flash.

    brown_out, run_pin: where CHIP_RESET tells of these, and its bits.
    """

    sram_bytes: int
    arena_bytes: int
    uart: int
    timer: int
    regulator: int
    watchdog: int
    xosc_status: int
    pll: int
    resets: int
    clk_ref_selected: int
    clk_sys_control: int
    boot_vectors: tuple[int, ...]
    chip_reset: int
    brown_out: int
    run_pin: int

    @property
    def stack(self) -> int:
        """The end of SRAM."""
        return SRAM + self.sram_bytes


MAPS = {
    "rp2040": Map(
        sram_bytes=0x42000, arena_bytes=0x40000, uart=0x40034000, timer=0x40054000, regulator=0x40064000, watchdog=0x40058000,
        xosc_status=0x40024004, pll=0x4002C000, resets=0x4000C000, clk_ref_selected=0x40008038, clk_sys_control=0x4000803C,
        boot_vectors=(0x4005801C,), chip_reset=0x40064008, brown_out=1 << 8, run_pin=1 << 16,
    ),
    "rp2350": Map(
        sram_bytes=0x82000, arena_bytes=0x80000, uart=0x40070000, timer=0x400B0000, regulator=0x4010000C, watchdog=0x400D8000,
        xosc_status=0x40048004, pll=0x40058000, resets=0x40020000, clk_ref_selected=0x40010038, clk_sys_control=0x4001003C,
        boot_vectors=(0x401000D0, 0x400D801C), chip_reset=0x4010002C, brown_out=1 << 17, run_pin=1 << 18,
    ),
}  # fmt: skip
POWMAN, POWMAN_BYTES = 0x40100000, 0x100
LP_ENTRY, LP_EXIT, WDSEL, STATE, READ_TIME, ALARM_TIME, TIMER = (
    POWMAN + offset for offset in (0x10, 0x14, 0x30, 0x38, 0x74, 0x84, 0x88)
)
STATE_REQUEST_CORE_OFF, STATE_WAITING = 1 << 7, 1 << 12
TIMER_RUNS_AND_WAKES = 1 << 1 | 1 << 4 | 1 << 5
