"""Studies whose weights come through a board: how long they take, leave to do so, and the read-backs they keep.

A board cannot be hurried: every read of a network writes it to the arena, lowers the voltage and reads it back.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from weakcell.emulator.faults.deployment import ReadPolicy, reads_per_image
from weakcell.emulator.ir.values import storage_layout
from weakcell.host.board.link.protocol import PAGE, PAGE_WORDS
from weakcell.host.board.memory.session import PROCESS_SESSIONS, PortSession, ReadRecorder
from weakcell.host.study.study import Point, ResolvedStudy
from weakcell.memmodels.catalogue import MemorySpec
from weakcell.memmodels.errors import UsageError
from weakcell.memmodels.protection.wrappers import split_wrappers

MOST_SECONDS = 3600.0


@dataclass(frozen=True)
class BoardWork:
    """What a study asks of boards: reads of regions, pages that are written and read, and time at low voltage, s."""

    reads: float
    pages: float
    dwell_s: float


def board_port(spec: MemorySpec) -> str | None:
    """The port of a SPEC that is a board, inside any wrappers."""
    kind, _, port = split_wrappers(spec.name)[1].partition(":")
    return port if kind == "board" else None


def list_board_ports(resolved: ResolvedStudy) -> tuple[str, ...]:
    """The ports that a study reads through, each once."""
    found = (board_port(spec) for point in resolved.points for spec in point.placement.arrays)
    return tuple(dict.fromkeys(port for port in found if port is not None))


def count_board_work(resolved: ResolvedStudy, port: str) -> BoardWork:
    """What all trials of all points ask of the board at a port."""
    parts = [_passage(resolved, point, port) for point in resolved.points]
    trials = resolved.study.trials
    return BoardWork(*(trials * sum(getattr(part, name) for part in parts) for name in ("reads", "pages", "dwell_s")))


def _passage(resolved: ResolvedStudy, point: Point, port: str) -> BoardWork:
    study, images = resolved.study, len(resolved.dataset)
    per_image = reads_per_image(resolved.network, study.read_every, images, study.batch)
    reads = pages = dwell_s = 0.0
    for slot in point.placement.slots:
        spec = point.placement.arrays[slot.array]
        if board_port(spec) != port:
            continue
        conditions = spec.technology.resolve(spec.conditions)
        words = storage_layout(resolved.network.tensors[slot.tensor], slot.planes).words
        own = -(-words // PAGE_WORDS)
        times = 1.0 if study.read_every is ReadPolicy.LOAD else per_image[slot.tensor] * images
        arena = float(conditions["kib"]) * 1024 / PAGE if "kib" in conditions else PROCESS_SESSIONS.get(port).link.board.pages
        reads, pages = reads + times, pages + times * own
        dwell_s += times * (1 + own / arena) * float(conditions["dwell_s"])
    return BoardWork(reads, pages, dwell_s)


def estimate_board_seconds(resolved: ResolvedStudy) -> float:
    """How long a study's boards take at most: the pages' time is measured on some, the time at low voltage is asked for."""
    total = 0.0
    for port in list_board_ports(resolved):
        passage = count_board_work(resolved, port)
        total += passage.pages * PROCESS_SESSIONS.get(port).measure_seconds_per_page() + passage.dwell_s
    return total


def check_time(resolved: ResolvedStudy, yes: bool) -> float:
    """The seconds that boards take at most; UsageError for more than an hour unless `yes`."""
    seconds = estimate_board_seconds(resolved)
    if seconds > MOST_SECONDS and not yes:
        found = f"about {seconds / 3600:.1f} h through the board, with weights read once per {resolved.study.read_every}"
        raise UsageError(f"Running {resolved.jobs} trials", found, "Allow it with --yes, or read less often or fewer points")
    return seconds


@contextmanager
def open_boards(resolved: ResolvedStudy, folder: Path | None) -> Iterator[tuple[PortSession, ...]]:
    """The sessions of a study's boards; with a folder, all that is read back is kept there as `readbacks.npz`, in any case.

    Several boards: `readbacks-1.npz` and so on, in the order of the placement. Ports are let go of at the end.
    """
    sessions = tuple(PROCESS_SESSIONS.get(port) for port in list_board_ports(resolved))
    for session in sessions:
        session.recorder = None if folder is None else ReadRecorder()
    try:
        yield sessions
    finally:
        for number, session in enumerate(sessions):
            recorder, session.recorder = session.recorder, None
            if folder is not None and recorder is not None and recorder.reads:
                name = "readbacks.npz" if len(sessions) == 1 else f"readbacks-{number + 1}.npz"
                recorder.save(folder / name, _about(session, resolved))
            session.close()


def _about(session: PortSession, resolved: ResolvedStudy) -> dict[str, object]:
    virtual = session.port.startswith("virtual:")
    return {
        "title": f"{resolved.model.name} through the board at {session.port}",
        "basis": "computed" if virtual else "measured",
        "counters": vars(session.counters),
        "link": vars(session.link.counters),
    }


def replay_command(resolved: ResolvedStudy, file: Path) -> str | None:
    """The command that runs the study again from its read-backs; None where a recording cannot tell reads of trials apart."""
    study = resolved.study
    if study.places or len(list_board_ports(resolved)) != 1 or (study.trials > 1 and study.read_every is not ReadPolicy.LOAD):
        return None
    serve = ":serve=trial" if study.trials > 1 else ""
    sweep = f" --sweep {study.sweep}" if study.sweep else ""
    images = f" --images {study.images}" if study.images else ""
    return (
        f"weakcell emulate {study.model}{'' if study.data is None else f' --data {study.data}'} --memory recording:{file}{serve}"
        f"{sweep} --trials {study.trials} --read-every {study.read_every}{images}"
    )
