"""The shipped networks, on all their test images, against onnxruntime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.emulator.models import run, with_codes_out
from tests.emulator.reference import evaluate, layer_outputs
from weakcell.emulator.importer import load
from weakcell.emulator.ir.operators import FloatOperator

SHIPPED = Path(__file__).resolve().parents[2] / "host" / "shipped"


def digits() -> np.ndarray:
    with np.load(SHIPPED / "digits.npz") as data:
        return data["x_test"].astype(np.float32)


def test_digits_bnn_is_exact() -> None:
    path, x = SHIPPED / "digits_bnn.onnx", digits()
    network = load(path)
    assert network.values["input"].kind == "codes"
    assert not any(isinstance(layer, FloatOperator) for layer in network.layers)
    np.testing.assert_array_equal(evaluate(network, {"input": x})["logits"], run(onnx.load(path), {"input": x})[0])


def test_digits_qnn_is_within_one_lsb() -> None:
    proto, x = onnx.load(SHIPPED / "digits_qnn.onnx"), digits()
    network = load(SHIPPED / "digits_qnn.onnx")
    extended, names = with_codes_out(proto)
    codes = dict(zip(names, run(extended, {"input": x}, names), strict=True))
    made = layer_outputs(network, {"input": x}, codes)
    distances = [np.abs(made[n] - c.reshape(made[n].shape).astype(np.int64)).reshape(-1) for n, c in codes.items() if n in made]
    apart = np.concatenate(distances)
    assert apart.max() <= 1
    assert np.mean(apart) <= 0.001
    ours, theirs = evaluate(network, {"input": x})["logits"], run(proto, {"input": x})[0]
    lsb = float(network.values["logits_QuantizeLinear_Output"].scale)
    top = np.sort(theirs, 1)
    changed = ours.argmax(1) != theirs.argmax(1)
    assert np.all((top[:, -1] - top[:, -2])[changed] <= lsb * 1.001)


def test_fashion_bnn_is_exact() -> None:
    path = SHIPPED / "fashion_bnn.onnx"
    if not path.is_file():
        pytest.skip(f"there is no {path}")
    x = np.random.default_rng(0).integers(0, 256, (20, 1, 28, 28)).astype(np.float32)
    np.testing.assert_array_equal(evaluate(load(path), {"input": x})["logits"], run(onnx.load(path), {"input": x})[0])
