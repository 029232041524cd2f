"""Read-backs of a run's folder, ready for `findings`."""

from __future__ import annotations

from weakcell.host.board.characterization.dump import Dump
from weakcell.host.board.link.protocol import PAGE
from weakcell.host.board.readbacks.analysis import Measured, Readbacks
from weakcell.memmodels.error_model.structure import Bank

PICO_BANK = Bank(1024, 2048)
"""Four arrays of 1024 x 512 cells, striped word by word, side by side: columns are those of the arrays. Assumed, not published."""


def readbacks_of(dump: Dump, bank: Bank) -> Readbacks:
    """Everything that a folder holds, finished or not."""
    run, plan, contents = dump.run, dump.plan, dump.contents
    records = dump.records()
    measured = tuple(
        Measured(one.point.vdd, one.point.dwell_s, one.point.pattern, one.outcome, contents[one.point.pattern], one.errors)
        for one in records
    )
    identity = run["identity"]
    kind = f"virtual {identity['chip']} with cells of {identity['memory']}" if identity["virtual"] else identity["chip"]
    note = run.get("temperature_note")
    return Readbacks(
        title=f"{kind}, {plan.experiment}, {identity['supply']}",
        experiment=plan.experiment,
        bits=plan.pages * PAGE * 8,
        bank=bank,
        measured=measured,
        nominal=plan.nominal,
        basis="computed" if identity["virtual"] else "measured",
        source=f"weakcell characterize, {plan.shots} shots",
        notes=f"Temperature: {note}" if note else "Temperature not noted",
    )
