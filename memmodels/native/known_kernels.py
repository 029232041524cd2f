"""The kernels that kinds of networks need, so that they are compiled at once, before they are asked for.

`known_kernels.txt` lists them, section by section, as `tests/emulator/known_kernels.py` recorded them. A kernel is a line: its
module below `weakcell`, its name, and the types of its arguments. An array is its dtype or record and its number of axes; it is
C-contiguous and writeable unless F (Fortran-contiguous), S (strided) or R (read-only) follows.

    emulator.kernels.conv_sign.sign_convolution uint8[4], uint64[4], Int8x4(int8[4]), ConvContext(((int, int), ...), ...), int32[2]
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from weakcell.memmodels.native.arguments import C_CONTIGUOUS, FORTRAN_CONTIGUOUS, WRITEABLE

_FILE = Path(__file__).with_name("known_kernels.txt")
_RECORDS = (
    *("memmodels.sampling.sampler", "memmodels.sampling.shells", "memmodels.error_model.structure"),
    *("emulator.kernels.arguments", "emulator.kernels.weight_layouts"),
    *("emulator.prediction.sum_kernels", "emulator.margins.tolerance_kernels"),
)
"""Modules below `weakcell` whose records may be arguments; none needs more than NumPy."""

_ALIGNED = 0x100
_TOKEN = re.compile(r"\w+(?:\[\d+\][FSR]*)?|[(),]")


class KnownKernel(NamedTuple):
    """A kernel for arguments of some types.

    Attributes:
        module: Name of the module that defines the function.
        function: Name of the function.
        kinds: Types of the arguments, from `arguments.flatten`.
    """

    module: str
    function: str
    kinds: tuple[object, ...]


@cache
def read_sections() -> dict[str, tuple[KnownKernel, ...]]:
    """Return the sections of the list; each is one kind of network and memory."""
    sections: dict[str, list[KnownKernel]] = {}
    for line in _FILE.read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            section = sections.setdefault(line.strip("[]"), [])
        elif line and not line.startswith("#"):
            section.append(parse_kernel(line))
    return {name: tuple(kernels) for name, kernels in sections.items()}


def all_kernels() -> list[KnownKernel]:
    """Return the kernels of all sections, each once."""
    return list(dict.fromkeys(kernel for kernels in read_sections().values() for kernel in kernels))


def expect_kernels(opened: Sequence[KnownKernel]) -> list[KnownKernel]:
    """Return the kernels that will be needed after these, of which the last one is needed now.

    The run is of the section that has the last one and shares most kernels with the others. If several sections do, the kernels
    that all of them have are expected.
    """
    seen = set(opened)
    sections = [kernels for kernels in read_sections().values() if opened[-1] in kernels]
    most = max((len(seen.intersection(kernels)) for kernels in sections), default=0)
    first, *others = [kernels for kernels in sections if len(seen.intersection(kernels)) == most] or [()]
    return [kernel for kernel in first if kernel not in seen and all(kernel in kernels for kernels in others)]


# --- text ----------------------------------------------------------------------------------------------------------------------


def format_kernel(kernel: KnownKernel) -> str:
    """Return a kernel as a line of the list."""
    words = iter(kernel.kinds)
    kinds = ", ".join(_format_kind(kind, words) for kind in words)
    return f"{kernel.module.removeprefix('weakcell.')}.{kernel.function} {kinds}"


def _format_kind(kind: Any, words: Iterator[Any]) -> str:
    if isinstance(kind, np.dtype):
        axes, flags = next(words), next(words)
        layout = "" if flags & C_CONTIGUOUS else "F" if flags & FORTRAN_CONTIGUOUS else "S"
        name = kind.name if kind.names is None else next(name for name, record in _records().items() if record is kind)
        return f"{name}[{axes}]{layout}{'' if flags & WRITEABLE else 'R'}"
    if issubclass(kind, tuple):
        parts = ", ".join(_format_kind(next(words), words) for _ in range(next(words)))
        return f"{'' if kind is tuple else kind.__name__}({parts})"
    return str(kind.__name__)


def parse_kernel(line: str) -> KnownKernel:
    """Return the kernel of a line of the list."""
    name, _, text = line.partition(" ")
    module, _, function = name.rpartition(".")
    tokens = _TOKEN.findall(text)
    kinds: list[object] = []
    position = 0
    while position < len(tokens):
        position = _parse_kind(tokens, position, kinds) + 1  # behind the comma
    return KnownKernel(f"weakcell.{module}", function, tuple(kinds))


def _parse_kind(tokens: list[str], position: int, kinds: list[object]) -> int:
    """Append the kind that begins at a token; return the position of the token behind it."""
    token = tokens[position]
    name, _, rest = token.partition("[")
    if rest:
        axes, _, marks = rest.partition("]")
        layout = FORTRAN_CONTIGUOUS if "F" in marks else 0 if "S" in marks else C_CONTIGUOUS
        flags = _ALIGNED | layout | (0 if "R" in marks else WRITEABLE)
        kinds += _records().get(name) or np.dtype(name), int(axes), flags
        return position + 1
    if token != "(" and tokens[position + 1 : position + 2] != ["("]:
        kinds.append({"int": int, "bool": bool, "float": float}.get(token) or np.dtype(token).type)
        return position + 1
    start = len(kinds)
    kinds += tuple if token == "(" else _records()[token], 0
    position += 1 if token == "(" else 2
    length = 0
    while tokens[position] != ")":
        position = _parse_kind(tokens, position, kinds) if tokens[position] != "," else position + 1
        length += tokens[position - 1] != ","
    kinds[start + 1] = length
    return position + 1


@cache
def _records() -> dict[str, Any]:
    """Return the named tuples and structured dtypes that may be arguments, by name."""
    records = {}
    for module in _RECORDS:
        for name, value in vars(import_module(f"weakcell.{module}")).items():
            if isinstance(value, np.dtype) or (isinstance(value, type) and issubclass(value, tuple)):
                records[name] = value
    return records
