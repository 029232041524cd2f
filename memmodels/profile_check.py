"""Check a profile: it loads, every operating point gives error rates, and what a reader would miss is named."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from weakcell.memmodels.definition import Technology
from weakcell.memmodels.errors import InputError, MemorySpecError
from weakcell.memmodels.memory import ConditionValue
from weakcell.memmodels.profile import Profile, load

_WANTED = {
    "title": "what was measured (title)",
    "source": "where it is from (source)",
    "licence": "under which licence it may be shared (about.licence)",
    "board": "which board or chip it was (about.board)",
    "lot": "which lot (about.lot)",
}


@dataclass(frozen=True)
class ProfileCheck:
    """A profile that is usable.

    Attributes:
        profile: The profile.
        law: Its law, in words.
        covers: How many operating points, or which range, it covers.
        missing: What it does not say.
    """

    profile: Profile
    law: str
    covers: str
    missing: tuple[str, ...]


def check_profile(path: Path) -> ProfileCheck:
    """Check a profile file.

    Raises:
        InputError: It cannot be read, is damaged, or gives impossible error rates at an operating point that it covers.
    """
    profile = load(path)
    technology = profile.technology()
    shares: dict[str, ConditionValue] = {f"{rate}_share": 0.0 for rate in profile.unmeasured}
    points = [dict(point.conditions) for point in profile.points] or list(_corners(technology, shares))
    legal = 0
    for point in points:
        try:
            technology.terms(technology.resolve({**point, **shares}))
            legal += 1
        except ValueError as error:
            raise _damage(path, point, str(error)) from error
        except MemorySpecError as error:
            if profile.points:
                raise _damage(path, point, error.found) from error
    if not legal:
        raise InputError(f"Profile {path}", "its law gives error rates at no end of its ranges", "Repair it, or fit it again")
    covers = f"{len(points)} operating points" if profile.points else ", ".join(f"{c.name} {c.range}" for c in profile.conditions)
    return ProfileCheck(profile, technology.law, covers, tuple(_list_missing(profile)))


def _damage(path: Path, point: dict[str, ConditionValue], found: str) -> InputError:
    where = ", ".join(f"{key}={value}" for key, value in point.items()) or "its only point"
    return InputError(f"Profile {path}", f"at {where}: {found}", "Repair it, or fit it again")


def _corners(technology: Technology, shares: dict[str, ConditionValue]) -> Iterator[dict[str, ConditionValue]]:
    """Yield all combinations of the ends of the ranges."""
    knobs = [c for c in technology.conditions if c.low is not None and c.high is not None and c.name not in shares]
    for values in product(*((knob.low, knob.high) for knob in knobs)):
        yield {knob.name: float(value) for knob, value in zip(knobs, values, strict=True) if value is not None}


def _list_missing(profile: Profile) -> Iterator[str]:
    """Yield what a reader would miss."""
    known = {"title": profile.title, "source": profile.source, **profile.about}
    yield from (text for name, text in _WANTED.items() if not known.get(name))
    if profile.law is not None and "held_out_rms_decades" not in profile.fit:
        yield "how far it misses points that took no part in the fit (fit.held_out_rms_decades)"
    yield from (f"how often a stored {'0' if rate == 'p01' else '1'} errs: {rate} was not measured" for rate in profile.unmeasured)
