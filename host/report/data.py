"""Data of a report: tables of a campaign or a study, and their origin."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl

from weakcell.emulator.tasks import METRICS, Metric, get_metric
from weakcell.host.campaign.store import DamagedStore, has_store, read_store
from weakcell.host.campaign.tables import Tables
from weakcell.host.report.captions import METHOD
from weakcell.host.report.margin_data import NetworkMargins, NetworkRequest, measure_margins
from weakcell.host.report.weak_cell_map import WeakMap, map_weak_cells
from weakcell.host.study.networks import shipped_models
from weakcell.host.study.results import check_frame, restate_frame, summary_of
from weakcell.host.table_files import open_table, read_parquet
from weakcell.memmodels.errors import InputError
from weakcell.memmodels.files import parse_json, read_text, reason
from weakcell.memmodels.printable import printable_name

INTERVALS = f"95 % intervals of the mean over trials ({METHOD})"


@dataclass(frozen=True, eq=False)
class ReportData:
    """What a report is made from.

    Attributes:
        title: of the campaign; the name of the folder if it has none.
        runs: one row per run, with a column `study`.
        points: one row per operating point, with a column `study`.
        facts: command, versions, machine, campaign file; and why margins are missing.
        intervals: how the intervals were computed, in words.
        maps: weak-cell maps of the dies.
        margins: of the networks.
    """

    title: str
    runs: pl.DataFrame
    points: pl.DataFrame
    facts: dict[str, Any]
    intervals: str
    maps: tuple[WeakMap, ...] = ()
    margins: tuple[NetworkMargins, ...] = ()

    @property
    def studies(self) -> list[str]:
        """Names of the studies, in order."""
        return list(dict.fromkeys(self.points["study"].to_list()))


def read_report_data(folder: Path, data_dir: Path | None = None, extras: bool = True) -> ReportData:
    """Read the folder of `weakcell sweep`, or of `weakcell emulate --out`.

    Args:
        folder: with the results.
        data_dir: folder to search first for data sets, for the margins.
        extras: whether to compute maps and margins, which takes seconds.

    Raises:
        InputError: the folder has no results, or no run is finished.
    """
    if has_store(folder):
        data, networks = _read_campaign(folder)
    elif (folder / "study.json").is_file() and (folder / "results.parquet").is_file():
        data, networks = _read_study(folder)
    else:
        raise InputError(f"Results in {folder}", "there are none", "Name the folder of weakcell sweep or weakcell emulate --out")
    if not data.points.height:
        raise InputError(f"Results in {folder}", "no run is finished yet", "Run weakcell sweep first")
    if not extras:
        return data
    margins, missing = measure_margins(networks, data_dir)
    facts = {**data.facts, "margins": "\n".join(missing)} if missing else data.facts
    return replace(data, facts=facts, maps=map_weak_cells(data.runs), margins=margins)


def _read_campaign(folder: Path) -> tuple[ReportData, list[NetworkRequest]]:
    with read_store(folder) as store:
        tables = Tables(store)
        facts = {
            "command": store.get_fact("command"),
            "machine": store.get_fact("machine"),
            "file": store.get_fact("file"),
            "cells": [{"study": tables.label(cell), "sha256": cell.sha256} for cell in tables.cells],
            "plan": {name: tables.plan[name] for name in ("trials", "half_width", "first_stage")},
        }
        half = tables.plan["half_width"]
        rule = INTERVALS
        if half is not None:
            most = f"{tables.plan['trials']:,}"
            rule = f"{INTERVALS}, asked to be ± {100 * half:g} points in at most {most} trials"
        facts["versions"] = _versions(folder)
        networks = _parse_networks(store.get_fact("networks") or [])
        title = store.get_fact("title")
        title = title if isinstance(title, str) and title else folder.resolve().name
        return ReportData(printable_name(title), tables.frame, tables.summary, facts, rule), networks


def _parse_networks(stored: Any) -> list[NetworkRequest]:
    """Return the networks that a store names; DamagedStore for anything else."""
    try:
        requests = [NetworkRequest(**network) for network in stored]
    except TypeError as error:
        raise DamagedStore(f"it holds the networks {str(stored)[:80]}, which no sweep stores") from error
    for one in requests:
        texts = (one.data, one.task, one.output)
        named = isinstance(one.model, str) and all(text is None or isinstance(text, str) for text in texts)
        if not (named and isinstance(one.identity, dict) and (one.images is None or isinstance(one.images, int))):
            raise DamagedStore(f"it holds the network {str(one)[:80]}, which no sweep stores")
    return requests


def _read_study(folder: Path) -> tuple[ReportData, list[NetworkRequest]]:
    try:
        stated = parse_json(read_text(folder / "study.json"))
        if not isinstance(stated, dict) or not isinstance(stated.get("identity"), dict):
            raise ValueError("study.json does not say what was run")
        with open_table(folder / "results.parquet") as file:
            frame = check_frame(restate_frame(read_parquet(file)))
        if frame.is_empty():
            raise ValueError("the table of runs has no row")
        label = f"{stated['identity']['model']}, {stated['identity']['memory']}"
        network = _request_network(stated)
    except (OSError, ValueError, KeyError, TypeError, RecursionError, MemoryError, pl.exceptions.PolarsError) as error:
        do = "Run weakcell emulate --out again"
        raise InputError(f"Results in {folder}", f"they cannot be read ({reason(error)})", do) from error
    frame = frame.with_columns(pl.lit(label).alias("study"))
    points = summary_of(frame).with_columns(pl.lit(label).alias("study"), pl.lit(frame["model"][0]).alias("model"))
    facts = {"command": stated.get("command"), "versions": stated.get("versions"), "identity": stated["identity"]}
    return ReportData(printable_name(folder.resolve().name), frame, points, facts, INTERVALS), [network]


def _request_network(stated: dict[str, Any]) -> NetworkRequest:
    """Return the network of a single study; data in a file are where the command had them."""
    identity, command = stated["identity"], stated.get("command") or []
    model = identity["model"] if identity["model"] in shipped_models() else stated["model"]["path"]
    data = next((after for word, after in pairwise(command) if word == "--data"), identity["data"])
    judged = (identity.get("task"), identity.get("output"))
    return NetworkRequest(model, data, identity["images"], identity, *judged)


def _versions(folder: Path) -> dict[str, Any]:
    """Return the versions of the last finished sweep; of this program if none has finished."""
    from weakcell.host.study.results_folder import versions

    try:
        stored = parse_json(read_text(folder / "campaign.json"))["versions"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return dict(versions())
    return stored if isinstance(stored, dict) else {}


def fault_free_score(data: ReportData, study: str) -> float | None:
    """Return the fault-free score of a study's network; None if the results do not have it."""
    rows = data.runs.filter(pl.col("study") == study)
    scores = rows["clean_score" if "clean_score" in rows.columns and not rows["clean_score"].null_count() else "clean_accuracy"]
    return None if scores.null_count() == len(scores) else float(scores[0])


