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
class ClockMap:
    """Addresses of what makes the clocks.

    Attributes:
        base: of CLOCKS; CLK_REF, CLK_SYS and CLK_PERI have the same offsets on all boards.
        adc, usb: offsets of CLK_ADC_CTRL and CLK_USB_CTRL.
        counter: offset of FC0_REF_KHZ; the counter's other registers follow.
        xosc, pll_sys, pll_usb: bases.
        resets: base of RESETS.
        pll_sys_reset, pll_usb_reset, usb_reset, adc_reset: bits of RESETS.
        ring_khz: frequency of the ring oscillator at nominal voltage. Assumed: it differs from chip to chip by a factor of two.
    """

    base: int
    adc: int
    usb: int
    counter: int
    xosc: int
    pll_sys: int
    pll_usb: int
    resets: int
    pll_sys_reset: int
    pll_usb_reset: int
    usb_reset: int
    ring_khz: float
    adc_reset: int = 1


@dataclass(frozen=True)
class DmaMap:
    """The parts of the DMA's registers that differ between boards.

    Attributes:
        chain, pace: lowest bits of CHAIN_TO and TREQ_SEL.
        quiet: the bit IRQ_QUIET.
        timer: offset of the first pacing timer.
        trigger, abort: offsets.
        gates: for each peripheral's base that DMA can be kept from, the register that lets it in (bit 6).
    """

    chain: int
    pace: int
    quiet: int
    timer: int
    trigger: int
    abort: int
    base: int = 0x50000000
    gates: Mapping[int, int] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class MemoryMap:
    """Addresses and sizes, as far as a virtual board needs them.

    Attributes:
        sram_bytes: all SRAM, from `sram` on.
        arena_bytes: the part under test, from `sram` on.
        boot_vectors: addresses of four words from which the boot ROM jumps before it looks into flash.
        chip_reset: register that holds the cause of the last cold reset.
        brown_out, run_pin: bits of `chip_reset` after a brown-out, and after a reset by the RUN pin.
        reset_values: registers that are not 0 after a reset.
        write_one_to_clear: bits of registers that writing 1 clears, and nothing else changes.
        passwords: for the first and the end address of a range of registers, what a write must have in its upper half.
        regulator_status: register and bit of "output good", if it is not the regulator's own.
        brown_out_detector: registers of the brown-out detector when awake, and after waking from a low-power state.
        supply_detector: register and bit that keep the detector of another supply from resetting the chip.
        clk_ref_hazard: register and bit that a reset by the watchdog asks for.
        package: register that says which package the chip is in.
        sensor: channel of the temperature sensor in that package.
        usb_reset_values: registers of the USB controller, by offset, that are not 0 after a reset.
        cache_flush: addresses whose writing makes the cache of the flash invalid: the first, the number, and the step.
        chip_id: address of two words that are the chip's serial number; None: the flash chip's is taken.
        power_manager: base of the always-on power manager (POWMAN), None if the chip has none.
    """

    sram_bytes: int
    arena_bytes: int
    uart: int
    timer: int
    regulator: int
    watchdog: int
    adc: int
    clocks: ClockMap
    dma: DmaMap
    boot_vectors: tuple[int, ...]
    chip_reset: int
    brown_out: int
    run_pin: int
    reset_values: Mapping[int, int] = field(hash=False)
    brown_out_detector: tuple[int, ...]
    cache_flush: tuple[int, int, int]
    usb_reset_values: Mapping[int, int] = field(default_factory=dict, hash=False)
    chip_id: int | None = None
    write_one_to_clear: Mapping[int, int] = field(default_factory=dict, hash=False)
    passwords: Mapping[tuple[int, int], int] = field(default_factory=dict, hash=False)
    regulator_status: tuple[int, int] | None = None
    supply_detector: tuple[int, int] | None = None
    clk_ref_hazard: tuple[int, int] | None = None
    package: int | None = None
    sensor: int = 4
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
        unicorn_cpu: Unicorn's name for the core, without `UC_CPU_ARM_`.
        uf2_family: family id that the boot ROM accepts.
        image_address: where the image runs; also where the boot ROM puts a RAM image.
        drive_board_id: `Board-ID` in the INFO_UF2.TXT of the BOOTSEL drive.
        regulator: codes and voltages.
        map: addresses and sizes.
        boot2_address: where the boot ROM copies the second stage of a flash image, which needs a CRC. None: the boot ROM looks for
            an IMAGE_DEF block instead and runs the second stage in flash.
        can_sleep: the firmware can switch the core off while the voltage is low.
        bank: rows and columns of the banks that share a stripe. Assumed, not published: four arrays of 1024 x 512 cells in a row.
        stripes: banks over which consecutive words of 32 bits are spread (bits 2 and 3 of the address, by the data sheets).
    """

    name: str
    product: str
    chip_id: int
    unicorn_cpu: str
    uf2_family: int
    image_address: int
    drive_board_id: str
    regulator: Regulator
    map: MemoryMap
    boot2_address: int | None = None
    can_sleep: bool = False
    bank: tuple[int, int] = (1024, 2048)
    stripes: int = 4


BOARDS = {
    "rp2040": BoardType(
        name="rp2040",
        product="Pico",
        chip_id=1,
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
            adc=0x4004C000,
            clocks=ClockMap(
                base=0x40008000,
                adc=0x60,
                usb=0x54,
                counter=0x80,
                xosc=0x40024000,
                pll_sys=0x40028000,
                pll_usb=0x4002C000,
                resets=0x4000C000,
                pll_sys_reset=1 << 12,
                pll_usb_reset=1 << 13,
                usb_reset=1 << 24,
                ring_khz=6500.0,
            ),
            dma=DmaMap(chain=11, pace=15, quiet=1 << 21, timer=0x420, trigger=0x430, abort=0x444),
            boot_vectors=(0x4005801C,),
            chip_reset=0x40064008,
            brown_out=1 << 8,
            run_pin=1 << 16,
            reset_values={
                0x4000C000: 0x01FFFFFF,  # RESETS
                0x40024000: 0xAA0,  # XOSC CTRL
                0x40028000: 0x1,  # PLL_SYS CS, PWR, PRIM
                0x40028004: 0x2D,
                0x4002800C: 0x77000,
                0x4002C000: 0x1,  # PLL_USB CS, PWR, PRIM
                0x4002C004: 0x2D,
                0x4002C00C: 0x77000,
                0x40058000: 0x07000000,  # WATCHDOG CTRL
                0x4005802C: 0x200,  # WATCHDOG TICK
                0x40064000: 0xB1,  # VREG
                0x40064004: 0x91,  # BOD
                0x40008090: 0x8,  # FC0_INTERVAL
            },
            brown_out_detector=(0x40064004,),
            cache_flush=(0x14000004, 1, 4),
            write_one_to_clear={0x40064008: 1 << 24},  # CHIP_RESET
        ),
        boot2_address=0x20041F00,
    ),
    "rp2350": BoardType(
        name="rp2350",
        product="Pico 2",
        chip_id=2,
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
            adc=0x400A0000,
            clocks=ClockMap(
                base=0x40010000,
                adc=0x6C,
                usb=0x60,
                counter=0x8C,
                xosc=0x40048000,
                pll_sys=0x40050000,
                pll_usb=0x40058000,
                resets=0x40020000,
                pll_sys_reset=1 << 14,
                pll_usb_reset=1 << 15,
                usb_reset=1 << 28,
                ring_khz=11000.0,
            ),
            dma=DmaMap(
                chain=13,
                pace=17,
                quiet=1 << 23,
                timer=0x440,
                trigger=0x450,
                abort=0x464,
                gates={0x40100000: 0x400600B0, 0x40010000: 0x400600C0, 0x400D8000: 0x400600D8},  # POWMAN, CLOCKS, WATCHDOG
            ),
            boot_vectors=(0x401000D0, 0x400D801C),
            chip_reset=0x4010002C,
            brown_out=1 << 17,
            run_pin=1 << 18,
            reset_values={
                0x4001003C: 0x41,  # CLK_SYS_CTRL: ring oscillator as auxiliary source; 0x0 in the header's first versions
                0x4001009C: 0x8,  # FC0_INTERVAL
                0x40020000: 0x1FFFFFFF,  # RESETS
                0x40048000: 0xAA0,  # XOSC CTRL
                0x40050000: 0x1,  # PLL_SYS CS, PWR, PRIM
                0x40050004: 0x2D,
                0x4005000C: 0x77000,
                0x40058000: 0x1,  # PLL_USB CS, PWR, PRIM
                0x40058004: 0x2D,
                0x4005800C: 0x77000,
                0x400600B0: 0xB8,  # ACCESSCTRL POWMAN, CLOCKS, WATCHDOG
                0x400600C0: 0xB8,
                0x400600D8: 0xB8,
                0x400D8000: 0x07000000,  # WATCHDOG CTRL
                0x40100004: 0x8050,  # VREG_CTRL
                0x4010000C: 0xB0,  # VREG, LP_ENTRY, LP_EXIT
                0x40100010: 0xB4,
                0x40100014: 0xB0,
                0x4010001C: 0xB1,  # BOD, LP_ENTRY, LP_EXIT
                0x40100020: 0xB0,
                0x40100024: 0xB1,
                0x40100038: 0xF,  # STATE; the boot ROM's power sequence ends in 0
            },
            brown_out_detector=(0x4010001C, 0x40100024),
            cache_flush=(0x1BFFC000, 2048, 8),
            usb_reset_values={0x40: 0x4, 0x4C: 0x8000},  # MAIN_CTRL: transceiver isolated; SIE_CTRL: pull-downs
            chip_id=0x40130000,  # OTP_DATA: CHIPID0 to 3
            write_one_to_clear={0x40100000: 1, 0x4010002C: 1 << 4, 0x40100038: 3 << 8},  # BADPASSWD, CHIP_RESET, STATE
            passwords={(0x40100000, 0x401000B0): 0x5AFE, (0x40060000, 0x40064000): 0xACCE},  # POWMAN, ACCESSCTRL
            regulator_status=(0x40100008, 1 << 4),  # VREG_STS
            supply_detector=(0x40008014, 1 << 2),  # SYSCFG AUXCTRL
            clk_ref_hazard=(0x40008014, 1 << 0),
            package=0x40000004,
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
