"""Operators of transformers and of recurrent networks that stay float32: onnxruntime's outputs, operator by operator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from tests.emulator.models import Array, model, run
from weakcell import emulator
from weakcell.memmodels.errors import ModelError

RNG = np.random.default_rng(18)
MICROSOFT = "com.microsoft"
RELATIVE, ABSOLUTE = 2e-5, 4e-6
"""32 units in the last place of 1: onnxruntime sums means, variances and scores in float32, in another order."""

Case = tuple[onnx.ModelProto, dict[str, Array]]


def floats(*shape: int) -> Array:
    return RNG.normal(0, 1, shape).astype(np.float32)


def case(
    op_type: str,
    inputs: str,
    outputs: str,
    constants: dict[str, Array],
    fed: dict[str, Array],
    **attributes: Any,
) -> Case:
    """Return a network of one node and its inputs. The first axis of what is fed is the batch."""
    domain, opset = str(attributes.pop("domain", MICROSOFT)), int(attributes.pop("opset", 21))
    names = ["" if name == "-" else name for name in inputs.split()]
    ends = ["" if name == "-" else name for name in outputs.split()]
    ports: dict[str, Sequence[Any]] = {name: ["N", *array.shape[1:]] for name, array in fed.items()}
    types = {name: helper.np_dtype_to_tensor_dtype(array.dtype) for name, array in fed.items()}
    proto = model(
        [helper.make_node(op_type, names, ends, "the_node", domain=domain, **attributes)],
        constants, ports, {}, opset, types,
    )  # fmt: skip
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in ends if name)
    if domain:
        proto.opset_import.append(helper.make_opsetid(domain, 1))
    return proto, fed


def normalization(op_type: str, inputs: str, outputs: str = "y", **attributes: Any) -> Callable[[], Case]:
    """Return the maker of a normalization of x (4, 5, 8), with a second input `skip` if it has one."""

    def make() -> Case:
        fed = {"x": floats(4, 5, 8) * 3 + 1}
        if "skip" in inputs:
            fed["skip"] = floats(4, 5, 8)
        constants = {name: floats(8) for name in inputs.split() if name in ("gamma", "beta", "bias")}
        return case(op_type, inputs, outputs, constants, fed, **attributes)

    return make


def channels(op_type: str, inputs: str, opset: int, **attributes: Any) -> Callable[[], Case]:
    """Return the maker of a normalization of an image (3, 6, 4, 5)."""

    def make() -> Case:
        constants = {name: floats(6) for name in ("gamma", "beta") if name in inputs}
        return case(op_type, inputs, "y", constants, {"x": floats(3, 6, 4, 5) * 2 + 1}, domain="", opset=opset, **attributes)

    return make


def embedding(mask: bool) -> Callable[[], Case]:
    def make() -> Case:
        constants = {"words": floats(20, 8), "places": floats(9, 8), "kinds": floats(2, 8), "gamma": floats(8), "beta": floats(8)}
        fed = {"ids": RNG.integers(0, 20, (3, 5)).astype(np.int32), "segments": RNG.integers(0, 2, (3, 5)).astype(np.int32)}
        inputs = "ids segments words places kinds gamma beta"
        if mask:
            fed["mask"] = (np.arange(5) < np.array([[3], [5], [1]])).astype(np.int32)
        return case(
            "EmbedLayerNormalization",
            f"{inputs} mask" if mask else inputs,
            "y counts" if mask else "y -",
            constants,
            fed,
            epsilon=1e-6,
        )

    return make


def activation(op_type: str, biased: bool = False, **attributes: Any) -> Callable[[], Case]:
    def make() -> Case:
        constants = {"bias": floats(8)} if biased else {}
        return case(op_type, "x bias" if biased else "x", "y", constants, {"x": floats(4, 5, 8) * 3}, **attributes)

    return make


HEADS, SIZE, LENGTH = 2, 4, 5


def multi_head(extra: str = "", **attributes: Any) -> Callable[[], Case]:
    """Return the maker of a MultiHeadAttention; `extra` names what else it reads."""

    def make() -> Case:
        wanted, shape = extra.split(), (3, LENGTH, HEADS * SIZE)
        fed = {name: floats(*shape) for name in ("q", "k", "v")}
        keys = LENGTH + (3 if "past" in wanted else 0)
        constants = {"bias": floats(3 * HEADS * SIZE)} if "bias" in wanted else {}
        if "lengths" in wanted:
            fed["padding"] = np.array([2, 5, 4], np.int32)
        elif "padding" in wanted:
            fed["padding"] = (np.arange(keys) < np.array([[2], [keys], [4]])).astype(np.int32)
        if "scores" in wanted:
            fed["scores"] = floats(3, HEADS, LENGTH, keys)
        outputs = "y"
        if "past" in wanted:
            fed |= {"pk": floats(3, HEADS, 3, SIZE), "pv": floats(3, HEADS, 3, SIZE)}
            outputs = "y presentk presentv"
        names = ["q", "k", "v", *(n if n in {**fed, **constants} else "-" for n in ("bias", "padding", "scores", "pk", "pv"))]
        while names[-1] == "-":
            names.pop()
        return case("MultiHeadAttention", " ".join(names), outputs, constants, fed, num_heads=HEADS, **attributes)

    return make


def attention(masked: bool, **attributes: Any) -> Callable[[], Case]:
    """Return the maker of Microsoft's older Attention, which has the projection inside."""

    def make() -> Case:
        constants = {"w": floats(8, 24) / 3, "b": floats(24)}
        fed = {"x": floats(3, LENGTH, 8)}
        if masked:
            fed["mask"] = (np.arange(LENGTH) < np.array([[2], [5], [4]])).astype(np.int32)
        return case("Attention", "x w b mask" if masked else "x w b", "y", constants, fed, num_heads=2, **attributes)

    return make


