"""The commands `board` and `firmware`, and a virtual board behind a TCP port."""

from __future__ import annotations

import json
import threading
import zlib
from dataclasses import replace
from pathlib import Path
from queue import Queue

import polars as pl
import pytest
from typer.testing import CliRunner

from weakcell.host.board.boards import BOARDS
from weakcell.host.board.characterization.experiments import Experiment, Setting, run_experiment
from weakcell.host.board.errors import BoardError, VoltageRefused
from weakcell.host.board.firmware.build import why_not_buildable
from weakcell.host.board.link.link import Link
from weakcell.host.board.link.ports import open_port
from weakcell.host.board.link.protocol import Capability, Pattern
from weakcell.host.board.link.transport import SerialTransport
from weakcell.host.board.survey import name_firmware
from weakcell.host.board.virtual.faults import make_retention_fault
from weakcell.host.board.virtual.opening import open_virtual_board
from weakcell.host.board.virtual.serving import Endpoint, serve
from weakcell.host.cli import app
from weakcell.host.cli.board import _ABILITIES
from weakcell.memmodels.error_model.terms import ErrorTerm, Lifetime
from weakcell.memmodels.errors import MemorySpecError, UsageError
from weakcell.memmodels.profile import OperatingPoint, Profile


def run(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, arguments)
    return done.exit_code, done.output


def test_info_and_measure(chip: str) -> None:
    code, text = run("board", "info", "--port", f"virtual:{chip}")
    assert code == 0
    assert chip in text
    assert "set to 1.10 V" in text
    assert ("sleeping while low" in text) == (chip == "rp2350")
    code, text = run(
        "board", "measure", "--port", f"virtual:{chip}", "--vdd", "0.85", "--memory", "uniform:ber=1e-4", "--repeats", "2"
    )
    assert code == 0
    assert "register 0.85 V" in text
    assert " 0 of " not in text
    code, text = run("board", "measure", "--port", f"virtual:{chip}", "--memory", "uniform:ber=1e-4", "--repeats", "1")
    assert code == 0
    assert " 0 of " in text


def test_every_capability_has_words() -> None:
    assert set(_ABILITIES) == {capability.name for capability in Capability}


@pytest.mark.parametrize(
    ("arguments", "exit_code", "found"),
    [
        (("--port", "virtual:rp2350", "--vdd", "1.15"), 10, "never above nominal"),
        (("--port", "virtual:rp9999"), 2, "no such virtual board"),
        (("--port", "/dev/no-such-port"), 8, "no-such-port"),
        (("--port", "virtual:rp2350", "--pattern", "stripes"), 2, "checkerboard"),
        (("--port", "/dev/ttyS9", "--memory", "uniform"), 2, "real board"),
    ],
)
def test_impossible_requests_are_refused(arguments: tuple[str, ...], exit_code: int, found: str) -> None:
    pytest.importorskip("unicorn", reason="pip install weakcell[virtual]")
    code, text = run("board", "measure", *arguments)
    assert (code, found in text) == (exit_code, True), text


def served(**options: str) -> Endpoint:
    pytest.importorskip("unicorn", reason="pip install weakcell[virtual]")
    offers: Queue[Endpoint] = Queue()
    board = open_virtual_board("rp2350", "uniform:ber=1e-3", **options)  # type: ignore[arg-type]
    threading.Thread(target=serve, args=(board, 0, offers.put), daemon=True).start()
    return offers.get(timeout=20)


def test_a_served_board_answers_over_tcp_and_on_a_terminal() -> None:
    offer = served()
    for url in (f"socket://127.0.0.1:{offer.port}", f"socket://127.0.0.1:{offer.port}", offer.terminal):
        if not url:
            continue
        with Link(SerialTransport(url), timeout_s=10) as link:
            link.fill(0, 64, Pattern.RANDOM, 3)
            assert link.compare(0, 64, Pattern.RANDOM, 3) == []
            link.pulse(5, 100)
            assert 60 < len(link.compare(0, 64, Pattern.RANDOM, 3)) < 250
            assert link.info().regulator_code == 11


def test_a_served_board_misbehaves_and_is_caught() -> None:
    url = f"socket://127.0.0.1:{served(misbehave='ignore-voltage,noise=0.02').port}"
    with Link(SerialTransport(url), timeout_s=0.5, retries=30) as link:
        link.fill(0, 64, Pattern.ONES)
        with pytest.raises(VoltageRefused, match="read back code 11"):
            link.pulse(5, 100)


