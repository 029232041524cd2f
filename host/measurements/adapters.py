"""All adapters by name; the first that recognizes a table reads it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path

from weakcell.host.measurements.measurement import Adapter, Measurement
from weakcell.host.measurements.table import read_table
from weakcell.memmodels.errors import UsageError

ADAPTERS = {
    "dram-retention": "dram_retention",
    "conductance": "conductance",
    "power-up": "power_up",
    "word-log": "word_log",
    "long-table": "long_table",
}
"""Module of each adapter, below `weakcell.host.measurements`. Each has one `ADAPTER`."""


def adapter(name: str) -> Adapter:
    """Return an adapter; UsageError if there is none of that name."""
    if name not in ADAPTERS:
        raise UsageError(f"--as {name}", f"the adapters are {', '.join(ADAPTERS)}", "Choose one of these")
    found: Adapter = import_module(f"weakcell.host.measurements.{ADAPTERS[name]}").ADAPTER
    return found


def list_adapters() -> Iterator[Adapter]:
    """Yield all adapters."""
    yield from map(adapter, ADAPTERS)


def import_table(path: Path, name: str | None = None, facts: Mapping[str, float] | None = None) -> Measurement:
    """Read a table of measurements and fit what it determines.

    Args:
        path: CSV or gzip CSV.
        name: The adapter. None: the first that recognizes the columns.
        facts: What the file does not say, such as `cells`.

    Raises:
        InputError: The table is damaged, of no known kind, or determines nothing.
        UsageError: There is no such adapter, or it takes no such fact.
    """
    table = read_table(path)
    chosen = adapter(name) if name else next((one for one in list_adapters() if one.recognizes(table)), None)
    if chosen is None:
        known = "; ".join(f"{one.name}: {one.columns}" for one in list_adapters())
        found = f"its columns are {', '.join(table.columns)[:200]}, and no adapter knows them"
        raise table.refusal(found, f"Rename the columns as one of them expects ({known})")
    if name and not chosen.recognizes(table):
        raise table.refusal(f"its columns are {', '.join(table.columns)[:200]}", f"Give the columns of {name}: {chosen.columns}")
    if unknown := set(facts or {}) - set(chosen.facts):
        asked = f"--about {', '.join(sorted(unknown))} with {chosen.name}"
        raise UsageError(
            asked, f"it takes {', '.join(chosen.facts) or 'nothing'}", "Leave it out, or name another adapter with --as"
        )
    return chosen.read(table, facts or {})
