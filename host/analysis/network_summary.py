"""What a network is made of, layer by layer: encodings, stored bits, multiply-accumulates, and where parameters live."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from weakcell.emulator.engine.layer_functions import operand_shape
from weakcell.emulator.ir.faultable import storable
from weakcell.emulator.ir.layer import Layer
from weakcell.emulator.ir.layers import Convolution, InsertZeros
from weakcell.emulator.ir.network import Network
from weakcell.emulator.ir.operators import CodesOperator, FloatOperator, StoredOperand
from weakcell.emulator.ir.values import ValueSpec


@dataclass(frozen=True)
class LayerSummary:
    """One layer.

    Attributes:
        layer: Its name.
        computes: Its operator, and whether it computes with integers, signs or floats.
        output: Type and shape of its output.
        weights: Encodings and shapes of its weights.
        bits: Weight bits that a memory stores.
        macs: Multiply-accumulates of one image.
        stored: Weights that live in the memory by default.
        kept: Parameters that stay in registers by default.
    """

    layer: str
    computes: str
    output: str
    weights: str
    bits: int
    macs: int
    stored: str
    kept: str


@dataclass(frozen=True)
class StorableItem:
    """Something that `--place` can name, alone or as `ROLE:NAME`; `default` says whether it lives in the memory without a rule."""

    name: str
    role: str
    encoding: str
    elements: int
    bits: int
    default: bool


@dataclass(frozen=True)
class OutsideItem:
    """Integers of the file that live in no memory by default; `share` is theirs of the bits of all its integers."""

    name: str
    kind: str
    elements: int
    bits: int
    share: float
    reason: str


@dataclass(frozen=True)
class NetworkSummary:
    """All layers of a network.

    Attributes:
        parts: The layers, in execution order.
        weight_bits: Weight bits that a memory stores.
        other_bits: Bits of biases and thresholds.
        macs: Multiply-accumulates of one image.
        float_layers: Layers that compute in float32.
        storable: Everything that a memory can hold.
        outside: Integers of the file that live in no memory by default.
    """

    parts: tuple[LayerSummary, ...]
    weight_bits: int
    other_bits: int
    macs: int
    float_layers: tuple[str, ...]
    storable: tuple[StorableItem, ...]
    outside: tuple[OutsideItem, ...]

    @property
    def explanation(self) -> str:
        """The meaning of the numbers, in sentences."""
        if not self.weight_bits:
            return (
                "No weight of it is quantized, so nothing lives in the memory: quantize it, for instance with "
                f"onnxruntime.quantization.quantize_static.{self._outside()}"
            )
        text = (
            f"{self.weight_bits:,} weight bits live in the memory. {self.other_bits:,} bits of biases and thresholds, scales and "
            "buffers do if --place names them; --storable lists them."
        )
        if self.float_layers:
            text += f" Computed in float32: {_first_names(self.float_layers, 6)}."
        return text + self._outside()

    def _outside(self) -> str:
        """Return the file's integers that live in no memory, in one sentence for each reason."""
        reasons: dict[str, list[OutsideItem]] = {}
        for item in self.outside:
            reasons.setdefault(item.reason, []).append(item)
        parts = []
        for reason, items in reasons.items():
            names = _first_names([item.name for item in items], 3)
            bits, share = sum(item.bits for item in items), 100 * sum(item.share for item in items)
            parts.append(f"{names}: {bits:,} bits ({share:.2g} %), {reason}")
        return f" Integers of the file outside the memory: {'; '.join(parts)}." if parts else ""

    def as_dict(self) -> dict[str, Any]:
        """Return all fields, for JSON."""
        return asdict(self)


