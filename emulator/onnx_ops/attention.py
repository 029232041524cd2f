"""Attention and rotary embeddings, of ONNX and of Microsoft's domain.

References: https://onnx.ai/onnx/operators/onnx__Attention.html,
https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md.

Shapes are (N, heads, S, head size) for queries and (N, heads, T, head size) for keys and values. T counts the key-value cache
(`past`) and the new tokens. A mask is added to the scores: 0 where a query may attend, -inf where not.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from weakcell.emulator.onnx_ops.registry import (
    CACHE,
    CACHED,
    Array,
    Attributes,
    Inputs,
    claim,
    given,
    ints,
    optional,
    register,
    register_several,
)


class Scores(NamedTuple):
    """Scores of an attention in its stages.

    Attributes:
        raw: scaled products of queries and keys.
        capped: after the soft cap.
        masked: with the mask.
        weights: after Softmax.
    """

    raw: Array
    capped: Array
    masked: Array
    weights: Array


def split_heads(x: Array, heads: int) -> Array:
    """Return (N, S, heads * size) as (N, heads, S, size)."""
    if heads < 1 or x.shape[-1] % heads:
        raise ValueError(f"{heads} heads in {x.shape[-1]} features")
    return x.reshape(*x.shape[:2], heads, -1).swapaxes(1, 2)


def join_heads(x: Array) -> Array:
    """Return (N, heads, S, size) as (N, S, heads * size)."""
    return x.swapaxes(1, 2).reshape(x.shape[0], x.shape[2], -1)


def attend(q: Array, k: Array, v: Array, mask: Array | None, scale: float, softcap: float = 0.0) -> tuple[Array, Scores]:
    """Return softmax(q k / scale + mask) v, and the scores in between.

    Args:
        q: (N, heads, S, size).
        k: (N, key heads, T, size). Each of its heads serves heads / key heads of the queries.
        v: (N, key heads, T, value size).
        mask: broadcasts over (N, heads, S, T). A row of -inf only gives zeros.
        scale: of the products.
        softcap: limits the scores by tanh, if it is not 0.
    """
    if q.shape[1] % max(k.shape[1], 1):
        raise ValueError(f"{q.shape[1]} heads of queries and {k.shape[1]} of keys")
    repeat = q.shape[1] // k.shape[1]
    claim((*q.shape[:3], k.shape[2]), q, k, v)
    root = q.dtype.type(math.sqrt(scale))
    raw = (q * root) @ np.repeat(k * root, repeat, 1).swapaxes(-1, -2)
    capped = raw if softcap == 0 else np.asarray(np.tanh(raw / q.dtype.type(softcap)) * q.dtype.type(softcap))
    masked = capped if mask is None else capped + mask.astype(q.dtype)
    highest = masked.max(-1, keepdims=True)
    e = np.exp(masked - np.where(np.isneginf(highest), 0, highest))
    total = e.sum(-1, keepdims=True)
    weights = np.asarray(e / np.where(total == 0, 1, total), q.dtype)
    if mask is not None:
        nothing = np.isneginf(mask.max(-1, keepdims=True))
        weights = np.where(nothing, q.dtype.type(0), weights)
    return np.asarray(weights @ np.repeat(v, repeat, 1)), Scores(raw, capped, masked, weights)


def window_mask(queries: int, keys: int, first: Array, left: int, right: int) -> Array:
    """Return the mask of a window of keys around each query, (n, 1, queries, keys).

    Args:
        queries: their number.
        keys: their number.
        first: (n,) position of the first query among the keys.
        left: keys before a query that it may attend; -1 for all.
        right: keys behind a query that it may attend; -1 for all, 0 for a causal mask.
    """
    at = first.reshape(-1, 1, 1, 1) + np.arange(queries).reshape(-1, 1)
    distance = np.arange(keys) - at
    hidden = (distance > right) & (right >= 0) | (-distance > left) & (left >= 0)
    return np.where(hidden, np.float32(-np.inf), np.float32(0))


def _additive(mask: Array, keys: int) -> Array:
    """Return a mask as floats to add, with -inf for keys that it does not name."""
    real = np.where(mask, np.float32(0), np.float32(-np.inf)) if mask.dtype == np.bool_ else mask
    missing = keys - real.shape[-1]
    pads = [*[(0, 0)] * (real.ndim - 1), (0, missing)]
    return np.asarray(np.pad(real, pads, constant_values=-np.inf) if missing > 0 else real)


def _sum_of(*masks: Array | None) -> Array | None:
    present = [m for m in masks if m is not None]
    return sum(present[1:], present[0]) if present else None


class Heads(NamedTuple):
    """Queries, and the keys and values of all tokens so far, split into heads.

    Attributes:
        k: with the cache of earlier tokens in front.
        v: likewise.
    """

    q: Array
    k: Array
    v: Array


def _joined(k: Array, v: Array, past_key: Array | None, past_value: Array | None) -> tuple[Array, Array]:
    """Return keys and values behind those of the cache, if there is one."""
    if past_key is None or past_value is None:
        return k, v
    return np.concatenate([past_key, k], 2), np.concatenate([past_value, v], 2)


def _onnx_heads(inputs: Inputs, attributes: Attributes) -> Heads:
    q, k, v = (given(x) for x in inputs[:3])
    if q.ndim == 3:
        q_heads, kv_heads = int(attributes["q_num_heads"]), int(attributes["kv_num_heads"])
        q, k, v = split_heads(q, q_heads), split_heads(k, kv_heads), split_heads(v, kv_heads)
    return Heads(q, *_joined(k, v, optional(inputs, 4), optional(inputs, 5)))


def _onnx_attend(inputs: Inputs, attributes: Attributes, heads: Heads) -> tuple[Array, ...]:
    mask, past_key, _, lengths = (optional(inputs, i) for i in range(3, 7))
    q, k, v = heads
    queries, keys = q.shape[2], k.shape[2]
    left = int(attributes.get("left_window_size", -1))
    right = 0 if attributes.get("is_causal", 0) else int(attributes.get("right_window_size", -1))
    first = np.zeros(1, np.int64) if past_key is None else np.full(1, past_key.shape[2])
    padding = None
    if lengths is not None:
        first = lengths.reshape(-1).astype(np.int64) - queries
        padding = np.where(np.arange(keys) < lengths.reshape(-1, 1, 1, 1), np.float32(0), np.float32(-np.inf))
    window = window_mask(queries, keys, first, left, right) if left >= 0 or right >= 0 else None
    combined = _sum_of(None if mask is None else _additive(mask, keys), window, padding)
    scale = float(attributes.get("scale", 0.0)) or 1 / math.sqrt(q.shape[3])
    y, scores = attend(q, k, v, combined, scale, float(attributes.get("softcap", 0.0)))
    stages = (scores.raw, scores.capped, scores.masked, scores.weights)
    stage = stages[int(attributes.get("qk_matmul_output_mode", 0))]
    return join_heads(y) if given(inputs[0]).ndim == 3 else y, k, v, stage


def _multi_heads(inputs: Inputs, attributes: Attributes) -> Heads:
    heads, q = int(attributes["num_heads"]), given(inputs[0])
    k, v, bias, _, _, past_key, past_value = (optional(inputs, i) for i in range(1, 8))
    if k is None and q.ndim == 5:  # packed: (N, S, heads, 3, size)
        q, k, v = (q[:, :, :, i].reshape(*q.shape[:2], -1) for i in range(3))
    elif k is not None and k.ndim == 5 and v is None:  # keys and values packed: (N, T, heads, 2, size)
        k, v = (k[:, :, :, i].reshape(*k.shape[:2], -1) for i in range(2))
    if k is None or v is None:
        raise ValueError("it has no keys or no values")
    if bias is not None:
        size = q.shape[-1]
        q = q + bias[:size]
        if k.ndim == 3:
            k, v = k + bias[size : 2 * size], v + bias[2 * size :]
    k, v = (x if x.ndim == 4 else split_heads(x, heads) for x in (k, v))
    return Heads(split_heads(q, heads), *_joined(k, v, past_key, past_value))


def _multi_attend(inputs: Inputs, attributes: Attributes, heads: Heads) -> tuple[Array, ...]:
    padding, mask = optional(inputs, 4), optional(inputs, 5)
    q, k, v = heads
    queries, keys = q.shape[2], k.shape[2]
    if padding is not None:
        mask = _sum_of(mask, _padding_mask(padding, keys, float(attributes.get("mask_filter_value", -10000.0))))
    if attributes.get("unidirectional", 0):
        mask = _sum_of(mask, window_mask(queries, keys, np.full(1, keys - queries), -1, 0))
    scale = float(attributes.get("scale", 0.0)) or 1 / math.sqrt(q.shape[3])
    return join_heads(attend(q, k, v, mask, scale)[0]), k, v


def _padding_mask(padding: Array, keys: int, hidden: float) -> Array:
    """Return the mask of Microsoft's key padding: lengths (N,), or 0 where a key is hidden, (N, T) or (N, S, T)."""
    visible = np.arange(keys) < padding.reshape(-1, 1) if padding.ndim == 1 else padding != 0
    shape = (visible.shape[0], 1, 1 if visible.ndim == 2 else visible.shape[1], visible.shape[-1])
    return np.where(visible, np.float32(0), np.float32(hidden)).reshape(shape)


