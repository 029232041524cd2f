"""The integer network: frozen layer records in execution order.

Notes for developers:
- A record holds no array that a run writes to. Plans own the buffers, so threads can share records.
- Logical shapes are those of ONNX without the batch: (C, H, W), (C, L) or (K,). The kind of a value fixes its array:

      float   float32 (n, *shape), in ONNX order
      codes   integers (n, H, W, C), channels last; (C, L) is (n, 1, L, C) and (K,) is (n, 1, 1, K)
      bits    uint64 (n, H, W, ceil(C/64)), channels last, LSB first; bit 1 means +1, bit 0 means -1; spare bits are 0

- The real number behind a code q is scale * (q - zero_point). An accumulator is a value of kind `codes` and dtype int32.
- Weights, biases and thresholds are `StoredTensor`s. Layers name them, kernels take them as arguments, nothing compiles
  them in.
- Scales and zero points are fields of the records. `faultable.py` can store them too: a faulty one is a layer with
  another field.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from weakcell.emulator.ir.layer import Layer
from weakcell.emulator.ir.values import BatchAxis, OutputMeaning, StoredTensor, ValueSpec


@dataclass(frozen=True)
class UnplacedTensor:
    """Integers of the file that are in no memory by default.

    Attributes:
        kind: their type, or the encoding to which the file quantizes them.
        bits: all their bits.
        reason: why no memory holds them.
    """

    name: str
    kind: str
    elements: int
    bits: int
    reason: str

    @property
    def registers(self) -> bool:
        """Whether every target keeps them in registers or code, as biases and sizes are."""
        return self.reason.startswith(("bias", "zero point", "sizes", "threshold"))


@dataclass(frozen=True, eq=False)
class Network:
    """An ONNX model as integer layers.

    Attributes:
        layers: in execution order.
        values: specifications of all values, by name.
        tensors: all stored tensors, by name.
        unplaced: integers of the file that no tensor holds.
        batch: the number of images that the file fixes for one inference; None if it leaves it open.
        output_meanings: how the file computes each output, by name; empty for a network that was not imported.
        batch_axes: inputs and outputs whose images do not lie along the first axis in the file, by name; None if no axis counts
            images. Values have the images first.
        sizes: sizes that were given to open dimensions of the file, by name.
    """

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    layers: tuple[Layer, ...]
    values: Mapping[str, ValueSpec]
    tensors: Mapping[str, StoredTensor]
    metadata: Mapping[str, str] = field(default_factory=dict)
    unplaced: tuple[UnplacedTensor, ...] = ()
    batch: int | None = None
    output_meanings: Mapping[str, OutputMeaning] = field(default_factory=dict)
    batch_axes: Mapping[str, BatchAxis | None] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)

    @property
    def weights(self) -> tuple[StoredTensor, ...]:
        """The weight tensors, in the order in which layers use them."""
        return tuple(t for t in self.tensors.values() if t.role == "weight")

    @property
    def weight_bits(self) -> int:
        """Number of stored weight bits."""
        return sum(t.bits for t in self.weights)

    @property
    def integer_bits(self) -> int:
        """Number of bits of all integers of the file, in weights or not."""
        return self.weight_bits + sum(tensor.bits for tensor in self.unplaced)

    def __repr__(self) -> str:
        return f"Network<{self.name}: {len(self.layers)} layers, {self.weight_bits} weight bits>"
