"""`weakcell characterize`: a known law is recovered, a killed run resumes, and failures of a board are told apart."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner, Result

from weakcell.host.board.characterization import rig as runs
from weakcell.host.board.characterization.dump import Dump, open_dump
from weakcell.host.board.characterization.passes import BoardCounters, count_arena_pages, run_pass
from weakcell.host.board.characterization.patterns import GeneratedPattern, GivenBytes, parse_contents
from weakcell.host.board.characterization.points import Outcome, Plan, Point, make_plan
from weakcell.host.board.characterization.rig import CharacterizationRig, characterize, measure_point
from weakcell.host.board.characterization.supply import OnChipSupply
from weakcell.host.board.errors import BoardError, LinkError, VoltageRefused
from weakcell.host.board.link.link import Link
from weakcell.host.board.link.protocol import PAGE, Pattern
from weakcell.host.board.link.transport import NoisyTransport
from weakcell.host.board.readbacks.analysis import analyze_readbacks
from weakcell.host.board.readbacks.loading import load_run
from weakcell.host.board.virtual.virtual_board import VirtualBoard
from weakcell.host.cli import app
from weakcell.memmodels.address import Layout, Words, popcount
from weakcell.memmodels.catalogue import open_memory
from weakcell.memmodels.error_model.structure import Bank, Shared
from weakcell.memmodels.error_model.terms import ErrorTerm, Lifetime
from weakcell.memmodels.errors import InputError, UsageError
from weakcell.memmodels.memory import Key
from weakcell.memmodels.profile import ProbitLaw, Profile
from weakcell.memmodels.profile import load as load_profile

pytest.importorskip("cobs", reason="pip install weakcell[board]")
pytest.importorskip("unicorn", reason="pip install weakcell[virtual]")

MU, S, RATIO = 0.46, 0.045, 0.5
ROOT = Path(__file__).parents[2]


def law(folder: Path, structure: Shared | None = None) -> Path:
    """Write a known probit law: p10 = Phi((mu - vdd) / s), p01 half of it, so 2 % of the cells fail at 0.55 V."""
    like = ErrorTerm("cells", Lifetime.DIE, 0.0, 0.0, structure=structure)
    known = ProbitLaw("vdd", "V", 0.55, 1.10, MU, S, RATIO, 1.0, like)
    return Profile("truth", law=known, title="a known law", basis="assumed").save(folder / "truth.toml")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["characterize", "--quiet", *arguments])


def weakcell(*arguments: str) -> dict[str, Any]:
    """Run a command with --json; return its last `point` event."""
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    events = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return next(event for event in reversed(events) if event["event"] == "point")


# --- the closed loop -----------------------------------------------------------------------------------------------------------


def test_a_known_law_is_found_again(tmp_path: Path) -> None:
    truth, out = law(tmp_path), tmp_path / "run"
    options = ["--kib", "96", "--vdd", "0.7:0.55:0.05", "--repeats", "1", "--out", str(out)]
    done = run("--port", "virtual:rp2350", "--memory", f"file:{truth}", *options)
    assert done.exit_code == 0, done.output
    found = {constant.name: constant for constant in load_profile(out / "profile.toml").constants}
    for name, true in (("mu", MU), ("s", S), ("ratio", RATIO)):
        assert found[name].low <= true <= found[name].high, found[name]
        assert found[name].high - found[name].low < 0.12 * true
        assert found[name].basis == "computed"
    told = json.loads((out / "characterization.json").read_text())
    assert told["series"][0]["structure"] == "asymmetric"
    assert told["series"][0]["not_nested"] == 0
    assert {"command", "versions", "board", "identity", "link"} <= told.keys()
    summary = pl.read_csv(out / "summary.csv")
    assert summary["nested"].to_list()[1:] == summary["weak"].to_list()[:-1]
    accuracy = {}
    for name, memory in (("fitted", out / "profile.toml"), ("true", truth)):
        accuracy[name] = weakcell("emulate", "--memory", f"file:{memory}:vdd=0.55", "--trials", "8", "--images", "200", "--json")
    fitted, true = accuracy["fitted"], accuracy["true"]
    assert true["low"] <= fitted["mean"] <= true["high"]
    assert true["mean"] < 0.981


def test_cells_that_fail_by_columns_widen_the_interval(tmp_path: Path) -> None:
    truth, out = law(tmp_path, Shared("column", 0.3, Bank(256, 256))), tmp_path / "run"
    options = ["--kib", "64", "--vdd", "0.65,0.6,0.55", "--repeats", "1", "--bank", "256x256", "--out", str(out)]
    done = run("--port", "virtual:rp2350", "--memory", f"file:{truth}", *options)
    assert done.exit_code == 0, done.output
    told = json.loads((out / "characterization.json").read_text())["series"][0]
    assert told["structure"] == "bitline"
    law_found = {constant["name"]: constant for constant in told["law"]}
    assert law_found["share"]["low"] <= 0.3 <= law_found["share"]["high"]
    rows = {row["vdd"]: row for row in told["rows"]}
    rate = rows[0.55]["rate"]
    assert "bootstrap over columns" in rate["method"]
    independent = 3.92 * np.sqrt(rate["value"] / rows[0.55]["pairs"])
    assert rate["high"] - rate["low"] > 2 * independent
    none = rows[1.1]["rate"]
    assert (none["value"], none["low"]) == (0.0, 0.0)
    assert none["high"] > 2 * 3.0 / rows[1.1]["pairs"], "the bound of clustered cells is wider than that of independent ones"


def test_no_flips_are_a_result_with_an_upper_bound(tmp_path: Path) -> None:
    out = tmp_path / "run"
    done = run("--port", "virtual:rp2040", "--kib", "16", "--vdd", "0.9,0.8", "--out", str(out))
    assert done.exit_code == 0, done.output
    assert "no cell ever flipped" in done.output
    summary = pl.read_parquet(out / "summary.parquet")
    assert summary["outcome"].to_list() == ["ok", "ok", "ok"]
    cells = 16 * 1024 * 8 * 2
    assert summary["rate_high"].to_list() == pytest.approx([1 - 0.025 ** (1 / cells)] * 3, rel=1e-6)
    assert (
        weakcell("emulate", "--memory", f"file:{out}/profile.toml:vdd=0.8", "--trials", "1", "--images", "5", "--json")["flip_rate"]
        == 0
    )


def test_errors_that_come_and_go_have_no_law_but_a_share_of_reads(tmp_path: Path) -> None:
    out, memory = tmp_path / "run", "eden:p=0.004,f=0.5"
    done = run("--port", "virtual:rp2350", "--memory", memory, "--kib", "64", "--vdd", "0.6", "--repeats", "4", "--out", str(out))
    assert done.exit_code == 0, done.output
    assert "no law" in done.output
    row = json.loads((out / "characterization.json").read_text())["series"][0]["rows"][1]
    fails = next(constant for constant in row["constants"] if constant["name"] == "F")
    assert fails["low"] <= 0.5 <= fails["high"]
    assert row["always"][0] < row["always"][1]


# --- passes and patterns -------------------------------------------------------------------------------------------------------


def injected(mask: Words) -> Callable[[VirtualBoard, float], None]:
    def flip(board: VirtualBoard, volts: float) -> None:
        board.arena[: mask.size] ^= mask

    return flip


@pytest.mark.parametrize(
    ("name", "flips"),
    [
        ("zeros", 7),
        ("ones", 7),
        ("checkerboard", 7),
        ("address", 7),
        *(("random", n) for n in (0, 7, 3000)),
        ("weights:digits-bnn", 7),
    ],
)
def test_what_comes_back_is_what_was_injected(name: str, flips: int, rng: np.random.Generator) -> None:
    pages, mask = 64, np.zeros(64 * PAGE // 8, np.uint64)
    cells = rng.choice(mask.size * 64, flips, replace=False)
    np.bitwise_xor.at(mask, cells // 64, np.uint64(1) << (cells % 64).astype(np.uint64))
    link, supply = Link(VirtualBoard("rp2350", injected(mask))), OnChipSupply()
    done = run_pass(link, 0, pages, parse_contents(name, pages, 3), lambda: supply.lower(link, 0.6, 0.001), BoardCounters())
    assert np.array_equal(done.errors, mask)
    assert done.applied.register == pytest.approx(0.6)


def test_a_network_smaller_than_the_arena_is_repeated() -> None:
    contents = parse_contents("weights:digits-bnn", 512)
    assert isinstance(contents, GivenBytes)
    words = contents.words(0, 512)
    again = np.flatnonzero(words[1:] == words[0]) + 1
    assert any(np.array_equal(words[at : at + 500], words[:500]) for at in again)
    assert 0.3 < popcount(words) / (64 * words.size) < 0.7


def test_a_board_whose_comparison_disagrees_with_its_bytes_is_no_memory_flip() -> None:
    class Miscounting(Link):
        def compare_once(self, first: int, count: int, pattern: Pattern, seed: int = 0, start: int = 0) -> tuple[int, list[int]]:
            total, cells = super().compare_once(first, count, pattern, seed, start)
            return (total + 1, cells) if total else (total, cells)

    mask = np.zeros(32, np.uint64)
    mask[0] = 1
    link, counters = Miscounting(VirtualBoard("rp2350", injected(mask))), BoardCounters()
    with pytest.raises(BoardError, match="own comparison"):
        run_pass(link, 0, 1, GeneratedPattern(Pattern.ONES), lambda: OnChipSupply().lower(link, 0.6, 0.001), counters)
    assert (counters.device_errors, counters.passes) == (1, 0)


def test_a_cell_counts_once_for_each_value_it_held(tmp_path: Path) -> None:
    rig, plan, dump = make_rig(VirtualBoard("rp2350"), tmp_path, patterns=("ones", "random", "zeros"))
    characterize(rig, plan, dump)
    findings = analyze_readbacks(load_run(dump, Bank(64, 64)))
    assert [row.pairs for row in findings.rows] == [2 * plan.pages * PAGE * 8] * 3


# --- outcomes ------------------------------------------------------------------------------------------------------------------


def make_rig(
    board: Any, folder: Path, patterns: tuple[str, ...] = ("ones",), repeats: int = 1
) -> tuple[CharacterizationRig, Plan, Dump]:
    link = Link(board)
    plan = make_plan("retention", voltages=(0.9, 0.7), dwells=(0.001,), patterns=patterns, repeats=repeats, pages=8, nominal=1.10)
    contents = {name: parse_contents(name, plan.pages) for name in plan.patterns}
    identity = {"chip": "rp2350", "virtual": True, "memory": None, "supply": "on-chip regulator"}
    words = {name: each.words(0, plan.pages) for name, each in contents.items()}
    return (
        CharacterizationRig(link, OnChipSupply(), contents),
        plan,
        open_dump(folder / "run", {"identity": identity, "plan": vars(plan)}, words, False),
    )


def outcomes(dump: Dump) -> list[str]:
    return [str(record.outcome) for record in dump.records()]


def test_a_reset_is_distinguished_from_silence_and_measured_again(tmp_path: Path) -> None:
    board = VirtualBoard("rp2350")
    rig, plan, dump = make_rig(board, tmp_path)
    rig.supply.prepare(rig.link, plan.voltages[-1], plan.dwells[0])
    board.hang_at_pulse = True
    records = characterize(rig, plan, dump)
    assert outcomes(dump) == ["ok", "ok", "ok"]
    (failure,) = records[1].failures
    assert failure.outcome is Outcome.RESET
    assert board.resets == 1


def test_a_board_that_resets_at_every_attempt_is_a_result(tmp_path: Path) -> None:
    board = VirtualBoard("rp2350", lambda board, volts: setattr(board, "hang_at_pulse", volts < 0.8))
    rig, plan, dump = make_rig(board, tmp_path)
    characterize(rig, plan, dump)
    assert outcomes(dump) == ["ok", "ok", "reset"]
    summary = analyze_readbacks(load_run(dump, Bank(64, 64))).rows
    assert [(str(row.outcome), row.rate is None) for row in summary] == [("ok", False), ("ok", False), ("reset", True)]


def test_a_board_that_stays_silent_ends_the_run_and_the_rest_can_be_measured_later(tmp_path: Path) -> None:
    class Mute(VirtualBoard):
        dead = False

        def write(self, data: bytes) -> None:
            if not self.dead:
                super().write(data)

    board = Mute("rp2350", lambda board, volts: setattr(board, "dead", volts < 0.8))
    rig, plan, dump = make_rig(board, tmp_path)
    with pytest.raises(BoardError, match="fell silent"):
        characterize(rig, plan, dump)
    assert outcomes(dump) == ["ok", "ok", "no response"]
    board.dead = False
    assert [str(record.outcome) for record in characterize(rig, plan, dump)] == ["ok", "ok", "no response"]


def test_lost_bytes_are_a_link_error_and_nothing_is_counted(tmp_path: Path) -> None:
    inside = VirtualBoard("rp2350")
    cable = NoisyTransport(inside, 0.0, seed=1)
    rig, _, _ = make_rig(cable, tmp_path)
    rig.link.info()
    lower = rig.supply.lower

    class Cut(OnChipSupply):
        def lower(self, link: Link, vdd: float, dwell_s: float) -> Any:
            cable.rate = 1.0
            try:
                return lower(link, vdd, dwell_s)
            finally:
                cable.rate = 0.0

    cut = CharacterizationRig(rig.link, Cut(), rig.contents)
    original = NoisyTransport._damage
    try:
        NoisyTransport._damage = lambda self, frame, way: b""  # type: ignore[method-assign]
        record = measure_point(cut, Point(1, 0.9, 0.001, "ones", 1), 8)
    finally:
        NoisyTransport._damage = original  # type: ignore[method-assign]
    assert record.outcome is Outcome.LINK_ERROR
    assert len(record.failures) == 2
    assert (record.errors, cut.counters.memory_flips) == (None, 0)


def test_a_board_that_lies_about_its_voltage_stops_the_run(tmp_path: Path) -> None:
    board = VirtualBoard("rp2350")
    rig, plan, dump = make_rig(board, tmp_path)
    board.ignore_voltage = True
    with pytest.raises(VoltageRefused, match="read back code 11"):
        characterize(rig, plan, dump)
    assert outcomes(dump) == ["ok", "voltage refused or not confirmed"]
    board.ignore_voltage = False
    assert [str(record.outcome) for record in characterize(rig, plan, dump)] == ["ok", "ok", "ok"]


def test_flips_without_a_low_voltage_are_no_result(tmp_path: Path) -> None:
    class Rotten(OnChipSupply):
        def lower(self, link: Link, vdd: float, dwell_s: float) -> Any:
            applied = super().lower(link, vdd, dwell_s)
            board.arena[3] ^= np.uint64(1)
            return applied

    board = VirtualBoard("rp2350")
    rig, plan, dump = make_rig(board, tmp_path)
    with pytest.raises(BoardError, match="never lowered"):
        characterize(CharacterizationRig(rig.link, Rotten(), rig.contents), plan, dump)


def test_a_long_run_needs_permission(tmp_path: Path) -> None:
    rig, plan, dump = make_rig(VirtualBoard("rp2350"), tmp_path)
    long = Plan(plan.experiment, plan.voltages, (0.001, 4.0), plan.patterns, 1000, plan.pages)
    with pytest.raises(UsageError, match=r"2\.2 h of it at low voltage.*--yes"):
        characterize(rig, long, dump)
    assert outcomes(dump) == ["ok"]


def test_the_estimate_is_what_pages_and_dwells_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock advances half a second per call, so reading the 8 pages takes half a second."""
    rig, plan, _ = make_rig(VirtualBoard("rp2350"), tmp_path)
    clock = count(0.0, 0.5)
    monkeypatch.setattr(runs, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    expected = sum(point.repeats * (0.5 + point.dwell_s) for point in plan.points)
    assert runs.estimate_seconds(rig, 8, plan.points) == pytest.approx(expected)


# --- stopped and resumed -------------------------------------------------------------------------------------------------------


def test_a_killed_run_goes_on_and_nothing_is_counted_twice(tmp_path: Path) -> None:
    options = ["--port", "virtual:rp2350", "--memory", "uniform:ber=0.002,lifetime=read", "--kib", "4", "--repeats", "2",
               "--vdd", "0.9:0.6:0.1", "--pattern", "zeros,ones,random", "--quiet"]  # fmt: skip
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert CliRunner().invoke(app, ["characterize", *options, "--out", str(whole)]).exit_code == 0
    command = [sys.executable, "-m", "weakcell.host.cli", "characterize", *options, "--out", str(killed)]
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.DEVNULL)
    while len(list((killed / "points").glob("*.npz"))) < 4 and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it was killed in the middle"
    assert 4 <= len(list((killed / "points").glob("*.npz"))) < 15
    assert not (killed / "results.csv").exists()
    refused = CliRunner().invoke(app, ["characterize", *options, "--out", str(killed)])
    assert (refused.exit_code, "--resume" in refused.output) == (6, True)
    done = CliRunner().invoke(app, ["characterize", *options, "--out", str(killed), "--resume"])
    assert done.exit_code == 0, done.output
    for name in ("results.csv", "summary.csv", "profile.toml"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes()
    flips = pl.read_csv(whole / "results.csv").filter(pl.col("vdd") < 1.1)["flips"]
    assert flips.n_unique() > 10, "reads are drawn anew, so points that were measured twice would show"


def test_ctrl_c_restores_nominal_voltage_and_keeps_what_is_finished(tmp_path: Path) -> None:
    class Interrupting(VirtualBoard):
        at: float | None = 0.7

        def read(self, timeout_s: float) -> bytes:
            data = super().read(timeout_s)
            if self.at is not None and self.voltages and self.voltages[-2:-1] == [self.at]:
                os.kill(os.getpid(), signal.SIGINT)
            return data

    board = Interrupting("rp2350")
    rig, plan, dump = make_rig(board, tmp_path)
    restored = []

    class Watched(OnChipSupply):
        def restore(self, link: Link) -> None:
            board.at = None
            super().restore(link)
            restored.append(link.info().regulator_code)

    with pytest.raises(KeyboardInterrupt):
        characterize(CharacterizationRig(rig.link, Watched(), rig.contents), plan, dump)
    assert restored == [rig.link.board.nominal_code]
    assert outcomes(dump) == ["ok", "ok"]
    characterize(rig, plan, dump)
    assert outcomes(dump) == ["ok", "ok", "ok"]


def test_a_second_ctrl_c_waits_until_nominal_voltage_is_back(tmp_path: Path) -> None:
    steps = []

    class Slow(OnChipSupply):
        def lower(self, link: Link, vdd: float, dwell_s: float) -> Any:
            os.kill(os.getpid(), signal.SIGINT)
            raise AssertionError("not reached")

        def restore(self, link: Link) -> None:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)
            super().restore(link)
            steps.append("restored")

    rig, plan, dump = make_rig(VirtualBoard("rp2350"), tmp_path)
    with pytest.raises(KeyboardInterrupt):
        characterize(CharacterizationRig(rig.link, Slow(), rig.contents), plan, dump)
    assert steps == ["restored"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_another_run_is_not_resumed(tmp_path: Path) -> None:
    _, plan, dump = make_rig(VirtualBoard("rp2350"), tmp_path)
    identity = {"chip": "rp2040", "virtual": True, "memory": None, "supply": "on-chip regulator"}
    with pytest.raises(InputError, match="chip was rp2350, is rp2040"):
        open_dump(dump.path, {"identity": identity, "plan": vars(plan)}, {}, True)


def test_a_damaged_point_is_named(tmp_path: Path) -> None:
    rig, plan, dump = make_rig(VirtualBoard("rp2350"), tmp_path)
    characterize(rig, plan, dump)
    path = dump.path / "points" / "0001.npz"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match=r"0001\.npz"):
        dump.records()


