"""Characterizing a board: every point of a plan, measured once, kept at once.

A point whose transfers break is measured again from its beginning, and nothing of the broken attempt is counted. What went wrong
is told apart by asking the board afterwards: it fell silent, it restarted (boot reason, time or pulses say so), or it went on and
only bytes were lost.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from weakcell.host.board.characterization.dump import Dump
from weakcell.host.board.characterization.experiments import REQUIRED_CAPABILITIES, Experiment, ReportMode, Setting, run_experiment
from weakcell.host.board.characterization.passes import BoardCounters, PassResult, pack_cells, run_pass
from weakcell.host.board.characterization.patterns import Contents, GeneratedPattern, GivenBytes
from weakcell.host.board.characterization.points import FailedAttempt, Outcome, Plan, Point, Record
from weakcell.host.board.characterization.supply import LowPhase, OnChipSupply, Supply, find_code, nominal_on_exit
from weakcell.host.board.errors import BoardError, LinkError, VoltageRefused
from weakcell.host.board.link.link import Link
from weakcell.host.board.link.protocol import BoardInfo
from weakcell.memmodels.errors import UsageError

log = logging.getLogger(__name__)
log.addHandler(logging.NullHandler())

_ATTEMPTS = 2
_OPENINGS = 5
"""Attempts at a point; and times that a silent board is called, of `retries` calls each: longer than any watchdog."""
MOST_SECONDS = 3600.0


@dataclass(frozen=True, eq=False)
class CharacterizationRig:
    """A board, what lowers its voltage, what each pattern writes, and what happens while the voltage is low."""

    link: Link
    supply: Supply
    contents: Mapping[str, Contents]
    experiment: Experiment = Experiment.RETENTION
    counters: BoardCounters = field(default_factory=BoardCounters)


def characterize(
    rig: CharacterizationRig, plan: Plan, dump: Dump, on_record: Callable[[Record], None] | None = None, yes: bool = False
) -> list[Record]:
    """Measure what the dump does not hold yet; all records. Nominal voltage is restored on the way out, however that is.

    on_record: called with each point, the ones found in the dump first. yes: take more than an hour.
    """
    check_experiment(rig)
    for vdd in plan.voltages:
        rig.supply.check(rig.link, vdd)
    kept = {record.point.index: record for record in dump.records() if record.outcome.is_final}
    image_crc, checked = rig.link.info().image_crc, False
    with nominal_on_exit(rig.supply, rig.link):
        for point in plan.points:
            record = kept.get(point.index)
            if record is None:
                record = measure_point(rig, point, plan.pages)
                dump.save(record)
                log.info("%s: %s", point, record.outcome)
                kept[point.index] = record
                if (error := record.stop()) is not None:
                    raise error
                _check_device(rig, record, plan, image_crc)
            if on_record:
                on_record(record)
            if not (checked or yes):
                checked = True
                _refuse_long_runs(rig, plan, [point for point in plan.points if point.index not in kept])
    return [kept[point.index] for point in plan.points]


def measure_point(rig: CharacterizationRig, point: Point, pages: int) -> Record:
    """One point: its repeats, or why there are none."""
    failures: list[FailedAttempt] = []
    began = time.perf_counter()
    for _ in range(_ATTEMPTS):
        before = None
        try:
            before = rig.link.info()
            passes = [_measure_once(rig, point, pages) for _ in range(point.repeats)]
        except VoltageRefused as error:
            failures.append(FailedAttempt(Outcome.VOLTAGE, str(error)))
            break
        except LinkError as error:
            failures.append(FailedAttempt(diagnose(rig.link, before), str(error)))
        except BoardError as error:
            failures.append(FailedAttempt(Outcome.DEVICE_ERROR, str(error)))
        else:
            errors = np.stack([one.errors for one in passes])
            outcome = Outcome.FLIPS if errors.any() else Outcome.OK
            shots = tuple(one.applied for one in passes)
            return Record(point, outcome, shots, errors, tuple(failures), time.perf_counter() - began)
        if failures[-1].outcome is Outcome.NO_RESPONSE:
            break
    return Record(point, failures[-1].outcome, failures=tuple(failures), seconds=time.perf_counter() - began)


def _measure_once(rig: CharacterizationRig, point: Point, pages: int) -> PassResult:
    """Once: write, lower, restore, read back; what happens while low is the experiment's."""
    link, contents = rig.link, rig.contents[point.pattern]
    if rig.experiment is Experiment.RETENTION:
        lower = partial(rig.supply.lower, link, point.vdd, point.dwell_s)
        return run_pass(link, 0, pages, contents, lower, rig.counters)
    assert isinstance(contents, GeneratedPattern), "check_experiment has seen to that"
    setting = Setting(rig.experiment, find_code(link.board, point.vdd), round(point.dwell_s * 1e6))
    report = ReportMode.COMPARE if rig.experiment is Experiment.READ else ReportMode.CRCS
    found = run_experiment(link, setting, contents.pattern, contents.seed, range(pages), report)
    rig.counters.passes += 1
    first = found.pulses[0]
    applied = LowPhase(point.vdd, link.board.volts(first.low_code), None, first.dwell_us / 1e6)
    return PassResult(pack_cells(found.cells, pages), applied)


