"""If, Loop, Scan and sequences, written out: onnxruntime's outputs. What the data decide is refused with a remedy."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.emulator.flipped import outputs_with_flips, random_cells
from tests.emulator.models import Array, model, node, run
from weakcell import emulator
from weakcell.emulator.importer import control_flow
from weakcell.memmodels.errors import ModelError

RNG = np.random.default_rng(77)
FLOAT, INT, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
PORTS = {"again": BOOL, "next": FLOAT}


def floats(*shape: int) -> Array:
    return RNG.normal(0, 1, shape).astype(np.float32)


def graph(
    nodes: list[onnx.NodeProto], inputs: dict[str, int], outputs: dict[str, int], constants: dict[str, Array] | None = None
) -> onnx.GraphProto:
    """Return a graph inside of a node; types by name. Floats have any shape, all others are scalars."""
    ports = [
        [helper.make_tensor_value_info(name, kind, None if kind == FLOAT else []) for name, kind in part.items()]
        for part in (inputs, outputs)
    ]
    return helper.make_graph(nodes, "body", *ports, [numpy_helper.from_array(a, n) for n, a in (constants or {}).items()])


def check(proto: onnx.ModelProto, fed: dict[str, Array]) -> emulator.Network:
    """Compare all outputs with onnxruntime's."""
    names = [output.name for output in proto.graph.output]
    network = emulator.load(proto)
    found = emulator.infer(emulator.compile_plan(network), fed)
    for name, right in zip(names, run(proto, fed, names), strict=True):
        np.testing.assert_allclose(found[name], right, rtol=1e-5, atol=1e-6, err_msg=name)
    return network


def choice(wide: bool) -> onnx.ModelProto:
    """Return a network that squares x if its last axis is wider than 3, and doubles it otherwise, with weights of its own."""
    size = 5 if wide else 2
    square = (size, size)
    nodes = [
        node("Shape", "x", "shape", start=-1), node("Squeeze", "shape", "size"), node("Greater", "size three", "wider"),
        helper.make_node(
            "If", ["wider"], ["y"], "choice",
            then_branch=graph([node("Mul", "x x", "a"), node("MatMul", "a w", "out")], {}, {"out": FLOAT}, {"w": floats(*square)}),
            else_branch=graph([node("Add", "x x", "a"), node("MatMul", "a w", "out")], {}, {"out": FLOAT}, {"w": floats(*square)}),
        ),
    ]  # fmt: skip
    return model(nodes, {"three": np.array(3)}, {"x": ["N", size]}, {"y": ["N", size]})


@pytest.mark.parametrize("wide", [False, True])
def test_a_condition_on_a_shape(wide: bool) -> None:
    check(choice(wide), {"x": floats(4, 5 if wide else 2)})


def test_branches_in_branches() -> None:
    """The inner branch reads a tensor of each graph around it, and one of its own that has the name of an outer one."""
    inner = graph([node("Add", "x a", "t"), node("Add", "t w", "inner_out")], {}, {"inner_out": FLOAT}, {"w": floats(4)})
    middle = graph(
        [node("Mul", "x x", "a"), helper.make_node("If", ["yes"], ["m"], "inner", then_branch=inner, else_branch=inner)],
        {},
        {"m": FLOAT},
    )
    nodes = [helper.make_node("If", ["yes"], ["h"], "outer", then_branch=middle, else_branch=middle), node("Mul", "h w", "y")]
    check(model(nodes, {"yes": np.array(True), "w": floats(4)}, {"x": ["N", 4]}, {"y": ["N", 4]}), {"x": floats(3, 4)})


