"""A dense layer of signs whose weights are read anew for each image: drawn, used and forgotten block by block.

Packed signs of a dense layer keep the storage order within an output channel. So the bits of a block, as this read returns them,
meet the image while they are in the first-level cache; nothing is put into the kernel's weights, and nothing taken out.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from weakcell.memmodels.address import BLOCK_WORDS
from weakcell.memmodels.sampling.pointers import words_at
from weakcell.memmodels.sampling.read_errors import block_range, count_bits, draw_block, new_workspace, read_stream, words_in_block

_WORDS = 8
"""Words of a vector."""

_I64 = ir.IntType(64)
_VECTOR = ir.VectorType(_I64, _WORDS)


def _make_mismatches(shifted: bool) -> Any:
    """An intrinsic mismatches(x, read, last, vectors, shift) -> int64: where two rows of bits differ; all arguments are int64.

    x, read: addresses of the rows, the second beginning at bit `shift` of its first word. vectors: how many both have. last:
    address of the mask of the last vector; what it hides may be anything, one word behind the second row too.
    """

    @intrinsic  # type: ignore[untyped-decorator]
    def mismatches(typingctx, x, read, last, vectors, shift):  # type: ignore[no-untyped-def]
        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            return _emit(builder, shifted, *args)

        return types.int64(*[types.int64] * 5), codegen

    return mismatches


def _emit(builder: Any, shifted: bool, x: Any, read: Any, last: Any, vectors: Any, shift: Any) -> Any:
    total = cgutils.alloca_once_value(builder, ir.Constant(_VECTOR, [0] * _WORDS))
    down, up = _splat(builder, shift), _splat(builder, builder.sub(ir.Constant(_I64, 63), shift))

    def differences(vector: Any) -> Any:
        place = builder.mul(vector, ir.Constant(_I64, 8 * _WORDS))
        bits = _load(builder, builder.add(read, place))
        if shifted:
            behind = _load(builder, builder.add(read, builder.add(place, ir.Constant(_I64, 8))))
            behind = builder.shl(builder.shl(behind, ir.Constant(_VECTOR, [1] * _WORDS)), up)
            bits = builder.or_(builder.lshr(bits, down), behind)
        return builder.xor(bits, _load(builder, builder.add(x, place)))

    def add(words: Any) -> None:
        count = _function(builder, _VECTOR, f"llvm.ctpop.v{_WORDS}i64")
        builder.store(builder.add(builder.load(total), builder.call(count, [words])), total)

    but_last = builder.sub(vectors, ir.Constant(_I64, 1))
    with cgutils.for_range(builder, but_last) as loop:
        add(differences(loop.index))
    add(builder.and_(differences(but_last), _load(builder, last)))
    return builder.call(_function(builder, _I64, f"llvm.vector.reduce.add.v{_WORDS}i64"), [builder.load(total)])


def _function(builder: Any, result: Any, name: str) -> Any:
    return cgutils.get_or_insert_function(builder.module, ir.FunctionType(result, [_VECTOR]), name)


def _splat(builder: Any, value: Any) -> Any:
    undefined = ir.Constant(_VECTOR, ir.Undefined)
    lone = builder.insert_element(undefined, value, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(lone, undefined, ir.Constant(ir.VectorType(ir.IntType(32), _WORDS), [0] * _WORDS))


def _load(builder: Any, address: Any) -> Any:
    loaded = builder.load(builder.inttoptr(address, _VECTOR.as_pointer()))
    loaded.align = 8
    return loaded


_aligned = _make_mismatches(shifted=False)
_shifted = _make_mismatches(shifted=True)


@numba.njit(cache=True, nogil=True)
def _sums(x, bits, read, begin, last, first, stop, sums):  # type: ignore[no-untyped-def]
    """sums[c] of the output channels first..stop; `read` are the region's words from `begin` as they were read."""
    vectors = x.size // _WORDS
    for channel in range(first, stop):
        word, shift = (channel * bits >> 6) - begin, channel * bits & 63
        here = read.ctypes.data + word * 8
        if shift:
            count = _shifted(x.ctypes.data, here, last.ctypes.data, vectors, shift)
        else:
            count = _aligned(x.ctypes.data, here, last.ctypes.data, vectors, 0)
        sums[channel] = bits - 2 * count


@numba.njit(cache=True, nogil=True)
def _last_mask(bits):  # type: ignore[no-untyped-def]
    """The bits of a row in the last of its vectors."""
    last = np.zeros(_WORDS, dtype=np.uint64)
    for bit in range((bits - 1) % (64 * _WORDS) + 1):
        last[bit >> 6] |= np.uint64(1) << np.uint64(bit & 63)
    return last


@numba.njit(cache=True, nogil=True)
def dense_resampled(x, bits, sources, trial, write, first_image, out):  # type: ignore[no-untyped-def]
    """Sums of `bits` products of ±1: x uint64 (n, 1, 1, words) -> out int32 (n, 1, 1, O); returns how many flips were drawn.

    sources: the sampler's (`Sampler.source`), whose region holds O x bits signs; image i is read number first_image + i.
    """
    source, channels, count = sources[0], out.shape[3], 0
    written = words_at(source.written, source.words)
    last, room = _last_mask(bits), new_workspace()
    row = np.zeros((bits + 64 * _WORDS - 1) // (64 * _WORDS) * _WORDS, dtype=np.uint64)
    read = np.zeros(BLOCK_WORDS + 2 * row.size + 2, dtype=np.uint64)
    first_block, stop_block = block_range(source)
    for image in range(x.shape[0]):
        row[: x.shape[3]] = x[image, 0, 0]
        stream = read_stream(source, trial, write, first_image + image)
        channel, begin, filled = 0, 0, 0  # read[:filled] are the region's words from `begin`
        for block in range(first_block, stop_block):
            first, n = words_in_block(source, block)
            fresh = read[filled : filled + n]
            draw_block(source, stream, block, fresh, room)
            count += count_bits(fresh)
            for k in range(n):
                fresh[k] ^= written[first + k]
            complete = min(channels, (first + n) * 64 // bits)
            _sums(row, bits, read, begin, last, channel, complete, out[image, 0, 0])
            channel, filled = complete, filled + n
            used = min(channel * bits >> 6, first + n) - begin
            for k in range(filled - used):
                read[k] = read[used + k]
            begin, filled = begin + used, filled - used
    return count
