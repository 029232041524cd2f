"""Damaged models: a corpus of all that once broke the importer, and a few thousand new ones (`fuzz.py` makes more)."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.emulator import fuzz
from weakcell.emulator.importer import load


def soon_answered(data: bytes) -> None:
    """Demand an answer within `fuzz.SECONDS` of CPU time; the first of two tries may compile kernels."""
    for last in (False, True):
        start = time.process_time()
        assert fuzz.tried(data) in ("typed error", "loaded", "no protobuf")
        if time.process_time() - start < fuzz.SECONDS:
            return
        assert not last


@pytest.mark.parametrize("name", fuzz.SEEDS)
def test_seeds_are_valid(name: str) -> None:
    onnx.checker.check_model(fuzz.SEEDS[name]())
    assert fuzz.tried(fuzz.seed_bytes(name)) == "loaded"
    assert load(fuzz.SEEDS[name]()).weights


@pytest.mark.parametrize("path", sorted(fuzz.CORPUS.glob("*.onnx")), ids=lambda path: path.stem)
@pytest.mark.filterwarnings("ignore")
def test_the_corpus(path: Path) -> None:
    before = fuzz.peak()
    soon_answered(path.read_bytes())
    assert fuzz.peak() - before < fuzz.BYTES


@settings(max_examples=1500)
@given(name=st.sampled_from(sorted(fuzz.SEEDS)), seed=st.integers(0, 1 << 32))
@pytest.mark.filterwarnings("ignore")
def test_damage_never_leaves_the_error_tree(name: str, seed: int) -> None:
    soon_answered(fuzz.damaged(fuzz.seed_bytes(name), np.random.default_rng(seed)))


@settings(max_examples=400)
@given(data=st.binary(max_size=200))
def test_bytes_that_are_no_model(data: bytes) -> None:
    assert fuzz.tried(data) in ("typed error", "no protobuf")
