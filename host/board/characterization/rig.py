"""Characterize a board: measure each point of a plan once, and save it at once.

A point whose transfers break is measured again from its beginning; nothing of the broken attempt is counted. The board is asked
afterwards what went wrong: it no longer answers, it restarted (by boot reason, time or pulses), or only bytes were lost.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from weakcell.host.board.characterization.dump import Dump
from weakcell.host.board.characterization.experiments import REQUIRED_CAPABILITIES, Experiment, ReportMode, Setting, run_experiment
from weakcell.host.board.characterization.passes import BoardCounters, PassResult, pack_cells, run_pass
from weakcell.host.board.characterization.patterns import Contents, GeneratedPattern, GivenBytes
from weakcell.host.board.characterization.points import FailedAttempt, Outcome, Plan, Point, Record
from weakcell.host.board.characterization.power_cycle import PowerCycle
from weakcell.host.board.characterization.supply import OnChipSupply, Supply, describe_pulse, find_code, nominal_on_exit
from weakcell.host.board.errors import BoardError, LinkError, VoltageNotReached, VoltageRefused
from weakcell.host.board.link.link import Link
from weakcell.host.board.link.protocol import BoardInfo, ConnectedBoard
from weakcell.memmodels.errors import UsageError

log = logging.getLogger(__name__)
log.addHandler(logging.NullHandler())

ATTEMPTS = 2
"""At a point, unless more are asked for."""
_OPENINGS, _CYCLES = 5, 3
"""Sessions that are tried with a silent board, which together take longer than any watchdog; and power cycles in a row."""
MOST_SECONDS = 3600.0


@dataclass(frozen=True, eq=False)
class CharacterizationRig:
    """A board with everything that a measurement needs.

    Attributes:
        link: the board.
        supply: lowers the voltage.
        contents: what each pattern writes, by name.
        experiment: what happens while the voltage is low.
        counters: errors by where they happened.
        attempts: at each point.
        power_cycle: starts a board again that fell silent for good; None: the run ends then.
    """

    link: Link
    supply: Supply
    contents: Mapping[str, Contents]
    experiment: Experiment = Experiment.RETENTION
    counters: BoardCounters = field(default_factory=BoardCounters)
    attempts: int = ATTEMPTS
    power_cycle: PowerCycle | None = None


@dataclass(frozen=True)
class Attempt:
    """An attempt at a point, for the log.

    Attributes:
        point: which one.
        number: from 1.
        outcome: how it ended.
        message: why it failed; empty if it did not.
        seconds: how long it took.
        before: the board's state when it began; None if it did not answer.
        power_cycles: how often the board was started again afterwards.
    """

    point: Point
    number: int
    outcome: Outcome
    message: str
    seconds: float
    before: BoardInfo | None
    power_cycles: int = 0


def characterize(
    rig: CharacterizationRig, plan: Plan, dump: Dump, on_record: Callable[[Record], None] | None = None, yes: bool = False
) -> list[Record]:
    """Measure all points that the dump does not hold yet.

    Nominal voltage is restored however this ends.

    Args:
        rig: the board and its supply.
        plan: the points.
        dump: where records are loaded from and saved.
        on_record: called with each record, those of the dump included.
        yes: allow more than an hour.

    Returns:
        The records of all points, in the order of the plan.
    """
    check_plan(rig, plan)
    records = {record.point.index: record for record in dump.records() if record.outcome.is_final}
    image_crc, checked = rig.link.info().image_crc, False
    if rig.link.ring_curve is None:
        rig.link.ring_curve = dump.load_curve(rig.link.board)
    with nominal_on_exit(rig.supply, rig.link):
        for point in plan.points:
            record = records.get(point.index)
            if record is None:
                _calibrate(rig, point, dump)
                record = measure_point(rig, point, plan.pages, lambda attempt: dump.log(describe_attempt(attempt)))
                dump.save(record)
                log.info("%s: %s", point, record.outcome)
                records[point.index] = record
                if (error := record.stop()) is not None:
                    raise error
                _check_device(rig, record, plan, image_crc)
            if on_record:
                on_record(record)
            if not (checked or yes):
                checked = True
                _refuse_long_runs(rig, plan, [point for point in plan.points if point.index not in records])
    return [records[point.index] for point in plan.points]


def _calibrate(rig: CharacterizationRig, point: Point, dump: Dump) -> None:
    """Prepare the supply for a point and keep what it learned; `measure_point` tries again and reports a failure."""
    known = 0 if rig.link.ring_curve is None else rig.link.ring_curve.pulses
    with suppress(BoardError):
        rig.supply.prepare(rig.link, point.vdd, point.dwell_s)
    if rig.link.ring_curve is not None and rig.link.ring_curve.pulses != known:
        dump.save_curve(rig.link.ring_curve)


def measure_point(
    rig: CharacterizationRig, point: Point, pages: int, on_attempt: Callable[[Attempt], None] = lambda attempt: None
) -> Record:
    """Measure all repeats of a point; the record says why if that fails. on_attempt: called after each attempt."""
    failures: list[FailedAttempt] = []
    start = time.perf_counter()
    for number in range(1, rig.attempts + 1):
        before, began, cycles = None, time.perf_counter(), 0
        try:
            before = rig.link.info()
            rig.supply.prepare(rig.link, point.vdd, point.dwell_s)
            passes = [_measure_once(rig, point, pages) for _ in range(point.repeats)]
        except VoltageNotReached as error:
            failures.append(FailedAttempt(Outcome.NOT_REACHED, str(error)))
        except VoltageRefused as error:
            failures.append(FailedAttempt(Outcome.VOLTAGE, str(error)))
        except LinkError as error:
            failures.append(FailedAttempt(diagnose(rig.link, before), str(error)))
            if failures[-1].outcome is Outcome.NO_RESPONSE and rig.power_cycle is not None:
                cycles, alive = _revive(rig.link, rig.power_cycle)
                if alive:
                    why = f"{error} It fell silent, and answered again after a power cycle ({rig.power_cycle.name})"
                    failures[-1] = FailedAttempt(Outcome.RESET, why)
        except BoardError as error:
            failures.append(FailedAttempt(Outcome.DEVICE_ERROR, str(error)))
        else:
            record = _count_errors(rig, point, passes, failures, time.perf_counter() - start)
            on_attempt(Attempt(point, number, record.outcome, "", time.perf_counter() - began, before))
            return record
        last = failures[-1]
        on_attempt(Attempt(point, number, last.outcome, last.message, time.perf_counter() - began, before, cycles))
        if last.outcome in (Outcome.NO_RESPONSE, Outcome.VOLTAGE):
            break
    return Record(point, failures[-1].outcome, failures=tuple(failures), seconds=time.perf_counter() - start)


def _count_errors(
    rig: CharacterizationRig, point: Point, passes: Sequence[PassResult], failures: Sequence[FailedAttempt], seconds: float
) -> Record:
    """Return the record of a point that was measured."""
    errors = np.stack([one.errors for one in passes])
    outcome = Outcome.FLIPS if errors.any() else Outcome.OK
    shots = tuple(one.applied for one in passes)
    unseen = isinstance(rig.supply, OnChipSupply) and any(shot.seen is None for shot in shots)
    if outcome is Outcome.OK and unseen and point.vdd < rig.link.board.volts(rig.link.board.nominal_code) - 1e-9:
        return Record(point, Outcome.UNSEEN, shots, None, tuple(failures), seconds)
    return Record(point, outcome, shots, errors, tuple(failures), seconds)


def _revive(link: Link, power_cycle: PowerCycle) -> tuple[int, bool]:
    """Start a silent board again; return how often, and whether it answers now."""
    for count in range(1, _CYCLES + 1):
        with suppress(LinkError):  # the adapter's port may be gone for a moment
            power_cycle.cycle()
        if diagnose(link, None) is not Outcome.NO_RESPONSE:
            return count, True
    return _CYCLES, False


def describe_attempt(attempt: Attempt) -> dict[str, object]:
    """Return an attempt as a line of the log."""
    point, before = attempt.point, attempt.before
    return {
        "point": point.index,
        "vdd": point.vdd,
        "dwell_s": point.dwell_s,
        "pattern": point.pattern,
        "attempt": attempt.number,
        "outcome": str(attempt.outcome),
        "message": attempt.message,
        "seconds": round(attempt.seconds, 3),
        "celsius": None if before is None or before.celsius is None else round(before.celsius, 1),
        "boot_reason": None if before is None else before.boot_reason,
        "power_cycles": attempt.power_cycles,
    }


def _measure_once(rig: CharacterizationRig, point: Point, pages: int) -> PassResult:
    """Write, lower, restore and read back once, as the experiment says."""
    link, contents = rig.link, rig.contents[point.pattern]
    if rig.experiment is Experiment.RETENTION:
        lower = partial(rig.supply.lower, link, point.vdd, point.dwell_s)
        return run_pass(link, 0, pages, contents, lower, rig.counters)
    assert isinstance(contents, GeneratedPattern), "check_plan has seen to that"
    setting = Setting(rig.experiment, find_code(link.board, point.vdd), round(point.dwell_s * 1e6))
    report = ReportMode.COMPARE if rig.experiment is Experiment.READ else ReportMode.CRCS
    result = run_experiment(link, setting, contents.pattern, contents.seed, range(pages), report)
    rig.counters.passes += 1
    phases = [describe_pulse(link, point.vdd, pulse) for pulse in result.pulses]
    return PassResult(pack_cells(result.cells, pages), phases[0])


def check_plan(rig: CharacterizationRig, plan: Plan) -> None:
    """Check that the experiment is possible at all voltages.

    Raises:
        UsageError: it cannot use this supply or pattern.
        BoardError: the firmware cannot run it.
        VoltageRefused: the supply cannot set a voltage.
    """
    _check_experiment(rig)
    for vdd in plan.voltages:
        rig.supply.check(rig.link, vdd)


def _check_experiment(rig: CharacterizationRig) -> None:
    asked = f"The experiment {rig.experiment}"
    if not rig.link.board.can(REQUIRED_CAPABILITIES[rig.experiment]):
        found = f"the firmware of this {rig.link.board.chip} cannot do it"
        raise BoardError(asked, found, "Choose another, or flash the image of this version")
    if rig.experiment is Experiment.RETENTION:
        return
    if not isinstance(rig.supply, OnChipSupply):
        raise UsageError(asked, f"the firmware lowers the voltage itself, not the {rig.supply.name}", "Leave --supply out")
    if names := [name for name, contents in rig.contents.items() if isinstance(contents, GivenBytes)]:
        raise UsageError(asked, f"the board must generate the pattern, and cannot {names[0]}", "Choose another pattern")


def diagnose(link: Link, before: BoardInfo | None) -> Outcome:
    """Return why a transfer broke, from what the board answers now; before: its state when all was well."""
    for _ in range(_OPENINGS):
        try:
            now = link.info()
        except LinkError:
            continue
        return Outcome.RESET if before is None or has_restarted(before, now) else Outcome.LINK_ERROR
    return Outcome.NO_RESPONSE


def has_restarted(before: BoardInfo, now: BoardInfo) -> bool:
    """Return whether the board restarted between two INFO replies.

    It did if the boot reason changed or a counter decreased. The time has 32 bits and wraps around after 71 minutes; pulses do not.
    """
    wrapped = now.uptime_us < before.uptime_us and before.uptime_us - now.uptime_us < 1 << 31
    return now.boot_reason != before.boot_reason or now.pulses < before.pulses or wrapped


def _check_device(rig: CharacterizationRig, record: Record, plan: Plan, image_crc: int) -> None:
    """Raise BoardError if the firmware changed during failures, or if a control has flips."""
    if record.failures and rig.link.info().image_crc != image_crc:
        asked, found = f"Measuring at {record.point}", "the firmware's own code has changed in SRAM"
        raise BoardError(asked, found, "Reset the board, copy the image again if it ran from RAM, then `--resume`")
    if record.point.vdd == plan.nominal and record.outcome is Outcome.FLIPS:
        found = "cells came back inverted although the voltage was never lowered"
        raise BoardError(f"The control at {record.point}", found, "Check the board's supply; start again in another folder")


def _refuse_long_runs(rig: CharacterizationRig, plan: Plan, left: Sequence[Point]) -> None:
    seconds = estimate_seconds(rig, plan.pages, left)
    if seconds > MOST_SECONDS:
        shots, low = sum(point.repeats for point in left), sum(point.repeats * point.dwell_s for point in left)
        found = f"they take about {seconds / 3600:.1f} h at most, {low / 3600:.1f} h of it at low voltage"
        raise UsageError(f"Measuring {shots} shots", found, "Allow it with --yes (and --resume), or ask for fewer")


def estimate_seconds(rig: CharacterizationRig, pages: int, points: Sequence[Point]) -> float:
    """Estimate how long points take at most, in s, if every page must be read back.

    Some pages are written and read to measure the speed.
    """
    link, sample = rig.link, range(min(pages, 64))
    start = time.perf_counter()
    contents = link.read_pages(sample)
    per_page = (time.perf_counter() - start) / len(sample)
    if any(isinstance(each, GivenBytes) for each in rig.contents.values()):
        start = time.perf_counter()
        link.write_pages(sample, contents)
        per_page += (time.perf_counter() - start) / len(sample)
    return sum(point.repeats * (pages * per_page + point.dwell_s) for point in points)


def list_voltages(board: ConnectedBoard) -> tuple[float, ...]:
    """Return every regulator step from nominal down to the minimum, in V."""
    return tuple(round(board.volts(code), 4) for code in range(board.nominal_code, board.minimum_code - 1, -1))
