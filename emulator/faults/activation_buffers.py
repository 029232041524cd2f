"""Activation buffers: a value of one image is written to a memory, and what comes back is what later layers see.

Every image is written to the same cells, in ONNX order, as write number `image` of its trial, and read once, whatever the read
policy says about weights. So errors of lifetime `die` hit the same cells in each image, those of lifetime `write` and `read` are
drawn for each image, and which cells err depends on the bits that were really stored.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from weakcell.emulator.engine.convolution import values_of
from weakcell.emulator.engine.layer_functions import to_channels_last, to_onnx_order
from weakcell.emulator.faults.deployment import BufferSlot, Deployment
from weakcell.emulator.ir.layers import ValueSpec
from weakcell.emulator.ir.values import decode_codes, encode_values, pack_channels
from weakcell.memmodels.address import pack, unpack
from weakcell.memmodels.memory import Key

Array = npt.NDArray[Any]


def read_back(x: Array, slots: tuple[BufferSlot, ...], deployment: Deployment, first: int) -> Array:
    """A value of images first.. of the data set, in its physical form, as its memories bring it back."""
    spec, encoding = slots[0].buffer.value, slots[0].buffer.encoding
    plain = to_onnx_order(values_of(x, spec), spec)
    codes = encode_values(plain.reshape(-1), encoding).reshape(len(x), -1)
    for image, own in enumerate(codes, first):
        for part in slots:
            region = part.memory.write(pack(own, part.layout), part.layout, Key(deployment.trial, image))
            read = np.empty_like(region.written)
            count = part.memory.read(region, region.key, read).flips
            deployment.note(part.slot, image, read ^ region.written, region, count)
            unpack(read, part.layout, own)
    return _physical(decode_codes(codes.reshape(-1), encoding).reshape(plain.shape), spec)


def _physical(plain: Array, spec: ValueSpec) -> Array:
    """Integers in ONNX order -> the form that layers take."""
    if spec.kind == "bits":
        return pack_channels(to_channels_last(plain, spec) > 0)
    return to_channels_last(plain.astype(spec.dtype), spec)
