"""The kinds of 84 public quantized files, made again as small networks, against the reference of each kind.

    python -m tests.emulator.public_files [--only YOLO]

Files from 44 public repositories were once run through the importer; they cannot be shipped. Each line here is one of their kinds:
the same graph with few channels and random weights, from the same exporter and quantizer. "node by node" means that its exporter is
not at hand, and that the test writes the operators and encodings that this exporter writes. A line says

    run      all outputs are those of onnxruntime (optimizations off, one image after the other) or of the qonnx package. "steps"
             counts outputs that differ by more than float noise: by steps of a quantizer behind float sums
    refused  the importer says why, and what to do
    WRONG    an output is apart, errors in the weights change nothing, or the importer fails
    -        a package that makes the network is missing

and how many of the file's integers live in the memory.
"""

from __future__ import annotations

import argparse
import io
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper
from torch import nn

from tests.emulator import public_networks as nets
from tests.emulator import public_sequences as seqs
from tests.emulator.exporters import quantized_dynamically
from tests.emulator.models import Array, exported, model, node, qonnx_values, quantized, quietly, run
from weakcell import emulator
from weakcell.emulator.engine.batch_axis import as_in_the_file, images_first
from weakcell.memmodels.catalogue import parse_spec
from weakcell.memmodels.errors import ModelError

IMAGES = 3
PHOTO = (3, 24, 24)
FLOAT_NOISE, MOST_APART, MOST_STEPS = 2e-5, 0.15, 0.25
"""Relative to the largest output: noise of float sums; the most that steps of quantizers may add up to; and the share of outputs
that may have any."""


@dataclass(frozen=True)
class Made:
    """A file that was made, and what its reference says.

    Attributes:
        inputs: data by name.
        right: outputs by name, if neither onnxruntime nor qonnx can tell.
        sizes: whether the data fix open sizes.
    """

    proto: onnx.ModelProto
    inputs: Mapping[str, Array]
    right: Mapping[str, Array] | None = None
    sizes: bool = False


@dataclass(frozen=True)
class PublicFile:
    """One of the 84.

    Attributes:
        group: the row of the list.
        name: what the network is.
        written: by which tools the small one is made.
        make: makes it.
    """

    group: str
    name: str
    written: str
    make: Callable[[], Made] = field(repr=False)


# ── ways to a file ────────────────────────────────────────────────────────────────────────────────────


def static(network: Callable[[], nn.Module], shape: tuple[int, ...] = PHOTO, dynamo: bool = False, **options: Any) -> Made:
    """Return torch's export, quantized statically by onnxruntime."""
    proto = exported(network(), shape, dynamo)
    return Made(quantized(proto, _images(8, shape, 2), **options), {"x": _images(IMAGES, shape, 3)})


def dynamic(network: Callable[[], nn.Module], shape: tuple[int, ...] = PHOTO, dynamo: bool = False) -> Made:
    """Return torch's export, quantized dynamically by onnxruntime."""
    return Made(quantized_dynamically(exported(network(), shape, dynamo)), {"x": _images(IMAGES, shape, 3)})


def open_sizes(network: Callable[[], nn.Module], quantize: Callable[[onnx.ModelProto], onnx.ModelProto]) -> Made:
    """Return torch's export with open height and width, quantized."""
    buffer = io.BytesIO()
    with quietly():
        torch.onnx.export(
            network().eval(), (torch.zeros(2, *PHOTO),), buffer, dynamo=False, input_names=["x"], output_names=["y"],
            dynamic_axes={"x": {0: "N", 2: "height", 3: "width"}, "y": {0: "N", 2: "boxes"}}, opset_version=17,
        )  # fmt: skip
    return Made(quantize(onnx.load_from_string(buffer.getvalue())), {"x": _images(IMAGES, (3, 24, 40), 3)}, sizes=True)