def _first_names(names: Sequence[str], most: int) -> str:
    """Return the first names, and how many more there are. JSON has them all."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def summarize_network(network: Network) -> NetworkSummary:
    """Summarize the layers of a network, and everything that a memory can hold."""
    parts = tuple(_part(network, layer) for layer in network.layers)
    other = sum(tensor.bits for tensor in network.tensors.values() if tensor.role != "weight")
    floats = tuple(layer.name for layer in network.layers if _computes_in_float(network, layer))
    items = tuple(
        StorableItem(name, item.role, str(item.encoding), item.elements, item.bits, item.role == "weight")
        for name, item in storable(network).items()
    )
    total = max(1, network.integer_bits)
    outside = tuple(OutsideItem(x.name, x.kind, x.elements, x.bits, x.bits / total, x.reason) for x in network.unplaced)
    return NetworkSummary(parts, network.weight_bits, other, sum(part.macs for part in parts), floats, items, outside)


def _part(network: Network, layer: Layer) -> LayerSummary:
    tensors = [network.tensors[name] for name in layer.tensor_names()]
    weights = [tensor for tensor in tensors if tensor.role == "weight"]
    others = [f"{tensor.role} {tensor.encoding}" for tensor in tensors if tensor.role != "weight"]
    return LayerSummary(
        layer=layer.name,
        computes=_describe_operator(network, layer),
        output=_type_and_shape(network.values[layer.output]),
        weights=", ".join(f"{tensor.encoding}{list(tensor.shape)}" for tensor in weights),
        bits=sum(tensor.bits for tensor in weights),
        macs=_macs(network, layer),
        stored=", ".join(tensor.name for tensor in weights),
        kept=", ".join(others),
    )


def _describe_operator(network: Network, layer: Layer) -> str:
    if not isinstance(layer, Convolution):
        name = layer.op_type if isinstance(layer, FloatOperator | CodesOperator) else type(layer).__name__
        return f"{name} (float32)" if _computes_in_float(network, layer) else name
    kind = network.values[layer.inputs[0]].kind
    sign = network.tensors[layer.weight].encoding.kind == "sign"
    how = "float32" if kind == "float" else "XNOR-popcount" if kind == "bits" and sign and layer.groups == 1 else "integer"
    height, width = layer.window.kernel
    spec = network.values[layer.inputs[0]]
    whole = layer.window.kernel == spec.height_width
    return f"{'MatMul' if whole else f'Conv {height}x{width}'} ({how})"


def _computes_in_float(network: Network, layer: Layer) -> bool:
    return isinstance(layer, FloatOperator) or (isinstance(layer, Convolution) and network.values[layer.inputs[0]].kind == "float")


def _macs(network: Network, layer: Layer) -> int:
    """Count the multiply-accumulates of one image, in layers whose weights a memory stores.

    A ConvTranspose with a stride counts each weight once per input pixel; the zeros that the engine inserts are not multiplied by
    its target.
    """
    outputs = network.values[layer.output].shape
    if isinstance(layer, FloatOperator) and layer.stored:
        return _macs_of_operator(layer, outputs)
    if not isinstance(layer, Convolution):
        return 0
    producer = next((other for other in network.layers if other.output == layer.inputs[0]), None)
    pixels = network.values[producer.inputs[0]].shape[1:] if isinstance(producer, InsertZeros) else outputs[1:]
    return math.prod(pixels) * network.tensors[layer.weight].elements


def _macs_of_operator(layer: FloatOperator, outputs: tuple[int, ...]) -> int:
    """Count the multiply-accumulates of a float operator with an operand made from stored integers."""
    position = next(i for i, x in enumerate(layer.operands) if isinstance(x, StoredOperand))
    operand = layer.operands[position]
    assert isinstance(operand, StoredOperand)
    shape = operand_shape(operand)
    if layer.op_type in ("Conv", "ConvInteger"):
        return math.prod(outputs) * math.prod(shape[1:])
    if layer.op_type == "Gemm":
        return math.prod(outputs) * shape[1 if layer.attributes.get("transB", 0) else 0]
    if layer.op_type == "Einsum":
        return _macs_of_einsum(layer, outputs, position, shape)
    if layer.op_type in ("MatMul", "MatMulInteger"):
        return math.prod(outputs) * shape[-1 if position == 0 or len(shape) == 1 else -2]
    return 0


def _macs_of_einsum(layer: FloatOperator, outputs: tuple[int, ...], position: int, shape: tuple[int, ...]) -> int:
    """Multiply the sizes of all labels but the batch: those of the output and of the stored operand."""
    equation = layer.attributes["equation"]
    terms, _, out = (equation.decode() if isinstance(equation, bytes) else str(equation)).replace(" ", "").partition("->")
    if "." in terms or not out:
        return 0
    sizes = dict(zip(out[1:], outputs, strict=True)) | dict(zip(terms.split(",")[position], shape, strict=True))
    return math.prod(sizes.values())


def _type_and_shape(spec: ValueSpec) -> str:
    kind = {"bits": "bit", "float": "float32"}.get(spec.kind, spec.dtype)
    return f"{kind}[{', '.join(map(str, spec.shape))}]"
