"""Frames: host and firmware agree, damage is dropped, and an 8-bit check does let errors through."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from damage import batter
from hypothesis import given
from hypothesis import strategies as st
from native import NativeCore, compiler

from host.board.frames import MAX_CONTENT, Decoder, encode

contents = st.binary(min_size=1, max_size=MAX_CONTENT)


@given(st.lists(contents, max_size=6), st.randoms(use_true_random=False))
def test_round_trip_in_any_portions(sent: list[bytes], rng: random.Random) -> None:
    stream, decoder, found = b"".join(map(encode, sent)), Decoder(), []
    while stream:
        size = rng.randint(1, 40)
        found += decoder.feed(stream[:size])
        stream = stream[size:]
    assert found == sent
    assert decoder.damaged == 0


@given(st.binary(max_size=600), contents)
def test_after_any_noise_the_next_frame_but_one_is_whole(noise: bytes, content: bytes) -> None:
    decoder = Decoder()
    decoder.feed(noise)
    assert decoder.feed(encode(content))[-1:] == [content]


@given(contents, st.data())
def test_one_to_four_flipped_bits_are_never_accepted(content: bytes, data: st.DataObject) -> None:
    frame = bytearray(encode(content))
    for bit in data.draw(st.sets(st.integers(0, len(frame) * 8 - 1), min_size=1, max_size=4)):
        frame[bit // 8] ^= 1 << bit % 8
    assert all(found == content for found in Decoder().feed(bytes(frame) + b"\0"))


def test_a_frame_without_end_is_bounded() -> None:
    decoder = Decoder()
    for _ in range(100):
        assert decoder.feed(b"\x55" * 1000) == []
    assert (decoder.oversize, decoder.damaged) == (1, 1)
    assert decoder.feed(b"\0" + encode(b"next")) == [b"next"]


@pytest.mark.parametrize("length", [0, MAX_CONTENT + 1])
def test_lengths_are_bounded(length: int) -> None:
    if length:
        with pytest.raises(ValueError):
            encode(bytes(length))
    else:
        assert Decoder().feed(encode(b"")) == []


def test_no_wrong_data_over_a_bad_cable(core: NativeCore) -> None:
    outcome = batter(core, 120_000)
    assert outcome.damaged >= 100_000
    assert (outcome.wrong, outcome.other_errors) == (0, 0)
    assert outcome.right + outcome.link_errors == outcome.transfers
    assert outcome.right > 1000


def test_transfers_that_cannot_end_right_end_with_link_errors(core: NativeCore) -> None:
    outcome = batter(core, 20_000, rate=0.7, retries=2)
    assert outcome.link_errors > 0
    assert (outcome.wrong, outcome.other_errors) == (0, 0)


def test_the_same_harness_reports_errors_that_an_8_bit_check_accepts(tmp_path: Path) -> None:
    if compiler() is None:
        pytest.skip("no C compiler: install gcc, or pip install ziglang")
    outcome = batter(NativeCore(tmp_path, 0xFF), 60_000, check=0xFF)
    assert outcome.wrong > 0
