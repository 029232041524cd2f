"""Whether a memory's energy depends on the condition that moves its errors; without that, nothing can be traded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from weakcell.memmodels.catalogue import MemorySpec
from weakcell.memmodels.cost import USE_CONDITIONS
from weakcell.memmodels.definition import Condition
from weakcell.memmodels.errors import MemorySpecError, UsageError
from weakcell.memmodels.memory import Accesses, ConditionValue, Quantity

_READ, _READ_AND_WRITE = Accesses(1.0), Accesses(1.0, 1.0)


def check_trade_off(memory: MemorySpec, key: str, values: Sequence[float]) -> None:
    """Refuse candidates that all cost the same; a memory without an energy is another matter.

    Args:
        memory: with its conditions.
        key: the swept condition.
        values: its candidates.

    Raises:
        UsageError: the energy is the same at every candidate.
    """
    energies = [_energy(memory, {key: value}) for value in values]
    known = {energy.value for energy in energies if energy is not None}
    if len(values) < 2 or len(known) != 1 or None in energies:
        return
    helpful = [*_knobs_of_energy(memory, key), *_modes_of_energy(memory, key, values), *_writes_of_energy(memory, key, values)]
    do = (
        f"Move what the energy depends on ({'; '.join(helpful)})"
        if helpful
        else "No condition of it moves the energy: choose by accuracy"
    )
    found = f"each of the {len(values)} candidates costs the same energy, so there is no trade-off to find"
    asked = f"Optimizing {memory} over {key}"
    raise UsageError(asked, found, f"{do}; weakcell emulate --sweep shows the accuracy over {key}")


def _energy(memory: MemorySpec, given: dict[str, ConditionValue], accesses: Accesses = _READ) -> Quantity | None:
    """Return the energy of accesses to a bit; None if it is unknown or the conditions are refused."""
    technology = memory.technology
    try:
        return technology.cost(technology.resolve({**memory.conditions, **given}), 1, accesses).energy
    except MemorySpecError:
        return None


def _moves(condition: Condition) -> tuple[ConditionValue, ...]:
    """Return values of a condition that lie apart."""
    if condition.choices:
        return condition.choices
    return () if condition.low is None or condition.high is None else (condition.low, condition.high)


def _knobs_of_energy(memory: MemorySpec, key: str) -> Iterator[str]:
    """Yield the other conditions at whose values the energy differs."""
    use = {condition.name for condition in USE_CONDITIONS}
    for condition in memory.technology.conditions:
        if condition.name == key or condition.name in use or condition.name == "energy":
            continue
        energies = {energy.value for value in _moves(condition) if (energy := _energy(memory, {condition.name: value})) is not None}
        if len(energies) > 1:
            yield condition.name
        elif condition.default is None and "energy" in condition.help and condition.name not in memory.conditions:
            yield f"{condition.name} ({condition.help})"


def _modes_of_energy(memory: MemorySpec, key: str, values: Sequence[float]) -> Iterator[str]:
    """Yield the settings of `energy` under which the energy depends on the swept condition."""
    mode = next((condition for condition in memory.technology.conditions if condition.name == "energy"), None)
    for choice in mode.choices if mode else ():
        energies = {energy.value for value in values if (energy := _energy(memory, {"energy": choice, key: value})) is not None}
        if len(energies) > 1:
            yield f"energy={choice}"


def _writes_of_energy(memory: MemorySpec, key: str, values: Sequence[float]) -> Iterator[str]:
    """Yield the condition that counts writes, if the energy of a write depends on the swept condition."""
    energies = {energy.value for value in values if (energy := _energy(memory, {key: value}, _READ_AND_WRITE)) is not None}
    if len(energies) > 1 and "inferences_per_write" not in memory.conditions:
        yield "inferences_per_write (the energy of a write depends on it)"
