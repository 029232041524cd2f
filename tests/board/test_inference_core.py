"""The firmware's INFER, compiled for this machine: sums of binarized networks, checks of programs.

The oracle is the second engine in plain NumPy, `tests.emulator.reference`, on the weights with their flips.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from tests.board.binary_networks import ArenaImage, draw_flips, lay_out, random_binary_network
from tests.board.native import NativeCore, compiler
from tests.emulator.reference import evaluate
from tests.emulator.small import RandomNetwork, pixels
from weakcell.emulator.importer import load
from weakcell.emulator.ir.network import Network
from weakcell.emulator.ir.values import SIGN1, Window
from weakcell.host.board.errors import BoardError
from weakcell.host.board.inference.program import split_network
from weakcell.host.board.link.link import Link
from weakcell.host.board.link.protocol import PAGE, Capability
from weakcell.host.board.link.transport import FunctionTransport
from weakcell.memmodels.errors import ModelError

IMAGES = 3


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> NativeCore:
    """Compile the core with an arena of 256 KB."""
    if compiler() is None:
        pytest.skip("no C compiler: install gcc, or pip install ziglang")
    return NativeCore(tmp_path_factory.mktemp("core"), pages=1024)


def compute(core: NativeCore, placed: ArenaImage, image: np.ndarray) -> tuple[int, list[int]]:
    """Return the class and the sums of an image, over the link."""
    program, link = placed.program, Link(FunctionTransport(core))
    data = program.pack_input(image)
    core.arena[: len(placed.data)] = np.frombuffer(placed.data, np.uint8)
    link.write_pages(range(program.input_page, program.input_page + len(data) // PAGE),
                     [data[at : at + PAGE] for at in range(0, len(data), PAGE)])  # fmt: skip
    winner, sums = link.infer(program.page, program.words.size, placed.crc, 1.0)
    return winner, list(struct.unpack(f"<{len(sums) // 4}i", sums))


@pytest.mark.parametrize("seed", range(40))
def test_sums_are_those_of_the_reference(large: NativeCore, seed: int) -> None:
    rng = np.random.default_rng(seed)
    network, large.arena[:] = random_binary_network(seed), rng.integers(0, 256, large.arena.size)
    rate = (0.0, 0.001, 0.1, 0.5)[seed % 4]
    placed = lay_out(network, {tensor.name: draw_flips(tensor, rate, rng) for tensor in network.weights})
    inputs = pixels(network, IMAGES, seed)
    values = evaluate(placed.network, inputs)
    spec, expected = placed.found.input, values[placed.found.sums.name]
    for image in range(IMAGES):
        winner, sums = compute(large, placed, inputs["x"][image].astype(np.int64) - spec.zero_point)
        assert sums == expected[image].reshape(-1).tolist()
        assert winner == int(np.argmax(expected[image]))


def test_the_largest_integers_and_equal_sums(large: NativeCore) -> None:
    """32767 times 96 inputs, both signs; of two equal outputs the first wins."""
    d = RandomNetwork(np.random.default_rng(0))
    network = d.network(d.dequantize(d.dense(d.input("x", (96, 1, 1), "int32"), 4, SIGN1)))
    network.tensors["c0.w"].codes[:] = np.array([-1, 1, 1, -1]).reshape(4, 1, 1, 1)
    for value, winner in ((32767, 1), (-32768, 0)):
        image = np.full((96, 1, 1), value)
        assert compute(large, lay_out(network), image) == (winner, [96 * value * sign for sign in (-1, 1, 1, -1)])


def test_a_wrong_program_is_refused_and_nothing_outside_the_arena_is_touched(large: NativeCore) -> None:
    """A program with one damaged field never crashes; with its old CRC it is not run at all."""
    placed, rng = lay_out(random_binary_network(6)), np.random.default_rng(1)
    link, program = Link(FunctionTransport(large)), placed.program
    refused = 0
    for _ in range(400):
        words = program.words.copy()
        at = int(rng.integers(0, 40))
        words[at] ^= np.uint32(rng.integers(1, 1 << 32) if rng.random() < 0.5 else 1 << rng.integers(32))
        large.arena[: len(placed.data)] = np.frombuffer(placed.data, np.uint8)
        large.arena[program.page * PAGE :][: words.nbytes] = np.frombuffer(words.tobytes(), np.uint8)
        with pytest.raises(BoardError, match="OUT_OF_RANGE"):
            link.infer(program.page, words.size, placed.crc, 1.0)
        body = struct.pack("<HHI", program.page, words.size, zlib.crc32(words.tobytes()))
        refused += len(large.infer(body)) == 1
    assert refused > 100
    assert link.info().regulator_code == 11


@pytest.mark.parametrize(("page", "words"), [(0, 0), (1024, 1), (1023, 65), (0xFFFF, 0xFFFF)])
def test_a_program_outside_the_arena_is_refused(large: NativeCore, page: int, words: int) -> None:
    link = Link(FunctionTransport(large))
    assert link.board.can(Capability.INFER)
    with pytest.raises(BoardError, match="OUT_OF_RANGE"):
        link.infer(page, words, 0, 1.0)


def network_with_convolution(**changed: object) -> Network:
    """Return a network of one convolution that the firmware does not compute."""
    d = RandomNetwork(np.random.default_rng(0))
    x = d.threshold(d.convolution(d.input("x", (2, 6, 40), "int8"), 4, Window((3, 3)), SIGN1))
    x = d.convolution(x, 4, **changed)  # type: ignore[arg-type]
    return d.network(d.dequantize(d.dense(d.threshold(x), 4, SIGN1)))


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        ({"window": Window((3, 3)), "encoding": SIGN1, "bias": True}, "a bias"),
        ({"window": Window((3, 3)), "encoding": SIGN1, "groups": 2}, "2 groups"),
        ({"window": Window((2, 2), dilation=(1, 2)), "encoding": SIGN1}, "dilation"),
        ({"window": Window((2, 33)), "encoding": SIGN1}, "33 wide"),
    ],
)
def test_networks_of_other_kinds_are_named(changed: dict[str, object], found: str) -> None:
    with pytest.raises(ModelError, match=found):
        split_network(network_with_convolution(**changed))


def test_shipped_networks_are_split_and_others_refused() -> None:
    shipped = Path(__file__).parents[2] / "host" / "shipped"
    assert [len(split_network(load(shipped / f"{name}_bnn.onnx")).stages) for name in ("digits", "fashion")] == [4, 4]
    with pytest.raises(ModelError, match="weights of int8"):
        split_network(load(shipped / "digits_qnn.onnx"))
