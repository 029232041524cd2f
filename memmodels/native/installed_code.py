"""Machine code that was installed with the package, for one or more target CPUs.

`code/` has a folder for each target. `target.json` in it says what a CPU must have; each other file is a kernel. Such code needs
the C library alone, so any version of Python, NumPy, Numba and llvmlite may load it. `.ci/compile_kernels.py` makes it.
"""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from weakcell.memmodels.cached_code import load_installed_code, write_code
from weakcell.memmodels.native.code_names import name_installed_code
from weakcell.memmodels.source_digest import list_settings

_FOLDER = Path(__file__).with_name("code")
_TARGET = "target.json"

_V3 = (
    *("avx", "avx2", "bmi", "bmi2", "cmov", "crc32", "cx16", "cx8", "f16c", "fma", "fxsr", "lzcnt", "mmx", "movbe", "popcnt"),
    *("sahf", "sse", "sse2", "sse3", "sse4.1", "sse4.2", "ssse3", "xsave"),
)
_V4 = (*_V3, "avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl")
COMMON_TARGETS = {
    "x86-64-v3": ("x86-64-v3", _V3),
    "x86-64-v4": ("x86-64-v4", _V4),
    "x86-64-v4-vnni": ("x86-64-v4", (*_V4, "avx512bitalg", "avx512vbmi", "avx512vbmi2", "avx512vnni", "avx512vpopcntdq")),
}
"""Targets of a release: LLVM's name of the CPU, and features that it must have. The last one is that of Ice Lake and Zen 4."""


class Target(NamedTuple):
    """What machine code was made for.

    Attributes:
        triple: LLVM's name of architecture and operating system.
        cpu: LLVM's name of the CPU.
        features: LLVM features that the code may use.
    """

    triple: str
    cpu: str
    features: tuple[str, ...]


def find_target() -> Target:
    """Return the target that Numba compiles for: the CPU of this machine, or that of NUMBA_CPU_NAME and NUMBA_CPU_FEATURES."""
    from llvmlite import binding

    triple = binding.get_process_triple()
    if cpu := os.environ.get("NUMBA_CPU_NAME"):
        given = os.environ.get("NUMBA_CPU_FEATURES", "").split(",")
        return Target(triple, cpu, tuple(feature[1:] for feature in given if feature.startswith("+")))
    present = sorted(feature for feature, has in binding.get_host_cpu_features().items() if has)
    return Target(triple, binding.get_host_cpu_name(), tuple(present))


def load_installed_kernel(module: str, function: str, kinds: tuple[object, ...]) -> bytes | None:
    """Return the installed object file of a kernel for this CPU, None if there is none.

    There is none under settings of Numba that change machine code.
    """
    if not _FOLDER.is_dir() or list_settings() or any(os.environ.get(f"NUMBA_CPU_{part}") for part in ("NAME", "FEATURES")):
        return None
    folder = _choose_folder()
    return None if folder is None else load_installed_code(folder, name_installed_code(module, function, kinds))


@cache
def _choose_folder() -> Path | None:
    """Return the folder of the target that suits this CPU best: the one with its name, or with most features."""
    here = find_target()
    usable: list[tuple[bool, int, Path]] = []
    for file in _FOLDER.glob(f"*/{_TARGET}"):
        content = load_installed_code(file.parent, _TARGET)
        target = None if content is None else _read_target(content)
        if target is not None and target.triple == here.triple and set(target.features) <= set(here.features):
            usable.append((target.cpu == here.cpu, len(target.features), file.parent))
    return max(usable)[2] if usable else None


def _read_target(content: bytes) -> Target | None:
    try:
        fields: Any = json.loads(content)
        return Target(fields["triple"], fields["cpu"], tuple(fields["features"]))
    except (ValueError, KeyError, TypeError):
        return None


def write_target(folder: Path, target: Target) -> None:
    """Begin a folder of machine code for a target."""
    folder.mkdir(parents=True, exist_ok=True)
    write_code(folder / _TARGET, json.dumps(target._asdict()).encode())


def write_kernel(folder: Path, module: str, function: str, kinds: tuple[object, ...], code: bytes) -> None:
    """Write an object file to the folder of its target."""
    write_code(folder / name_installed_code(module, function, kinds), code)
