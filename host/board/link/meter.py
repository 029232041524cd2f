"""One reading of a voltmeter, with which the voltages that a chip's ring oscillator shows become absolute.

The ring oscillator tells a voltage relative to the regulator's steps. A meter on the core's supply (DVDD) at nominal voltage tells
how far off these are. The steps come from one reference, so its error is taken to be the same share of each.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from weakcell.host.board.errors import BoardError
from weakcell.host.board.link.link import Link
from weakcell.memmodels.atomic_files import write_text_atomically
from weakcell.memmodels.errors import InputError, UsageError
from weakcell.memmodels.files import parse_json, read_text

_SCHEMA = 1
_FARTHEST = 0.1
"""Of nominal voltage: a reading further off is of another supply."""
_SAME_CHIP = 0.06
"""Of the ring oscillator's frequency: temperature changes it by less, and another chip by more, most of the time."""


@dataclass(frozen=True)
class MeterReading:
    """What a meter showed on the core's supply of an idle board.

    Attributes:
        chip: name of the chip.
        volts: the reading, in V.
        nominal_v: what the regulator was set to, in V.
        ring_khz: frequency of the chip's ring oscillator then.
        celsius: temperature of the die then, uncalibrated.
    """

    chip: str
    volts: float
    nominal_v: float
    ring_khz: float
    celsius: float | None

    @property
    def scale(self) -> float:
        """Volts for each volt of the regulator's steps."""
        return self.volts / self.nominal_v

    def check(self, link: Link) -> None:
        """Raise UsageError if a board is another one than that of the reading."""
        khz = _count_khz(link)
        if link.board.chip != self.chip or abs(khz / self.ring_khz - 1) > _SAME_CHIP:
            found = f"it is of a {self.chip} whose ring oscillator runs at {self.ring_khz / 1000:.2f} MHz; this is a"
            found += f" {link.board.chip} with {khz / 1000:.2f} MHz"
            raise UsageError("The meter's reading", found, "Take one of this board: weakcell board calibrate")

    def save(self, path: Path) -> None:
        """Write the reading; OutputError if that fails."""
        write_text_atomically(path, json.dumps({"schema_version": _SCHEMA, **asdict(self)}, indent=2) + "\n")


def take_reading(link: Link, volts: float) -> MeterReading:
    """Return a reading with what identifies the chip.

    Raises:
        UsageError: the reading cannot be that of the core's supply.
        BoardError: the firmware cannot count its ring oscillator.
    """
    board = link.board
    nominal = board.volts(board.nominal_code)
    if not abs(volts / nominal - 1) <= _FARTHEST:
        found = f"the regulator is set to {nominal:.2f} V, and its steps are off by a few per cent at most"
        raise UsageError(f"A reading of {volts:g} V", found, "Measure DVDD against GND while the board is idle")
    return MeterReading(board.chip, volts, nominal, _count_khz(link), link.info().celsius)


def _count_khz(link: Link) -> float:
    info = link.info()
    if not info.ring_count:
        raise BoardError("The ring oscillator", "this firmware does not count it", "Flash the image of this version")
    return info.ring_count / 32


def load_reading(path: Path) -> MeterReading:
    """Read a file that `MeterReading.save` wrote; InputError if it is not one."""
    asked, do = f"The meter's reading in {path}", "Take it again: weakcell board calibrate"
    try:
        values = parse_json(read_text(path))
        if values.pop("schema_version") != _SCHEMA:
            raise ValueError("another version")
        celsius = values.pop("celsius")
        numbers = {name: float(values.pop(name)) for name in ("volts", "nominal_v", "ring_khz")}
        reading = MeterReading(str(values.pop("chip")), **numbers, celsius=None if celsius is None else float(celsius))
        if values or not (0 < reading.nominal_v < 10 and reading.ring_khz > 0 and abs(reading.scale - 1) <= _FARTHEST):
            raise ValueError("out of range")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(asked, f"it is not one ({type(error).__name__}: {error})", do) from error
    return reading
