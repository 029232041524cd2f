"""Key-value caches in a memory. References: onnxruntime on a flipped cache, and attention written out in NumPy."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx
import pytest
from onnx import helper

import weakcell
from tests.emulator.decoder import PAIRS, SIZE, decoder, decoder_inputs
from tests.emulator.flipped import Cells, ListedFlips
from tests.emulator.models import Array, model, node, run
from weakcell import emulator
from weakcell.emulator.faults.energy import cost_per_inference
from weakcell.emulator.ir.operators import FloatOperator
from weakcell.memmodels.catalogue import open_memory, parse_spec
from weakcell.memmodels.memory import Accesses

SAFE, ROWS, HEADS, NEW, WIDTH = parse_spec("uniform:ber=0"), 3, 2, 3, 5


def flip(x: Array, cells: Cells) -> Array:
    """Return float32 numbers with bits of their flat elements inverted."""
    bits = x.reshape(-1).view(np.uint32).copy()
    for element, bit in cells:
        bits[element] ^= np.uint32(1 << bit)
    return bits.view(np.float32).reshape(x.shape)


def under_flips(network: emulator.Network, inputs: Mapping[str, Array], flips: Mapping[str, Cells]) -> dict[str, Array]:
    """Return the outputs with the caches in a memory that flips the listed cells in every image."""
    plan = emulator.compile_plan(network)
    placement = emulator.place(network, SAFE, [("cache:*", parse_spec("uniform:ber=0.5"))])
    assert {slot.tensor for slot in placement.slots if slot.array == 1} == set(flips)
    deployment = emulator.deploy(plan, placement, memories=[ListedFlips({}), ListedFlips(flips)])
    found = emulator.outputs_under_faults(plan, inputs, deployment)
    assert sum(deployment.tally.flips.get(name, 0) for name in flips) == sum(map(len, flips.values())) * ROWS
    return found


def test_a_token_reads_a_flipped_cache() -> None:
    """A decoder of onnxruntime-genai: flips in the rows of earlier tokens are those of a flipped input."""
    rng = np.random.default_rng(2)
    proto, inputs = decoder(), decoder_inputs(1, 6, batch=ROWS)
    network = emulator.load(proto, like={name: x.shape for name, x in inputs.items()})
    flips, past = {}, dict(inputs)
    for part in ("key", "value"):
        cells = [(int(rng.integers(6 * SIZE)), int(bit)) for bit in (31, 24, 22, 3)]  # rows of the first head, before the new one
        flips[f"cache:present.{part}"] = cells
        past[f"past.{part}"] = np.stack([flip(x, cells) for x in inputs[f"past.{part}"]])
    found = under_flips(network, inputs, flips)
    names = ["logits", "present.key", "present.value"]
    clean = run(proto, inputs, names)[0]
    for name, right in zip(names, run(proto, past, names), strict=True):
        np.testing.assert_allclose(found[name], right, rtol=1e-4, atol=1e-4 * np.abs(right).max())
    assert np.abs(found["logits"] - clean).max() > 1e-2 * np.abs(clean).max()


def multi_head() -> onnx.ModelProto:
    names = ["q", "k", "v", "", "", "", "past.key", "past.value"]
    outputs = ["y", "present.key", "present.value"]
    proto = _attention(helper.make_node("MultiHeadAttention", names, outputs, domain="com.microsoft", num_heads=HEADS), WIDTH)
    proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return proto


def of_onnx() -> onnx.ModelProto:
    names = ["q", "k", "v", "", "past.key", "past.value"]
    outputs = ["y", "present.key", "present.value"]
    return _attention(helper.make_node("Attention", names, outputs, q_num_heads=HEADS, kv_num_heads=HEADS), WIDTH)


def _attention(attention: onnx.NodeProto, width: int) -> onnx.ModelProto:
    new, old = ["N", NEW, HEADS * width], ["N", HEADS, "old", width]
    joined = ["N", HEADS, "all", width]
    outputs = {"y": new, "present.key": joined, "present.value": joined}
    inputs = {**dict.fromkeys("qkv", new), **dict.fromkeys(("past.key", "past.value"), old)}
    return model([attention], {}, inputs, outputs, 23)


def written_out() -> onnx.ModelProto:
    """Return attention as plain operators; its caches are outputs of a Concat."""
    constants = {"split": np.array([0, 0, HEADS, WIDTH]), "join": np.array([0, 0, HEADS * WIDTH]), "root": np.float32(WIDTH**-0.5)}
    nodes = [
        part
        for x in "qkv"
        for part in (node("Reshape", f"{x} split", f"{x}4"), node("Transpose", f"{x}4", f"{x}h", perm=[0, 2, 1, 3]))
    ]
    nodes += [
        node("Concat", "past.key kh", "present.key", axis=2), node("Concat", "past.value vh", "present.value", axis=2),
        node("Transpose", "present.key", "kt", perm=[0, 1, 3, 2]), node("MatMul", "qh kt", "raw"),
        node("Mul", "raw root", "scores"),
        node("Softmax", "scores", "p", axis=-1), node("MatMul", "p present.value", "h"),
        node("Transpose", "h", "t", perm=[0, 2, 1, 3]),
        node("Reshape", "t join", "y"),
    ]  # fmt: skip
    proto = _attention(node("Identity", "q", "y"), WIDTH)
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(np.asarray(x), name) for name, x in constants.items())
    return proto


@pytest.mark.parametrize("old", [4, 0])
@pytest.mark.parametrize("make", [multi_head, of_onnx, written_out])
def test_every_token_reads_what_the_memory_returns(make: Callable[[], onnx.ModelProto], old: int) -> None:
    """Flips anywhere, also in the rows of the new tokens: softmax(q k' / root) v' in NumPy, with k' and v' flipped."""
    proto, rng = make(), np.random.default_rng(5)
    shapes = {**dict.fromkeys("qkv", (NEW, HEADS * WIDTH)), **dict.fromkeys(("past.key", "past.value"), (HEADS, old, WIDTH))}
    inputs = {name: rng.normal(size=(ROWS, *shape)).astype(np.float32) for name, shape in shapes.items()}
    network = emulator.load(proto, like={name: x.shape for name, x in inputs.items()})
    clean = emulator.infer(emulator.compile_plan(network), inputs)
    for name, right in zip(clean, run(proto, inputs, list(clean)), strict=True):
        np.testing.assert_allclose(clean[name], right, rtol=1e-5, atol=1e-6)
    elements = HEADS * (old + NEW) * WIDTH
    flips = {
        f"cache:present.{part}": [(int(e), int(rng.choice([31, 23, 22, 10]))) for e in rng.choice(elements, 9, replace=False)]
        for part in ("key", "value")
    }
    found = under_flips(network, inputs, flips)

    def heads(x: Array) -> Array:
        return x.reshape(ROWS, NEW, HEADS, WIDTH).swapaxes(1, 2).astype(np.float64)

    joined = {
        part: np.concatenate([inputs[f"past.{part}"], heads(inputs[part[0]]).astype(np.float32)], 2) for part in ("key", "value")
    }
    k, v = (np.stack([flip(x, flips[f"cache:present.{part}"]) for x in joined[part]]) for part in ("key", "value"))
    np.testing.assert_array_equal(found["present.key"], k)
    np.testing.assert_array_equal(found["present.value"], v)
    scores = heads(inputs["q"]) @ k.swapaxes(2, 3).astype(np.float64) / np.sqrt(WIDTH)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    right = (weights / weights.sum(-1, keepdims=True)) @ v
    np.testing.assert_allclose(found["y"], right.swapaxes(1, 2).reshape(ROWS, NEW, -1), rtol=1e-4, atol=1e-5)
    assert not np.allclose(found["y"], clean["y"], rtol=1e-3)


def test_an_encoder_has_no_cache() -> None:
    attention = helper.make_node("MultiHeadAttention", ["q", "k", "v"], ["y"], domain="com.microsoft", num_heads=HEADS)
    shape = ["N", NEW, HEADS * WIDTH]
    proto = model([attention], {}, dict.fromkeys("qkv", shape), {"y": shape}, 21)
    proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    network = emulator.load(proto)
    assert [layer.op_type for layer in network.layers if isinstance(layer, FloatOperator)] == ["com.microsoft.MultiHeadAttention"]
    with pytest.raises(weakcell.UsageError, match="cache"):
        emulator.place(network, SAFE, [("cache:*", SAFE)])


def test_a_cache_is_charged_one_write_and_one_read() -> None:
    """And a rule for buffers leaves it alone."""
    proto, inputs = decoder(), decoder_inputs(4, 0)
    network = emulator.load(proto, like={name: x.shape for name, x in inputs.items()})
    plan, spec = emulator.compile_plan(network), "sttram:delta=60,tau=4"
    bits = 2 * PAIRS * 4 * SIZE * 32
    placements = [emulator.place(network, parse_spec(spec), rules) for rules in ((), [("cache:*", parse_spec(spec))])]
    assert placements[1].bits(network) - placements[0].bits(network) == bits
    first, second = (
        cost_per_inference(emulator.deploy(plan, p, emulator.ReadPolicy.IMAGE), 10).energy[0].value for p in placements
    )
    memory = open_memory(spec)
    alone = memory.technology.cost(memory.conditions, bits, Accesses(1.0, 1.0)).energy
    assert second - first == pytest.approx(alone.value)
    caches = {name for name, item in plan.storable.items() if item.role == "cache"}
    assert caches == {"cache:present.key", "cache:present.value"}
