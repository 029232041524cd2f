"""Kernels on shapes, windows and values chosen by hypothesis, and flips in every encoding. Oracle: sums in int64."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.emulator.reference import LAYERS, evaluate, windows
from tests.emulator.small import INT2, INT4, INT8, INT32, UINT8, RandomNetwork, pixels, with_flips
from weakcell.emulator import compile_plan, infer
from weakcell.emulator.engine.conv_inputs import window_geometry
from weakcell.emulator.engine.fusion import CodeConvolution, SignConvolution, fuse_layers
from weakcell.emulator.engine.layer_functions import compute, to_channels_last
from weakcell.emulator.ir.layer import Layer
from weakcell.emulator.ir.layers import (
    AffineRequantize,
    AveragePool,
    Convolution,
    Dequantize,
    MaxPool,
    Requantize,
    TernarySign,
    Threshold,
)
from weakcell.emulator.ir.network import Network
from weakcell.emulator.ir.values import (
    SIGN1,
    Encoding,
    StoredTensor,
    ValueSpec,
    Window,
    decode_codes,
    encode_values,
    pack_channels,
    storage_layout,
    unpack_channels,
)
from weakcell.emulator.kernels import entry_points
from weakcell.emulator.plan.parameters import new_parameters
from weakcell.memmodels.address import pack

SEEDS = st.integers(0, 2**32 - 1)
EVEN = settings(max_examples=60)


@st.composite
def shapes(draw: st.DrawFn, channels: int = 130) -> tuple[tuple[int, int, int, int], Window, int]:
    """Draw image sizes (n, C, H, W), a window that fits, and output channels, near the limits of words, lanes and tiles."""
    kernel = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    stride = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    dilation = draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
    pads = draw(st.tuples(*[st.integers(0, 2)] * 4))
    sizes = [draw(st.integers(max(1, dilation[i] * (kernel[i] - 1) + 1 - pads[i] - pads[i + 2]), 9)) for i in range(2)]
    c = draw(st.sampled_from([c for c in (1, 2, 3, 31, 32, 33, 63, 64, 65, 127, 128, 130) if c <= channels]))
    o = draw(st.sampled_from([1, 2, 31, 32, 33, 64, 65]))
    return (draw(st.integers(1, 3)), c, *sizes), Window(kernel, stride, dilation, pads), o


def one_convolution(
    x: np.ndarray, kind: str, dtype: str, zero_point: int, tensor: StoredTensor, window: Window, groups: int = 1, bias: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Return (the engine's sums, int64 sums), both (n, O, H, W); x holds codes, or ±1 for `bits`."""
    spec = ValueSpec("x", kind, x.shape[1:], dtype, zero_point=zero_point)  # type: ignore[arg-type]
    outputs = tensor.shape[0]
    out = ValueSpec("y", "codes", (outputs, *window.output_size(*x.shape[2:])), "int32")
    biases = StoredTensor("b", "bias", INT32, np.random.default_rng(outputs).integers(-(2**20), 2**20, outputs).astype(np.int32))
    layer = Convolution("c", ("x",), "y", "w", "b" if bias else None, window, groups)
    network = Network("one", ("x",), ("y",), (layer,), {"x": spec, "y": out}, {"w": tensor, "b": biases})
    last = to_channels_last(x, spec)
    held = pack_channels(last > 0) if kind == "bits" else last.astype(dtype)
    made = compute(layer, [held], new_parameters(compile_plan(network)))
    return made.transpose(0, 3, 1, 2), LAYERS[Convolution](network, layer, [x.astype(np.int64)])


@EVEN
@given(shapes(), SEEDS)
def test_binary_convolution(shape: tuple[Any, Window, int], seed: int) -> None:
    size, window, outputs = shape
    rng = np.random.default_rng(seed)
    w = StoredTensor("w", "weight", SIGN1, rng.choice([-1, 1], (outputs, size[1], *window.kernel)).astype(np.int32))
    made, sums = one_convolution(rng.choice([-1, 1], size), "bits", "uint64", 0, w, window)
    np.testing.assert_array_equal(made, sums)