def sequence(kind: seqs.Sequence, quantize: Callable[[onnx.ModelProto, Mapping[str, Array]], onnx.ModelProto]) -> Made:
    """Return torch's export of a network that reads sequences, quantized."""
    inputs = kind.data(np.random.default_rng(3))
    x = tuple(torch.from_numpy(value) for value in inputs.values())
    names = list(inputs)
    network = kind.make().eval()
    with quietly(), torch.no_grad():
        results = network(*x)
        outputs = ["y", "y1", "y2"][: len(results) if isinstance(results, tuple) else 1]
        if kind.dynamo:
            batch = torch.export.Dim("N")
            program = torch.onnx.export(
                network, x, dynamo=True, input_names=names, output_names=outputs, verbose=False,
                dynamic_shapes=tuple({0: batch} for _ in names),
            )  # fmt: skip
            assert program is not None
            proto = program.model_proto
        else:
            buffer = io.BytesIO()
            torch.onnx.export(
                network, x, buffer, dynamo=False, input_names=names, output_names=outputs, opset_version=17,
                dynamic_axes={name: {0: "N"} for name in (*names, *outputs)},
            )  # fmt: skip
            proto = onnx.load_from_string(buffer.getvalue())
    return Made(quantize(proto, inputs), inputs)


def _by_dynamic(proto: onnx.ModelProto, inputs: Mapping[str, Array]) -> onnx.ModelProto:
    return quantized_dynamically(proto)


def _by_static(proto: onnx.ModelProto, inputs: Mapping[str, Array]) -> onnx.ModelProto:
    return quantized(proto, inputs, per_channel=True)


def _images(count: int, shape: tuple[int, ...], seed: int) -> Array:
    return np.random.default_rng(seed).normal(size=(count, *shape)).astype(np.float32)


def _by_brevitas(network: Any, shape: tuple[int, ...], form: str = "qonnx", batch: int = 1) -> Made:
    """Return a network of Brevitas as its exporter writes it."""
    export = import_module("brevitas.export")
    x = torch.from_numpy(_images(batch, shape, 2))
    with quietly(), tempfile.TemporaryDirectory() as folder:
        for seed in range(2):
            network.train()(torch.from_numpy(_images(8, shape, 10 + seed)))
        path = str(Path(folder) / "net.onnx")
        network.eval()
        if form == "qonnx":
            export.export_qonnx(network, args=x, export_path=path)
        else:
            export.export_onnx_qcdq(network, args=x, export_path=path, dynamo=False, opset_version=13)
        proto = onnx.load(path)
        return Made(proto, {proto.graph.input[0].name: _images(batch * IMAGES, shape, 3)})


def finn_example(name: str, shape: tuple[int, ...]) -> Made:
    """Return one of FINN's example networks, as the package of Brevitas' examples builds it, without training."""
    models = import_module("brevitas_examples.bnn_pynq.models")
    return _by_brevitas(models.model_with_cfg(name, pretrained=False)[0], shape)


def _brevitas_body(kind: str, bits: int) -> Any:
    """Return a network of Brevitas' layers: residual, depthwise, on a signal, or dense."""
    qnn = import_module("brevitas.nn")
    weights, act = {"weight_bit_width": bits}, {"bit_width": bits, "return_quant_tensor": True}
    start = qnn.QuantIdentity(bit_width=8, return_quant_tensor=True)
    if kind == "dense":
        return nn.Sequential(
            start, qnn.QuantLinear(40, 32, bias=True, **weights), nn.BatchNorm1d(32), qnn.QuantReLU(**act),
            qnn.QuantLinear(32, 8, bias=True, **weights),
        )  # fmt: skip
    if kind == "signal":
        return nn.Sequential(
            start, qnn.QuantConv1d(2, 12, 3, padding=1, bias=False, **weights), nn.BatchNorm1d(12), qnn.QuantReLU(**act),
            nn.MaxPool1d(2), qnn.QuantConv1d(12, 12, 3, padding=1, bias=False, **weights), nn.BatchNorm1d(12), qnn.QuantReLU(**act),
            nn.Flatten(), qnn.QuantLinear(12 * 16, 6, bias=True, **weights),
        )  # fmt: skip
    if kind == "depthwise":
        return nn.Sequential(
            start, qnn.QuantConv2d(3, 12, 3, 2, 1, bias=False, **weights), nn.BatchNorm2d(12), qnn.QuantReLU(**act),
            qnn.QuantConv2d(12, 12, 3, padding=1, groups=12, bias=False, **weights), nn.BatchNorm2d(12), qnn.QuantReLU(**act),
            qnn.QuantConv2d(12, 16, 1, bias=False, **weights), nn.BatchNorm2d(16), qnn.QuantReLU(**act), nn.AvgPool2d(4),
            nn.Flatten(), qnn.QuantLinear(16 * 9, 10, bias=True, **weights),
        )  # fmt: skip
    from tests.emulator.test_importer_exporters import brevitas_network

    return brevitas_network(bits, bits)


