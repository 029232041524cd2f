"""Transfers over a cable that damages frames, against the firmware's core in this process: does wrong data ever pass?

python tests/board/damage.py --frames 1e7         the figures of the README; takes minutes
python tests/board/damage.py --frames 1e5 --check 8    the same with 8 bits of the CRC: must report accepted errors
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parent))

from native import PAGES, NativeCore

from weakcell.host.board.errors import BoardError, LinkError
from weakcell.host.board.link.frames import Decoder
from weakcell.host.board.link.link import Link
from weakcell.host.board.link.transport import FunctionTransport, NoisyTransport

_PAGES_PER_TRANSFER = 8


@dataclass
class Outcome:
    """damaged: frames that noise touched. right, link_errors, other_errors: how transfers ended. wrong: bad data accepted"""

    damaged: int = 0
    transfers: int = 0
    right: int = 0
    link_errors: int = 0
    other_errors: int = 0
    wrong: int = 0


def batter(core: NativeCore, frames: int, rate: float = 0.25, seed: int = 1, check: int = 0xFFFFFFFF, retries: int = 30) -> Outcome:
    """Write and read pages until `frames` frames have been damaged. Every transfer writes new data over the old."""
    random, outcome = Random(seed), Outcome()
    noisy = NoisyTransport(FunctionTransport(core), rate, seed)
    link = Link(noisy, retries=retries, decoder=Decoder(check))
    while noisy.damaged < frames:
        pages = random.sample(range(PAGES), _PAGES_PER_TRANSFER)
        contents = [random.randbytes(256) for _ in pages]
        outcome.transfers += 1
        try:
            link.write_pages(pages, contents)
            if link.read_pages(pages) == contents:
                outcome.right += 1
            else:
                outcome.wrong += 1
        except LinkError:
            outcome.link_errors += 1
        except BoardError:
            outcome.other_errors += 1
    outcome.damaged = noisy.damaged
    return outcome


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=float, default=1e5)
    parser.add_argument("--rate", type=float, default=0.25)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--check", type=int, default=32, help="bits of the CRC that both sides look at")
    given = parser.parse_args()
    check = (1 << given.check) - 1
    with tempfile.TemporaryDirectory() as folder:
        begun = time.monotonic()
        outcome = batter(NativeCore(Path(folder), check), int(given.frames), given.rate, given.seed, check)
        print(f"{outcome}, {time.monotonic() - begun:.0f} s")


if __name__ == "__main__":
    main()
