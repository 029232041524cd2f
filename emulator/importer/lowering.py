"""From a checked graph to a network.

Each node in order gives its output tensors their symbols.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import numpy as np
import onnx

from weakcell.emulator import onnx_ops
from weakcell.emulator.importer import (
    batch_axis,
    binary,
    control_flow,
    dynamic,
    integer_ops,
    mct,
    packed_weights,
    pointwise,
    qdq,
    qonnx,
    qoperator,
    shape_ops,
    transformer_rewrites,
)
from weakcell.emulator.importer.builder import NetworkBuilder, ValueRange, check_size
from weakcell.emulator.importer.conv_transpose import lower_conv_transpose
from weakcell.emulator.importer.fallback import NEVER, lower_float, operator_key
from weakcell.emulator.importer.folding import fold, integer_encoding, read_initializer
from weakcell.emulator.importer.key_value_caches import mark_joined_caches
from weakcell.emulator.importer.linear import lower_linear, stored_weight
from weakcell.emulator.importer.node_writer import MICROSOFT
from weakcell.emulator.importer.output_meaning import find_output_meaning
from weakcell.emulator.importer.parse import Graph, Port, read_model
from weakcell.emulator.importer.ports import Ports, bind_inputs, output_axis
from weakcell.emulator.importer.rewrites import CHANNELS_LAST, REWRITES, ChannelsLast, rewrite
from weakcell.emulator.importer.row_products import lower_row_product
from weakcell.emulator.importer.shape_ops import reshape_in_place
from weakcell.emulator.importer.shared_integers import (
    check_conflicts,
    computes_with_shared,
    find_conflicts,
    fold_quantizer,
    note_frozen,
    note_frozen_condition,
)
from weakcell.emulator.importer.standard_inputs import add_missing_shapes
from weakcell.emulator.importer.subgraph import captured_names
from weakcell.emulator.importer.symbols import (
    INTEGER_RANKS,
    Array,
    Codes,
    Constant,
    FloatValue,
    Node,
    PendingQuantized,
    Symbol,
    scalar,
)
from weakcell.emulator.importer.unplaced_integers import find_unplaced_integers
from weakcell.emulator.importer.unsupported import check_operators, find_live_nodes
from weakcell.emulator.ir.network import Network
from weakcell.emulator.ir.values import SIGN1, BatchAxis, ValueSpec
from weakcell.memmodels.errors import ModelError

INTEGER_INPUT_LIMIT = 1 << 15
"""Integer inputs of a binarized first layer are below this in magnitude; a run checks it."""

_INPUT_TYPES = (
    "float32", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "bool", "float16", "float64",
)  # fmt: skip

_CONSTANT = {(mct.DOMAIN, name) for name in mct.WEIGHTS}
"""Operators on constants only."""

Lowering = Callable[[NetworkBuilder, Node], Symbol | None]

_PASSES = {*shape_ops.SHAPES, "Identity", "Dropout"}
_LOWERINGS: dict[str, Lowering] = {
    **dict.fromkeys(("Conv", "Gemm", "MatMul"), lower_linear),
    **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Max", "Min"), pointwise.lower_arithmetic),
    **dict.fromkeys(("Relu", "Neg", "Clip"), pointwise.lower_unary),
    **dict.fromkeys(("Greater", "GreaterOrEqual", "Less", "LessOrEqual"), binary.lower_comparison),
    **dict.fromkeys(("AveragePool", "GlobalAveragePool", "ReduceMean"), shape_ops.lower_mean),
    **dict.fromkeys(("MaxPool", "GlobalMaxPool"), shape_ops.lower_max_pool),
    **dict.fromkeys(("MatMulInteger", "ConvInteger"), dynamic.lower_integer_sum),
    **dict.fromkeys(integer_ops.MOVES, integer_ops.lower_move),
    **dict.fromkeys(onnx_ops.POINTWISE, integer_ops.lower_pointwise),
    **dict.fromkeys(("Resize", "Upsample"), shape_ops.lower_resize),
    "ConvTranspose": lower_conv_transpose,
    "DynamicQuantizeLinear": dynamic.lower_dynamic_quantize,
    "Dropout": shape_ops.lower_identity,
    "Identity": shape_ops.lower_identity,
    "BatchNormalization": pointwise.lower_batch_norm,
    "Cast": shape_ops.lower_cast,
    "DequantizeLinear": qdq.lower_dequantize,
    "Pad": shape_ops.lower_pad,
    "QuantizeLinear": qdq.lower_quantize,
    **dict.fromkeys(("Shape", "Size"), shape_ops.lower_shape),
    "Sign": binary.lower_sign,
    "Where": binary.lower_where,
}

_DOMAINS: dict[str, Mapping[str, Lowering]] = {
    MICROSOFT: {
        **qoperator.LOWERINGS,
        **transformer_rewrites.LOWERINGS,
        **packed_weights.LOWERINGS,
    },
    qonnx.DOMAIN: qonnx.LOWERINGS,
    mct.DOMAIN: mct.LOWERINGS,
}
_FOLDS: dict[str, Callable[[Node, list[Constant | None]], Constant]] = {qonnx.DOMAIN: qonnx.fold, mct.DOMAIN: mct.fold}


def load_model(
    source: str | os.PathLike[str] | onnx.ModelProto,
    integer_input: bool | None,
    sizes: Mapping[str, int] | None = None,
    like: Mapping[str, tuple[int, ...]] | None = None,
) -> Network:
    """Import a file or a model in memory; see `weakcell.emulator.importer.load`."""
    graph = read_model(source)
    shared: frozenset[str] = frozenset()
    try:
        while True:
            network, conflicts = _network(graph, integer_input, sizes, like, shared)
            if not conflicts:
                return network
            check_conflicts(graph.name, conflicts, shared)
            shared |= conflicts.keys()
    except (ArithmeticError, AssertionError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError, ValueError) as e:
        why = (str(e).strip().splitlines() or [""])[0][:200]
        found = f"its parts do not fit together ({type(e).__name__}: {why})"
        raise ModelError(f"Importing the model {graph.name}", found, "Check the file with onnx.checker, or report it") from e


def _network(
    graph: Graph,
    integer_input: bool | None,
    sizes: Mapping[str, int] | None,
    like: Mapping[str, tuple[int, ...]] | None,
    shared: frozenset[str],
) -> tuple[Network, dict[str, str]]:
    """Return the network, and the stored integers whose flips it would not follow everywhere."""
    asked = f"Importing the model {graph.name}"
    if not graph.inputs or not graph.outputs:
        found = f"it has {len(graph.inputs)} inputs and {len(graph.outputs)} outputs"
        raise ModelError(asked, found, "Export a network that maps an input to an output")
    ports = bind_inputs(asked, graph.inputs, sizes, add_missing_shapes(graph.inputs, like))
    batch = ports.batch
    lowerings: dict[str, Lowering] = {
        **_LOWERINGS,
        **dict.fromkeys(shape_ops.SHAPES, partial(shape_ops.lower_reshape, batch=batch)),
    }
    lower = partial(_lower, lowerings=lowerings)
    builder = NetworkBuilder(graph.name, binary.compare, lower, frozenset(port.name for port in graph.outputs), batch=batch)
    builder.shared = shared
    live = find_live_nodes(graph.nodes, builder.outputs)
    check_operators(graph.name, live, _is_known)
    run_time_nodes = _fold_constants(builder, replace(graph, nodes=tuple(live)))
    integers = _wants_integer_input(graph, integer_input)
    for port in graph.inputs:
        wanted = _reads_integers(builder, port, run_time_nodes) if integers is None else integers
        _add_input(builder, port, ports, asked, wanted)
    for node in run_time_nodes:
        lower(builder, node)
    meanings = {port.name: find_output_meaning(graph, builder.symbols, builder.unbatched, port.name) for port in graph.outputs}
    axes = {name: None if axis is None else BatchAxis(axis) for name, axis in ports.axes.items() if axis != 0}
    for port in graph.outputs:
        axis = _add_output(builder, port, ports, run_time_nodes, asked)
        if axis != BatchAxis(0):
            axes[port.name] = axis
    outputs = tuple(port.name for port in graph.outputs)
    network = mark_joined_caches(builder.finish(tuple(port.name for port in graph.inputs), outputs, graph.metadata))
    unplaced = find_unplaced_integers(network, builder, graph)
    network = replace(network, batch=batch, output_meanings=meanings, unplaced=unplaced, batch_axes=axes, sizes=dict(ports.sizes))
    return network, find_conflicts(network, builder, graph)


def _is_known(node: Node) -> bool:
    """Return whether there is any way to import the operator of a node."""
    if (node.domain, node.op_type) in REWRITES or node.domain == CHANNELS_LAST or (node.domain, node.op_type) in _CONSTANT:
        return True
    lowerings = _LOWERINGS if not node.domain else _DOMAINS.get(node.domain, {})
    flow = not node.domain and node.op_type in control_flow.LOWERINGS
    known = flow or node.op_type in (*lowerings, *shape_ops.SHAPES) or operator_key(node) in onnx_ops.OPERATORS
    return known and (node.op_type not in NEVER or node.op_type in lowerings)


def _wants_integer_input(graph: Graph, integer_input: bool | None) -> bool | None:
    """Return what the caller, or else the file, says about integer inputs.

    None if neither does.
    """
    if integer_input is None:
        return {"true": True, "false": False}.get(graph.metadata.get("weakcell.integer_input", "").lower())
    return integer_input


def _fold_constants(builder: NetworkBuilder, graph: Graph) -> list[Node]:
    """Fold every node that reads only constants, and return the others."""
    run_time_nodes = []
    needed = {name for node in graph.nodes for name in (*node.inputs, *captured_names(node))} | builder.outputs
    for name in graph.initializers:
        if name in needed:
            builder.symbols[name] = read_initializer(graph, name, builder.shared)
    last = ChannelsLast(frozenset(name for name, tensor in graph.initializers.items() if math.prod(tensor.shape) == 1))
    plain = (part for whole in graph.nodes for part in ([whole] if _stays_whole(builder, whole) else rewrite(whole)))
    for node in (part for whole in plain for part in last.rewrite(whole)):
        constant = all(name in builder.symbols for name in node.inputs if name) and node.op_type not in control_flow.LOWERINGS
        if not constant or "Random" in node.op_type:
            run_time_nodes.append(node)
            continue
        with _naming_node(builder, node):
            _fold_node(builder, node)
    return run_time_nodes


def _stays_whole(builder: NetworkBuilder, node: Node) -> bool:
    """Return whether a QLinear sum has no stored weight of one or two dimensions in space: it is computed as ONNX defines it."""
    if node.domain or node.op_type not in ("QLinearConv", "QLinearMatMul"):
        return False
    weight = builder.symbols.get(node.input(3))
    return not isinstance(weight, Constant) or (node.op_type == "QLinearConv" and weight.array.ndim > 4)


def _fold_node(builder: NetworkBuilder, node: Node) -> None:
    """Make constants of a node's outputs."""
    given = [builder.symbols[name] if name else None for name in node.inputs]
    constants = [x if isinstance(x, Constant) else None for x in given]
    several = node.op_type in onnx_ops.SEVERAL
    for index, name in enumerate(node.outputs[: None if several else 1]):
        if name:
            own = _FOLDS.get(node.domain)
            builder.symbols[name] = (
                fold(node, constants, index, builder.shared) if own is None else fold_quantizer(node, constants, own)
            )
            if own is None and any(given in builder.whole_batch for given in node.inputs):
                builder.whole_batch[name] = _fold_whole_batch(builder, node, constants, index)


