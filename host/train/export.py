"""From torch to ONNX: weights as stored, batch norms left as nodes, and the proof that both compute the same logits."""

# mypy: allow-subclassing-any

from __future__ import annotations

import copy
import io
import tempfile
import warnings
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import torch
from onnx import helper, numpy_helper
from onnxruntime import quantization
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from weakcell.host.train.layers import Levels, Sign, StoredLayer
from weakcell.memmodels.errors import ModelError

OPSET, IR_VERSION = 17, 10  # left to itself, the onnx package writes a newer IR than onnxruntime reads
HOLDS = {  # bits: types of signed and unsigned codes, and the first opset and IR that know them; ±1 are INT2 codes
    1: (ml_dtypes.int2, ml_dtypes.uint2, 25, 13),
    2: (ml_dtypes.int2, ml_dtypes.uint2, 25, 13),
    4: (ml_dtypes.int4, ml_dtypes.uint4, 21, 10),
    8: (np.int8, np.uint8, OPSET, IR_VERSION),
}


class _Codes(torch.autograd.Function):
    """`Levels` as the pair of nodes that it is in ONNX."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor, step: float, signed: bool) -> Tensor:
        return x.clone()

    @staticmethod
    def symbolic(g: Any, x: Any, step: float, signed: bool) -> Any:
        scale = g.op("Constant", value_t=torch.tensor(step))
        zero = g.op("Constant", value_t=torch.zeros((), dtype=torch.int8 if signed else torch.uint8))
        return g.op("DequantizeLinear", g.op("QuantizeLinear", x, scale, zero), scale, zero)


class _ExportedLevels(nn.Module):
    """Stands for `Levels` while a network is traced; its own values are not used."""

    def __init__(self, levels: Levels) -> None:
        super().__init__()
        self.step, self.signed = levels.step, levels.signed

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = _Codes.apply(x, self.step, self.signed)
        return result


def deployed(network: nn.Module) -> nn.Module:
    """A copy in evaluation mode, on the CPU, whose stored layers are plain ones that hold the stored values."""
    network = copy.deepcopy(network).eval().cpu()
    for name, layer in list(network.named_modules()):
        if isinstance(layer, StoredLayer):
            network.set_submodule(name, layer.deployed())
        elif isinstance(layer, Levels):
            network.set_submodule(name, _ExportedLevels(layer))
    return network.to(memory_format=torch.contiguous_format)


def settle_thresholds(network: nn.Module) -> None:
    """Move every threshold of a binary neuron half-way between two integers, in place; what it answers stays the same.

    The sums before such a batch norm are integers, so only where they fall on the threshold is there a choice, and runtimes, which
    round batch norms differently, make different ones. The running mean carries the move; neurons that never switch are left.
    """
    for norm in threshold_norms(network):
        deviation = torch.sqrt(norm.running_var.double() + norm.eps)
        threshold = norm.running_mean.double() - norm.bias.detach().double() * deviation / norm.weight.detach().double()
        move = torch.floor(threshold) + 0.5 - threshold
        norm.running_mean += torch.where(threshold.abs() < 1 << 20, move, 0.0).float()


def threshold_norms(network: nn.Module) -> list[nn.Module]:
    """The batch norms between sums of integers and a Sign."""
    modules = [module for module in network.modules() if not list(module.children())]
    found, sums = [], False
    for module, following in pairwise([*modules, nn.Identity()]):
        if isinstance(module, _BatchNorm) and isinstance(following, Sign) and sums:
            found.append(module)
        sums = isinstance(module, StoredLayer) or (sums and isinstance(module, nn.MaxPool2d))
    return found


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


def pack(model: onnx.ModelProto, bits: int) -> onnx.ModelProto:
    """`model` with its weights stored as codes of that width and read through DequantizeLinear, whose scale is a power of two.

    bits: 1 stores ±1 as INT2 codes of scale 1. From 2 on, activations become codes of the same width, and the raw pixels UINT8
    codes of scale 1. ModelError if a weight is not one of the codes.
    """
    signed, unsigned, opset, ir_version = HOLDS[bits]
    model = copy.deepcopy(model)
    graph = model.graph
    constants = _as_initializers(graph)
    weights = {node.input[1] for node in graph.node if node.op_type in ("Conv", "Gemm")}
    step, readers = np.float32(1 if bits == 1 else 2.0 ** (1 - bits)), []
    for initializer in graph.initializer:
        if initializer.name in weights:
            name, read = initializer.name, f"{initializer.name}.float"
            initializer.CopyFrom(numpy_helper.from_array(_codes_of(initializer, step, bits).astype(signed), name))
            readers.append(helper.make_node("DequantizeLinear", [name, "weights.step"], [read], f"{name}.DequantizeLinear"))
            _redirect(graph, name, read)
        elif initializer.name in constants and bits < 8:
            old = numpy_helper.to_array(initializer)
            if old.dtype in (np.int8, np.uint8):
                zero = old.astype(signed if old.dtype == np.int8 else unsigned)
                initializer.CopyFrom(numpy_helper.from_array(zero, initializer.name))
    if bits > 1:
        _redirect(graph, "input", "input.float")
        parameters = ["input.step", "input.zero"]
        readers[:0] = [
            helper.make_node("QuantizeLinear", ["input", *parameters], ["input.codes"], "input.QuantizeLinear"),
            helper.make_node("DequantizeLinear", ["input.codes", *parameters], ["input.float"], "input.DequantizeLinear"),
        ]
        graph.initializer.append(numpy_helper.from_array(np.float32(1), parameters[0]))
        graph.initializer.append(numpy_helper.from_array(np.uint8(0), parameters[1]))
    graph.initializer.append(numpy_helper.from_array(step, "weights.step"))
    users = list(graph.node)
    del graph.node[:]
    graph.node.extend(readers + users)
    return normalized(model, opset, ir_version)


def _codes_of(initializer: onnx.TensorProto, step: np.float32, bits: int) -> np.ndarray:
    """The integers behind stored values; ModelError if there are other values among them."""
    codes: np.ndarray = numpy_helper.to_array(initializer) / step
    half = 1 << (bits - 1)
    right = np.abs(codes) == 1 if bits == 1 else (codes == np.rint(codes)) & (-half <= codes) & (codes < half)
    if not right.all():
        found = f"{initializer.name} has values that no {bits}-bit code means"
        raise ModelError(f"Storing weights in {bits} bits", found, "Give the width that the network was trained with")
    return codes


def _as_initializers(graph: onnx.GraphProto) -> set[str]:
    """Turn Constant nodes into initializers, one for each value; their names."""
    names: dict[tuple[str, bytes], str] = {}
    for node in [node for node in graph.node if node.op_type == "Constant"]:
        value = numpy_helper.to_array(node.attribute[0].t)
        kept = names.setdefault((value.dtype.str, value.tobytes()), node.output[0])
        if kept == node.output[0]:
            graph.initializer.append(numpy_helper.from_array(value, kept))
        else:
            _redirect(graph, node.output[0], kept)
        graph.node.remove(node)
    return set(names.values())


def _redirect(graph: onnx.GraphProto, old: str, new: str) -> None:
    for node in graph.node:
        node.input[:] = [new if source == old else source for source in node.input]


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


def demand_equal(ours: np.ndarray, reference: np.ndarray, tolerance: float = 0.0, share: float = 0.0) -> int:
    """Refuse an export whose logits are further than `tolerance` from the network's own on more than that share of images.

    Returns on how many they are.
    """
    distance = np.abs(ours - reference)
    if (wrong := int((~(distance <= tolerance)).any(1).sum())) > share * len(ours):
        raise ModelError(
            "Exporting the network to ONNX",
            f"onnxruntime differs from torch on {wrong} of {len(ours)} images, by up to {distance.max():g}",
            "Report it with the command, or train with another --seed",
        )
    return wrong
