"""ONNX bytes into a checked `Graph`.

Behind this module there is no truncated file, cycle, dangling name or absurd tensor. Sizes are checked against what the
file really holds before any tensor is touched. External data must lie in the model's own folder. Aliases of domains end
here: com.microsoft's QuantizeLinear and DequantizeLinear are those of ONNX opset 21, and the names that Brevitas, FINN and
QONNX have for QONNX's quantizers are one domain.
"""

from __future__ import annotations

import math
import os
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import AttributeProto, TensorProto, numpy_helper

from weakcell.emulator.importer.subgraph import Subgraph, captured_names
from weakcell.emulator.importer.symbols import Node
from weakcell.memmodels.errors import InputError, ModelError
from weakcell.memmodels.files import read_bytes, reason

MAX_ELEMENTS = 1 << 31
"""Limit of the elements of a tensor. Larger claims are mistakes or attacks."""

_MOST_BYTES = (1 << 31) - 1
"""Protobuf's limit for one message; larger networks keep their weights in external files."""

_MOST_NODES = 1_000_000
"""Limit of the nodes of a graph whose functions are expanded."""

_MOST_NODE_BYTES = 1 << 28
"""Limit of the bytes of these nodes. Weights are initializers and do not count."""

_ALIASES = {"QuantizeLinear", "DequantizeLinear"}
_QONNX = {"onnx.brevitas", "finn.custom_op.general", "qonnx.custom_op.general"}
_TYPES = {value: name for name, value in TensorProto.DataType.items() if name not in ("UNDEFINED", "STRING")}
_TYPED = {1: "float_data", 7: "int64_data", 11: "double_data", 12: "uint64_data", 13: "uint64_data"}


@dataclass(frozen=True)
class Port:
    """An input or output of the graph.

    Attributes:
        dtype: ONNX element type by NumPy's name.
        dims: dimensions; None where they are not fixed.
        names: of the dimensions; "" where they have none.
    """

    name: str
    dtype: str
    dims: tuple[int | None, ...] | None
    names: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Initializer:
    """A tensor of the file, not decoded yet.

    Attributes:
        folder: where its external data lie.
    """

    proto: TensorProto
    folder: Path

    @property
    def shape(self) -> tuple[int, ...]:
        """The dimensions."""
        return tuple(self.proto.dims)

    @property
    def dtype(self) -> str:
        """The element type by the name of NumPy or ml_dtypes: int8, uint4, float32."""
        return str(_TYPES.get(self.proto.data_type, "")).lower()

    def numpy(self) -> npt.NDArray[Any]:
        """Return the values; narrow and low-precision types are those of ml_dtypes."""
        return np.asarray(numpy_helper.to_array(self.proto, str(self.folder)))


@dataclass(frozen=True)
class Graph:
    """A checked model.

    Attributes:
        nodes: in an order in which every input is known.
        initializers: they load when they are asked.
    """

    name: str
    opset: int
    nodes: tuple[Node, ...]
    initializers: dict[str, Initializer]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    metadata: dict[str, str]


def read_model(source: str | os.PathLike[str] | onnx.ModelProto) -> Graph:
    """Read and check a file or a model in memory."""
    if isinstance(source, onnx.ModelProto):
        return _checked(source, Path(), source.graph.name or "model")
    path = Path(source)
    return _checked(_parse(path), path.parent, path.stem)


def _parse(path: Path) -> onnx.ModelProto:
    """Return the file as a protobuf message, unchecked."""
    asked = f"Reading the model {path}"
    try:
        data = read_bytes(path, _MOST_BYTES)
    except FileNotFoundError:
        raise InputError(asked, "there is no such file", "Give the path of an ONNX file") from None
    except (OSError, MemoryError) as e:
        raise InputError(asked, f"it cannot be read ({reason(e)})", "Give the path of a readable ONNX file") from None
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except Exception:
        found = "it is empty" if not data else f"its {len(data)} bytes are not an ONNX model, or it is truncated"
        raise ModelError(asked, found, "Export or download the file again") from None
    return model


