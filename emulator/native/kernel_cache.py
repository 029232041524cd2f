"""Kernels as machine code that is kept between processes: where it is found, neither Numba nor its compiler is loaded.

A `Kernel` names a function that Numba can compile. Called with arguments of some types for the first time, it looks for machine
code made from these sources, for these types and this CPU; if there is none, Numba makes it (`native_build.py`), and it is kept in
the user's cache, or below $NUMBA_CACHE_DIR. What cannot be made so runs as Numba itself runs it.

Machine code runs with the rights of this process, so a file of the cache is used only if it belongs to this user (or to root) and
nobody else may write to it. Its digest covers its name: a file that was damaged, cut or exchanged for another is made again.

Arguments are arrays, integers, booleans, and tuples of these, nested at will. Machine code gets them as one row of words: an
integer is itself, an array is the address of its NumPy object. The GIL is released meanwhile.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import sys
import tempfile
from array import array
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from importlib import import_module
from itertools import count
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from weakcell.memmodels.files import open_regular

log = logging.getLogger(__name__)

FORMAT = 2
"""Of the files of the cache."""

_NOWHERE = Path(os.devnull)

SYMBOL = "kernel"
"""The function in machine code: int32 kernel(int64 *result, void **exception, int64 *arguments), 0 if all went well."""

Entry = Callable[[int, int, int], int]

_ENTRY = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)
_C, _FORTRAN, _REST = 0x1, 0x2, 0x100 | 0x400
"""Flags of an array: contiguous in C's order, in Fortran's; aligned, writeable."""

_SEEN = _C | _FORTRAN | _REST
_LAYOUTS = tuple(flags & (_REST | (_C if flags & _C else _FORTRAN)) for flags in range(_SEEN + 1))
"""What machine code must know of these flags: an array that is contiguous either way is so in C's order."""

_opening = Lock()


class Kernel:
    """The function `name` of `module`, which compiles and calls nothing from outside its package but
    `weakcell.memmodels.sampling.pointers`.

    Called like it, a kernel returns an integer: 0 where the function returns nothing.
    """

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name
        self._entries: dict[tuple[object, ...], Entry | None] = {}

    def __call__(self, *arguments: Any) -> int:
        kinds: list[object] = []
        words = [0, 0]  # room for the result and for what numba says of an exception
        _flatten(arguments, kinds, words)
        entry = self._entry(tuple(kinds), arguments)
        if entry is None:
            return int(self.function(*arguments) or 0)
        return self._run(entry, array("q", words))

    def bind(self, *last: Any) -> Bound:
        """The kernel with its last arguments given."""
        return Bound(self, last)

    def _entry(self, key: tuple[object, ...], arguments: tuple[Any, ...]) -> Entry | None:
        if key not in self._entries:
            self._open(key, arguments)
        return self._entries[key]

    def _run(self, entry: Entry, room: array[int]) -> int:
        address = room.buffer_info()[0]
        if entry(address, address + 8, address + 16):
            raise RuntimeError(f"{self.module}.{self.name} failed")
        return room[0]

    @property
    def function(self) -> Any:
        """The function itself; asking for it loads Numba."""
        return getattr(import_module(self.module), self.name)

    def _open(self, key: tuple[object, ...], arguments: tuple[Any, ...]) -> None:
        """Find the machine code for arguments of such types, or have it made and keep it."""
        with _opening:
            if key in self._entries:
                return
            file = _place(self.module, self.name, key)
            code = None if file.parent == _NOWHERE else _read(file)
            if code is None:
                from weakcell.emulator.native.object_files import build

                code = build(self.function, arguments)
                if code is not None and file.parent != _NOWHERE:
                    _keep(file, code)
            self._entries[key] = None if code is None else _load(file, code)


class Bound:
    """A kernel whose last arguments are given once for many calls; arrays among them are kept, and read as they are then."""

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
    """Append what the types of the arguments are, and the words that stand for them."""
    for x in arguments:  # before every call: the order of the cases is that of how often they come
        kind = type(x)
        if kind is int or kind is bool:
            kinds.append(kind)
            words.append(x)
        elif kind is np.ndarray:
            kinds += x.dtype, x.ndim, _LAYOUTS[x.flags.num & _SEEN]
            words.append(id(x))
        elif isinstance(x, tuple):
            kinds += kind, len(x)
            _flatten(x, kinds, words)
        elif isinstance(x, np.integer | np.bool_):
            kinds.append(kind)
            words.append(int(x))
        else:
            raise TypeError(f"a kernel takes no {kind.__name__}")


