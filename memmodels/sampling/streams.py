"""Addressed random numbers: what is drawn depends on what it is drawn for, never on who draws it or when.

A *stream* is named by integers (seed, die, term, trial, write, read, block), which are mixed into 64 bits. Two generators draw
from it: splitmix64, whose words can be had in any order (Steele, Lea and Flood, 2014), and xoshiro256++, which it starts, as the
authors of that advise (Blackman and Vigna, 2019). Only integer arithmetic is used, so every CPU, thread count and order draws the
same. This file is part of the sampling format (`sampler.VERSION`).
"""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt

_FACTORS = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB, 0xD1B54A32D192ED03
_GOLDEN, _MIX_1, _MIX_2, _SECOND = (np.uint64(factor) for factor in _FACTORS)
_64_BITS = 0xFFFFFFFFFFFFFFFF
_S27, _S30, _S31 = np.uint64(27), np.uint64(30), np.uint64(31)
_R17, _R19, _R23, _R41, _R45 = np.uint64(17), np.uint64(19), np.uint64(23), np.uint64(41), np.uint64(45)


@numba.njit(cache=True, inline="always")
def mix(z):  # type: ignore[no-untyped-def]
    """The finalizer of splitmix64: a bijection of uint64 in which every input bit moves every output bit."""
    z = (z ^ (z >> _S30)) * _MIX_1
    z = (z ^ (z >> _S27)) * _MIX_2
    return z ^ (z >> _S31)


@numba.njit(cache=True, inline="always")
def name_stream(parent, value):  # type: ignore[no-untyped-def]
    """The stream named `value` below `parent`: uint64, uint64 -> uint64."""
    return mix((parent ^ mix(value + _GOLDEN)) * _GOLDEN + _SECOND)


@numba.njit(cache=True, inline="always")
def start(stream):  # type: ignore[no-untyped-def]
    """The state in which the generator of `stream` begins: four uint64."""
    z = stream + _GOLDEN
    s0 = mix(z)
    z = z + _GOLDEN
    s1 = mix(z)
    z = z + _GOLDEN
    return s0, s1, mix(z), mix(z + _GOLDEN)


@numba.njit(cache=True, inline="always")
def next_word(state):  # type: ignore[no-untyped-def]
    """The next 64 random bits of xoshiro256++, and the state behind them."""
    s0, s1, s2, s3 = state
    total = s0 + s3
    word = ((total << _R23) | (total >> _R41)) + s0
    t = s1 << _R17
    s2 ^= s0
    s3 ^= s1
    return word, (s0 ^ s3, s1 ^ s2, s2 ^ t, (s3 << _R45) | (s3 >> _R19))


@numba.njit(cache=True, inline="always")
def word_at(stream, index):  # type: ignore[no-untyped-def]
    """Random word number `index` of `stream`, by itself: splitmix64 started there gives it as output index + 1."""
    return mix(stream + (index + np.uint64(1)) * _GOLDEN)


def stream_of(*names: int) -> np.uint64:
    """The stream named by these integers, from Python: the same as nested `name_stream` calls that start at 0."""
    golden, _, _, second = _FACTORS
    parent = 0
    for value in names:
        parent = _mix((parent ^ _mix(value + golden)) * golden + second)
    return np.uint64(parent)


def _mix(z: int) -> int:
    z &= _64_BITS
    for shift, factor in ((30, _FACTORS[1]), (27, _FACTORS[2])):
        z = (z ^ (z >> shift)) * factor & _64_BITS
    return z ^ (z >> 31)


def word_at_each(stream: np.uint64, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
    """The random words number `indices` of `stream`, as `word_at` gives them, from Python."""
    with np.errstate(over="ignore"):
        z = stream + _GOLDEN * (indices.astype(np.uint64) + np.uint64(1))
        z = (z ^ (z >> _S30)) * _MIX_1
        z = (z ^ (z >> _S27)) * _MIX_2
        return z ^ (z >> _S31)


def random_words(stream: np.uint64, first: int, count: int) -> npt.NDArray[np.uint64]:
    """The random words first..first + count of `stream`."""
    return word_at_each(stream, np.arange(first, first + count))
