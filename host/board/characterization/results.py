"""The files of a characterization, besides its read-backs.

    results.parquet  results.csv     one row per pattern and operating point
    summary.parquet  summary.csv     one row per operating point, with rates and intervals
    characterization.json            rows, constants, structure, nesting, weak cells, and the command with its provenance
    profile.toml                     the fit: `weakcell emulate --memory file:DIR/profile.toml`; one per dwell if there are several
    cells.png                        one pixel per cell: the darker, the higher the voltage at which it failed
    characterization.png  .svg       the figure

rate, p01 and p10 are counted (`weakcell.memmodels.fitting.rate_intervals`); fit_p01, fit_p10 and F are constants of the fitted
structure. A rate that was not measured is blank. Two runs that measured the same give the same tables.

Schema 2: p01 and p10 are counted. In schema 1 they were those of the fit, which are now fit_p01 and fit_p10. `excluded` was added;
in the JSON also `artefacts`, `fit`, and p01 and p10 of each row.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from weakcell.host.board.readbacks.analysis import PointSummary, ReadbackAnalysis, Series, compare_banks, count_weak_cells
from weakcell.host.board.readbacks.bank_laws import BankLaw
from weakcell.host.table_files import write_csv
from weakcell.memmodels.address import popcount
from weakcell.memmodels.atomic_files import write_atomically, write_text_atomically
from weakcell.memmodels.profile import Constant

SCHEMA_VERSION = 2


def tabulate_patterns(findings: ReadbackAnalysis) -> pl.DataFrame:
    """Return one row per pattern and operating point.

    Flips are summed over all reads, also by the value that the cell held; null where nothing was counted.
    """
    rows = []
    for one in findings.readbacks.measured:
        counts: dict[str, int | None] = dict.fromkeys(("reads", "flips", "flips_of_0", "flips_of_1"))
        if one.errors is not None:
            flips, of_1 = popcount(one.errors), popcount(one.errors & one.written)
            counts = {"reads": len(one.errors), "flips": flips, "flips_of_0": flips - of_1, "flips_of_1": of_1}
        rows.append(
            {
                "schema_version": SCHEMA_VERSION,
                "experiment": findings.readbacks.experiment,
                "vdd": one.vdd,
                "dwell_s": one.dwell_s,
                "pattern": one.pattern,
                "outcome": str(one.outcome),
                "cells": findings.readbacks.bits,
                **counts,
            }
        )
    return pl.DataFrame(rows, schema_overrides=dict.fromkeys(("reads", "flips", "flips_of_0", "flips_of_1"), pl.Int64))


def tabulate_points(findings: ReadbackAnalysis) -> pl.DataFrame:
    """Return one row per operating point.

    Counted rates and fitted constants have their 95 % intervals. excluded: cells that were left out.
    """
    rows = []
    for row in findings.rows:
        named: dict[str, Any] = {"schema_version": SCHEMA_VERSION, "vdd": row.vdd, "dwell_s": row.dwell_s}
        named |= {"outcome": str(row.outcome), "reads": row.reads, "flips_per_read": row.flips}
        named |= {"weak": row.weak, "pairs": row.pairs, "excluded": findings.excluded}
        numbers = {"rate": row.rate, "p01": row.p01, "p10": row.p10}
        numbers |= {"fit_p01": row.fitted("p01"), "fit_p10": row.fitted("p10"), "F": row.fitted("F")}
        for name, found in numbers.items():
            low, high = (None, None) if found is None else (found.low, found.high)
            named |= {name: None if found is None else found.value, f"{name}_low": low, f"{name}_high": high}
        named["interval"] = None if row.rate is None else row.rate.method
        for name, pair in (("always", row.always), ("nested", row.nested)):
            named[name], named[f"{name}_of"] = pair or (None, None)
        rows.append(named)
    floats = {name: pl.Float64 for name in rows[0] if name.removeprefix("fit_").partition("_")[0] in ("rate", "p01", "p10", "F")}
    counts = dict.fromkeys(("always", "always_of", "nested", "nested_of"), pl.Int64)
    return pl.DataFrame(rows, schema_overrides={**floats, **counts, "interval": pl.String})


def as_dict(findings: ReadbackAnalysis, provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Return everything but the read-backs, for JSON."""
    readbacks = findings.readbacks
    return {
        "schema_version": SCHEMA_VERSION,
        **provenance,
        "title": readbacks.title,
        "experiment": readbacks.experiment,
        "cells": readbacks.bits,
        "bank": {"rows": readbacks.bank.rows, "columns": readbacks.bank.columns, "stripes": readbacks.stripes},
        "basis": readbacks.basis,
        "excluded": findings.excluded,
        "artefacts": [{"kind": one.kind, "text": one.text} for one in findings.artefacts],
        "series": [_series(one, findings) for one in findings.series],
    }


