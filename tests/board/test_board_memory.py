"""`--memory board:PORT`: a network's weights pass through a board; the recording replays to the same results."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner, Result

from weakcell.emulator import ReadPolicy, compile_plan, deploy, load, outputs_under_faults, place
from weakcell.host.board.memory import studies
from weakcell.host.board.memory.session import PROCESS_SESSIONS, ReadRecorder
from weakcell.host.board.memory.spec import SharedBoard
from weakcell.host.cli import app
from weakcell.memmodels.catalogue import open_memory, parse_spec, technology_of
from weakcell.memmodels.errors import MemorySpecError
from weakcell.memmodels.recording import load as load_recording

pytest.importorskip("cobs", reason="pip install weakcell[board]")
pytest.importorskip("unicorn", reason="pip install weakcell[virtual]")

SHIPPED = Path(__file__).parents[2] / "host" / "shipped"
BOARD = "board:virtual:rp2350[uniform:ber=0.01,cells=invert,lifetime=die]"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def test_live_logits_are_those_of_the_recording_and_passes_are_named(tmp_path: Path) -> None:
    network = load(SHIPPED / "digits_bnn.onnx")
    spec = parse_spec(f"{BOARD}:vdd=0.6,kib=2,dwell_s=0.0001")
    plan, placement = compile_plan(network), place(network, spec)
    assert placement.bits(network) > 2 * 2 * 1024 * 8, "the network is larger than the arena"
    (name,) = network.inputs
    rng = np.random.default_rng(5)
    images = {name: rng.integers(0, 17, (6, *network.values[name].shape[1:])).astype(np.float32)}
    memory = open_memory(spec)
    assert isinstance(memory, SharedBoard)
    memory.session.recorder = ReadRecorder()
    live = outputs_under_faults(plan, images, deploy(plan, placement, ReadPolicy.LOAD, memories=[memory]))
    path = memory.session.recorder.save(tmp_path / "r.npz", {})
    memory.session.recorder = None
    again = deploy(plan, placement, ReadPolicy.LOAD, memories=[open_memory(f"recording:{path}")])
    clean = deploy(plan, placement, ReadPolicy.LOAD, memories=[memory.at(vdd=1.10)])
    replayed, unharmed = outputs_under_faults(plan, images, again), outputs_under_faults(plan, images, clean)
    for output, logits in live.items():
        assert np.array_equal(replayed[output], logits)
        assert not np.array_equal(unharmed[output], logits)
    _passes_tile_the_arena(path)


def _passes_tile_the_arena(path: Path) -> None:
    """Check that passes follow one another within the arena, and that a cell used twice flipped twice."""
    recording, arena = load_recording(path), 2 * 1024 * 8
    masks: dict[int, list[np.ndarray]] = {}
    for take in recording.takes:
        region, (note,), done = recording.regions[take.region], take.notes, 0
        for one in note["passes"]:
            assert one["first_word"] == done
            assert one["first_cell"] == (region.first_word * 64 + done * 64) % arena
            assert one["first_cell"] + one["words"] * 64 <= arena
            assert (one["commanded"], one["register"], one["measured"]) == (0.6, pytest.approx(0.6), None)
            part = slice(done, done + one["words"])
            if one["first_cell"] == 0 and one["words"] * 64 == arena and part.stop < region.layout.words:
                masks.setdefault(0, []).append(take.reads[0][part] ^ region.written[part])
            done += one["words"]
        assert done >= region.layout.words
    same = masks[0]
    assert len(same) >= 2
    assert all(np.array_equal(mask, same[0]) for mask in same)
    assert same[0].any()


def test_emulate_keeps_read_backs_that_replay_to_the_same_results(tmp_path: Path) -> None:
    out = tmp_path / "live"
    done = run("emulate", "--memory", f"{BOARD}:kib=64,dwell_s=0.001", "--sweep", "vdd=0.6,1.1", "--trials", "2", "--images", "40",
               "--out", str(out))  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "Through the board: at most" in done.output
    command = done.output.split("`")[1].split()
    assert command[:3] == ["weakcell", "emulate", "digits-bnn"]
    again = run(*command[1:], "--out", str(tmp_path / "again"))
    assert again.exit_code == 0, again.output
    columns = ["sweep_value", "trial", "accuracy", "changed", "flips", "bits_read"]
    live, replayed = (pl.read_parquet(folder / "results.parquet").select(columns) for folder in (out, tmp_path / "again"))
    assert live.equals(replayed)
    assert live.filter(pl.col("sweep_value") == 1.1)["flips"].sum() == 0
    assert live.filter(pl.col("sweep_value") == 0.6)["flips"].min() > 100
    assert "one board" in done.output


def test_validate_reads_through_a_board() -> None:
    done = run("validate", "digits-bnn", "--memory", f"{BOARD}:vdd=0.6", "--trials", "1", "--images", "10", "--json")
    assert done.exit_code == 0, done.output
    events = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert events[-1]["violations"] == 0


def test_more_than_an_hour_needs_permission_and_a_dry_run_reports_it() -> None:
    slow = ("emulate", "--memory", f"{BOARD}:vdd=0.6,dwell_s=4", "--images", "300", "--read-every", "image", "--trials", "1")
    done = run(*slow)
    assert (done.exit_code, "--yes" in done.output) == (2, True), done.output
    dry = run(*slow, "--dry-run")
    assert dry.exit_code == 0, dry.output
    assert re.search(r"at most (8\d min|1\.[4-9] h)", dry.output), dry.output


def test_time_grows_with_reads_and_dwell() -> None:
    from weakcell.host.study.study import Study, resolve_study

    def asked(**others: Any) -> studies.BoardWork:
        spec = parse_spec(f"{BOARD}:vdd=0.6,dwell_s=0.5,kib=4")
        resolved = resolve_study(Study(memory=spec, sweep=None, trials=3, images=20, **others))
        assert studies.list_board_ports(resolved) == ("virtual:rp2350[uniform:ber=0.01,cells=invert,lifetime=die]",)
        return studies.count_board_work(resolved, studies.list_board_ports(resolved)[0])

    once, each = asked(), asked(read_every=ReadPolicy.IMAGE)
    assert each.reads == pytest.approx(20 * once.reads)
    assert each.dwell_s == pytest.approx(20 * once.dwell_s)
    assert once.dwell_s >= 0.5 * once.reads
    assert once.reads % 3 == 0


@pytest.mark.parametrize(
    ("spec", "found"),
    [
        ("board:", "which board"),
        ("board:auto:vdd=1.2", "valid range"),
        ("board:auto:colour=2", "no condition"),
        ("tape:auto:vdd=1", "no technology"),
    ],
)
def test_a_spec_that_means_nothing_is_named(spec: str, found: str) -> None:
    with pytest.raises(MemorySpecError, match=found):
        parse_spec(spec)


def test_brackets_belong_to_the_port_and_wrappers_stand_before_it() -> None:
    spec = parse_spec(f"secded+{BOARD}:vdd=0.7")
    assert studies.board_port(spec) == "virtual:rp2350[uniform:ber=0.01,cells=invert,lifetime=die]"
    assert spec.conditions == {"vdd": 0.7}
    assert technology_of(BOARD).basis == "computed"
    assert technology_of("board:/dev/ttyUSB0").basis == "measured"
    assert PROCESS_SESSIONS.get("auto") is PROCESS_SESSIONS.get("auto")
    assert str(parse_spec(str(spec))) == str(spec)