def _place(module: str, name: str, key: tuple[object, ...]) -> Path:
    """The file of a kernel for arguments of some types: named by all that its machine code depends on."""
    from importlib.metadata import version

    import llvmlite
    from llvmlite import binding

    kinds = [f"{k.__module__}.{k.__qualname__}" if isinstance(k, type) else k for k in key]
    target = [os.environ.get(f"NUMBA_CPU_{part}") for part in ("NAME", "FEATURES")]
    host = binding.get_host_cpu_name(), binding.get_host_cpu_features().flatten(), binding.get_process_triple()
    versions = FORMAT, sys.version, np.__version__, llvmlite.__version__, version("numba"), _sources(module.rpartition(".")[0])
    digest = hashlib.sha256(repr((module, name, kinds, target, host, versions)).encode()).hexdigest()
    return _folder() / f"{name}-{digest[:32]}"


def _folder() -> Path:
    """The folder of the cache; `_NOWHERE` if the user has no home."""
    if given := os.environ.get("NUMBA_CACHE_DIR"):
        return Path(given) / "kernels"
    try:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:
        _say("Kernels are compiled at each start: this user has no home, and neither XDG_CACHE_HOME nor NUMBA_CACHE_DIR is set.")
        return _NOWHERE
    return cache / "weakcell" / "kernels"


@cache
def _say(text: str) -> None:
    """Log a warning once."""
    log.warning(text)


@cache
def _sources(package: str) -> str:
    """A digest of the sources that kernels of a package are made of: all of its files, and what all packages are built with."""
    shared = Path(__file__).with_name("object_files.py"), Path(__file__).parents[2] / "memmodels/sampling/pointers.py"
    files = [*sorted(Path(sys.modules[package].__path__[0]).glob("*.py")), *shared]
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()


def _digest(file: Path, code: bytes) -> bytes:
    return hashlib.sha256(file.name.encode() + b"\0" + code).digest()


def _read(file: Path) -> bytes | None:
    """Machine code as `_keep` left it; None if there is none, if it is damaged, or if somebody else could have written it."""
    try:
        with open_regular(file) as held:
            about = os.fstat(held.fileno())
            if hasattr(os, "geteuid") and (about.st_uid not in (os.geteuid(), 0) or about.st_mode & 0o022):
                _say(f"Kernels in {file.parent} are not used: other users own them or may write to them. They are compiled anew.")
                return None
            content = held.read()
    except OSError:
        return None
    return content[32:] if _digest(file, content[32:]) == content[:32] else None


def _keep(file: Path, code: bytes) -> None:
    """Write machine code behind its digest. A folder that cannot be written costs time at the next start, nothing else."""
    whole = None
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, whole = tempfile.mkstemp(dir=file.parent, prefix=".")  # which nobody else may read or write
        with os.fdopen(handle, "wb") as held:
            held.write(_digest(file, code) + code)
        os.replace(whole, file)
    except OSError:
        if whole is not None:
            with suppress(OSError):
                os.unlink(whole)


@cache
def _jit() -> tuple[Any, Iterator[int]]:
    """LLVM's linker and loader of object files, and numbers to name what it loads."""
    from llvmlite import binding

    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    return binding.create_lljit_compiler(suppress_errors=True), count()


def _load(file: Path, code: bytes) -> Entry | None:
    """The function in an object file, as a function of this process; None if it needs what this process does not have."""
    from llvmlite import binding

    builder = binding.JITLibraryBuilder().add_object_img(code).add_current_process().export_symbol(SYMBOL)
    jit, numbers = _jit()
    try:
        library = builder.link(jit, f"{file.name} {next(numbers)}")
    except RuntimeError:
        return None
    entry = _ENTRY(library[SYMBOL])
    entry.library = library  # type: ignore[attr-defined]  # unloaded once nobody holds it
    return entry
