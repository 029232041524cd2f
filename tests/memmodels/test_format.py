"""Sampling format 2 draws these bits on every machine, permanently.

The numbers are those of `golden.py`. If one of them has to change, saved results no longer mean what they say: raise
`weakcell.memmodels.sampling.sampler.VERSION`, put the new numbers here, and say so in the release notes. Never change them
otherwise.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from tests.emulator.test_targets import TARGETS
from tests.memmodels import golden
from weakcell.memmodels.sampling.sampler import VERSION

FORMAT_2 = {
    "streams": "54ee41a38ee4661d",
    "read, hits": "bd69923e8a9550a4",
    "read, levels and hits": "747bf31a5df80146",
    "read, sixteen levels": "f68de4bb36c4ba67",
    "read, one half": "be244240d0fb2c60",
    "read, inverted": "eeb6fbb072d32c6c",
    "read, asymmetric": "fdcbe15a0fcaab57",
    "read, asymmetric hits": "43de93dbc691ddbf",
    "read, asymmetric and inverted": "16d5a52186573b3f",
    "write": "f7efc74cca56cf20",
    "write, only switched": "251da7e5e6e34f1a",
    "die, prefer": "652f5cb7f7950987",
    "die, most prefer 1": "10e74000b2fdf24e",
    "die, all": "d553582ed020aaf5",
    "die, invert": "e548d6b262c11aa4",
    "accumulating": "1ed23ac53df2fd08",
    "die, write and read": "f1486ed3847e39e3",
}


def test_format_2_draws_what_it_always_drew() -> None:
    assert VERSION == 2, "a new format has new numbers"
    assert golden.draws() == FORMAT_2


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="names an x86 processor")
def test_another_processor_draws_the_same() -> None:
    """Compiled for AVX2 without AVX-512, in a process of its own; tests of kernels need some of this code, too."""
    environment = os.environ | {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": TARGETS["haswell"][0]}
    command = [sys.executable, "-m", "tests.memmodels.golden"]
    root = Path(__file__).parents[2]
    printed = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True, check=True)
    assert json.loads(printed.stdout) == FORMAT_2
