"""EDEN's four DRAM error models with weak cells (P, F): a share P of the cells is weak and fails at an access with probability F.

uniform         weak cells anywhere: an error rate of P F on any data                       lifetime die, drawn at each read with F
bitline         weak cells gather in columns: threshold = sqrt(share) column + sqrt(1 - share) cell, P on average
wordline        the same in rows
data-dependent  a weak cell fails with F1 = f10 if it holds 1, and with F0 = f01 if it holds 0

The same cell errs on both values (cells=invert), as EDEN counts. Koppula et al., MICRO 2019, describe the four models and what they
share. Their fitted tables could not be opened, so P, F and the shape of a bank have no defaults.
"""

from __future__ import annotations

from weakcell.memmodels.definition import Condition, Conditions, Technology, no_cost
from weakcell.memmodels.error_model.terms import Cells, ErrorTerm, Lifetime
from weakcell.memmodels.technologies.dram import BANK_CONDITIONS, shared_structure
from weakcell.memmodels.technologies.support import number, refuse

_NAME = "eden"


def terms(conditions: Conditions) -> tuple[ErrorTerm, ...]:
    """Return one term, or two for data-dependent cells, one per stored value."""
    data_dependent = conditions["structure"] == "data-dependent"
    wanted, other = (("f01", "f10"), ("f",)) if data_dependent else (("f",), ("f01", "f10"))
    missing = [key for key in ("p", *wanted) if key not in conditions]
    if missing:
        raise refuse(
            _NAME, f"no {' and no '.join(missing)}", "EDEN's fitted values could not be read", f"Give {', '.join(missing)}"
        )
    if any(key in conditions for key in other):
        raise refuse(
            _NAME,
            f"structure={conditions['structure']} with {' and '.join(key for key in other if key in conditions)}",
            "data-dependent cells have f01 and f10, all others f",
            f"Give {' and '.join(wanted)} instead",
        )
    p = number(conditions, "p")
    if data_dependent:
        f01, f10 = number(conditions, "f01"), number(conditions, "f10")
        # the second term acts on the result of the first and turns a share p f10 of its flips back; the first makes up for it
        undone = min(p / (1.0 - p * f10), 1.0) if p * f10 < 1.0 else 1.0
        return (
            ErrorTerm("stored 0", Lifetime.DIE, undone, 0.0, Cells.INVERT, failure_probability=f01),
            ErrorTerm("stored 1", Lifetime.DIE, 0.0, p, Cells.INVERT, failure_probability=f10),
        )
    structure = shared_structure(_NAME, conditions)
    return (
        ErrorTerm("weak cells", Lifetime.DIE, p, p, Cells.INVERT, failure_probability=number(conditions, "f"), structure=structure),
    )


EDEN = Technology(
    name=_NAME,
    title="EDEN's DRAM error models: weak cells (P, F), uniform, by bitline, by wordline, or data-dependent",
    conditions=(
        Condition("p", "", "share of weak cells (no default)", low=0.0, high=1.0),
        Condition("f", "", "probability that a weak cell fails at an access (no default)", low=0.0, high=1.0),
        Condition("f01", "", "the same for cells that hold 0, with structure=data-dependent", low=0.0, high=1.0),
        Condition("f10", "", "the same for cells that hold 1, with structure=data-dependent", low=0.0, high=1.0),
        Condition(
            "structure",
            "",
            "which of the four models",
            default="uniform",
            choices=("uniform", "bitline", "wordline", "data-dependent"),
        ),
        *BANK_CONDITIONS,
    ),
    terms=terms,
    cost=no_cost,
    law="P weak cells, each failing with F per access; uniform, columns or rows with a common part, or F by the stored value",
    source="Koppula et al., MICRO 2019: the models; no numbers",
    basis="assumed",
    sweep="p",
    notes="A weak cell errs on both values. In the data-dependent model the weak cells of stored 0 and of stored 1 are drawn "
    "separately.",
)