# ── node by node ──────────────────────────────────────────────────────────────────────────────────────


def larq(dense: bool) -> Made:
    """Return a binary network as tf2onnx writes Larq's `ste_sign`: sign(sign(x) + 0.1), channels last outside of convolutions."""
    rng = np.random.default_rng(4)

    def signs(*shape: int) -> Array:
        return rng.choice([-1.0, 1.0], shape).astype(np.float32)

    def norm(name: str, size: int) -> dict[str, Array]:
        return {
            f"{name}g": rng.uniform(0.5, 2, size).astype(np.float32), f"{name}b": rng.normal(size=size).astype(np.float32),
            f"{name}m": rng.normal(size=size).astype(np.float32), f"{name}v": rng.uniform(1, 9, size).astype(np.float32),
        }  # fmt: skip

    def again(x: str) -> list[onnx.NodeProto]:
        return [node("Sign", x, f"{x}1"), node("Add", f"{x}1 tenth", f"{x}2"), node("Sign", f"{x}2", f"{x}s")]

    tenth = {"tenth": np.float32(0.1)}
    if dense:
        nodes = [
            *again("x"), node("MatMul", "xs w1", "a"), node("BatchNormalization", "a 1g 1b 1m 1v", "h"), *again("h"),
            node("MatMul", "hs w2", "b"), node("BatchNormalization", "b 2g 2b 2m 2v", "c"), node("Softmax", "c", "y"),
        ]  # fmt: skip
        constants = {**tenth, "w1": signs(48, 32), "w2": signs(32, 10), **norm("1", 32), **norm("2", 10)}
        return Made(model(nodes, constants, {"x": ["N", 48]}, {"y": ["N", 10]}), {"x": _images(IMAGES, (48,), 3)})
    nodes = [
        node("Transpose", "x", "x0", perm=[0, 3, 1, 2]), node("Conv", "x0 w1", "a", pads=[1, 1, 1, 1]),
        node("MaxPool", "a", "p", kernel_shape=[2, 2], strides=[2, 2]), node("BatchNormalization", "p 1g 1b 1m 1v", "h"),
        *again("h"),
        node("Conv", "hs w2", "b", pads=[1, 1, 1, 1]), node("BatchNormalization", "b 2g 2b 2m 2v", "k"), *again("k"),
        node("Transpose", "ks", "t", perm=[0, 2, 3, 1]), node("Reshape", "t flat", "r"), node("MatMul", "r w3", "d"),
        node("BatchNormalization", "d 3g 3b 3m 3v", "y"),
    ]  # fmt: skip
    constants = {
        **tenth, "w1": signs(16, 3, 3, 3), "w2": signs(12, 16, 3, 3), "w3": signs(12 * 36, 10), "flat": np.array([-1, 12 * 36]),
        **norm("1", 16), **norm("2", 12), **norm("3", 10),
    }  # fmt: skip
    pixels = np.random.default_rng(3).integers(-127, 128, (IMAGES, 12, 12, 3)).astype(np.float32)
    return Made(model(nodes, constants, {"x": ["N", 12, 12, 3]}, {"y": ["N", 10]}), {"x": pixels})