@EVEN
@given(shapes(65), SEEDS, st.sampled_from([SIGN1, INT2, INT4, INT8, UINT8]), st.booleans(), st.booleans())
def test_integer_convolution(shape: tuple[Any, Window, int], seed: int, encoding: Encoding, shifted: bool, bias: bool) -> None:
    size, window, outputs = shape
    rng = np.random.default_rng(seed)
    values = rng.integers(encoding.low, encoding.high + 1, (outputs, size[1], *window.kernel)).astype(np.int32)
    if encoding == SIGN1:
        values[values == 0] = 1
    zero = rng.integers(encoding.low, encoding.high + 1, outputs).astype(np.int32) if shifted else np.int32(0)
    w = StoredTensor("w", "weight", encoding, values, zero_point=np.asarray(zero))
    dtype = ("uint8", "int8", "uint16", "int16")[seed % 4]
    limits = np.iinfo(dtype)
    zero_x = int(rng.integers(limits.min, limits.max + 1)) if dtype != "uint16" else int(rng.integers(1 << 14))
    x = rng.integers(np.iinfo(dtype).min, np.iinfo(dtype).max + 1, size)
    made, sums = one_convolution(x, "codes", dtype, zero_x, w, window, bias=bias)
    np.testing.assert_array_equal(made, sums.astype(np.int32))  # 16 bits times 8 may wrap


@settings(max_examples=30)
@given(shapes(3), SEEDS, st.integers(1, 4), st.sampled_from(["uint8", "bits"]))
def test_grouped_convolution(shape: tuple[Any, Window, int], seed: int, groups: int, dtype: str) -> None:
    (n, inner, h, w), window, outputs = shape
    rng = np.random.default_rng(seed)
    encoding = SIGN1 if dtype == "bits" else INT8
    values = rng.choice([-1, 1], (outputs * groups, inner, *window.kernel)) * (1 if dtype == "bits" else 127)
    tensor = StoredTensor("w", "weight", encoding, values.astype(np.int32))
    x = rng.choice([-1, 1], (n, inner * groups, h, w)) if dtype == "bits" else rng.integers(0, 256, (n, inner * groups, h, w))
    kind, held, zero = ("bits", "uint64", 0) if dtype == "bits" else ("codes", "uint8", 77)
    made, sums = one_convolution(x, kind, held, zero, tensor, window, groups, bias=dtype != "bits")
    np.testing.assert_array_equal(made, sums)


@pytest.mark.parametrize("signs", [(1, 1), (1, -1), (-1, -1)])
def test_extreme_values_within_int32(signs: tuple[int, int]) -> None:
    """The largest int32 sums: two products of ±32767, and 129 products of 127 * 32767."""
    for channels, weight, encoding in ((2, 32767, Encoding("signed", 16)), (129, 127, INT8)):
        x = np.full((2, channels, 1, 3), 32767 * signs[0])
        w = StoredTensor("w", "weight", encoding, np.full((33, channels, 1, 1), weight * signs[1], np.int32))
        made, sums = one_convolution(x, "codes", "int32", 0, w, Window((1, 1)))
        assert np.abs(sums).max() > 5e8
        np.testing.assert_array_equal(made, sums)


def test_sums_past_int32_wrap() -> None:
    """A sum that a faulty bias takes past int32 wraps, as in the registers of a target."""
    x, bias = np.full((1, 1, 1, 2), 5), np.array([2**31 - 1, -(2**31)], np.int32)
    for encoding, weight in ((INT8, 100), (INT8, -100)):
        d = RandomNetwork(np.random.default_rng(0))
        out = d.convolution(d.input("x", (1, 1, 2)), 2, Window((1, 1)), encoding, bias=True)
        d.store("c0.w", "weight", encoding, np.full((2, 1, 1, 1), weight))
        d.store("c0.b", "bias", INT32, bias)
        made = infer(compile_plan(d.network(out)), {"x": x})[out]
        np.testing.assert_array_equal(made[0, :, 0, 0], (5 * weight + bias.astype(np.int64)).astype(np.int32))


