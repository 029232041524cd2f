"""Families of networks through the tools that people use, engine against onnxruntime.

python -m tests.emulator.exporters [--family lstm] [--way dynamic] [--markdown]

Each cell is one small network, made by the real tool: imported, compared with onnxruntime (all optimizations off, one image after
the other), and run with errors in its weights: the same bits are flipped in the file for onnxruntime, where a stored tensor is an
initializer of the file. A cell says

    equal    every output is onnxruntime's, bit for bit
    close    the outputs differ by float noise, or by steps of a quantizer that it moved (relative to the largest output)
    APART    they differ by more, or errors change nothing
    refused  the importer names a reason and a remedy
    float    the tool left no integers to place: outputs are equal or close
    -        the tool cannot make the network (it fails, has nothing to quantize, or is not installed)

and how many of the file's integers live in the memory.
"""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import nn

from tests.emulator.families import FAMILIES, Array, Family
from tests.emulator.flipped import Cells, outputs_with_flips, random_cells, with_flipped_initializers, without_clips
from tests.emulator.models import qonnx_values, quantized, quietly, run
from weakcell import emulator
from weakcell.memmodels.catalogue import parse_spec
from weakcell.memmodels.errors import ModelError

CLOSE = 0.02
"""Relative to the largest output."""


# ── ways to a file ────────────────────────────────────────────────────────────────────────────────────


@cache
def dynamo(family: Family) -> onnx.ModelProto:
    """Return the float network as torch's newer exporter writes it, with an open batch."""
    x = torch.from_numpy(family.data(1))
    with quietly():
        program = torch.onnx.export(
            _network(family), (x,), dynamo=True, input_names=["x"], output_names=["y"],
            dynamic_shapes=({0: torch.export.Dim("N")},), verbose=False,
        )  # fmt: skip
    assert program is not None
    proto: onnx.ModelProto = program.model_proto
    return proto


@cache
def torchscript(family: Family) -> onnx.ModelProto:
    """Return the float network as torch's older exporter writes it."""
    buffer = io.BytesIO()
    axes = {"x": {0: "N"}, "y": {0: "N"}}
    with quietly():
        torch.onnx.export(
            _network(family), (torch.from_numpy(family.data(1)),), buffer, dynamo=False, input_names=["x"], output_names=["y"],
            dynamic_axes=axes, opset_version=17,
        )  # fmt: skip
    return onnx.load_from_string(buffer.getvalue())


def _network(family: Family) -> nn.Module:
    """Return the network of a family, the same at every call."""
    torch.manual_seed(7)
    return family.make().eval()


def _static(export: Callable[[Family], onnx.ModelProto], **options: Any) -> Callable[[Family], onnx.ModelProto]:
    def make(family: Family) -> onnx.ModelProto:
        return quantized(export(family), family.data(2, 8), **options)

    return make


