"""Studies whose weights pass through a board: estimate their time, ask for permission, and keep their read-backs.

Each read of a network writes it to the arena, lowers the voltage and reads it back, which takes time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from weakcell.emulator.faults.deployment import ReadPolicy, reads_per_image
from weakcell.emulator.ir.values import storage_layout
from weakcell.host.board.link.protocol import PAGE, PAGE_WORDS
from weakcell.host.board.memory.session import PROCESS_SESSIONS, PortSession, ReadRecorder
from weakcell.host.study.study import Point, ResolvedStudy
from weakcell.memmodels.catalogue import MemorySpec
from weakcell.memmodels.errors import UsageError
from weakcell.memmodels.protection.wrappers import split_wrappers

MOST_SECONDS = 3600.0


class BoardWork(NamedTuple):
    """What a study needs from a board.

    Attributes:
        reads: of regions.
        pages: that are written and read back.
        dwell_s: total time at low voltage, in s.
    """

    reads: float
    pages: float
    dwell_s: float


def board_port(spec: MemorySpec) -> str | None:
    """Return the port of a SPEC that is a board, inside any wrappers; None if it is not a board."""
    kind, _, port = split_wrappers(spec.name)[1].partition(":")
    return port if kind == "board" else None


def list_board_ports(resolved: ResolvedStudy) -> tuple[str, ...]:
    """List the ports that a study reads through, each once."""
    ports = (board_port(spec) for point in resolved.points for spec in point.placement.arrays)
    return tuple(dict.fromkeys(port for port in ports if port is not None))


def refuse_hardware(asked: str, studies: Iterable[ResolvedStudy], yes: bool) -> None:
    """UsageError if memories that a file names would open a port, unless `yes`. A virtual board opens none."""
    real = dict.fromkeys(port for one in studies for port in list_board_ports(one) if not port.startswith("virtual:"))
    if real and not yes:
        found = f"its file names a memory at {', '.join(real)}, and a board's voltage would be lowered through that port"
        raise UsageError(asked, found, "Allow it with --yes if that is your board")


def count_board_work(resolved: ResolvedStudy, port: str) -> BoardWork:
    """Return what all trials of all points need from the board at a port."""
    parts = [_count_point_work(resolved, point, port) for point in resolved.points]
    trials = resolved.study.trials
    return BoardWork(*(trials * sum(values) for values in zip(*parts, strict=True)))


def _count_point_work(resolved: ResolvedStudy, point: Point, port: str) -> BoardWork:
    study, images = resolved.study, len(resolved.dataset)
    per_image = reads_per_image(resolved.network, study.read_every, images, study.batch)
    reads = pages = dwell_s = 0.0
    for slot in point.placement.slots:
        spec = point.placement.arrays[slot.array]
        if board_port(spec) != port:
            continue
        conditions = spec.technology.resolve(spec.conditions)
        words = storage_layout(resolved.network.tensors[slot.tensor], slot.planes).words
        region_pages = -(-words // PAGE_WORDS)
        times = 1.0 if study.read_every is ReadPolicy.LOAD else per_image[slot.tensor] * images
        arena = float(conditions["kib"]) * 1024 / PAGE if "kib" in conditions else PROCESS_SESSIONS.get(port).link.board.pages
        reads, pages = reads + times, pages + times * region_pages
        dwell_s += times * (1 + region_pages / arena) * float(conditions["dwell_s"])
    return BoardWork(reads, pages, dwell_s)


def estimate_board_seconds(resolved: ResolvedStudy) -> float:
    """Estimate how long the boards of a study take at most, in s.

    The time of a page is measured; the time at low voltage is the commanded one.
    """
    total = 0.0
    for port in list_board_ports(resolved):
        work = count_board_work(resolved, port)
        total += work.pages * PROCESS_SESSIONS.get(port).measure_seconds_per_page() + work.dwell_s
    return total


def check_time(resolved: ResolvedStudy, yes: bool, seconds_per_image: float = 0.0) -> float:
    """Return the seconds that boards take at most; UsageError for more than an hour unless `yes`.

    Args:
        resolved: the study.
        yes: allow any time.
        seconds_per_image: what a board takes to compute an image; 0 if none does.
    """
    seconds = estimate_board_seconds(resolved) + seconds_per_image * resolved.jobs * len(resolved.dataset)
    if seconds > MOST_SECONDS and not yes:
        found = f"about {seconds / 3600:.1f} h through the board, with weights read once per {resolved.study.read_every}"
        raise UsageError(f"Running {resolved.jobs} trials", found, "Allow it with --yes, or read less often or fewer points")
    return seconds


@contextmanager
def open_boards(resolved: ResolvedStudy, folder: Path | None) -> Iterator[tuple[PortSession, ...]]:
    """Open the sessions of a study's boards, and close their ports at the end.

    With a folder, all read-backs are saved there however the study ends: as `readbacks.npz`, or as `readbacks-1.npz` and so on for
    several boards, in the order of the placement.
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
                recorder.save(folder / name, _metadata(session, resolved))
            session.close()


def _metadata(session: PortSession, resolved: ResolvedStudy) -> dict[str, object]:
    virtual = session.port.startswith("virtual:")
    return {
        "title": f"{resolved.model.name} through the board at {session.port}",
        "basis": "computed" if virtual else "measured",
        "counters": vars(session.counters),
        "link": vars(session.link.counters),
    }


def replay_command(resolved: ResolvedStudy, file: Path) -> str | None:
    """Return the command that repeats the study from its read-backs.

    None if a recording cannot tell the reads of different trials apart.
    """
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