# ── rotary embeddings ─────────────────────────────────────────────────────────────────────────────────


def rotate(x: Array, cosine: Array, sine: Array, interleaved: bool) -> Array:
    """Rotate pairs of features of (N, heads, S, size) by the angles of their position.

    Args:
        x: queries or keys.
        cosine: (N, S, pairs); features behind the pairs stay as they are.
        sine: likewise.
        interleaved: whether a pair is two neighbours; otherwise it is one feature of each half.
    """
    pairs = cosine.shape[-1]
    turned, rest = x[..., : 2 * pairs], x[..., 2 * pairs :]
    a, b = (turned[..., 0::2], turned[..., 1::2]) if interleaved else (turned[..., :pairs], turned[..., pairs:])
    c, s = cosine[:, None], sine[:, None]
    real, imaginary = c * a - s * b, s * a + c * b
    parts = [real, imaginary]
    both = np.stack(parts, -1).reshape(turned.shape) if interleaved else np.concatenate(parts, -1)
    return np.asarray(np.concatenate([both, rest], -1), x.dtype)


def _angles(cache: Array, positions: Array | None, x: Array) -> Array:
    """Return the rows of a cache of cosines or sines for (N, S) positions."""
    if positions is None:
        return cache
    wanted = positions.astype(np.int64)
    if positions.size == 1:  # the position of the first token
        wanted = wanted.reshape(1, 1) + np.arange(x.shape[2])
    if wanted.size and (wanted.min() < 0 or wanted.max() >= cache.shape[0]):
        raise ValueError(f"a position is outside a cache of {cache.shape[0]} rows")
    return np.asarray(cache[wanted])