def _fold_whole_batch(builder: NetworkBuilder, node: Node, constants: list[Constant | None], index: int) -> Array | None:
    """Return what a node that reads shapes gives for all images that the file fixes; None if that cannot be told."""
    whole = {name: builder.whole_batch[name] for name in node.inputs if name in builder.whole_batch}
    if any(array is None for array in whole.values()):
        return None
    pairs = zip(node.inputs, constants, strict=True)
    return fold(node, [Constant(whole[name], name) if name in whole else x for name, x in pairs], index).array


@contextmanager
def _naming_node(builder: NetworkBuilder, node: Node) -> Iterator[None]:
    """Turn an unexpected error of a lowering into a ModelError that names the node."""
    try:
        yield
    except (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as e:
        kinds = ", ".join(f"{name!r} ({_kind(builder, name)})" for name in node.inputs if name)
        why = (str(e).strip().splitlines() or [""])[0][:200]
        found = f"it cannot be imported on its inputs {kinds} ({type(e).__name__}: {why})"
        raise ModelError(f"Importing {node}", found, "Check the file with onnx.checker, or report it with the file") from e


def _kind(builder: NetworkBuilder, name: str) -> str:
    """Describe a tensor for the text of an error."""
    symbol = builder.symbols.get(name)
    if isinstance(symbol, Constant):
        return f"constant {symbol.array.dtype}{list(symbol.shape)}"
    if symbol is None:
        return "not computed"
    meaning = {"Codes": "integers", "PendingQuantized": "dequantized integers", "PendingComparison": "a comparison"}
    shape = symbol.shape if name in builder.unbatched else ("N", *symbol.shape)
    return f"{meaning.get(type(symbol).__name__, 'floats')} [{', '.join(map(str, shape))}]"


def _lower(builder: NetworkBuilder, node: Node, lowerings: dict[str, Lowering]) -> None:
    """Give the node's outputs their symbols."""
    with _naming_node(builder, node):
        reads = len(builder.stored.reads)
        if not node.domain and node.op_type in control_flow.LOWERINGS:
            note_frozen_condition(builder, node)
            control_flow.lower_control_flow(builder, node)
        elif all(isinstance(builder.symbols[name], Constant) for name in node.inputs if name):
            _fold_node(builder, node)  # it reads a shape that became known
        else:
            batch_axis.lower_node(builder, node, partial(_lower_node, lowerings=lowerings))
            note_frozen(builder, node, builder.stored.reads[reads:])


def _lower_node(builder: NetworkBuilder, node: Node, lowerings: dict[str, Lowering]) -> None:
    if all(isinstance(builder.symbols[name], Constant) for name in node.inputs if name):
        _fold_node(builder, node)
        return
    shared = computes_with_shared(builder, node)
    if not node.domain and (sums := dynamic.lower_row_sums(builder, node)) is not None:
        builder.symbols[node.outputs[0]] = sums
        return
    if not node.domain and not shared and (product := lower_row_product(builder, node)) is not None:
        builder.symbols[node.outputs[0]] = product
        return
    known: Mapping[str, Lowering] = lowerings if not node.domain else _DOMAINS.get(node.domain, {})
    lowering = None if shared else known.get(node.op_type)
    symbol = lowering(builder, node) if lowering is not None else None
    builder.symbols[node.outputs[0]] = lower_float(builder, node) if symbol is None else symbol


# ── inputs ──────────────────────────────────────────────────────────────────────────────────────────


def _add_input(builder: NetworkBuilder, port: Port, ports: Ports, asked: str, integers: bool) -> None:
    """Give a graph input its value.

    Integers become codes. Floats become codes of scale 1 if they are integers (`integers`), else they stay floats.
    """
    if port.dtype not in _INPUT_TYPES:
        raise ModelError(asked, f"the input {port.name!r} is {port.dtype}", f"Supported are {', '.join(_INPUT_TYPES)}")
    full, axis = ports.shapes[port.name], ports.axes[port.name]
    shape = full if axis is None else (*full[:axis], *full[axis + 1 :])
    check_size(ValueSpec(port.name, "float", shape))
    encoding = integer_encoding(np.dtype(port.dtype)) if port.dtype in ("int8", "uint8", "int16", "uint16") else None
    image = len(shape) in INTEGER_RANKS
    if encoding is not None and image:
        builder.values[port.name] = ValueSpec(port.name, "codes", shape, port.dtype)
        builder.ranges[port.name] = ValueRange(encoding.low, encoding.high)
        builder.symbols[port.name] = Codes(port.name, shape)
    elif port.dtype == "float32" and integers and image:
        builder.values[port.name] = ValueSpec(port.name, "codes", shape, "int32")
        builder.ranges[port.name] = ValueRange(1 - INTEGER_INPUT_LIMIT, INTEGER_INPUT_LIMIT - 1)
        builder.symbols[port.name] = PendingQuantized(port.name, shape, scalar(1))
    else:
        builder.values[port.name] = ValueSpec(port.name, "float", shape, port.dtype)
        builder.symbols[port.name] = FloatValue(port.name, shape, port.dtype)
    if axis != 0:
        reshape_in_place(builder, port.name, full)
        batch_axis.settle_batch(builder, port.name)


def _reads_integers(builder: NetworkBuilder, port: Port, nodes: list[Node]) -> bool:
    """Return whether only sums with ±1 weights read a float input."""
    readers: dict[str, list[Node]] = {}
    for node in nodes:
        for name in {*node.inputs, *captured_names(node)}:
            readers.setdefault(name, []).append(node)
    names, found = [port.name], False
    while names:
        for node in readers.get(names.pop(), []):
            if node.op_type in _PASSES:
                names.append(node.outputs[0])
                continue
            weight = builder.symbols.get(node.input(1))
            if node.op_type not in ("Conv", "Gemm", "MatMul") or not isinstance(weight, Constant):
                return False
            stored = stored_weight(node, weight)
            if stored is None or stored.encoding != SIGN1:
                return False
            found = True
    return found


# ── outputs ─────────────────────────────────────────────────────────────────────────────────────────


def _add_output(builder: NetworkBuilder, port: Port, ports: Ports, nodes: Sequence[Node], asked: str) -> BatchAxis | None:
    """Make a graph output a value of its own name, and return the axis of the file's tensor that counts images."""
    name, axis = port.name, BatchAxis(0)
    symbol = builder.symbol(name)
    if isinstance(symbol, Constant):
        raise ModelError(asked, f"the output {name!r} does not depend on the inputs", "Export the model again")
    full = builder.onnx_shape(name)
    if name in builder.unbatched:
        found = output_axis(port, full, ports)
        if found is not None and found.folded and not batch_axis.is_image_major(builder, nodes, name):
            found = None
        if found is not None and not found.folded:
            shape = (*full[: found.axis], *full[found.axis + 1 :])
            symbol = reshape_in_place(builder, name, shape)
        _keep_output(builder, name, symbol)
        return found
    if ports.batch is not None and ports.batch > 1 and port.dims and None not in port.dims:
        declared, whole = math.prod(d or 0 for d in port.dims), math.prod(full)
        if declared != whole * ports.batch:
            found_shape = (
                f"the output {name!r} is declared as {list(port.dims)}, and one of {ports.batch} images gives {list(full)}"
            )
            raise ModelError(asked, found_shape, "Its images depend on each other; export it with a batch of 1 or a dynamic batch")
    _keep_output(builder, name, symbol)
    return axis


def _keep_output(builder: NetworkBuilder, name: str, symbol: Symbol) -> None:
    real = FloatValue(symbol.value, symbol.shape) if isinstance(symbol, Codes) else builder.as_float(name)
    if real.value != name or builder.values[real.value].shape != real.shape:
        builder.copy_as(real, name, f"{name}.output")
