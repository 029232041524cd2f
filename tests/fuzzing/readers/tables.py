"""TOML tables that people bring: read-backs to import, campaigns, settings of training."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

import numpy as np

from tests.fuzzing.engine import Reader
from tests.fuzzing.mutations import change_tree, damage_text, write_toml
from tests.fuzzing.readers.grammars import spec
from weakcell.host.board.readbacks.loading import load_readbacks
from weakcell.host.campaign import campaign
from weakcell.host.campaign.campaign import resolve_campaign
from weakcell.host.campaign.schema import read_campaign
from weakcell.host.train.settings import expand_runs, read_settings


def _generator(make: Callable[[Random], dict[str, Any]]) -> Callable[[Random], bytes]:
    return lambda random: write_toml(change_tree(make(random), random, random.choice((0, 1, 1, 1, 2, 4))))


def _mutate(data: bytes, random: Random) -> bytes:
    try:
        return write_toml(change_tree(tomllib.loads(data.decode()), random))
    except (ValueError, RecursionError):
        return damage_text(data, random)


# --- read-backs ----------------------------------------------------------------------------------------------------------------

_FILES = {"r0.bin": bytes(64), "r1.bin": bytes(range(64)), "r2.bin": b"\xff" * 64, "short.bin": b"\0", "none.bin": b""}


def _readbacks(random: Random) -> dict[str, Any]:
    points = [
        {
            "vdd": 0.5 + 0.02 * number,
            "written": random.choice(("zeros", "ones", "checkerboard", "r1.bin")),
            "reads": [random.choice(list(_FILES)[:3]) for _ in range(random.randint(1, 3))],
            **({"dwell_s": 0.01} if random.randrange(2) else {}),
        }
        for number in range(random.randint(1, 3))
    ]
    head = {"title": "t", "source": "s", "notes": "n", "rows": 8, "columns": 8, "nominal": 1.0}
    return {**{name: value for name, value in head.items() if random.randrange(2)}, "points": points}


def _read_readbacks(data: bytes, folder: Path) -> None:
    for name, content in _FILES.items():
        if not (folder / name).exists():
            (folder / name).write_bytes(content)
    (folder / "r.toml").write_bytes(data)
    use_readbacks(folder / "r.toml")


def use_readbacks(path: Path) -> None:
    """Load read-backs and look at all of them."""
    readbacks = load_readbacks(path)
    for one in readbacks.measured:
        assert one.errors is not None
        assert np.bitwise_count(one.errors).sum() <= readbacks.bits * len(one.errors)


# --- campaigns -----------------------------------------------------------------------------------------------------------------

_MOST_POINTS = 2_000
"""A point takes a third of a millisecond: 100,000 good ones take longer than an input may."""


def _campaign(random: Random) -> dict[str, Any]:
    grids: list[dict[str, Any]] = [
        {"v_over_vmin": "0.75:1.0:0.05"}, {"v_over_vmin": [0.8, 0.9]}, {"v_over_vmin": 0.8}, {"v_over_vmin": "0.7:1.0:x1.1"}, {},
        {"v_over_vmin": f"0.7:1.0:{random.choice(('1e-9', '0.0001', '0.1'))}"}, {"v_over_vmin": "0.8,0.9"},
    ]  # fmt: skip
    bers: list[dict[str, Any]] = [{"ber": "1e-5:1e-1:x10"}, {"p01": [0.1, 0.2], "p10": "0:1:0.001"}, {"ber": [0.1] * 3}]
    memories = [{"spec": "sram-14nm", "grid": random.choice(grids)}, {"spec": "uniform", "grid": random.choice(bers)}]
    memories.append({"spec": spec(random)})
    tree: dict[str, Any] = {
        "network": [{"model": random.choice(("digits-bnn", "digits-qnn", "none.onnx")), "data": "digits", "images": 20}],
        "memory": random.sample(memories, random.randint(1, 2)),
    }
    if random.randrange(3) == 0:
        tree["placement"] = [{"name": "first", "rules": {random.choice(("*", "*@7", "fc1", "buffer:*")): "uniform:ber=0"}}]
    others = {"trials": 5, "half_width": 0.01, "seeds": [0, 1], "read_every": ["load", "batch"], "batch": 64, "die": 3}
    return {**{name: value for name, value in others.items() if random.randrange(3) == 0}, **tree}


def _read_campaign(data: bytes, folder: Path) -> None:
    (folder / "c.toml").write_bytes(data)
    file = read_campaign(folder / "c.toml")
    if sum(len(network.model) for network in file.table.network) % 8 == 0:
        with patch.object(campaign, "MOST_POINTS", _MOST_POINTS):
            resolve_campaign(file)


# --- settings of training ------------------------------------------------------------------------------------------------------


def _settings(random: Random) -> dict[str, Any]:
    run = {
        "data": "digits", "network": "fcnn", "bits": 1, "width": 0.5, "loss": "mhl:b=128", "flips": "uniform:ber=0.01", "epochs": 2,
        "gradient": "plain", "tolerance": [0.1, 0.2], "batch": 64, "rate": 0.001, "images": 100, "precision": "float32", "seed": 1,
    }  # fmt: skip
    seeds = list(range(random.choice((1, 3, 200))))
    values = {"bits": [1, 4, 8], "loss": ["cel", "mcel:rls=16%"], "seed": seeds, "width": [0.5, 1.0]}
    return {
        "run": {name: value for name, value in run.items() if random.randrange(2)},
        "grid": {name: values[name] for name in random.sample(list(values), random.randrange(4))},
    }


def _read_settings(data: bytes, folder: Path) -> None:
    (folder / "t.toml").write_bytes(data)
    runs = expand_runs(*read_settings(folder / "t.toml"))
    assert all(run.name and run.identity for run in runs)


READERS = {
    reader.name: reader
    for reader in (
        Reader("readbacks-toml", _generator(_readbacks), _read_readbacks, r" \(at (line|end)", ".toml", _mutate, tests=60),
        Reader("campaign", _generator(_campaign), _read_campaign, "not TOML", ".toml", _mutate, tests=20),
        Reader("settings", _generator(_settings), _read_settings, r" \(at (line|end)", ".toml", _mutate, tests=20),
    )
}
