"""Training through a memory: what it reads, which gradient comes back, and that the stored bits are the engine's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from weakcell.emulator.ir.values import Encoding, encode_values
from weakcell.host.train import loop
from weakcell.host.train.flips import inject_flips, pack_words, unpack_words
from weakcell.host.train.layers import (
    StoredConv2d,
    StoredLinear,
    quantize_latent,
    quantize_min_max,
    quantize_stored,
    use_min_max_codes,
)
from weakcell.host.train.regularizer import TolerancePenalty, compute_distances
from weakcell.memmodels.address import Layout, pack, popcount
from weakcell.memmodels.catalogue import open_memory, parse_spec
from weakcell.memmodels.errors import UsageError
from weakcell.memmodels.memory import Memory


def memory(spec: str) -> Memory:
    return open_memory(parse_spec(spec), 1, 0, 0)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.set_num_threads(1)
    loop.seed(1)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_stored_bits_are_those_the_engine_deploys(bits: int) -> None:
    held = quantize_latent(torch.empty(7, 19).uniform_(-1, 1), bits)
    values = (held if bits == 1 else held * (1 << (bits - 1))).int().numpy()
    encoding = Encoding("sign", 1) if bits == 1 else Encoding("signed", bits)
    step = 1.0 if bits == 1 else 2.0 ** (1 - bits)
    words = pack_words(held, bits, step)
    assert np.array_equal(words, pack(encode_values(values, encoding), Layout("w", values.size, bits)))
    assert torch.equal(unpack_words(words, bits, held, step), held)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_min_max_codes_flip_as_offset_codes_do(bits: int) -> None:
    """MCEL's author flips unsigned codes (value + 2^(bits−1)), here they are two's complement: the read values are the same."""
    layer = StoredLinear(40, 30, bits).train()
    use_min_max_codes(layer)
    held = quantize_stored(layer, layer.weight.detach())
    with inject_flips(layer, memory("uniform:ber=0.1")):
        read = layer(torch.eye(40)).T.detach() - quantize_min_max(layer.bias.detach(), bits)[:, None]
    masks = (held.int() ^ read.int()).numpy() & ((1 << bits) - 1)
    offset_codes = held.int().numpy() + (1 << (bits - 1))
    assert masks.any()
    assert np.array_equal((offset_codes ^ masks) - (1 << (bits - 1)), read.int().numpy())


@pytest.mark.parametrize("bits", [1, 4])
@pytest.mark.parametrize("kind", [StoredLinear, StoredConv2d])
def test_weights_come_back_with_the_rate_of_the_memory(bits: int, kind: type[StoredLinear] | type[StoredConv2d]) -> None:
    layer = kind(32, 64, bits).train()
    x = torch.eye(32) if kind is StoredLinear else torch.eye(32)[:, :, None, None]
    clean = layer(x)
    with inject_flips(layer, memory("uniform:ber=0.1"), "plain"):
        assert not torch.equal(layer(x), clean)
        assert torch.equal(layer.eval()(x), clean)
        layer.train()
        assert layer.passes == 1
    assert torch.equal(layer(x), clean)
    assert "passes" not in layer.state_dict()


def test_asymmetric_errors_only_raise_or_only_lower() -> None:
    layer = StoredLinear(64, 64).train()
    clean = quantize_latent(layer.weight.detach(), 1)
    for spec, sign in (("uniform:p01=0.2,p10=0", 1), ("uniform:p01=0,p10=0.2", -1)):
        with inject_flips(layer, memory(spec)):
            change = layer(torch.eye(64)).T - clean
        assert set(change.unique().tolist()) == {0.0, 2.0 * sign}


def test_errors_of_the_die_stay_and_errors_of_reads_move() -> None:
    layer = StoredLinear(64, 64).train()
    seen = {}
    for life in ("die", "read"):
        with inject_flips(layer, memory(f"uniform:ber=0.2,lifetime={life}")):
            seen[life] = [layer(torch.eye(64)).detach() for _ in range(2)]
    assert torch.equal(*seen["die"])
    assert not torch.equal(*seen["read"])


@pytest.mark.parametrize("gradient", ["plain", "straight-through"])
def test_a_flipped_sign_turns_the_gradient_only_if_plain(gradient: str) -> None:
    layer = StoredLinear(48, 16).train()
    x, upstream = torch.randn(5, 48), torch.randn(5, 16)
    with inject_flips(layer, memory("uniform:ber=0.3"), gradient):  # type: ignore[arg-type]
        layer(x).backward(upstream)
    with inject_flips(layer, memory("uniform:ber=0.3")):
        flipped = (layer(torch.eye(48)).T.detach() != quantize_latent(layer.weight.detach(), 1)).float()
    unflipped = upstream.T @ x
    expected = unflipped if gradient == "straight-through" else unflipped * (1 - 2 * flipped)
    assert 0.2 < flipped.mean() < 0.4
    torch.testing.assert_close(layer.weight.grad, expected)


def test_plain_gradient_of_codes_turns_with_the_sign_bit() -> None:
    layer = StoredLinear(64, 32, 4).train()
    with inject_flips(layer, memory("uniform:ber=0.2"), "plain"):
        read = layer(torch.eye(64))
        read.sum().backward()
    turned = torch.signbit(read.detach().T) != torch.signbit(quantize_latent(layer.weight.detach(), 4))
    assert torch.equal(layer.weight.grad, torch.where(turned, -1.0, 1.0))


def test_flips_of_a_step_are_counted_by_the_memory_alone() -> None:
    layer = StoredLinear(100, 100).train()
    with inject_flips(layer, memory("uniform:ber=0.05")):
        read = layer(torch.eye(100)).T.detach()
    wrong = pack_words(read, 1, 1.0) ^ pack_words(quantize_latent(layer.weight.detach(), 1), 1, 1.0)
    assert 400 < popcount(wrong) < 600


def test_distance_to_the_threshold_is_the_batch_norms() -> None:
    norm = nn.BatchNorm1d(6).train()
    nn.init.uniform_(norm.weight, -2, 2)
    nn.init.uniform_(norm.bias)
    sums = torch.randint(-30, 30, (64, 6)).float()
    after = norm(sums)
    slope = (norm.weight / torch.sqrt(sums.var(0, unbiased=False) + norm.eps)).abs()
    torch.testing.assert_close(compute_distances(norm, sums), after.abs() / slope, rtol=1e-4, atol=1e-4)


def test_penalty_wants_neurons_far_from_their_thresholds() -> None:
    from weakcell.host.train.networks import fcnn

    network = fcnn((1, 4, 4), 3, 1, 0.01).train()
    near, far = TolerancePenalty(network, 1.0, 0.0), TolerancePenalty(network, 2.0, 1000.0)
    network(torch.randint(0, 255, (32, 1, 4, 4)).float())
    assert near(network).item() == 0
    assert far(network).item() == pytest.approx(2000, rel=0.05)
    near.remove()
    far.remove()
    with pytest.raises(UsageError, match="BNN"):
        TolerancePenalty(fcnn((1, 4, 4), 3, 4, 0.01), 1.0, 1.0)