@EVEN
@given(shapes(65), SEEDS, st.booleans(), st.booleans(), st.booleans())
def test_fused_signs(shape: tuple[Any, Window, int], seed: int, pooled: bool, packed: bool, bias: bool) -> None:
    """Convolution, pool and threshold in one pass give the bits of the three layers in sequence."""
    size, window, outputs = shape
    d = RandomNetwork(np.random.default_rng(seed))
    x = d.input("x", size[1:], "int8", zero_point=0 if packed else -3)
    if packed:
        x = d.threshold(x)
    x = d.convolution(x, outputs, window, SIGN1 if packed else INT4, bias=bias and not packed)
    if pooled:
        x = d.pool(
            x, Window((2, 2), (1, 2), pads=(1, 0, 1, 1)) if seed % 2 or 1 in d.values[x].shape[1:] else Window((2, 2), (1, 2))
        )
    spread = int(np.sqrt(size[1] * np.prod(window.kernel)) * (1 if packed else 100)) + 1
    network = d.network(d.threshold(x, spread))
    d.tensors[network.layers[-1].threshold].values[:1] = -(2**31)  # type: ignore[attr-defined]
    assert any(isinstance(step, SignConvolution) for step in fuse_layers(network)) or bias
    images = d.rng.integers(-128, 128, size)
    made = infer(compile_plan(network), {"x": images})
    np.testing.assert_array_equal(made[network.outputs[0]], evaluate(network, {"x": images})[network.outputs[0]])


