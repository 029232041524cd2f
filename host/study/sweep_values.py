"""What a sweep moves: one condition of the default memory, and the values it takes.

v_over_vmin=0.75:1.0:0.05      from START to STOP inclusive, in steps; decimal, so 0.8 is 0.8 and not 0.7999999
ber=1e-5:1e-1:x10              from START to STOP inclusive, each value the last one times 10
vdd=0.53,0.55,0.6              these values

A range of one point is refused, since it is nearly always a slip: an `x` left out, or a number of points in place of a step.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation, localcontext
from typing import Any, TypeAlias

from weakcell.memmodels.errors import UsageError

_MOST = 10_000
_LARGEST_EXPONENT = 300
_FORMS = "Write KEY=START:STOP:STEP, KEY=START:STOP:xFACTOR or KEY=VALUE,VALUE,…"


@dataclass(frozen=True)
class Sweep:
    """A condition's name and its values, in the order in which they run (and, in results, are listed ascending)."""

    key: str
    values: tuple[float, ...]
    logarithmic: bool = False

    def __str__(self) -> str:
        return f"{self.key}={','.join(f'{value:.12g}' for value in self.values)}"


SweepLike: TypeAlias = "str | Sweep | Mapping[str, Any]"
"""What a caller may pass as a sweep."""


def parse_sweep(text: str) -> Sweep:
    """Read a sweep; UsageError if it is malformed, empty or endless."""
    key, equals, rest = text.partition("=")
    key = key.strip()
    if not (key and equals and rest.strip()):
        raise _refusal(text, "it is not KEY=VALUES")
    if ":" not in rest:
        exact = [_number(text, part) for part in rest.split(",")]
        if len(set(exact)) != len(exact):
            raise _refusal(text, "a value is given twice", "Give each value once")
        return Sweep(key, tuple(map(float, exact)), _spans_decades(exact))
    parts = rest.split(":")
    if len(parts) != 3:
        raise _refusal(text, f"{rest.strip()!r} has {len(parts)} parts, not three")
    start, stop, step = (part.strip() for part in parts)
    geometric = step[:1].lower() in ("x", "*", "×") and step != ""
    bounds = _number(text, start), _number(text, stop)
    if bounds[0] == bounds[1]:
        raise _refusal(text, "START and STOP are equal", f"Write {key}={start} for one point")
    if geometric:
        return Sweep(key, _geometric(text, *bounds, _number(text, step[1:])), True)
    return Sweep(key, _arithmetic(text, *bounds, _number(text, step)))


def as_sweep(sweep: SweepLike | None) -> Sweep | None:
    """Return the sweep that a caller describes.

    Args:
        sweep: Text as for `parse_sweep`, a `Sweep`, or a dict with one condition and its values: `{"vdd": [0.6, 0.7, 0.8]}`,
            `{"vdd": "0.6:0.8:0.1"}`.

    Raises:
        UsageError: It does not describe one sweep.
    """
    if sweep is None or isinstance(sweep, Sweep):
        return sweep
    if isinstance(sweep, str):
        return parse_sweep(sweep)
    if not isinstance(sweep, Mapping) or len(sweep) != 1:
        do = "Give one text as in 'ber=1e-5:1e-1:x10' or a dict with one key; a campaign (`weakcell sweep`) crosses several"
        raise UsageError(f"sweep={sweep!r}", "a sweep moves one condition", do)
    ((key, values),) = sweep.items()
    if isinstance(values, str):
        return parse_sweep(f"{key}={values}")
    numbers = values.tolist() if hasattr(values, "tolist") else values
    return parse_sweep(f"{key}={','.join(str(value) for value in (numbers if isinstance(numbers, Iterable) else (numbers,)))}")


def _arithmetic(text: str, start: Decimal, stop: Decimal, step: Decimal) -> tuple[float, ...]:
    forms = f"Write {_meant(text, start, stop, step)}"
    if step == 0 or (stop - start) * step < 0:
        raise _refusal(text, f"steps of {step} never lead from {start} to {stop}", forms)
    count = (stop - start) / step
    if count >= _MOST:
        raise _refusal(text, f"it has more than {_MOST} points", "Take a larger step")
    if count < 1:
        raise _refusal(text, f"a step of {step} leads beyond {stop}, so there is one point only", forms)
    return tuple(float(start + index * step) for index in range(int(count) + 1))


def _meant(text: str, start: Decimal, stop: Decimal, step: Decimal) -> str:
    """Return the forms that the writer of a range of no or one point may have had in mind."""
    head = text.rpartition(":")[0].strip()
    forms = []
    if start > 0 and stop > 0 and step > 0 and step != 1 and _leads(start, stop, step):
        forms.append(f"{head}:x{step} to multiply by {step}")
    if step != 0 and (stop - start) * step < 0 and abs(step) <= abs(stop - start):
        forms.append(f"{head}:{-step} to go down" if stop < start else f"{head}:{-step} to go up")
    if step > 1 and step == step.to_integral_value() and step <= _MOST:
        width = (stop - start) / (step - 1)
        if start + width.normalize() * (step - 1) == stop and len(width.normalize().as_tuple().digits) <= 6:
            forms.append(f"{head}:{width.normalize():f} for {step} points")
    forms.append(f"{text.partition('=')[0].strip()}={start} for one point")
    return ", ".join(forms[:-1]) + (" or " if forms[:-1] else "") + forms[-1]


def _leads(start: Decimal, stop: Decimal, factor: Decimal) -> bool:
    """Return whether at least one multiplication by `factor` stays between START and STOP."""
    return start * factor <= stop if stop > start else start * factor >= stop and factor < 1


def _geometric(text: str, start: Decimal, stop: Decimal, factor: Decimal) -> tuple[float, ...]:
    if start <= 0 or stop <= 0 or factor <= 0 or factor == 1 or (stop > start) != (factor > 1):
        raise _refusal(text, f"times {factor} never leads from {start} to {stop}", "Take positive ends and a factor that does")
    with localcontext() as context:
        context.prec = 40
        values, value, slack = [], start, Decimal("1e-12")
        while (value <= stop * (1 + slack)) if factor > 1 else (value >= stop * (1 - slack)):
            values.append(float(value))
            value *= factor
            if len(values) > _MOST:
                raise _refusal(text, f"it has more than {_MOST} points", "Take a larger factor")
    if len(values) == 1:
        key = text.partition("=")[0].strip()
        found = f"times {factor} leads beyond {stop}, so there is one point only"
        raise _refusal(text, found, f"Take a factor nearer to 1, or write {key}={start} for one point")
    return tuple(values)


def _spans_decades(values: list[Decimal]) -> bool:
    return min(values) > 0 and max(values) / min(values) >= 100


def _number(text: str, part: str) -> Decimal:
    try:
        value = Decimal(part.strip() if part.isascii() else "")  # Decimal takes the digits of every script
    except InvalidOperation:
        raise _refusal(text, f"{part.strip()!r} is not a number") from None
    if not value.is_finite():
        raise _refusal(text, f"{part.strip()!r} is not finite")
    if value and abs(value.adjusted()) > _LARGEST_EXPONENT:
        raise _refusal(text, f"{part.strip()!r} is no number from 1e-{_LARGEST_EXPONENT} to 1e{_LARGEST_EXPONENT}")
    return value


def _refusal(text: str, found: str, do: str = _FORMS) -> UsageError:
    return UsageError(f"Sweep {text!r}", found, do)