def check_experiment(rig: CharacterizationRig) -> None:
    """UsageError for an experiment with a supply or a pattern that it cannot have, BoardError for one the firmware cannot do."""
    asked = f"The experiment {rig.experiment}"
    if not rig.link.board.can(REQUIRED_CAPABILITIES[rig.experiment]):
        found = f"the firmware of this {rig.link.board.chip} cannot do it"
        raise BoardError(asked, found, "Choose another, or flash the image of this version")
    if rig.experiment is Experiment.RETENTION:
        return
    if not isinstance(rig.supply, OnChipSupply):
        raise UsageError(asked, f"the firmware lowers the voltage itself, not the {rig.supply.name}", "Leave --supply out")
    if given := [name for name, contents in rig.contents.items() if isinstance(contents, GivenBytes)]:
        raise UsageError(asked, f"the board must generate the pattern, and cannot {given[0]}", "Choose another pattern")


def diagnose(link: Link, before: BoardInfo | None) -> Outcome:
    """Why a transfer broke, by what the board says afterwards. before: what it said when all was well."""
    for _ in range(_OPENINGS):
        try:
            now = link.info()
        except LinkError:
            continue
        return Outcome.RESET if before is None or has_restarted(before, now) else Outcome.LINK_ERROR
    return Outcome.NO_RESPONSE


def has_restarted(before: BoardInfo, now: BoardInfo) -> bool:
    """Whether the board started again between two looks: another boot reason, or counters that went back.

    The time is 32 bits of microseconds and goes round after 71 minutes; pulses do not.
    """
    wrapped = now.uptime_us < before.uptime_us and before.uptime_us - now.uptime_us < 1 << 31
    return now.boot_reason != before.boot_reason or now.pulses < before.pulses or wrapped


def _check_device(rig: CharacterizationRig, record: Record, plan: Plan, image_crc: int) -> None:
    """After trouble: is this still the firmware that began? And a control at nominal voltage must show no flips."""
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
    """Seconds that these points take at most, if every page must be read back: some pages are written and read to find out."""
    link, some = rig.link, range(min(pages, 64))
    before = time.perf_counter()
    held = link.read_pages(some)
    per_page = (time.perf_counter() - before) / len(some)
    if any(isinstance(contents, GivenBytes) for contents in rig.contents.values()):
        before = time.perf_counter()
        link.write_pages(some, held)
        per_page += (time.perf_counter() - before) / len(some)
    return sum(point.repeats * (pages * per_page + point.dwell_s) for point in points)


def list_voltages(nominal: float, minimum: float, step: float = 0.05) -> tuple[float, ...]:
    """Every regulator step from nominal down to the minimum, V."""
    count = round((nominal - minimum) / step)
    return tuple(round(nominal - step * number, 4) for number in range(count + 1))