def _checked(model: onnx.ModelProto, folder: Path, name: str) -> Graph:
    asked = f"Reading the model {name}"
    if not model.ir_version or not model.HasField("graph") or not model.opset_import:
        raise ModelError(
            asked, "it has no ONNX graph: it is not an ONNX model, or it is truncated", "Export or download the file again"
        )
    opset = _check_versions(model, asked)
    for tensor in _tensors(model):
        _check_tensor(tensor, folder, asked)
    _check_names(model.graph, asked)
    if not all(isinstance(text, str) for node in model.graph.node for text in (node.op_type, *node.input, *node.output)):
        raise ModelError(asked, "a name in its graph is not text", "The file is damaged; export or download it again")
    if model.functions:
        model = _inlined(model, asked)
    return _graph(model, folder, name, opset, asked)


def _inlined(model: onnx.ModelProto, asked: str) -> onnx.ModelProto:
    """Return the model with its own functions in place of their calls."""
    from onnx.inliner import inline_local_functions

    _check_functions(model, asked)
    try:
        return inline_local_functions(model)
    except Exception as e:
        raise ModelError(asked, f"its functions cannot be read ({_first_line(e)})", "Check the file with onnx.checker") from None


def _check_functions(model: onnx.ModelProto, asked: str) -> None:
    """Refuse cycles of functions, and functions that would expand to too many nodes."""
    bodies = {(f.domain, f.name, f.overload): f for f in model.functions}
    calls = {key: Counter(_called(f.node, bodies)) for key, f in bodies.items()}
    waiting = {key: len(callees) for key, callees in calls.items()}
    callers: dict[tuple[str, str, str], list[tuple[str, str, str]]] = {}
    for key, callees in calls.items():
        for callee in callees:
            callers.setdefault(callee, []).append(key)
    sizes: dict[tuple[str, str, str], npt.NDArray[Any]] = {}
    ready = [key for key, count in waiting.items() if count == 0]
    while ready:
        key = ready.pop()
        sizes[key] = sum((times * sizes[callee] for callee, times in calls[key].items()), _size(bodies[key].node, bodies))
        for caller in callers.get(key, []):
            waiting[caller] -= 1
            ready += [caller] if waiting[caller] == 0 else []
    if len(sizes) < len(bodies):
        raise ModelError(asked, "its functions call each other in a circle", "Export the model again")
    nodes, size = sum((sizes[callee] for callee in _called(model.graph.node, bodies)), _size(model.graph.node, bodies))
    if nodes > _MOST_NODES or size > _MOST_NODE_BYTES:
        found = f"with its functions in place of their calls it has {nodes:,} nodes of {size:,} bytes"
        do = f"{_MOST_NODES:,} nodes and {_MOST_NODE_BYTES:,} bytes are the most; check where the file comes from"
        raise ModelError(asked, found, do)


def _nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """Yield nodes, also those of graphs inside of them, without recursion."""
    stack = list(nodes)
    while stack:
        node = stack.pop()
        yield node
        for attribute in node.attribute:
            stack += attribute.g.node
            stack += [inner for graph in attribute.graphs for inner in graph.node]


def _size(nodes: Sequence[onnx.NodeProto], bodies: Mapping[tuple[str, str, str], Any]) -> npt.NDArray[Any]:
    """Return number and bytes of all nodes after expansion, as Python integers."""
    plain = sum(1 for _ in _nodes(nodes)) - sum(1 for _ in _called(nodes, bodies))
    return np.array([plain, sum(node.ByteSize() for node in nodes)], object)


def _called(nodes: Iterable[onnx.NodeProto], bodies: Mapping[tuple[str, str, str], Any]) -> Iterator[tuple[str, str, str]]:
    """Yield the functions that nodes call, once for each call."""
    for node in _nodes(nodes):
        key = (node.domain, node.op_type, node.overload)
        if key in bodies:
            yield key


