"""The same seed gives the same faults and logits on every CPU. Oracle: code for the host; other targets run in subprocesses."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.emulator.small import INT2, INT4, UINT8, RandomNetwork, pixels
from weakcell.emulator import ReadPolicy, compile_plan, deploy, outputs_under_faults, place
from weakcell.emulator.ir.layers import SIGN1, Window
from weakcell.memmodels.catalogue import parse_spec

ROOT = Path(__file__).resolve().parents[2]


TARGETS = {
    "haswell": ("+avx,+avx2,+popcnt,+fma,+bmi,+bmi2", True),  # AVX2 without AVX-512
    "x86-64": ("", False),  # neither, and no population count
}
"""LLVM features, and whether all encodings are tried: compiling them takes minutes."""


def digest(whole: bool) -> str:
    """Return a digest of logits and flips: convolutions whose weights are read in kernels, and flips of die maps.

    Args:
        whole: all encodings, layouts and roundings; otherwise a few, for a target whose code differs little from another one's.
    """
    d = RandomNetwork(np.random.default_rng(21))
    x = d.threshold(d.convolution(d.input("x", (3, 7, 6), "int8"), 37, Window((3, 3), pads=(1, 1, 1, 1)), SIGN1), 200)
    bits = d.threshold(d.convolution(x, 35, Window((2, 2), (2, 1), pads=(0, 1, 0, 0)), SIGN1))
    ends = [bits, d.dense(d.threshold(d.input("v", (512,), "int8"), 90), 40, SIGN1), d.convolution("x", 4, Window((2, 2)), INT2)]
    if whole:
        pooled = d.threshold(d.pool(d.convolution("x", 33, Window((2, 2)), INT4), Window((2, 2), (2, 2))), 50)
        codes = d.requantize(d.convolution("x", 33, Window((1, 1)), INT4), 0.1, 7)
        codes = d.requantize(d.convolution(codes, 33, Window((3, 3), (2, 1)), INT2, groups=33), 0.2)
        dense = [d.requantize(d.dense("v", 33, INT4), 0.01), d.dense("v", 34, INT2)]  # one row per image: gemv
        ends += [d.convolution("x", 4, Window((2, 2)), UINT8), codes, *dense, d.convolution(pooled, 5, Window((1, 2)), SIGN1)]
    network = d.network(*map(d.dequantize, ends))
    plan, images, digested = compile_plan(network), pixels(network, 9), hashlib.sha256()
    for spec in ("uniform:ber=0.01", "uniform:p01=0.3,p10=0.001", "sram-14nm:v_over_vmin=0.8"):
        for trial in range(2):
            run = deploy(plan, place(network, parse_spec(spec)), ReadPolicy.IMAGE, trial=trial, seed=5)
            for stored in run.all_slots:
                digested.update(run.read(stored, 3).flips.tobytes())
            if run.slots_same_at_every_read:
                continue  # such weights are not read in kernels
            for each in (run, replace(run, policy=ReadPolicy.BATCH)):
                for name, values in outputs_under_faults(plan, images, each).items():
                    digested.update(name.encode() + values.tobytes())
            digested.update(repr(sorted(run.tally.flips.items())).encode())
    return digested.hexdigest()


def test_other_targets_give_the_same_numbers(tmp_path: Path) -> None:
    """Run one process per target at the same time: most of the time is compilation."""
    if platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip(f"this machine is {platform.machine()}: it does not run code for {', '.join(TARGETS)}")
    running = {}
    for cpu, (features, whole) in TARGETS.items():
        command = [sys.executable, "-c", f"from tests.emulator.test_targets import digest; print(digest({whole}))"]
        target = {"NUMBA_CPU_NAME": cpu, "NUMBA_CPU_FEATURES": features, "NUMBA_CACHE_DIR": str(tmp_path / cpu)}
        running[cpu] = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **target}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
    try:
        outputs = {cpu: process.communicate(timeout=900) for cpu, process in running.items()}
    finally:
        for process in running.values():
            process.kill()
    assert all(process.returncode == 0 for process in running.values()), outputs
    assert {cpu: out.strip() for cpu, (out, _) in outputs.items()} == {cpu: digest(whole) for cpu, (_, whole) in TARGETS.items()}
