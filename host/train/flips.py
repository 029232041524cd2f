"""Bit-flip training: every forward pass of training reads the stored weights from a memory with errors.

There are two gradients. They differ for weights whose read value is wrong:

    plain             derivative of the read value with respect to the stored value: −1 for a flipped sign (Hirtzlin et al.,
                      AICAS 2019). For multi-bit codes the sign bit decides; the other bits add a constant.
    straight-through  as if the weight was not flipped (Buschjäger et al., arXiv 2002.00909; reconstructed from its abstract).
                      The network adapts less to the error rate of its training.
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

from weakcell.host.train.layers import ReadBack, StoredLayer, identity_gradient, list_stored_layers, stored_step
from weakcell.memmodels.address import Layout, Words
from weakcell.memmodels.memory import Key, Memory

Gradient = Literal["plain", "straight-through"]


class _FlippedSignGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, latent: Tensor, read: Tensor, sign_flipped: Tensor) -> Tensor:
        ctx.save_for_backward(sign_flipped)
        return read

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> tuple[Tensor, None, None]:
        (sign_flipped,) = ctx.saved_tensors
        return torch.where(sign_flipped, -gradient, gradient).float(), None, None


@contextmanager
def inject_flips(network: nn.Module, memory: Memory, gradient: Gradient = "straight-through") -> Iterator[None]:
    """Inject the errors of a memory into the stored weights of a network, in every forward pass in training mode.

    The bits lie as in the deployed network: signs, or two's complement codes, least significant bit first. Each pass is a new write
    and a new read. So errors of lifetime `read` and `write` are sampled again, and errors of lifetime `die` stay. Each layer counts
    its passes in a buffer `passes`, so a run that resumes from a checkpoint continues with the same errors.

    Args:
        network: Network in training.
        memory: Memory of all stored weights.
        gradient: Gradient of weights whose read value is wrong; see the module.
    """
    layers = list_stored_layers(network)
    for name, layer in layers:
        layer.register_buffer("passes", torch.zeros((), dtype=torch.int64))
        layout = Layout(name, layer.weight.numel(), layer.bits)
        layer.read_back = _make_reader(layer, memory, layout, gradient)
    try:
        yield
    finally:
        for _, layer in layers:
            layer.read_back = None
            del layer.passes


def _make_reader(layer: StoredLayer, memory: Memory, layout: Layout, gradient: Gradient) -> ReadBack:
    step = stored_step(layer)

    def read_back(latent: Tensor, stored: Tensor) -> Tensor:
        number = int(layer.passes)
        layer.passes += 1
        written_words = pack_words(stored, layer.bits, step)
        read_words = np.empty_like(written_words)
        memory.read(memory.write(written_words, layout, Key(0, number)), Key(0, number), read_words)
        read = unpack_words(read_words, layer.bits, stored, step)
        if gradient == "straight-through":
            return identity_gradient(latent, read)
        result: Tensor = _FlippedSignGradient.apply(latent, read, torch.signbit(read) != torch.signbit(stored))
        return result

    return read_back


def pack_words(stored: Tensor, bits: int, step: float) -> Words:
    """Pack stored values into the words of a memory region, in the order of `weakcell.memmodels.address`.

    Args:
        stored: ±1, or codes −2^(bits−1) … 2^(bits−1) − 1 times `step`.
        bits: Bits of a stored value: 1, 2, 4 or 8.
        step: Step between two values.
    """
    if bits == 1:
        packed = np.packbits((stored > 0).reshape(-1).cpu().numpy(), bitorder="little")
    else:
        codes = (stored.reshape(-1) / step).to(torch.int8).cpu().numpy().view(np.uint8)
        packed = _pack_codes(codes & np.uint8((1 << bits) - 1), bits)
    words = np.zeros(-(-packed.size // 8), dtype=np.uint64)
    words.view(np.uint8)[: packed.size] = packed
    return words


def unpack_words(words: Words, bits: int, like: Tensor, step: float) -> Tensor:
    """Unpack words into values: the inverse of `pack_words`, with the shape, type and device of `like`."""
    packed = words.view(np.uint8)
    if bits == 1:
        signs = torch.from_numpy(np.unpackbits(packed, count=like.numel(), bitorder="little"))
        return (signs.to(like) * 2 - 1).reshape(like.shape)
    shift = 8 - bits
    codes = (_unpack_codes(packed, bits)[: like.numel()] << shift).view(np.int8) >> shift
    return (torch.from_numpy(codes).to(like) * step).reshape(like.shape)


def _pack_codes(codes: npt.NDArray[np.uint8], bits: int) -> npt.NDArray[np.uint8]:
    """Pack codes of 2, 4 or 8 bits into bytes, the first code in the low bits."""
    per_byte = 8 // bits
    columns = np.concatenate([codes, np.zeros(-codes.size % per_byte, np.uint8)]).reshape(-1, per_byte)
    packed = columns[:, 0].copy()
    for slot in range(1, per_byte):
        packed |= columns[:, slot] << np.uint8(slot * bits)
    return packed


def _unpack_codes(packed: npt.NDArray[np.uint8], bits: int) -> npt.NDArray[np.uint8]:
    per_byte = 8 // bits
    columns = np.empty((packed.size, per_byte), np.uint8)
    for slot in range(per_byte):
        columns[:, slot] = (packed >> np.uint8(slot * bits)) & np.uint8((1 << bits) - 1)
    return columns.reshape(-1)
