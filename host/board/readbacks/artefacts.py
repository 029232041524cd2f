"""What in read-backs is not a memory error: artefacts, and read-outs that are refused.

Artefacts are reported with their extent:

    dead lane         a bit of every word, or a column, row or bank, that is wrong in nearly all its cells at every voltage
    repeated lane     a bit of every word that always equals another bit of the word
    repeated block    a run of bytes that equals another run
    copied read-back  the same errors, to the bit, at two voltages, or at two reads where other reads differ
    stuck cells       cells that err at nominal voltage
    temperature       the die was much warmer at some points than at others

Cells of dead lanes and of repetitions are left out of every rate and fit. Stuck cells are left out of the law. After a copied
read-back no law is fitted.

A read-out is refused if every number made from it would be wrong: all reads hold one byte whatever was written, at every voltage;
or the reads match what was written far better once they are inverted, or once the bytes or bits of each word are reversed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import combinations

import numpy as np
import numpy.typing as npt

from weakcell.host.board.readbacks.dead_lanes import find_dead_lanes
from weakcell.host.board.readbacks.readback_set import (
    Artefact,
    PatternReadback,
    ReadbackSet,
    count_noun,
    ever_erred,
    list_erred_cells,
)
from weakcell.host.board.readbacks.repeated_data import find_repeated_blocks, find_repeated_lanes
from weakcell.memmodels.address import Words, popcount
from weakcell.memmodels.errors import InputError

Bytes = npt.NDArray[np.uint8]
_SUSPECT, _BETTER = 0.2, 0.2
"""Share of wrong bits at which other orders are tried, and the share of these that may remain for an order to be accepted."""
_DRIFT_C = 5.0
"""Range of the die's temperature that is reported, in °C. It shifts thresholds by some mV; the sensor repeats to less than 1 °C."""
_COPIED = 20
"""Smallest number of common flips of two read-backs at which one is called a copy."""


def find_artefacts(readbacks: ReadbackSet) -> tuple[Artefact, ...]:
    """Find the artefacts listed at the head of this module."""
    counted = [one for one in readbacks.measured if one.errors is not None]
    conditions = list_erred_cells(counted)
    if not conditions:
        return ()
    if len(conditions) == 1 and (byte := constant_byte(counted, readbacks.bits)) is not None:
        told = f"Every byte of every read is 0x{byte:02X}: either all cells lost what they held, or nothing was read"
        return (Artefact("constant read-out", f"{told}. One voltage cannot tell"),)
    words = counted[0].written.size
    artefacts = find_dead_lanes(readbacks, conditions, ~np.zeros(words, np.uint64), floating=False)
    artefacts += find_repeated_lanes(counted, ~_union(artefacts, words), readbacks.bits)
    artefacts += find_repeated_blocks(counted, ~_union(artefacts, words), readbacks.bits)
    artefacts += find_dead_lanes(readbacks, conditions, ~_union(artefacts, words), floating=True)
    valid = ~_union(artefacts, words)
    artefacts += _copied_voltages(counted, valid)
    artefacts += _copied_reads(counted, valid)
    artefacts += _stuck_cells(readbacks, counted, valid)
    artefacts += _temperature_drift(counted)
    return tuple(artefacts)


def _union(artefacts: Sequence[Artefact], words: int) -> Words:
    """Return the cells that do not count."""
    union = np.zeros(words, np.uint64)
    for one in artefacts:
        if one.cells is not None and not one.law_only:
            union |= one.cells
    return union


def excluded_cells(artefacts: Sequence[Artefact], words: int, *, from_law: bool) -> Words:
    """Return the cells that rates (or, with from_law, the law) leave out, (words,) uint64."""
    union = _union(artefacts, words)
    for one in artefacts:
        if from_law and one.cells is not None:
            union = union | one.cells
    return union


