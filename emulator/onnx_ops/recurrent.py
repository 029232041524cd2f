"""LSTM, GRU and RNN.

References: https://onnx.ai/onnx/operators/onnx__LSTM.html, onnx__GRU.html, onnx__RNN.html;
`com.microsoft.DynamicQuantizeLSTM` in https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md.

A sequence is (S, N, inputs), or (N, S, inputs) with `layout` 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from weakcell.emulator.onnx_ops.activations import sigmoid
from weakcell.emulator.onnx_ops.quantization import quantized_range
from weakcell.emulator.onnx_ops.registry import Array, Attributes, Inputs, given, optional, register_several, text

Activation = Callable[[Array], Array]
Product = Callable[[Array], Array]


def _activation(name: str, alpha: float | None, beta: float | None) -> Activation:
    """Return one of ONNX's activation functions by name, in any case."""
    a = (
        {"leakyrelu": 0.01, "hardsigmoid": 0.2, "elu": 1.0, "thresholdedrelu": 1.0}.get(name.lower(), 1.0)
        if alpha is None
        else alpha
    )
    b = {"hardsigmoid": 0.5}.get(name.lower(), 0.0) if beta is None else beta
    known: dict[str, Activation] = {
        "affine": lambda x: a * x + b,
        "elu": lambda x: np.where(x >= 0, x, a * np.expm1(np.minimum(x, 0))),
        "hardsigmoid": lambda x: np.clip(a * x + b, 0, 1),
        "leakyrelu": lambda x: np.where(x >= 0, x, a * x),
        "relu": lambda x: np.maximum(x, 0),
        "scaledtanh": lambda x: a * np.tanh(b * x),
        "sigmoid": sigmoid,
        "softplus": lambda x: np.logaddexp(x, 0),
        "softsign": lambda x: x / (1 + np.abs(x)),
        "tanh": np.tanh,
        "thresholdedrelu": lambda x: np.where(x > a, x, 0),
    }
    if name.lower() not in known:
        raise ValueError(f"the activation {name}")
    return known[name.lower()]


@dataclass(frozen=True)
class Cell:
    """One direction of a recurrent layer.

    Attributes:
        hidden: number of its states.
        activations: in the order of ONNX.
        inputs: the product of a step's inputs with the weights W, without bias.
        states: the product of the states with R.
        bias: of inputs and states, (2, gates * hidden).
        peephole: weights of the cell state, (3 * hidden).
        clip: limit of what the activations read; 0 for none.
    """

    hidden: int
    activations: tuple[Activation, ...]
    inputs: Product
    states: Product
    bias: Array
    peephole: Array
    clip: float
    attributes: Attributes

    def limited(self, x: Array) -> Array:
        """Return x within the clip."""
        return np.asarray(np.clip(x, -self.clip, self.clip)) if self.clip else x


def _lstm_step(cell: Cell, x: Array, h: Array, c: Array) -> tuple[Array, Array]:
    """Return hidden and cell state after one step; gates are i, o, f, c."""
    f, g, last = cell.activations
    gates = x + cell.states(h) + (cell.bias[0] + cell.bias[1])
    i, o, forget, candidate = np.split(gates, 4, -1)
    p_i, p_o, p_f = np.split(cell.peephole, 3)
    i = f(cell.limited(i + p_i * c))
    forget = 1 - i if cell.attributes.get("input_forget", 0) else f(cell.limited(forget + p_f * c))
    c = forget * c + i * g(cell.limited(candidate))
    return f(cell.limited(o + p_o * c)) * last(cell.limited(c)), c