def quantized_dynamically(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return onnxruntime's dynamic quantization."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory() as folder, quietly():
        source, target = Path(folder) / "float.onnx", Path(folder) / "int.onnx"
        onnx.save(proto, source)
        quantize_dynamic(source, target, weight_type=QuantType.QUInt8, reduce_range=True)
        return onnx.load(target)


def _dynamic(export: Callable[[Family], onnx.ModelProto]) -> Callable[[Family], onnx.ModelProto]:
    return lambda family: quantized_dynamically(export(family))


def _blocks(bits: int, form: str) -> Callable[[Family], onnx.ModelProto]:
    def make(family: Family) -> onnx.ModelProto:
        from onnxruntime.quantization import QuantFormat
        from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer

        config = DefaultWeightOnlyQuantConfig(16, is_symmetric=False, quant_format=QuantFormat[form], bits=bits)
        with quietly():
            quantizer = MatMulNBitsQuantizer(onnx.load_from_string(dynamo(family).SerializeToString()), algo_config=config)
            quantizer.process()
        proto: onnx.ModelProto = quantizer.model.model
        if form == "QDQ":
            next(o for o in proto.opset_import if o.domain == "").version = 21
        return proto

    return make


def _pt2e(family: Family) -> onnx.ModelProto:
    pt2e = import_module("torchao.quantization.pt2e.quantize_pt2e")
    xnnpack = import_module("torchao.testing.pt2e._xnnpack_quantizer")

    x = torch.from_numpy(family.data(2))
    with quietly():
        shapes = ({0: torch.export.Dim("N")},)
        program = torch.export.export(_network(family), (x,), dynamic_shapes=shapes).module()
        quantizer = xnnpack.XNNPACKQuantizer().set_global(xnnpack.get_symmetric_quantization_config(is_per_channel=True))
        prepared = pt2e.prepare_pt2e(program, quantizer)
        prepared(x)
        converted = pt2e.convert_pt2e(prepared)
        exported = torch.export.export(converted, (x,), dynamic_shapes=shapes)
        made = torch.onnx.export(exported, dynamo=True, input_names=["x"], output_names=["y"], verbose=False)
    assert made is not None
    proto: onnx.ModelProto = made.model_proto
    return proto


def _brevitas(form: str) -> Callable[[Family], onnx.ModelProto]:
    def make(family: Family) -> onnx.ModelProto:
        qnn, export, quantize = (import_module(f"brevitas.{name}") for name in ("nn", "export", "graph.quantize"))

        x = torch.from_numpy(family.data(2))
        torch.backends.mha.set_fastpath_enabled(False)  # it is one operator, which cannot be exported
        maps = {
            nn.Conv1d: (qnn.QuantConv1d, {"weight_bit_width": 4}), nn.Conv2d: (qnn.QuantConv2d, {"weight_bit_width": 4}),
            nn.Linear: (qnn.QuantLinear, {"weight_bit_width": 4}), nn.Embedding: (qnn.QuantEmbedding, {"weight_bit_width": 4}),
        }  # fmt: skip
        with quietly(), tempfile.TemporaryDirectory() as folder:
            network = quantize.layerwise_quantize(_network(family), compute_layer_map=maps).eval()
            network(x)
            path = str(Path(folder) / "net.onnx")
            if form == "qcdq":
                export.export_onnx_qcdq(network, args=x, export_path=path, dynamo=False, opset_version=17)
            else:
                export.export_qonnx(network, args=x, export_path=path)
            return onnx.load(path)

    return make


def _qonnx_to_qcdq(family: Family) -> onnx.ModelProto:
    """Return Brevitas' QONNX as the qonnx package turns it into QCDQ."""
    wrapper, transform = import_module("qonnx.core.modelwrapper"), import_module("qonnx.transformation.qonnx_to_qcdq")
    with quietly():
        proto: onnx.ModelProto = wrapper.ModelWrapper(_brevitas("qonnx")(family)).transform(transform.QuantToQCDQ()).model
    used = {name for n in proto.graph.node for name in n.input}
    inputs = [port for port in proto.graph.input if port.name in used - {t.name for t in proto.graph.initializer}]
    del proto.graph.input[:]  # it leaves parameters of the quantizers that it took away
    proto.graph.input.extend(inputs)
    return proto


def _torchao_weights(family: Family) -> onnx.ModelProto:
    """Return the network with torchao's int8 weights, exported by torch."""
    quantization = import_module("torchao.quantization")
    network, x = _network(family), torch.from_numpy(family.data(2))
    with quietly():
        quantization.quantize_(network, quantization.Int8WeightOnlyConfig())
        import_module("torchao.utils").unwrap_tensor_subclass(network)
        shapes = ({0: torch.export.Dim("N")},)
        program = torch.onnx.export(network, (x,), dynamo=True, input_names=["x"], dynamic_shapes=shapes, verbose=False)
    assert program is not None
    proto: onnx.ModelProto = program.model_proto
    return proto


# Networks of `transformers` and Keras have their own definitions, so these tools make the nearest to a family.

_SIZES = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64}
_IMAGES = {"image_size": 16, "patch_size": 4, "num_channels": 3}
_TRANSFORMERS: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    "encoder": ("BertConfig", "BertForSequenceClassification", "text-classification", _SIZES),
    "decoder": ("LlamaConfig", "LlamaForCausalLM", "text-generation", {**_SIZES, "hidden_size": 64, "num_key_value_heads": 2}),
    "vision transformer": ("ViTConfig", "ViTForImageClassification", "image-classification", {**_SIZES, **_IMAGES}),
    "convnext": ("ConvNextConfig", "ConvNextForImageClassification", "image-classification",
                 {"image_size": 32, "hidden_sizes": [8, 8, 8, 16], "depths": [1, 1, 1, 1]}),
}  # fmt: skip
"""Configuration, network, task and sizes by family."""


def _save_transformer(family: Family, folder: str) -> str:
    """Write a network of `transformers` into a folder and return its task."""
    package = import_module("transformers")
    config, network, task, sizes = _TRANSFORMERS[_name(family)]
    torch.manual_seed(7)
    getattr(package, network)(getattr(package, config)(**sizes)).eval().save_pretrained(folder)
    return task