def find_metric(data: ReportData, study: str) -> Metric:
    """Return what the scores of a study measure."""
    return get_metric(data.points.filter(pl.col("study") == study)["score"][0])


def energy_varies(points: pl.DataFrame) -> bool:
    """Return whether the energies of some points are known and differ: by more than the digits that a table shows."""
    energies = points["energy"].drop_nulls().to_list()
    return len(energies) == points.height and max(energies) - min(energies) > 5e-4 * max(map(abs, energies))


def point_label(point: dict[str, Any]) -> str:
    """Return a point's swept value, or its memory if nothing is swept."""
    return point["memory"] if point["sweep_value"] is None else f"{point['sweep_key']}={point['sweep_value']:.6g}"


def split_by_metric(points: pl.DataFrame) -> list[tuple[Metric, pl.DataFrame]]:
    """Split points by score: accuracies and errors do not belong on one axis."""
    names = points["score"].unique(maintain_order=True).to_list()
    return [(get_metric(name), points.filter(pl.col("score") == name)) for name in names]


def pareto_front(points: pl.DataFrame, metric: Metric = METRICS["accuracy"]) -> pl.DataFrame:
    """Return the points that no other one beats in both energy and mean score, by energy."""
    front, best = [], -math.inf
    sign = 1.0 if metric.higher else -1.0
    for row in points.drop_nulls("energy").sort(["energy", "mean"], descending=[False, metric.higher]).iter_rows(named=True):
        if sign * row["mean"] > best:
            front.append(row)
            best = sign * row["mean"]
    return pl.DataFrame(front, schema=points.schema)
