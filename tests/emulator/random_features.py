"""Networks of random features on the shipped digits: any width, depth and weight bits, trained in a second without PyTorch.

Hidden layers have random quantized weights. The last layer is a ridge regression, quantized. Accuracies reach 80 to 97 %, so a
prediction under errors has something to lose.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tests.emulator.small import INT32, Array, RandomNetwork
from weakcell.emulator.ir.layers import Requantize, Threshold
from weakcell.emulator.ir.network import Network
from weakcell.emulator.ir.values import SIGN1, Encoding, Window

DIGITS = Path(__file__).resolve().parents[2] / "host" / "shipped" / "digits.npz"


def digits(part: str, images: int | None = None) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Images (n, 1, 8, 8) of integers from 0 to 255 and labels (n,); part: train or test."""
    with np.load(DIGITS) as data:
        x, y = data[f"x_{part}"][:images], data[f"y_{part}"][:images]
    x = x.reshape(len(x), 1, 8, 8).astype(np.float64)
    return np.rint((x - x.min()) * (255 / (x.max() - x.min()))).astype(np.float32), y.astype(np.int64)


def feature_network(width: int, bits: int, depth: int = 2, seed: int = 0) -> Network:
    """A classifier of 8x8 digits: `depth` hidden layers of `width` neurons, then 10 classes.

    Weights have 1 bit (signs, with signs as activations), or 2, 4 or 8 (two's complement, with 8-bit activations behind a ReLU).
    """
    rng = np.random.default_rng([seed, width, bits, depth])
    draft, encoding = RandomNetwork(rng), SIGN1 if bits == 1 else Encoding("signed", bits)
    images, labels = digits("train")
    x, name = images.reshape(len(images), -1).astype(np.float64), draft.input("x", (1, 8, 8))
    for _ in range(depth):
        weights = quantized(rng.normal(size=(width, x.shape[1])), encoding)
        sums = x @ weights.T
        centre = np.rint(np.median(sums, axis=0)).astype(np.int64)
        out = draft.convolution(name, width, Window(draft.values[name].height_width), encoding, bias=bits > 1, flat=True)
        hold(draft, out, weights, -centre)
        x, name = activated(draft, out, sums - centre, centre)
    targets = np.eye(10)[labels] - 0.1
    centred = x - x.mean(axis=0)
    ridge = np.linalg.solve(
        centred.T @ centred + 1e-2 * (centred**2).sum() / x.shape[1] * np.eye(x.shape[1]), centred.T @ targets
    ).T
    weights = quantized(ridge / ridge.std(), encoding)
    out = draft.convolution(name, 10, Window(draft.values[name].height_width), encoding, bias=True, flat=True)
    hold(draft, out, weights, -np.rint(weights @ x.mean(axis=0)).astype(np.int64))
    return draft.network(draft.dequantize(out))


def quantized(weights: Array, encoding: Encoding) -> Array:
    """Weights of standard deviation 1 as integers of this encoding; its range holds about 2.5 standard deviations."""
    if encoding.kind == "sign":
        return np.where(weights >= 0, 1, -1)
    return np.clip(np.rint(weights * max(0.9, encoding.high / 2.5)), encoding.low, encoding.high).astype(np.int64)


def hold(draft: RandomNetwork, out: str, weights: Array, bias: Array) -> None:
    """Give the layer that makes `out` these weights (O, K) and this bias, if it has one."""
    layer = draft.layers[-1]
    old = draft.tensors[f"{layer.name}.w"]
    draft.tensors[old.name] = replace(old, codes=weights.reshape(old.shape).astype(np.int32))
    if f"{layer.name}.b" in draft.tensors:
        draft.store(f"{layer.name}.b", "bias", INT32, bias)
    assert layer.output == out


def activated(draft: RandomNetwork, out: str, sums: Array, centre: Array) -> tuple[Array, str]:
    """Signs of sums without bias, or ReLU of sums with bias as 8-bit codes; their values and their name. sums: centred."""
    channels = sums.shape[1]
    if draft.tensors[f"{draft.layers[-1].name}.w"].encoding == SIGN1:
        name = draft.threshold(out)
        layer = draft.layers[-1]
        assert isinstance(layer, Threshold)
        draft.layers[-1] = replace(layer, inverted=np.zeros(channels, bool))
        draft.store(layer.threshold, "threshold", INT32, centre)
        return np.where(sums >= 0, 1.0, -1.0), name
    name = draft.requantize(out, 1.0)
    layer = draft.layers[-1]
    assert isinstance(layer, Requantize)
    multiplier = np.full(channels, 255 / np.quantile(sums, 0.995), np.float32)
    draft.layers[-1] = replace(layer, multiplier=multiplier)
    return np.clip(np.rint(sums * multiplier), 0, 255), name