@EVEN
@given(shapes(65), SEEDS, st.booleans(), st.sampled_from([INT8, UINT8, INT4, INT2]), st.sampled_from([1, 1, 2, 0]))
def test_fused_codes(shape: tuple[Any, Window, int], seed: int, affine: bool, encoding: Encoding, groups: int) -> None:
    """Convolution and requantization in one pass give the codes of the two layers in sequence; groups 0: depthwise."""
    (n, channels, height, width), window, outputs = shape
    d = RandomNetwork(np.random.default_rng(seed))
    channels, outputs = (outputs, outputs) if groups == 0 else (channels * groups, outputs * groups)
    x = d.input("x", (channels, height, width), "uint8", zero_point=seed % 256)
    acc = d.convolution(x, outputs, window, encoding, groups or channels, bias=True, zero_point=128 if encoding == UINT8 else 0)
    spread = 300.0 / np.sqrt(np.prod(d.tensors["c0.w"].shape[1:])) / 256 / encoding.high
    scale, dtype = (d.rng.normal(size=outputs) * spread).astype(np.float32), ("int8", "uint8")[seed // 2 % 2]
    if seed % 2:  # constants that BOUNDED rounding does not cover
        scale[d.rng.integers(0, outputs, 2)] = [np.nan, np.inf]
    zero_point, low, high = (3, -100, 120) if dtype == "int8" else (70, 20, 255)
    d.value("q", "codes", d.values[acc].shape, dtype, 0.5, zero_point)
    if affine and seed % 3:
        bias = d.rng.normal(size=outputs).astype(np.float32)
        d.layers.append(AffineRequantize("q", (acc,), "q", scale, bias, 0.3, zero_point, low, high))
    elif affine:  # quotients that are ties
        ones, divisor = np.ones(outputs, np.float32), float(2 * max(1, round(1 / spread)) + seed // 3 % 2 * 4)
        d.layers.append(AffineRequantize("q", (acc,), "q", ones, None, divisor, zero_point, low, high))
    else:
        d.layers.append(Requantize("q", (acc,), "q", scale, zero_point, low, high))
    network = d.network(d.dequantize("q"))
    assert [type(step) for step in fuse_layers(network)] == [CodeConvolution, Dequantize]
    images = d.rng.integers(0, 256, (n, channels, height, width))
    with np.errstate(all="ignore"):
        expected = evaluate(network, {"x": images})[network.outputs[0]]
    plan = compile_plan(network)
    np.testing.assert_array_equal(infer(plan, {"x": images})[network.outputs[0]], expected)
    np.testing.assert_array_equal(infer(plan, {"x": images}, probe=[acc])[network.outputs[0]], expected)  # one after the other


@settings(max_examples=40)
@given(
    st.integers(1, 150), st.integers(1, 70), st.sampled_from([SIGN1, INT2, INT4, INT8]), st.sampled_from(["uint8", "int8"]), SEEDS
)
def test_dense_layer_of_one_image(channels: int, outputs: int, encoding: Encoding, dtype: str, seed: int) -> None:
    """Sums, codes and signs of the gemv path: partial weight words, extreme weights, then flipped bits."""
    d = RandomNetwork(np.random.default_rng(seed))
    x = d.input("x", (channels,), ("uint8", "int8")[seed % 2], zero_point=3)
    weights = d.rng.choice([encoding.low, encoding.high], (outputs, channels, 1, 1))
    ends = [d.dense(x, outputs, encoding) for _ in range(3)]
    for layer in d.layers:
        d.tensors[layer.weight].values[...] = np.where(weights == 0, -1, weights)  # type: ignore[attr-defined]
    network = d.network(ends[0], d.dequantize(d.requantize(ends[1], 0.02)), d.threshold(ends[2], 500))
    images, plan = pixels(network, 1, seed), compile_plan(network)
    flips = d.rng.integers(0, 1 << 63, -(-outputs * channels * encoding.bits // 64)).astype(np.uint64)
    flips[-1] &= np.uint64((1 << ((outputs * channels * encoding.bits - 1) % 64 + 1)) - 1)
    for _ in range(2):
        made, expected = infer(plan, images), evaluate(network, images)
        for name in network.outputs:
            np.testing.assert_array_equal(made[name], expected[name])
        tensors = {n: t if t.role != "weight" else with_flips(t, tuple(range(encoding.bits)), flips) for n, t in d.tensors.items()}
        network, plan = replace(network, tensors=tensors), compile_plan(replace(network, tensors=tensors))


def test_any_number_of_rows() -> None:
    """One row, less than a tile, a tile and one more, more than a chunk; of one word or two."""
    for width in (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 95, 96, 97, 103, 200, 255, 256, 257, 300):
        rng = np.random.default_rng(width)
        for kind, dtype, encoding in (("bits", "uint64", SIGN1), ("codes", "int8", INT8)):
            channels = 5 if width % 2 else 70
            x = rng.choice([-1, 1], (1, channels, 1, width))
            w = StoredTensor("w", "weight", encoding, rng.choice([-1, 1], (3, channels, 1, 1)).astype(np.int32))
            made, sums = one_convolution(x, kind, dtype, 0, w, Window((1, 1)))
            np.testing.assert_array_equal(made, sums)


# --- bits --------------------------------------------------------------------------------------------------------------------


@given(st.integers(1, 200), st.integers(0, 5), SEEDS)
def test_channels_pack_and_unpack(channels: int, pixels: int, seed: int) -> None:
    plus = np.random.default_rng(seed).integers(0, 2, (2, pixels, 1, channels)).astype(bool)
    words = pack_channels(plus)
    assert words.shape == (2, pixels, 1, -(-channels // 64))
    np.testing.assert_array_equal(unpack_channels(words, channels), np.where(plus, 1, -1))
    if channels % 64:
        assert not np.any(words[..., -1] >> np.uint64(channels % 64))  # spare bits are 0


@given(st.integers(1, 140), SEEDS)
def test_thresholds(channels: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    acc = rng.integers(-5, 6, (2, 3, 2, channels)).astype(np.int32)
    threshold = rng.choice([-(2**31), -2, 0, 1, 3, 2**31 - 1], channels).astype(np.int32)
    acc[0, 0, 0] = threshold
    inverted = rng.integers(0, 2, channels).astype(bool)
    out = np.zeros((2, 3, 2, -(-channels // 64)), np.uint64)
    entry_points.threshold_pack(acc, threshold, inverted, out)
    expected = (acc.astype(np.int64) >= threshold.astype(np.int64)) != inverted
    np.testing.assert_array_equal(out, pack_channels(expected))


# --- pools -------------------------------------------------------------------------------------------------------------------


@st.composite
def pools(draw: st.DrawFn) -> tuple[tuple[int, int], Window]:
    """Draw an image size and a window with at least one tap in the image at every position."""
    kernel = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    stride = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    dilation = draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
    pads = tuple(draw(st.integers(0, kernel[i % 2] - 1 if dilation[i % 2] == 1 else 0)) for i in range(4))
    sizes = tuple(draw(st.integers(dilation[i] * (kernel[i] - 1) + 1, 9)) for i in range(2))
    return sizes, Window(kernel, stride, dilation, pads, draw(st.booleans()))  # type: ignore[arg-type]


@EVEN
@given(pools(), SEEDS, st.sampled_from(["uint8", "int8", "int32", "bits"]))
def test_max_pool(case: tuple[tuple[int, int], Window], seed: int, dtype: str) -> None:
    size, window = case
    rng, out = np.random.default_rng(seed), window.output_size(*size)
    if dtype == "bits":
        x = rng.choice([-1, 1], (2, 70, *size))
        made = np.zeros((2, *out, 2), np.uint64)
        entry_points.or_pool(pack_channels(x.transpose(0, 2, 3, 1) > 0), window_geometry(window), made)
        made = unpack_channels(made, 70)
    else:
        x = rng.integers(np.iinfo(dtype).min, np.iinfo(dtype).max + 1, (2, 5, *size)).astype(dtype)
        made = np.zeros((2, *out, 5), dtype)
        entry_points.max_pool(np.ascontiguousarray(x.transpose(0, 2, 3, 1)), window_geometry(window), made)
    expected = windows(x.astype(np.int64), window, np.iinfo(np.int64).min).max((4, 5))
    np.testing.assert_array_equal(made.transpose(0, 3, 1, 2), expected)


@EVEN
@given(pools(), SEEDS, st.sampled_from(["uint8", "int8"]))
def test_sum_pool(case: tuple[tuple[int, int], Window], seed: int, dtype: str) -> None:
    size, window = case
    rng, out, zero = np.random.default_rng(seed), window.output_size(*size), 11
    x = rng.integers(np.iinfo(dtype).min, np.iinfo(dtype).max + 1, (2, 5, *size)).astype(dtype)
    made, counts = np.zeros((2, *out, 5), np.int32), np.zeros(out, np.int64)
    entry_points.sum_pool(np.ascontiguousarray(x.transpose(0, 2, 3, 1)), zero, window_geometry(window), False, made, counts)
    inside = windows(np.ones((1, 1, *size), np.int64), window, 0)
    np.testing.assert_array_equal(made.transpose(0, 3, 1, 2), windows(x.astype(np.int64) - zero, window, 0).sum((4, 5)))
    np.testing.assert_array_equal(counts, inside.sum((4, 5))[0, 0])


@pytest.mark.parametrize("include", [False, True])
@pytest.mark.parametrize("ceil_mode", [False, True])
def test_average_pool_counts(include: bool, ceil_mode: bool) -> None:
    """Oracle: onnxruntime's AveragePool of ones, with and without padding in the count."""
    from tests.emulator.models import model, node, run

    window = Window((3, 2), (2, 2), (1, 1), (1, 0, 1, 1), ceil_mode)
    attributes = {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 0, 1, 1], "ceil_mode": int(ceil_mode)}
    nodes = [node("AveragePool", "x", "y", count_include_pad=int(include), **attributes)]
    for size in ((6, 7), (7, 6), (6, 6), (7, 7)):
        proto = model(nodes, {}, {"x": ["N", 1, *size]}, {"y": None}, 19)  # type: ignore[dict-item]
        x, out = np.ones((1, *size, 1), np.int8), window.output_size(*size)
        sums, counts = np.zeros((1, *out, 1), np.int32), np.zeros(out, np.int64)
        entry_points.sum_pool(x, 0, window_geometry(window), include, sums, counts)
        theirs = run(proto, {"x": np.ones((1, 1, *size), np.float32)})[0]
        assert theirs.shape[2:] == out
        np.testing.assert_allclose(sums[0, :, :, 0] / counts, theirs[0, 0], rtol=1e-6)


# --- flips -------------------------------------------------------------------------------------------------------------------


def network_of_every_layout(seed: int) -> Network:
    """Return a network that stores every encoding in every weight layout."""
    d = RandomNetwork(np.random.default_rng(seed))
    x = d.input("x", (3, 5, 4), "int8")
    y = d.threshold(d.convolution(x, 66, Window((2, 2)), SIGN1, bias=True))
    d.convolution(y, 35, Window((2, 3)), SIGN1)  # packed
    d.convolution(y, 66, Window((1, 1)), SIGN1, groups=2)  # signs of a grouped convolution, as integers
    for encoding in (INT2, INT4, INT8, UINT8, Encoding("signed", 16)):
        d.convolution(x, 33, Window((2, 1)), encoding, bias=True)
        d.convolution(x, 6, Window((2, 1)), encoding, groups=3)
    d.store("u32", "bias", Encoding("unsigned", 32), d.rng.integers(0, 2**31, 40))
    return d.network(y)


@pytest.mark.parametrize("share", [0.0, 0.03, 0.5, 1.0])
def test_flips_equal_flips_of_the_stored_code(share: float) -> None:
    """Flips in kernel order equal a new plan of flipped codes, for all sets of planes; flipping twice restores the values."""
    network = network_of_every_layout(1)
    plan, rng = compile_plan(network), np.random.default_rng(int(share * 100))
    run = new_parameters(plan)
    for name, tensor in network.tensors.items():
        every = tuple(range(tensor.encoding.bits))
        for planes in {every, *((p,) for p in every), every[::2], every[-1:]}:
            layout = storage_layout(tensor, planes)
            cells = rng.random((tensor.elements, len(planes))) < share
            flips = pack((cells << np.array(planes)).sum(1), layout)
            run.flip(name, planes, flips)
            if tensor.encoding != Encoding("unsigned", 32):
                changed = with_flips(tensor, planes, flips)
                expected = compile_plan(replace(network, tensors={**network.tensors, name: changed})).tensors[name].values
            else:
                expected = tensor.values.astype(np.int64) ^ (cells << np.array(planes)).sum(1)
            np.testing.assert_array_equal(run.values[name], expected.reshape(run.values[name].shape))
            assert np.any(cells) == np.any(run.values[name] != plan.tensors[name].values)
            run.flip(name, planes, flips)
            np.testing.assert_array_equal(run.values[name], plan.tensors[name].values)


@given(st.sampled_from([SIGN1, INT2, INT4, INT8, UINT8, INT32]), SEEDS)
def test_codes_decode_to_their_values(encoding: Encoding, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.choice([-1, 1], 50) if encoding == SIGN1 else rng.integers(encoding.low, encoding.high + 1, 50)
    codes = encode_values(values.astype(np.int32), encoding)
    assert codes.max() < 2**encoding.bits
    np.testing.assert_array_equal(decode_codes(codes, encoding), values)
    if encoding.kind == "signed":
        assert np.array_equal(codes >> np.uint64(encoding.bits - 1), (values < 0).astype(np.uint64))


# --- other layers ------------------------------------------------------------------------------------------------------------


@given(SEEDS)
def test_ternary_signs_and_means(seed: int) -> None:
    rng = np.random.default_rng(seed)
    stored = {k: StoredTensor(k, "threshold", INT32, rng.integers(-3, 4, 6).astype(np.int32)) for k in ("u", "l", "t")}
    x = ValueSpec("x", "codes", (6, 4, 5), "int8", np.array(0.3, np.float32), 2)
    inverted = rng.integers(0, 2, 6).astype(bool)
    window = Window((2, 3), (1, 2), pads=(1, 1, 0, 1))
    layers: list[tuple[Layer, tuple[int, ...], str]] = [
        (TernarySign("s", ("x",), "y", "u", "l", inverted), (6, 4, 5), "int8"),
        (Threshold("s", ("x",), "y", "t", inverted), (6, 4, 5), "bits"),
        (AveragePool("s", ("x",), "y", window, bool(seed % 2), 0.17, -5, -128, 127), (6, *window.output_size(4, 5)), "int8"),
        (MaxPool("s", ("x",), "y", window), (6, *window.output_size(4, 5)), "int8"),
    ]
    codes = rng.integers(-8, 8, (3, 6, 4, 5))
    for layer, shape, dtype in layers:
        y = ValueSpec("y", "bits" if dtype == "bits" else "codes", shape, "uint64" if dtype == "bits" else dtype)
        network = Network("one", ("x",), ("y",), (layer,), {"x": x, "y": y}, stored)
        made = infer(compile_plan(network), {"x": codes})["y"]
        np.testing.assert_array_equal(made, evaluate(network, {"x": codes})["y"])
