"""Addressed random numbers: a draw depends on what it is drawn for, not on who draws it or when.

A *stream* is named by integers (seed, die, term, trial, write, read, block), which are mixed into 64 bits. Two generators draw from
it: splitmix64, whose words can be computed in any order (Steele, Lea and Flood, 2014), and xoshiro256++, seeded by splitmix64 as
its authors advise (Blackman and Vigna, 2019). Only integer arithmetic is used, so every CPU, thread count and order gives the same
words. This file is part of the sampling format (`sampler.VERSION`).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from weakcell.memmodels.compilation import compiled

_FACTORS = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB, 0xD1B54A32D192ED03
_GOLDEN, _MIX_1, _MIX_2, _SECOND = (np.uint64(factor) for factor in _FACTORS)
_64_BITS = 0xFFFFFFFFFFFFFFFF
_S27, _S30, _S31 = np.uint64(27), np.uint64(30), np.uint64(31)
_R17, _R19, _R23, _R41, _R45 = np.uint64(17), np.uint64(19), np.uint64(23), np.uint64(41), np.uint64(45)


@compiled
def mix(z):  # type: ignore[no-untyped-def]
    """Apply the finalizer of splitmix64: a bijection of uint64 in which every input bit affects every output bit."""
    z = (z ^ (z >> _S30)) * _MIX_1
    z = (z ^ (z >> _S27)) * _MIX_2
    return z ^ (z >> _S31)


@compiled
def child_stream(parent, name):  # type: ignore[no-untyped-def]
    """Return the stream called `name` below `parent`: uint64, uint64 -> uint64."""
    return mix((parent ^ mix(name + _GOLDEN)) * _GOLDEN + _SECOND)


@compiled
def start(stream):  # type: ignore[no-untyped-def]
    """Return the first state of the xoshiro256++ generator of `stream`: four uint64."""
    z = stream + _GOLDEN
    s0 = mix(z)
    z = z + _GOLDEN
    s1 = mix(z)
    z = z + _GOLDEN
    return s0, s1, mix(z), mix(z + _GOLDEN)


@compiled
def next_word(state):  # type: ignore[no-untyped-def]
    """Return the next 64 random bits of xoshiro256++ and its next state."""
    s0, s1, s2, s3 = state
    total = s0 + s3
    word = ((total << _R23) | (total >> _R41)) + s0
    t = s1 << _R17
    s2 ^= s0
    s3 ^= s1
    return word, (s0 ^ s3, s1 ^ s2, s2 ^ t, (s3 << _R45) | (s3 >> _R19))


@compiled
def word_at(stream, index):  # type: ignore[no-untyped-def]
    """Return random word number `index` of `stream`: output index + 1 of splitmix64 started there."""
    return mix(stream + (index + np.uint64(1)) * _GOLDEN)


def derive_stream(*names: int) -> np.uint64:
    """Return the stream named by these integers; equal to nested `child_stream` calls that start at 0."""
    golden, _, _, second = _FACTORS
    parent = 0
    for name in names:
        parent = _mix_integer((parent ^ _mix_integer(name + golden)) * golden + second)
    return np.uint64(parent)


def _mix_integer(z: int) -> int:
    z &= _64_BITS
    for shift, factor in ((30, _FACTORS[1]), (27, _FACTORS[2])):
        z = (z ^ (z >> shift)) * factor & _64_BITS
    return z ^ (z >> 31)


def pick_words(stream: np.uint64, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
    """Return random words number `indices` of `stream`, as `word_at` computes them."""
    with np.errstate(over="ignore"):
        z = stream + _GOLDEN * (indices.astype(np.uint64) + np.uint64(1))
        z = (z ^ (z >> _S30)) * _MIX_1
        z = (z ^ (z >> _S27)) * _MIX_2
        return z ^ (z >> _S31)


def random_words(stream: np.uint64, first: int, count: int) -> npt.NDArray[np.uint64]:
    """Return random words first..first + count of `stream`."""
    return pick_words(stream, np.arange(first, first + count))
