"""A dense layer of ±1 weights that are read again for each image: drawn, used and forgotten block by block.

    sums[i][o] = bits - 2 * popcount((x[i] ^ weights[o] ^ flips[i][o]) & mask)

Flat PackedInt1 weights keep the storage order within each output channel. The bits of a block, as this read returns them, therefore
meet the image while they are in the first-level cache. Nothing is written to the kernel's weights.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from weakcell.emulator.kernels.isa import I64, broadcast, call, emit_popcount, i64, load, splat
from weakcell.memmodels.address import BLOCK_WORDS
from weakcell.memmodels.compilation import compiled
from weakcell.memmodels.sampling.pointers import data_ptr, words_at
from weakcell.memmodels.sampling.read_errors import block_range, count_bits, draw_block, new_workspace, read_stream, words_in_block

_WORDS = 8
"""Words of a vector."""

_VECTOR = ir.VectorType(I64, _WORDS)


def _make_mismatch_counter(shifted: bool) -> Any:
    """Make the intrinsic that counts the bits in which two rows differ.

    count_mismatches(x_ptr, read_ptr, mask_ptr, vectors, shift) -> int64; all arguments are int64.

    It counts the bits in which two rows of `vectors` vectors differ. The second row begins at bit `shift` of its first word; one
    word behind it may be read. mask_ptr: address of the mask of the last vector.
    """

    @intrinsic  # type: ignore[untyped-decorator]
    def count_mismatches(typingctx, x_ptr, read_ptr, mask_ptr, vectors, shift):  # type: ignore[no-untyped-def]
        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            return _emit_mismatches(builder, shifted, *args)

        return types.int64(*[types.int64] * 5), codegen

    return count_mismatches


def _emit_mismatches(builder: Any, shifted: bool, x_ptr: Any, read_ptr: Any, mask_ptr: Any, vectors: Any, shift: Any) -> Any:
    total = cgutils.alloca_once_value(builder, splat(_VECTOR, 0))
    down, up = broadcast(builder, shift, _VECTOR), broadcast(builder, builder.sub(i64(63), shift), _VECTOR)

    def differences(vector: Any) -> Any:
        offset = builder.mul(vector, i64(8 * _WORDS))
        bits = load(builder, read_ptr, offset, _VECTOR)
        if shifted:
            following = load(builder, read_ptr, builder.add(offset, i64(8)), _VECTOR)
            following = builder.shl(builder.shl(following, splat(_VECTOR, 1)), up)
            bits = builder.or_(builder.lshr(bits, down), following)
        return builder.xor(bits, load(builder, x_ptr, offset, _VECTOR))

    def add(words: Any) -> None:
        builder.store(builder.add(emit_popcount(builder, words), builder.load(total)), total)

    last = builder.sub(vectors, i64(1))
    with cgutils.for_range(builder, last) as loop:
        add(differences(loop.index))
    add(builder.and_(differences(last), load(builder, mask_ptr, i64(0), _VECTOR)))
    return call(builder, f"llvm.vector.reduce.add.v{_WORDS}i64", I64, builder.load(total))


_count_aligned, _count_shifted = (_make_mismatch_counter(shifted) for shifted in (False, True))


@compiled
def _sum_channels(x, read, mask, bits, first_bit, sums):  # type: ignore[no-untyped-def]
    """Compute the sums of consecutive output channels.

    Args:
        x: uint64, one image's signs in whole vectors.
        read: uint64, weights as they were read; the first channel begins at bit `first_bit`.
        mask: from `_last_mask`.
        bits: inputs of a sum.
        first_bit: int.
        sums: int32 (channels,), written.
    """
    vectors = x.size // _WORDS
    for channel in range(sums.size):
        bit = first_bit + channel * bits
        read_ptr, shift = data_ptr(read) + (bit >> 6) * 8, bit & 63
        if shift:
            count = _count_shifted(data_ptr(x), read_ptr, data_ptr(mask), vectors, shift)
        else:
            count = _count_aligned(data_ptr(x), read_ptr, data_ptr(mask), vectors, 0)
        sums[channel] = bits - 2 * count


@compiled
def _last_mask(bits):  # type: ignore[no-untyped-def]
    """Return the mask of a row's bits in the last of its vectors."""
    mask = np.zeros(_WORDS, dtype=np.uint64)
    for bit in range((bits - 1) % (64 * _WORDS) + 1):
        mask[bit >> 6] |= np.uint64(1) << np.uint64(bit & 63)
    return mask


@compiled
def dense_resampled(x, out, bits, reads):  # type: ignore[no-untyped-def]
    """Compute the sums of a dense layer whose weights are read for each image.

    Args:
        x: uint64 (n, 1, 1, words): signs of the inputs.
        out: int32 (n, 1, 1, O), written.
        bits: inputs of a sum.
        reads: ReadSequence of the region of O x bits signs: one read for each image.

    Returns:
        How many flips were drawn.
    """
    source, channels, flips = reads.sources[0], out.shape[3], 0
    written = words_at(source.written, source.words)
    mask, workspace = _last_mask(bits), new_workspace()
    row = np.zeros((bits + 64 * _WORDS - 1) // (64 * _WORDS) * _WORDS, dtype=np.uint64)
    read = np.zeros(BLOCK_WORDS + 2 * row.size + 2, dtype=np.uint64)
    first_block, stop_block = block_range(source)
    for image in range(x.shape[0]):
        for word in range(x.shape[3]):  # see `draw_block` on assignments of arrays
            row[word] = x[image, 0, 0, word]
        stream = read_stream(source, reads.trial, reads.write, reads.numbers[image])
        channel, begin, filled = 0, 0, 0  # read[:filled] are the region's words from `begin`
        for block in range(first_block, stop_block):
            first, n = words_in_block(source, block)
            fresh = read[filled : filled + n]
            draw_block(source, stream, block, fresh, workspace)
            flips += count_bits(fresh)
            for k in range(n):
                fresh[k] ^= written[first + k]
            complete = min(channels, (first + n) * 64 // bits)
            _sum_channels(row, read, mask, bits, channel * bits - begin * 64, out[image, 0, 0, channel:complete])
            channel, filled = complete, filled + n
            used = min(channel * bits >> 6, first + n) - begin
            for k in range(filled - used):
                read[k] = read[used + k]
            begin, filled = begin + used, filled - used
    return flips
