"""The commands that promise to go on after an end, or to leave nothing half-made; and the state that each leaves behind."""

from __future__ import annotations

import csv
import hashlib
import http.server
import json
import os
import re
import shutil
import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CAMPAIGN = """\
trials = 12

[[network]]
model = "digits-bnn"
images = 30

[[memory]]
spec = "sram-14nm"
grid = { v_over_vmin = [0.78, 0.9] }
"""
State = dict[str, object]
"""What each file of a folder says, by its name."""


@dataclass(frozen=True)
class Command:
    """A command under test.

    Attributes:
        name: as in the tables.
        arguments: of the command line, for a folder; the same command goes on after an end.
        prepare: fills the folder before the first run.
        patch: changes the process before the command runs.
        needs: packages.
        only_disks: whether it is given full disks and not killed.
    """

    name: str
    arguments: Callable[[Path], list[str]]
    prepare: Callable[[Path], None] = lambda folder: None
    patch: Callable[[], None] | None = None
    needs: tuple[str, ...] = field(default=())
    only_disks: bool = False


def _emulate(folder: Path) -> list[str]:
    what = ["emulate", "digits-bnn", "--images", "30", "--trials", "3", "--memory", "sram-14nm", "--sweep", "v_over_vmin=0.78,0.9"]
    return [*what, "--quiet", "--out", str(folder / "out"), "--save-faults", str(folder / "faults.parquet")]


def _sweep(folder: Path) -> list[str]:
    return ["sweep", str(folder / "c.toml"), "--out", str(folder / "out"), "--threads", "2", "--quiet"]


def _write_campaign(folder: Path) -> None:
    (folder / "c.toml").write_text(CAMPAIGN, encoding="utf-8")


def _train(folder: Path) -> list[str]:
    what = ["train", "--data", "digits", "--width", "0.05", "--epochs", "6", "--images", "400", "--threads", "1"]
    return [*what, "--sweep", "ber=0,0.1", "--trials", "1", "--resume", "--out", str(folder / "out")]


CHARACTERIZE = (
    "characterize", "--port", "virtual:rp2040", "--memory", "uniform:ber=0.001", "--vdd", "1.05,1.0", "--dwell-ms", "1",
    "--pattern", "random", "--kib", "1",
)  # fmt: skip


def _characterize(folder: Path) -> list[str]:
    return [*CHARACTERIZE, "--quiet", "--resume", "--out", str(folder / "out")]


def write_cycles(path: Path) -> None:
    """Write a table of measurements for `characterize --import`: flips of a memory after some waits."""
    rows = [f"{round(flips * scale)},1000000,{stored},{wait},{50 + 10 * scale}" for scale in (1, 2)
            for wait, flips in ((1, 100), (4, 450), (16, 2000), (64, 9000)) for stored in (0, 1)]  # fmt: skip
    path.write_text("\n".join(["flips,cells,written,interval,temperature", *rows]) + "\n", encoding="utf-8")


def _write_inputs(folder: Path) -> None:
    """Write images for `infer` and a table for `characterize --import`."""
    import numpy as np

    np.savez(folder / "in.npz", x=np.zeros((4, 1, 8, 8), np.float32))
    write_cycles(folder / "cycles.csv")


_DIGITS, _UNIFORM = ("digits-bnn", "--images", "30"), ("--memory", "uniform:ber=0.01")
OPTIMIZE = (
    "--memory", "sram-14nm", "--sweep", "v_over_vmin=0.9,1.0", "--max-drop", "20%", "--share", "0.5", "--confidence", "0.5",
)  # fmt: skip
"""A search that is easily answered, so that the command succeeds on a few images."""
WRITERS = {
    "infer --output": ("infer", "digits-bnn", "--input", "FOLDER/in.npz", "--output", "FOLDER/out.npz"),
    "margins --out": ("margins", *_DIGITS, "--out", "FOLDER/out"),
    "predict --out": ("predict", *_DIGITS, *_UNIFORM, "--out", "FOLDER/out"),
    "validate --out": ("validate", *_DIGITS, *_UNIFORM, "--trials", "2", "--out", "FOLDER/out"),
    "optimize --out": ("optimize", *_DIGITS, *OPTIMIZE, "--out", "FOLDER/out.json"),
    "memories --plots": ("memories", "--plots", "FOLDER/out", "--format", "svg"),
    "characterize --import": ("characterize", "--import", "FOLDER/cycles.csv", "--out", "FOLDER/out"),
    "board measure --out": ("board", "measure", *CHARACTERIZE[1:5], "--vdd", "1.0", "--out", "FOLDER/out.csv"),
    "firmware build --out": ("firmware", "build", "rp2040", "--out", "FOLDER/out"),
}
"""Commands that write when they end: nothing of theirs goes on, so that only full disks are of interest."""

PARTS = {f"part-{letter}.gz": hashlib.shake_256(letter.encode()).digest(400_000) for letter in "abc"}
"""Files that a server of this machine publishes."""


