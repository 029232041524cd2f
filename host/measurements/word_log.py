"""Logs of wrong words: one line per word that was read other than written, as in radiation tests.

    file, address, written, read, cycle          file and cycle are optional; words are decimal or 0x hexadecimal

The size of the memory is in a comment ("2097152 words of 8 bits"), or comes from `--about words=N` and `--about bits=8`. Each file
is one exposure: its rates are flips per bit and exposure. A word that is not in the log was right. What it held is known only where
one value was written everywhere; where several were, each is taken to have been in an equal share of the words.

Noticed: files that are equal, words that are logged twice, one value written only, several wrong bits in a word, and pairs of flips
at the same XOR distance far more often than chance allows: multi-cell upsets of an interleaved memory.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.stats import poisson

from weakcell.host.measurements.measurement import Adapter, Count, CountedPoint, FittedProfile, Measurement
from weakcell.host.measurements.table import MeasurementTable
from weakcell.memmodels.error_model.terms import ErrorTerm, Lifetime
from weakcell.memmodels.profile import OperatingPoint, Profile, Rate

_SIZE = re.compile(r"([\d,]+) words of (\d+) bits", re.ASCII)
_CHANCE = 1e-9
_TABLE, _FEWEST_PAIRS = 1 << 20, 3
"""Size of the table of distances, modulo it, and pairs at one distance that are looked at."""
_MOST_PAIRED = 4000
"""Flips of a file among which all pairs are compared; in a larger one pairs at equal distance arise by chance."""


class _File(NamedTuple):
    """The wrong words of one exposure."""

    name: str
    address: npt.NDArray[np.uint64]
    written: npt.NDArray[np.uint64]
    read: npt.NDArray[np.uint64]
    cycle: tuple[str, ...]


def _recognizes(table: MeasurementTable) -> bool:
    return {"address", "written", "read"} <= table.columns.keys() <= {"file", "address", "written", "read", "cycle"}


def _read(table: MeasurementTable, facts: Mapping[str, float]) -> Measurement:
    words, bits = _size(table, facts)
    files = _files(table)
    for one in files:
        if one.address.max() >= words or max(one.written.max(), one.read.max()) >> np.uint64(bits - 1) > 1:
            raise table.refusal(
                f"{one.name} has an address or word beyond {words} words of {bits} bits", "Give --about words=N, bits=N"
            )
    noticed = list(_notice(files, bits))
    points, operating = [], []
    for one in files:
        p01, p10 = _counts(one, words, bits)
        points.append(CountedPoint({"file": one.name}, p01, p10))
        operating.append(_operating_point(one.name, p01, p10))
    constants = tuple(
        count.constant(f"{name} of {point.conditions['file']}")
        for point in points
        for name, count in (("p01", point.p01), ("p10", point.p10))
        if count is not None
    )
    limits = (
        "fluence, particle and voltage of the files: rates are per exposure, not per time",
        "whether an upset comes back: one exposure",
    )
    verdict = f"rates of {len(files)} exposures, nothing between them; multi-cell upsets are reported and not in the profile"
    fit = FittedProfile(Profile("profile", tuple(operating), constants=constants, fit={"verdict": verdict}), verdict)
    title = table.comment or table.path.stem
    return Measurement(title, table.path.name, tuple(points), (fit,), tuple(noticed), limits)


def _size(table: MeasurementTable, facts: Mapping[str, float]) -> tuple[int, int]:
    said = _SIZE.search(table.comment)
    words, bits = (int(number.replace(",", "")) for number in said.groups()) if said else (0, 0)
    words, bits = int(facts.get("words", words)), int(facts.get("bits", bits))
    if words < 1 or not 1 <= bits <= 64:
        raise table.refusal("it does not say how many words and bits the memory has", "Give --about words=N --about bits=N")
    return words, bits


def _files(table: MeasurementTable) -> list[_File]:
    names = np.array(table.columns.get("file", ["all"] * table.rows))
    address, written, read = (table.words(name) for name in ("address", "written", "read"))
    cycle = np.array(table.columns.get("cycle", [""] * table.rows))
    found = []
    for name in dict.fromkeys(names.tolist()):
        at = names == name
        found.append(_File(name, address[at], written[at], read[at], tuple(cycle[at].tolist())))
    return found


def _notice(files: list[_File], bits: int) -> list[str]:
    """Say what is odd in the logs."""
    noticed: list[str] = []
    contents: dict[tuple[bytes, ...], str] = {}
    for one in files:
        content = (one.address.tobytes(), one.written.tobytes(), one.read.tobytes())
        if (same := contents.setdefault(content, one.name)) != one.name:
            noticed.append(f"{one.name} is the same as {same}, to the bit: a copy, not a second exposure")
        values = np.unique(one.written)
        if values.size == 1 and int(values[0]) in (0, (1 << bits) - 1):
            value, rate = ("0", "p10") if values[0] == 0 else ("1", "p01")
            noticed.append(f"{one.name}: only {value} was written, so {rate} is not known")
        if right := int((one.written == one.read).sum()):
            noticed.append(f"{one.name}: {right} lines are no errors (written = read)")
        if repeated := one.address.size - len(set(zip(one.address.tolist(), one.cycle, strict=True))):
            noticed.append(f"{one.name}: {repeated} words are logged twice in one cycle")
        wrong = np.bitwise_count(one.written ^ one.read)
        if several := int((wrong > 1).sum()):
            most = f"up to {wrong.max()} wrong bits, which SECDED does not correct"
            noticed.append(f"{one.name}: {several} of {wrong.size} wrong words have {most}")
        noticed += _pairs(one, bits)
    return noticed


def _pairs(one: _File, bits: int) -> list[str]:
    """Return the distances of bit addresses at which pairs of flips of a cycle lie beyond chance.

    An SRAM that interleaves words has physical neighbours at fixed XOR values, an FPGA at fixed differences; both are tried.
    """
    flips = [np.array(group, np.int64) for group in _bit_addresses(one, bits).values()]
    total = sum(group.size for group in flips)
    if not 2 <= total <= _MOST_PAIRED:
        return []
    found, indices = [], [np.triu_indices(group.size, 1) for group in flips]
    for kind, distance in (("XOR", np.bitwise_xor), ("difference", lambda a, b: np.abs(a - b))):
        apart = np.concatenate(
            [distance(group[first], group[second]) for group, (first, second) in zip(flips, indices, strict=True)]
        )
        times = np.bincount(apart % _TABLE, minlength=_TABLE)
        often = apart[times[apart % _TABLE] >= _FEWEST_PAIRS]  # only these can lie beyond chance
        counted = Counter(dict(zip(*(part.tolist() for part in np.unique(often, return_counts=True)), strict=True)))
        space = 1 << int(max(group.max() for group in flips)).bit_length()
        chance = apart.size / space * (1 if kind == "XOR" else 2)
        beyond = [(value, times) for value, times in counted.most_common(8) if poisson.sf(times - 1, chance) * space < _CHANCE]
        if beyond:
            found.append((sum(times for _, times in beyond), kind, beyond, chance))
    if not found:
        return []
    _, kind, beyond, chance = found[-1] if found[-1][0] > 1.2 * found[0][0] else found[0]
    shown = ", ".join(f"{value:#x} ({times} pairs)" if kind == "XOR" else f"{value} ({times} pairs)" for value, times in beyond[:5])
    expected = f"expected by chance {chance:.2g} each"
    return [f"{one.name}: bit addresses of flips at {kind} {shown}, {expected}: multi-cell upsets, not independent cells"]


def _bit_addresses(one: _File, bits: int) -> dict[str, list[int]]:
    """Return address * bits + bit of every flip, by cycle."""
    found: dict[str, list[int]] = {}
    for address, difference, cycle in zip(one.address.tolist(), (one.written ^ one.read).tolist(), one.cycle, strict=True):
        found.setdefault(cycle, []).extend(address * bits + bit for bit in range(bits) if difference >> bit & 1)
    return found


def _counts(one: _File, words: int, bits: int) -> tuple[Count | None, Count | None]:
    """Return the flips of 0s and of 1s, with the cells that held them; None if none did."""
    values = np.unique(one.written)
    ones = sum(int(np.bitwise_count(value)) for value in values) * words // values.size
    flipped = one.written ^ one.read
    up, down = (int(np.bitwise_count(part).sum()) for part in (flipped & ~one.written, flipped & one.written))
    zeros = words * bits - ones
    return (Count(up, zeros) if zeros else None), (Count(down, ones) if ones else None)


def _operating_point(name: str, p01: Count | None, p10: Count | None) -> OperatingPoint:
    """Return the upsets of a file: drawn once per write, in independent cells."""
    unmeasured: Rate | None = "p01" if p01 is None else "p10" if p10 is None else None
    rates = [0.0 if count is None else min(count.rate, 1.0) for count in (p01, p10)]
    return OperatingPoint({"file": name}, (ErrorTerm("upset", Lifetime.WRITE, rates[0], rates[1]),), unmeasured)


ADAPTER = Adapter(
    "word-log",
    "wrong words of radiation tests and of other exposures",
    "[file,] address, written, read[, cycle]",
    _recognizes,
    _read,
    {"words": "words of the memory", "bits": "bits of a word"},
)