@register("RotaryEmbedding")
def _rotary(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    """RotaryEmbedding of ONNX: input, cosines, sines, positions."""
    x, cosine, sine, positions = given(inputs[0]), given(inputs[1]), given(inputs[2]), optional(inputs, 3)
    return _rotated(x, (cosine, sine), positions, attributes, int(attributes.get("num_heads", 0)))


@register("com.microsoft.RotaryEmbedding")
def _rotary_microsoft(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    """RotaryEmbedding of Microsoft: input, positions, cosines, sines."""
    x, positions, cosine, sine = (given(v) for v in inputs[:4])
    dim, heads = int(attributes.get("rotary_embedding_dim", 0)), int(attributes.get("num_heads", 0))
    heads = heads if dim and heads else x.shape[-1] // (2 * cosine.shape[-1])
    y = _rotated(x, (cosine, sine), positions, attributes, heads)
    return np.asarray(y * x.dtype.type(attributes.get("scale", 1.0)))


def _rotated(x: Array, caches: tuple[Array, Array], positions: Array | None, attributes: Attributes, heads: int) -> Array:
    plain = x if x.ndim == 4 else split_heads(x, heads)
    dim = int(attributes.get("rotary_embedding_dim", 0)) or plain.shape[-1]
    cosine, sine = (_angles(cache, positions, plain) for cache in caches)
    if cosine.shape[-1] != dim // 2:
        raise ValueError(f"the cache has {cosine.shape[-1]} angles, and {dim // 2} pairs are rotated")
    y = rotate(plain, cosine, sine, bool(attributes.get("interleaved", 0)))
    return y if x.ndim == 4 else join_heads(y)


def _first_positions(inputs: Inputs, new: int) -> tuple[Array, Array, int]:
    """Return for each sequence the position of its first new token and its length, and the most tokens of any."""
    ends = given(inputs[5]).reshape(-1).astype(np.int64) + 1
    most = max(ints(given(inputs[6]))[0], new)
    return np.maximum(ends - new, 0) if most > new else np.zeros(len(ends), np.int64), ends, most


def _group_heads(inputs: Inputs, attributes: Attributes) -> Heads:
    q, k, v = given(inputs[0]), optional(inputs, 1), optional(inputs, 2)
    past_key, past_value, _, _, cosine, sine, positions = (optional(inputs, i) for i in range(3, 10))
    heads, kv_heads = int(attributes["num_heads"]), int(attributes["kv_num_heads"])
    if k is None or v is None:  # packed: queries, keys and values in one tensor
        size = q.shape[-1] // (heads + 2 * kv_heads)
        q, k, v = np.split(q, [heads * size, (heads + kv_heads) * size], -1)
    q, k, v = split_heads(q, heads), split_heads(k, kv_heads), split_heads(v, kv_heads)
    new = q.shape[2]
    first, _, most = _first_positions(inputs, new)
    if attributes.get("do_rotary", 0):
        where = first.reshape(-1, 1) + np.arange(new) if positions is None else positions.astype(np.int64)
        turned = bool(attributes.get("rotary_interleaved", 0))
        angles = [_angles(given(cache), np.minimum(where, given(cache).shape[0] - 1), q) for cache in (cosine, sine)]
        q, k = (rotate(x, angles[0], angles[1], turned) for x in (q, k))
    return Heads(q, _append(past_key, k, first, most), _append(past_value, v, first, most))


def _group_attend(inputs: Inputs, attributes: Attributes, heads: Heads) -> tuple[Array, ...]:
    bias, sink = optional(inputs, 10), optional(inputs, 11)
    q, k, v = heads
    first, ends, _ = _first_positions(inputs, q.shape[2])
    hidden = np.where(np.arange(k.shape[2]) < ends.reshape(-1, 1, 1, 1), np.float32(0), np.float32(-np.inf))
    local = int(attributes.get("local_window_size", -1))
    causal = window_mask(q.shape[2], k.shape[2], first, local - 1 if local > 0 else -1, 0)
    scale = float(attributes.get("scale", 0.0)) or 1 / math.sqrt(q.shape[3])
    if sink is not None or attributes.get("smooth_softmax", 0):
        raise ValueError("a smooth softmax or head sinks are not supported")
    y = attend(q, k, v, _sum_of(bias, causal, hidden), scale, float(attributes.get("softcap", 0.0)))[0]
    return join_heads(y), k, v


def _append(past: Array | None, new: Array, first: Array, most: int) -> Array:
    """Return a cache of keys or values with the new tokens behind the old ones of each sequence."""
    length = max(most, 0 if past is None else past.shape[2])
    result = np.zeros(claim((*new.shape[:2], length, new.shape[3]), new, *([] if past is None else [past])), new.dtype)
    for sequence, start in enumerate(first):
        if past is not None:
            result[sequence, :, :start] = past[sequence, :, :start]
        room = result[sequence, :, start : start + new.shape[2]]
        room[:] = new[sequence, :, : room.shape[1]]
    return result


# ── operators ─────────────────────────────────────────────────────────────────────────────────────────

Split = Callable[[Inputs, Attributes], Heads]
Attend = Callable[[Inputs, Attributes, Heads], "tuple[Array, ...]"]


def _register(domain: str, name: str, split: Split, attend_to: Attend) -> None:
    """Register an attention, and the two halves that an importer puts in its place where keys and values are a cache.

    `NAME.cache` makes keys and values from the inputs of the attention. `NAME.cached` reads keys and values as its first two
    inputs, and the inputs of the attention behind them. The domain of the halves of ONNX's own operator is `weakcell`.
    """
    halves = f"{domain or 'weakcell'}.{name}"

    @register_several(f"{domain}.{name}" if domain else name)
    def whole(inputs: Inputs, attributes: Attributes, opset: int, outputs: int) -> tuple[Array, ...]:
        return attend_to(inputs, attributes, split(inputs, attributes))

    @register_several(f"{halves}{CACHE}")
    def cache(inputs: Inputs, attributes: Attributes, opset: int, outputs: int) -> tuple[Array, ...]:
        return split(inputs, attributes)[1:]

    @register_several(f"{halves}{CACHED}")
    def cached(inputs: Inputs, attributes: Attributes, opset: int, outputs: int) -> tuple[Array, ...]:
        k, v, *others = inputs
        y, _, _, *stage = attend_to(others, attributes, Heads(split(others, attributes).q, given(k), given(v)))
        return y, *stage


_register("", "Attention", _onnx_heads, _onnx_attend)
"""Attention of ONNX, opset 23 and later: query, key, value, mask, past key, past value, lengths."""

_register("com.microsoft", "MultiHeadAttention", _multi_heads, _multi_attend)
"""Query, key, value, bias, key padding mask, attention bias, past key, past value."""

_register("com.microsoft", "GroupQueryAttention", _group_heads, _group_attend)
"""Query, key, value, past key, past value, lengths less 1, longest length, cosines, sines, positions, attention bias, sinks.

The cache `past` holds the tokens of a sequence from its beginning. The output `present` has room for all tokens so far; rows
behind the length of a sequence are 0.
"""
