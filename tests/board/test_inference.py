"""`--compute board`: virtual boards compute images with weights that were at a low voltage.

The oracles are the emulator's engine and onnxruntime, both on the weights that the board read back.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import polars as pl
import pytest
from onnx import numpy_helper
from typer.testing import CliRunner, Result

import weakcell
from tests.board.native import NativeCore
from tests.emulator.models import run as run_onnxruntime
from tests.emulator.small import pixels, small_bnn
from weakcell.emulator import compile_plan, deploy, outputs_under_faults, place
from weakcell.emulator.engine.executor import check_inputs
from weakcell.emulator.faults.run import chunks_under_faults
from weakcell.emulator.importer import load
from weakcell.emulator.ir.network import Network
from weakcell.host.board.errors import BoardError
from weakcell.host.board.inference.compute import BoardComputer, check_capability
from weakcell.host.board.inference.program import split_network
from weakcell.host.board.inference.resident import ResidentBoard
from weakcell.host.board.link.link import Link
from weakcell.host.board.link.protocol import Capability
from weakcell.host.board.link.transport import FunctionTransport
from weakcell.host.board.memory.session import PROCESS_SESSIONS, PortSession
from weakcell.host.board.memory.spec import technology_of
from weakcell.host.board.virtual.faults import BoardFailure, make_retention_fault
from weakcell.host.board.virtual.virtual_board import VirtualBoard
from weakcell.host.cli import app
from weakcell.host.datasets.registry import load_data
from weakcell.memmodels.catalogue import parse_spec
from weakcell.memmodels.errors import InputError, UsageError
from weakcell.memmodels.recording import load as load_recording

pytest.importorskip("unicorn", reason="pip install weakcell[virtual]")

SHIPPED = Path(__file__).parents[2] / "host" / "shipped"
CELLS = "uniform:ber=0.05,cells=invert,lifetime=die"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def test_emulate_gives_the_same_rows_on_the_board_as_here(tmp_path: Path) -> None:
    memory, images = f"board:virtual:rp2350-flash[{CELLS}]", 4
    study = ("emulate", "--memory", memory, "--sweep", "vdd=0.55,1.1", "--trials", "1", "--images", str(images))
    done = run(*study, "--compute", "board", "--out", str(tmp_path / "board"))
    assert done.exit_code == 0, done.output
    assert f"The board computed {2 * images} images" in done.output
    emulated = run(*study, "--out", str(tmp_path / "emulator"))
    assert emulated.exit_code == 0, emulated.output
    columns = ["sweep_value", "trial", "accuracy", "changed", "flips", "bits_read"]
    ours, theirs = (pl.read_parquet(tmp_path / name / "results.parquet").select(columns) for name in ("board", "emulator"))
    assert ours.equals(theirs)
    assert ours.filter(pl.col("sweep_value") == 0.55)["flips"].min() > 2000
    regions = [load_recording(tmp_path / name / "readbacks.npz") for name in ("board", "emulator")]
    for mine, other in zip(*(each.takes for each in regions), strict=True):
        assert np.array_equal(mine.reads[0], other.reads[0])
        assert mine.notes[0]["passes"] == other.notes[0]["passes"]


def test_from_python_and_in_campaigns_the_board_computes_the_same(tmp_path: Path) -> None:
    """The rows are the emulator's; that the board computes is seen in the counter of images."""
    memory = f"board:virtual:rp2350-flash[{CELLS}]"
    counters = PROCESS_SESSIONS.get(memory.removeprefix("board:")).counters
    study = {"memory": memory, "sweep": {"vdd": [0.55]}, "trials": 1, "images": 2}
    before, columns = counters.images_computed, ["sweep_value", "trial", "accuracy", "changed", "flips", "bits_read"]
    ours, theirs = (weakcell.emulate(compute=compute, **study).frame.select(columns) for compute in ("board", "emulator"))
    assert ours.equals(theirs)
    assert counters.images_computed == before + 2
    tables = {
        "trials": 1, "compute": "board", "network": [{"model": "digits-bnn", "images": 2}],
        "memory": [{"spec": memory, "grid": {"vdd": [0.55]}}],
    }  # fmt: skip
    assert weakcell.sweep(tables, tmp_path / "campaign").frame.select(columns).equals(ours)
    assert counters.images_computed == before + 4
    with pytest.raises(UsageError, match="several processes"):
        weakcell.sweep(tables, tmp_path / "other", processes=2)
    with pytest.raises(InputError, match=r"line \d+: .*once per image"):
        weakcell.sweep({**tables, "read_every": ["image"]}, tmp_path / "third")


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ({"read_every": "image"}, "once per image"),
        ({"memory": "uniform:ber=0.1"}, "one board that holds all weights"),
        ({"record_faults": True}, "flips and outputs are the same"),
        ({"compute": "boards"}, "no such choice"),
    ],
)
def test_python_refuses_what_the_command_line_refuses(arguments: dict[str, Any], found: str) -> None:
    with pytest.raises(UsageError, match=found):
        weakcell.emulate(**{"memory": "board:virtual:rp2350-flash", "images": 2, "trials": 1, "compute": "board", **arguments})


class NetworkOnBoard:
    """A network on a virtual board whose cells lose bits, and what the board makes of some images."""

    def __init__(self, network: Network, board: VirtualBoard, inputs: dict[str, np.ndarray]) -> None:
        self.network, self.board, self.inputs = network, board, inputs
        self.plan = compile_plan(network)
        self.session = PortSession("a test's board", _link=Link(board))
        conditions = technology_of("virtual:rp2350").resolve({"vdd": 0.8, "dwell_s": 0.001})
        self.memory = ResidentBoard(self.session, conditions)
        self.deployment = deploy(self.plan, place(network, parse_spec("uniform")), memories=[self.memory])
        self.computer = BoardComputer(self.plan, split_network(network), self.memory, check_inputs(self.plan, inputs))

    def expected(self) -> Iterator[dict[str, Any]]:
        """Yield the emulator's outputs on the read-back."""
        return chunks_under_faults(self.plan, self.inputs, self.deployment)


