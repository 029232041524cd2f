"""Cached machine code of kernels: where it is found, neither Numba nor its compiler is loaded.

A `Kernel` names a function that Numba can compile. On its first call with arguments of some types it looks for machine code made
from these sources: in the user's cache, then in what was installed with the package. If there is none, another process compiles
it. A kernel for which that is not possible runs as Numba runs it.

Arguments are arrays, integers, booleans, float64 numbers, and tuples of these, nested at will (`arguments.py`). The GIL is released
while a kernel runs.
"""

from __future__ import annotations

import ctypes
import os
from array import array
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from importlib import import_module
from itertools import count
from threading import Lock
from typing import Any

from weakcell.memmodels.cached_code import load_code
from weakcell.memmodels.native.arguments import flatten
from weakcell.memmodels.native.code_names import name_cached_code
from weakcell.memmodels.native.compilers import CompilerPool, Request, Task
from weakcell.memmodels.native.installed_code import load_installed_kernel
from weakcell.memmodels.native.known_kernels import KnownKernel, expect_kernels

SYMBOL = "kernel"
"""Name of the function in machine code: int32 kernel(int64 *result, void **exception, int64 *arguments); 0 means success."""

Entry = Callable[[int, int, int], int]

_ENTRY = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)

opened_kernels: list[KnownKernel] = []
"""The kernels whose machine code this process has looked for."""

_compilers: CompilerPool
_lock: Lock
"""Guards `Kernel._entries` while machine code is loaded."""


def _renew() -> None:
    """Make lock and compilers. A forked child needs its own: nobody there would release a lock or answer a request."""
    global _compilers, _lock
    _compilers, _lock = CompilerPool("kernels"), Lock()


_renew()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)


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
        flatten(arguments, kinds, words)
        entry = self._entry(tuple(kinds))
        if entry is None:
            return int(self.function(*arguments) or 0)
        return self._run(entry, array("q", words))

    def bind(self, *last: Any) -> BoundKernel:
        """Return the kernel with its last arguments given."""
        return BoundKernel(self, last)

    def _entry(self, key: tuple[object, ...]) -> Entry | None:
        if key not in self._entries:
            self._open(key)
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

    def _open(self, key: tuple[object, ...]) -> None:
        """Load the machine code for arguments of these types. Have it compiled and stored if there is none."""
        opened_kernels.append(KnownKernel(self.module, self.name, key))
        name = name_cached_code(self.module, self.name, key)
        code = load_code("kernels", name) or load_installed_kernel(self.module, self.name, key)
        if code is None:
            task = _compilers.submit(name, Request(self.module, self.name, key, SYMBOL))
            prepare_kernels(expect_kernels(opened_kernels))
            code = _compilers.wait_for(task)
        with _lock:
            if key not in self._entries:
                self._entries[key] = None if code is None else _load(name, code)


def prepare_kernels(kernels: Iterable[KnownKernel]) -> list[Task]:
    """Have kernels compiled that have no machine code yet, when nothing else is to be compiled.

    Returns:
        The kernels that are compiled. `wait_for_kernels` waits for them.
    """
    return [
        _compilers.submit(name_cached_code(module, function, kinds), Request(module, function, kinds, SYMBOL), later=True)
        for module, function, kinds in list_missing_kernels(kernels)
    ]


def list_missing_kernels(kernels: Iterable[KnownKernel]) -> list[KnownKernel]:
    """Return the kernels that have no machine code yet."""
    return [
        kernel
        for kernel in kernels
        if load_code("kernels", name_cached_code(*kernel)) is None and load_installed_kernel(*kernel) is None
    ]


def wait_for_kernels(tasks: Iterable[Task]) -> None:
    """Wait until kernels are compiled; what fails is raised."""
    for task in tasks:
        _compilers.wait_for(task)


class BoundKernel:
    """A kernel whose last arguments are given once for many calls.

    Arrays among them are kept alive; each call reads their current contents.
    """

    def __init__(self, kernel: Kernel, last: tuple[Any, ...]) -> None:
        self._kernel, self._last = kernel, last
        self._kinds: list[object] = []
        words: list[int] = []
        flatten(last, self._kinds, words)
        self._words = array("q", words)
        self._entries: dict[tuple[object, ...], Entry | None] = {}

    def __call__(self, *first: Any) -> int:
        kinds: list[object] = []
        words = [0, 0]
        flatten(first, kinds, words)
        key = tuple(kinds)
        if key not in self._entries:
            self._entries[key] = self._kernel._entry((*kinds, *self._kinds))
        entry = self._entries[key]
        if entry is None:
            return int(self._kernel.function(*first, *self._last) or 0)
        return self._kernel._run(entry, array("q", words) + self._words)


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
