"""One record per board: everything that differs between the boards Weakcell runs on.

The protocol, the firmware build, the BOOTSEL drives, the virtual boards, the `board:` memory and the help texts of the command
line all read `BOARDS`. To add a board, add a record here and its firmware; README.md lists the steps.

This module imports nothing of the project and nothing heavy: the command line reads it for its help texts.

Sources: data sheets of the RP2040 and RP2350, and the register headers of pico-sdk 2.2.0. Nothing here was tried on silicon.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

DEFAULT_BOARD = "rp2350"
NATIVE_CHIP_ID = 255
"""Protocol id of the firmware's core compiled for the host, which the tests talk to."""


@dataclass(frozen=True)
class Regulator:
    """The core voltage regulator: voltage = base + step * code.

    Attributes:
        minimum_code: lower codes give the same voltage as this one.
        nominal_code: the highest code that is ever set.
        code_bits: width of the code in the register.
        status_bits: bits of the register that read as 1 when the output is good.
        base_mv: voltage of code 0, in mV.
        step_mv: voltage between two codes, in mV.
        needs_unlock: writes have no effect before the unlock bit of the power manager is set.
    """

    minimum_code: int
    nominal_code: int
    code_bits: int
    status_bits: int = 0
    base_mv: int = 550
    step_mv: int = 50
    needs_unlock: bool = False

    def volts(self, code: int) -> float:
        """Return the nominal voltage of a code, in V."""
        return (self.base_mv + self.step_mv * max(code, self.minimum_code)) / 1000

    def nearest_code(self, volts: float) -> int:
        """Return the code whose voltage is nearest to `volts` (V); it may be out of range."""
        return round((1000 * volts - self.base_mv) / self.step_mv)

    @property
    def minimum_v(self) -> float:
        """Lowest voltage, in V."""
        return self.volts(self.minimum_code)

    @property
    def nominal_v(self) -> float:
        """Nominal voltage, in V; nothing above it is ever set."""
        return self.volts(self.nominal_code)


@dataclass(frozen=True)
class MemoryMap:
    """Addresses and sizes, as far as a virtual board needs them.

    Attributes:
        sram_bytes: all SRAM, from `sram` on.
        arena_bytes: the part under test, from `sram` on.
        boot_vectors: addresses of four words from which the boot ROM jumps before it looks into flash.
        chip_reset: register that holds the cause of the last cold reset.
        brown_out, run_pin: bits of `chip_reset` after a brown-out, and after a reset by the RUN pin.
        constants: registers that always read the same value.
        power_manager: base of the always-on power manager (POWMAN), None if the chip has none.
    """

    sram_bytes: int
    arena_bytes: int
    uart: int
    timer: int
    regulator: int
    watchdog: int
    pll: int
    clk_sys_control: int
    boot_vectors: tuple[int, ...]
    chip_reset: int
    brown_out: int
    run_pin: int
    constants: Mapping[int, int] = field(hash=False)
    power_manager: int | None = None
    sram: int = 0x20000000
    flash: int = 0x10000000

    @property
    def stack(self) -> int:
        """End of SRAM, where the stack begins."""
        return self.sram + self.sram_bytes


@dataclass(frozen=True)
class BoardType:
    """A kind of board that firmware exists for.

    Attributes:
        name: of the chip; also the folder `firmware/board/NAME/` and the port `virtual:NAME`.
        product: what the board is called in a shop.
        chip_id: the chip in the protocol's HELLO reply.
        cpu: GCC's name for the core.
        unicorn_cpu: Unicorn's name for the core, without `UC_CPU_ARM_`.
        uf2_family: family id that the boot ROM accepts.
        image_address: where the image runs; also where the boot ROM puts a RAM image.
        drive_board_id: `Board-ID` in the INFO_UF2.TXT of the BOOTSEL drive.
        regulator: codes and voltages.
        map: addresses and sizes.
        boot2_address: where the boot ROM copies the second stage of a flash image, which needs a CRC. None: the boot ROM looks for
            an IMAGE_DEF block instead and runs the second stage in flash.
        can_sleep: the firmware can switch the core off while the voltage is low.
        bank: rows and columns of a bank of cells. Assumed, not published: four arrays of 1024 x 512 cells, striped word by word.
    """

    name: str
    product: str
    chip_id: int
    cpu: str
    unicorn_cpu: str
    uf2_family: int
    image_address: int
    drive_board_id: str
    regulator: Regulator
    map: MemoryMap
    boot2_address: int | None = None
    can_sleep: bool = False
    bank: tuple[int, int] = (1024, 2048)


