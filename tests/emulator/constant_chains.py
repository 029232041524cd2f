"""Random networks whose constants are computed from stored integers in chains, engine against onnxruntime with the bits flipped.

python -m tests.emulator.constant_chains [--first 0] [--count 300]

A network has two tables of integers, and often a third in the body of a Loop. Operators make constants of them: dequantized,
quantized again, moved, scaled, mixed with each other, from branches and loops. Layers of several kinds read the constants, and the
integers themselves. Then bits are flipped in the file. The reference is onnxruntime on this file. The engine reads the file as
it was, through a memory that returns the flipped bits: the difference of the stored tensors of both files. Integers that no
memory holds, as the network says, keep their bits. So a value that the importer computes before the memory is read is seen as
wrong, unless the network is refused.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.emulator.flipped import Cells, outputs_with_flips
from tests.emulator.models import model, run
from weakcell import emulator
from weakcell.memmodels.errors import ModelError

Array = np.ndarray
F = np.float32
SIZE = 6
TOLERANCE = 1e-4
"""Relative to the largest output, for each output: float noise is below, and a code that differs is above."""


@dataclass
class ChainNetwork:
    """A network under construction.

    Attributes:
        pool: matrices (SIZE, SIZE) of floats that are computed from integers, with whether they are exact in every order of
            operations: only such may be quantized again.
        codes: tensors of integers of the file.
        unsigned: tensors of uint8, of the file or computed.
    """

    seed: int
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, Array] = field(default_factory=dict)
    pool: list[tuple[str, bool]] = field(default_factory=list)
    codes: list[str] = field(default_factory=list)
    unsigned: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)

    def add(self, op_type: str, *inputs: Any, outputs: int = 1, **attributes: Any) -> str:
        """Append a node; arrays among its inputs become initializers."""
        names = [value if isinstance(value, str) else self.constant(value) for value in inputs]
        made = [f"t{len(self.nodes)}"] if outputs == 1 else [f"t{len(self.nodes)}.{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(op_type, names, made, made[0], **attributes))
        return made[int(self.rng.integers(outputs))]

    def constant(self, value: Any) -> str:
        name = f"c{len(self.constants)}"
        self.constants[name] = np.asarray(value)
        return name

    def choose(self, *choices: Any) -> Any:
        return choices[int(self.rng.integers(len(choices)))]

    def scale(self, *shape: int) -> Array:
        """Return powers of two times small odd numbers: products with codes are exact."""
        return np.asarray(self.rng.choice([3, 5, 7], shape) * 2.0 ** self.rng.integers(-10, -7, shape), F)

    def table(self) -> None:
        """Add a tensor of integers, and a float tensor that a layer reads."""
        dtype = self.choose(np.int8, np.int8, np.uint8, np.int16)
        name = f"w{len(self.codes)}"
        low, high = (-90, 90) if dtype != np.uint8 else (3, 250)
        self.constants[name] = self.rng.integers(low, high, (SIZE, SIZE)).astype(dtype)
        self.codes.append(name)
        self.unsigned += [name] if dtype == np.uint8 else []
        self.pool.append((self.dequantized(name, dtype), True))

    def dequantized(self, codes: str, dtype: Any) -> str:
        """Return codes as floats in one of the forms of exporters."""
        form = self.choose("tensor", "tensor", "axis", "cast", "blocks")
        zero = np.array(self.rng.integers(-3, 100) if dtype == np.uint8 else self.choose(0, 0, 2)).astype(dtype)
        if form == "cast":
            return self.add("Mul", self.add("Cast", codes, to=TensorProto.FLOAT), self.scale(*self.choose((), (SIZE,), (SIZE, 1))))
        if form == "axis":
            axis = self.choose(0, 1)
            return self.add("DequantizeLinear", codes, self.scale(SIZE), np.full(SIZE, zero), axis=axis)
        if form == "blocks":
            scales = self.scale(2, SIZE)
            return self.add("DequantizeLinear", codes, scales, np.full_like(scales, zero, dtype), axis=0, block_size=SIZE // 2)
        return self.add("DequantizeLinear", codes, self.scale(), zero)

    def draw(self, exact: bool = False) -> tuple[str, bool]:
        """Return a constant of the pool."""
        return self.choose(*[entry for entry in self.pool if entry[1] or not exact])

    # ── constants ───────────────────────────────────────────────────────────────────────────────────

    def extend(self) -> None:
        """Compute a further constant from the pool."""
        steps = (
            self._quantize_again, self._quantize_again, self._move, self._move, self._scale, self._mix, self._mix, self._branch,
            self._loop, self._select, self._float16, self._scale_of_table, self._inexact,
        )  # fmt: skip
        self.pool.append(self.choose(*steps)())

    def _quantize_again(self) -> tuple[str, bool]:
        x, _ = self.draw(exact=True)
        before = next(n for n in self.nodes if x in n.output)
        dtype = self.choose(np.int8, np.uint8)
        scale, zero = self.scale() * F(4), np.array(self.choose(0, 5)).astype(dtype)
        parameters: list[Any] = [scale, zero]
        if before.op_type == "DequantizeLinear" and not any(a.name == "block_size" for a in before.attribute) and self.choose(0, 1):
            parameters = list(before.input[1:3])  # the same parameters give the same codes
            axis = {a.name: a.i for a in before.attribute}
            q = self.add("QuantizeLinear", x, *parameters, **axis)
            return self.add("DequantizeLinear", q, *parameters, **axis), True
        q = self.add("QuantizeLinear", x, *parameters)
        self.unsigned += [q] if dtype == np.uint8 else []
        if self.choose(0, 0, 1):
            q = self.add("Clip", q, np.array(1, dtype), np.array(63, dtype))
        if self.choose(0, 0, 1):
            q = self.add("Transpose", q, perm=[1, 0])
        return self.add("DequantizeLinear", q, *parameters), True

    def _move(self) -> tuple[str, bool]:
        x, exact = self.draw()
        form = self.choose("Transpose", "Identity", "Reshape", "Gather", "Slice", "Split", "Tile")
        if form == "Gather":
            x = self.add("Gather", x, self.rng.permutation(SIZE), axis=self.choose(0, 1))
        elif form == "Reshape":
            x = self.add("Reshape", self.add("Reshape", x, np.array([-1])), np.array([SIZE, SIZE]))
        elif form in ("Slice", "Split"):
            half = np.array([SIZE // 2])
            start = np.array([self.choose(0, 2)])
            x = (
                self.add("Slice", x, start, start + half, np.array([0])) if form == "Slice"
                else self.add("Split", x, np.repeat(half, 2), outputs=2, axis=0)
            )  # fmt: skip
            x = self.add("Concat", x, self.choose(x, self._rows(self.draw()[0])), axis=0)
        elif form == "Tile":
            x = self.add("Tile", self.add("Slice", x, np.array([1]), np.array([2]), np.array([1])), np.array([1, SIZE]))
        else:
            x = self.add(form, x, **({"perm": [1, 0]} if form == "Transpose" else {}))
        return x, exact and form not in ("Slice", "Split")  # a part of an inexact constant may have joined

    def _rows(self, x: str) -> str:
        return self.add("Slice", x, np.array([0]), np.array([SIZE // 2]), np.array([0]))

    def _scale(self) -> tuple[str, bool]:
        x, _ = self.draw()
        return self.add("Mul", *self.choose((x, self.scale()), (self.scale(SIZE), x))), False

    def _mix(self) -> tuple[str, bool]:
        (x, _), (y, _) = self.draw(), self.draw()
        form = self.choose("Add", "Sub", "Mul", "Where", "Max", "MatMul", "Concat")
        if form == "Where":
            return self.add("Where", self.add("Greater", x, F(0)), x, y), False
        if form == "Concat":
            joined = self.add("Concat", x, y, axis=1)
            return self.add("Slice", joined, np.array([2]), np.array([2 + SIZE]), np.array([1])), False
        if form == "Mul":
            y = self.add("Slice", y, np.array([0]), np.array([1]), np.array([self.choose(0, 1)]))
        return self.add(form, x, y), False

    def _branch(self) -> tuple[str, bool]:
        """Return the branch of an If with a constant condition: a constant of the pool, transposed."""
        x, exact = self.draw()
        graphs = {}
        for key, op_type in (("then_branch", "Transpose"), ("else_branch", "Identity")):
            result = helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)
            graphs[key] = helper.make_graph([helper.make_node(op_type, [x], ["inner"])], key, [], [result])
        return self.add("If", np.array(bool(self.choose(0, 1))), **graphs), exact

    def _loop(self) -> tuple[str, bool]:
        """Return what a Loop carries: it multiplies with integers of its body in each of two trips, and with those outside."""
        x, y = self.draw()[0], self.draw()[0]
        ports = [
            helper.make_tensor_value_info(n, t, s) for n, t, s in (("trip", 7, ()), ("going", 9, ()), ("carried", 1, (SIZE, SIZE)))
        ]
        inside = self.rng.integers(-60, 60, (SIZE, SIZE)).astype(np.int8)
        nodes = [
            helper.make_node("Constant", [], ["literal"], value=numpy_helper.from_array(inside, f"literal{len(self.nodes)}")),
            helper.make_node("DequantizeLinear", ["literal", self.constant(F(0.01))], ["real"]),
            helper.make_node("MatMul", ["carried", "real"], ["product"]),
            helper.make_node("Add", ["product", y], ["sum"]), helper.make_node("Identity", ["going"], ["again"]),
        ]  # fmt: skip
        results = [helper.make_tensor_value_info(n, t, s) for n, t, s in (("again", 9, ()), ("sum", 1, (SIZE, SIZE)))]
        body = helper.make_graph(nodes, "body", ports, results)
        return self.add("Loop", np.array(2), np.array(True), x, body=body), False

    def _select(self) -> tuple[str, bool]:
        """Return a matrix divided by one number that is computed from integers."""
        (x, _), (y, _) = self.draw(), self.draw()
        number = self.add("ReduceMax", self.add("Abs", y), keepdims=0)
        if self.choose(0, 1):
            number = self.add("Squeeze", self.add("Gather", self.add("Abs", y), np.array([1]), axis=0), np.array([0]))
        return self.add("Div", x, self.add("Add", number, F(1))), False

    def _float16(self) -> tuple[str, bool]:
        x, _ = self.draw(exact=True)
        return self.add("Cast", self.add("Cast", x, to=TensorProto.FLOAT16), to=TensorProto.FLOAT), True

    def _scale_of_table(self) -> tuple[str, bool]:
        """Return a table that is dequantized again, with a scale computed from other integers."""
        y, _ = self.draw(exact=True)
        column = self.add("Slice", y, np.array([0]), np.array([1]), np.array([1]))
        scale = self.add("Add", self.add("Reshape", self.add("Abs", column), np.array([-1])), F(2**-6))
        return self.add("DequantizeLinear", self.choose(*self.codes), scale, axis=self.choose(0, 1)), False

    def _inexact(self) -> tuple[str, bool]:
        x, _ = self.draw()
        return self.add(self.choose("Softmax", "Tanh", "Relu", "Neg"), x), False

    # ── layers ──────────────────────────────────────────────────────────────────────────────────────

    def layer(self) -> None:
        """Add a layer that reads a constant, and an output of the network behind it."""
        w, x = self.draw()[0], "x"
        form = self.choose(
            "MatMul", "MatMul", "integers", "integers", "Gemm", "Add", "Mul", "Gather", "Concat", "Conv", "dynamic", "PRelu",
            "BatchNormalization", "codes", "rows", "rows",
        )  # fmt: skip
        if form in ("integers", "Mul", "Add", "BatchNormalization") and self.choose(0, 1, 1):
            x = self.add("DequantizeLinear", self.add("QuantizeLinear", x, F(0.03), np.uint8(120)), F(0.03), np.uint8(120))
        row = self.add("Squeeze", self.add("Slice", w, np.array([2]), np.array([3]), np.array([0])), np.array([0]))
        if form in ("MatMul", "integers"):
            y = self.add("MatMul", x, w)
        elif form == "rows":
            rows = self.add("Concat", *[self.add("Unsqueeze", x, np.array([1]))] * 3, axis=1)
            rows = self.add("DequantizeLinear", self.add("QuantizeLinear", rows, F(0.03), np.uint8(120)), F(0.03), np.uint8(120))
            y = self.add("Reshape", self.add("Add", self.add("MatMul", rows, w), row), np.array([-1, 3 * SIZE]))
        elif form == "Gemm":
            y = self.add("Gemm", x, w, row, transB=self.choose(0, 1))
        elif form in ("Add", "Mul", "PRelu"):
            y = self.add(form, x, row)
        elif form == "BatchNormalization":
            parts = [self.add("Abs", row) if i == 3 else row for i in range(4)]
            y = self.add(form, x, *parts, epsilon=0.5)
        elif form == "Gather":
            y = self.add("Gather", w, "ids")
            if self.choose(0, 1):
                y = self.add("Transpose", self.add("Gather", w, "ids", axis=1), perm=[1, 0])
        elif form == "Concat":
            wide = self.add("Unsqueeze", x, np.array([1]))
            first = self.add("Unsqueeze", row, np.array([0, 1]))
            ones = self.add("Add", self.add("Mul", wide, F(0)), first)
            y = self.add("Reshape", self.add("Concat", wide, ones, axis=1), np.array([-1, 2 * SIZE]))
        elif form == "Conv":
            kernel = self.add("Reshape", w, np.array([SIZE, 1, SIZE]))
            y = self.add("Conv", self.add("Unsqueeze", x, np.array([1])), kernel, pads=[1, 1])
        elif form == "codes":
            y = self._integers_as_data()
        else:
            y = self._dynamic()
        self.outputs.append(y)

    def _integers_as_data(self) -> str:
        """Return integers of the file that a Gather reads as data."""
        name = self.choose(*self.codes)
        rows = self.add("Gather", name, "ids")
        return self.add("Mul", self.add("Cast", rows, to=TensorProto.FLOAT), F(0.02))

    def _dynamic(self) -> str:
        """Return a product of dynamically quantized activations with uint8 of the file, or computed from these, if there are any.

        onnxruntime's products of uint8 and int8 can saturate (`reference_saturates`).
        """
        matrices = self.unsigned
        if not matrices:
            return self._integers_as_data()
        name = self.choose(*matrices)
        self.nodes.append(helper.make_node("DynamicQuantizeLinear", ["x"], [f"{p}{len(self.nodes)}" for p in ("q", "s", "z")]))
        q, s, z = self.nodes[-1].output
        zero = np.array(3, np.uint8)
        total = self.add("Cast", self.add("MatMulInteger", q, name, z, zero), to=TensorProto.FLOAT)
        return self.add("Mul", total, self.add("Mul", s, F(0.01)))


def random_network(seed: int) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """Return the file of a seed, and its inputs."""
    network = ChainNetwork(seed)
    for _ in range(2):
        network.table()
    for _ in range(int(network.rng.integers(1, 5))):
        network.extend()
    for _ in range(int(network.rng.integers(2, 5))):
        network.layer()
    outputs = dict.fromkeys(network.outputs)
    ports = {"x": ["N", SIZE], "ids": ["N"]}
    proto = model(network.nodes, network.constants, ports, outputs, opset=21, types={"ids": TensorProto.INT64})  # type: ignore[arg-type]
    used = {name for n in all_nodes(proto.graph) for name in n.input}
    kept = [port for port in proto.graph.input if port.name in used]
    del proto.graph.input[:]
    proto.graph.input.extend(kept)
    inputs = {"x": network.rng.normal(size=(4, SIZE)).astype(F), "ids": network.rng.integers(0, SIZE, 4)}
    return proto, {port.name: inputs[port.name] for port in kept}


# ── flips ─────────────────────────────────────────────────────────────────────────────────────────────


def all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Yield the nodes of a graph, and of those inside of nodes."""
    for n in graph.node:
        yield n
        for attribute in n.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from all_nodes(attribute.g)