@pytest.mark.parametrize(
    ("arguments", "exit_code", "found"),
    [
        (("--vdd", "1.2"), 10, "nominal is 1.1"),
        (("--vdd", "0.83"), 10, "steps of 0.05"),
        (("--vdd", "high"), 2, "not a number"),
        (("--dwell-ms", "5000"), 2, "4000 ms"),
        (("--pattern", "stripes"), 2, "checkerboard"),
        (("--pattern", "ones,ones"), 2, "twice"),
        (("--kib", "600"), 2, "512 KiB"),
        (("--bank", "16"), 2, "ROWSxCOLUMNS"),
        (("--pattern", "weights:no-such-net"), 3, "no-such-net"),
        (("--memory", "no-such"), 5, "no technology"),
    ],
)
def test_impossible_requests_are_refused(tmp_path: Path, arguments: tuple[str, ...], exit_code: int, found: str) -> None:
    done = run("--port", "virtual:rp2350", "--out", str(tmp_path / "run"), *arguments)
    assert (done.exit_code, found in done.output) == (exit_code, True), done.output
    assert not (tmp_path / "run" / "run.json").exists()


def test_a_dry_run_refuses_the_voltages_that_the_run_refuses(tmp_path: Path) -> None:
    asked = ("--port", "virtual:rp2350", "--vdd", "0.83,0.8", "--kib", "1", "--out", str(tmp_path / "run"))
    assert run(*asked, "--dry-run").exit_code == 10
    assert run(*asked).exit_code == 10
    assert not (tmp_path / "run").exists()


