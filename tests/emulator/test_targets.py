"""The same seed gives the same faults and logits on every CPU. Oracle: code for the host; other targets run in subprocesses."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llvmlite import binding

from tests.emulator.small import INT2, INT4, UINT8, RandomNetwork, pixels
from weakcell.emulator import ReadPolicy, compile_plan, deploy, outputs_under_faults, place
from weakcell.emulator.ir.network import Network
from weakcell.emulator.ir.values import SIGN1, Window
from weakcell.emulator.kernels.isa import WIDE
from weakcell.memmodels.catalogue import parse_spec
from weakcell.memmodels.native.tile_permission import FEATURES, TILES_VARIABLE

ROOT = Path(__file__).resolve().parents[2]


TARGETS = {
    "haswell": ("+avx,+avx2,+popcnt,+fma,+bmi,+bmi2", WIDE),  # tiles of another shape than those of a host with AVX-512
    "x86-64": ("", False),  # the same tiles; products and population counts without AVX2
}
"""LLVM features, and whether all kernels are compiled, which takes minutes."""

if all(binding.get_host_cpu_features().get(feature, False) for feature in FEATURES):
    TARGETS["host"] = ("", True)  # with the matrix tiles of AMX

SPECS = ("uniform:ber=0.01", "uniform:p01=0.3,p10=0.001", "sram-14nm:v_over_vmin=0.8")


def digest(whole: bool) -> str:
    """Return a digest of logits and flips.

    Args:
        whole: all layouts and epilogues, and kernels that read the memory at every image. Otherwise one network on stored weights,
            for a target whose code differs only in products and population counts.
    """
    digested = hashlib.sha256()
    d = RandomNetwork(np.random.default_rng(21))
    ends = add_each_product(d)
    if whole:
        update_digest(digested, d.network(*map(d.dequantize, ends)), ReadPolicy.IMAGE)
        d = RandomNetwork(np.random.default_rng(21))
        ends = add_each_product(d)
        pooled = d.threshold(d.pool(d.convolution("x", 33, Window((2, 2)), INT4), Window((2, 2), (2, 2))), 50)
        codes = d.requantize(d.convolution("x", 33, Window((1, 1)), INT4), 0.1, 7)
        codes = d.requantize(d.convolution(codes, 33, Window((3, 3), (2, 1)), INT2, groups=33), 0.2)
        dense = [d.requantize(d.dense("v", 33, INT4), 0.01), d.dense("v", 34, INT2)]
        ends += [d.convolution("x", 4, Window((2, 2)), UINT8), codes, *dense, d.convolution(pooled, 5, Window((1, 2)), SIGN1)]
    update_digest(digested, d.network(*map(d.dequantize, ends)), ReadPolicy.BATCH)
    return digested.hexdigest()


def add_each_product(d: RandomNetwork) -> list[str]:
    """Add products of bits and of codes, tile by tile and for one row per image (gemv); return the outputs."""
    x = d.threshold(d.convolution(d.input("x", (3, 7, 6), "int8"), 37, Window((3, 3), pads=(1, 1, 1, 1)), SIGN1), 200)
    bits = d.threshold(d.convolution(x, 35, Window((2, 2), (2, 1), pads=(0, 1, 0, 0)), SIGN1))
    row = d.dense(d.threshold(d.input("v", (512,), "int8"), 90), 40, SIGN1)
    return [bits, row, d.convolution("x", 4, Window((2, 2)), INT2)]


def update_digest(digested: Any, network: Network, policy: ReadPolicy) -> None:
    """Add logits, counts and flips of a network under errors."""
    plan, images = compile_plan(network), pixels(network, 9)
    for spec in SPECS:
        for trial in range(2):
            run = deploy(plan, place(network, parse_spec(spec)), policy, trial=trial, seed=5)
            for stored in run.all_slots:
                digested.update(run.read(stored, 3).flips.tobytes())
            for name, values in outputs_under_faults(plan, images, run).items():
                digested.update(name.encode() + values.tobytes())
            digested.update(repr(sorted(run.tally.flips.items())).encode())


def test_other_targets_give_the_same_numbers() -> None:
    """Run one process per target at the same time: most of the time is compilation. Cached code is named by its target."""
    if platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip(f"this machine is {platform.machine()}: it does not run code for {', '.join(TARGETS)}")
    running = {}
    for cpu, (features, whole) in TARGETS.items():
        command = [sys.executable, "-c", f"from tests.emulator.test_targets import digest; print(digest({whole}))"]
        target = {TILES_VARIABLE: "1"} if cpu == "host" else {"NUMBA_CPU_NAME": cpu, "NUMBA_CPU_FEATURES": features}
        running[cpu] = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **target}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
    try:
        outputs = {cpu: process.communicate(timeout=3600) for cpu, process in running.items()}
    finally:
        for process in running.values():
            process.kill()
    assert all(process.returncode == 0 for process in running.values()), outputs
    assert {cpu: out.strip() for cpu, (out, _) in outputs.items()} == {cpu: digest(whole) for cpu, (_, whole) in TARGETS.items()}
