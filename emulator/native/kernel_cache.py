"""Cached machine code of kernels: where it is found, neither Numba nor its compiler is loaded.

A `Kernel` names a function that Numba can compile. On its first call with arguments of some types it looks for machine code made
from these sources, for these types and this CPU. If there is none, Numba compiles it (`object_files.py`), and it is stored in the
user's cache (`weakcell.memmodels.cached_code`). A kernel that cannot be stored runs as Numba runs it.

Arguments are arrays, integers, booleans, and tuples of these, nested at will. Machine code gets them as one row of int64 words: an
integer is itself, an array is the address of its NumPy object. The GIL is released meanwhile.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from itertools import count
from threading import Lock, Timer
from time import perf_counter
from typing import Any

import numpy as np

from weakcell.memmodels.cached_code import load_code, save_code
from weakcell.memmodels.source_digest import digest_sources, list_compilers

log = logging.getLogger(__name__)

FORMAT = 2
"""Version of the cache files."""

SYMBOL = "kernel"
"""Name of the function in machine code: int32 kernel(int64 *result, void **exception, int64 *arguments); 0 means success."""

Entry = Callable[[int, int, int], int]

_ENTRY = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)
_C, _FORTRAN, _OTHERS = 0x1, 0x2, 0x100 | 0x400
"""NumPy flags of an array: C-contiguous, Fortran-contiguous; aligned and writeable."""

_FLAGS = _C | _FORTRAN | _OTHERS
_FLAG_KEYS = tuple(flags & (_OTHERS | (_C if flags & _C else _FORTRAN)) for flags in range(_FLAGS + 1))
"""Cache key of an array's flags; arrays contiguous in both orders count as C-contiguous."""

_lock = Lock()
"""Guards `Kernel._entries` while machine code is found or made. A forked child gets a new one: nobody there would release it."""


def _renew_lock() -> None:
    global _lock
    _lock = Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


class Kernel:
    """A compiled function that needs no Numba if its machine code is cached.

    A call returns an integer; 0 where the function returns nothing.

    Args:
        module: Name of the module that defines the function.
        name: Name of the function.
    """

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name
        self._entries: dict[tuple[object, ...], Entry | None] = {}

    def __call__(self, *arguments: Any) -> int:
        kinds: list[object] = []
        words = [0, 0]  # the result, and a pointer to Numba's exception
        _flatten(arguments, kinds, words)
        entry = self._entry(tuple(kinds), arguments)
        if entry is None:
            return int(self.function(*arguments) or 0)
        return self._run(entry, array("q", words))

    def bind(self, *last: Any) -> BoundKernel:
        """Return the kernel with its last arguments given."""
        return BoundKernel(self, last)

    def _entry(self, key: tuple[object, ...], arguments: tuple[Any, ...]) -> Entry | None:
        if key not in self._entries:
            self._open(key, arguments)
        return self._entries[key]

    def _run(self, entry: Entry, words: array[int]) -> int:
        address = words.buffer_info()[0]
        if entry(address, address + 8, address + 16):
            raise RuntimeError(f"{self.module}.{self.name} failed")
        return words[0]

    @property
    def function(self) -> Any:
        """The Numba function; reading this property loads Numba."""
        return getattr(import_module(self.module), self.name)

    def _open(self, key: tuple[object, ...], arguments: tuple[Any, ...]) -> None:
        """Load the machine code for arguments of these types.

        Compile and store it if there is none.
        """
        with _lock:
            if key in self._entries:
                return
            name = _cache_name(self.module, self.name, key)
            code = load_code("kernels", name)
            if code is None:
                from weakcell.emulator.native.object_files import build

                with _compilation.announced():
                    code = build(self.function, arguments, SYMBOL)
                if code is not None:
                    save_code("kernels", name, code)
            self._entries[key] = None if code is None else _load(name, code)