def _temperature_drift(counted: Sequence[PatternReadback]) -> Iterator[Artefact]:
    """Find whether the die was much warmer at some points than at others. Nothing is left out for that."""
    known = [(celsius, one) for one in counted for celsius in one.celsius]
    if not known:
        return
    (low, cold), (high, warm) = (choose(known, key=lambda each: each[0]) for choose in (min, max))
    if high - low >= _DRIFT_C:
        text = (
            f"The die was at {low:.0f} °C at {cold.vdd:.4g} V and at {high:.0f} °C at {warm.vdd:.4g} V, by its own sensor. "
            "The law over the voltage holds this change, too: measure again at a steady temperature to tell them apart"
        )
        yield Artefact("temperature drift", text)


# --- read-backs that were copied -------------------------------------------------------------------------------------------------


def _copied_voltages(counted: Sequence[PatternReadback], valid: Words) -> Iterator[Artefact]:
    """Find the same errors at two voltages, pattern by pattern."""
    by_pattern: dict[tuple[str, float], list[PatternReadback]] = {}
    for one in sorted(counted, key=lambda one: -one.vdd):
        by_pattern.setdefault((one.pattern, one.dwell_s), []).append(one)
    told: dict[tuple[float, float], int] = {}
    for ones in by_pattern.values():
        for higher, lower in combinations(ones, 2):
            above, below = ever_erred(higher) & valid, ever_erred(lower) & valid
            flips = popcount(above)
            if flips >= _COPIED and np.array_equal(above, below):
                told[higher.vdd, lower.vdd] = told.get((higher.vdd, lower.vdd), 0) + flips
    for (high, low), flips in told.items():
        text = f"The read-backs at {high:.4g} and {low:.4g} V have the same {flips} flips, to the bit"
        do = "one may be a copy of the other, or the voltage made no difference"
        yield Artefact(
            "copied read-back", f"{text}: {do}. There is no law over the voltage", no_law=f"{text[0].lower()}{text[1:]}: {do}"
        )


def _copied_reads(counted: Sequence[PatternReadback], valid: Words) -> Iterator[Artefact]:
    """Find two equal reads where other reads of the same pattern differ in many cells."""
    pairs = []
    for one in counted:
        assert one.errors is not None
        errors = one.errors & valid
        for first, second in combinations(range(len(errors)), 2):
            cells = popcount(errors[first] | errors[second])
            pairs.append((one, f"{first + 1} and {second + 1}", popcount(errors[first] ^ errors[second]), cells))
    compare_once, cells = sum(pair[2] for pair in pairs), sum(pair[3] for pair in pairs if pair[2])
    share = compare_once / max(cells, 1)
    for one, reads, differ, cells_in_pair in pairs:
        if differ == 0 and cells_in_pair * share >= _COPIED:
            text = (
                f"Reads {reads} of {one.pattern} at {one.vdd:.4g} V are the same, to the bit, where others "
                f"differ in {100 * share:.3g} % of the cells that err: one may be a copy, and then the repeats say less"
            )
            yield Artefact("copied read-back", text)


def _stuck_cells(readbacks: ReadbackSet, counted: Sequence[PatternReadback], valid: Words) -> Iterator[Artefact]:
    """Find cells that err at nominal voltage."""
    control = [ever_erred(one) & valid for one in counted if one.vdd == readbacks.nominal]
    if not control or not (cells := np.bitwise_or.reduce(np.stack(control), axis=0)).any():
        return
    text = (
        f"{count_noun(popcount(cells), 'cell')} came back wrong at the nominal voltage of {readbacks.nominal:.4g} V, where nothing "
        "was lowered: stuck, or written wrongly. They count in the rates, and are left out of the law"
    )
    yield Artefact("stuck cells", text, cells, law_only=True)


# --- read-outs that are refused --------------------------------------------------------------------------------------------------