def test_a_folder_is_needed() -> None:
    assert run("--port", "virtual:rp2350").exit_code == 2


def test_a_silent_port_is_a_link_error_before_anything_is_written(tmp_path: Path) -> None:
    board = VirtualBoard("rp2350")
    board.write = lambda data: None  # type: ignore[method-assign]
    with pytest.raises(LinkError):
        count_arena_pages(Link(board), None)


# --- what happens while the voltage is low -------------------------------------------------------------------------------------


@pytest.mark.parametrize("experiment", ["retention", "sleep", "read", "write"])
def test_each_experiment_finds_the_cells_that_its_board_spoils(tmp_path: Path, experiment: str) -> None:
    out, memory = tmp_path / "run", "uniform:ber=0.0016,cells=invert,lifetime=die"
    done = run("--port", "virtual:rp2350", "--memory", memory, "--kib", "8", "--vdd", "0.7", "--repeats", "2", "--dwell-ms", "1",
               "--experiment", experiment, "--out", str(out))  # fmt: skip
    assert done.exit_code == 0, done.output
    summary = pl.read_csv(out / "summary.csv")
    assert summary["outcome"].to_list() == ["ok", "flips"]
    cells, found = open_memory(memory), Layout("arena", 512 * 1024 * 8, 1)
    region = cells.write(np.zeros(found.words, np.uint64), found, Key())
    back = np.empty_like(region.written)
    cells.read(region, Key(), back)
    mask = back[: 8 * 1024 // 8]
    for point in Dump(out).records()[2:]:
        assert point.errors is not None
        assert all(np.array_equal(errors, mask) for errors in point.errors)
    assert 50 < popcount(mask) < 200


@pytest.mark.parametrize(
    ("arguments", "exit_code", "found"),
    [
        (("--port", "virtual:rp2040", "--experiment", "sleep"), 8, "cannot do it"),
        (("--port", "virtual:rp2350", "--experiment", "read", "--pattern", "weights:digits-bnn"), 2, "must generate"),
        (("--port", "virtual:rp2350", "--experiment", "write", "--supply", "manual"), 2, "itself"),
        (("--port", "virtual:rp2350-flash", "--supply", "manual"), 2, "no supply feeds the core"),
        (("--port", "virtual:rp2350-usb", "--power-cycle", "dtr"), 2, "no line that leads to its RUN pin"),
        (("--port", "virtual:rp2350", "--attempts", "0"), 2, "one at least"),
    ],
)
def test_impossible_experiments_are_refused(tmp_path: Path, arguments: tuple[str, ...], exit_code: int, found: str) -> None:
    done = run(*arguments, "--out", str(tmp_path / "run"))
    assert (done.exit_code, found in done.output) == (exit_code, True), done.output
    assert not (tmp_path / "run").exists()
