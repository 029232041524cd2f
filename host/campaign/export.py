"""A campaign's tables as files: runs, points, differences, and how it was all made."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from pathlib import Path

from weakcell.host.atomic_files import write_atomically
from weakcell.host.campaign.differences import differences
from weakcell.host.campaign.tables import Tables
from weakcell.host.study.results_folder import versions


def export(tables: Tables, folder: Path) -> list[Path]:
    """Write results.parquet and .csv, summary.csv, differences.csv and campaign.json, each whole or not at all; the paths."""
    frame = tables.frame
    jobs: dict[str, Callable[[Path], object]] = {
        "results.parquet": frame.write_parquet,
        "results.csv": frame.write_csv,
        "summary.csv": tables.summary.write_csv,
        "differences.csv": differences(tables).write_csv,
        "campaign.json": lambda place: place.write_text(_provenance(tables), encoding="utf-8"),
    }
    for name, write in jobs.items():
        write_atomically(folder / name, write)
    return [folder / name for name in jobs]


def _provenance(tables: Tables) -> str:
    """How it was asked and with which versions: nothing in it changes when the same campaign is run again by the same command."""
    content = {
        **tables.plan,
        "file": tables.store.fact("file"),
        "command": tables.store.fact("command"),
        "versions": {"python": platform.python_version(), **versions()},
        "machine": tables.store.fact("machine"),
        "cells": [{"sha256": cell.sha256, "study": tables.label(cell), **cell.asked} for cell in tables.cells],
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"