def _name(family: Family) -> str:
    """Return the name of a family."""
    return next(name for name, other in FAMILIES.items() if other is family)


def _optimum(family: Family) -> onnx.ModelProto:
    """Return Optimum's export, and its dynamic quantization."""
    tools = import_module("optimum.onnxruntime")
    settings = import_module("optimum.onnxruntime.configuration").AutoQuantizationConfig
    with tempfile.TemporaryDirectory() as folder, quietly():
        task = _save_transformer(family, f"{folder}/torch")
        import_module("optimum.exporters.onnx").main_export(f"{folder}/torch", f"{folder}/float", task=task, do_validation=False)
        quantizer = tools.ORTQuantizer.from_pretrained(f"{folder}/float", file_name="model.onnx")
        quantizer.quantize(save_dir=f"{folder}/int", quantization_config=settings.avx2(is_static=False, per_channel=False))
        return onnx.load(f"{folder}/int/model_quantized.onnx")


def _genai(family: Family) -> onnx.ModelProto:
    """Return what onnxruntime-genai's model builder writes, in 4-bit blocks. It wants a tokenizer, which it only copies."""
    package, tokenizers = import_module("transformers"), import_module("tokenizers")
    words = tokenizers.models.WordLevel({str(i): i for i in range(family.tokens)}, unk_token="0")
    with tempfile.TemporaryDirectory() as folder:
        if _save_transformer(family, f"{folder}/torch") != "text-generation":
            raise ValueError("the model builder writes decoders")
        package.PreTrainedTokenizerFast(tokenizer_object=tokenizers.Tokenizer(words)).save_pretrained(f"{folder}/torch")
        command = f"-m onnxruntime_genai.models.builder -i {folder}/torch -o {folder}/onnx -p int4 -e cpu -c {folder}/cache"
        options = ["--extra_options", "accuracy_level=0"]
        subprocess.run([sys.executable, *command.split(), *options], check=True, capture_output=True, cwd=folder)
        return onnx.load(f"{folder}/onnx/model.onnx")


def _keras(family: Family) -> Any:
    """Return a network of Keras; its channels are the last axis."""
    keras = import_module("tensorflow").keras
    keras.utils.set_random_seed(7)
    layers = keras.layers
    shapes = {"keyword spotting": (40, 6), "ecg": (64, 1), "lstm": (7, 6), "gru": (7, 6)}
    shapes |= dict.fromkeys(("u-net", "convnext"), (16, 16, 3))
    x = given = keras.Input(shapes[_name(family)])
    if _name(family) == "keyword spotting":
        x = layers.Conv1D(16, 5, 2, "same", activation="relu")(x)
        x = layers.ReLU()(layers.BatchNormalization()(layers.DepthwiseConv1D(3, padding="same")(x)))
        x = layers.Dense(5)(layers.GlobalAveragePooling1D()(x))
    elif _name(family) == "ecg":
        x = layers.MaxPooling1D(2)(layers.Conv1D(8, 7, padding="same", activation="relu")(x))
        x = layers.MaxPooling1D(2)(layers.Conv1D(16, 5, padding="same", activation="relu")(x))
        x = layers.Dense(5)(layers.Flatten()(x))
    elif _name(family) == "u-net":
        a = layers.Conv2D(8, 3, 2, "same", activation="relu")(x)
        b = layers.Conv2DTranspose(8, 2, 2)(layers.Conv2D(16, 3, 2, "same", activation="relu")(a))
        x = layers.Conv2D(3, 1)(layers.Concatenate()([a, b]))
    elif _name(family) == "convnext":
        x = layers.Conv2D(16, 4, 4)(x)
        h = layers.LayerNormalization()(layers.DepthwiseConv2D(3, padding="same")(x))
        h = layers.Dense(16)(layers.Dense(32, activation="relu")(h))
        x = layers.Dense(5)(layers.GlobalAveragePooling2D()(layers.Add()([x, h])))
    else:
        x = layers.Dense(5)((layers.LSTM if _name(family) == "lstm" else layers.GRU)(8)(x))
    return keras.Model(given, x)


def _tf2onnx(family: Family) -> onnx.ModelProto:
    """Return a Keras network by tf2onnx, quantized statically by onnxruntime."""
    tensorflow, tf2onnx = import_module("tensorflow"), import_module("tf2onnx")
    with quietly():
        network = _keras(family)
        signature = [tensorflow.TensorSpec((None, *network.inputs[0].shape[1:]), tensorflow.float32, name="x")]
        function = tensorflow.function(lambda x: network(x, training=False))
        proto, _ = tf2onnx.convert.from_function(function, input_signature=signature, opset=17)
    return quantized(proto, _like(proto, 8, 2), per_channel=True)


