"""Bits flipped in two ways.

In the initializers of an ONNX file, and by a memory that returns exactly these flips.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import numpy_helper

from weakcell import emulator
from weakcell.emulator import ReadPolicy
from weakcell.memmodels.address import Layout, Words
from weakcell.memmodels.catalogue import parse_spec
from weakcell.memmodels.memory import Accesses, Cost, Key, ReadReport, Region
from weakcell.memmodels.sampling.sampler import Sampler

Array = np.ndarray
Cells = list[tuple[int, int]]
"""(element, bit) of a stored tensor."""


@dataclass
class ListedFlips:
    """A memory whose every read returns what was written, with the listed cells inverted.

    Attributes:
        reads: number of reads, by tensor.
    """

    flips: Mapping[str, Cells]
    reads: dict[str, int] = field(default_factory=dict)
    conditions: Mapping[str, float] = field(default_factory=dict)

    def at(self, **conditions: object) -> ListedFlips:
        return self

    def write(self, bits: Words, layout: Layout, key: Key) -> Region:
        return Region(layout, 0, bits.copy(), bits.copy(), None, key)

    def read(self, region: Region, key: Key, out: Words) -> ReadReport:
        out[:] = region.written
        layout = region.layout
        self.reads[layout.name] = self.reads.get(layout.name, 0) + 1
        cells = self.flips.get(layout.name, [])
        for element, bit in cells:
            cell = element * len(layout.planes) + layout.planes.index(bit)
            out[cell >> 6] ^= np.uint64(1) << np.uint64(cell & 63)
        return ReadReport(len(cells))

    def sampler(self, region: Region) -> Sampler | None:
        return None

    def cost(self, region: Region, accesses: Accesses) -> Cost:
        return Cost()


def outputs_with_flips(
    network: emulator.Network,
    inputs: Mapping[str, Array],
    flips: Mapping[str, Cells],
    policy: ReadPolicy = ReadPolicy.LOAD,
) -> dict[str, Array]:
    """Return the engine's outputs with these cells inverted at every read.

    One memory holds all weights.
    """
    plan = emulator.compile_plan(network)
    placement = emulator.place(network, parse_spec("uniform:ber=0"))
    deployment = emulator.deploy(plan, placement, policy, memories=[ListedFlips(flips)])
    return emulator.outputs_under_faults(plan, dict(inputs), deployment)


def random_cells(network: emulator.Network, rng: np.random.Generator, count: int = 6) -> dict[str, Cells]:
    """Return some cells of every weight tensor, each once."""
    cells: dict[str, Cells] = {}
    for tensor in network.weights:
        chosen = rng.choice(tensor.bits, min(count, tensor.bits), replace=False)
        cells[tensor.name] = [divmod(int(cell), tensor.encoding.bits) for cell in chosen]
    return cells


def with_flipped_initializers(
    proto: onnx.ModelProto,
    flips: Mapping[str, Cells],
    transposed: frozenset[str] = frozenset(),
    bits: Mapping[str, int] | None = None,
) -> onnx.ModelProto:
    """Return the model with these bits inverted in its integer initializers.

    Args:
        proto: the model.
        flips: cells by tensor.
        transposed: matrices whose elements are counted column by column, as the weights of a MatMul are stored.
        bits: of an element by tensor, where fewer are stored than the file's type has.
    """
    changed = onnx.ModelProto()
    changed.CopyFrom(proto)
    for tensor in changed.graph.initializer:
        if tensor.name not in flips:
            continue
        array = numpy_helper.to_array(tensor)
        codes = array.astype(np.int64)
        flat = (codes.T if tensor.name in transposed else codes).copy().reshape(-1)
        file_bits = 4 if tensor.data_type in (onnx.TensorProto.INT4, onnx.TensorProto.UINT4) else 8 * array.dtype.itemsize
        width = (bits or {}).get(tensor.name, file_bits)
        signed = "uint" not in str(array.dtype)
        for element, bit in flips[tensor.name]:
            code = (int(flat[element]) & ((1 << width) - 1)) ^ (1 << bit)
            flat[element] = code - (1 << width) if signed and code >> (width - 1) else code
        shaped = flat.reshape(codes.T.shape).T if tensor.name in transposed else flat.reshape(codes.shape)
        tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(shaped).astype(array.dtype), tensor.name))
    return changed


def without_clips(proto: onnx.ModelProto, weights: set[str]) -> onnx.ModelProto:
    """Return the file without the Clips that narrow stored weights: the narrow weights are stored, and may be read as any code."""
    changed = onnx.ModelProto()
    changed.CopyFrom(proto)
    clips = {n.output[0]: n.input[0] for n in changed.graph.node if n.op_type == "Clip" and n.input[0] in weights}
    for n in changed.graph.node:
        for i, name in enumerate(n.input):
            n.input[i] = clips.get(name, name)
    return changed