def qonnx_transformer() -> Made:
    """Return attention of FINN's transformers: `Quant` everywhere, the batch transposed between positions and features."""
    rng = np.random.default_rng(8)
    constants: dict[str, Array] = {
        "w": rng.normal(size=(8, 24)).astype(np.float32), "o": rng.normal(size=(8, 8)).astype(np.float32), "s": np.float32(0.073),
        "a": np.float32(0.05), "z": np.float32(0), "four": np.float32(4), "eight": np.float32(8), "sizes": np.array([8, 8, 8]),
        "root": np.float32(8**-0.5),
    }  # fmt: skip

    def quant(x: str, y: str, scale: str = "a", bits: str = "eight") -> onnx.NodeProto:
        more = {"signed": 1, "narrow": 0, "rounding_mode": "ROUND"}
        return helper.make_node("Quant", [x, scale, "z", bits], [y], y, domain="qonnx.custom_op.general", **more)

    nodes = [
        node("Transpose", "x", "t", perm=[1, 0, 2]), quant("t", "tq"), quant("w", "wq", "s", "four"),
        node("MatMul", "tq wq", "qkv"), quant("qkv", "all"), node("Split", "all sizes", "q k v", axis=2),
        node("Transpose", "q", "qb", perm=[1, 0, 2]),
        node("Transpose", "k", "kb", perm=[1, 2, 0]), node("Transpose", "v", "vb", perm=[1, 0, 2]), node("MatMul", "qb kb", "raw"),
        node("Mul", "raw root", "scores"), node("Softmax", "scores", "soft", axis=-1), quant("soft", "p"),
        node("MatMul", "p vb", "m"),
        quant("m", "mq"), quant("o", "oq", "s", "four"), node("MatMul", "mq oq", "y"),
    ]  # fmt: skip
    proto = model(nodes, constants, {"x": [1, 6, 8]}, {"y": [1, 6, 8]})
    proto.opset_import.append(helper.make_opsetid("qonnx.custom_op.general", 2))
    return Made(proto, {"x": _images(IMAGES, (6, 8), 3)})


def small_floats() -> Made:
    from tests.emulator import test_custom_quantizers as custom

    names = ("exponent", "mantissa", "bias", "most", "sx", "sw")
    constants = {name: np.asarray(v, np.float32) for name, v in zip(names, (2, 1, 1, 6, 0.3, 0.2), strict=True)}
    proto = custom.network(custom.GENERAL, [custom.float_quant("x", "xq", "sx"), custom.float_quant("w", "wq", "sw")], constants)
    return Made(proto, {"x": _images(5, (12,), 3)})


def custom_quantizer() -> Made:
    from tests.emulator import test_custom_quantizers as custom

    limits, x = np.random.default_rng(9).uniform(0.5, 2, 8).astype(np.float32), _images(5, (12,), 3)
    weight = custom.mct("WeightsSymmetricQuantizer", "w t", "wq", num_bits=4, per_channel=1, channel_axis=1, signed=1)
    activation = custom.mct("ActivationSymmetricQuantizer", "x", "xq", threshold=1.7, signed=1, num_bits=8)
    proto = custom.network("mct_quantizers", [activation, weight], {"t": limits})
    w = onnx.numpy_helper.to_array(proto.graph.initializer[0])
    right = custom.symmetric(x, np.array(1.7, np.float32), 8) @ custom.symmetric(w, limits.reshape(1, -1), 4)
    return Made(proto, {"x": x}, {"y": right})


def older_dynamic() -> Made:
    from tests.emulator.test_importer_dynamic import images, older

    return Made(older(True), {"x": images(IMAGES)})