def _graph(model: onnx.ModelProto, folder: Path, name: str, opset: int, asked: str) -> Graph:
    graph = model.graph
    initializers = {tensor.name: Initializer(tensor, folder) for tensor in graph.initializer}
    opsets = {o.domain: int(o.version) for o in model.opset_import}
    reader = _Reader(opsets, folder, asked, initializers)
    nodes = [_node(node, i, reader) for i, node in enumerate(graph.node)]
    inputs = tuple(_port(v, asked) for v in graph.input if v.name not in initializers)
    outputs = tuple(_port(v, asked) for v in graph.output)
    known = set(initializers) | {port.name for port in inputs}
    ordered = _in_order(nodes, known, [port.name for port in outputs], asked)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    return Graph(name, opset, ordered, initializers, inputs, outputs, metadata)


# ── versions, names and order ───────────────────────────────────────────────────────────────────────


def _check_versions(model: onnx.ModelProto, asked: str) -> int:
    """Return the opset of the default domain.

    Refuse one newer than the installed onnx package.
    """
    opset = max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=1)
    newest, newest_ir = onnx.defs.onnx_opset_version(), int(onnx.IR_VERSION)
    if opset > newest or model.ir_version > newest_ir:
        raise ModelError(
            asked,
            f"it uses opset {opset} and IR {model.ir_version}, newer than opset {newest} and IR {newest_ir}, the newest known here",
            "Export it with an older opset, or update the onnx package",
        )
    return int(opset)


def _check_names(graph: onnx.GraphProto, asked: str) -> None:
    if graph.sparse_initializer:
        raise ModelError(asked, "it has sparse initializers", "Store the weights as dense tensors")
    initializers = {t.name for t in graph.initializer}
    names = [t.name for t in graph.initializer] + [i.name for i in graph.input if i.name not in initializers]
    names += [name for node in graph.node for name in node.output if name]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ModelError(asked, f"the name {twice[0]!r} is given to more than one tensor", "Export the model again")
    known = set(names)
    for node in graph.node:
        for name in node.input:
            if name and name not in known:
                found = f"the node {node.name!r} ({node.op_type}) reads {name!r}, which nothing makes"
                raise ModelError(asked, found, "Export the model again")
    for output in graph.output:
        if output.name not in known:
            raise ModelError(asked, f"the output {output.name!r} is made by no node", "Export the model again")


def _in_order(nodes: list[Node], known: set[str], outputs: list[str], asked: str) -> tuple[Node, ...]:
    """Return the nodes so that each follows what it reads.

    Refuse unknown names and cycles.
    """
    makers = {name: node for node in nodes for name in node.outputs if name}
    waiting: dict[int, int] = {}
    readers: dict[str, list[int]] = {}
    for i, node in enumerate(nodes):
        needed = {name for name in (*node.inputs, *captured_names(node)) if name and name not in known}
        for name in needed:
            if name not in makers:
                raise ModelError(asked, f"{node} reads {name!r}, which nothing makes", "Export the model again")
            readers.setdefault(name, []).append(i)
        waiting[i] = len(needed)
    for name in outputs:
        if name not in makers and name not in known:
            raise ModelError(asked, f"the output {name!r} is made by no node", "Export the model again")
    ready, ordered = deque(i for i, n in waiting.items() if n == 0), []
    while ready:
        node = nodes[ready.popleft()]
        ordered.append(node)
        for name in node.outputs:
            for i in readers.get(name, []):
                waiting[i] -= 1
                if waiting[i] == 0:
                    ready.append(i)
    if len(ordered) < len(nodes):
        stuck = next(nodes[i] for i, n in waiting.items() if n > 0)
        raise ModelError(asked, f"its nodes form a cycle, through {stuck}", "Export the model again")
    return tuple(ordered)


@dataclass(frozen=True)
class _Reader:
    """What the nodes of a file share.

    Attributes:
        opsets: versions by domain.
        folder: where external data lie.
        asked: what an error says was asked.
        initializers: those of the whole file by name; graphs inside of nodes add theirs.
    """

    opsets: dict[str, int]
    folder: Path
    asked: str
    initializers: dict[str, Initializer]