class _Compilation:
    """Logs one line as soon as a process has compiled for more than a few seconds; the caller holds `_lock`."""

    def __init__(self) -> None:
        self._silent_seconds = 5.0

    @contextmanager
    def announced(self) -> Iterator[None]:
        """Count the time inside the context."""
        if self._silent_seconds <= 0:
            yield
            return
        timer = Timer(self._silent_seconds, self._announce)
        timer.daemon = True
        began = perf_counter()
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            self._silent_seconds -= perf_counter() - began

    def _announce(self) -> None:
        self._silent_seconds = 0.0
        log.warning("Compiling machine code for these layers: 5 to 50 s for each new kind of layer, once on this machine.")


_compilation = _Compilation()


class BoundKernel:
    """A kernel whose last arguments are given once for many calls.

    Arrays among them are kept alive; each call reads their current contents.
    """

    def __init__(self, kernel: Kernel, last: tuple[Any, ...]) -> None:
        self._kernel, self._last = kernel, last
        self._kinds: list[object] = []
        words: list[int] = []
        _flatten(last, self._kinds, words)
        self._words = array("q", words)
        self._entries: dict[tuple[object, ...], Entry | None] = {}

    def __call__(self, *first: Any) -> int:
        kinds: list[object] = []
        words = [0, 0]
        _flatten(first, kinds, words)
        key = tuple(kinds)
        if key not in self._entries:
            self._entries[key] = self._kernel._entry((*kinds, *self._kinds), (*first, *self._last))
        entry = self._entries[key]
        if entry is None:
            return int(self._kernel.function(*first, *self._last) or 0)
        return self._kernel._run(entry, array("q", words) + self._words)


def _flatten(arguments: tuple[Any, ...], kinds: list[object], words: list[int]) -> None:
    """Append the types of the arguments, and the words that represent them."""
    for x in arguments:  # runs before every call: the most frequent cases come first
        kind = type(x)
        if kind is int or kind is bool:
            kinds.append(kind)
            words.append(x)
        elif kind is np.ndarray:
            kinds += x.dtype, x.ndim, _FLAG_KEYS[x.flags.num & _FLAGS]
            words.append(id(x))
        elif isinstance(x, tuple):
            kinds += kind, len(x)
            _flatten(x, kinds, words)
        elif isinstance(x, np.integer | np.bool_):
            kinds.append(kind)
            words.append(int(x))
        else:
            raise TypeError(f"a kernel takes no {kind.__name__}")


def _cache_name(module: str, name: str, key: tuple[object, ...]) -> str:
    """Return the name of a kernel's cache file: a digest of everything that the machine code depends on."""
    from llvmlite import binding

    kinds = [f"{k.__module__}.{k.__qualname__}" if isinstance(k, type) else k for k in key]
    target = [os.environ.get(f"NUMBA_CPU_{part}") for part in ("NAME", "FEATURES")]
    host = binding.get_host_cpu_name(), binding.get_host_cpu_features().flatten(), binding.get_process_triple()
    sources = digest_sources(module, "weakcell.emulator.native.object_files")
    content = (FORMAT, module, name, kinds, target, host, sources, list_compilers())
    return f"{name}-{hashlib.sha256(repr(content).encode()).hexdigest()[:32]}"


@cache
def _jit() -> tuple[Any, Iterator[int]]:
    """Return LLVM's linker and loader of object files, and library numbers."""
    from llvmlite import binding

    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    return binding.create_lljit_compiler(suppress_errors=True), count()


def _load(name: str, code: bytes) -> Entry | None:
    """Load the function in an object file.

    None if it needs symbols that this process does not have.
    """
    from llvmlite import binding

    builder = binding.JITLibraryBuilder().add_object_img(code).add_current_process().export_symbol(SYMBOL)
    jit, numbers = _jit()
    try:
        library = builder.link(jit, f"{name} {next(numbers)}")
    except RuntimeError:
        return None
    entry = _ENTRY(library[SYMBOL])
    entry.library = library  # type: ignore[attr-defined]  # unloaded once nobody holds it
    return entry
