"""Profiles: TOML with error terms or a law, and arrays beside it."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from tests.fuzzing.engine import Reader
from tests.fuzzing.mutations import change_tree, damage_text, write_toml
from weakcell.memmodels.address import Layout
from weakcell.memmodels.memory import Accesses, Key
from weakcell.memmodels.profile import Profile, load
from weakcell.memmodels.simulated import SimulatedMemory

_BITS = np.arange(13, dtype=np.uint64)


def _structure(random: Random) -> dict[str, Any] | None:
    kind = random.randrange(4)
    if kind == 0:
        axis = random.choice(("column", "row", "bank"))
        return {
            "axis": axis,
            "share": random.random(),
            "bank": {"rows": random.choice((1, 4, 1024)), "columns": random.choice((1, 16))},
        }
    return {"cells": random.choice((1, 8, 64)), "in_line": random.choice((0.5, 1.0))} if kind == 1 else None


def _term(random: Random) -> dict[str, Any]:
    if random.randrange(4) == 0:
        levels = random.choice((2, 4, 8))
        up, down = [0.01] * (levels - 1) + [0.0], [0.0] + [0.02] * (levels - 1)
        return {"kind": "levels", "name": "levels", "up": up, "down": down, "code": random.choice(("gray", "binary"))}
    lifetime = random.choice(("die", "write", "read", "accumulating"))
    term: dict[str, Any] = {
        "kind": "errors", "name": "weak", "lifetime": lifetime, "p01": random.choice((0.0, 0.01, 1e-6)),
        "p10": random.choice((0.0, 0.02, 0.5)), "cells": random.choice(("prefer", "invert")),
    }  # fmt: skip
    if lifetime in ("die", "accumulating") and (structure := _structure(random)):
        term["structure"] = structure
    if lifetime == "die" and random.randrange(3) == 0:
        term["fails"] = 0.5
    if lifetime == "accumulating":
        term |= {"exposure": random.choice(("reads", "time")), "redrawn": bool(random.randrange(2))}
    if lifetime == "write" and random.randrange(3) == 0:
        term["only_switched"] = True
    return term


def profile_tree(random: Random) -> dict[str, Any]:
    """Return the tree of a valid profile."""
    tree: dict[str, Any] = {
        "schema": random.choice((1, 2)),
        "name": "board",
        "title": "t",
        "source": "s",
        "notes": "n",
        "basis": "measured",
    }
    if random.randrange(3) == 0:
        tree["arrays"] = "arrays.npz"
    if random.randrange(3) == 0:
        tree["fit"] = {"verdict": "fits", "chi_square": 3.5, "dispersion": 1.0}
    constant = {
        "name": "mu",
        "value": 0.5,
        "unit": "V",
        "low": 0.4,
        "high": 0.6,
        "basis": "measured",
        "method": "m",
        "confidence": 0.95,
    }
    tree["constants"] = [dict(constant) for _ in range(random.randrange(3))]
    if random.randrange(2):
        conditions = ({"vdd": 0.6}, {"vdd": 0.7}, {"vdd": 0.8}), ({"vdd": 0.6, "mode": "a"}, {"vdd": 0.6, "mode": "b"})
        terms = [
            {"conditions": point, "terms": [_term(random) for _ in range(random.randrange(3))]}
            for point in random.choice(conditions)
        ]
        tree["points"] = terms
        if random.randrange(3) == 0:
            terms[0]["unmeasured"] = random.choice(("p01", "p10"))
    else:
        tree["law"] = {
            "condition": "vdd", "unit": "V", "low": 0.4, "high": 0.9, "mu": 0.5, "s": 0.05, "share01": 0.5, "share10": 0.5,
            "like": {"kind": "errors", "name": "weak", "lifetime": "die", "p01": 0.0, "p10": 0.0, "cells": "prefer"},
        }  # fmt: skip
    return tree


def generate(random: Random) -> bytes:
    """Return a profile, mostly with a few changes."""
    tree = change_tree(profile_tree(random), random, random.choice((0, 1, 1, 1, 2, 4)))
    return write_toml(tree)


def mutate(data: bytes, random: Random) -> bytes:
    """Change a place of a profile, or its text."""
    import tomllib

    try:
        tree = tomllib.loads(data.decode())
    except (ValueError, RecursionError):
        return damage_text(data, random)
    return write_toml(change_tree(tree, random))


def read(data: bytes, folder: Path) -> None:
    """Load a profile, and use all of it: points, laws, texts, and a memory at its first operating point."""
    path = folder / "profile.toml"
    path.write_bytes(data)
    arrays = folder / "arrays.npz"
    if not arrays.exists():
        np.savez(arrays, a=np.zeros(3))
    profile = load(path)
    technology = profile.technology("file:x")
    given: dict[str, Any] = {condition.name: 0.5 for condition in technology.conditions if condition.name.endswith("_share")}
    given |= dict(profile.points[0].conditions) if profile.points else {}
    conditions = technology.resolve(given)
    technology.terms(conditions)
    technology.lifetimes(conditions)
    [str(constant) for constant in profile.constants]
    _round_trip(profile, folder)
    memory = SimulatedMemory(technology, conditions, 1, 2, 0)
    region = memory.write(_BITS, Layout("w", 100, 8), Key(0, 0, 0))
    memory.read(region, Key(0, 0, 0), np.empty_like(_BITS))
    memory.cost(region, Accesses(1.0))


def _round_trip(profile: Profile, folder: Path) -> None:
    again = load(profile.save(folder / "again.toml"))
    assert repr(again) == repr(profile)


READERS = {
    "profile": Reader("profile", generate, read, r"schema is|damaged \(.* \(at (line|end)|damaged \('name'", ".toml", mutate),
}
