"""Networks on one-dimensional signals, trained here, in five memory technologies; prints Markdown tables.

    python -m tests.emulator.signal_networks [--trials 20]

A keyword spotter (depthwise and pointwise convolutions) and a classifier of heartbeats are trained on synthetic signals
(`signals.py`), and written by three tools. Each file is run with its weights in each memory, over a condition of that memory.
The flip rate is that of the first file: it depends on the stored bits where 0 and 1 err at different rates.
Two checks follow, against onnxruntime with optimizations off:

    without errors   the outputs of the test set
    with errors      the right answers of trial 0 at one point of each memory: the flips that were recorded are made in the weights
                     of the ONNX file, and onnxruntime runs that file
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from importlib import import_module
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import polars as pl
import torch
from torch import nn
from torch.nn import functional as f

import weakcell
from tests.emulator.families import Heartbeat
from tests.emulator.flipped import with_flipped_initializers, without_clips
from tests.emulator.models import Array, exported, quantized, quietly, run
from tests.emulator.public_sequences import SeparableKeywords
from tests.emulator.signals import heartbeats, spoken_words
from weakcell import emulator


@dataclass(frozen=True)
class Signal:
    """A kind of signal and its network.

    Attributes:
        make: makes the network.
        data: makes signals and their classes from a number and a seed.
    """

    make: Callable[[], nn.Module]
    data: Callable[[int, int], tuple[Array, Array]]


SIGNALS = {
    "words": Signal(lambda: SeparableKeywords(64), spoken_words),
    "heartbeats": Signal(lambda: Heartbeat(128, 16), heartbeats),
}
MEMORIES = {
    "sram-14nm": "v_over_vmin=0.8,0.825,0.85,0.875,0.9",
    "dram": "trcd=5,6,7,8,9",
    "rram:g_low=1,g_high=10": "time=1,60,3600,86400,172800",
    "sttram": "tau=3,4,5,6,7",
    "fefet": "domains=50,75,100,150,200",
}
"""A condition of each technology and its values, from many errors to few; of RRAM from few to many."""
CHECKED = 2
"""The number of the value at which errors are checked."""


def trained(make: Callable[[], nn.Module], x: Array, y: Array, epochs: int) -> nn.Module:
    """Return a network after training by Adam, in evaluation mode. Every call draws the same random numbers."""
    torch.manual_seed(0)
    network, signals, classes = make(), torch.from_numpy(x), torch.from_numpy(y)
    optimizer = torch.optim.Adam(network.parameters(), 2e-3)
    network.train()
    for _ in range(epochs):
        for part in torch.randperm(len(signals)).split(64):
            optimizer.zero_grad()
            f.cross_entropy(network(signals[part]), classes[part]).backward()
            optimizer.step()
    return network.eval()


# ── ways to a file ────────────────────────────────────────────────────────────────────────────────────


def static_qdq(network: nn.Module, x: Array, y: Array) -> onnx.ModelProto:
    """Return the export of torch's newer exporter, quantized by onnxruntime: int8 weights, a scale for each channel."""
    return quantized(exported(network, x.shape[1:], dynamo=True), x[:200], per_channel=True)


def static_operators(network: nn.Module, x: Array, y: Array) -> onnx.ModelProto:
    """Return it with QLinear operators and uint8 weights, which onnxruntime sums without saturation on every processor."""
    unsigned = import_module("onnxruntime.quantization").QuantType.QUInt8
    proto = exported(network, x.shape[1:], dynamo=True)
    return quantized(proto, x[:200], operators=True, activation_type=unsigned, weight_type=unsigned)


def brevitas_qcdq(network: nn.Module, x: Array, y: Array) -> onnx.ModelProto:
    """Return a copy with 4-bit weights, trained for one more epoch, as Brevitas writes QCDQ."""
    qnn, export, quantize = (import_module(f"brevitas.{name}") for name in ("nn", "export", "graph.quantize"))
    four = {"weight_bit_width": 4}
    layers = {
        nn.Conv1d: (qnn.QuantConv1d, four), nn.Linear: (qnn.QuantLinear, four),
        nn.ReLU: (qnn.QuantReLU, {"bit_width": 8, "return_quant_tensor": True}),
    }  # fmt: skip
    with quietly(), TemporaryDirectory() as folder:
        body = quantize.layerwise_quantize(deepcopy(network), compute_layer_map=layers)
        narrow = nn.Sequential(qnn.QuantIdentity(bit_width=8, return_quant_tensor=True), body)
        path = f"{folder}/net.onnx"
        export.export_onnx_qcdq(
            trained(lambda: narrow, x, y, 1), args=torch.from_numpy(x[:2]), export_path=path, dynamo=False, opset_version=17,
            input_names=["x"], output_names=["y"], dynamic_axes={"x": {0: "N"}, "y": {0: "N"}},
        )  # fmt: skip
        return onnx.load(path)


