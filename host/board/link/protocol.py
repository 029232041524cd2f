"""Numbers and records of the protocol; `firmware/PROTOCOL.md` defines every field."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum, IntFlag

import numpy as np
import numpy.typing as npt

from weakcell.host.board.boards import Regulator, chip_name, regulator_of

VERSION = 1
PAGE = 256
PAGE_WORDS = PAGE // 8
MAX_CRCS = 64
MAX_FLIPS = 60
MAX_DWELL_US = 4_000_000


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


class Capability(IntFlag):
    """What the firmware of a board can do."""

    RETENTION = 1 << 0
    COMPARE = 1 << 1
    CRCS = 1 << 2
    READ_LOW = 1 << 3
    WRITE_LOW = 1 << 4
    SLEEP = 1 << 5
    FROM_FLASH = 1 << 8


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
    """

    chip: str
    capabilities: int
    window: int
    arena_address: int
    arena_bytes: int
    nominal_code: int
    minimum_code: int
    boot_reason: int

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
        _, _, chip, *fields = struct.unpack("<BIBIBIIBBI", body)
        return cls(chip_name(chip), *fields)


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

    @classmethod
    def unpack(cls, body: bytes) -> BoardInfo:
        """Unpack the body of an INFO reply."""
        return cls(*struct.unpack("<4I2B7I", body))


@dataclass(frozen=True)
class Pulse:
    """What the board did to the voltage, by its registers and its timer; no field is a measured voltage.

    Attributes:
        code: requested regulator code.
        low_code, low_ok: regulator registers while the voltage was low.
        after_code, after_ok: regulator registers after nominal was restored.
        dwell_us: time at the low code.
        image_crc: CRC-32 of the firmware's code afterwards.
        pulses: times the voltage was lowered since the last reset.
        own: 0 if the firmware's request or reply buffer changed while low; always 1 for PULSE, which does not check.
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

    @classmethod
    def unpack(cls, body: bytes) -> Pulse:
        """Unpack the body of a PULSE reply, or a record."""
        return cls(*struct.unpack("<5B3I" if len(body) == PULSE_BYTES else "<5B3IB", body))


PULSE_BYTES, RECORD_BYTES = 17, 18
_REPLY_BYTES = {Command.HELLO: 25, Command.INFO: 46, Command.WRITE: 2, Command.READ: 2 + PAGE, Command.FILL: 0,
                Command.PULSE: PULSE_BYTES, Command.SLEEP: RECORD_BYTES}  # fmt: skip
_LOW = 0x40


def reply_lengths(command: Command, request: bytes) -> range:
    """Return the lengths that the body of an OK reply may have."""
    if command & _LOW:
        plain = reply_lengths(Command(command & ~_LOW), request[5:])
        return range(plain.start + RECORD_BYTES, plain.stop + RECORD_BYTES, plain.step)
    if command == Command.COMPARE:
        return range(5, 5 + 4 * MAX_FLIPS + 1, 4)
    size = 2 + 4 * request[2] if command == Command.CRCS else _REPLY_BYTES[command]
    return range(size, size + 1)


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