def scales_as_inputs(op: str) -> Made:
    """Return a single operator as a test of an operator library has it: all its operands are inputs of the graph."""
    rng = np.random.default_rng(11)
    if op == "QuantizeLinear":
        proto = model([node(op, "x s z", "y")], {}, {"x": ["N", 6], "s": [], "z": []}, {"y": ["N", 6]}, types={"z": 2, "y": 2})
        return Made(proto, {"x": _images(IMAGES, (6,), 3), "s": np.array(0.02, np.float32), "z": np.array(128, np.uint8)})
    names = "a as az b bs bz ys yz"
    scale, zero = np.array(0.02, np.float32), np.array(128, np.uint8)
    codes = rng.integers(0, 256, (IMAGES, 5, 8)).astype(np.uint8), rng.integers(0, 256, (IMAGES, 8, 6)).astype(np.uint8)
    values = dict(zip(names.split(), (codes[0], scale, zero, codes[1], scale, zero, np.array(0.1, np.float32), zero), strict=True))
    types = dict.fromkeys(("a", "az", "b", "bz", "yz", "y"), int(TensorProto.UINT8))
    shapes: dict[str, list[Any]] = {name: ["N", *v.shape[1:]] if v.ndim else [] for name, v in values.items()}
    return Made(model([node(op, names, "y")], {}, shapes, {"y": ["N", 5, 6]}, types=types), values)


def detector_with_selection() -> Made:
    """Return a detector that ends in NonMaxSuppression, whose number of results the data choose."""
    made = static(nets.Yolo)
    proto = made.proto
    constants = {"iou": np.float32(0.5), "least": np.float32(0.2), "most": np.array(20, np.int64), "parts": np.array([4, 4])}
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items())
    old = proto.graph.output[0].name
    proto.graph.node.extend(
        [
            node("Split", f"{old} parts", "nms_boxes nms_scores", axis=1),
            node("Transpose", "nms_boxes", "nms_rows", perm=[0, 2, 1]),
            node("NonMaxSuppression", "nms_rows nms_scores most iou least", "selected", center_point_box=1),
        ]
    )  # fmt: skip
    del proto.graph.output[:]
    proto.graph.output.append(helper.make_tensor_value_info("selected", TensorProto.INT64, [None, 3]))
    return made


def genai_decoder() -> Made:
    from tests.emulator.decoder import decoder, decoder_inputs

    return Made(decoder(), decoder_inputs(4, 3), sizes=True)


# ── the list ──────────────────────────────────────────────────────────────────────────────────────────