def group_query(
    new: int, past: int, ends: list[int], *, rotary: bool = True, packed: bool = False, **attributes: Any
) -> Callable[[], Case]:
    """Return the maker of a GroupQueryAttention with 4 heads of queries and 2 of keys; `ends` are lengths with the new tokens."""

    def make() -> Case:
        n, size = len(ends), 16
        fed = {"q": floats(n, new, (8 if packed else 4) * size)}
        if not packed:
            fed |= {"k": floats(n, new, 2 * size), "v": floats(n, new, 2 * size)}
        if past:
            fed |= {name: floats(n, 2, past, size) for name in ("pk", "pv")}
        fed["last"] = np.array(ends, np.int32) - 1
        constants: dict[str, Array] = {"total": np.array(max(ends), np.int32)}
        inputs = ("q - - " if packed else "q k v ") + ("pk pv" if past else "- -") + " last total"
        if rotary:
            angles = np.outer(np.arange(16), 0.5 ** np.arange(8)).astype(np.float32)
            constants |= {"cos": np.cos(angles), "sin": np.sin(angles)}
            inputs += " cos sin"
        return case(
            "GroupQueryAttention",
            inputs,
            "y nk nv",
            constants,
            fed,
            num_heads=4,
            kv_num_heads=2,
            do_rotary=int(rotary),
            **attributes,
        )  # fmt: skip

    return make


def rotary(**attributes: Any) -> Callable[[], Case]:
    def make() -> Case:
        angles = np.outer(np.arange(16), 0.5 ** np.arange(4)).astype(np.float32)
        constants = {"cos": np.cos(angles), "sin": np.sin(angles)}
        fed = {"x": floats(3, 5, 16), "places": RNG.integers(0, 16, (3, 5))}
        return case("RotaryEmbedding", "x places cos sin", "y", constants, fed, **attributes)

    return make


def fused_matmul(**attributes: Any) -> Callable[[], Case]:
    def make() -> Case:
        a = floats(3, 6, 4) if attributes.get("transA") else floats(3, 4, 6)
        b = floats(3, 5, 6) if attributes.get("transB") else floats(3, 6, 5)
        return case("FusedMatMul", "a b", "y", {}, {"a": a, "b": b}, **attributes)

    return make


