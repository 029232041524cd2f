"""Dense ±1 layers whose weights are read for every image. Oracle: reads of the whole region, and products in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weakcell.emulator.ir.values import pack_channels
from weakcell.emulator.kernels.arguments import ReadSequence
from weakcell.emulator.kernels.entry_points import dense_resampled
from weakcell.memmodels import Key, Layout, open_memory, pack
from weakcell.memmodels.sampling.sampler import draw_region

SPECS = ("uniform:ber=0.01", "uniform:ber=0.3", "uniform:p01=0.2,p10=0.003", "sram-14nm:v_over_vmin=0.8")


def check(bits: int, outputs: int, images: int, before: int, spec: str, seed: int) -> None:
    """Compare sums and flips of `images` reads with those of whole reads, one after the other."""
    rng = np.random.default_rng(seed)
    weights, x = rng.integers(0, 2, (outputs, bits)), rng.integers(0, 2, (images, bits))
    memory, layout = open_memory(spec, seed), Layout("w", outputs * bits, 1)
    memory.write(np.zeros(before, np.uint64), Layout("before", before * 64, 1), Key())
    region = memory.write(pack(weights, layout), layout, Key(2))
    sampler = memory.sampler(region)
    assert sampler is not None
    sums = np.empty((images, 1, 1, outputs), dtype=np.int32)
    reads = ReadSequence(sampler.source, 2, region.key.write, np.arange(5, 5 + images))
    flips_drawn = dense_resampled(pack_channels(x[:, None, None] > 0), sums, bits, reads)
    flips, expected = np.empty(layout.words, np.uint64), 0
    for image in range(images):
        expected += draw_region(sampler, 2, region.key.write, 5 + image, flips)
        flipped = np.unpackbits(flips.view(np.uint8), bitorder="little")[: layout.bits].reshape(outputs, bits)
        products = (2 * (weights ^ flipped) - 1) @ (2 * x[image] - 1)
        assert np.array_equal(sums[image, 0, 0], products)
    assert flips_drawn == expected


@given(
    bits=st.one_of(st.integers(1, 1200), st.sampled_from([64, 512, 1024, 3136])),
    outputs=st.integers(1, 70),
    before=st.sampled_from([1, 7, 1000, 1023, 1024, 1500]),
    spec=st.sampled_from(SPECS),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_rows_of_any_length_at_any_position_of_a_block(bits: int, outputs: int, before: int, spec: str, seed: int) -> None:
    check(bits, outputs, 2, before, spec, seed)


@pytest.mark.parametrize(("bits", "outputs"), [(200_001, 3), (65_536, 4), (130, 2000), (3136, 100)])
def test_rows_over_several_blocks_and_blocks_of_many_rows(bits: int, outputs: int) -> None:
    check(bits, outputs, 2, 900, "uniform:ber=0.02", 1)
