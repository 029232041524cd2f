"""Sampling format 1 draws these bits, for ever and everywhere.

The numbers are those of `golden.py`. If one of them has to change, saved results no longer mean what they say: raise
`memmodels.sampler.VERSION`, put the new numbers here, and say so in the release notes. Never change them otherwise.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys

import golden
import pytest

from memmodels.sampler import VERSION

FORMAT_1 = {
    "streams": "54ee41a38ee4661d",
    "read, throws": "e5e0940e84b873d7",
    "read, levels and throws": "b67d88ecfff7d496",
    "read, sixteen levels": "845774418ed0e955",
    "read, one half": "a538de3adc9845a1",
    "read, inverted": "c7e724c6b48b565f",
    "read, polar": "addab87b174f3460",
    "write": "8a00779bce00df6c",
    "write, only switched": "bff88d49477fc9ad",
    "die, prefer": "652f5cb7f7950987",
    "die, most prefer 1": "10e74000b2fdf24e",
    "die, all": "d553582ed020aaf5",
    "die, invert": "e548d6b262c11aa4",
    "accumulating": "1ed23ac53df2fd08",
    "die, write and read": "650560b0de3ba634",
}


def test_format_1_draws_what_it_always_drew() -> None:
    assert VERSION == 1, "a new format has new numbers"
    assert golden.draws() == FORMAT_1


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="names an x86 processor")
def test_another_processor_draws_the_same() -> None:
    """Compiled for AVX2 without AVX-512, in a process of its own."""
    environment = os.environ | {"NUMBA_CPU_NAME": "haswell"}
    printed = subprocess.run([sys.executable, golden.__file__], env=environment, capture_output=True, text=True, check=True)
    assert json.loads(printed.stdout) == FORMAT_1