def _node(node: onnx.NodeProto, position: int, reader: _Reader) -> Node:
    domain = "" if node.domain == "ai.onnx" else node.domain
    opsets = reader.opsets
    opset = opsets.get(node.domain, opsets.get(domain, 1))
    if domain == "com.microsoft" and node.op_type in _ALIASES:
        domain, opset = "", 21
    op_type = node.op_type
    if domain in _QONNX:
        domain, op_type = "qonnx", "Quant" if op_type == "IntQuant" else op_type
    elif domain == "qonnx.custom_op.channels_last":
        domain, opset = "qonnx.channels_last", opsets.get("", 1)
    called = f"{node.op_type} {node.name!r}"
    attributes = {attribute.name: _attribute(attribute, called, reader) for attribute in node.attribute}
    return Node(
        op_type, domain, opset, node.name or f"{node.op_type}_{position}", tuple(node.input), tuple(node.output), attributes
    )


def _attribute(attribute: AttributeProto, node: str, reader: _Reader) -> Any:
    """Return an attribute as a Python value.

    A number, text, a tuple of these, an array, or a Subgraph.
    """
    kind, asked = attribute.type, reader.asked
    if kind == AttributeProto.GRAPH:
        return _subgraph(attribute.g, node, reader)
    if kind == AttributeProto.GRAPHS:
        raise ModelError(asked, f"{node} contains a list of graphs", "Export the model with ONNX's own operators")
    try:
        value = onnx.helper.get_attribute_value(attribute)
        if kind == AttributeProto.TENSOR:
            return Initializer(value, reader.folder).numpy()
        if kind == AttributeProto.STRING:
            return value.decode()
        if kind == AttributeProto.STRINGS:
            return tuple(text.decode() for text in value)
    except Exception as e:
        found = f"the attribute {attribute.name!r} of {node} cannot be read ({_first_line(e)})"
        raise ModelError(asked, found, "Export the model again") from None
    return tuple(value) if kind in (AttributeProto.INTS, AttributeProto.FLOATS) else value


def _subgraph(graph: onnx.GraphProto, node: str, reader: _Reader) -> Subgraph:
    """Read a graph inside of a node. Its initializers become those of the file, under a name of their own."""
    scope = {}
    for tensor in graph.initializer:
        name, number = tensor.name, 2
        while name in reader.initializers:
            name, number = f"{tensor.name}.{number}", number + 1
        reader.initializers[name] = Initializer(tensor, reader.folder)
        scope[tensor.name] = name
    nodes = [_node(inner, i, reader) for i, inner in enumerate(graph.node)]
    made = Counter(name for inner in graph.node for name in inner.output if name)
    twice = [name for name, count in made.items() if count > 1 or name in scope]
    if twice or graph.sparse_initializer:
        found = f"it gives the name {twice[0]!r} to more than one tensor" if twice else "it has sparse initializers"
        raise ModelError(reader.asked, f"in a graph of {node} {found}", "Export the model again")
    inputs = tuple(value.name for value in graph.input if value.name not in scope)
    outputs = tuple(value.name for value in graph.output)
    read = {name for inner in nodes for name in (*inner.inputs, *captured_names(inner)) if name}
    ordered = _in_order(nodes, (read | set(outputs)) - set(made), list(outputs), reader.asked)
    return Subgraph(inputs, outputs, ordered, scope)


def _port(value: onnx.ValueInfoProto, asked: str) -> Port:
    tensor = value.type.tensor_type
    if not value.type.HasField("tensor_type"):
        return Port(value.name, "float32", None)
    dims = tuple(d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim)
    if not tensor.elem_type:
        dtype = "float32"
    elif tensor.elem_type in _TYPES:
        dtype = str(np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)))
    else:
        dtype = "string" if tensor.elem_type == TensorProto.STRING else f"ONNX type {tensor.elem_type}"
    return Port(value.name, dtype, dims if tensor.HasField("shape") else None, tuple(d.dim_param for d in tensor.shape.dim))


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:200]


