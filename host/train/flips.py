"""Bit-flip training: in every forward pass of training, stored weights come back from a memory that makes mistakes.

Two gradients, which differ where a weight came back wrong:

    plain             the derivative of what was read with respect to what was stored: −1 for a flipped sign (Hirtzlin et al.,
                      AICAS 2019). Of a multi-bit code its sign bit decides; the other bits move it by a constant.
    straight-through  as if the weight had not been flipped (Buschjäger et al., arXiv 2002.00909; reconstructed from its abstract):
                      the network adapts less to the rate it was trained at.
"""

# mypy: allow-subclassing-any

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from weakcell.host.train.layers import ReadBack, StoredLayer, as_stored, stored_layers
from weakcell.memmodels.address import Layout, Words
from weakcell.memmodels.memory import Key, Memory

Gradient = Literal["plain", "straight-through"]


class _Turned(torch.autograd.Function):
    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, latent: Tensor, read: Tensor, wrong: Tensor) -> Tensor:
        ctx.save_for_backward(wrong)
        return read

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> tuple[Tensor, None, None]:
        (wrong,) = ctx.saved_tensors
        return torch.where(wrong, -gradient, gradient).float(), None, None


@contextmanager
def flipping(network: nn.Module, memory: Memory, gradient: Gradient = "straight-through") -> Iterator[None]:
    """Inside, every forward pass in training mode writes the stored weights of `network` to `memory` and multiplies what it reads.

    Bits lie as they will when deployed: signs, or two's complement, LSB first. Each pass is a new write and a new read, so errors
    of lifetime `read` and `write` are drawn anew, and those of lifetime `die` stay where they are. The number of passes is a buffer
    of the layer (`passes`), so that a checkpoint goes on with the draws that would have come.
    """
    layers = stored_layers(network)
    for name, layer in layers:
        layer.register_buffer("passes", torch.zeros((), dtype=torch.int64))
        layout = Layout(name, layer.weight.numel(), layer.bits)
        layer.read_back = _reader(layer, memory, layout, gradient)
    try:
        yield
    finally:
        for _, layer in layers:
            layer.read_back = None
            del layer.passes


def _reader(layer: StoredLayer, memory: Memory, layout: Layout, gradient: Gradient) -> ReadBack:
    def read_back(latent: Tensor, held: Tensor) -> Tensor:
        number = int(layer.passes)
        layer.passes += 1
        written = stored_words(held, layer.bits)
        out = np.empty_like(written)
        memory.read(memory.write(written, layout, Key(0, number)), Key(0, number), out)
        read = values_of_words(out, layer.bits, held)
        if gradient == "straight-through":
            return as_stored(latent, read)
        result: Tensor = _Turned.apply(latent, read, torch.signbit(read) != torch.signbit(held))
        return result

    return read_back


def stored_words(held: Tensor, bits: int) -> Words:
    """Values on the grid of `bits` (±1, or −1 … 1 − 2^(1−bits)) → the words of their region, as `weakcell.memmodels.address` lays
    them."""
    if bits == 1:
        packed = np.packbits((held > 0).reshape(-1).cpu().numpy(), bitorder="little")
    else:
        codes = (held.reshape(-1) * (1 << (bits - 1))).to(torch.int8).cpu().numpy().view(np.uint8)
        packed = _joined(codes & np.uint8((1 << bits) - 1), bits)
    words = np.zeros(-(-packed.size // 8), dtype=np.uint64)
    words.view(np.uint8)[: packed.size] = packed
    return words


def values_of_words(words: Words, bits: int, like: Tensor) -> Tensor:
    """The inverse of `stored_words`: words → values of the shape, type and device of `like`."""
    raw = words.view(np.uint8)
    if bits == 1:
        signs = torch.from_numpy(np.unpackbits(raw, count=like.numel(), bitorder="little"))
        return (signs.to(like) * 2 - 1).reshape(like.shape)
    shift = 8 - bits
    codes = (_split(raw, bits)[: like.numel()] << shift).view(np.int8) >> shift
    return (torch.from_numpy(codes).to(like) * (1 / (1 << (bits - 1)))).reshape(like.shape)


def _joined(codes: npt.NDArray[np.uint8], bits: int) -> npt.NDArray[np.uint8]:
    """Codes of 2, 4 or 8 bits, the first in the low bits of a byte."""
    each = 8 // bits
    columns = np.concatenate([codes, np.zeros(-codes.size % each, np.uint8)]).reshape(-1, each)
    packed = columns[:, 0].copy()
    for place in range(1, each):
        packed |= columns[:, place] << np.uint8(place * bits)
    return packed


def _split(packed: npt.NDArray[np.uint8], bits: int) -> npt.NDArray[np.uint8]:
    each = 8 // bits
    columns = np.empty((packed.size, each), np.uint8)
    for place in range(each):
        columns[:, place] = (packed >> np.uint8(place * bits)) & np.uint8((1 << bits) - 1)
    return columns.reshape(-1)
