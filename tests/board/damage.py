"""Transfer pages over a cable that damages frames, to the firmware's core in this process: is wrong data ever accepted?

python -m tests.board.damage --frames 1e7                 takes minutes
python -m tests.board.damage --frames 1e5 --check 8       the same with 8 bits of the CRC: must report accepted errors
python -m tests.board.damage --frames 1e6 --infer         images computed by the core: their input, INFER, and its sums
python -m tests.board.damage --frames 1e4 --usb rp2350    the flash image over USB; the bus loses packets, too, and is reset
python -m tests.board.damage --frames 1e6 --usb native    the same source of driver and core, compiled for this machine: no chip
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import cast

from tests.board.binary_networks import lay_out
from tests.board.native import PAGES, NativeCore, NativeUsbBoard
from tests.emulator.reference import evaluate
from tests.emulator.small import pixels, small_bnn
from weakcell.host.board.errors import BoardError, LinkError
from weakcell.host.board.link.frames import Decoder
from weakcell.host.board.link.link import Link
from weakcell.host.board.link.protocol import PAGE
from weakcell.host.board.link.reconnecting import ReconnectingTransport
from weakcell.host.board.link.transport import FunctionTransport, NoisyTransport, Transport
from weakcell.host.board.virtual.usb_port import UsbCable
from weakcell.host.board.virtual.virtual_board import VirtualBoard

_PAGES_PER_TRANSFER = 8


@dataclass
class Outcome:
    """How transfers ended.

    Attributes:
        damaged: frames that noise touched.
        transfers: all.
        right, link_errors, other_errors: how many ended so.
        wrong: transfers whose wrong data was accepted.
    """

    damaged: int = 0
    transfers: int = 0
    right: int = 0
    link_errors: int = 0
    other_errors: int = 0
    wrong: int = 0


def transfer_under_noise(
    inside: Transport, frames: int, rate: float = 0.25, seed: int = 1, check: int = 0xFFFFFFFF, retries: int = 30
) -> Outcome:
    """Write and read pages until `frames` frames were damaged; each transfer writes new data over the old."""
    random, outcome = Random(seed), Outcome()
    noisy = NoisyTransport(inside, rate, seed)
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


def infer_under_noise(
    inside: Transport, frames: int, rate: float = 0.25, seed: int = 1, check: int = 0xFFFFFFFF, retries: int = 30
) -> Outcome:
    """Let the board compute images of a small network until `frames` frames were damaged; each has other pixels."""
    random, outcome, network = Random(seed), Outcome(), small_bnn()
    placed, inputs = lay_out(network), pixels(network, 256, seed)["x"].astype(int)
    sums = evaluate(network, {"x": inputs})[placed.found.sums.name].reshape(len(inputs), -1)
    Link(inside).write_pages(range(len(placed.data) // PAGE), _pages(placed.data))
    noisy, program = NoisyTransport(inside, rate, seed), placed.program
    link = Link(noisy, retries=retries, decoder=Decoder(check))
    while noisy.damaged < frames:
        image = random.randrange(len(inputs))
        data = _pages(program.pack_input(inputs[image]))
        outcome.transfers += 1
        try:
            link.write_pages(range(program.input_page, program.input_page + len(data)), data)
            winner, answer = link.infer(program.page, program.words.size, placed.crc, 0.0)
            right = winner == sums[image].argmax() and answer == sums[image].astype("<i4").tobytes()
            outcome.right += int(right)
            outcome.wrong += int(not right)
        except LinkError:
            outcome.link_errors += 1
        except BoardError:
            outcome.other_errors += 1
    outcome.damaged = noisy.damaged
    return outcome


def _pages(data: bytes) -> list[bytes]:
    return [data[at : at + PAGE] for at in range(0, len(data), PAGE)]


def connect_bad_bus(board: VirtualBoard | NativeUsbBoard, loss: float, resets: float, seed: int) -> Transport:
    """Return the USB of a board on a bus that loses packets; resets: share of the looks at it that reset the bus."""
    cable, random = UsbCable(cast(VirtualBoard, board), loss, seed), Random(seed)
    controller = cable.board.machine.usb
    look = controller.on_look

    def look_or_reset() -> None:
        if random.random() < resets:
            cable.host.reset_bus()
        assert look is not None
        look()

    controller.on_look = look_or_reset
    return ReconnectingTransport("a test's board", cable.open, pause=lambda _: None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=float, default=1e5)
    parser.add_argument("--rate", type=float, default=0.25)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--check", type=int, default=32, help="bits of the CRC that both sides look at")
    parser.add_argument("--infer", action="store_true", help="compute images instead of writing and reading pages")
    parser.add_argument("--usb", metavar="CHIP", help="a virtual board over USB instead of the core alone; native: see above")
    parser.add_argument("--loss", type=float, default=0.02, help="of USB packets")
    parser.add_argument("--resets", type=float, default=1e-5, help="of the USB bus, for each transaction")
    options = parser.parse_args()
    check = (1 << options.check) - 1
    with tempfile.TemporaryDirectory() as folder:
        start = time.monotonic()
        if options.usb:
            native = options.usb == "native"
            board = NativeUsbBoard(Path(folder), check=check) if native else VirtualBoard(options.usb, image="flash")
            inside = connect_bad_bus(board, options.loss, options.resets, options.seed)
        else:
            inside = FunctionTransport(NativeCore(Path(folder), check))
        run = infer_under_noise if options.infer else transfer_under_noise
        outcome = run(inside, int(options.frames), options.rate, options.seed, check)
        print(f"{outcome}, {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