BOARDS = {
    "rp2040": BoardType(
        name="rp2040",
        product="Pico",
        chip_id=1,
        cpu="cortex-m0plus",
        unicorn_cpu="CORTEX_M0",
        uf2_family=0xE48BFF56,
        image_address=0x20040000,
        drive_board_id="RPI-RP2",
        regulator=Regulator(minimum_code=5, nominal_code=11, code_bits=4, status_bits=1 << 12 | 1),
        map=MemoryMap(
            sram_bytes=0x42000,
            arena_bytes=0x40000,
            uart=0x40034000,
            timer=0x40054000,
            regulator=0x40064000,
            watchdog=0x40058000,
            pll=0x4002C000,
            clk_sys_control=0x4000803C,
            boot_vectors=(0x4005801C,),
            chip_reset=0x40064008,
            brown_out=1 << 8,
            run_pin=1 << 16,
            constants={
                0x40024004: 1 << 31,  # XOSC STATUS: stable
                0x4000C008: 0xFFFFFFFF,  # RESET_DONE
                0x40008038: 1 << 2,  # CLK_REF_SELECTED: crystal
            },
        ),
        boot2_address=0x20041F00,
    ),
    "rp2350": BoardType(
        name="rp2350",
        product="Pico 2",
        chip_id=2,
        cpu="cortex-m33",
        unicorn_cpu="CORTEX_M33",
        uf2_family=0xE48BFF59,
        image_address=0x20080000,
        drive_board_id="RP2350",
        regulator=Regulator(minimum_code=0, nominal_code=11, code_bits=5, needs_unlock=True),
        map=MemoryMap(
            sram_bytes=0x82000,
            arena_bytes=0x80000,
            uart=0x40070000,
            timer=0x400B0000,
            regulator=0x4010000C,
            watchdog=0x400D8000,
            pll=0x40058000,
            clk_sys_control=0x4001003C,
            boot_vectors=(0x401000D0, 0x400D801C),
            chip_reset=0x4010002C,
            brown_out=1 << 17,
            run_pin=1 << 18,
            constants={
                0x40048004: 1 << 31,  # XOSC STATUS: stable
                0x40020008: 0xFFFFFFFF,  # RESET_DONE
                0x40010038: 1 << 2,  # CLK_REF_SELECTED: crystal
                0x40100008: 1 << 4,  # VREG_STS: output good
            },
            power_manager=0x40100000,
        ),
        can_sleep=True,
    ),
}


def chip_name(chip_id: int) -> str:
    """Return the name of a chip by its id in the protocol; `chip N` if no board has it."""
    names = {board.chip_id: board.name for board in BOARDS.values()} | {NATIVE_CHIP_ID: "native"}
    return names.get(chip_id, f"chip {chip_id}")


def regulator_of(chip: str) -> Regulator:
    """Return the regulator of a chip by name; the default board's for a chip that is not in `BOARDS`."""
    return BOARDS.get(chip, BOARDS[DEFAULT_BOARD]).regulator


def list_names(conjunction: str = "or") -> str:
    """List the boards' names for a message: `rp2040 or rp2350`."""
    return _join(list(BOARDS), conjunction)


def list_products() -> str:
    """List the boards' products for a help text: `Pico or Pico 2`."""
    return _join([board.product for board in BOARDS.values()], "or")


def list_virtual_ports() -> str:
    """List the ports of virtual boards, the newest first: `virtual:rp2350 or virtual:rp2040`."""
    return _join([f"virtual:{name}" for name in reversed(BOARDS)], "or")


def _join(names: list[str], conjunction: str) -> str:
    *first, last = names
    return f"{', '.join(first)} {conjunction} {last}" if first else last
