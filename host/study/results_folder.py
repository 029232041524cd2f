"""A folder of results: what a study found, what was asked, and how long it took.

    results.parquet  results.csv     one row per point and trial; equal seeds give equal contents
    study.json                       everything needed to run it again: identity, versions, command line
    timings.json                     seconds by trial, in a file of their own because they change
    study.png  study.svg             the figure

Files are written after each finished point, each completely or not at all. A folder that holds another study is refused.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import weakcell
from weakcell.emulator.ir.network import Network
from weakcell.host.study.results import SCHEMA_VERSION, StudyResult
from weakcell.host.study.study import Point, ResolvedStudy
from weakcell.host.table_files import write_csv
from weakcell.memmodels.atomic_files import check_writable, create_folder, write_atomically, write_text_atomically
from weakcell.memmodels.errors import OutputError
from weakcell.memmodels.files import parse_json, read_text
from weakcell.memmodels.native.tile_permission import choose_tiles

_TABLES = ("results.parquet", "results.csv", "timings.json")
_PACKAGES = ("numpy", "numba", "scipy", "onnx", "polars", "matplotlib")


@dataclass(frozen=True)
class ResultsFolder:
    """The folder that results go to, from `open_folder`."""

    path: Path

    def write(self, result: StudyResult, command: list[str] | None = None) -> None:
        """Write the tables, the configuration and the timings of all finished points."""
        frame = result.frame
        write_atomically(self.path / "results.parquet", frame.write_parquet)
        write_atomically(self.path / "results.csv", partial(write_csv, frame))
        self.write_configuration(result, command)
        self._json("timings.json", timings_of(result))

    def write_configuration(self, result: StudyResult, command: list[str] | None = None) -> None:
        """Write the study's identity, and how much of it is finished."""
        self._json("study.json", configuration_of(result, command))

    def write_figure(self, result: StudyResult) -> list[Path]:
        """The figure as PNG and SVG; the paths."""
        from weakcell.host.report.study_figure import save_study_figure

        paths = [self.path / "study.png", self.path / "study.svg"]
        save_study_figure(result, paths)
        return paths

    def _json(self, name: str, content: dict[str, Any]) -> None:
        write_text_atomically(self.path / name, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def save_study(result: StudyResult, path: Path, overwrite: bool = False) -> Path:
    """Write tables, configuration and figure of a study into a folder, and return it. OutputError if it cannot be written."""
    folder = open_folder(path, result.resolved, overwrite)
    folder.write(result)
    folder.write_figure(result)
    return folder.path


def open_folder(path: Path, resolved: ResolvedStudy, overwrite: bool = False) -> ResultsFolder:
    """Open the folder for a study's results, and make it if it is not there.

    Args:
        path: The folder. Results of the same study in it may be written again: they are the same.
        resolved: The study.
        overwrite: Replace the results of another study.

    Raises:
        OutputError: It cannot be written, or holds the results of another study.
    """
    create_folder(path)
    check_writable(path / "results.parquet")
    folder = ResultsFolder(path)
    if _identity_of(path) == json.loads(json.dumps(resolved.identity)):
        return folder
    if os.path.exists(path / "results.parquet") and not overwrite:
        raise OutputError(f"Results in {path}", "it holds those of another study", "Choose another --out, or give --overwrite")
    for name in _TABLES:
        (path / name).unlink(missing_ok=True)
    # the identity comes before the tables: a process that is killed in between leaves a folder that the same study may fill
    folder.write_configuration(StudyResult(resolved, (), False, 0.0))
    return folder


def make_folder(path: Path | None, file: str) -> Path | None:
    """Make the folder for `file` and others if it is not there; None for None. OutputError if `file` cannot be written."""
    if path is None:
        return None
    create_folder(path)
    check_writable(path / file)
    return path


def _identity_of(path: Path) -> Any:
    """Return the identity of the study whose results a folder holds; None if it says none."""
    try:
        found = parse_json(read_text(path / "study.json"))
    except (OSError, ValueError, RecursionError):
        return None
    return found.get("identity") if isinstance(found, dict) else None


def configuration_of(result: StudyResult, command: list[str] | None = None) -> dict[str, Any]:
    """Return what was asked, of what, with which versions, and how much of it is finished."""
    resolved, study = result.resolved, result.resolved.study
    return {
        "schema_version": SCHEMA_VERSION,
        "identity": resolved.identity,
        "complete": result.complete,
        "finished_points": len(result.outcomes) // study.trials,
        "points": [_point(point) for point in resolved.points],
        "model": {
            "name": resolved.model.name,
            "path": str(resolved.model.path),
            "weight_bits": resolved.network.weight_bits,
            "outside": outside_rows(resolved.network),
        },
        "data": {"name": resolved.dataset.name, "source": resolved.dataset.source, "labels": result.labelled},
        "inputs": [check.as_dict() for check in resolved.workload.inputs],
        "task": resolved.workload.task.text,
        "output": resolved.workload.task.output,
        "score": resolved.questions.metric.name,
        "clean_accuracy": resolved.questions.fault_free_accuracy,
        "clean_score": resolved.questions.fault_free_score,
        "command": command,
        "versions": {"python": platform.python_version(), **versions()},
    }


def finished_identity(result: StudyResult) -> dict[str, object]:
    """Return the study's identity with only the swept values that were finished: the header of a fault list."""
    identity = dict(result.resolved.identity)
    sweep = result.resolved.study.sweep
    if sweep is not None:
        identity["sweep"] = {"key": sweep.key, "values": sorted(set(result.frame["sweep_value"].to_list()))}
    return identity


def outside_rows(network: Network) -> list[dict[str, Any]]:
    """Return the file's integers that live in no memory: bits, their share of all integers of the file, and the reason."""
    total = max(1, network.integer_bits)
    return [{**asdict(tensor), "share": tensor.bits / total} for tensor in network.unplaced]


def timings_of(result: StudyResult) -> dict[str, Any]:
    """Return seconds of wall time: of the whole run, with compilation of kernels that ran for the first time, and of each trial."""
    return {
        "schema_version": SCHEMA_VERSION,
        "seconds": round(result.seconds, 6),
        "machine": {**describe_machine(), "python": sys.implementation.name, "matrix_tiles": choose_tiles().tiles},
        "trials": [
            {"sweep_value": outcome.point.value, "trial": outcome.result.trial, "seconds": round(outcome.seconds, 6)}
            for outcome in result.outcomes
        ],
    }


def describe_machine() -> dict[str, str]:
    """Return the system, and the processor's name if the system tells it."""
    return {"system": platform.platform(), "processor": _processor()}


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            named = next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), "")
    except OSError:
        named = ""
    return named or platform.processor() or platform.machine()


def _point(point: Point) -> dict[str, Any]:
    energies = [{"value": q.value, "unit": q.unit, "basis": q.basis, "source": q.source} for q in point.cost.energy]
    return {
        "sweep_value": point.value,
        "memory": point.memory,
        "places": point.places,
        "lifetimes": point.lifetimes,
        "energy_per_inference": energies,
        "energy_share": point.cost.share,
        "reads_per_inference": point.cost.reads,
        "inferences_per_read": point.cost.shared,
        "access_latency_ns": point.cost.latency.value if point.cost.latency else None,
    }


def versions() -> dict[str, str | None]:
    """Return the versions of Weakcell and of everything that results could depend on; None for a package without metadata."""
    return {"weakcell": weakcell.__version__, **{name: _version(name) for name in _PACKAGES}}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
