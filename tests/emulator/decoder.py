"""A small decoder in the form of onnxruntime-genai: 4-bit blocks, grouped queries, a key-value cache."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from tests.emulator.models import Array, model

RNG = np.random.default_rng(97)
WORDS, WIDTH, HEADS, PAIRS, SIZE, INNER = 30, 64, 4, 2, 16, 32
BLOCK = 16


def floats(*shape: int) -> Array:
    return RNG.normal(0, 1, shape).astype(np.float32)


class Draft:
    """Nodes and constants of a graph."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, Array] = {}

    def add(self, op_type: str, inputs: str, outputs: str, domain: str = "", **attributes: Any) -> str:
        """Append a node; "-" is a name that is left out."""
        names, ends = ([n if n != "-" else "" for n in text.split()] for text in (inputs, outputs))
        self.nodes.append(helper.make_node(op_type, names, ends, f"/{ends[0]}/{op_type}", domain=domain, **attributes))
        return ends[0]

    def product(self, x: str, name: str, inputs: int, outputs: int) -> str:
        """Append a MatMulNBits with 4-bit weights."""
        blocks = inputs // BLOCK
        self.constants |= {
            f"{name}.q": RNG.integers(0, 256, (outputs, blocks, BLOCK // 2)).astype(np.uint8),
            f"{name}.s": (RNG.uniform(0.02, 0.06, outputs * blocks)).astype(np.float32),
        }
        size = {"K": inputs, "N": outputs, "bits": 4, "block_size": BLOCK, "accuracy_level": 0}
        return self.add("MatMulNBits", f"{x} {name}.q {name}.s", name, "com.microsoft", **size)


def decoder() -> onnx.ModelProto:
    """Return one block of a LLaMA in the form of onnxruntime-genai's model builder."""
    d = Draft()
    angles = np.outer(np.arange(16), 0.5 ** np.arange(SIZE // 2)).astype(np.float32)
    d.constants |= {
        "table": RNG.integers(0, 256, (WORDS, WIDTH // 2)).astype(np.uint8), "table.s": floats(WORDS, WIDTH // BLOCK) / 4,
        "cos": np.cos(angles), "sin": np.sin(angles), "one": np.array([1]), "at": np.array(1),
        **{f"norm{i}": RNG.uniform(0.5, 1.5, WIDTH).astype(np.float32) for i in range(3)},
    }  # fmt: skip
    d.add("ReduceSum", "attention_mask one", "lengths", keepdims=0)
    d.add("Cast", d.add("Sub", "lengths one", "less"), "seqlens_k", to=TensorProto.INT32)
    d.add("Gather", f"{d.add('Shape', 'attention_mask', 'mask_shape')} at", "total", axis=0)
    d.add("Cast", "total", "total_length", to=TensorProto.INT32)
    x = d.add("GatherBlockQuantized", "table input_ids table.s", "x", "com.microsoft", block_size=BLOCK, quantize_axis=1, bits=4)
    h = d.add("SimplifiedLayerNormalization", f"{x} norm0", "h0", axis=-1, epsilon=1e-5, stash_type=1)
    q, k, v = (d.product(h, name, WIDTH, size * SIZE) for name, size in (("q", HEADS), ("k", PAIRS), ("v", PAIRS)))
    d.add(
        "GroupQueryAttention", f"{q} {k} {v} past.key past.value seqlens_k total_length cos sin", "heads present.key present.value",
        "com.microsoft", num_heads=HEADS, kv_num_heads=PAIRS, do_rotary=1, scale=SIZE**-0.5,
    )  # fmt: skip
    o = d.product("heads", "o", HEADS * SIZE, WIDTH)
    d.add("SkipSimplifiedLayerNormalization", f"{x} {o} norm1", "h1 - - x1", "com.microsoft", epsilon=1e-5)
    gate, up = d.product("h1", "gate", WIDTH, INNER), d.product("h1", "up", WIDTH, INNER)
    d.add("Mul", f"{gate} {d.add('Sigmoid', gate, 'open')}", "silu")
    down = d.product(d.add("Mul", f"silu {up}", "gated"), "down", INNER, WIDTH)
    d.add("SkipSimplifiedLayerNormalization", f"x1 {down} norm2", "h2", "com.microsoft", epsilon=1e-5)
    d.nodes.append(helper.make_node("Identity", [d.product("h2", "head", WIDTH, WORDS)], ["logits"]))
    cache: Sequence[Any] = ["batch", PAIRS, "past", SIZE]
    inputs: dict[str, Sequence[Any]] = {
        "input_ids": ["batch", "new"], "attention_mask": ["batch", "total"], "past.key": cache, "past.value": cache,
    }  # fmt: skip
    types = {"input_ids": TensorProto.INT64, "attention_mask": TensorProto.INT64}
    proto = model(d.nodes, d.constants, inputs, {}, 21, types)
    for name in ("logits", "present.key", "present.value"):
        proto.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return proto


def decoder_inputs(new: int, past: int, batch: int = 2) -> dict[str, Array]:
    return {
        "input_ids": RNG.integers(0, WORDS, (batch, new)), "attention_mask": np.ones((batch, past + new), np.int64),
        "past.key": floats(batch, PAIRS, past, SIZE), "past.value": floats(batch, PAIRS, past, SIZE),
    }  # fmt: skip