def integers_of(proto: onnx.ModelProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    """Yield the tensors of 8- and 16-bit integers of a file by name: initializers, and constants in the bodies of loops."""
    types = (TensorProto.INT8, TensorProto.UINT8, TensorProto.INT16)
    yield from ((t.name, t) for t in proto.graph.initializer if t.data_type in types)
    for n in all_nodes(proto.graph):
        if n.op_type == "Constant" and n.attribute[0].t.data_type in types:
            yield n.output[0], n.attribute[0].t


def with_flips(proto: onnx.ModelProto, kept: Collection[str], rng: np.random.Generator, rate: float = 0.05) -> onnx.ModelProto:
    """Return the file with bits flipped in its integers, but those of the tensors in `kept`."""
    changed = onnx.ModelProto()
    changed.CopyFrom(proto)
    for name, tensor in integers_of(changed):
        codes = numpy_helper.to_array(tensor)
        if name in kept or codes.size < 2:
            continue
        raw = np.frombuffer(codes.tobytes(), np.uint8)
        flips = np.packbits(rng.random((raw.size, 8)) < rate, axis=1).reshape(-1)
        tensor.CopyFrom(
            numpy_helper.from_array(np.frombuffer((raw ^ flips).tobytes(), codes.dtype).reshape(codes.shape), tensor.name)
        )
    return changed


def cells_between(network: emulator.Network, other: emulator.Network) -> dict[str, Cells]:
    """Return the cells in which the stored tensors of two networks differ."""
    cells = {}
    for tensor in network.weights:
        bits = tensor.encoding.bits
        different = (tensor.codes ^ other.tensors[tensor.name].codes).reshape(-1)
        cells[tensor.name] = [
            (i, bit) for i in np.flatnonzero(different).tolist() for bit in range(bits) if different[i] >> bit & 1
        ]
    return cells


def differs(seed: int) -> str:
    """Return how a network differs from onnxruntime with flips; "" if it does not."""
    proto, inputs = random_network(seed)
    try:
        right = _reference(proto, inputs)
    except Exception as error:
        return f"invalid: {str(error).splitlines()[0][:160]}"
    try:
        network = emulator.load(proto, integer_input=False)
    except ModelError as error:
        return f"refused: {' '.join(str(error).split())}"
    names = [port.name for port in proto.graph.output]
    got = emulator.infer(emulator.compile_plan(network), inputs)
    apart = _apart([got[name] for name in names], right)
    if apart > TOLERANCE:
        return f"{apart:.2g} apart without flips"
    unplaced = {entry.name: entry.bits for entry in network.unplaced}
    kept = {n for n, t in integers_of(proto) if unplaced.get(n) == 8 * numpy_helper.to_array(t).nbytes}
    changed = with_flips(proto, kept, np.random.default_rng(seed))
    other = emulator.load(changed, integer_input=False)
    if {t.name: t.shape for t in network.weights} != {t.name: t.shape for t in other.weights}:
        return f"other tensors: {[t.name for t in network.weights]}, {[t.name for t in other.weights]}"
    flips = cells_between(network, other)
    wrong = outputs_with_flips(network, inputs, flips)
    apart = _apart([wrong[name] for name in names], _reference(changed, inputs))
    return f"{apart:.2g} apart with flips in {sorted(flips)}" if apart > TOLERANCE else ""


def _reference(proto: onnx.ModelProto, inputs: dict[str, Array]) -> list[Array]:
    """Return onnxruntime's outputs, image by image: DynamicQuantizeLinear takes its range from a whole batch."""
    images = [run(proto, {name: x[i : i + 1] for name, x in inputs.items()}) for i in range(4)]
    return [np.concatenate(parts) for parts in zip(*images, strict=True)]


def _apart(outputs: list[Array], right: list[Array]) -> float:
    """Return the largest difference, relative to the largest value of its output."""
    if [x.shape for x in outputs] != [x.shape for x in right]:
        return np.inf
    pairs = list(zip(outputs, right, strict=True))
    if any(np.any(np.isnan(a) != np.isnan(b)) for a, b in pairs):
        return np.inf
    return max(float(np.nanmax(np.abs(a - b)) / max(1e-6, np.nanmax(np.abs(b)))) for a, b in pairs)


def main() -> int:
    """Compare many networks; exit code 1 if one differs."""
    parser = argparse.ArgumentParser(description="Constants in chains, with flips, against onnxruntime.")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=300)
    asked = parser.parse_args()
    counts = dict.fromkeys(("equal", "invalid", "refused", "wrong"), 0)
    for seed in range(asked.first, asked.first + asked.count):
        text = differs(seed)
        kind = "equal" if not text else text.split(":")[0] if text.startswith(("invalid", "refused")) else "wrong"
        counts[kind] += 1
        if text:
            print(seed, text, flush=True)
    print(", ".join(f"{count} {kind}" for kind, count in counts.items()))
    return int(counts["wrong"] > 0)


if __name__ == "__main__":
    sys.exit(main())
