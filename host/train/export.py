"""From torch to ONNX: ±1 weights, batch norms left as nodes, and the proof that both compute the same logits."""

# mypy: allow-subclassing-any

from __future__ import annotations

import copy
import io
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import torch
from onnx import helper, numpy_helper
from onnxruntime import quantization
from torch import nn

from host.train.layers import BinaryConv2d, BinaryLinear
from memmodels.errors import ModelError

OPSET, IR_VERSION = 17, 10  # left to itself, the onnx package writes a newer IR than onnxruntime reads
PACKED = {2: (ml_dtypes.int2, 25, 13), 4: (ml_dtypes.int4, 21, 10)}  # bits: type, the first opset and IR that know it


def deployed(network: nn.Module) -> nn.Module:
    """A copy in evaluation mode whose binary layers are plain ones that hold ±1."""
    network = copy.deepcopy(network).eval()
    for name, layer in list(network.named_modules()):
        if isinstance(layer, BinaryLinear | BinaryConv2d):
            network.set_submodule(name, layer.deployed())
    return network.to(memory_format=torch.contiguous_format)


def to_onnx(network: nn.Module, shape: tuple[int, ...]) -> onnx.ModelProto:
    """`network` as plain ONNX, `input` float32 [N, *shape] → `logits`, any N.

    Only the TorchScript exporter told to preserve the mode leaves each batch norm a node: with mode EVAL it folds them
    into convolutions, whose weights would no longer be ±1, and the dynamo exporter does so or writes bias arithmetic.
    """
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            deployed(network),
            (torch.zeros(2, *shape),),
            buffer,
            input_names=["input"],
            output_names=["logits"],
            dynamic_axes={"input": {0: "N"}, "logits": {0: "N"}},
            opset_version=OPSET,
            training=torch.onnx.TrainingMode.PRESERVE,
            do_constant_folding=False,
            dynamo=False,
        )
    return normalized(as_gemm(onnx.load_from_string(buffer.getvalue())))


def as_gemm(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` with each MatMul by a transposed weight, which is how a linear layer without bias leaves torch, as Gemm."""
    nodes = model.graph.node
    transposed = {node.output[0]: node for node in nodes if node.op_type == "Transpose"}
    for node in [node for node in nodes if node.op_type == "MatMul" and node.input[1] in transposed]:
        transpose = transposed[node.input[1]]
        inputs, name = [node.input[0], transpose.input[0]], node.name.replace("MatMul", "Gemm")
        node.CopyFrom(helper.make_node("Gemm", inputs, node.output, name, transB=1))
        nodes.remove(transpose)
    return model


def pack_weights(model: onnx.ModelProto, bits: int) -> onnx.ModelProto:
    """`model` with every ±1 weight stored as an INT2 or INT4 code and read through DequantizeLinear of scale 1."""
    code, opset, ir_version = PACKED[bits]
    model = copy.deepcopy(model)
    graph = model.graph
    weights = {node.input[1] for node in graph.node if node.op_type in ("Conv", "Gemm")}
    readers = []
    for initializer in graph.initializer:
        values = numpy_helper.to_array(initializer)
        if initializer.name in weights and (np.abs(values) == 1).all():
            name, read = initializer.name, f"{initializer.name}.float"
            initializer.CopyFrom(numpy_helper.from_array(values.astype(code), name))
            readers.append(helper.make_node("DequantizeLinear", [name, "one"], [read], f"{name}.DequantizeLinear"))
            for node in graph.node:
                node.input[:] = [read if source == name else source for source in node.input]
    users = list(graph.node)
    del graph.node[:]
    graph.node.extend(readers + users)
    graph.initializer.append(numpy_helper.from_array(np.float32(1), "one"))
    return normalized(model, opset, ir_version)


def quantize(model: onnx.ModelProto, images: np.ndarray) -> onnx.ModelProto:
    """The QDQ form by onnxruntime: int8 weights per channel, uint8 activations calibrated on `images` [N, C, H, W]."""

    class Images(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self.chunks: Iterator[np.ndarray] = iter(np.array_split(images.astype(np.float32), 8))

        def get_next(self) -> dict[str, np.ndarray] | None:
            chunk = next(self.chunks, None)
            return None if chunk is None else {"input": chunk}

    with tempfile.TemporaryDirectory() as folder:
        prepared, path = Path(folder) / "prepared.onnx", Path(folder) / "quantized.onnx"
        quantization.quant_pre_process(model, prepared, skip_optimization=True, skip_symbolic_shape=True)
        quantization.quantize_static(
            prepared,
            path,
            Images(),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            weight_type=quantization.QuantType.QInt8,
            activation_type=quantization.QuantType.QUInt8,
        )
        return normalized(onnx.load(path))


def normalized(model: onnx.ModelProto, opset: int = OPSET, ir_version: int = IR_VERSION) -> onnx.ModelProto:
    """`model` checked, with our header and without what exporters leave behind."""
    del model.opset_import[:], model.graph.value_info[:], model.metadata_props[:]
    model.opset_import.append(helper.make_opsetid("", opset))
    model.ir_version = ir_version
    model.producer_name, model.producer_version = "weakcell", ""
    for node in model.graph.node:
        node.doc_string = ""
    onnx.checker.check_model(model, full_check=True)
    return model


def logits(model: onnx.ModelProto, images: np.ndarray, batch: int = 1000) -> np.ndarray:
    """What onnxruntime computes for uint8 `images` [N, C, H, W] from the model as written: unoptimized, one thread."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    chunks = np.split(images.astype(np.float32), range(batch, len(images), batch))
    return np.concatenate([session.run(["logits"], {"input": chunk})[0] for chunk in chunks])


def demand_equal(ours: np.ndarray, reference: np.ndarray, tolerance: float = 0.0) -> None:
    """Refuse an export whose logits are further than `tolerance` from the network's own."""
    distance = np.abs(ours - reference)
    if (wrong := int((~(distance <= tolerance)).any(1).sum())) > 0:
        raise ModelError(
            "exporting the network to ONNX",
            f"onnxruntime differs from torch on {wrong} of {len(ours)} images, by up to {distance.max():g}",
            "report it with the command, or train with another --seed",
        )