def _gru_step(cell: Cell, x: Array, h: Array, c: Array) -> tuple[Array, Array]:
    """Return the hidden state after one step; gates are z, r, h."""
    f, g = cell.activations
    size = cell.hidden
    recurrent = cell.states(h)
    both = x[:, : 2 * size] + recurrent[:, : 2 * size] + (cell.bias[0] + cell.bias[1])[: 2 * size]
    z, r = np.split(f(cell.limited(both)), 2, -1)
    wb, rb = cell.bias[0, 2 * size :], cell.bias[1, 2 * size :]
    if cell.attributes.get("linear_before_reset", 0):
        candidate = x[:, 2 * size :] + wb + r * (recurrent[:, 2 * size :] + rb)
    else:
        candidate = x[:, 2 * size :] + cell.states(r * h)[:, 2 * size :] + rb + wb
    return (1 - z) * g(cell.limited(candidate)) + z * h, c


def _rnn_step(cell: Cell, x: Array, h: Array, c: Array) -> tuple[Array, Array]:
    """Return the hidden state after one step."""
    return cell.activations[0](cell.limited(x + cell.states(h) + (cell.bias[0] + cell.bias[1]))), c


_STEPS = {
    "LSTM": (_lstm_step, 4, ("Sigmoid", "Tanh", "Tanh")),
    "GRU": (_gru_step, 3, ("Sigmoid", "Tanh")),
    "RNN": (_rnn_step, 1, ("Tanh",)),
}
"""The step, the number of gates, and the default activations."""


def _activations(attributes: Attributes, defaults: tuple[str, ...], direction: int) -> tuple[Activation, ...]:
    """Return the activations of one direction; alpha and beta are given in their order."""
    names = list(attributes.get("activations", ())) or list(defaults) * 2
    alphas, betas = list(attributes.get("activation_alpha", ())), list(attributes.get("activation_beta", ()))
    result = []
    for index, name in enumerate(names):
        plain = name.decode() if isinstance(name, bytes) else str(name)
        own = [float(v[index]) if index < len(v) else None for v in (alphas, betas)]
        result.append(_activation(plain, *own))
    count = len(defaults)
    return tuple(result[direction * count : (direction + 1) * count])


def _run(
    op_type: str, inputs: Inputs, attributes: Attributes, products: Callable[[int], tuple[Product, Product]]
) -> tuple[Array, ...]:
    """Run a recurrent layer.

    Args:
        op_type: LSTM, GRU or RNN.
        inputs: X, -, -, B, sequence_lens, initial_h, initial_c, P.
        attributes: of the node.
        products: the products with W and R of a direction.

    Returns:
        All states (S, directions, N, hidden), the last states (directions, N, hidden), and the last cell states.
    """
    step, gates, defaults = _STEPS[op_type]
    x, layout = given(inputs[0]), int(attributes.get("layout", 0))
    x = x.swapaxes(0, 1) if layout else x
    bias, lengths, first_h, first_c, peephole = (optional(inputs, i) for i in range(3, 8))
    how = text(attributes, "direction", "forward")
    hidden, (length, batch) = int(attributes["hidden_size"]), x.shape[:2]
    if hidden not in given(inputs[2]).shape[1:]:
        raise ValueError(f"hidden_size is {hidden}, and R has the shape {list(given(inputs[2]).shape)}")
    ends = np.full(batch, length) if lengths is None else lengths.astype(np.int64)
    if ends.size != batch or ends.min(initial=0) < 0 or ends.max(initial=0) > length:
        raise ValueError(f"the sequence lengths do not fit {length} steps")
    starts = [None if s is None else s.swapaxes(0, 1) if layout else s for s in (first_h, first_c)]
    every, last_h, last_c = [], [], []
    for direction in range(2 if how == "bidirectional" else 1):
        backward = how == "reverse" or direction == 1
        zeros = np.zeros((batch, hidden), x.dtype)
        h, c = (zeros if s is None else s[direction] for s in starts)
        w, r = products(direction)
        cell = Cell(
            hidden,
            _activations(attributes, defaults, direction),
            w,
            r,
            np.zeros((2, gates * hidden), x.dtype) if bias is None else bias[direction].reshape(2, -1),
            np.zeros(3 * hidden, x.dtype) if peephole is None else peephole[direction],
            float(attributes.get("clip", 0.0)),
            attributes,
        )
        states = np.zeros((length, batch, hidden), x.dtype)
        projected = w(x.reshape(length * batch, -1)).reshape(length, batch, -1)
        for t in range(length):
            at = ends - 1 - t if backward else np.full(batch, t)
            active = (t < ends)[:, None]
            at = np.maximum(at, 0)
            new_h, new_c = step(cell, projected[at, np.arange(batch)], h, c)
            h, c = np.where(active, new_h, h).astype(x.dtype), np.where(active, new_c, c).astype(x.dtype)
            rows = np.flatnonzero(active[:, 0])
            states[at[rows], rows] = h[rows]
        every.append(states)
        last_h.append(h)
        last_c.append(c)
    y, y_h, y_c = np.stack(every, 1), np.stack(last_h), np.stack(last_c)
    if layout:
        y, y_h, y_c = y.transpose(2, 0, 1, 3), y_h.swapaxes(0, 1), y_c.swapaxes(0, 1)
    return (y, y_h, y_c) if op_type == "LSTM" else (y, y_h)