def test_models_of_reading_and_writing_while_low() -> None:
    pytest.importorskip("unicorn", reason="pip install weakcell[virtual]")
    for option, experiment in (("reads", Experiment.READ), ("writes", Experiment.WRITE)):
        link = Link(open_virtual_board("rp2350", **{option: "uniform:ber=1e-3"}))  # type: ignore[arg-type]
        pages = range(64)
        outcome = run_experiment(link, Setting(experiment, 5, 100), Pattern.ONES, 0, pages)
        assert 60 < outcome.cells.size < 250
        assert run_experiment(link, Setting(Experiment.RETENTION, 5, 100), Pattern.ONES, 0, pages).cells.size == 0


def test_a_port_that_nobody_serves() -> None:
    with pytest.raises(BoardError):
        SerialTransport("socket://127.0.0.1:1")


def test_the_same_seed_gives_the_same_flips() -> None:
    pytest.importorskip("unicorn", reason="pip install weakcell[virtual]")
    found = []
    for _ in range(2):
        link = Link(open_virtual_board("rp2040", "uniform:ber=1e-4", 5))
        link.fill(0, link.board.pages, Pattern.ONES)
        link.pulse(5, 100)
        found.append(link.compare(0, link.board.pages, Pattern.ONES))
    assert found[0] == found[1] != []
    assert callable(make_retention_fault("uniform:ber=0.1"))


def test_cells_of_a_virtual_board_need_a_law(tmp_path: Path) -> None:
    """A profile that holds single voltages says nothing about those between, which the regulator passes on the way down."""
    terms = {volts: ErrorTerm("retention", Lifetime.DIE, rate, rate) for volts, rate in ((1.1, 0.0), (0.6, 0.01))}
    points = [OperatingPoint({"vdd": volts}, (term,)) for volts, term in terms.items()]
    Profile("points", tuple(points)).save(tmp_path / "points.toml")
    with pytest.raises(MemorySpecError, match=r"passes all voltages.*vdd=1\.1; vdd=0\.6"):
        make_retention_fault(f"file:{tmp_path}/points.toml")
    with pytest.raises(UsageError, match="rp2350, or one of them with -flash"):
        open_port("virtual:rp2350-falsh")


@pytest.mark.parametrize("kind", ["ram", "flash"])
def test_the_image_that_a_board_runs_is_named(kind: str) -> None:
    """Oracle: the virtual board runs the shipped file of that name."""
    pytest.importorskip("unicorn", reason="pip install weakcell[virtual]")
    for chip in BOARDS:
        with Link(open_virtual_board(chip, image=kind)) as link:
            info = link.info()
        assert name_firmware(chip, info) == f"the {kind} image of this version"
        assert name_firmware(chip, replace(info, image_crc=info.image_crc ^ 1)).startswith("another image")


def test_firmware_list_path_and_version() -> None:
    pytest.importorskip("unicorn", reason="pip install weakcell[virtual]")
    code, text = run("firmware", "path", "rp2350", "--image", "ram")
    content = Path(text.strip()).read_bytes()
    assert (code, f"{zlib.crc32(content):08x}" in run("firmware", "list")[1]) == (0, True)
    assert run("firmware", "path", "avr")[0] == 2
    assert "runs the ram image of this version" in run("firmware", "version", "--port", "virtual:rp2040")[1]


def test_measured_flips_are_written(tmp_path: Path) -> None:
    pytest.importorskip("unicorn", reason="pip install weakcell[virtual]")
    asked = ("board", "measure", "--port", "virtual:rp2040", "--memory", "uniform:ber=1e-5", "--vdd", "0.9", "--repeats", "2")
    code, text = run(*asked, "--out", str(tmp_path / "flips.csv"), "--json")
    assert code == 0, text
    events = [json.loads(line) for line in text.splitlines()]
    kept = pl.read_csv(tmp_path / "flips.csv")
    told = {event["pulse"]: event["flipped"] for event in events if event["event"] == "pulse"}
    assert dict(kept.group_by("pulse").len().rows()) == told
    assert len(told) == 2
    assert 0 <= kept["cell"].to_numpy().min() < kept["cell"].to_numpy().max() < 8 * BOARDS["rp2040"].map.arena_bytes


def test_firmware_build(tmp_path: Path) -> None:
    if (reason := why_not_buildable()) is not None:
        pytest.skip(reason)
    code, text = run("firmware", "build", "rp2350", "--out", str(tmp_path))
    assert code == 0
    assert "the same bytes as" in text
    assert run("firmware", "build", "avr")[0] == 2
