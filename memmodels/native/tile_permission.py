"""Whether this process may compute matrix products in the tiles of AMX. Linux must be asked, once per process.

It is asked only if the user wants tiles, since their speed has not been measured yet. `WEAKCELL_MATRIX_TILES` says what is wanted:

    0           vectors; so does an unset variable
    1           tiles, where processor, code target and system allow them; otherwise vectors
    software    the kernels of tiles, with their instructions replaced by loops. They run anywhere, slowly: for tests

Results never depend on it.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from collections.abc import Mapping
from functools import cache
from typing import Literal, NamedTuple

from weakcell.memmodels.errors import UsageError

TILES_VARIABLE = "WEAKCELL_MATRIX_TILES"
"""Environment variable: what computes matrix products."""

FEATURES = ("amx-tile", "amx-int8")
"""LLVM features that the code needs."""

_ARCH_PRCTL, _REQUEST_PERMISSION, _TILE_DATA = 158, 0x1023, 18
"""System call of x86-64, its code ARCH_REQ_XCOMP_PERM (since Linux 5.16), and the state component of tile data."""


class TileChoice(NamedTuple):
    """What computes matrix products in this process, and why.

    Attributes:
        tiles: `amx`, `software`, or `none` for vectors.
        reason: why tiles are not used; empty where they are.
        possible: whether this processor and code target have tiles.
    """

    tiles: Literal["none", "amx", "software"]
    reason: str = ""
    possible: bool = False


@cache
def choose_tiles() -> TileChoice:
    """Decide what computes matrix products in this process. Asks for permission if the user wants tiles.

    Raises:
        UsageError: The variable has no known value.
    """
    wish = os.environ.get(TILES_VARIABLE) or "0"
    if wish not in ("0", "1", "software"):
        do = "Set 1 for matrix tiles, 0 for vectors, or unset the variable"
        raise UsageError(f"{TILES_VARIABLE}={wish}", "it is neither 0 nor 1", do)
    if wish == "software":
        return TileChoice("software")
    if missing := [feature for feature in FEATURES if not _target_has(feature)]:
        return TileChoice("none", f"the processor or the code's target has no {' and no '.join(missing)}")
    if wish == "0":
        return TileChoice("none", f"{TILES_VARIABLE}=1 would use AMX; its speed is not measured", possible=True)
    refusal = ask_for_permission()
    return TileChoice("none", refusal, possible=True) if refusal else TileChoice("amx", possible=True)


def pass_tiles_on(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment in which another process compiles for the tiles of this one, whatever the system permits there."""
    return {**environment, TILES_VARIABLE: {"none": "0", "amx": "1", "software": "software"}[choose_tiles().tiles]}


def ask_for_permission() -> str:
    """Ask the system to let this process use tile data. Return why not; empty if it may."""
    if not sys.platform.startswith("linux") or platform.machine() != "x86_64" or sys.maxsize < 1 << 32:
        return "only 64-bit Linux on x86 gives permission for tiles"
    system = ctypes.CDLL(None, use_errno=True)
    system.syscall.restype = ctypes.c_long
    if system.syscall(*map(ctypes.c_long, (_ARCH_PRCTL, _REQUEST_PERMISSION, _TILE_DATA))) == 0:
        return ""
    return f"the system gave no permission for tiles ({os.strerror(ctypes.get_errno())}); Linux does since 5.16"


def _target_has(feature: str) -> bool:
    """Return whether processor and code target have an LLVM feature."""
    from llvmlite import binding

    named = os.environ.get("NUMBA_CPU_NAME", "host") != "host"
    given = os.environ.get("NUMBA_CPU_FEATURES") or ""
    in_target = not named or f"+{feature}" in given.split(",")
    return in_target and bool(binding.get_host_cpu_features().get(feature, False))