def _register(op_type: str) -> None:
    @register_several(op_type)
    def run(inputs: Inputs, attributes: Attributes, opset: int, outputs: int) -> tuple[Array, ...]:
        """Run the layer with float weights W (directions, gates * hidden, inputs) and R."""
        w, r = given(inputs[1]), given(inputs[2])

        def products(direction: int) -> tuple[Product, Product]:
            """Return the products with the weights of a direction."""
            a, b = w[direction].T, r[direction].T
            return (lambda x: np.asarray(x @ a)), (lambda x: np.asarray(x @ b))

        return _run(op_type, inputs, attributes, products)


for _name in _STEPS:
    _register(_name)


# ── quantized weights, activations quantized at run time ──────────────────────────────────────────────


def _dynamic_product(codes: Array, scale: Array, zero: Array) -> Product:
    """Return the product with integer weights (inputs, outputs); each call quantizes its matrix to uint8."""
    wide = codes.astype(np.float64) - zero.astype(np.float64)
    factors = scale.astype(np.float32)

    def product(x: Array) -> Array:
        """Quantize, sum as int32, and scale."""
        x_scale, x_zero = quantized_range(x)
        q = np.clip(np.rint(x / x_scale) + np.float32(x_zero), 0, 255).astype(np.float64) - float(x_zero)
        return np.asarray((q @ wide).astype(np.float32) * (x_scale * factors), np.float32)

    return product


@register_several("com.microsoft.DynamicQuantizeLSTM")
def _dynamic_lstm(inputs: Inputs, attributes: Attributes, opset: int, outputs: int) -> tuple[Array, ...]:
    """DynamicQuantizeLSTM: X, W, R, B, lengths, h, c, P, then scale and zero point of W and of R.

    W is (directions, inputs, 4 * hidden) of 8-bit integers. The inputs of all steps are quantized together, the states at each
    step.
    """
    w, r = given(inputs[1]), given(inputs[2])
    w_scale, w_zero, r_scale, r_zero = (given(inputs[i]) for i in range(8, 12))

    def products(direction: int) -> tuple[Product, Product]:
        """Return the products with the weights of a direction."""
        parts: list[Any] = [(w, w_scale, w_zero), (r, r_scale, r_zero)]
        both = [
            _dynamic_product(codes[direction], _of(scale, direction, codes), _of(zero, direction, codes))
            for codes, scale, zero in parts
        ]
        return both[0], both[1]

    return _run("LSTM", inputs, attributes, products)


def _of(parameter: Array, direction: int, codes: Array) -> Array:
    """Return scale or zero point of one direction: one number, or one for each output."""
    flat = parameter.reshape(codes.shape[0], -1) if parameter.size >= codes.shape[0] else parameter.reshape(1, -1)
    return np.asarray(flat[min(direction, len(flat) - 1)])
