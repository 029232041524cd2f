"""Damaged models again, led by the branches they reach: libFuzzer through atheris, with the mutations of `fuzz.py`.

    pip install -e '.[test,fuzz]' && python -m tests.emulator.fuzz_guided --minutes 10

A crash, or an input that takes too long or too much memory, is written to tests/emulator/corpus and ends the run with an error.
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from pathlib import Path

import atheris
import numpy as np

with atheris.instrument_imports(include=["weakcell.emulator.importer", "weakcell.emulator.onnx_ops"]):
    pass

from tests.emulator import fuzz


def try_one(data: bytes) -> None:
    """Any exception that is not of the error tree goes to libFuzzer, which keeps the input."""
    fuzz.tried(data)


def mutate(data: bytes, most: int, seed: int) -> bytes:
    """Mostly the damage of `fuzz.py`, which knows what a model says; else libFuzzer's own."""
    rng = np.random.default_rng(seed)
    if data and rng.integers(4):
        try:
            return fuzz.damaged(data, rng)[:most]
        except Exception:  # bytes that are no protobuf: only libFuzzer knows what to do with them
            return bytes(atheris.Mutate(data, most))
    return bytes(atheris.Mutate(data, most))


def main() -> None:
    parser = argparse.ArgumentParser(description="Fuzz the importer, guided by coverage.")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        for name in fuzz.SEEDS:
            Path(folder, name).write_bytes(fuzz.seed_bytes(name))
        limits = [f"-max_total_time={round(60 * options.minutes)}", f"-timeout={round(fuzz.SECONDS)}", f"-seed={options.seed}"]
        found = [f"-artifact_prefix={fuzz.CORPUS}/", "-print_final_stats=1", "-rss_limit_mb=2048", "-max_len=65536"]
        atheris.Setup(["fuzz_guided", folder, *limits, *found], try_one, custom_mutator=mutate)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
