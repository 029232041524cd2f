"""Export torch networks to ONNX: stored weights as codes, batch norms as nodes, and a check that the logits are equal."""

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

from weakcell.host.train.layers import Levels, Sign, StoredLayer, remove_output_scale
from weakcell.memmodels.errors import ModelError

OPSET, IR_VERSION = 17, 10  # by default, the onnx package writes a newer IR version than onnxruntime reads
CODE_TYPES = {  # bits: signed and unsigned type, first opset and IR version that have them; ±1 are INT2 codes
    1: (ml_dtypes.int2, ml_dtypes.uint2, 25, 13),
    2: (ml_dtypes.int2, ml_dtypes.uint2, 25, 13),
    4: (ml_dtypes.int4, ml_dtypes.uint4, 21, 10),
    8: (np.int8, np.uint8, OPSET, IR_VERSION),
}


class _Codes(torch.autograd.Function):
    """`Levels` as QuantizeLinear and DequantizeLinear."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor, step: float, signed: bool) -> Tensor:
        return x.clone()

    @staticmethod
    def symbolic(g: Any, x: Any, step: float, signed: bool) -> Any:
        scale = g.op("Constant", value_t=torch.tensor(step))
        zero = g.op("Constant", value_t=torch.zeros((), dtype=torch.int8 if signed else torch.uint8))
        return g.op("DequantizeLinear", g.op("QuantizeLinear", x, scale, zero), scale, zero)


class _ExportedLevels(nn.Module):
    """Replaces `Levels` while a network is traced. Its values are not used."""

    def __init__(self, levels: Levels) -> None:
        super().__init__()
        self.step, self.signed = levels.step, levels.signed

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = _Codes.apply(x, self.step, self.signed)
        return result


def copy_for_deployment(network: nn.Module) -> nn.Module:
    """Copy a network in evaluation mode on the CPU, with plain layers that hold the stored values, without its output scale."""
    network = copy.deepcopy(network).eval().cpu()
    remove_output_scale(network)
    for name, layer in list(network.named_modules()):
        if isinstance(layer, StoredLayer):
            network.set_submodule(name, layer.deployed())
        elif isinstance(layer, Levels):
            network.set_submodule(name, _ExportedLevels(layer))
    return network.to(memory_format=torch.contiguous_format)


def center_thresholds(network: nn.Module) -> None:
    """Move the threshold of every binary neuron half-way between two integers, in place. Its outputs stay the same.

    The sums in front of such a batch norm are integers. If a sum lies exactly on the threshold, runtimes disagree, because they
    round batch norms differently. The running mean takes the change. Neurons whose output never changes are left as they are.
    """
    for norm in find_threshold_norms(network):
        deviation = torch.sqrt(norm.running_var.double() + norm.eps)
        threshold = norm.running_mean.double() - norm.bias.detach().double() * deviation / norm.weight.detach().double()
        shift = torch.floor(threshold) + 0.5 - threshold
        norm.running_mean += torch.where(threshold.abs() < 1 << 20, shift, 0.0).float()


def find_threshold_norms(network: nn.Module) -> list[nn.Module]:
    """Return the batch norms between integer sums and a Sign."""
    modules = [module for module in network.modules() if not list(module.children())]
    norms, integer_sums = [], False
    for module, following in pairwise([*modules, nn.Identity()]):
        if isinstance(module, _BatchNorm) and isinstance(following, Sign) and integer_sums:
            norms.append(module)
        integer_sums = isinstance(module, StoredLayer) or (integer_sums and isinstance(module, nn.MaxPool2d))
    return norms


def to_onnx(network: nn.Module, shape: tuple[int, ...]) -> onnx.ModelProto:
    """Export a network as ONNX with float weights: `input` float32 [N, *shape] → `logits` [N, C], for any N.

    The TorchScript exporter with TrainingMode.PRESERVE keeps each batch norm as a node. With mode EVAL it folds batch norms into
    convolutions, whose weights are then no longer ±1. The dynamo exporter folds them, too, or writes them as arithmetic.
    """
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            copy_for_deployment(network),
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
    return normalize_model(replace_matmul_by_gemm(onnx.load_from_string(buffer.getvalue())))


def replace_matmul_by_gemm(model: onnx.ModelProto) -> onnx.ModelProto:
    """Replace each MatMul by a transposed weight, as torch exports a linear layer without bias, by a Gemm."""
    nodes = model.graph.node
    transposed = {node.output[0]: node for node in nodes if node.op_type == "Transpose"}
    for node in [node for node in nodes if node.op_type == "MatMul" and node.input[1] in transposed]:
        transpose = transposed[node.input[1]]
        inputs, name = [node.input[0], transpose.input[0]], node.name.replace("MatMul", "Gemm")
        node.CopyFrom(helper.make_node("Gemm", inputs, node.output, name, transB=1))
        nodes.remove(transpose)
    return model


def pack(model: onnx.ModelProto, bits: int, step: float | None = None) -> onnx.ModelProto:
    """Store the weights, and biases if there are any, as codes behind a DequantizeLinear whose scale is a power of two.

    Args:
        model: Result of `to_onnx`.
        step: Step between two values, as `layers.stored_step`; by default 1 for one bit, otherwise 2^(1−bits).
        bits: Bits of a weight. 1 stores ±1 as INT2 codes of scale 1. From 2 on, activations become codes of as many bits, and the
            raw pixels UINT8 codes of scale 1.

    Raises:
        ModelError: A weight is not one of the codes.
    """
    signed, unsigned, opset, ir_version = CODE_TYPES[bits]
    model = copy.deepcopy(model)
    graph = model.graph
    constants = _as_initializers(graph)
    weights = {name for node in graph.node if node.op_type in ("Conv", "Gemm") for name in node.input[1:]}
    scale, readers = np.float32((1 if bits == 1 else 2.0 ** (1 - bits)) if step is None else step), []
    for initializer in graph.initializer:
        if initializer.name in weights:
            name, read = initializer.name, f"{initializer.name}.float"
            initializer.CopyFrom(numpy_helper.from_array(_weight_codes(initializer, scale, bits).astype(signed), name))
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
    graph.initializer.append(numpy_helper.from_array(scale, "weights.step"))
    users = list(graph.node)
    del graph.node[:]
    graph.node.extend(readers + users)
    return normalize_model(model, opset, ir_version)


def _weight_codes(initializer: onnx.TensorProto, step: np.float32, bits: int) -> np.ndarray:
    """Return the integer codes of stored values; ModelError if a value is not a code."""
    codes: np.ndarray = numpy_helper.to_array(initializer) / step
    half = 1 << (bits - 1)
    valid = np.abs(codes) == 1 if bits == 1 else (codes == np.rint(codes)) & (-half <= codes) & (codes < half)
    if not valid.all():
        problem = f"{initializer.name} has values that no {bits}-bit code means"
        raise ModelError(f"Storing weights in {bits} bits", problem, "Give the width that the network was trained with")
    return codes


def _as_initializers(graph: onnx.GraphProto) -> set[str]:
    """Turn Constant nodes into initializers, one per distinct value, and return their names."""
    names: dict[tuple[str, bytes], str] = {}
    for node in [node for node in graph.node if node.op_type == "Constant"]:
        value = numpy_helper.to_array(node.attribute[0].t)
        name = names.setdefault((value.dtype.str, value.tobytes()), node.output[0])
        if name == node.output[0]:
            graph.initializer.append(numpy_helper.from_array(value, name))
        else:
            _redirect(graph, node.output[0], name)
        graph.node.remove(node)
    return set(names.values())


def _redirect(graph: onnx.GraphProto, old: str, new: str) -> None:
    for node in graph.node:
        node.input[:] = [new if source == old else source for source in node.input]


def quantize(model: onnx.ModelProto, images: np.ndarray) -> onnx.ModelProto:
    """Quantize with onnxruntime in QDQ form: int8 weights per channel, uint8 activations calibrated on images [N, C, H, W]."""

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
        return normalize_model(onnx.load(path))


def normalize_model(model: onnx.ModelProto, opset: int = OPSET, ir_version: int = IR_VERSION) -> onnx.ModelProto:
    """Set opset, IR version and producer, remove leftovers of the exporter, and check the model."""
    del model.opset_import[:], model.graph.value_info[:], model.metadata_props[:]
    model.opset_import.append(helper.make_opsetid("", opset))
    model.ir_version = ir_version
    model.producer_name, model.producer_version = "weakcell", ""
    for node in model.graph.node:
        node.doc_string = ""
    onnx.checker.check_model(model, full_check=True)
    return model


def logits(model: onnx.ModelProto, images: np.ndarray, batch: int = 1000) -> np.ndarray:
    """Return the logits [N, C] of onnxruntime, without graph optimization, for uint8 images [N, C, H, W]."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    chunks = np.split(images.astype(np.float32), range(batch, len(images), batch))
    return np.concatenate([session.run(["logits"], {"input": chunk})[0] for chunk in chunks])


def require_equal_logits(ours: np.ndarray, reference: np.ndarray, tolerance: float = 0.0, share: float = 0.0) -> int:
    """Require that the logits of an export equal those of the network.

    Args:
        ours: Logits of the exported model [N, C].
        reference: Logits of the network [N, C].
        tolerance: Largest difference that counts as equal.
        share: Share of the images that may be unequal, in [0, 1].

    Returns:
        The number of unequal images.

    Raises:
        ModelError: More images are unequal.
    """
    distance = np.abs(ours - reference)
    if (unequal := int((~(distance <= tolerance)).any(1).sum())) > share * len(ours):
        raise ModelError(
            "Exporting the network to ONNX",
            f"onnxruntime differs from torch on {unequal} of {len(ours)} images, by up to {distance.max():g}",
            "Report it with the command, or train with another --seed",
        )
    return unequal
