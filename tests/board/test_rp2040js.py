"""The RP2040 images on a second, independent emulator: the same flips, the timing of the DMA pulse, the start from flash, USB.

Needs `npm install rp2040js@1.4.1` in some folder, and WEAKCELL_RP2040JS=FOLDER/node_modules/rp2040js; skipped otherwise. `.ci/run`
does that where there is npm.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.board.binary_networks import lay_out
from tests.emulator.reference import evaluate
from tests.emulator.small import pixels, small_bnn
from weakcell.host.board.errors import VoltageRefused
from weakcell.host.board.firmware.build import image_path
from weakcell.host.board.link.link import Link
from weakcell.host.board.link.protocol import PAGE, Command, Pattern, pattern_words
from weakcell.host.board.link.transport import FunctionTransport

SCRIPT = Path(__file__).with_name("rp2040js.mjs")


@pytest.fixture(params=["ram", "flash"])
def emulator(request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[str]]:
    module = Path(os.environ.get("WEAKCELL_RP2040JS", "-")) / "dist" / "esm" / "index.js"
    node = shutil.which("node")
    if node is None or not module.exists():
        pytest.skip("needs node, and WEAKCELL_RP2040JS=…/node_modules/rp2040js (npm install rp2040js@1.4.1)")
    command = [node, str(SCRIPT), str(image_path("rp2040", request.param)), str(module)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def say(process: subprocess.Popen[str], line: str) -> str:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{line}\n")
    process.stdin.flush()
    return process.stdout.readline().strip()


def test_the_dma_pulse_and_its_flips(emulator: subprocess.Popen[str]) -> None:
    link = Link(FunctionTransport(lambda data: bytes.fromhex(say(emulator, data.hex()))), retries=2)
    assert (link.board.chip, link.board.arena_bytes) == ("rp2040", 256 * 1024)
    link.fill(0, 64, Pattern.RANDOM, 1)
    assert link.compare(0, 64, Pattern.RANDOM, 1) == []
    pulse = link.pulse(7, 1000)
    assert (pulse.low_code, pulse.after_code, pulse.image_crc) == (7, 11, link.info().image_crc)
    assert pulse.counts == (32 * 6500, 32 * 3250, 32 * 6500)
    assert link.compare(0, 64, Pattern.RANDOM, 1) == [byte * 8 + (byte & 7) for byte in range(0, 64 * 256, 997)]
    pulse, page = link.while_low(Command.READ_LOW, 7, 500, b"\x02\x00")
    assert (pulse.low_code, pulse.own, page[:2]) == (7, 1, b"\x02\x00")
    with pytest.raises(VoltageRefused):
        link.pulse(12, 1000)
    codes, times = zip(*json.loads(say(emulator, "log")), strict=True)
    assert codes == (11, 7, 11, 11, 7, 11)  # DMA restores nominal, and the CPU confirms it
    assert 1000 <= times[2] - times[1] <= 1010
    assert 1000 <= times[3] - times[2] <= 1100


@pytest.mark.parametrize("emulator", ["flash"], indirect=True)
def test_usb_on_another_host_and_controller(emulator: subprocess.Popen[str]) -> None:
    """rp2040js's own host enumerates the device, before and after a pulse."""
    link = Link(FunctionTransport(lambda data: bytes.fromhex(say(emulator, f"usb {data.hex()}"))), retries=4)
    link.fill(0, 16, Pattern.RANDOM, 1)
    contents = link.read_pages(range(16))
    assert b"".join(contents) == pattern_words(Pattern.RANDOM, 1, 0, 16 * 64).tobytes()
    pulse = link.pulse(7, 1000)
    assert (pulse.low_code, pulse.after_code, pulse.pulses) == (7, 11, 1)
    assert link.counters.silences == 1, "the reply to the pulse is asked for again"
    assert link.compare(0, 16, Pattern.RANDOM, 1) == [byte * 8 + (byte & 7) for byte in range(0, 16 * 256, 997)]
    assert link.counters.sessions == 1


@pytest.mark.parametrize("emulator", ["flash"], indirect=True)
def test_inference_with_weights_that_were_at_a_low_voltage(emulator: subprocess.Popen[str]) -> None:
    """The oracle is the NumPy engine on the weights that were read back."""
    link = Link(FunctionTransport(lambda data: bytes.fromhex(say(emulator, data.hex()))), retries=8)
    network = small_bnn()
    placed, inputs = lay_out(network), pixels(network, 3)
    program, first = placed.program, placed.program.page

    def write(page: int, data: bytes) -> None:
        pages = [data[at : at + PAGE] for at in range(0, len(data), PAGE)]
        link.write_pages(range(page, page + len(pages)), pages)

    write(0, placed.data[: first * PAGE])
    link.pulse(7, 1000)
    back = b"".join(link.read_pages(range(first)))
    flips = np.frombuffer(back, np.uint64) ^ np.frombuffer(placed.data[: first * PAGE], np.uint64)
    words = {name: -(-network.tensors[name].bits // 64) for name in placed.found.weights}
    faulty = lay_out(network, {name: flips[placed.first_words[name] // 2 :][:count] for name, count in words.items()})
    assert faulty.data[: first * PAGE] != placed.data[: first * PAGE]
    write(first, program.data)
    expected = evaluate(faulty.network, inputs)[placed.found.sums.name].reshape(3, -1)
    for image in range(3):
        write(program.input_page, program.pack_input(inputs["x"][image].astype(int)))
        winner, sums = link.infer(program.page, program.words.size, placed.crc, 0.0)
        assert sums == expected[image].astype("<i4").tobytes()
        assert winner == expected[image].argmax()
    assert int(say(emulator, "cycles")) > 10_000
