"""Machine code of functions that Python calls through Numba, kept between processes.

Numba's own cache unpickles what it finds, whoever wrote it; takes its folder from a file in the working folder; asks only whether
the function's own file changed; and fails on a damaged index or a full disk. Here, each compiled function is one file of
`cached_code`, named by everything that it depends on. What cannot be read is compiled anew.
"""

from __future__ import annotations

import hashlib
import pickle
from typing import Any

from numba.core.caching import CompileResultCacheImpl, FunctionCache
from numba.core.serialize import dumps

from weakcell.memmodels.cached_code import load_code, save_code
from weakcell.memmodels.source_digest import digest_sources, list_compilers

_KIND = "functions"


class _NoLocator:
    """Stands in for Numba's choice of a folder."""

    def ensure_cache_path(self) -> None:
        """Do nothing: `save_code` makes the folder."""


class _Reduction(CompileResultCacheImpl):  # type: ignore[misc]
    """How Numba turns a compiled function into data and back."""

    def __init__(self, function: Any) -> None:
        self._lineno = function.__code__.co_firstlineno
        self._locator = _NoLocator()
        self._locator._py_file = function.__code__.co_filename  # type: ignore[attr-defined]  # named in its warnings


class CachedOverloads(FunctionCache):  # type: ignore[misc]
    """Numba's interface to a cache, of one function."""

    def __init__(self, function: Any) -> None:
        self._name = repr(function)
        self._py_func = function
        self._impl = _Reduction(function)
        self._cache_path = None
        self._cache_file = _CodeFiles(function)
        self.enable()

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return the function for a signature, None if it is not cached or cannot be read."""
        try:
            return super().load_overload(sig, target_context)
        except Exception:  # whatever unpickling may raise
            return None


class _CodeFiles:
    """The files of one function, one per signature and CPU."""

    def __init__(self, function: Any) -> None:
        self._function = function

    def load(self, key: Any) -> Any:
        name = self._file_name(key)
        code = None if name is None else load_code(_KIND, name)
        return None if code is None else pickle.loads(code)

    def save(self, key: Any, data: Any) -> None:
        if (name := self._file_name(key)) is not None:
            save_code(_KIND, name, dumps(data))

    def flush(self) -> None:
        """Do nothing: a file that is out of date has another name."""

    def _file_name(self, key: Any) -> str | None:
        """Return the name for Numba's key, None if no other process would find it: a key that holds an address."""
        text = repr(key)
        if " at 0x" in text:
            return None
        module, name = self._function.__module__, self._function.__qualname__
        content = repr((module, name, text, digest_sources(module), list_compilers(here=True)))
        return f"{self._function.__name__}-{hashlib.sha256(content.encode()).hexdigest()[:32]}"
