"""Convolution + requantization as one step: sums become codes while they are in registers.

Both epilogues are rounded by one kernel (`epilogues.store_codes`). What a memory may make faulty reaches it as an argument; where a
requantization's own constants live in a memory, its layer runs by itself.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from weakcell.emulator.engine.convolution import Array, Direct, Reading, kernel_of, reading_in_place, readings
from weakcell.emulator.ir.layers import AffineRequantize, Convolution, Layer, Network, Requantize
from weakcell.emulator.kernels.arguments import BIAS, BOUNDED, DIVIDED, HIGH, LOW, OUT_SCALE, SCALE, ZERO, Rounding
from weakcell.emulator.kernels.weight_layouts import LANES, DepthwiseInt8x4
from weakcell.emulator.plan.layout import unsigned_offset
from weakcell.emulator.plan.parameters import ParameterState

Requantization = Requantize | AffineRequantize

_EXACT = 1 << 16
"""Zero points and limits up to here are integers in float32, and so are their sums."""


def rounds(network: Network, layer: Convolution, following: Layer | None) -> bool:
    """Whether a kernel makes the codes of the layer that follows this convolution: 8-bit ones, without further float steps.

    Weights must have no zero points, or the sums are not yet right when they leave the tile.
    """
    if not isinstance(following, Requantization) or network.values[layer.inputs[0]].kind == "float":
        return False
    tensor, spec = network.tensors[layer.weight], network.values[layer.output]
    steps = following.steps if isinstance(following, AffineRequantize) else ()
    small = max(abs(following.zero_point), abs(following.low), abs(following.high)) <= _EXACT
    plain = not steps and spec.zero_point == 0 and not np.any(tensor.zero_point - unsigned_offset(tensor, layer.groups))
    return plain and small and network.values[following.output].dtype in ("int8", "uint8")


def rounding_of(layer: Convolution, following: Requantization, parameters: ParameterState) -> Rounding:
    """The constants of a requantization, as the kernel of the convolution before it reads them; worked out once."""
    apart = 1 if parameters.plan.tensors[layer.weight].weight_layout is DepthwiseInt8x4 else layer.groups
    outputs, dtype = len(parameters.tensors[layer.weight].values), parameters.specs[following.output].dtype
    return parameters.cached(following, "rounding", lambda: _rounding(following, outputs, apart, dtype))


def _rounding(layer: Requantization, outputs: int, groups: int, dtype: str) -> Rounding:
    affine, per_group = isinstance(layer, AffineRequantize), outputs // groups
    channels = np.zeros((6, groups, -(-per_group // LANES) * LANES), dtype=np.float32)
    channels[OUT_SCALE] = 1
    rows: dict[int, npt.ArrayLike] = {ZERO: layer.zero_point}
    rows |= {LOW: layer.low - layer.zero_point, HIGH: layer.high - layer.zero_point}
    if isinstance(layer, AffineRequantize):
        rows |= {SCALE: layer.scale, BIAS: 0 if layer.bias is None else layer.bias, OUT_SCALE: layer.out_scale}
    else:
        rows[SCALE] = layer.multiplier
    for row, values in rows.items():
        channels[row, :, :per_group] = np.broadcast_to(np.asarray(values), outputs).reshape(groups, per_group)
    how = (DIVIDED if affine else 0) | (BOUNDED if _bounded(channels, layer, dtype) else 0)
    return Rounding(np.ascontiguousarray(channels.reshape(6, -1, LANES).transpose(1, 0, 2)), how)


def _bounded(channels: npt.NDArray[np.float32], layer: Requantization, dtype: str) -> bool:
    """Whether constants and limits are such as `epilogues.store_codes` calls bounded."""
    wide, codes = channels.astype(np.float64), np.iinfo(dtype)
    with np.errstate(all="ignore"):
        largest = (2.0**31 * np.abs(wide[SCALE]) + np.abs(wide[BIAS])) / np.abs(wide[OUT_SCALE])
    small = abs(layer.zero_point) < 1 << 14 and codes.min <= layer.low and layer.high <= codes.max
    plain = 2.0**-60 <= np.abs(wide[OUT_SCALE]).min() <= np.abs(wide[OUT_SCALE]).max() <= 2.0**60
    return bool(np.all(largest < 2.0**30)) and bool(plain) and small  # half of 2^31: roundings on the way are out of the question


def rounded(layer: Convolution, following: Requantization, x: Array, parameters: ParameterState) -> Array | None:
    """The codes (n, H, W, O); None if the layer's input takes more than one reading, whose sums must meet first."""

    def make() -> Direct | None:
        own = reading_in_place(layer, parameters)
        return _direct(layer, following, own, parameters) if own else None

    direct = parameters.cached(layer, "direct codes", make)
    if direct is not None and x.flags.c_contiguous:
        return direct.made(x)
    own = readings(layer, x, parameters)
    return _direct(layer, following, own[0], parameters).made(own[0].x) if len(own) == 1 else None


def _direct(layer: Convolution, following: Requantization, own: Reading, parameters: ParameterState) -> Direct:
    spec = parameters.specs[following.output]
    run = kernel_of(layer, own, "codes", parameters, lambda: rounding_of(layer, following, parameters))
    return Direct(run, np.empty, (*spec.height_width, spec.channels), np.dtype(spec.dtype))
