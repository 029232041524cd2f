"""Images computed by the firmware's INFER against the emulator's engine, at flip rates from 0 to 10 %: how many differ?

python -m tests.board.inference --on rp2350 --images 2e4    a virtual board: the shipped image, weights that were at a low voltage
python -m tests.board.inference --on rp2040 --images 2e4
python -m tests.board.inference --on host --images 1e5      no chip: the same C source, compiled for this machine
python -m tests.board.inference --on rp2350 --instructions  instructions of an image of the shipped networks

Each trial has cells of its own, and images of random pixels. One trial in `--digits` is of digits-bnn, the others are of random
networks. On a board the flips are those of its cells; on the host, a memory model makes them.
"""

from __future__ import annotations

import argparse
import struct
import tempfile
import time
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np

from tests.board.binary_networks import lay_out, random_binary_network
from tests.board.native import NativeCore
from tests.emulator.small import pixels
from weakcell.emulator import compile_plan, deploy, infer, outputs_under_faults, place
from weakcell.emulator.engine.executor import check_inputs
from weakcell.emulator.faults.run import chunks_under_faults
from weakcell.emulator.importer import load
from weakcell.emulator.ir.network import Network
from weakcell.host.board.errors import BoardError
from weakcell.host.board.inference.compute import BoardComputer
from weakcell.host.board.inference.program import split_network
from weakcell.host.board.inference.resident import ResidentBoard
from weakcell.host.board.link.link import Link
from weakcell.host.board.link.protocol import PAGE
from weakcell.host.board.memory.session import PortSession
from weakcell.host.board.memory.spec import technology_of
from weakcell.host.board.virtual.faults import make_retention_fault
from weakcell.host.board.virtual.virtual_board import VirtualBoard
from weakcell.memmodels.catalogue import open_memory, parse_spec

RATES = (0.0, 0.001, 0.003, 0.01, 0.03, 0.1)
DIGITS = Path(__file__).parents[2] / "host" / "shipped" / "digits_bnn.onnx"


@dataclass
class Comparison:
    """What was compared.

    Attributes:
        trials, images, bits, flips: how many; bits and flips of weights.
        different: images whose outputs differ.
    """

    trials: int = 0
    images: int = 0
    bits: int = 0
    flips: int = 0
    different: int = 0


def cells(rate: float) -> str:
    """Return the SPEC of cells that lose their bit at a rate."""
    return f"uniform:ber={rate},cells=invert,lifetime=die"


def draw_images(network: Network, images: int, seed: int) -> dict[str, np.ndarray]:
    """Return random pixels: 0 to 16 for digits-bnn, as its data, and any integers for other networks."""
    if network.name != "digits_bnn":
        return pixels(network, images, seed)
    return {"input": np.random.default_rng(seed).integers(0, 17, (images, 1, 8, 8)).astype(np.float32)}


def compare_on_host(core: NativeCore, network: Network, rate: float, images: int, seed: int, result: Comparison) -> None:
    """Run one trial with the core compiled for this machine, and add it to a result."""
    plan, placement, inputs = compile_plan(network), place(network, parse_spec(cells(rate))), draw_images(network, images, seed)
    memory = open_memory(parse_spec(cells(rate)), seed)
    deployment, flips = deploy(plan, placement, memories=[memory]), {}
    (name,) = network.outputs
    expected = outputs_under_faults(plan, inputs, deployment)[name].reshape(images, -1)
    for stored in deployment.all_slots:
        back = np.empty_like(stored.region.written)
        memory.read(stored.region, stored.region.key, back)
        flips[stored.slot.tensor] = back ^ stored.region.written
    placed = lay_out(network, flips)
    program, found = placed.program, placed.found
    core.arena[: len(placed.data)] = np.frombuffer(placed.data, np.uint8)
    request = struct.pack("<HHI", program.page, program.words.size, placed.crc)
    codes = infer(plan, inputs, (found.input.name,))[found.input.name].astype(np.int64) - found.input.zero_point
    scale = network.layers[-1].scale.astype(np.float32)  # type: ignore[attr-defined]
    for image in range(images):
        data = program.pack_input(codes[image])
        core.arena[program.input_page * PAGE :][: len(data)] = np.frombuffer(data, np.uint8)
        sums = np.frombuffer(core.infer(request)[2:], "<i4")
        result.different += not np.array_equal(sums.astype(np.float32) * scale, expected[image])
    result.trials += 1
    result.images += images
    result.bits += sum(deployment.tally.bits_read.values())
    result.flips += sum(deployment.tally.flips.values())


