"""Activation buffers: each image's value is written to a memory, and later layers get what is read back.

Every image is written to the same cells, in ONNX order, as write number `image` of its trial. It is read once, whatever the read
policy says about weights. So errors of lifetime `die` hit the same cells in each image, and those of lifetime `write` and `read`
are drawn for each image. Which cells err depends on the bits that were really stored.

A key-value cache of a language model is such a buffer, of float32 numbers: all keys or values of a prompt, those of earlier tokens
included. A real decoder reads them once for each further token; here one read serves all tokens of the prompt.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from weakcell.emulator.engine.conv_inputs import unpack_values
from weakcell.emulator.engine.layer_functions import to_channels_last, to_onnx_order
from weakcell.emulator.faults.deployment import BufferSlot, Deployment, Fault
from weakcell.emulator.ir.values import bits_to_floats, decode_codes, encode_values, floats_to_bits, pack_channels
from weakcell.memmodels.address import pack, unpack
from weakcell.memmodels.memory import Key

Array = npt.NDArray[Any]


def read_back(x: Array, slots: tuple[BufferSlot, ...], deployment: Deployment, first: int) -> Array:
    """Return a value as its memories return it.

    Args:
        x: the value in physical form, images along the first axis.
        slots: the slots of its buffer.
        deployment: the stored network.
        first: the number in the data set of the first image.
    """
    spec, encoding = slots[0].buffer.value, slots[0].buffer.encoding
    plain = floats_to_bits(x) if spec.kind == "float" else to_onnx_order(unpack_values(x, spec), spec)
    codes = encode_values(plain.reshape(-1), encoding).reshape(len(x), -1)
    for image, image_codes in enumerate(codes, first):
        for part in slots:
            region = part.memory.write(pack(image_codes, part.layout), part.layout, Key(deployment.trial, image))
            returned = np.empty_like(region.written)
            count = part.memory.read(region, region.key, returned).flips
            deployment.record_read(Fault(image, part.slot, returned ^ region.written, region.written), region.layout, count)
            unpack(returned, part.layout, image_codes)
    plain = decode_codes(codes.reshape(-1), encoding).reshape(plain.shape)
    if spec.kind == "float":
        return bits_to_floats(plain.astype(np.int32))
    if spec.kind == "bits":
        return pack_channels(to_channels_last(plain, spec) > 0)
    return to_channels_last(plain.astype(spec.dtype), spec)
