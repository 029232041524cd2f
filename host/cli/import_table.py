"""`weakcell characterize --import TABLE`: show what a table of measurements says."""

from __future__ import annotations

import platform
import sys
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from weakcell.host.measurements.measurement import CountedPoint, Measurement

_MOST_ROWS = 40


def import_measurements(file: Path, folder: Path, kind: str | None, about: str | None, as_json: bool, quiet: bool) -> None:
    """Import a table into a folder, and show or emit what it says.

    Args:
        file: CSV or gzip CSV.
        folder: For tables and profiles.
        kind: Name of the adapter; None: the one that knows the columns.
        about: Facts that the file lacks, as `name=number,…`.
        as_json: Emit events instead of tables.
        quiet: Leave out the hints.
    """
    from weakcell.host.cli.terminal import emit, note
    from weakcell.host.measurements.adapters import import_table
    from weakcell.host.measurements.writing import tabulate, write_measurement
    from weakcell.host.study.results_folder import versions

    measurement = import_table(file, kind, _facts(about))
    known = {"python": platform.python_version(), **versions()}
    provenance = {"imported": file.name, "sha256": sha256(file.read_bytes()).hexdigest(), "versions": known}
    profiles = write_measurement(measurement, folder, {**provenance, "command": ["weakcell", *sys.argv[1:]]})
    if as_json:
        for row in tabulate(measurement).iter_rows(named=True):
            emit("point", **row)
        for path in profiles:
            emit("file", file=str(path))
        return
    _show(measurement)
    for path, fit in zip(profiles, measurement.fits, strict=True):
        assumed = "".join(f":{rate}_share=0" for rate in fit.profile.unmeasured)
        note(f"`weakcell emulate --memory file:{path}{assumed}` runs a network on this profile.", quiet)


def _facts(about: str | None) -> dict[str, float]:
    from weakcell.memmodels.errors import UsageError
    from weakcell.memmodels.numbers import parse_number

    found = {}
    for part in (about or "").split(",") if about else ():
        name, _, value = part.partition("=")
        try:
            found[name.strip()] = parse_number(value)
        except ValueError:
            raise UsageError(f"--about {about}", f"{part!r} is not NAME=NUMBER", "Write it as in cells=65536") from None
    return found


def _show(measurement: Measurement) -> None:
    from weakcell.host.cli.tables import Column, show_table
    from weakcell.host.cli.terminal import show

    show(measurement.title, "bold")
    points = measurement.points[:_MOST_ROWS]
    columns = [
        Column(key, [f"{value:g}" if isinstance(value, float) else str(value) for value in (p.conditions[key] for p in points)])
        for key in points[0].conditions
    ]
    for name in ("p01", "p10"):
        columns.append(Column(name, [_rate(point, name) for point in points]))
        columns.append(Column(f"95 % of {name}", [_interval(point, name) for point in points], drop=2))
        columns.append(Column(f"flips of {'0' if name == 'p01' else '1'}", [_flips(point, name) for point in points], drop=1))
    show_table(columns)
    if len(measurement.points) > _MOST_ROWS:
        show(f"… and {len(measurement.points) - _MOST_ROWS} more operating points, in points.csv", "dim")
    show("")
    for text in measurement.noticed:
        show(f"Noticed: {text}.")
    for fit in measurement.fits:
        show(f"{fit.profile.name}: {fit.verdict}.")
        if fit.summary:
            worst = max(fit.held_out, key=lambda one: abs(one.error))
            show(f"Held out: {fit.summary} ({worst.point}: {worst.error:+.3f}).")
    for text in measurement.not_fitted:
        show(f"Not in the data: {text}.")
    show("Intervals hold if cells err independently.", "dim")


def _rate(point: CountedPoint, name: str) -> str:
    count = getattr(point, name)
    return "not measured" if count is None else f"{count.rate:.3g}"


def _interval(point: CountedPoint, name: str) -> str:
    count = getattr(point, name)
    if count is None:
        return ""
    found = count.constant(name)
    return f"{found.low:.3g} … {found.high:.3g}"


def _flips(point: CountedPoint, name: str) -> str:
    count = getattr(point, name)
    return "" if count is None else f"{count.flips} of {count.cells}"