@pytest.fixture
def small() -> NetworkOnBoard:
    network = small_bnn()
    return NetworkOnBoard(network, VirtualBoard("rp2350", make_retention_fault(CELLS), "flash"), pixels(network, 6))


def test_logits_are_those_of_onnxruntime_on_the_read_back(chip: str) -> None:
    images = load_data("digits").x[:4]
    network = NetworkOnBoard(
        load(SHIPPED / "digits_bnn.onnx"), VirtualBoard(chip, make_retention_fault(CELLS), "flash"), {"input": images}
    )
    (computed,) = network.computer.outputs(network.expected())
    proto, back = onnx.load(SHIPPED / "digits_bnn.onnx"), network.memory.readback[0].view(np.uint8)
    for tensor in proto.graph.initializer:
        if tensor.name in network.memory.first_words():
            bits = np.unpackbits(back[4 * network.memory.first_words()[tensor.name] :], bitorder="little")[: np.prod(tensor.dims)]
            tensor.CopyFrom(numpy_helper.from_array(2 * bits.reshape(tensor.dims).astype(np.float32) - 1, tensor.name))
    assert sum(network.deployment.tally.flips.values()) > 2000
    assert np.array_equal(computed["logits"], run_onnxruntime(proto, {"input": images.reshape(-1, 1, 8, 8).astype(np.float32)})[0])
    clean = run_onnxruntime(onnx.load(SHIPPED / "digits_bnn.onnx"), {"input": images.reshape(-1, 1, 8, 8).astype(np.float32)})[0]
    assert not np.array_equal(computed["logits"], clean)


def test_the_board_itself_computes(small: NetworkOnBoard) -> None:
    """The emulator's outputs are only compared: a wrong one is refused."""
    (computed,) = small.computer.outputs(small.expected())
    (name,) = small.network.outputs
    assert small.session.counters.images_computed == 6
    assert small.deployment.tally.flips
    (chunk,) = small.expected()
    wrong = chunk[name].copy()
    wrong[3, 0] += 1
    with pytest.raises(BoardError, match="Image 3 on the board"):
        list(small.computer.outputs(iter([{name: wrong}])))
    assert np.array_equal(computed[name], outputs_under_faults(small.plan, small.inputs, small.deployment)[name])


def test_a_board_that_resets_meanwhile_goes_on_if_its_cells_kept_the_weights(small: NetworkOnBoard) -> None:
    expected, board = small.expected(), small.board

    def reset_then_yield() -> Iterator[dict[str, Any]]:
        for chunk in expected:
            board.fail(BoardFailure.RESET, 3000)
            yield chunk

    (computed,) = small.computer.outputs(reset_then_yield())
    assert board.resets == 1
    (name,) = small.network.outputs
    assert np.array_equal(computed[name], outputs_under_faults(small.plan, small.inputs, small.deployment)[name])


def test_weights_that_changed_meanwhile_are_not_counted(small: NetworkOnBoard) -> None:
    def spoil_then_yield() -> Iterator[dict[str, Any]]:
        for chunk in small.expected():
            yield chunk
            small.board.arena[0] ^= np.uint64(1 << 60)  # a cell that no weight uses

    with pytest.raises(BoardError, match="not those that were read back"):
        list(small.computer.outputs(spoil_then_yield()))


def test_one_time_at_the_low_voltage_for_all_regions(small: NetworkOnBoard) -> None:
    list(small.computer.outputs(small.expected()))
    assert small.session.counters.passes == 1
    assert sum(small.deployment.tally.flips.values()) == small.session.counters.memory_flips


def test_boards_without_the_command_are_told_what_to_flash(core: NativeCore) -> None:
    ram = Link(VirtualBoard("rp2040"))
    with pytest.raises(BoardError, match="RAM image"):
        check_capability(ram)
    link = Link(FunctionTransport(core))
    check_capability(link)
    object.__setattr__(link.board, "capabilities", link.board.capabilities & ~Capability.INFER | Capability.FROM_FLASH)
    with pytest.raises(BoardError, match="older"):
        check_capability(link)


@pytest.mark.parametrize(
    ("arguments", "code", "found"),
    [
        (("digits-qnn",), 4, "weights of int8"),
        (("--read-every", "image"), 2, "once per image"),
        (("--memory", "uniform:ber=0.1"), 2, "one board that holds all weights"),
        (("--memory", f"secded+board:virtual:rp2350-flash[{CELLS}]"), 2, "without a protection"),
        (("--place", "conv1.weight=uniform:ber=0"), 2, "one board that holds all weights"),
        (("--save-faults", "flips.csv"), 2, "same"),
        (("--memory", f"board:virtual:rp2350-flash[{CELLS}]:kib=4"), 8, "4 KiB"),
    ],
)
def test_what_cannot_be_computed_on_a_board_is_said(arguments: tuple[str, ...], code: int, found: str) -> None:
    memory = () if "--memory" in arguments else ("--memory", f"board:virtual:rp2350-flash[{CELLS}]")
    done = run("emulate", *arguments, *memory, "--images", "2", "--trials", "1", "--compute", "board")
    assert (done.exit_code, found in " ".join(done.output.split())) == (code, True), done.output