def loop(trips: int, *, stops_at: int | None = None) -> onnx.ModelProto:
    """Return h <- tanh(h W + i) for `trips` steps, or until the counter is `stops_at`; the body dequantizes W."""
    body = graph(
        [
            node("DequantizeLinear", "w s", "wd"), node("MatMul", "h wd", "p"), node("Cast", "i", "f", to=1),
            node("Add", "p f", "q"), node("Tanh", "q", "next"),
            node("Less", "i last", "again") if stops_at is not None else node("Identity", "c", "again"),
        ],
        {"i": INT, "c": BOOL, "h": FLOAT}, {"again": BOOL, "next": FLOAT},
    )  # fmt: skip
    constants: dict[str, Array] = {
        "trips": np.array(trips), "w": RNG.integers(-99, 99, (4, 4)).astype(np.int8), "s": np.array(0.01, np.float32),
        "last": np.array(stops_at or 0), "yes": np.array(True),
    }  # fmt: skip
    nodes = [helper.make_node("Loop", ["trips", "yes", "x"], ["y"], "loop", body=body)]
    return model(nodes, constants, {"x": ["N", 4]}, {"y": ["N", 4]})


@pytest.mark.parametrize("stops_at", [None, 2])
def test_a_loop_of_a_fixed_number_of_trips(stops_at: int | None) -> None:
    """The weight of all steps lives in the memory once; a flip of it shows in each."""
    proto, fed = loop(5, stops_at=stops_at), {"x": floats(3, 4)}
    network = check(proto, fed)
    assert network.weight_bits == 16 * 8
    cells = random_cells(network, RNG)
    faulty = onnx.ModelProto()
    faulty.CopyFrom(proto)
    tensor = next(t for t in faulty.graph.initializer if t.name == "w")
    codes = numpy_helper.to_array(tensor).T.copy().view(np.uint8).reshape(-1)
    for element, bit in cells[network.weights[0].name]:
        codes[element] ^= 1 << bit
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(codes.view(np.int8).reshape(4, 4).T), "w"))
    np.testing.assert_allclose(outputs_with_flips(network, fed, cells)["y"], run(faulty, fed)[0], rtol=1e-5, atol=1e-6)


def recurrence(kind: str, **attributes: Any) -> onnx.ModelProto:
    """Return a running sum over the second axis of x (N, 5, 4), as a Scan or a Loop, with the state after each step."""
    step = [node("Add", "h part", "next"), node("Mul", "next next", "squared")]
    if kind == "Scan":
        body = graph(step, {"h": FLOAT, "part": FLOAT}, {"next": FLOAT, "squared": FLOAT})
        scan = helper.make_node(
            "Scan", ["start", "turned"], ["last", "all"], "scan", body=body, num_scan_inputs=1, **attributes
        )  # fmt: skip
        nodes = [node("Transpose", "x", "turned", perm=[1, 0, 2]), scan]
    else:
        body = graph(
            [node("Gather", "x i", "part", axis=1), *step, node("Identity", "c", "again")],
            {"i": INT, "c": BOOL, "h": FLOAT}, {"again": BOOL, "next": FLOAT, "squared": FLOAT},
        )  # fmt: skip
        nodes = [helper.make_node("Loop", ["trips", "", "start"], ["last", "all"], "loop", body=body)]
    nodes = [
        node("ReduceSum", "x axes", "total", keepdims=0), node("Mul", "total zero", "start"), *nodes,
        node("Transpose", "all", "y", perm=[1, 0, 2]),
    ]  # fmt: skip
    constants: dict[str, Array] = {"trips": np.array(5), "axes": np.array([1]), "zero": np.array(0, np.float32)}
    return model(nodes, constants, {"x": ["N", 5, 4]}, {"last": ["N", 4], "y": ["N", 5, 4]})


@pytest.mark.parametrize("backward", [0, 1])
def test_a_scan_over_time(backward: int) -> None:
    check(recurrence("Scan", scan_input_directions=[backward], scan_output_directions=[backward]), {"x": floats(3, 5, 4)})


def test_a_loop_that_stacks_its_steps() -> None:
    check(recurrence("Loop"), {"x": floats(3, 5, 4)})


