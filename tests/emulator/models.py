"""Small ONNX models for the importer's tests, and onnxruntime as the reference: unoptimized, one thread."""

from __future__ import annotations

import contextlib
import io
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

Array = np.ndarray


def model(
    nodes: Sequence[onnx.NodeProto],
    constants: dict[str, Array],
    inputs: dict[str, Sequence[Any]],
    outputs: dict[str, Sequence[Any]],
    opset: int = 17,
    types: dict[str, int] | None = None,
) -> onnx.ModelProto:
    """Return a checked model; shapes include the batch, types default to float."""
    types = types or {}
    graph = helper.make_graph(
        list(nodes),
        "test",
        [helper.make_tensor_value_info(n, types.get(n, TensorProto.FLOAT), s) for n, s in inputs.items()],
        [helper.make_tensor_value_info(n, types.get(n, TensorProto.FLOAT), s) for n, s in outputs.items()],
        [numpy_helper.from_array(np.asarray(a, order="C"), n) for n, a in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def node(op_type: str, inputs: str, outputs: str, **attributes: Any) -> onnx.NodeProto:
    """Return a node from space-separated names ("-" leaves an input out)."""
    names = ["" if name == "-" else name for name in inputs.split()]
    return helper.make_node(op_type, names, outputs.split(), outputs.split()[0], **attributes)


def run(proto: onnx.ModelProto, inputs: dict[str, Array], outputs: list[str] | None = None) -> list[Array]:
    """Return onnxruntime's outputs of the model as written."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    result: list[Array] = session.run(outputs, inputs)
    return result


@cache
def reference_saturates() -> bool:
    """Whether onnxruntime's products of uint8 and int8 go wrong here: without VNNI it adds pairs of them in int16, which saturates.

    Tests then take weights of 7 bits, as onnxruntime's own `reduce_range` does.
    """
    x, w = np.full((1, 64), 255, np.uint8), np.full((64, 16), 127, np.int8)
    proto = model([node("MatMulInteger", "x w", "y")], {"w": w}, {"x": ["N", 64]}, {"y": ["N", 16]}, types={"x": 2, "y": 6})
    return bool(np.any(run(proto, {"x": x})[0] != 255 * 127 * 64))


def largest_weight(dtype: type = np.uint8) -> int:
    """Return the largest int8 weight that onnxruntime multiplies correctly with activations of this type."""
    return 63 if np.dtype(dtype) == np.uint8 and reference_saturates() else 127


def with_codes_out(proto: onnx.ModelProto) -> tuple[onnx.ModelProto, list[str]]:
    """Return the model with the result of every run-time QuantizeLinear as a further output, and their names."""
    result = onnx.ModelProto()
    result.CopyFrom(proto)
    constants = {t.name for t in proto.graph.initializer}
    constants |= {n.output[0] for n in proto.graph.node if n.op_type == "Constant"}
    for n in proto.graph.node:  # in order: what only constants lead to is constant
        if all(name in constants for name in n.input if name):
            constants |= set(n.output)
    names = [n.output[0] for n in proto.graph.node if n.op_type == "QuantizeLinear" and n.output[0] not in constants]
    known = {o.name for o in proto.graph.output}
    for name in names:
        if name not in known:
            result.graph.output.append(onnx.ValueInfoProto(name=name))
    return result, names


def exported(network: Any, shape: Sequence[int], dynamo: bool) -> onnx.ModelProto:
    """Return a torch network in evaluation mode, exported with a dynamic batch."""
    import torch

    x = torch.zeros(2, *shape)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if dynamo:
            batch = {0: torch.export.Dim("N")}
            program = torch.onnx.export(
                network.eval(), (x,), dynamo=True, input_names=["x"], output_names=["y"], dynamic_shapes=(batch,), verbose=False
            )
            return program.model_proto
        buffer = io.BytesIO()
        torch.onnx.export(
            network.eval(),
            (x,),
            buffer,
            dynamo=False,
            input_names=["x"],
            output_names=["y"],
            dynamic_axes={"x": {0: "N"}, "y": {0: "N"}},
            opset_version=17,
            training=torch.onnx.TrainingMode.PRESERVE,
        )
    return onnx.load_from_string(buffer.getvalue())


def with_integers_out(proto: onnx.ModelProto, inputs: dict[str, Array]) -> tuple[onnx.ModelProto, list[str]]:
    """Return the model with every run-time 8-bit tensor (as onnxruntime sees it) as a further output, and their names."""
    result = onnx.ModelProto()
    result.CopyFrom(proto)
    known = {o.name for o in proto.graph.output} | {t.name for t in proto.graph.initializer}
    names = [name for n in proto.graph.node for name in n.output if name and name not in known]
    for name in names:
        result.graph.output.append(onnx.ValueInfoProto(name=name))
    found = dict(zip(names, run(result, inputs, names), strict=True))
    return result, [name for name in names if found[name].dtype in (np.uint8, np.int8)]


def quantized(
    proto: onnx.ModelProto, images: Array | Mapping[str, Array], operators: bool = False, **options: Any
) -> onnx.ModelProto:
    """Return onnxruntime's static quantization, calibrated on the images, as QDQ or with QLinear operators.

    Args:
        proto: the float model.
        images: of its first input, or of each input by name.
        operators: whether to write QLinear operators.
        options: of `quantize_static`.
    """
    from onnxruntime import quantization

    mixed = (quantization.QuantType.QUInt8, quantization.QuantType.QInt8)
    if operators and (options.get("activation_type"), options.get("weight_type")) == mixed:
        options = {"reduce_range": reference_saturates(), **options}

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = [images if isinstance(images, Mapping) else {proto.graph.input[0].name: images}]

        def get_next(self) -> Mapping[str, Array] | None:
            return self.left.pop() if self.left else None

    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        form = quantization.QuantFormat.QOperator if operators else quantization.QuantFormat.QDQ
        source, target = Path(folder) / "float.onnx", Path(folder) / "int.onnx"
        onnx.save(proto, source)
        quantization.quantize_static(source, target, Reader(), quant_format=form, **options)
        return onnx.load(target)


@contextlib.contextmanager
def quietly() -> Any:
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def qonnx_values(proto: onnx.ModelProto, x: Array) -> dict[str, Array]:
    """Return every tensor as the qonnx package computes it."""
    wrapper = pytest.importorskip("qonnx.core.modelwrapper", reason="qonnx is not installed")
    from qonnx.core.onnx_exec import execute_onnx
    from qonnx.transformation.infer_shapes import InferShapes

    proto.ir_version = min(proto.ir_version, 10)
    with quietly(), mock.patch.object(onnx, "IR_VERSION", 10):  # qonnx writes models of one node for onnxruntime
        wrapped = wrapper.ModelWrapper(proto).transform(InferShapes())
        values: dict[str, Array] = execute_onnx(wrapped, {proto.graph.input[0].name: x}, return_full_exec_context=True)
    return values
