"""Networks whose products fill matrix tiles, or just do not; and what computes them: loops in the place of instructions.

python -m tests.emulator.tiled_networks SEEDS [whole] compares every output with NumPy's. `test_matrix_tiles.py` runs it with
WEAKCELL_MATRIX_TILES=software, `amx_in_bochs.py` runs the calls of the whole networks on emulated hardware.
"""

from __future__ import annotations

import sys

import numpy as np

from tests.emulator.reference import evaluate
from tests.emulator.small import INT2, INT4, INT8, RandomNetwork, pixels
from weakcell.emulator import compile_plan, infer
from weakcell.emulator.ir.network import Network
from weakcell.emulator.ir.values import SIGN1, Window


def tiled_network(seed: int, whole: bool) -> Network:
    """Return a network of random shapes, with products of bytes and 4 bits for codes and signs, and of ±1 for signs.

    whole: also with products of 4 and 2 bits for int32 sums, which are two kernels more.

    Channels are whole blocks of 64 or not. Some images have 16 pixels in a row, whose windows tiles read in place.
    """
    rng = np.random.default_rng(seed)
    d = RandomNetwork(rng)
    channels, middle, outputs = (int(rng.choice(sizes)) for sizes in ((16, 64, 65, 128), (33, 64, 96), (5, 32, 67)))
    height, width = int(rng.integers(4, 7)), int(rng.choice([7, 19, 34]))
    x = d.input("x", (channels, height, width), zero_point=int(rng.integers(0, 200)))
    around, strided = Window((3, 3), pads=(1, 1, 1, 1)), Window((2, 2), (int(rng.integers(1, 3)), 1))
    codes = d.requantize(d.convolution(x, middle, around, INT8, bias=True), 0.001, 100)
    sums = [d.convolution(codes, outputs, strided, INT4), d.dense(codes, outputs, INT2)] if whole else []
    bits = d.threshold(d.convolution(x, middle, around, INT4), 2_000)
    pooled = d.threshold(d.pool(d.convolution(bits, 70, around, SIGN1), Window((2, 2), (2, 2))), 40)
    plain = d.threshold(d.convolution(bits, outputs, strided, SIGN1), 20)
    return d.network(*map(d.dequantize, (codes, *sums)), pooled, plain)


def check(seeds: int, whole: bool) -> None:
    """Compare all outputs of networks with NumPy's, and say what computed them."""
    from weakcell.emulator.kernels.matrix_tiles import TILES

    for seed in range(seeds):
        network = tiled_network(seed, whole)
        images = pixels(network, int(np.random.default_rng(seed).choice([1, 2, 17, 33])), seed)
        made, expected = infer(compile_plan(network), images), evaluate(network, images)
        for name in network.outputs:
            np.testing.assert_array_equal(made[name], expected[name], err_msg=f"seed {seed}, output {name}")
    print(f"{seeds} networks equal NumPy's with tiles: {TILES}")


if __name__ == "__main__":
    check(int(sys.argv[1]), sys.argv[2:] == ["whole"])