WAYS: dict[str, Callable[[nn.Module, Array, Array], onnx.ModelProto]] = {
    "int8, onnxruntime QDQ": static_qdq,
    "uint8, onnxruntime QOperator": static_operators,
    "int4, Brevitas QCDQ": brevitas_qcdq,
}


# ── onnxruntime on a file with flipped weights ────────────────────────────────────────────────────────


def right_with_flips(proto: onnx.ModelProto, faults: pl.DataFrame, x: Array, y: Array) -> int:
    """Return how many signals onnxruntime classifies rightly when these flips are made in the weights of the file."""
    rows = faults.select("tensor", "element", "bit").cast({"tensor": pl.String}).iter_rows()
    cells: dict[str, list[tuple[int, int]]] = {}
    for tensor, element, bit in rows:
        cells.setdefault(tensor, []).append((element, bit))
    bits = {tensor.name: tensor.encoding.bits for tensor in emulator.load(proto).weights}
    assert set(cells) <= {tensor.name for tensor in proto.graph.initializer}
    changed = with_flipped_initializers(without_clips(proto, set(bits)), cells, bits=bits)
    return int((run(changed, {"x": x})[0].argmax(1) == y).sum())


# ── tables ────────────────────────────────────────────────────────────────────────────────────────────


def tables(name: str, trials: int) -> None:
    """Print the table of a kind of signal, and what onnxruntime says."""
    signal = SIGNALS[name]
    x, y = signal.data(3000, 0)
    tests, classes = signal.data(600, 1)
    network = trained(signal.make, x, y, 8)
    files = {way: make(network, x, y) for way, make in WAYS.items()}
    results = {
        way: {memory: weakcell.emulate(proto, (tests, classes), memory=memory, sweep=sweep, trials=trials).summary
              for memory, sweep in MEMORIES.items()}
        for way, proto in files.items()
    }  # fmt: skip
    print(f"\n{name}\n\n| memory | point | flip rate | {' | '.join(files)} |\n|{'---|' * (3 + len(files))}")
    for memory in MEMORIES:
        for rows in zip(*(of[memory].iter_rows(named=True) for of in results.values()), strict=True):
            scores = (f"{100 * r['mean']:.1f} % ({100 * r['low']:.1f} … {100 * min(1.0, r['high']):.1f})" for r in rows)
            point = f"{rows[0]['sweep_key']}={rows[0]['sweep_value']:g}"
            print(f"| `{memory}` | {point} | {rows[0]['flip_rate']:.2g} | {' | '.join(scores)} |", flush=True)
    print(f"\n| {name} against onnxruntime | stored weights | without errors | largest difference | {' | '.join(MEMORIES)} |")
    print(f"|{'---|' * (4 + len(MEMORIES))}")
    for way, proto in files.items():
        print(f"| {way} | {' | '.join(_checks(proto, tests, classes))} |", flush=True)


def _checks(proto: onnx.ModelProto, x: Array, y: Array) -> list[str]:
    """Return cells: stored bits; right answers without errors, ours and theirs; difference of outputs; with errors."""
    network = emulator.load(proto)
    found, wanted = emulator.infer(emulator.compile_plan(network), {"x": x})["y"], run(proto, {"x": x})[0]
    cells = [
        f"{network.weight_bits} bits",
        f"{(found.argmax(1) == y).sum()}, {(wanted.argmax(1) == y).sum()} of {len(y)}",
        f"{np.abs(found - wanted).max():.1e} of {np.abs(wanted).max():.1f}",
    ]
    for memory, sweep in MEMORIES.items():
        key, values = sweep.split("=")
        cells.append("{}, {}".format(*answers_with_errors(proto, x, y, memory, f"{key}={values.split(',')[CHECKED]}")))
    return cells


def answers_with_errors(proto: onnx.ModelProto, x: Array, y: Array, memory: str, point: str) -> tuple[int, int]:
    """Return the right answers of trial 0 at a point: as Weakcell emulates it, and of onnxruntime with the same flips."""
    result = weakcell.emulate(proto, (x, y), memory=memory, sweep=point, trials=1, record_faults=True)
    assert result.fault_table.height
    return round(result.frame["accuracy"][0] * len(y)), right_with_flips(proto, result.fault_table, x, y)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--signal", choices=SIGNALS)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    for name in SIGNALS:
        if options.signal in (None, name):
            tables(name, options.trials)


if __name__ == "__main__":
    main()