def _files() -> list[PublicFile]:
    """Return the 84 lines."""
    qdq, operators = "torch, onnxruntime static QDQ", "torch, onnxruntime static QOperator"
    moving, written = "torch, onnxruntime dynamic", "node by node"
    files: list[PublicFile] = []

    def add(group: str, name: str, tools: str, make: Callable[..., Made], *args: Any, **options: Any) -> None:
        files.append(PublicFile(group, name, tools, partial(make, *args, **options)))

    group = "CNN, static"
    for name in ("mobilenet_v2", "resnet", "efficientnet", "mobilenet_v3"):
        add(group, name, qdq, static, getattr(nets, name), per_channel=True)
    for name in ("mobilenet_v2", "resnet", "squeezenet", "shufflenet", "densenet", "googlenet", "vgg"):
        add(group, name, operators, static, getattr(nets, name), operators=True)
    group = "CNN and MLP, dynamic"
    for name in ("resnet", "mobilenet_v2", "mobilenet_v3", "squeezenet", "vgg", "alexnet", "shufflenet"):
        add(group, name, moving, dynamic, getattr(nets, name))
    for name, shape in {"lenet": (1, 28, 28), "mlp": (30,), "autoencoder": (40,), "super_resolution": (1, 12, 12)}.items():
        add(group, name, moving, dynamic, getattr(nets, name), shape)
    add(group, "face embedding", moving, dynamic, nets.FaceEmbedding)

    group = "YOLO"
    add(group, "v3-tiny", qdq, static, nets.TinyYolo)
    for tools, make in ((qdq, static), (moving, dynamic)):
        add(group, "v5", tools, make, partial(nets.Yolo, "anchors"))
        for task in ("boxes", "masks", "points", "turned"):
            add(group, f"v8 {task}", tools, make, partial(nets.Yolo, task=task))
        add(group, "v8 classes", tools, make, nets.YoloClassifier)
        add(group, "v10", tools, make, partial(nets.Yolo, "best"))
        add(group, "v11", tools, make, partial(nets.Yolo, attention=True))
    add(group, "v8, open height and width", moving, open_sizes, nets.Yolo, quantized_dynamically)
    add(group, "v8, open height and width", qdq, open_sizes, nets.Yolo, partial(quantized, images=_images(4, (3, 24, 40), 2)))
    add(group, "YOLOX", operators, static, nets.Focus, operators=True)
    add(group, "v5, older form of dynamic biases", written, older_dynamic)
    add(group, "v8 with NonMaxSuppression", f"{qdq}; the end {written}", detector_with_selection)

    group = "QONNX, FINN"
    for name in ("TFC_1W1A", "TFC_2W2A", "SFC_1W2A", "LFC_1W1A"):
        add(group, name, "Brevitas' examples, QONNX", finn_example, name, (1, 28, 28))
    for name in ("CNV_1W1A", "CNV_2W2A"):
        add(group, name, "Brevitas' examples, QONNX", finn_example, name, (3, 32, 32))
    for kind, bits, shape in (("depthwise", 4, PHOTO), ("residual", 4, (3, 12, 12)), ("signal", 8, (2, 32)), ("dense", 3, (40,))):
        add(group, f"{kind}, {bits} bits", "Brevitas, QONNX", lambda k=kind, b=bits, s=shape: _by_brevitas(_brevitas_body(k, b), s))
    add(group, "depthwise, 4 bits", "Brevitas, QCDQ", lambda: _by_brevitas(_brevitas_body("depthwise", 4), PHOTO, "qcdq", 2))
    add(group, "transformer", written, qonnx_transformer)
    add(group, "small floats", written, small_floats)

    group = "Larq"
    add(group, "convolutions", written, larq, dense=False)
    add(group, "dense", written, larq, dense=True)

    group = "sequences"
    for name, kind in seqs.ENCODERS.items():
        chosen = seqs.Sequence(seqs.whisper_encoder, kind.data) if name == "Whisper encoder" else kind
        add(group, name, "transformers, torch, onnxruntime dynamic", sequence, chosen, _by_dynamic)
    for name, kind in seqs.OTHERS.items():
        fixed = name.startswith(("keyword", "activity"))
        add(group, name, qdq if fixed else moving, sequence, kind, _by_static if fixed else _by_dynamic)
    add(group, "decoder (LLaMA, onnxruntime-genai)", written, genai_decoder)
    add(group, "recurrence as a Scan", written, lambda: Made(seqs.scan(), {"x": _images(IMAGES, (7, 6), 3)}))
    add(group, "speech synthesis (VITS)", written, lambda: Made(seqs.speech_synthesis(), {"x": _images(IMAGES, (6, 12), 3)}))

    group = "single operators"
    add(group, "QuantizeLinear, all operands given", written, scales_as_inputs, "QuantizeLinear")
    add(group, "QLinearMatMul, all operands given", written, scales_as_inputs, "QLinearMatMul")
    add(group, "MCT's quantizers", written, custom_quantizer)
    return files


FILES = _files()


# ── one file ──────────────────────────────────────────────────────────────────────────────────────────


