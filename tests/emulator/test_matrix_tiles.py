"""Matrix products in tiles: the code for AMX, the same path with loops in the place of instructions, and who may use it.

Oracle: NumPy's integers (`tiled_networks.py`). `amx_in_bochs.py` runs the instructions themselves, on emulated hardware.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from llvmlite import binding

from weakcell.memmodels.errors import UsageError
from weakcell.memmodels.native import tile_permission
from weakcell.memmodels.native.tile_permission import FEATURES, TILES_VARIABLE, TileChoice, choose_tiles

ROOT = Path(__file__).resolve().parents[2]

HAS_AMX = all(binding.get_host_cpu_features().get(feature, False) for feature in FEATURES)

_COMPILE = """
import sys
from weakcell.memmodels.native import tile_permission
choice = tile_permission.TileChoice("amx")
tile_permission.choose_tiles = lambda: choice  # this machine does not run the code
from weakcell.memmodels.native import object_files
object_files.defer_optimization()
from weakcell.emulator.kernels.conv import convolution
from weakcell.memmodels.native.known_kernels import all_kernels
kinds = next(k.kinds for k in all_kernels() if k.function == "convolution" and "Int8x4" in str(k.kinds))
code = object_files.build(convolution, kinds, "kernel")
open(sys.argv[1], "wb").write(code)
"""


def test_products_in_tiles_equal_numpy() -> None:
    """Loops stand for instructions, so any machine runs this. Most of the time is compilation of three kernels."""
    command = [sys.executable, "-m", "tests.emulator.tiled_networks", "8"]
    environment = {**os.environ, TILES_VARIABLE: "software"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=3600, check=False)
    assert "8 networks equal NumPy's with tiles: software" in done.stdout, done.stderr


@pytest.mark.skipif(not HAS_AMX, reason="this processor has no AMX; tests/emulator/amx_in_bochs.py emulates one")
def test_products_of_this_processor_equal_numpy() -> None:
    command = [sys.executable, "-m", "tests.emulator.tiled_networks", "25", "whole"]
    environment = {**os.environ, TILES_VARIABLE: "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=3600, check=False)
    assert "25 networks equal NumPy's with tiles: " in done.stdout, done.stderr


def test_code_for_amx_keeps_sums_in_tiles(tmp_path: Path) -> None:
    """Four tiles of sums, two of inputs and two of weights. Only finished sums are stored, so no tile is spilled."""
    if not binding.get_process_triple().startswith("x86_64") or shutil.which("objdump") is None:
        pytest.skip("no x86-64, or no objdump")
    features = ",".join(f"+{feature}" for feature in ("avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512vnni", *FEATURES))
    environment = {**os.environ, "NUMBA_CPU_NAME": "sapphirerapids", "NUMBA_CPU_FEATURES": features}
    subprocess.run([sys.executable, "-c", _COMPILE, tmp_path / "kernel.o"], env=environment, check=True, cwd=ROOT)
    tool = subprocess.run(["objdump", "-d", tmp_path / "kernel.o"], capture_output=True, text=True, check=True)
    found = re.findall(r"\t(ldtilecfg|tilerelease|tileloadd|tilestored|tdpbusd)\s+(.*)", tool.stdout)
    names = [name for name, _ in found]
    assert names.count("ldtilecfg") == names.count("tilerelease") == 1
    assert {operands for name, operands in found if name == "tdpbusd"} == {
        f"%tmm{6 + j},%tmm{4 + i},%tmm{2 * i + j}" for i in range(2) for j in range(2)
    }
    assert [operands[:5] for name, operands in found if name == "tilestored"] == [f"%tmm{tile}" for tile in range(4)]


def test_tiles_are_used_only_if_wanted_and_permitted(monkeypatch: pytest.MonkeyPatch) -> None:
    decide = choose_tiles.__wrapped__
    asked: list[bool] = []
    refusal = "Operation not permitted"

    def ask() -> str:
        asked.append(True)
        return refusal

    monkeypatch.setattr(tile_permission, "ask_for_permission", ask)
    monkeypatch.setattr(binding, "get_host_cpu_features", lambda: dict.fromkeys(FEATURES, True))
    for unset in ("0", ""):
        monkeypatch.setenv(TILES_VARIABLE, unset)
        assert decide() == TileChoice("none", "WEAKCELL_MATRIX_TILES=1 would use AMX; its speed is not measured", possible=True)
        assert not asked
    monkeypatch.setenv(TILES_VARIABLE, "1")
    assert decide() == TileChoice("none", refusal, possible=True)
    refusal = ""
    assert decide() == TileChoice("amx", possible=True)
    monkeypatch.setenv("NUMBA_CPU_NAME", "haswell")
    assert decide() == TileChoice("none", "the processor or the code's target has no amx-tile and no amx-int8")
    monkeypatch.setenv("NUMBA_CPU_FEATURES", "+avx2,+amx-tile,+amx-int8")
    assert decide().tiles == "amx"
    monkeypatch.setattr(binding, "get_host_cpu_features", dict)
    assert decide().tiles == "none"
    monkeypatch.setenv(TILES_VARIABLE, "yes")
    with pytest.raises(UsageError, match="it is neither 0 nor 1"):
        decide()


@pytest.mark.skipif(HAS_AMX, reason="this processor has AMX")
def test_a_system_without_tiles_refuses() -> None:
    assert "permission for tiles" in tile_permission.ask_for_permission()
