"""Independent bit errors at a given rate: the textbook memory, without physics or energy."""

from __future__ import annotations

from weakcell.memmodels.definition import Condition, Conditions, Technology, no_cost
from weakcell.memmodels.error_model.terms import Cells, ErrorTerm, Lifetime
from weakcell.memmodels.errors import MemorySpecError

_LIFETIMES = (Lifetime.READ.value, Lifetime.WRITE.value, Lifetime.DIE.value)


def terms(conditions: Conditions) -> tuple[ErrorTerm, ...]:
    """Return one term. `ber` sets both p01 = P(read 1 | stored 0) and p10 = P(read 0 | stored 1), or each is given."""
    given = [key for key in ("p01", "p10") if key in conditions]
    if "ber" in conditions and given:
        raise MemorySpecError(
            f"uniform: ber together with {' and '.join(given)}", "they say the same thing twice", "Give ber, or p01 and p10"
        )
    if "ber" not in conditions and not given:
        raise MemorySpecError("uniform without an error rate", "it has no default", "Give ber=…, or p01=… and p10=…")
    p01, p10 = (float(conditions.get("ber", conditions.get(key, 0.0))) for key in ("p01", "p10"))
    lifetime, cells = Lifetime(str(conditions["lifetime"])), Cells(str(conditions["cells"]))
    if lifetime is Lifetime.DIE and cells is Cells.PREFER and p01 + p10 > 1.0:
        raise MemorySpecError(
            f"uniform: p01 + p10 = {p01 + p10:g} with lifetime=die",
            "a weak cell prefers one value, so the densities of cells that prefer 1 and 0 add up to at most 1",
            "Choose lower rates, or cells=invert, where the same cell errs on both values",
        )
    return (ErrorTerm("uniform", lifetime, p01, p10, cells),)


UNIFORM = Technology(
    name="uniform",
    title="Independent bit errors at a given rate",
    conditions=(
        Condition("ber", "", "bit error rate: P(a stored bit comes back inverted), for 0s and 1s alike", low=0.0, high=1.0),
        Condition("p01", "", "P(read 1 | stored 0), instead of ber", low=0.0, high=1.0),
        Condition("p10", "", "P(read 0 | stored 1), instead of ber", low=0.0, high=1.0),
        Condition("lifetime", "", "how long an error stays", default="read", choices=_LIFETIMES),
        Condition("cells", "", "which values a weak cell of lifetime die spoils", default="prefer", choices=("prefer", "invert")),
    ),
    terms=terms,
    cost=no_cost,
    law="every bit errs independently with probability p01 (stored 0) or p10 (stored 1)",
    source="a definition, not a measurement",
    basis="assumed",
    sweep="ber",
    notes="lifetime=die: p01 and p10 are densities of weak cells, stuck at 1 and at 0; on random data half of their sum shows as "
    "flips.",
)