def _series(one: Series, findings: ReadbackAnalysis) -> dict[str, Any]:
    best, grouped = one.points.best, count_weak_cells(one, findings.readbacks)
    return {
        "dwell_s": one.dwell_s,
        "structure": best.structure,
        "lifetime": str(best.lifetime),
        "bic_above_best": {f"{m.structure}, per {m.lifetime}": m.bic - best.bic for m in one.points.models[1:]},
        "law": None if one.law is None else [_constant(constant) for constant in one.law.profile.constants],
        "no_law": one.no_law or None,
        "fit": None if one.law is None else dict(one.law.profile.fit),
        "not_in_the_law": list(one.outside),
        "not_nested": None if one.law is None or one.law.law is None else one.law.law.exceptions,
        "rows": [_row(row) for row in one.rows],
        "weak_cells_by_bank": grouped["bank"].tolist(),
        "cells_by_bank": grouped["cells"].tolist(),
        "p_value_of_equal_banks": compare_banks(grouped["bank"], grouped["cells"]),
        "banks": None if one.banks is None else [_bank(bank) for bank in one.banks.banks],
        "p_value_of_one_law": None if one.banks is None else one.banks.p_value,
        "weak_cells_by_column": grouped["column"].sum(axis=0).tolist(),
    }


def _bank(bank: BankLaw) -> dict[str, Any]:
    law = bank.law
    return {
        "bank": bank.bank,
        "pairs": bank.cells,
        "erred": bank.erred,
        "constants": None if law is None else [_constant(constant) for constant in law.constants],
        "law": None if law is None else law.kind,
        "goodness": None if law is None else vars(law.goodness),
        "no_law": bank.no_law or None,
    }


def _row(row: PointSummary) -> dict[str, Any]:
    values = vars(row)
    plain = {name: values[name] for name in ("vdd", "dwell_s", "reads", "flips", "weak", "pairs", "always", "nested")}
    rates = {name: values[name] for name in ("rate", "p01", "p10")}
    counted = {name: None if rate is None else _constant(rate) for name, rate in rates.items()}
    return {**plain, "outcome": str(row.outcome), **counted, "constants": [_constant(constant) for constant in row.constants]}


def _constant(constant: Constant) -> dict[str, Any]:
    return {name: value for name, value in vars(constant).items() if value != ""}


def write_results(findings: ReadbackAnalysis, folder: Path, provenance: Mapping[str, Any]) -> list[Path]:
    """Write all files listed at the head of this module; return the paths of the profiles."""
    from weakcell.host.report.board_figures import plot_characterization, save_cells
    from weakcell.host.report.matplotlib_charts import save_figure

    for name, frame in (("results", tabulate_patterns(findings)), ("summary", tabulate_points(findings))):
        write_atomically(folder / f"{name}.parquet", frame.write_parquet)
        write_atomically(folder / f"{name}.csv", partial(write_csv, frame))
    text = json.dumps(as_dict(findings, provenance), indent=2, ensure_ascii=False) + "\n"
    write_text_atomically(folder / "characterization.json", text)
    profiles = [one.profile.save(folder / f"{one.profile.name}.toml") for one in findings.series]
    for one in findings.series:
        suffix = one.profile.name.removeprefix("profile")
        save_cells(one, findings.readbacks, folder / f"cells{suffix}.png")
    paths = [folder / "characterization.png", folder / "characterization.svg"]
    save_figure(lambda: plot_characterization(findings), paths)
    return profiles