def _tflite(family: Family) -> onnx.ModelProto:
    """Return a Keras network, quantized to 8 bits by TFLite, by tf2onnx."""
    tensorflow, tf2onnx = import_module("tensorflow"), import_module("tf2onnx")
    with quietly(), tempfile.TemporaryDirectory() as folder:
        network, rng = _keras(family), np.random.default_rng(2)
        shape = network.inputs[0].shape[1:]
        converter = tensorflow.lite.TFLiteConverter.from_keras_model(network)
        converter.optimizations = [tensorflow.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([rng.normal(size=(1, *shape)).astype(np.float32)] for _ in range(8))
        (Path(folder) / "net.tflite").write_bytes(converter.convert())
        proto: onnx.ModelProto = tf2onnx.convert.from_tflite(f"{folder}/net.tflite", opset=17)[0]
    return proto


def _like(proto: onnx.ModelProto, count: int, seed: int) -> Array:
    """Return data for the first input of a file."""
    dims = [d.dim_value for d in proto.graph.input[0].type.tensor_type.shape.dim[1:]]
    return np.random.default_rng(seed).normal(size=(count, *dims)).astype(np.float32)


WAYS: dict[str, Callable[[Family], onnx.ModelProto]] = {
    "dynamo": dynamo,
    "torchscript": torchscript,
    "static QDQ": _static(dynamo),
    "static QDQ, script": _static(torchscript, per_channel=True),
    "static QOperator": _static(torchscript, operators=True),
    "dynamic": _dynamic(dynamo),
    "dynamic, script": _dynamic(torchscript),
    "4-bit blocks": _blocks(4, "QOperator"),
    "8-bit blocks": _blocks(8, "QOperator"),
    "4-bit QDQ": _blocks(4, "QDQ"),
    "PT2E": _pt2e,
    "torchao int8 weights": _torchao_weights,
    "Brevitas QCDQ": _brevitas("qcdq"),
    "Brevitas QONNX": _brevitas("qonnx"),
    "QONNX to QCDQ": _qonnx_to_qcdq,
    "Optimum, dynamic": _optimum,
    "onnxruntime-genai int4": _genai,
    "tf2onnx, static QDQ": _tf2onnx,
    "tf2onnx of TFLite int8": _tflite,
}


# ── one cell ──────────────────────────────────────────────────────────────────────────────────────────


def _data(proto: onnx.ModelProto, family: Family) -> dict[str, Array]:
    """Return data of each input by name: those of the family, a mask of ones, positions, and empty caches."""
    constants = {t.name for t in proto.graph.initializer}
    first, *others = (port for port in proto.graph.input if port.name not in constants)
    x = family.data(3)
    dims = [d.dim_value for d in first.type.tensor_type.shape.dim]
    if not family.tokens and any(n and n != size for n, size in zip(dims[1:], x.shape[1:], strict=True)):
        x = _like(proto, len(x), 3)
    inputs = {first.name: x}
    for port in others:
        dims = [d.dim_value for d in port.type.tensor_type.shape.dim]
        if len(dims) == 4:
            inputs[port.name] = np.zeros((len(x), dims[1] or 2, 0, dims[3] or 16), np.float32)
        else:
            rows = {"attention_mask": np.ones_like(x), "position_ids": np.arange(x.shape[1]) + np.zeros_like(x)}
            inputs[port.name] = rows.get(port.name, np.zeros_like(x))
    return inputs


def reference(proto: onnx.ModelProto, inputs: Mapping[str, Array]) -> Array:
    """Return the first output, image by image: of onnxruntime, or of qonnx for its operators."""
    first, output = proto.graph.input[0], proto.graph.output[0].name
    x = inputs[first.name]
    if any("qonnx" in n.domain or "brevitas" in n.domain for n in proto.graph.node):
        return np.asarray(qonnx_values(proto, x)[output])
    size = first.type.tensor_type.shape.dim[0].dim_value or 1
    parts = ({name: array[i : i + size] for name, array in inputs.items()} for i in range(0, len(x), size))
    return np.concatenate([run(proto, part, [output])[0] for part in parts])


def flips_of_the_file(proto: onnx.ModelProto, network: emulator.Network) -> tuple[dict[str, Cells], onnx.ModelProto]:
    """Return some cells of the stored tensors that are initializers of the file, and the file with these flipped."""
    arrays = {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}
    flips, in_file, transposed = dict[str, Cells](), dict[str, Cells](), set[str]()
    cells = random_cells(network, np.random.default_rng(5))
    for tensor in network.weights:
        name, codes = tensor.name, tensor.codes.reshape(-1)
        array = arrays.get(name)
        if array is None or array.dtype.kind == "f":
            continue
        integers = array.astype(np.int64)
        if tensor.encoding.bits == 4 and array.dtype == np.uint8 and 2 * array.size == codes.size:
            pairs = np.stack([integers.reshape(-1) & 15, integers.reshape(-1) >> 4], -1).reshape(-1)
            if np.array_equal(pairs, codes):
                in_file[name] = [(element // 2, bit + 4 * (element % 2)) for element, bit in cells[name]]
        elif np.array_equal(integers.reshape(-1), codes):
            in_file[name] = cells[name]
        elif array.ndim == 2 and np.array_equal(integers.T.reshape(-1), codes):
            in_file[name] = cells[name]
            transposed.add(name)
        if name in in_file:
            flips[name] = cells[name]
    bits = {t.name: t.encoding.bits for t in network.weights if t.name in in_file and arrays[t.name].size == t.elements}
    return flips, with_flipped_initializers(without_clips(proto, set(bits)), in_file, frozenset(transposed), bits)


def judge(family: Family, make: Callable[[Family], onnx.ModelProto]) -> tuple[str, str]:
    """Return the cell of a family and a way, and more about it."""
    try:
        proto = make(family)
        inputs = _data(proto, family)
        right = reference(proto, inputs)
    except Exception as e:
        return "-", f"{type(e).__name__}: {' '.join(str(e).split())[:300]}"
    try:
        network = emulator.load(proto, like={name: x.shape for name, x in inputs.items()})
        if len(inputs) == 1:
            inputs = dict(zip(network.inputs, inputs.values(), strict=True))
        plan = emulator.compile_plan(network)
        found = emulator.infer(plan, inputs)[network.outputs[0]]
    except ModelError as e:
        return "refused", " ".join(str(e).split())
    except Exception as e:
        return "ERROR", f"{type(e).__name__}: {' '.join(str(e).split())[:300]}"
    apart = _apart(found, right)
    share = network.weight_bits / max(1, network.integer_bits)
    note = f"{apart:.1e} apart, {share:.0%} of {network.integer_bits} bits"
    if not network.weight_bits:
        return _outcome(apart) + " float", note
    deployment = emulator.deploy(plan, emulator.place(network, parse_spec("uniform:ber=0.05")))
    if np.array_equal(emulator.outputs_under_faults(plan, inputs, deployment)[network.outputs[0]], found):
        return "APART", f"{note}; errors change nothing"
    flips, changed = flips_of_the_file(proto, network)
    if flips:
        wrong = _apart(outputs_with_flips(network, inputs, flips)[network.outputs[0]], reference(changed, _data(proto, family)))
        apart, note = max(apart, wrong), f"{note}; {wrong:.1e} apart with flips in {len(flips)} of {len(network.weights)} tensors"
    return f"{_outcome(apart)} {share:.0%}", note


def _apart(found: Array, right: Array) -> float:
    """Return the largest difference, relative to the largest output."""
    return float(np.abs(found - right).max() / max(np.abs(right).max(), 1e-9))


def _outcome(apart: float) -> str:
    return "equal" if apart == 0 else "close" if apart < CLOSE else "APART"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", choices=FAMILIES, action="append")
    parser.add_argument("--way", choices=WAYS, action="append")
    parser.add_argument("--markdown", action="store_true", help="print a table at the end")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    ways, families = options.way or list(WAYS), options.family or list(FAMILIES)
    cells: dict[tuple[str, str], str] = {}
    for way in ways:
        for name in families:
            cells[way, name], note = judge(FAMILIES[name], WAYS[way])
            print(f"{way:<22} {name:<20} {cells[way, name]:<14} {note}", flush=True)
    outcomes = [cell.split()[0] for cell in cells.values()]
    print(", ".join(f"{outcomes.count(outcome)} {outcome}" for outcome in dict.fromkeys(outcomes)))
    if options.markdown:
        print(f"\n| | {' | '.join(families)} |\n|{'---|' * (1 + len(families))}")
        for way in ways:
            print(f"| {way} | {' | '.join(cells[way, name] for name in families)} |")


if __name__ == "__main__":
    main()
