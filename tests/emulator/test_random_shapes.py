"""A few of the networks of `random_shapes`: onnxruntime's outputs, fault-free and with the same bits flipped."""

from __future__ import annotations

import numpy as np
import pytest

from tests.emulator.flipped import outputs_with_flips, random_cells, with_flipped_initializers
from tests.emulator.models import run
from tests.emulator.random_shapes import differs, find_matrices, random_network
from weakcell import emulator
from weakcell.emulator import ReadPolicy


@pytest.mark.parametrize("first", range(0, 40, 10))
def test_random_networks(first: int) -> None:
    assert {seed: text for seed in range(first, first + 10) if (text := differs(seed))} == {}


@pytest.mark.parametrize(("images", "first", "from_shapes"), [(3, 0, False), (5, 0, False), (4, 40, True)])
def test_random_networks_of_a_fixed_batch(images: int, first: int, from_shapes: bool) -> None:
    assert {seed: text for seed in range(first, first + 12) if (text := differs(seed, images, from_shapes))} == {}


@pytest.mark.parametrize("policy", [ReadPolicy.LOAD, ReadPolicy.IMAGE])
def test_flips_reach_the_same_weights(policy: ReadPolicy) -> None:
    """A flipped bit of the file is the flipped bit of the memory, however a tensor is laid out."""
    compared = 0
    for seed in range(100, 130):
        proto, x = random_network(seed)
        network = emulator.load(proto)
        flips = random_cells(network, np.random.default_rng(seed), 9)
        if not flips:
            continue
        changed = with_flipped_initializers(proto, flips, find_matrices(proto))
        want = np.concatenate([run(changed, {"x": image[None]})[0] for image in x])
        got = outputs_with_flips(network, {"x": x}, flips, policy)["out"]
        away = np.abs(got - want) > 2e-4 * np.maximum(1, np.abs(want))
        assert away.mean() <= 0.34, (seed, np.abs(got - want).max())
        compared += 1
    assert compared > 10
