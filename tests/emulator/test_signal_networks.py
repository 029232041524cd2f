"""A trained classifier of synthetic heartbeats in five technologies, against onnxruntime on the same file with the same flips."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from tests.emulator.families import Heartbeat
from tests.emulator.models import run
from tests.emulator.signal_networks import CHECKED, MEMORIES, WAYS, answers_with_errors, trained
from tests.emulator.signals import BEAT, heartbeats, spoken_words
from weakcell import emulator


@pytest.mark.parametrize("way", ["int8, onnxruntime QDQ", "int4, Brevitas QCDQ"])
def test_heartbeats(way: str) -> None:
    if "Brevitas" in way:
        pytest.importorskip("brevitas", reason="Brevitas is not installed")
    x, y = heartbeats(600, 0)
    proto = WAYS[way](trained(partial(Heartbeat, BEAT, 4), x, y, 4), x, y)
    tests, classes = heartbeats(100, 1)
    network = emulator.load(proto)
    found, wanted = emulator.infer(emulator.compile_plan(network), {"x": tests})["y"], run(proto, {"x": tests})[0]
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())
    assert (found.argmax(1) == classes).sum() > 50
    for memory, sweep in MEMORIES.items():
        key, values = sweep.split("=")
        ours, theirs = answers_with_errors(proto, tests, classes, memory, f"{key}={values.split(',')[CHECKED]}")
        assert ours == theirs, memory


def test_the_recipes_repeat() -> None:
    """Equal seeds give equal signals; every class has signals of its own."""
    for recipe, shape in ((spoken_words, (10, 40)), (heartbeats, (1, BEAT))):
        (x, y), again, other = recipe(60, 3), recipe(60, 3), recipe(60, 4)
        np.testing.assert_array_equal(x, again[0])
        assert x.shape == (60, *shape)
        assert not np.array_equal(x, other[0])
        assert len(set(y.tolist())) == y.max() + 1