def test_sequences_of_tensors() -> None:
    """Split into a sequence, erase and insert members, and join them again."""
    nodes = [
        node("SplitToSequence", "x two", "s", axis=1), node("SequenceLength", "s", "n"), node("SequenceAt", "s one", "b"),
        node("SequenceErase", "s zero", "shorter"), node("SequenceInsert", "shorter b zero", "longer"),
        node("ConcatFromSequence", "longer", "joined", axis=1), node("Cast", "n", "count", to=1), node("Mul", "joined count", "y"),
    ]  # fmt: skip
    constants = {name: np.array(number) for name, number in (("two", 2), ("one", 1), ("zero", 0))}
    check(model(nodes, constants, {"x": ["N", 6]}, {"y": ["N", 6]}), {"x": floats(3, 6)})


# ── refusals ──────────────────────────────────────────────────────────────────────────────────────────


def test_conditions_on_data() -> None:
    branch = graph([node("Neg", "x", "out")], {}, {"out": FLOAT})
    nodes = [
        node("ReduceMax", "x", "m", keepdims=0, axes=[1]), node("Greater", "m zero", "c"),
        helper.make_node("If", ["c"], ["y"], "choice", then_branch=branch, else_branch=branch),
    ]  # fmt: skip
    with pytest.raises(ModelError, match=r"choice \(If.*data decide which branch"):
        emulator.load(model(nodes, {"zero": np.array(0, np.float32)}, {"x": ["N", 4]}, {"y": ["N", 4]}))


def test_loops_without_end() -> None:
    with pytest.raises(ModelError, match="times"):
        emulator.load(loop(1 << 40))


def test_loops_in_loops_are_counted_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four loops of 90 trips, one inside of the other, would be 65 million steps."""
    body = graph([node("Identity", "h", "next"), node("Identity", "c", "again")], {"i": INT, "c": BOOL, "h": FLOAT}, PORTS)
    for depth in range(3):
        inner = helper.make_node("Loop", ["trips", "yes", "h"], ["next"], f"loop{depth}", body=body)
        body = graph([inner, node("Identity", "c", "again")], {"i": INT, "c": BOOL, "h": FLOAT}, PORTS)
    nodes = [helper.make_node("Loop", ["trips", "yes", "x"], ["y"], "outer", body=body)]
    monkeypatch.setattr(control_flow, "MOST_NODES", 1000)
    with pytest.raises(ModelError, match="nodes"):
        emulator.load(model(nodes, {"trips": np.array(90), "yes": np.array(True)}, {"x": ["N", 4]}, {"y": ["N", 4]}))


def test_an_operator_that_is_not_there_inside_of_a_branch() -> None:
    """It matters only in the branch that is taken."""
    missing, there = (graph([node(op, "x", "out")], {}, {"out": FLOAT}) for op in ("Det", "Neg"))
    nodes = [helper.make_node("If", ["yes"], ["y"], "choice", then_branch=there, else_branch=missing)]

    def network(yes: bool) -> onnx.ModelProto:
        return model(nodes, {"yes": np.array(yes)}, {"x": ["N", 4]}, {"y": ["N", 4]})

    assert len(emulator.load(network(True)).layers) > 0
    with pytest.raises(ModelError, match="operator Det is not supported"):
        emulator.load(network(False))


def test_graphs_that_are_damaged() -> None:
    """A name that nothing makes, a name given twice, an output that is not there."""
    for nodes, output in (
        ([node("Add", "x nobody", "out")], "out"), ([node("Neg", "x", "out"), node("Abs", "x", "out")], "out"), ([], "nobody"),
    ):  # fmt: skip
        branch = graph(nodes, {}, {output: FLOAT})
        choice = helper.make_node("If", ["yes"], ["y"], "choice", then_branch=branch, else_branch=branch)
        with pytest.raises(ModelError):
            emulator.load(model([choice], {"yes": np.array(True)}, {"x": ["N", 4]}, {"y": ["N", 4]}))
