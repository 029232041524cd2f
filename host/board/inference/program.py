"""The program of a binarized network for a board's command INFER; `firmware/PROTOCOL.md` defines every field.

The weights stay where the memory `board:` has put them, bit for bit. Behind them lie the program (stages and thresholds), the
input, and what the stages write. The program and the input are written at nominal voltage, after the weights were at the low one.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod

import numpy as np
import numpy.typing as npt

from weakcell.emulator.ir.layer import Layer
from weakcell.emulator.ir.layers import Convolution, MaxPool, Reshape, Threshold
from weakcell.emulator.ir.network import Network
from weakcell.emulator.ir.values import SIGN1, ValueSpec, Window
from weakcell.host.board.link.protocol import MAX_KERNEL_WIDTH, MAX_STAGES, MAX_SUMS, PAGE
from weakcell.memmodels.errors import ModelError

_WORD = 4
_PAGE_WORDS = PAGE // _WORD
_STAGE = struct.Struct("<5I8H14BH")
_NO_POOL = Window((1, 1))


@dataclass(frozen=True, eq=False)
class Stage:
    """Layers that a board computes in one go: a product, the largest sum of each pool, and the signs of the sums.

    Attributes:
        product: the layer with the weights.
        pool: the window of the pool; 1 x 1 without one.
        threshold: of the sums; None: the sums are the output.
        output: name of the value that the last of these layers makes.
    """

    product: Convolution
    pool: Window
    threshold: Threshold | None
    output: str


@dataclass(frozen=True, eq=False)
class BoardNetwork:
    """A network as a board computes it.

    Attributes:
        network: the whole network.
        stages: the part that the board computes.
        tail: the layers that follow; the host computes them from the last sums.
    """

    network: Network
    stages: tuple[Stage, ...]
    tail: tuple[Layer, ...]

    @property
    def input(self) -> ValueSpec:
        """The value that the first stage reads: integers."""
        return self.network.values[self.stages[0].product.inputs[0]]

    @property
    def sums(self) -> ValueSpec:
        """The value that the last stage makes."""
        return self.network.values[self.stages[-1].output]

    @property
    def weights(self) -> tuple[str, ...]:
        """Names of the weight tensors, in the order of the stages."""
        return tuple(stage.product.weight for stage in self.stages)


def split_network(network: Network) -> BoardNetwork:
    """Return what a board computes of a network.

    Raises:
        ModelError: the network is not of the kind that the firmware computes.
    """
    products = [at for at, layer in enumerate(network.layers) if isinstance(layer, Convolution)]
    if not products:
        raise _unsupported(network, "it has no layer with weights that the firmware knows")
    first, layers = products[0], network.layers
    before = {layer.output for layer in layers[:first]} | set(network.inputs)
    stages, at, value = [], first, layers[first].inputs[0]
    if network.values[value].kind != "codes" or value not in before:
        raise _unsupported(network, f"its first layer, {layers[first].name}, reads {network.values[value].kind}, and not integers")
    while at < len(layers) and at <= products[-1]:
        stage, at = _take_stage(network, at, value, at == products[-1])
        stages.append(stage)
        value = stage.output
        while at < products[-1] and isinstance(layers[at], Reshape) and layers[at].inputs == (value,):
            value, at = layers[at].output, at + 1
    tail, known = layers[at:], {value}
    for layer in tail:
        if not known.issuperset(layer.inputs) or any(layer.tensor_names()):
            raise _unsupported(network, f"{layer.name} does not follow from the last layer's sums alone")
        known.add(layer.output)
    for output in network.outputs:
        if output not in known:
            raise _unsupported(network, f"its output {output!r} comes from a layer before the last one with weights")
    found = BoardNetwork(network, tuple(stages), tuple(tail))
    if prod(found.sums.shape) > MAX_SUMS:
        raise _unsupported(network, f"it has {prod(found.sums.shape)} outputs, and a reply has room for {MAX_SUMS}")
    if len(stages) > MAX_STAGES:
        raise _unsupported(network, f"it has {len(stages)} layers with weights, and the firmware takes {MAX_STAGES}")
    return found


def _take_stage(network: Network, at: int, value: str, last: bool) -> tuple[Stage, int]:
    """Return the stage that begins at a layer and reads a value, and the index of the layer behind it."""
    product, layers = network.layers[at], network.layers
    if not isinstance(product, Convolution) or product.inputs != (value,):
        raise _unsupported(network, f"{product.name} ({type(product).__name__}) comes where a layer with binary weights must")
    for fits, found in (
        (network.tensors[product.weight].encoding == SIGN1, f"weights of {network.tensors[product.weight].encoding}"),
        (product.bias is None, "a bias"),
        (product.groups == 1, f"{product.groups} groups"),
        (product.window.dilation == (1, 1), f"a dilation of {product.window.dilation}"),
        (product.window.kernel[1] <= MAX_KERNEL_WIDTH, f"a kernel {product.window.kernel[1]} wide"),
    ):
        if not fits:
            raise _unsupported(network, f"{product.name} has {found}")
    pool, at, output = _NO_POOL, at + 1, product.output
    if last:
        return Stage(product, pool, None, output), at
    layer = layers[at]
    if isinstance(layer, MaxPool) and layer.inputs == (output,) and layer.window.dilation == (1, 1):
        pool, output, at = layer.window, layer.output, at + 1
        layer = layers[at]
    if not isinstance(layer, Threshold) or layer.inputs != (output,):
        raise _unsupported(network, f"{layer.name} ({type(layer).__name__}) comes where the signs of {product.name}'s sums must")
    return Stage(product, pool, layer, layer.output), at + 1


def _unsupported(network: Network, found: str) -> ModelError:
    do = (
        "The firmware computes layers with weights of one bit, without bias or groups, on integers and then on signs, each with an "
        "optional MaxPool and a sign behind it. Leave out --compute board: the emulator computes the network on what the board read"
    )
    return ModelError(f"Computing {network.name} on a board", found, do)


@dataclass(frozen=True, eq=False)
class Program:
    """A program and where it lies in the arena.

    Attributes:
        words: (n,) uint32, the stages and the thresholds.
        page: the program's first page.
        input_page: the first page of the input.
        input_values: integers of one image.
        pages: the pages up to the last one that is used.
    """

    words: npt.NDArray[np.uint32]
    page: int
    input_page: int
    input_values: int
    pages: int

    @property
    def data(self) -> bytes:
        """The program, in whole pages."""
        return _whole_pages(self.words.astype("<u4").tobytes())

    def pack_input(self, integers: npt.NDArray[np.integer]) -> bytes:
        """Return the pages of one image: its integers in C order."""
        return _whole_pages(integers.astype("<i2").tobytes())


@dataclass
class _Room:
    """Gives out words of the arena, one piece after the other."""

    word: int

    def take(self, words: int) -> int:
        """Return the first word of a piece."""
        first, self.word = self.word, self.word + words
        return first

    def take_pages(self, words: int) -> int:
        """Return the first word of a piece of whole pages."""
        self.word = -(-self.word // _PAGE_WORDS) * _PAGE_WORDS
        return self.take(-(-words // _PAGE_WORDS) * _PAGE_WORDS)


@dataclass
class _Constants:
    """Thresholds, and which of them invert, behind the stages of a program."""

    first: int
    words: list[npt.NDArray[np.uint32]] = field(default_factory=list)
    count: int = 0

    def add(self, threshold: npt.NDArray[np.int32], inverted: npt.NDArray[np.bool_]) -> int:
        """Return the word of the arena where they will lie."""
        at, bits = self.first + self.count, np.packbits(inverted, bitorder="little")
        part = np.concatenate([threshold.astype(np.int32).view(np.uint32), _bytes_as_words(bits)])
        self.words.append(part)
        self.count += part.size
        return at


def write_program(found: BoardNetwork, weights: Mapping[str, int], free_page: int) -> Program:
    """Write the program of a network whose weights lie in the arena.

    Args:
        found: the network.
        weights: the first word of 32 bits of each weight tensor in the arena.
        free_page: the first page behind all weights.
    """
    network, stages = found.network, found.stages
    head = 1 + len(stages) * _STAGE.size // _WORD
    constants = _Constants(free_page * _PAGE_WORDS + head)
    places = []
    for stage in stages:
        threshold = stage.threshold
        tensor = None if threshold is None else network.tensors[threshold.threshold].values
        places.append(0 if threshold is None or tensor is None else constants.add(tensor, threshold.inverted))
    room = _Room(free_page * _PAGE_WORDS)
    room.take_pages(head + constants.count)
    values = prod(found.input.shape)
    source = input_word = room.take_pages(-(-values // 2))
    scratch = room.take(max(_scratch_words(network, stage) for stage in stages))
    packed = [np.array([len(stages)], np.uint32)]
    for stage, place in zip(stages, places, strict=True):
        target = room.take(_output_words(network, stage))
        packed.append(_pack_stage(network, stage, source, target, weights[stage.product.weight], place, scratch))
        source = target
    words = np.concatenate([*packed, *constants.words])
    return Program(words, free_page, input_word // _PAGE_WORDS, values, -(-room.word // _PAGE_WORDS))


def _pack_stage(
    network: Network, stage: Stage, source: int, target: int, weights: int, thresholds: int, scratch: int
) -> npt.NDArray[np.uint32]:
    window, pool, values = stage.product.window, stage.pool, network.values
    inside, sums, out = (values[name] for name in (stage.product.inputs[0], stage.product.output, stage.output))
    packed = _STAGE.pack(
        source, target, weights, thresholds, scratch,
        inside.channels, *inside.height_width, out.channels, *sums.height_width, *out.height_width,
        *window.kernel, *window.stride, *window.pads[:2],
        *pool.kernel, *pool.stride, *pool.pads[:2], inside.kind == "codes", stage.threshold is None, 0,
    )  # fmt: skip
    return np.frombuffer(packed, "<u4")


def _output_words(network: Network, stage: Stage) -> int:
    """Return the words of a stage's output. The next stage reads bits as whole words, and one word more."""
    values = prod(network.values[stage.output].shape)
    return values if stage.threshold is None else -(-values // 32) + 1


def _scratch_words(network: Network, stage: Stage) -> int:
    outputs, *inputs = network.tensors[stage.product.weight].shape
    under = prod(inputs)
    return outputs + (under if network.values[stage.product.inputs[0]].kind == "codes" else 2 * -(-under // 32))


def _bytes_as_words(data: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint32]:
    return np.frombuffer(data.tobytes().ljust(-(-data.size // _WORD) * _WORD, b"\0"), "<u4")


def _whole_pages(data: bytes) -> bytes:
    return data.ljust(-(-len(data) // PAGE) * PAGE, b"\0")