CASES: dict[str, Callable[[], Case]] = {
    "layer": normalization("LayerNormalization", "x gamma beta", domain=""),
    "layer_of_two_axes": lambda: case(
        "LayerNormalization", "x gamma", "y", {"gamma": floats(5, 8)}, {"x": floats(4, 5, 8)}, domain="", axis=1
    ),
    "simplified": normalization("SimplifiedLayerNormalization", "x gamma", domain=""),
    "skip": normalization("SkipLayerNormalization", "x skip gamma beta bias", "y - - sum", epsilon=1e-6),
    "skip_simplified": normalization("SkipSimplifiedLayerNormalization", "x skip gamma bias", "y - - sum"),
    "skip_without_bias": normalization("SkipSimplifiedLayerNormalization", "x skip gamma"),
    "instance": channels("InstanceNormalization", "x gamma beta", 17),
    "group": channels("GroupNormalization", "x gamma beta", 21, num_groups=3),
    "mean_variance": channels("MeanVarianceNormalization", "x", 17, axes=[2, 3]),
    "embed": embedding(False),
    "embed_with_mask": embedding(True),
    "gelu": activation("Gelu"),
    "bias_gelu": activation("BiasGelu", True),
    "fast_gelu": activation("FastGelu"),
    "fast_gelu_with_bias": activation("FastGelu", True),
    "quick_gelu": activation("QuickGelu", alpha=1.5),
    "multi_head": multi_head(),
    "multi_head_with_all": multi_head("bias padding scores", scale=0.3),
    "multi_head_lengths": multi_head("lengths"),
    "multi_head_causal": multi_head("bias", unidirectional=1),
    "multi_head_cache": multi_head("past"),
    "attention": attention(False),
    "attention_masked": attention(True),
    "attention_causal": attention(False, unidirectional=1),
    "group_query_prompt": group_query(4, 0, [4, 4, 4]),
    "group_query_token": group_query(1, 6, [7, 7]),
    "group_query_ragged": group_query(1, 6, [3, 7]),
    "group_query_packed": group_query(1, 6, [7, 7], packed=True),
    "group_query_window": group_query(4, 0, [4, 4], rotary=False, local_window_size=2),
    "group_query_capped": group_query(4, 0, [4, 4], softcap=2.0, rotary_interleaved=1),
    "rotary": rotary(),
    "rotary_interleaved": rotary(interleaved=1),
    "fused_matmul": fused_matmul(alpha=0.5, transB=1),
    "fused_matmul_of_a": fused_matmul(transA=1),
    "fused_conv": lambda: case(
        "FusedConv", "x w b", "y", {"w": floats(4, 3, 3, 3), "b": floats(4)}, {"x": floats(2, 3, 6, 6)}, activation="Relu"
    ),
}


def outputs_of(proto: onnx.ModelProto, fed: dict[str, Array]) -> dict[str, Array]:
    """Return the outputs of the importer's network."""
    return emulator.infer(emulator.compile_plan(emulator.load(proto)), fed)


@pytest.mark.parametrize("kind", CASES)
def test_one_operator(kind: str) -> None:
    proto, fed = CASES[kind]()
    names = [output.name for output in proto.graph.output]
    found = outputs_of(proto, fed)
    for name, right in zip(names, run(proto, fed, names), strict=True):
        assert found[name].dtype == right.dtype
        np.testing.assert_allclose(found[name], right, rtol=RELATIVE, atol=ABSOLUTE, err_msg=name)


# ── refusals ──────────────────────────────────────────────────────────────────────────────────────────


def refusal(nodes: list[onnx.NodeProto], constants: dict[str, Array] | None = None) -> str:
    """Return the message with which a network on x (N, 5, 8) is refused."""
    proto = model(nodes, constants or {}, {"x": ["N", 5, 8]}, {"y": ["N", 5, 8]}, 21)
    proto.opset_import.append(helper.make_opsetid(MICROSOFT, 1))
    with pytest.raises(ModelError) as error:
        emulator.load(proto)
    return str(error.value)


def test_operators_that_are_not_there() -> None:
    """One message names every kind, the number of its nodes, their part and a remedy; dead nodes do not count."""
    chain = [
        helper.make_node("Det", ["x"], ["a"], "/model/head/det_1"), helper.make_node("Det", ["a"], ["b"], "/model/head/det_2"),
        helper.make_node("QMoE", ["b"], ["y"], "/model/experts", domain=MICROSOFT),
        helper.make_node("StringNormalizer", ["x"], ["dead"]),
    ]  # fmt: skip
    message = refusal(chain)
    assert "3 of its 3 nodes" in message
    assert "Det (2 nodes, in '/model/head')" in message
    assert "com.microsoft.QMoE (1 node, '/model/experts')" in message
    assert "MatMulNBitsQuantizer" in message
    assert "StringNormalizer" not in message
    assert len(message) < 600


REMEDIES = {
    "select afterwards": [helper.make_node("NonZero", ["x"], ["y"])],
    "onnxsim": [helper.make_node("SequenceConstruct", ["x"], ["s"]), helper.make_node("SequenceMap", ["s"], ["y"])],
    "evaluation mode": [helper.make_node("RandomNormalLike", ["x"], ["y"])],
}


@pytest.mark.parametrize("remedy", REMEDIES)
def test_remedies(remedy: str) -> None:
    assert remedy in refusal(REMEDIES[remedy])


@pytest.mark.parametrize("op_type", ["Softmax", "LayerNormalization", "CumSum"])
def test_nothing_computes_along_the_batch(op_type: str) -> None:
    """The result of an image must not depend on the images beside it."""
    known: dict[str, dict[str, Array]] = {"LayerNormalization": {"c": floats(5, 8)}, "CumSum": {"c": np.array(0)}}
    constants = known.get(op_type, {})
    attributes = {} if op_type == "CumSum" else {"axis": 0}
    message = refusal([helper.make_node(op_type, ["x", *constants], ["y"], **attributes)], constants)
    assert "along the batch" in message
