"""The engine of the fuzzers: draw inputs, try each within limits, keep what breaks a reader.

A reader may return, or raise an error of the project, within `SECONDS` of CPU time and `BYTES` of memory. Everything else is a
finding: another exception, a signal, a hang. A worker process tries many inputs. The input that it is trying lies in shared memory,
so the parent still has it when the worker dies.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import mmap
import multiprocessing
import re
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from types import FrameType

from tests.fuzzing.mutations import damage
from weakcell.memmodels.errors import WeakcellError

SECONDS = 5.0
"""CPU time that one input may take."""

BYTES = 500 << 20
"""Memory that one input may take."""

CORPUS = Path(__file__).parent / "corpus"
_ADDRESS_SPACE = 6 << 30
_MOST_BYTES = 1 << 22
_SILENT_SECONDS = 600.0
_INPUTS_PER_WORKER = 100_000
_POOL = 300
_HEADER = struct.Struct("<QI")


@dataclass(frozen=True)
class Reader:
    """A reader under test.

    Attributes:
        name: In the log, and its folder of the corpus.
        generate: Draws an input.
        read: Reads an input; the folder is empty and may be used.
        early: Pattern of refusals by the first check (magic number, grammar, schema); every other outcome is beyond it.
        suffix: Of files of the corpus.
        mutate: Changes an input; the default changes bytes.
        share: Share of the inputs that are changed inputs of the pool; 0 for inputs that only generators can make.
        tests: How many inputs the tests try.
    """

    name: str
    generate: Callable[[Random], bytes]
    read: Callable[[bytes, Path], object]
    early: str
    suffix: str = ".bin"
    mutate: Callable[[bytes, Random], bytes] = damage
    share: float = 0.2
    tests: int = 150

    @property
    def corpus(self) -> list[Path]:
        """The kept inputs."""
        folder = CORPUS / self.name
        return sorted(path for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []


@dataclass(frozen=True)
class Outcome:
    """How an input ended.

    Attributes:
        kind: `accepted`, `refused` beyond the first check, `early` for a refusal by the first check, or `finding`.
        signature: What distinguishes it from others: where an exception was raised, or the form of a message.
        text: In words.
    """

    kind: str
    signature: str
    text: str = ""


class _Late(BaseException):
    """The input took too long; no handler of a reader catches this."""


@dataclass
class _Watch:
    """Seconds of CPU time since the current input began; a timer counts them.

    Asking the system for the time and memory of each input would take longer than most inputs.

    Attributes:
        memory: Peak memory of the process when it was last asked for.
    """

    ticks: float = 0.0
    memory: int = 0

    def tick(self, number: int, frame: FrameType | None) -> None:
        self.ticks += 1.0
        if self.ticks > SECONDS:
            self.ticks = -1e9
            raise _Late


_WATCH = _Watch()
_TOUCHING_SECONDS = 0.02
"""No process can fill `BYTES` of memory in so little time."""


_TRIES = 3


def attempt(reader: Reader, data: bytes, folder: Path) -> Outcome:
    """Try one input in this process, inside `watch`. An input that is slow is tried again: it may have compiled kernels."""
    for _ in range(_TRIES):
        outcome = _attempt_once(reader, data, folder)
        if outcome.signature != "slow":
            break
    return outcome


def _attempt_once(reader: Reader, data: bytes, folder: Path) -> Outcome:
    _WATCH.ticks, start = 0.0, time.perf_counter()
    try:
        outcome = _call(reader, data, folder)
    except _Late:
        return Outcome("finding", "slow", f"more than {SECONDS:g} s")
    if time.perf_counter() - start < _TOUCHING_SECONDS:
        return outcome
    before, _WATCH.memory = _WATCH.memory, _peak()
    if outcome.kind != "finding" and _WATCH.memory - before > BYTES:
        return Outcome("finding", "memory", f"{(_WATCH.memory - before) >> 20} MB")
    return outcome


def _call(reader: Reader, data: bytes, folder: Path) -> Outcome:
    try:
        reader.read(data, folder)
    except WeakcellError as error:
        said = str(error)
        form = re.sub(r"'[^']*'|\"[^\"]*\"|[^A-Za-z ]+", "", said)[-80:]
        return Outcome("early" if re.search(reader.early, said) else "refused", f"{type(error).__name__} {form}")
    except (_Late, KeyboardInterrupt):
        raise
    except BaseException as error:  # polars' PanicException is no Exception
        return Outcome("finding", _locate(error), "".join(traceback.format_exception(error))[-3000:])
    return Outcome("accepted", "accepted")


def _locate(error: BaseException) -> str:
    """Return type and place of an exception: the innermost line of the product."""
    frames = traceback.extract_tb(error.__traceback__)
    inner = [frame for frame in frames if "/tests/" not in frame.filename and "site-packages" not in frame.filename]
    inner = [frame for frame in inner if any(room in frame.filename for room in ("/host/", "/emulator/", "/memmodels/"))] or inner
    place = f"{Path(inner[-1].filename).stem}-{inner[-1].name.strip('<>')}" if inner else "elsewhere"
    return f"{type(error).__name__.lower()}-{place}"


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@contextlib.contextmanager
def watch() -> Iterator[None]:
    """Measure time and memory of the inputs of this process."""
    before = signal.signal(signal.SIGPROF, _WATCH.tick)
    signal.setitimer(signal.ITIMER_PROF, 1.0, 1.0)
    _WATCH.memory = _peak()
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        signal.signal(signal.SIGPROF, before)


# --- a run ---------------------------------------------------------------------------------------------------------------------


@dataclass
class Report:
    """The row of a run in the log."""

    reader: str
    seed: int
    counts: Counter[str] = field(default_factory=Counter)
    findings: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def inputs(self) -> int:
        """The number of inputs."""
        return sum(self.counts.values())

    @property
    def row(self) -> dict[str, object]:
        """The row as JSON has it."""
        beyond = self.inputs - self.counts["early"]
        return {
            "reader": self.reader, "seed": self.seed, "inputs": self.inputs, "beyond": beyond, "accepted": self.counts["accepted"],
            "findings": sorted(self.findings), "seconds": round(self.seconds),
        }  # fmt: skip


def draw(reader: Reader, random: Random, pool: list[bytes]) -> bytes:
    """Return a new input, or a changed one of the pool."""
    data = random.choice(pool) if pool and random.random() < reader.share else None
    if data is not None:
        with contextlib.suppress(RecursionError):  # trees that are too deep to be changed are tried as they are
            for _ in range(random.randint(1, 3)):
                data = (reader.mutate if random.random() < 0.8 else damage)(data, random)
    else:
        data = reader.generate(random)
        if reader.share and random.random() < 0.04:
            data = damage(data, random)
    return data[:_MOST_BYTES]


def run(reader: Reader, inputs: int, seed: int, seconds: float = float("inf"), keep: bool = True) -> Report:
    """Try inputs in workers, one after the other; write findings to the corpus and return the row of the log.

    Args:
        reader: The reader.
        inputs: How many inputs to draw.
        seed: Of the inputs.
        seconds: Time after which the run ends.
        keep: Whether findings are written to the corpus.
    """
    report, start, first = Report(reader.name, seed), time.monotonic(), 0
    with contextlib.suppress(KeyboardInterrupt):  # Ctrl-C ends a run early; what it counted is logged
        while first < inputs and (left := seconds - (time.monotonic() - start)) > 0:
            last = min(inputs, first + _INPUTS_PER_WORKER)
            first = _run_worker(reader, report, (first, last), left, keep)
    report.seconds = time.monotonic() - start
    return report


def _run_worker(reader: Reader, report: Report, part: tuple[int, int], seconds: float, keep: bool) -> int:
    """Let a worker try inputs first..last; return the number of the next input."""
    with tempfile.NamedTemporaryFile() as named:
        named.truncate(_HEADER.size + _MOST_BYTES)
        shared = mmap.mmap(named.fileno(), 0)
        ours, theirs = multiprocessing.Pipe()
        arguments = reader.name, report.seed, part, seconds, named.name, theirs
        worker = multiprocessing.get_context("spawn").Process(target=_work, args=arguments, daemon=True)
        worker.start()
        theirs.close()
        done = _listen(ours, report, shared, worker.kill, part[0])
        worker.join(60)
        index, size = _HEADER.unpack_from(shared)
        if done is None:
            report.counts["finding"] += 1
            data = shared[_HEADER.size : _HEADER.size + size]
            done = {f"signal-{-(worker.exitcode or 0)}": ("the worker died or fell silent", data)}
        for signature, (text, data) in done.items():
            if signature not in report.findings:
                report.findings[signature] = text
                _keep(reader, signature, data, text, keep)
        return int(index) + 1


def _listen(
    pipe: Connection, report: Report, shared: mmap.mmap, kill: Callable[[], None], first: int
) -> dict[str, tuple[str, bytes]] | None:
    """Take counts from the worker until it is done; return its findings, or None if it died."""
    last, changed = first, time.monotonic()
    while True:
        try:
            if pipe.poll(1.0):
                counts, findings = pipe.recv()
                report.counts.update(counts)
                if findings is not None:
                    return dict(findings)
        except (EOFError, OSError):
            return None
        (index, _) = _HEADER.unpack_from(shared)
        if index != last:
            last, changed = index, time.monotonic()
        elif time.monotonic() - changed > _SILENT_SECONDS:
            kill()
            return None


def _work(name: str, seed: int, part: tuple[int, int], seconds: float, path: str, pipe: Connection) -> None:
    """Try inputs in this process, a worker."""
    from tests.fuzzing.readers import get_reader

    reader, sent = get_reader(name), time.monotonic()
    end = sent + seconds
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (_ADDRESS_SPACE, _ADDRESS_SPACE))
    pool = [path.read_bytes() for path in reader.corpus]
    seen: set[str] = set()
    counts: Counter[str] = Counter()
    findings: dict[str, tuple[str, bytes]] = {}
    with watch(), Path(path).open("r+b") as file, tempfile.TemporaryDirectory(dir=_scratch()) as scratch:
        shared, folder = mmap.mmap(file.fileno(), 0), Path(scratch)
        for index in range(*part):
            data = draw(reader, Random(f"{name} {seed} {index}"), pool)
            _HEADER.pack_into(shared, 0, index, len(data))
            shared[_HEADER.size : _HEADER.size + len(data)] = data
            outcome = attempt(reader, data, folder)
            counts[outcome.kind] += 1
            if outcome.kind == "finding":
                known = findings.get(outcome.signature)
                if known is None or len(data) < len(known[1]):
                    findings[outcome.signature] = outcome.text, data
            elif outcome.signature not in seen and len(data) < 1 << 16 and len(pool) < _POOL:
                seen.add(outcome.signature)
                pool.append(data)
            if index % 100 == 99 and (time.monotonic() > sent + 1.0 or time.monotonic() > end):
                pipe.send((counts, None))
                counts, sent = Counter(), time.monotonic()
                if sent > end:
                    break
        for signature, (text, data) in findings.items():
            findings[signature] = text, minimize(reader, data, signature, folder)
    pipe.send((counts, findings))


def _scratch() -> str | None:
    """Return a folder in memory, if there is one: most inputs are tried as files."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def minimize(reader: Reader, data: bytes, signature: str, folder: Path, seconds: float = 20.0) -> bytes:
    """Remove parts of an input for as long as it ends the same way."""
    end, size = time.monotonic() + seconds, max(1, len(data) // 2)
    if signature in ("slow", "memory"):
        return data
    while size and time.monotonic() < end:
        at = 0
        while at < len(data) and time.monotonic() < end:
            shorter = data[:at] + data[at + size :]
            if attempt(reader, shorter, folder).signature == signature:
                data = shorter
            else:
                at += size
        size //= 2
    return data


def empty(folder: Path) -> None:
    """Remove everything in a folder."""
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _keep(reader: Reader, signature: str, data: bytes, text: str, keep: bool) -> None:
    name = f"{signature}-{hashlib.sha256(data).hexdigest()[:6]}{reader.suffix}"
    print(f"{reader.name}: {signature} ({len(data)} bytes) {name}\n{text}", file=sys.stderr, flush=True)
    if keep:
        (CORPUS / reader.name).mkdir(parents=True, exist_ok=True)
        (CORPUS / reader.name / name).write_bytes(data)


def append_row(log: Path, report: Report) -> None:
    """Append the row of a run to the log."""
    with contextlib.suppress(FileNotFoundError), log.open("a", encoding="utf-8") as file:
        file.write(json.dumps(report.row) + "\n")