def reference(made: Made, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Array]:
    """Return the outputs, image by image: of onnxruntime, or of qonnx for its operators. shapes: of the outputs for all images."""
    if made.right is not None:
        return dict(made.right)
    outputs = list(shapes)
    count = max(len(x) for x in made.inputs.values() if x.ndim)
    first = made.proto.graph.input[0].type.tensor_type.shape.dim
    step = (first[0].dim_value if first else 0) or 1
    batches = [
        {name: x[i : i + step] if x.ndim and len(x) == count else x for name, x in made.inputs.items()}
        for i in range(0, count, step)
    ]
    if any("qonnx" in n.domain or "brevitas" in n.domain for n in made.proto.graph.node):
        found = [[qonnx_values(made.proto, next(iter(batch.values())))[o] for o in outputs] for batch in batches]
    else:
        found = [run(made.proto, batch, outputs) for batch in batches]
    parts = dict(zip(outputs, zip(*found, strict=True), strict=True))
    return {name: np.concatenate(ys, _axis(ys[0].shape, shapes[name])) for name, ys in parts.items()}


def _axis(one: tuple[int, ...], several: tuple[int, ...]) -> int:
    """Return the axis that counts images, from the shape of one batch and that of all."""
    return next((i for i, (a, b) in enumerate(zip(one, several, strict=False)) if a != b), 0)


def judge(file: PublicFile) -> tuple[str, str]:
    """Return the outcome for a file, and more about it."""
    torch.manual_seed(7)
    try:
        made = file.make()
    except ModuleNotFoundError as e:
        return "-", f"{e.name} is not installed"
    outputs = [o.name for o in made.proto.graph.output]
    try:
        network = emulator.load(made.proto, like={n: x.shape for n, x in made.inputs.items()} if made.sizes else None)
    except ModelError as e:
        return "refused", " ".join(str(e).split())
    inputs = dict(zip(network.inputs, made.inputs.values(), strict=False)) if len(network.inputs) == 1 else dict(made.inputs)
    inputs, plan = images_first(network, inputs), emulator.compile_plan(network)
    found = as_in_the_file(network, emulator.infer(plan, inputs))
    right = reference(made, {name: found[name].shape for name in outputs})
    apart, steps, values = 0.0, 0, 0
    for name, wanted in right.items():
        off = np.abs(found[name].astype(np.float64) - wanted) / max(float(np.abs(wanted).max(initial=0)), 1e-9)
        apart, steps, values = max(apart, float(off.max(initial=0))), steps + int((off > FLOAT_NOISE).sum()), values + off.size
    if all(np.array_equal(y[:1].repeat(len(y), 0), y) for y in right.values() if y.ndim and len(y) > 1):
        return "WRONG", "the reference says the same for every image, so nothing is compared"
    share = network.weight_bits / max(1, network.integer_bits)
    note = (
        f"{apart:.1e} apart"
        + (f", {steps} of {values} by steps" if steps else "")
        + f"; {share:.0%} of {network.integer_bits} bits"
    )
    if apart > MOST_APART or steps > MOST_STEPS * values:
        return "WRONG", note
    if network.weight_bits:
        deployment = emulator.deploy(plan, emulator.place(network, parse_spec("uniform:ber=0.05")))
        faulty = as_in_the_file(network, emulator.outputs_under_faults(plan, inputs, deployment))
        if all(np.array_equal(faulty[name], found[name]) for name in outputs):
            return "WRONG", f"{note}; errors change nothing"
    return "run", note


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="TEXT", help="files whose group or name has this text")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    count: Counter[str] = Counter()
    for file in FILES:
        if options.only.lower() not in f"{file.group} {file.name} {file.written}".lower():
            continue
        try:
            outcome, note = judge(file)
        except Exception as e:
            outcome, note = "WRONG", f"{type(e).__name__}: {' '.join(str(e).split())[:400]}"
        count[outcome] += 1
        print(f"{file.group:<21} {file.name:<36} {outcome:<8} {note}  [{file.written}]", flush=True)
    print(f"{sum(count.values())} of {len(FILES)}: {', '.join(f'{number} {outcome}' for outcome, number in count.most_common())}")


if __name__ == "__main__":
    main()
