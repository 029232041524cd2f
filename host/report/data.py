"""Data of a report: tables of a campaign or a study, their origin, and a summary in sentences."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl

from weakcell.emulator.tasks import METRICS, Metric, get_metric
from weakcell.host.campaign.store import DamagedStore, has_store, read_store
from weakcell.host.campaign.tables import Tables
from weakcell.host.report.captions import METHOD, explain_no_difference
from weakcell.host.report.margin_data import NetworkMargins, NetworkRequest, measure_margins
from weakcell.host.report.weak_cell_map import WeakMap, map_weak_cells
from weakcell.host.study.networks import shipped_models
from weakcell.host.study.results import check_frame, restate_frame, summary_of
from weakcell.host.table_files import open_table
from weakcell.memmodels.errors import InputError
from weakcell.memmodels.files import read_text, reason
from weakcell.memmodels.printable import printable_name

INTERVALS = f"95 % intervals of the mean over trials ({METHOD})"

TOLERANCE = 0.01
"""The loss of accuracy that the sentences speak of."""


@dataclass(frozen=True, eq=False)
class ReportData:
    """What a report is made from.

    Attributes:
        title: name of the folder.
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
        return ReportData(printable_name(folder.resolve().name), tables.frame, tables.summary, facts, rule), networks


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
        stated = json.loads(read_text(folder / "study.json"))
        if not isinstance(stated, dict) or not isinstance(stated.get("identity"), dict):
            raise ValueError("study.json does not say what was run")
        with open_table(folder / "results.parquet") as file:
            frame = check_frame(restate_frame(pl.read_parquet(file)))
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
        stored = json.loads(read_text(folder / "campaign.json"))["versions"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return dict(versions())
    return stored if isinstance(stored, dict) else {}


def fault_free_score(data: ReportData, study: str) -> float | None:
    """Return the fault-free score of a study's network; None if the results do not have it."""
    rows = data.runs.filter(pl.col("study") == study)
    scores = rows["clean_score" if "clean_score" in rows.columns and not rows["clean_score"].null_count() else "clean_accuracy"]
    return None if scores.null_count() == len(scores) else float(scores[0])


def summarize(data: ReportData) -> list[str]:
    """Return what was run and, for each study, the lowest energy at which less than 1 point is lost, as sentences."""
    runs, points = data.runs, data.points
    models, memories = runs["model"].n_unique(), len(data.studies)
    text = [
        f"{runs.height:,} runs of {_count(models, 'network')} at {_count(points.height, 'operating point')} in "
        f"{_count(memories, 'study', 'studies')}; {data.intervals}."
    ]
    text += [_summarize_study(data, study) for study in data.studies]
    if note := explain_no_difference(points["differ_below"]):
        text.append(f"{note}.")
    return text


def find_metric(data: ReportData, study: str) -> Metric:
    """Return what the scores of a study measure."""
    return get_metric(data.points.filter(pl.col("study") == study)["score"][0])


def _summarize_study(data: ReportData, study: str) -> str:
    points = data.points.filter(pl.col("study") == study)
    metric, clean = find_metric(data, study), fault_free_score(data, study)
    if not metric.share:
        return _summarize_errors(study, points, metric, clean)
    reference, word = (1.0, metric.title) if clean is None else (clean, metric.words)
    start = f"{study}: " if clean is None else f"{study}: fault-free {word} {_percent(clean)}; "
    good = points.filter(pl.coalesce("low", "mean") >= reference - TOLERANCE)
    limit = f"{100 * TOLERANCE:g} point"
    if not good.height:
        best = points.sort("mean", descending=True).row(0, named=True)
        return f"{start}no point loses less than {limit}; best {word} {_percent(best['mean'])} at {point_label(best)}."
    if good["energy"].null_count():
        worst = good.sort("flip_rate", descending=True).row(0, named=True)
        return f"{start}less than {limit} is lost up to a flip rate of {worst['flip_rate']:.2g} ({point_label(worst)})."
    cheapest = good.sort("energy").row(0, named=True)
    dearest = points.sort("energy", descending=True).row(0, named=True)
    saved = 1.0 - cheapest["energy"] / dearest["energy"]
    against = f", {_percent(saved)} below {point_label(dearest)}" if saved > 0.0005 else ""
    return (
        f"{start}the lowest energy at which less than {limit} is lost (whole interval) is {cheapest['energy']:.4g} "
        f"{cheapest['energy_unit']} at {point_label(cheapest)}, with {word} {_percent(cheapest['mean'])}{against}."
    )


def _summarize_errors(study: str, points: pl.DataFrame, metric: Metric, clean: float | None) -> str:
    """Return the smallest and the largest error: errors have no common scale."""
    start = f"{study}: " if clean is None else f"{study}: fault-free {metric.words} {metric.text(clean)}; "
    ordered = points.sort("mean")
    best, worst = ordered.row(0, named=True), ordered.row(-1, named=True)
    least, most = (f"{metric.text(point['mean'])} at {point_label(point)}" for point in (best, worst))
    return f"{start}{metric.words} from {least} to {most}."


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


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"
