"""Binarized networks for the firmware's INFER: random ones, and their weights and program in an arena."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tests.emulator.small import RandomNetwork, with_flips
from weakcell.emulator.ir.network import Network
from weakcell.emulator.ir.values import SIGN1, StoredTensor, Window, storage_layout
from weakcell.host.board.inference.program import BoardNetwork, Program, split_network, write_program
from weakcell.host.board.link.protocol import PAGE
from weakcell.memmodels.address import Words, pack

Integers = npt.NDArray[np.int64]


def random_binary_network(seed: int, size: int = 10, channels: int = 40) -> Network:
    """Return a network of random shapes: any paddings, overlapping pools, weights that end inside words.

    Args:
        seed: of everything.
        size: largest height and width of the input.
        channels: most channels behind the first layer.
    """
    rng = np.random.default_rng(seed)
    d = RandomNetwork(rng)
    dtype, zero_point = (("int8", -3), ("uint8", 7), ("int32", 0))[rng.integers(3)]
    shape = rng.integers(1, (5, size + 1, size + 1))
    x = d.input("x", tuple(map(int, shape)), dtype, zero_point)
    for stage in range(rng.integers(1, 4)):
        x = d.convolution(x, int(rng.integers(1, channels + 1)), _window(rng, d.values[x].height_width, 4), SIGN1)
        if rng.random() < 0.5:
            x = d.pool(x, _window(rng, d.values[x].height_width, 3, inside=True))
        x = d.threshold(x, 9 if stage else 400)
    if rng.random() < 0.5:
        x = d.threshold(d.dense(x, int(rng.integers(1, 70)), SIGN1))
    return d.network(d.dequantize(d.dense(x, int(rng.integers(1, 11)), SIGN1)))


def _window(rng: np.random.Generator, size: tuple[int, int], most: int, inside: bool = False) -> Window:
    """Return a window for an image; inside: as a pool needs it, which has no window in the padding alone."""
    kernel = tuple(int(rng.integers(1, min(n, most) + 1)) for n in size)
    stride = tuple(int(rng.integers(1, 4)) for _ in size)
    pads = [int(rng.integers(0, kernel[i % 2] if inside else 3)) for i in range(4)]
    return Window((kernel[0], kernel[1]), (stride[0], stride[1]), (1, 1), (pads[0], pads[1], pads[2], pads[3]))


def draw_flips(tensor: StoredTensor, rate: float, rng: np.random.Generator) -> Words:
    """Return independent flips of a tensor's bits."""
    layout = storage_layout(tensor)
    return pack((rng.random(tensor.elements) < rate).view(np.uint8), layout)


@dataclass(frozen=True, eq=False)
class ArenaImage:
    """A network in an arena: what an arena holds of it, and its program.

    Attributes:
        network: with the flips in its weights.
        found: the part that the board computes.
        data: the arena up to the end of the program.
        program: the program.
        first_words: the first word of 32 bits of each weight tensor.
    """

    network: Network
    found: BoardNetwork
    data: bytes
    program: Program
    first_words: Mapping[str, int]

    @property
    def crc(self) -> int:
        """The CRC-32 of the program."""
        return zlib.crc32(self.program.words.tobytes())


def lay_out(network: Network, flips: Mapping[str, Words] | None = None) -> ArenaImage:
    """Lay a network's weights out as the memory `board:` does, each from a page of its own, and its program behind them."""
    flips = flips or {}
    tensors = {name: with_flips(t, (), flips[name]) if name in flips else t for name, t in network.tensors.items()}
    faulty = Network(network.name, network.inputs, network.outputs, network.layers, network.values, tensors)
    found, data = split_network(faulty), b""
    places: dict[str, int] = {}
    for name in found.weights:
        tensor = tensors[name]
        places[name] = len(data) // 4
        words = pack((tensor.codes > 0).view(np.uint8), storage_layout(tensor)).astype("<u8").tobytes()
        data += words.ljust(-(-len(words) // PAGE) * PAGE, b"\0")
    program = write_program(found, places, len(data) // PAGE)
    return ArenaImage(faulty, found, data + program.data, program, places)
