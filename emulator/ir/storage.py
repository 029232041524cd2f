"""Stored tensors <-> stored bits: the integer a network uses, and the unsigned code a memory holds."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from weakcell.emulator.ir.layers import Encoding, Storable
from weakcell.memmodels.address import Layout


def codes_of(values: npt.NDArray[np.int32], encoding: Encoding) -> npt.NDArray[np.uint64]:
    """Values -> unsigned codes of `encoding.bits` bits (uint64, flat): +1 is 1 and -1 is 0 for signs, two's complement else."""
    flat = values.reshape(-1).astype(np.int64)
    if encoding.kind == "sign":
        return (flat > 0).astype(np.uint64)
    return flat.astype(np.uint64) & np.uint64((1 << encoding.bits) - 1)


def values_of(codes: npt.NDArray[np.uint64], encoding: Encoding) -> npt.NDArray[np.int64]:
    """Unsigned codes -> the values that they mean (int64, flat)."""
    wide = codes.astype(np.int64)
    if encoding.kind == "sign":
        return 2 * wide - 1
    if encoding.kind in ("signed", "float"):
        return wide - ((wide >> (encoding.bits - 1)) << encoding.bits)
    return wide


def layout_of(item: Storable, planes: tuple[int, ...] = ()) -> Layout:
    """How a tensor or buffer, or some bit planes of it, lies in a memory; erased elements read as the code of real zero."""
    return Layout(item.name, item.elements, item.encoding.bits, planes, item.erased & ((1 << item.encoding.bits) - 1))