# ── tensors ─────────────────────────────────────────────────────────────────────────────────────────


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Yield every tensor of the file, also those of nested graphs and functions."""
    graphs, nodes = [model.graph], [node for f in model.functions for node in f.node]
    while graphs or nodes:
        if graphs:
            graph = graphs.pop()
            yield from graph.initializer
            nodes += graph.node
        while nodes:
            for attribute in nodes.pop().attribute:
                if attribute.type == onnx.AttributeProto.TENSOR:
                    yield attribute.t
                yield from attribute.tensors
                graphs += [attribute.g] if attribute.type == onnx.AttributeProto.GRAPH else []
                graphs += attribute.graphs


def _check_tensor(tensor: onnx.TensorProto, folder: Path, asked: str) -> None:
    """Refuse a tensor whose claimed size is absurd, or is not what the file holds."""
    elements = math.prod(tensor.dims)
    if any(d < 0 for d in tensor.dims) or elements > MAX_ELEMENTS:
        raise ModelError(
            asked,
            f"the tensor {tensor.name!r} claims the shape {list(tensor.dims)}, {elements} elements",
            f"The limit is {MAX_ELEMENTS} elements; check where the file comes from",
        )
    if tensor.data_type not in _TYPES:
        raise ModelError(asked, f"the tensor {tensor.name!r} has ONNX type {tensor.data_type}", "Use float or integer tensors")
    bits = _bits(tensor.data_type)
    size = -(-elements * bits // 8)
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        _check_external(tensor, size, folder, asked)
    elif tensor.HasField("raw_data"):
        _demand_length(tensor, len(tensor.raw_data), size, "bytes", asked)
    else:
        length = len(getattr(tensor, _TYPED.get(tensor.data_type, "int32_data")))
        packed = bits < 8
        _demand_length(tensor, length, size if packed else elements * (2 if tensor.data_type in (14, 15) else 1), "values", asked)


def _bits(data_type: int) -> int:
    """Return the bits of one element as the file packs it.

    The number that ends the type's name, 4 for FLOAT4E2M1.
    """
    name = _TYPES[data_type]
    narrow = {"INT2": 2, "UINT2": 2, "INT4": 4, "UINT4": 4, "FLOAT4E2M1": 4}
    return narrow.get(name) or 8 * np.dtype(onnx.helper.tensor_dtype_to_np_dtype(data_type)).itemsize


def _demand_length(tensor: onnx.TensorProto, length: int, wanted: int, what: str, asked: str) -> None:
    if length != wanted:
        found = f"the tensor {tensor.name!r} of shape {list(tensor.dims)} needs {wanted} {what} and has {length}"
        raise ModelError(asked, found, "The file is damaged; export or download it again")


def _check_external(tensor: onnx.TensorProto, size: int, folder: Path, asked: str) -> None:
    """Refuse external data outside the model's folder or shorter than claimed."""
    entries = {e.key: e.value for e in tensor.external_data}
    location = entries.get("location", "")
    inside, shown = folder.resolve(), repr(location if len(location) <= 80 else f"{location[:79]}…")
    do = f"Put the data file into {inside} and name it relative to that folder"
    try:
        target = (inside / location).resolve()
        file_size = target.stat().st_size if target.is_file() else None
    except (OSError, ValueError, RuntimeError) as e:  # too long, a NUL character, links in a circle
        found = f"the tensor {tensor.name!r} lies in {shown}, which cannot be a file ({reason(e)})"
        raise ModelError(asked, found, do) from None
    if not location or Path(location).is_absolute() or not target.is_relative_to(inside):
        found = f"the tensor {tensor.name!r} lies in {shown}, outside the model's folder"
        raise ModelError(asked, found, do)
    if file_size is None:
        raise ModelError(asked, f"the tensor {tensor.name!r} lies in {shown}, which does not exist", do)
    try:
        offset, length = int(entries.get("offset", 0)), int(entries.get("length", size))
    except ValueError:
        raise ModelError(asked, f"the tensor {tensor.name!r} has no valid offset or length", "Export the model again") from None
    _demand_length(tensor, length, size, "bytes", asked)
    if offset < 0 or offset + length > file_size:
        found = f"{shown} has {file_size} bytes; the tensor {tensor.name!r} needs {offset + length}"
        raise ModelError(asked, found, "The data file is truncated; export or download it again")
