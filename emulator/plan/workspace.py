"""Memory that runs share or use again: a cache, a pool of workspaces, and arrays aligned for the kernels."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from threading import Lock, RLock
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

T = TypeVar("T")

_ALIGNMENT = 64
"""Bytes of a cache line. An aligned vector load never touches two lines."""


class SharedCache:
    """Thread-safe cache of values that are computed once and never change.

    A lookup of a known key takes no lock. One lock guards the computation, so each value is computed by one thread.
    Pickling yields an empty cache: values may contain raw pointers.
    """

    def __init__(self) -> None:
        self._lock = RLock()  # reentrant: computing one value may look up another
        self._values: dict[Hashable, Any] = {}

    def __reduce__(self) -> tuple[type[SharedCache], tuple[()]]:
        return SharedCache, ()

    def get(self, key: Hashable, compute: Callable[[], T]) -> T:
        """Return the value of `key`; call `compute` if there is none yet."""
        if key not in self._values:
            with self._lock:
                if key not in self._values:
                    self._values[key] = compute()
        value: T = self._values[key]
        return value


class WorkspacePool:
    """Thread-safe pool of reusable workspaces, keyed by what they can be used for.

    One run owns a workspace between `acquire` and `release`. Pickling yields an empty pool: workspaces may contain raw pointers.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._idle: dict[Hashable, list[Any]] = {}

    def __reduce__(self) -> tuple[type[WorkspacePool], tuple[()]]:
        return WorkspacePool, ()

    def acquire(self, key: Hashable, create: Callable[[], T]) -> T:
        """Return an idle workspace for `key`, or `create()` a new one."""
        with self._lock:
            idle = self._idle.get(key)
            if idle:
                workspace: T = idle.pop()
                return workspace
        return create()

    def release(self, key: Hashable, workspace: object) -> None:
        """Make a workspace available to the next run."""
        with self._lock:
            self._idle.setdefault(key, []).append(workspace)


def aligned_empty(shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Return an uninitialised array that starts at a cache line.

    At least 8 bytes behind the array are readable, so kernels may load its last, partial 64-bit word as a whole.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    buffer = np.empty(size + _ALIGNMENT + 8, dtype=np.uint8)
    start = -buffer.ctypes.data % _ALIGNMENT
    return buffer[start : start + size].view(dtype).reshape(shape)


def aligned_zeros(shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Return an array of zeros that starts at a cache line; see `aligned_empty`."""
    zeros = aligned_empty(shape, dtype)
    zeros[...] = 0
    return zeros


def aligned_copy(array: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """Return a copy that starts at a cache line; see `aligned_empty`."""
    copy = aligned_empty(array.shape, array.dtype)
    copy[...] = array
    return copy
