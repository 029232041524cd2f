"""Names of files of machine code: digests of everything that the code depends on."""

from __future__ import annotations

import hashlib
import os
from typing import Any

from weakcell.memmodels.source_digest import digest_sources, list_compilers

FORMAT = 3
"""Version of the files, and of how machine code is called."""


def name_cached_code(module: str, function: str, kinds: tuple[object, ...]) -> str:
    """Return the name of a kernel in the user's cache: other compilers and other CPUs have other names.

    Args:
        module: Name of the module that defines the function.
        function: Name of the function.
        kinds: Types of the arguments, from `arguments.flatten`.
    """
    from llvmlite import binding

    target = [os.environ.get(f"NUMBA_CPU_{part}") for part in ("NAME", "FEATURES")]
    host = binding.get_host_cpu_name(), binding.get_host_cpu_features().flatten(), binding.get_process_triple()
    format_, *names, types, sources = _describe(module, function, kinds)
    return _name(function, (format_, *names, types, target, host, sources, list_compilers()))


def name_installed_code(module: str, function: str, kinds: tuple[object, ...]) -> str:
    """Return the name of a kernel in the package: it depends on sources, types and where the address of an array is found.

    The versions of the compilers are no part of it, since an object file needs nothing of them.
    """
    return _name(function, (*_describe(module, function, kinds), object.__basicsize__))


def _describe(module: str, function: str, kinds: tuple[object, ...]) -> tuple[Any, ...]:
    types = [(k.__module__, k.__qualname__, getattr(k, "_fields", ())) if isinstance(k, type) else k for k in kinds]
    return FORMAT, module, function, types, digest_sources(module, "weakcell.memmodels.native.object_files")


def _name(function: str, content: tuple[object, ...]) -> str:
    return f"{function}-{hashlib.sha256(repr(content).encode()).hexdigest()[:32]}"