def compare_on_board(link: Link, network: Network, rate: float, images: int, seed: int, result: Comparison) -> None:
    """Run one trial on a virtual board, and add it to a result."""
    board = link.transport
    assert isinstance(board, VirtualBoard)
    board.on_voltage = make_retention_fault(cells(rate), seed)
    plan, inputs = compile_plan(network), draw_images(network, images, seed)
    conditions = technology_of(f"virtual:{board.type.name}").resolve({"vdd": board.type.regulator.minimum_v, "dwell_s": 0.001})
    memory = ResidentBoard(PortSession("the virtual board", _link=link), conditions)
    deployment = deploy(plan, place(network, parse_spec("uniform")), memories=[memory])
    computer = BoardComputer(plan, split_network(network), memory, check_inputs(plan, inputs))
    try:
        for _ in computer.outputs(chunks_under_faults(plan, inputs, deployment)):
            pass
    except BoardError as error:
        print(error)
        result.different += 1
    arena = board.arena[: memory.readback[0].size]
    assert np.array_equal(arena, memory.readback[0]), "the read-back is what the cells hold"
    result.trials += 1
    result.images += memory.session.counters.images_computed
    result.bits += sum(deployment.tally.bits_read.values())
    result.flips += sum(deployment.tally.flips.values())


def count_instructions(chip: str, network: Network) -> int:
    """Return the instructions that a virtual board executes from the request for an image to its answer."""
    board, placed = VirtualBoard(chip, image="flash"), lay_out(network)
    link, program, executed = Link(board), placed.program, count()
    board.sram[: len(placed.data)] = np.frombuffer(placed.data, np.uint8)
    link.info()
    engine, unicorn = board.machine._engine, board.machine._unicorn
    engine.hook_add(unicorn.UC_HOOK_CODE, lambda *_: next(executed))
    engine.ctl_flush_tb()
    link.infer(program.page, program.words.size, placed.crc, 1.0)
    return next(executed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--on", choices=("host", "rp2040", "rp2350"), default="host")
    parser.add_argument("--images", type=float, default=1e4)
    parser.add_argument("--each", type=int, default=100, help="images of a trial")
    parser.add_argument("--digits", type=int, default=8, help="one trial in so many is of digits-bnn")
    parser.add_argument("--first", type=int, default=0, help="seed of the first trial")
    parser.add_argument("--instructions", action="store_true", help="only count them, for one image")
    options = parser.parse_args()
    if options.instructions:
        for path in (DIGITS, DIGITS.with_name("fashion_bnn.onnx")):
            print(f"{path.stem} on a virtual {options.on}: {count_instructions(options.on, load(path)):,} instructions", flush=True)
        return
    results, start = {rate: Comparison() for rate in RATES}, time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        core = NativeCore(Path(folder), pages=1024) if options.on == "host" else None
        link = None if core else Link(VirtualBoard(options.on, image="flash"))
        for seed in count(options.first):
            rate = RATES[sum(divmod(seed, options.digits)) % len(RATES)]
            size = (10, 40) if core else (5, 16)  # chips are emulated, which takes its time
            network = random_binary_network(seed, *size) if seed % options.digits else load(DIGITS)
            if core:
                compare_on_host(core, network, rate, options.each, seed, results[rate])
            elif link:
                compare_on_board(link, network, rate, options.each, seed, results[rate])
            if sum(each.images for each in results.values()) >= options.images:
                break
    what = "C source compiled for this machine, no chip" if options.on == "host" else f"virtual {options.on}, flash image"
    print(f"{what}: {sum(each.images for each in results.values())} images, {time.process_time() - start:.0f} s of CPU")
    for rate, each in results.items():
        print(f"rate {rate:g}: {vars(each)}")


if __name__ == "__main__":
    main()
