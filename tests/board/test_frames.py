"""Frames: host and firmware agree, damaged frames are dropped, and a CRC of 8 bits lets errors pass."""

from __future__ import annotations

import random
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.board.damage import infer_under_noise, transfer_under_noise
from tests.board.native import CORE, HERE, NativeCore, compiler
from weakcell.host.board.link.frames import MAX_CONTENT, Decoder, encode
from weakcell.host.board.link.transport import FunctionTransport

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


def test_nine_tenths_of_the_line_rate() -> None:
    """Payload is at least 90 % of the line rate, computed from frame sizes at 921600 baud, 8N1, worst contents included.

    Requests and replies travel in opposite directions at the same time. Four outstanding requests cover a turn-around of 9 ms.
    """
    header, reply_header, page_number = 9, 10, 2
    bytes_per_s = 921_600 / 10
    for head in (header, reply_header):
        for contents in (bytes(256), b"\xff" * 256, bytes(range(256))):
            frame = len(encode(b"\xff" * (head + page_number) + contents))
            rate = bytes_per_s * 256 / frame
            assert rate >= 0.9 * bytes_per_s
            assert 3 * frame / bytes_per_s > 0.0089, "what is under way while the first of four is answered"


def test_no_wrong_data_over_a_bad_cable(core: NativeCore) -> None:
    """A seeded share of `python -m tests.board.damage`; with as many frames, a check of 8 bits accepts some wrong ones."""
    outcome = transfer_under_noise(FunctionTransport(core), 40_000)
    assert outcome.damaged >= 40_000
    assert (outcome.wrong, outcome.other_errors) == (0, 0)
    assert outcome.right + outcome.link_errors == outcome.transfers
    assert outcome.right > 1000


def test_no_wrong_sums_over_a_bad_cable(core: NativeCore) -> None:
    """A seeded share of `python -m tests.board.damage --infer`."""
    outcome = infer_under_noise(FunctionTransport(core), 5_000)
    assert (outcome.wrong, outcome.other_errors) == (0, 0)
    assert outcome.right + outcome.link_errors == outcome.transfers
    assert outcome.right > 1000


def test_transfers_that_cannot_end_right_end_with_link_errors(core: NativeCore) -> None:
    outcome = transfer_under_noise(FunctionTransport(core), 20_000, rate=0.7, retries=2)
    assert outcome.link_errors > 0
    assert (outcome.wrong, outcome.other_errors) == (0, 0)


def test_the_same_harness_reports_errors_that_an_8_bit_check_accepts(tmp_path: Path) -> None:
    if compiler() is None:
        pytest.skip("no C compiler: install gcc, or pip install ziglang")
    outcome = transfer_under_noise(FunctionTransport(NativeCore(tmp_path, 0xFF)), 30_000, check=0xFF)
    assert outcome.wrong > 0


def test_the_core_survives_fuzzing(tmp_path: Path) -> None:
    """Short form of the libFuzzer run in tests/fuzzing/firmware.c; the program generates its own inputs."""
    if shutil.which("gcc") is None:
        pytest.skip("no gcc with sanitizers: apt install gcc")
    sources = [str(HERE.parent / "fuzzing" / "firmware.c"), str(HERE / "native.c"), *map(str, sorted(CORE.glob("*.c")))]
    flags = ["-DSTANDALONE", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    subprocess.run(["gcc", *flags, *sources, "-o", str(tmp_path / "fuzz")], check=True, capture_output=True, text=True)
    done = subprocess.run([str(tmp_path / "fuzz"), "20000", "3"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "20000 inputs" in done.stdout
