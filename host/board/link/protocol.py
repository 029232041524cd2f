"""Numbers and records of the protocol; `firmware/PROTOCOL.md` defines every field."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum, IntFlag

import numpy as np
import numpy.typing as npt

from weakcell.host.board.boards import Regulator, chip_name, regulator_of

VERSION, OLDEST_VERSION = 2, 1
"""Of the protocol: what this host asks for first, and the oldest that it understands."""
PAGE = 256
PAGE_WORDS = PAGE // 8
MAX_CRCS = 64
MAX_FLIPS = 60
MAX_DWELL_US = 4_000_000
MAX_WINDOW_MS, HAND_OVER_S = 120_000, 0.2
"""Of HAND_OVER: the longest time, and the time from the reply until the regulator is off, in s."""
MAX_SUMS, MAX_STAGES, MAX_KERNEL_WIDTH = 64, 255, 32
"""Of a network that a board computes: its outputs, its layers with weights, and the columns of a kernel."""


class Command(IntEnum):
    """What the host requests."""

    HELLO = 1
    INFO = 2
    WRITE = 3
    READ = 4
    CRCS = 5
    FILL = 6
    COMPARE = 7
    PULSE = 8
    SLEEP = 9
    CPU_PULSE = 10
    INFER = 11
    HAND_OVER = 12
    HANDED_BACK = 13
    WRITE_LOW = 0x43
    READ_LOW = 0x44
    CRCS_LOW = 0x45
    FILL_LOW = 0x46
    COMPARE_LOW = 0x47


class Status(IntEnum):
    """How the board replies."""

    OK = 0
    BAD_LENGTH = 1
    UNKNOWN_COMMAND = 2
    OUT_OF_RANGE = 3
    VOLTAGE_REFUSED = 4
    GAP = 5
    BAD_SESSION = 6
    BAD_VERSION = 7
    NOT_ENTERED = 8
    TOO_LONG = 9


class Capability(IntFlag):
    """What the firmware of a board can do."""

    RETENTION = 1 << 0
    COMPARE = 1 << 1
    CRCS = 1 << 2
    READ_LOW = 1 << 3
    WRITE_LOW = 1 << 4
    SLEEP = 1 << 5
    COUNT = 1 << 6
    CPU_PULSE = 1 << 7
    FROM_FLASH = 1 << 8
    INFER = 1 << 9
    HAND_OVER = 1 << 10


class Pattern(IntEnum):
    """Patterns that the board generates and compares."""

    ZEROS = 0
    ONES = 1
    CHECKERBOARD = 2
    ADDRESS = 3
    RANDOM = 4


INVERTED = 8  # added to a pattern: every bit inverted


@dataclass(frozen=True)
class ConnectedBoard:
    """The board at the other end of the line, as its HELLO reply describes it.

    Attributes:
        chip: name in `BOARDS`, or `native`.
        capabilities: bits of `Capability`.
        window: requests that may be outstanding.
        arena_address: of the memory under test.
        arena_bytes: its size.
        nominal_code, minimum_code: range of regulator codes.
        boot_reason: see `firmware/PROTOCOL.md`.
        version: of the protocol that the session speaks.
    """

    chip: str
    capabilities: int
    window: int
    arena_address: int
    arena_bytes: int
    nominal_code: int
    minimum_code: int
    boot_reason: int
    version: int = 1

    @property
    def regulator(self) -> Regulator:
        """The regulator of this chip."""
        return regulator_of(self.chip)

    @property
    def pages(self) -> int:
        """Pages of the arena."""
        return self.arena_bytes // PAGE

    def volts(self, code: int) -> float:
        """Return the nominal voltage of a regulator code, in V.

        Codes below the minimum give the minimum's voltage.
        """
        return self.regulator.volts(max(code, self.minimum_code))

    def can(self, capability: Capability) -> bool:
        """Return whether the firmware has a capability."""
        return bool(self.capabilities & capability)

    @classmethod
    def unpack(cls, body: bytes) -> ConnectedBoard:
        """Unpack the body of a HELLO reply."""
        version, _, chip, *fields = struct.unpack("<BIBIBIIBBI", body)
        return cls(*[chip_name(chip), *fields, version])


@dataclass(frozen=True)
class BoardInfo:
    """The reply to INFO: registers and counters. Counters start at the last reset.

    Attributes:
        uptime_us: time since the last reset, 32 bits.
        boot_reason: see `firmware/PROTOCOL.md`.
        image_crc, image_bytes: CRC-32 and size of the firmware's code as it is now.
        regulator_code, regulator_ok: regulator registers.
        pulses: times the voltage was lowered.
        frames_good, frames_damaged, frames_oversize: received frames.
        gaps, repeats, stale: requests whose number was too high, among the last four, or older.
        ring_count: frequency of the ring oscillator, in kHz / 32; 0 if it was not counted.
        sensor: sum of sixteen conversions of the die's temperature sensor; 0 if it was not read.
    """

    uptime_us: int
    boot_reason: int
    image_crc: int
    image_bytes: int
    regulator_code: int
    regulator_ok: int
    pulses: int
    frames_good: int
    frames_damaged: int
    frames_oversize: int
    gaps: int
    repeats: int
    stale: int
    ring_count: int = 0
    sensor: int = 0

    @property
    def celsius(self) -> float | None:
        """Temperature of the die in °C, uncalibrated; None if it was not read."""
        return convert_sensor(self.sensor)

    @classmethod
    def unpack(cls, body: bytes) -> BoardInfo:
        """Unpack the body of an INFO reply."""
        return cls(*struct.unpack("<4I2B7I" if len(body) == _INFO_BYTES[1] else "<4I2B7IIH", body))


@dataclass(frozen=True)
class Pulse:
    """What the board did to the voltage, by its registers, its timer, and the ring oscillator, whose frequency follows the voltage.

    Attributes:
        code: requested regulator code.
        low_code, low_ok: regulator registers while the voltage was low.
        after_code, after_ok: regulator registers after nominal was restored.
        dwell_us: time at the low code.
        image_crc: CRC-32 of the firmware's code afterwards.
        pulses: times the voltage was lowered since the last reset.
        own: 0 if the firmware's request or reply buffer changed while low; always 1 for PULSE, which does not check.
        counts: of the ring oscillator, in kHz / 32: at nominal before, at the end of the dwell, at nominal after; 0: not counted.
        sensor: sum of sixteen conversions of the die's temperature sensor before; 0 if it was not read.
    """

    code: int
    low_code: int
    low_ok: int
    after_code: int
    after_ok: int
    dwell_us: int
    image_crc: int
    pulses: int
    own: int = 1
    counts: tuple[int, int, int] = (0, 0, 0)
    sensor: int = 0

    @property
    def celsius(self) -> float | None:
        """Temperature of the die in °C before the voltage fell, uncalibrated; None if it was not read."""
        return convert_sensor(self.sensor)

    @classmethod
    def unpack(cls, body: bytes) -> Pulse:
        """Unpack the body of a PULSE reply, or a record, of any version."""
        fields = struct.unpack_from("<5B3I", body)
        own = body[-1] if len(body) in RECORD_BYTES.values() else 1
        if len(body) < PULSE_BYTES[2]:
            return cls(*[*fields, own])
        *counts, sensor = struct.unpack_from("<3IH", body, PULSE_BYTES[1])
        return cls(*[*fields, own, tuple(counts), sensor])


PULSE_BYTES, RECORD_BYTES, _INFO_BYTES = {1: 17, 2: 31}, {1: 18, 2: 32}, {1: 46, 2: 52}
"""Bytes of replies, by version of the protocol."""
_REPLY_BYTES = {Command.HELLO: 25, Command.WRITE: 2, Command.READ: 2 + PAGE, Command.FILL: 0, Command.HAND_OVER: 0}
_BY_VERSION = {
    Command.INFO: _INFO_BYTES,
    Command.PULSE: PULSE_BYTES,
    Command.SLEEP: RECORD_BYTES,
    Command.CPU_PULSE: RECORD_BYTES,
    Command.HANDED_BACK: PULSE_BYTES,
}
_LOW = 0x40


def reply_lengths(command: Command, request: bytes, version: int) -> range:
    """Return the lengths that the body of an OK reply may have in a version of the protocol."""
    if command & _LOW:
        plain, record = reply_lengths(Command(command & ~_LOW), request[5:], version), RECORD_BYTES[version]
        return range(plain.start + record, plain.stop + record, plain.step)
    if command == Command.COMPARE:
        return range(5, 5 + 4 * MAX_FLIPS + 1, 4)
    if command == Command.INFER:
        return range(6, 2 + 4 * MAX_SUMS + 1, 4)
    if command in _BY_VERSION:
        size = _BY_VERSION[command][version]
    else:
        size = 2 + 4 * request[2] if command == Command.CRCS else _REPLY_BYTES[command]
    return range(size, size + 1)


def convert_sensor(conversions: int) -> float | None:
    """Return the temperature in °C of sixteen conversions of the die's sensor, None for 0.

    By the data sheets' typical line, with a reference of 3.3 V. A chip may be several degrees off.
    """
    if not conversions:
        return None
    return 27 - (conversions / 16 * 3.3 / 4096 - 0.706) / 0.001721


def pattern_words(pattern: int, seed: int, first: int, count: int) -> npt.NDArray[np.uint32]:
    """Generate a pattern as the board does.

    Args:
        pattern: a `Pattern`, or one plus INVERTED.
        seed: of Pattern.RANDOM.
        first: index of the first word in the arena.
        count: number of words.

    Returns:
        (count,) uint32.
    """
    if pattern & INVERTED:
        return ~pattern_words(pattern & ~INVERTED, seed, first, count)
    index = np.arange(first, first + count, dtype=np.uint32)
    match Pattern(pattern):
        case Pattern.ZEROS:
            return np.zeros(count, np.uint32)
        case Pattern.ONES:
            return np.full(count, 0xFFFFFFFF, np.uint32)
        case Pattern.CHECKERBOARD:
            return np.where(index & 1, np.uint32(0xAAAAAAAA), np.uint32(0x55555555)).astype(np.uint32)
        case Pattern.ADDRESS:
            return index * np.uint32(4)
        case Pattern.RANDOM:
            x = index * np.uint32(0x9E3779B9) ^ np.uint32(seed)
            x = (x ^ x >> np.uint32(16)) * np.uint32(0x85EBCA6B)
            x = (x ^ x >> np.uint32(13)) * np.uint32(0xC2B2AE35)
            return x ^ x >> np.uint32(16)
