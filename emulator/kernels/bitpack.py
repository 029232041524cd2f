"""±1 values as bits, 64 channels per word, and activations as bytes.

Bit c % 64 of word c // 64 is channel c; 1 means +1. Unused bits of the last word are 0.
"""

from __future__ import annotations

import numpy as np

from weakcell.memmodels.compilation import compiled


@compiled
def pack(signs, out):  # type: ignore[no-untyped-def]
    """Pack booleans into words.

    Args:
        signs: bool (pixels, C).
        out: uint64 (pixels, ceil(C / 64)), which holds zeros; written.
    """
    for i in range(signs.shape[0]):
        for c in range(signs.shape[1]):
            if signs[i, c]:
                out[i, c >> 6] |= np.uint64(1) << np.uint64(c & 63)


@compiled
def _transpose(a):  # type: ignore[no-untyped-def]
    """Transpose 64 x 64 bits in place: bit c of word r becomes bit r of word c.

    Halves change places, then quarters, and so on.
    """
    mask = np.uint64(0xFFFFFFFF)
    j = 32
    while j:
        shift = np.uint64(j)
        for first in range(0, 64, 2 * j):
            for k in range(first, first + j):
                t = ((a[k] >> shift) ^ a[k + j]) & mask
                a[k + j] ^= t
                a[k] ^= t << shift
        j >>= 1
        mask ^= mask << np.uint64(j)


@compiled
def flatten_bits(x, channels, out):  # type: ignore[no-untyped-def]
    """Flatten packed channels-last images to ONNX order (channel, row, column).

    Args:
        x: uint64 (n, h, w, ceil(channels / 64)).
        channels: int.
        out: uint64 (n, 1, 1, ceil(channels h w / 64)), which holds zeros; written.
    """
    pixels = x.reshape(x.shape[0], -1, x.shape[3])
    taps, square = pixels.shape[1], np.empty(64, dtype=np.uint64)
    for image in range(x.shape[0]):
        line = out[image, 0, 0]
        for word in range(x.shape[3]):
            for tap in range(0, taps, 64):
                square[:] = 0
                for t in range(min(64, taps - tap)):
                    square[t] = pixels[image, tap + t, word]
                _transpose(square)
                for c in range(min(64, channels - word * 64)):
                    bit = (word * 64 + c) * taps + tap
                    shift = np.uint64(bit & 63)
                    line[bit >> 6] |= square[c] << shift
                    if shift and (bit >> 6) + 1 < line.size:
                        line[(bit >> 6) + 1] |= square[c] >> (np.uint64(64) - shift)


@compiled
def threshold_pack(acc, threshold, inverted, out):  # type: ignore[no-untyped-def]
    """Threshold sums and pack the bits: bit = (acc >= threshold[c]) != inverted[c].

    Args:
        acc: int32 (n, h, w, C).
        threshold: int32 (C,).
        inverted: bool (C,).
        out: uint64 (n, h, w, ceil(C / 64)), written.
    """
    for image in range(acc.shape[0]):
        for y in range(acc.shape[1]):
            for x in range(acc.shape[2]):
                for word in range(out.shape[3]):
                    bits = np.uint64(0)
                    for c in range(min(64, acc.shape[3] - word * 64)):
                        channel = word * 64 + c
                        plus = (acc[image, y, x, channel] >= threshold[channel]) != inverted[channel]
                        bits |= np.uint64(plus) << np.uint64(c)
                    out[image, y, x, word] = bits


@compiled
def to_padded_bytes(x, shift, high, border, origin, out):  # type: ignore[no-untyped-def]
    """Copy codes into bytes with a border.

    out = uint8(x + shift), or uint8((x + shift) >> 8) if `high`.

    Args:
        x: codes (n, h, w, C).
        shift: int, added to every code.
        high: whether the high byte of 16 bits is stored.
        border: byte that fills the border.
        origin: (row, column) of the image in `out`.
        out: uint8 (n, h', w', C), written.

    Returns:
        The OR of all x + shift, unless every one is known to fit into a byte.
    """
    by, used = np.int32(8 if high else 0), np.int32(0)
    lines, to = x.reshape(x.shape[0], x.shape[1], -1), out.reshape(out.shape[0], out.shape[1], -1)
    top, left = origin
    first, end = left * x.shape[3], (left + x.shape[2]) * x.shape[3]
    for image in range(to.shape[0]):
        for y in range(to.shape[1]):
            if not top <= y < top + lines.shape[1]:
                to[image, y] = border
                continue
            to[image, y, :first] = border
            to[image, y, end:] = border
            line, inside = lines[image, y - top], to[image, y, first:end]
            if x.itemsize == 1 and shift == 0:  # a mere copy
                for i in range(line.size):
                    inside[i] = line[i]
                continue
            for i in range(line.size):
                value = np.int32(np.int32(line[i]) + np.int32(shift))
                used |= value
                inside[i] = np.uint8(value >> by)
    return used


@compiled
def to_integers(x, low, high, out):  # type: ignore[no-untyped-def]
    """Convert numbers to an integer type and count the invalid ones.

    Args:
        x: numbers (elements,).
        low, high: limits of a valid integer.
        out: integers (elements,), written; undefined where x is no integer from `low` to `high`.

    Returns:
        The number of such elements.
    """
    invalid = 0
    for i in range(x.size):
        invalid += not ((x[i] >= low) & (x[i] <= high) & (x[i] == np.rint(x[i])))
        out[i] = x[i]
    return invalid
