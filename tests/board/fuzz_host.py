"""Fuzz the host: its frame decoder, and a link whose board replies anything in valid frames.

python -m tests.board.fuzz_host --inputs 1e6

A call may return, or raise an error of `weakcell.host.board.errors`. Anything else is a crash and ends the program with its
traceback.
"""

from __future__ import annotations

import argparse
import struct
from collections.abc import Callable
from random import Random

from weakcell.host.board.characterization.experiments import Experiment, ReportMode, Setting, run_experiment
from weakcell.host.board.errors import BoardError
from weakcell.host.board.link.frames import MAX_CONTENT, Decoder, encode
from weakcell.host.board.link.link import Link
from weakcell.host.board.link.protocol import Command, Pattern, Status, reply_lengths
from weakcell.host.board.link.transport import FunctionTransport

_HELD_MOST = 2 * MAX_CONTENT


def spoil(random: Random, data: bytes) -> bytes:
    """Damage a frame at random, or leave it."""
    kind = random.randrange(6)
    if kind == 0:
        return random.randbytes(random.randrange(400))
    if kind == 1:
        return data[: random.randrange(len(data) + 1)]
    if kind == 2:
        at = random.randrange(len(data))
        return data[:at] + random.randbytes(random.randrange(1, 9)) + data[at:]
    if kind == 3:
        changed = bytearray(data)
        changed[random.randrange(len(data))] = random.randrange(256)
        return bytes(changed)
    return data


def fuzz_decoder(inputs: int, seed: int = 1) -> int:
    """Feed damaged frames to a decoder; return the number of contents, each of which must encode again to itself."""
    random, decoder, found = Random(seed), Decoder(), 0
    for _ in range(inputs):
        content = random.randbytes(random.randrange(1, MAX_CONTENT + 1) if random.randrange(4) == 0 else random.randrange(1, 24))
        for whole in decoder.feed(spoil(random, encode(content))):
            found += 1
            assert 0 < len(whole) <= MAX_CONTENT
            assert Decoder().feed(encode(whole)) == [whole]
        assert len(decoder._pending) <= _HELD_MOST
    return found


def hostile(random: Random) -> Callable[[bytes], bytes]:
    """Return a board that replies with any status and any body, mostly under the right token and number."""
    asked = Decoder()

    def answer(data: bytes) -> bytes:
        out = b""
        for content in asked.feed(data):
            command, token, number = struct.unpack_from("<BII", content)
            if command == Command.HELLO and random.randrange(8):
                body = content[9:14] + struct.pack("<BIBIIBBI", 2, 0x3F, random.randrange(9), 0, 1 << 16, 11, 0, 0)
                out += encode(struct.pack("<BIIB", command | 0x80, 7, 0, Status.OK) + body)
                continue
            status = random.choice([Status.OK] * 60 + list(Status) + [99])
            right = random.choice(reply_lengths(Command(command), content[9:]))
            size = random.choice([right] * 9 + [0, 5, random.randrange(270)])
            body = random.randbytes(size) if random.randrange(2) else bytes(size)
            who = random.choice([token] * 30 + [1]), random.choice([number] * 30 + [number + 1])
            out += encode(struct.pack("<BIIB", (command | 0x80) ^ (random.randrange(60) == 0), *who, status) + body)
        return spoil(random, out) if out and random.randrange(20) == 0 else out

    return answer


def fuzz_link(calls: int, seed: int = 1) -> int:
    """Call everything on a hostile board; return how many calls returned."""
    random, returned = Random(seed), 0
    link = Link(FunctionTransport(hostile(random)), retries=2)
    requests: list[Callable[[], object]] = [
        lambda: link.info(),
        lambda: link.write_pages(range(5), [bytes(256)] * 5),
        lambda: link.read_pages(range(3)),
        lambda: link.page_crcs(0, 70),
        lambda: link.fill(0, 2, Pattern.ONES),
        lambda: link.compare(0, 2, Pattern.ONES),
        lambda: link.pulse(5, 10),
        lambda: link.sleep(5, 10),
        lambda: link.while_low(Command.READ_LOW, 5, 10, bytes(2)),
        lambda: run_experiment(link, Setting(random.choice(list(Experiment)), 5, 10), Pattern.ZEROS, 0, range(2),
                               random.choice(list(ReportMode))),
    ]  # fmt: skip
    for _ in range(calls):
        try:
            random.choice(requests)()
            returned += 1
        except BoardError:
            pass
    return returned


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=float, default=1e5)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    inputs = int(options.inputs)
    print(f"decoder: {inputs} inputs, {fuzz_decoder(inputs, options.seed)} contents, no crash")
    print(f"link: {inputs // 10} calls, {fuzz_link(inputs // 10, options.seed)} returned, no crash")


if __name__ == "__main__":
    main()
