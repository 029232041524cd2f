"""The firmware's core, compiled for this machine: commands, bounds, order, sessions, and random bytes."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.board.native import PAGES, NativeCore
from weakcell.host.board.errors import BoardError, LinkError, VoltageRefused
from weakcell.host.board.link.frames import Decoder, encode
from weakcell.host.board.link.link import Link
from weakcell.host.board.link.protocol import PAGE, Command, Pattern, Status, convert_sensor, pattern_words
from weakcell.host.board.link.transport import FunctionTransport


@pytest.fixture
def link(core: NativeCore) -> Link:
    return Link(FunctionTransport(core))


def ask(core: NativeCore, token: int, number: int, command: int, body: bytes = b"") -> list[tuple[int, int, int, bytes]]:
    """Send one request; return (token, number, status, body) of each reply."""
    answers = Decoder().feed(core(encode(struct.pack("<BII", command, token, number) + body)))
    return [(*struct.unpack_from("<IIB", answer, 1), answer[10:]) for answer in answers]


def open_session(core: NativeCore, nonce: int, version: int = 2) -> int:
    return ask(core, 0, 0, Command.HELLO, struct.pack("<BI", version, nonce))[0][0]


def test_pages_written_are_read_and_their_crcs_told(core: NativeCore, link: Link, rng: np.random.Generator) -> None:
    contents = [rng.bytes(PAGE) for _ in range(PAGES)]
    link.write_pages(range(PAGES), contents)
    assert core.arena.tobytes() == b"".join(contents)
    assert link.read_pages(range(PAGES)) == contents
    assert link.page_crcs(0, PAGES) == [zlib.crc32(content) for content in contents]


@pytest.mark.parametrize("pattern", list(Pattern))
def test_patterns_are_the_hosts_and_flips_are_listed(
    core: NativeCore, link: Link, pattern: Pattern, rng: np.random.Generator
) -> None:
    link.fill(0, PAGES, pattern, seed=99)
    words = pattern_words(pattern, 99, 0, PAGES * 64)
    assert core.arena.tobytes() == words.tobytes()
    assert [core.pattern(pattern, 99, index) for index in range(PAGES * 64)] == words.tolist()
    assert link.compare(0, PAGES, pattern, 99) == []
    cells = np.sort(rng.choice(PAGES * PAGE * 8, 1000, replace=False))
    np.bitwise_xor.at(core.arena, cells // 8, (1 << cells % 8).astype(np.uint8))
    assert link.compare(0, PAGES, pattern, 99) == cells.tolist()
    inside = cells[(cells >= 2 * 2048) & (cells < 5 * 2048)]
    assert link.compare(2, 3, pattern, 99) == inside.tolist()


def test_flip_lists_longer_than_a_frame_and_full(core: NativeCore, link: Link) -> None:
    link.fill(0, 1, Pattern.ZEROS)
    core.arena[:PAGE] = 255
    assert link.compare(0, 1, Pattern.ZEROS) == list(range(2048))


@pytest.mark.parametrize("code", [12, 13, 255])
def test_above_nominal_is_refused_by_the_firmware(link: Link, code: int) -> None:
    with pytest.raises(VoltageRefused):
        link.pulse(code, 100)
    assert link.info().pulses == 0


@pytest.mark.parametrize(
    ("command", "body"),
    [
        (Command.WRITE, struct.pack("<H", PAGES) + bytes(PAGE)),
        (Command.READ, struct.pack("<H", 0xFFFF)),
        (Command.CRCS, struct.pack("<HB", PAGES - 1, 2)),
        (Command.CRCS, struct.pack("<HB", 0, 0)),
        (Command.CRCS, struct.pack("<HB", 0, 65)),
        (Command.FILL, struct.pack("<HHBI", 1, 0xFFFF, 0, 0)),
        (Command.FILL, struct.pack("<HHBI", 0, 1, 5, 0)),
        (Command.COMPARE, struct.pack("<HHBII", PAGES, 1, 0, 0, 0)),
        (Command.PULSE, struct.pack("<BI", 5, 4_000_001)),
    ],
)
def test_out_of_range_is_refused_and_nothing_is_touched(core: NativeCore, command: Command, body: bytes) -> None:
    token, before = open_session(core, 1), core.arena.tobytes()
    assert ask(core, token, 1, command, body)[0][1:] == (1, Status.OUT_OF_RANGE, b"")
    assert core.arena.tobytes() == before


def test_wrong_lengths_and_unknown_commands(core: NativeCore) -> None:
    token = open_session(core, 1)
    assert ask(core, token, 1, Command.READ, b"\0")[0][2] == Status.BAD_LENGTH
    assert ask(core, token, 2, 77)[0][2] == Status.UNKNOWN_COMMAND
    assert ask(core, 0, 0, Command.HELLO, struct.pack("<BI", 9, 5))[0][2] == Status.BAD_VERSION


def test_a_repeated_number_is_answered_and_not_executed(core: NativeCore) -> None:
    token = open_session(core, 1)
    pulse = struct.pack("<BI", 5, 10)
    first = ask(core, token, 1, Command.PULSE, pulse)
    assert ask(core, token, 1, Command.PULSE, pulse) == first
    assert Link(FunctionTransport(core)).info().pulses == 1


def test_a_late_duplicate_of_a_write_never_overwrites(core: NativeCore) -> None:
    token = open_session(core, 1)
    for number in range(1, 8):
        ask(core, token, number, Command.WRITE, struct.pack("<H", 0) + bytes([number]) * PAGE)
    for number in range(1, 8):
        ask(core, token, number, Command.WRITE, struct.pack("<H", 0) + bytes([number]) * PAGE)
    assert set(core.arena[:PAGE]) == {7}
    old = token
    token = open_session(core, 2)
    assert ask(core, old, 1, Command.WRITE, struct.pack("<H", 0) + bytes(PAGE))[0][2] == Status.BAD_SESSION
    assert token != old
    assert set(core.arena[:PAGE]) == {7}


def test_a_gap_names_the_number_that_is_missing(core: NativeCore) -> None:
    token = open_session(core, 1)
    assert ask(core, token, 3, Command.INFO)[0][1:] == (3, Status.GAP, struct.pack("<I", 1))


def test_a_board_that_restarted_ends_the_session(core: NativeCore, link: Link) -> None:
    link.fill(0, 1, Pattern.ONES)
    core.restart()
    with pytest.raises(LinkError, match="reset"):
        link.read_pages([0])
    assert len(link.read_pages([0])) == 1


def test_an_unplugged_board_is_a_link_error() -> None:
    with pytest.raises(LinkError, match="nothing answered"):
        Link(FunctionTransport(lambda data: b"")).info()


def test_another_version_is_refused() -> None:
    def board(data: bytes) -> bytes:
        asked = Decoder().feed(data)[0]
        return encode(bytes([asked[0] | 0x80]) + bytes(8) + bytes([Status.BAD_VERSION, 3]))

    with pytest.raises(BoardError, match="version 3"):
        Link(FunctionTransport(board)).info()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=300)
@given(data=st.lists(st.one_of(st.binary(max_size=700), st.binary(min_size=1, max_size=270).map(encode)), max_size=6))
def test_no_bytes_break_the_core(core: NativeCore, data: list[bytes]) -> None:
    for portion in data:
        core(portion)
    assert Link(FunctionTransport(core)).info().regulator_code == 11


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=300)
@given(command=st.integers(0, 255), body=st.binary(max_size=261))
def test_no_request_breaks_the_core(core: NativeCore, command: int, body: bytes) -> None:
    core.restart()
    token = open_session(core, 7)
    answers = ask(core, token, 1, command, body)
    assert len(answers) == 1
    assert Link(FunctionTransport(core)).info().regulator_code == 11


def test_an_interrupted_transfer_ends_its_session(core: NativeCore) -> None:
    """A number that may have been executed is not used again: its next request would be answered and not executed."""
    interrupt = True

    def board(data: bytes) -> bytes:
        answer = core(data)
        if interrupt and len(data) > PAGE:
            raise KeyboardInterrupt
        return answer

    link = Link(FunctionTransport(board))
    with pytest.raises(KeyboardInterrupt):
        link.write_pages([0], [b"a" * PAGE])
    interrupt = False
    link.write_pages([0], [b"b" * PAGE])
    assert core.arena[:PAGE].tobytes() == b"b" * PAGE
    assert link.counters.sessions == 2


def test_old_hosts_get_the_records_of_their_version(core: NativeCore) -> None:
    for version, pulse, info in ((1, 17, 46), (2, 31, 52)):
        token = open_session(core, 5, version)
        assert len(ask(core, token, 1, Command.PULSE, struct.pack("<BI", 5, 10))[0][3]) == pulse
        assert len(ask(core, token, 2, Command.CPU_PULSE, struct.pack("<BI", 5, 10))[0][3]) == pulse + 1
        assert len(ask(core, token, 3, Command.INFO)[0][3]) == info


def test_this_host_speaks_to_old_firmware(core: NativeCore) -> None:
    """The old firmware: version 1 alone, and no command 10."""

    def board(data: bytes) -> bytes:
        asked = Decoder().feed(data)
        if asked and asked[0][0] == Command.HELLO and asked[0][9] != 1:
            return encode(bytes([asked[0][0] | 0x80]) + bytes(8) + bytes([Status.BAD_VERSION, 1]))
        return core(data)

    link = Link(FunctionTransport(board))
    assert (link.board.version, link.pulse(5, 10).counts, link.info().celsius) == (1, (0, 0, 0), None)


def test_the_same_nonce_goes_on_with_its_session(core: NativeCore) -> None:
    token = open_session(core, 3)
    assert ask(core, token, 1, Command.INFO)[0][2] == Status.OK
    assert open_session(core, 3) == token
    assert ask(core, token, 2, Command.INFO)[0][2] == Status.OK
    assert ask(core, token, 4, Command.INFO)[0][3] == struct.pack("<I", 3)


def test_short_contents_are_good_frames_without_an_answer(core: NativeCore) -> None:
    link = Link(FunctionTransport(core))
    before = link.info().frames_good
    assert core(encode(b"12345678")) == b""
    assert link.info().frames_good == before + 2


@pytest.mark.parametrize(("volts", "celsius"), [(0.706, 27.0), (0.706 - 0.001721 * 10, 37.0)])
def test_the_sensor_follows_the_data_sheets_line(volts: float, celsius: float) -> None:
    conversions = 16 * round(volts / 3.3 * 4096)
    assert convert_sensor(conversions) == pytest.approx(celsius, abs=0.25)
    assert convert_sensor(0) is None