def check_readout(readbacks: ReadbackSet) -> None:
    """Raise InputError if the reads differ from what was written as no failing cells would."""
    counted = [one for one in readbacks.measured if one.errors is not None]
    if not counted:
        return
    voltages = {one.vdd for one in counted}
    if len(voltages) > 1 and (byte := constant_byte(counted, readbacks.bits)) is not None:
        found = f"every byte of every read is 0x{byte:02X}, at every voltage and whatever was written: nothing was read"
        raise InputError(f"Read-backs of {readbacks.title}", found, "Check the read-out, and give reads that saw the memory")
    highest = [one for one in counted if one.vdd == max(voltages)]
    suspect = [one for one in highest if _share(one, readbacks.bits) >= _SUSPECT]
    if len(suspect) == 1 and _is_solid(suspect[0], readbacks.bits):
        return
    for one in suspect:
        _check_order(readbacks, one)


def constant_byte(counted: Sequence[PatternReadback], bits: int) -> int | None:
    """Return the byte that all reads hold although others were written; None if there is none."""
    for byte in (0x00, 0xFF):
        if all((_read(one, bits) == byte).all() for one in counted) and any(_share(one, bits) > _SUSPECT for one in counted):
            return byte
    return None


def _is_solid(one: PatternReadback, bits: int) -> bool:
    """Return whether the same byte was written everywhere, so that no order can be seen."""
    written = _bytes(one.written, bits)
    return bool((written == written[0]).all())


def _check_order(readbacks: ReadbackSet, one: PatternReadback) -> None:
    """Raise InputError if the reads match what was written far better in another order."""
    share = _share(one, readbacks.bits)
    for name, order in _orders():
        remaining = _matched(one, readbacks.bits, order)
        if remaining < _BETTER * share:
            found = (
                f"{100 * share:.3g} % of the bits of {one.pattern} at {one.vdd:.4g} V differ from what was written, "
                f"and {100 * remaining:.3g} % do when {name}"
            )
            do = "Give the bytes in the order in which they were written, and as they were written"
            raise InputError(f"Read-backs of {readbacks.title}", found, do)


def _share(one: PatternReadback, bits: int) -> float:
    """Return the share of bits that differ from what was written, over all reads."""
    assert one.errors is not None
    return popcount(one.errors) / (len(one.errors) * bits)


def _read(one: PatternReadback, bits: int) -> Bytes:
    """Return the bytes that came back, of all reads."""
    assert one.errors is not None
    return np.concatenate([_bytes(errors ^ one.written, bits) for errors in one.errors])


def _bytes(words: Words, bits: int) -> Bytes:
    return np.ascontiguousarray(words).view(np.uint8)[: bits // 8]


def _orders() -> Iterator[tuple[str, Callable[[Bytes], Bytes]]]:
    """Yield other orders of the bytes, as text and as function."""
    yield "every bit is inverted", lambda read: ~read
    yield "the bits of each byte are reversed", lambda read: np.packbits(np.unpackbits(read, bitorder="little"), bitorder="big")
    for size in (2, 4, 8, 16):
        yield f"the bytes of each word of {size} are reversed", lambda read, size=size: _swapped(read, size)  # type: ignore[misc]
    for step in (1, -1, 2, -2, 4, -4, 8, -8):
        yield f"they are moved by {step} bytes", lambda read, step=step: np.roll(read, step)  # type: ignore[misc]


def _swapped(read: Bytes, size: int) -> Bytes:
    whole = read.size // size * size
    return np.concatenate([read[:whole].reshape(-1, size)[:, ::-1].reshape(-1), read[whole:]])


def _matched(one: PatternReadback, bits: int, order: Callable[[Bytes], Bytes]) -> float:
    """Return the share of differing bits of the first read, taken in another order."""
    assert one.errors is not None
    written, read = _bytes(one.written, bits), order(_bytes(one.errors[0] ^ one.written, bits))
    return float(np.bitwise_count(read ^ written).sum(dtype=np.int64)) / bits