def serve_parts() -> int:
    """Publish `PARTS` slowly on a port of this machine; return the port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = PARTS[self.path.removeprefix("/")]
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            for start in range(0, len(content), 50_000):
                time.sleep(0.01)
                self.wfile.write(content[start : start + 50_000])

        def log_message(self, *_: object) -> None:
            pass

        def handle(self) -> None:
            with suppress(ConnectionError):  # the client was killed
                super().handle()

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    child = os.fork()
    if child == 0:
        server.serve_forever()
    server.socket.close()
    _CHILDREN.append(child)
    return int(server.server_port)


_CHILDREN: list[int] = []


def stop_servers() -> None:
    """End the servers of `serve_parts`."""
    while _CHILDREN:
        child = _CHILDREN.pop()
        os.kill(child, 9)
        os.waitpid(child, 0)


def make_commands(work: Path) -> dict[str, Command]:
    """Return all commands by name; `work` keeps what they share, such as a finished sweep for `report`."""
    port: list[int] = []

    def publish() -> None:
        from weakcell.host.datasets import download

        sources = [
            download.Source(f"http://127.0.0.1:{port[0]}/{name}", hashlib.md5(data).hexdigest()) for name, data in PARTS.items()
        ]
        download.SOURCES["fashion-mnist"] = tuple(sources)

    def serve(folder: Path) -> None:
        if not port:
            port.append(serve_parts())

    def finished_sweep(folder: Path) -> None:
        from tests.endurance import warm

        if not (work / "finished").is_dir():
            scratch = work / "finished-sweep"
            scratch.mkdir(parents=True)
            _write_campaign(scratch)
            done = warm.run(_sweep(scratch), scratch)
            assert done.code == 0, done.output
            (scratch / "out").rename(work / "finished")
        shutil.copytree(work / "finished", folder / "out")

    def download(folder: Path) -> list[str]:
        return ["download", "fashion-mnist", "--data-dir", str(folder / "out")]

    def write(name: str) -> Command:
        def fill(folder: Path) -> list[str]:
            return [part.replace("FOLDER", str(folder)) for part in WRITERS[name]]

        needs = {"board": ("unicorn", "cobs"), "firmware": ("ziglang",)}.get(name.split()[0], ())
        return Command(name, fill, _write_inputs, needs=needs, only_disks=True)

    def draw_figures(folder: Path) -> list[str]:
        return ["report", str(folder / "out"), "--out", str(folder / "page.html"), "--figures", str(folder / "figures")]

    writers = {name: write(name) for name in WRITERS}
    return writers | {
        "report --figures": Command("report --figures", draw_figures, finished_sweep, only_disks=True),
        "emulate --out": Command("emulate --out", _emulate),
        "sweep": Command("sweep", _sweep, _write_campaign),
        "report": Command("report", lambda folder: ["report", str(folder / "out")], finished_sweep),
        "download": Command("download", download, serve, publish),
        "characterize --resume": Command("characterize --resume", _characterize, needs=("unicorn", "cobs")),
        "train --resume": Command("train --resume", _train, needs=("torch",)),
    }


# ── what a folder says ──────────────────────────────────────────────────────────────────────────────

_TIMES = {"timings.json", "attempts.jsonl"}
"""Files about when and how often a command ran."""
_IGNORED = {"runs.sqlite-shm", "runs.sqlite-wal", "runs.sqlite.lock"}
"""Files that SQLite keeps or removes as it likes."""
_VOLATILE = re.compile(r"seconds|^link$|^command$")
"""Times; and counters and command of the last of several processes."""
_DURATION = re.compile(r" [\d.,]+ s\.$")
"""Time at the end of a caption."""


def read_state(folder: Path) -> State:
    """Return what all files of a folder say, but for times."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in _IGNORED | _TIMES)
    return {str(path.relative_to(folder)): _read(path) for path in files}


def list_files(folder: Path) -> set[str]:
    """Return the names of all files, but for those that SQLite keeps or removes as it likes."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and path.name not in _IGNORED}


def _read(path: Path) -> object:
    if path.name == "runs.sqlite":
        return _read_store(path)
    if path.suffix == ".npz":
        import numpy as np

        with np.load(path) as arrays:
            return {name: _plain(str(arrays[name])) if name == "about" else arrays[name].tolist() for name in arrays.files}
    if path.suffix == ".json":
        return _plain(path.read_text(encoding="utf-8"))
    if path.name == "runs.csv":
        with path.open(encoding="utf-8", newline="") as file:  # polars would start threads, which forked processes lack
            rows = list(csv.DictReader(file))
        return [{name: value for name, value in row.items() if "seconds" not in name} for row in rows]
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _read_store(path: Path) -> object:
    """Return what a store says; seconds left out."""
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        runs = "SELECT sha256, trial, die, accuracy, changed, bits_read, flips FROM runs JOIN cells ON cell = id ORDER BY 1, 2"
        facts = "SELECT name, content FROM facts ORDER BY name"
        cells = "SELECT sha256, place, study, tensors, columns, asked FROM cells ORDER BY place"
        found = [db.execute(query).fetchall() for query in (runs, facts, cells)]
    db.close()
    return found


def _plain(text: str) -> object:
    def strip(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: strip(part) for name, part in value.items() if not _VOLATILE.search(name)}
        if isinstance(value, str):
            return _DURATION.sub("", value)
        return [strip(part) for part in value] if isinstance(value, list) else value

    return strip(json.loads(text))
