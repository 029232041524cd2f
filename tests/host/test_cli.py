"""The command line as people use it: results, bad input, exit codes, and a light `--help`."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import typer
from polars.exceptions import PanicException
from typer.testing import CliRunner, Result

from weakcell.host.cli import _KEPT, app
from weakcell.host.study.networks import SHIPPED_FOLDER
from weakcell.memmodels.native.compilers import CompilationFailed

HEAVY = {
    "numpy", "numba", "scipy", "onnx", "onnx_ir", "polars", "pydantic", "rich", "matplotlib", "torch", "onnxruntime", "memmodels",
    "emulator",
}  # fmt: skip
LAZY = {"memmodels", "weakcell.memmodels.lazy", "emulator", "weakcell.emulator.faults.read_policy"}
"""What the packages need to put off everything else, and the default of an option."""

FEW = ["--trials", "2", "--images", "20"]


def weakcell(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(part) for part in arguments])


def refused(code: int, *arguments: str | Path) -> str:
    """The paragraph on stderr, having checked that there is nothing else."""
    result = weakcell(*arguments)
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.stderr
    assert result.stderr.startswith("Error: ")
    assert len(result.stderr.strip().splitlines()) == 1
    return result.stderr


def test_help_imports_nothing_heavy() -> None:
    program = f"""
import sys, weakcell.host.cli
for arguments in (["--help"], ["emulate", "--help"], ["--version"]):
    try:
        weakcell.host.cli.app(arguments)
    except SystemExit as leaving:
        assert leaving.code == 0
print(sorted(name for name in sys.modules if name.partition(".")[0] in {HEAVY!r} and name not in {LAZY!r}))
"""
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1] == "[]"


def test_infer_starts_without_a_compiler(tmp_path: Path) -> None:
    """The second time: the first may have kernels to compile."""
    np.savez(tmp_path / "in.npz", x=np.zeros((1, 1, 8, 8), np.float32))
    program = f"""
import sys, weakcell.host.cli
try:
    weakcell.host.cli.app(["infer", "digits-bnn", "--input", r"{tmp_path}/in.npz", "--output", r"{tmp_path}/out.npz"])
except SystemExit as leaving:
    assert leaving.code == 0
print(sorted({{"numba", "scipy", "polars", "pydantic", "matplotlib"}} & set(sys.modules)))
"""
    found = [subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True) for _ in range(2)]
    assert found[-1].stdout.splitlines()[-1] == "[]"


def test_help_as_a_program() -> None:
    found = subprocess.run([sys.executable, "-m", "weakcell.host.cli", "--help"], capture_output=True, text=True, check=True)
    assert "Exit codes" in found.stdout
    assert "emulate" in found.stdout


def _commands_with_options() -> list[tuple[str, Any]]:
    """Return all commands, and the commands in groups, by the words that name them."""
    root = typer.main.get_group(app)
    context = root.make_context("weakcell", [], resilient_parsing=True)
    commands: list[tuple[str, Any]] = []
    for name in root.list_commands(context):
        command: Any = root.get_command(context, name)
        commands += [(name, command), *((f"{name} {part}", inner) for part, inner in getattr(command, "commands", {}).items())]
    return commands


@pytest.mark.parametrize("command", [names for names, _ in _commands_with_options()])
def test_help_fits_80_columns(command: str) -> None:
    """Lines do not wrap on the narrowest usual terminal, no sentence is cut; `weakcell help X` prints the same; types are words."""
    result = weakcell(*command.split(), "--help")
    assert result.exit_code == 0
    assert not any(line.startswith("  ") and line.endswith("...") for line in result.stdout.splitlines())
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert "range>" not in result.stdout
    assert weakcell("help", *command.split()).stdout == result.stdout


def _events(*arguments: str | Path) -> list[dict[str, Any]]:
    result = weakcell(*arguments, "--json")
    assert result.exit_code == 0, result.output
    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert {event["version"] for event in events} == {1}
    return events


def test_results_of_infer_and_boards_as_events(tmp_path: Path) -> None:
    np.savez(tmp_path / "in.npz", x=np.zeros((3, 1, 8, 8), np.float32))
    (outputs,) = _events("infer", "digits-bnn", "--input", tmp_path / "in.npz", "--output", tmp_path / "out.npz")
    with np.load(tmp_path / "out.npz") as written:
        assert outputs["arrays"] == {name: {"shape": list(a.shape), "dtype": str(a.dtype)} for name, a in written.items()}
    (board,) = _events("board", "info", "--port", "virtual:rp2040")
    assert (board["chip"], board["minimum_v"], board["nominal_v"]) == ("rp2040", 0.8, 1.1)
    *pulses, done = _events("board", "measure", "--port", "virtual:rp2040", "--vdd", "0.8", "--repeats", "2")
    assert [pulse["flipped"] for pulse in pulses] == [0, 0]  # a virtual board without a memory makes no errors
    assert done["in_every_pulse"] == 0


def test_an_error_of_infer_is_an_event(tmp_path: Path) -> None:
    result = weakcell("infer", "digits-bnn", "--input", tmp_path / "none.npz", "--output", tmp_path / "out.npz", "--json")
    assert json.loads(result.stdout)["code"] == result.exit_code == 3


def test_an_interruption_says_what_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(_KEPT) == {names.split()[0] for names, _ in _commands_with_options()} - {"help", "version"}

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("weakcell.host.analysis.prediction.predict_study", interrupt)
    stopped = weakcell("predict", "digits-bnn", "--images", "5")
    assert (stopped.exit_code, "No results were written; the same command starts again" in stopped.stderr) == (130, True)


def test_a_dry_run_says_that_compiling_is_not_included() -> None:
    assert "without compiling kernels" in weakcell("emulate", *FEW, "--dry-run").stdout


LONG_OR_ON_HARDWARE = {
    "emulate", "predict", "rank", "margins", "validate", "optimize", "sweep", "report", "train", "download", "characterize",
    "board measure", "firmware flash", "doctor",
}  # fmt: skip

TABLE = Path(__file__).parents[2] / "host/cli/README.md"
SHARED_OPTIONS = (
    "--data", "--memory", "--place", "--sweep", "--trials", "--seed", "--images", "--task", "--data-dir", "--threads", "--out",
    "--dry-run", "--explain", "--json", "--quiet", "--yes",
)  # fmt: skip


def test_the_table_of_shared_options_is_right() -> None:
    """The table of `host/cli/README.md`, made from the code: every command has `--json` and `-q`, long ones `--dry-run`."""
    rows = [
        "| command | " + " | ".join(f"`{option}`" for option in SHARED_OPTIONS) + " |",
        "|---" * (1 + len(SHARED_OPTIONS)) + "|",
    ]
    for names, command in _commands_with_options():
        if hasattr(command, "commands"):
            continue
        known = {option for parameter in command.params for option in parameter.opts}
        assert "--json" in known or names == "help", names
        assert "--quiet" in known or names in ("help", "version"), names
        assert ("--dry-run" in known) == (names in LONG_OR_ON_HARDWARE), names
        rows.append(f"| `{names}` | " + " | ".join("x" if option in known else "" for option in SHARED_OPTIONS) + " |")
    assert "\n".join(rows) in TABLE.read_text(encoding="utf-8"), "Replace the table by:\n" + "\n".join(rows)


def test_a_dry_run_checks_everything_and_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    few, out = ["--images", "20"], ["--out", "out"]
    sweep = [*few, "--memory", "uniform", "--sweep", "ber=0.001,0.1"]
    commands: list[tuple[list[str], dict[str, Any]]] = [
        (["predict", *sweep, *out, "--samples", "7"], {"points": 2, "images": 20, "samples": 7}),
        (["validate", *sweep, *out, "--trials", "3"], {"points": 2, "trials": 3, "images": 20}),
        (["rank", *few, "--by", "bit"], {"parts": ["bit 0"], "images": 20}),
        (["margins", *few, *out, "--certify", "4"], {"images": 20, "certify": 4}),
        (["optimize", *few, "--sweep", "v_over_vmin=0.8,0.9", "--protect", "in-place"], {"values": [0.8, 0.9], "tests": 3}),
        (["download", "fashion-mnist", "--data-dir", "data"], {"folder": "data/fashion-mnist"}),
        (["board", "measure", "--port", "virtual:rp2040", "--vdd", "0.8", "--repeats", "2"], {"pulses": 2, "cells": 8 * 262_144}),
        (["characterize", "--port", "virtual:rp2040", "--vdd", "0.9", *out], {"points": 4, "repeats": 3, "lowest_v": 0.9}),
        (["doctor", "--compile"], {}),
    ]
    for arguments, expected in commands:
        (plan,) = _events(*arguments, "--dry-run")
        assert plan["event"] == "plan"
        assert expected.items() <= plan.items(), plan
        if arguments[0] == "optimize":  # one bad die of so many shows that 95 % are good, with a third of 5 % each
            p = [0.95**n + n * 0.05 * 0.95 ** (n - 1) for n in (plan["dies_per_test"], plan["dies_per_test"] - 1)]
            assert p[0] <= 0.05 / 3 < p[1]
            assert "sign numbers" in plan["refused"]["in-place"]  # it needs integers of 4 bits or more
    assert not any(tmp_path.iterdir())
    assert refused(2, "characterize", "--import", "theirs.npz", "--dry-run")
    assert refused(5, "predict", "--memory", "uniform:bur=0.1", "--dry-run")


def test_a_spec_in_place_of_a_name_is_answered_with_the_name() -> None:
    for spec, name in (("dram:vendor", "dram"), ("in-place[code=parity]+sram-14nm", "sram-14nm")):
        assert f"`weakcell memories {name}`" in refused(5, "memories", spec)


def test_more_images_than_there_are_is_said(caplog: pytest.LogCaptureFixture) -> None:
    assert weakcell("emulate", "--images", "100000", "--dry-run").exit_code == 0
    assert "digits has 450 images" in caplog.text


def test_an_npy_file_is_named(tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", np.zeros((3, 1, 8, 8)))
    assert "an .npy file" in refused(3, "emulate", "--data", tmp_path / "images.npy")


def test_exit_codes_fit_a_narrow_terminal() -> None:
    lines = CliRunner().invoke(app, ["--help"], terminal_width=60).stdout.partition("Exit codes:")[2].splitlines()
    assert max(map(len, lines)) <= 60
    assert [line.split()[0] for line in lines if line[2:3].isdigit()] == [*map(str, range(11)), "130", "141", "143"]


def test_help_lists_every_command_once() -> None:
    lines = weakcell("--help").stdout.splitlines()
    listed = [line.split()[0] for line in lines if line.startswith("  ") and len(line.split()) > 1 and line[2] != " "]
    for name in (names for names, _ in _commands_with_options() if " " not in names):
        assert listed.count(name) == 1, name


def test_version() -> None:
    assert weakcell("--version").stdout.startswith("weakcell ")
    assert weakcell("version").stdout == weakcell("--version").stdout


def test_emulate_without_model_runs_the_embedded_example() -> None:
    result = weakcell("emulate", *FEW, "--explain")
    assert result.exit_code == 0, result.output
    assert "digits-bnn on digits" in result.stdout
    for word in ("per trial", "die", "lifetime", "95 % interval", "published", "v_over_vmin", "fault-free"):
        assert word in result.stdout
    assert "--out" in result.stderr


def test_emulate_writes_a_folder(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    result = weakcell("emulate", *FEW, "--memory", "uniform", "--sweep", "ber=1e-3:1e-1:x10", "--out", out)
    assert result.exit_code == 0, result.output
    frame = pl.read_parquet(out / "results.parquet")
    assert len(frame) == 6
    assert pl.read_csv(out / "results.csv").height == 6
    study = json.loads((out / "study.json").read_text())
    assert study["complete"] is True
    assert study["identity"]["images"] == 20
    assert study["versions"]["numpy"] == np.__version__
    assert (out / "study.png").read_bytes().startswith(b"\x89PNG")
    assert len(json.loads((out / "timings.json").read_text())["trials"]) == 6
    assert "another study" in refused(6, "emulate", *FEW, "--memory", "uniform:ber=0.5", "--out", out)
    assert weakcell("emulate", *FEW, "--memory", "uniform:ber=0.5", "--out", out, "--overwrite").exit_code == 0


def test_emulate_json() -> None:
    result = weakcell("emulate", *FEW, "--memory", "uniform:ber=0.01", "--json")
    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert [event["event"] for event in events] == ["study", "trial", "trial", "point", "done"]
    assert {event["version"] for event in events} == {1}
    assert result.stderr == ""


def test_errors_are_events_too() -> None:
    result = weakcell("emulate", "--memory", "nothing", "--json")
    assert json.loads(result.stdout)["code"] == result.exit_code == 5


def test_dry_run_runs_nothing(tmp_path: Path) -> None:
    result = weakcell("emulate", *FEW, "--dry-run", "--out", tmp_path / "out", "--save-faults", tmp_path / "f.csv")
    assert result.exit_code == 0, result.output
    assert "11 points x 2 trials x 20 images" in result.stdout
    assert "rows of fault list" in result.stdout
    assert not list(tmp_path.iterdir())


def test_faults_are_saved_and_replayed(tmp_path: Path) -> None:
    flips = tmp_path / "flips.parquet"
    saved = weakcell(
        "emulate", *FEW, "--memory", "uniform", "--sweep", "ber=0.01,0.02", "--save-faults", flips, "--out", tmp_path / "a"
    )
    again = weakcell("emulate", "--faults", flips, "--out", tmp_path / "b")
    assert saved.exit_code == again.exit_code == 0, again.output
    assert (tmp_path / "a" / "results.parquet").read_bytes() == (tmp_path / "b" / "results.parquet").read_bytes()
    assert "says otherwise" in refused(2, "emulate", "--faults", flips, "--seed", "3")


def test_ctrl_c_keeps_finished_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from weakcell.host.cli.terminal import Bar

    steps: list[str] = []

    def step(self: Bar, description: str) -> None:
        steps.append(description)
        if len(steps) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(Bar, "step", step)
    faults = tmp_path / "flips.parquet"
    options = ("--memory", "uniform", "--sweep", "ber=0.01,0.02,0.03", "--threads", "1")
    result = weakcell("emulate", *FEW, *options, "--out", tmp_path / "out", "--save-faults", faults)
    assert result.exit_code == 130
    assert "interrupted after 1 of 3 points" in result.stderr
    words = " ".join(result.stderr.split())
    assert f"They are in {tmp_path / 'out'}; the same command starts all points again" in words
    machine = json.loads((tmp_path / "out" / "timings.json").read_text(encoding="utf-8"))["machine"]
    assert machine["matrix_tiles"] == "none"
    if (cpu := Path("/proc/cpuinfo")).exists() and "model name" in cpu.read_text(encoding="utf-8"):
        assert f": {machine['processor']}\n" in cpu.read_text(encoding="utf-8")
    assert "95 % interval" in result.stdout
    kept = pl.read_parquet(tmp_path / "out" / "results.parquet")
    assert kept["sweep_value"].unique().to_list() == [0.01]
    assert json.loads((tmp_path / "out" / "study.json").read_text())["complete"] is False
    assert weakcell("emulate", "--faults", faults).exit_code == 0


def test_ctrl_c_before_anything_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "weakcell.host.study.arguments.resolve_study", lambda *args, **kwargs: (_ for _ in ()).throw(KeyboardInterrupt)
    )
    result = weakcell("emulate", *FEW)
    assert result.exit_code == 130
    assert "Interrupted" in result.stderr


# ── bad input ───────────────────────────────────────────────────────────────────────────────────────


def test_missing_and_damaged_models(tmp_path: Path) -> None:
    whole = (SHIPPED_FOLDER / "digits_bnn.onnx").read_bytes()
    for name, content in (("empty", b""), ("text", b"hello"), ("short", whole[:2000])):
        (tmp_path / f"{name}.onnx").write_bytes(content)
        refused(4, "emulate", tmp_path / f"{name}.onnx", "--data", "digits")
    assert "no such file" in refused(3, "emulate", tmp_path / "none.onnx")
    assert "folder" in refused(3, "emulate", tmp_path)
    assert "digits-bnn" in refused(3, "inspect", "digit-bnn")


def test_bad_memories_and_sweeps(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert "sram-14nm" in refused(5, "emulate", "--memory", "sram", "--out", out)
    refused(5, "emulate", "--memory", "uniform:colour=red", "--out", out)
    refused(5, "emulate", "--memory", "uniform:ber=2", "--out", out)
    refused(5, "emulate", "--memory", "uniform", "--out", out)
    assert "0.75" in refused(5, "emulate", "--sweep", "v_over_vmin=0.7:1:0.1", "--out", out)
    refused(2, "emulate", "--sweep", "v_over_vmin", "--out", out)
    refused(2, "emulate", "--place", "nowhere=uniform:ber=0.1", "--out", out)
    refused(2, "emulate", "--place", "nowhere", "--out", out)
    refused(2, "emulate", "--trials", "0", "--out", out)
    assert weakcell("emulate", "--read-every", "sometimes").exit_code == 2
    assert not out.exists()


def test_bad_data(tmp_path: Path) -> None:
    np.savez(tmp_path / "wide.npz", x=np.zeros((3, 1, 9, 9)))
    np.savez(tmp_path / "half.npz", x=np.full((3, 1, 8, 8), 0.5))
    out = tmp_path / "out"
    assert "(3, 1, 9, 9)" in refused(3, "emulate", "--data", tmp_path / "wide.npz", "--out", out)
    refused(3, "emulate", "--data", tmp_path / "half.npz", "--out", out)
    refused(3, "emulate", "--data", "digit", "--out", out)
    refused(3, "emulate", "--data", tmp_path / "none.npz", "--out", out)
    assert not out.exists()


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refused(6, "emulate", *FEW, "--out", tmp_path / "file")
    refused(6, "emulate", *FEW, "--out", tmp_path / "file" / "below")
    refused(6, "emulate", *FEW, "--save-faults", tmp_path / "none" / "f.csv")
    refused(2, "emulate", *FEW, "--save-faults", tmp_path / "f.txt")
    np.savez(tmp_path / "in.npz", x=np.zeros((1, 1, 8, 8)))
    refused(6, "infer", "digits-bnn", "--input", tmp_path / "in.npz", "--output", tmp_path)


# ── the other commands ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("images", [0, 1, 7])
def test_infer(images: int, tmp_path: Path) -> None:
    np.savez(tmp_path / "in.npz", x=np.arange(images * 64).reshape(images, 1, 8, 8) % 17)
    probe = "/pool2/MaxPool_output_0"
    result = weakcell("infer", "digits-bnn", "--input", tmp_path / "in.npz", "--output", tmp_path / "out.npz", "--probe", probe)
    assert result.exit_code == 0, result.output
    with np.load(tmp_path / "out.npz") as made:
        assert made["logits"].shape == (images, 10)
        assert made[probe].shape[0] == images
    assert "no such value" in refused(
        4, "infer", "digits-bnn", "--input", tmp_path / "in.npz", "--output", tmp_path / "out.npz", "--probe", "nothing"
    )
    assert {file.name for file in tmp_path.iterdir()} == {"in.npz", "out.npz"}


def test_inspect() -> None:
    shown = weakcell("inspect", "digits-bnn").stdout
    for part in ("XNOR-popcount", "59,616", "registers: threshold int32", "memory: conv1.weight"):
        assert part in shown
    anatomy = json.loads(weakcell("inspect", "digits-qnn", "--json").stdout)
    assert anatomy["weight_bits"] == sum(part["bits"] for part in anatomy["parts"]) == 108_672
    assert anatomy["macs"] == 91_776
    listed = weakcell("inspect", "digits-qnn", "--storable").stdout
    for item in anatomy["storable"]:
        assert item["name"] in listed
    assert {item["role"] for item in anatomy["storable"]} == {"weight", "bias", "scale", "zero_point", "buffer", "accumulator"}
    assert {item["role"] for item in anatomy["storable"] if item["default"]} == {"weight"}


def test_memories() -> None:
    shown = weakcell("memories").stdout
    for name in ("uniform", "sram-14nm", "sram-28nm-kc705b", "published"):
        assert name in shown
    one = weakcell("memories", "sram-14nm").stdout
    for part in ("v_over_vmin", "0.75 … 1", "Stutz", "computed", "▁"):
        assert part in one
    lines = [json.loads(line) for line in weakcell("memories", "--json").stdout.splitlines()]
    assert {"uniform", "sram-14nm"} <= {line["name"] for line in lines}
    refused(5, "memories", "dram-from-mars")


@pytest.mark.parametrize(
    ("wrapper", "part"), [("secded", "72/64"), ("parity", "word"), ("msb", "triple"), ("interleave", "stride")]
)
def test_wrappers_have_a_page(wrapper: str, part: str) -> None:
    """Named in the list; what it costs, its limits, its options and how it is written; the same as JSON."""
    assert wrapper in weakcell("memories").stdout
    page = weakcell("memories", wrapper).stdout
    for expected in (part, "limits", f"{wrapper}[", "default"):
        assert expected in page
    told = json.loads(weakcell("memories", wrapper, "--json").stdout)
    assert told["name"] == wrapper
    assert told["options"]


@pytest.mark.parametrize(
    ("memory", "sweep"),
    [
        ("sram-28nm-vc707", "vdd=0.54:0.56:0.01"),
        ("dram:vendor=B", "trcd=6:8:1"),
        ("rram:g_low=1,g_high=10", "time=1,86400,172800"),
        ("sttram:delta=60,inferences_per_write=1000", "tau=4:8:2"),
        ("fefet", "domains=50,100,200"),
    ],
)
@pytest.mark.parametrize("model", ["digits-bnn", "digits-qnn"])
def test_every_technology_runs_on_the_shipped_networks(model: str, memory: str, sweep: str) -> None:
    from weakcell import emulate

    result = emulate(model, memory=memory, sweep=sweep, trials=2, images=60)
    rates = result.summary["flip_rate"].to_list()
    assert len(rates) == 3
    assert max(rates) > 0
    assert result.summary["energy"].null_count() == 0
    assert (result.summary["access_latency_ns"].null_count() == 0) == (not memory.startswith("sram"))
    parts = {name for name in result.frame.columns if name.startswith("energy_pJ[")}
    assert parts == ({"energy_pJ[read]", "energy_pJ[write]"} if "inferences_per_write" in memory else
                     {"energy_pJ[read]"} if not memory.startswith("sram") else set())  # fmt: skip


def test_options_that_agree_with_a_fault_list_are_accepted(tmp_path: Path) -> None:
    """Brackets, ? and * in a file's name are no patterns; the printed command may repeat options of the first one."""
    for name in ("f[1].parquet", "what? [a-c]*.csv"):
        flips = tmp_path / name
        assert weakcell("emulate", *FEW, "--memory", "uniform:ber=0.02", "--save-faults", flips).exit_code == 0
        again = weakcell("emulate", *FEW, "--memory", "uniform:ber=0.02", "--faults", flips)
        assert again.exit_code == 0, again.output


def test_ctrl_c_while_starting_leaves_no_traceback() -> None:
    """The first import of the command line is interrupted, as by a key that is pressed too early."""
    program = """
import builtins, sys
usual = builtins.__import__
def interrupted(name, *rest):
    if name == "weakcell.host.cli":
        raise KeyboardInterrupt
    return usual(name, *rest)
from weakcell.__main__ import main
builtins.__import__ = interrupted
main()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_near_misses_of_losses_and_data_sets_are_suggested() -> None:
    assert "did you mean mcel" in refused(2, "train", "--loss", "mcell")
    stopped = weakcell("download", "fashon")
    assert (stopped.exit_code, stopped.stderr.strip().partition(":")[0]) == (2, "Error")
    assert "Did you mean fashion-mnist?" in stopped.stderr


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.EMFILE, "Too many open files", "weights.onnx"), ("Too many open files", "weights.onnx", "ulimit -n")),
        (OSError(errno.EIO, "Input/output error"), ("Input/output error",)),
        (PanicException('an `Err` value: Os { code: 24, kind: TooManyOpenFiles, message: "Too many open files" }'), ("ulimit -n",)),
        (RuntimeError("can't start new thread"), ("thread", "ulimit -u")),
        (CompilationFailed("kernels.add cannot be compiled: TypingError"), ("kernels.add", "NUMBA_")),
    ],
)
def test_what_the_machine_refuses_is_one_paragraph(
    error: BaseException, said: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise error

    alone = typer.Typer()
    alone.command()(refuse)
    monkeypatch.setattr("weakcell.host.cli._command", lambda name: typer.main.get_command(alone))
    result = CliRunner().invoke(app, ["infer"])
    assert result.exit_code == 1
    assert result.stderr.count("Error: weakcell infer: ") == 1
    assert "Traceback" not in result.stderr
    assert all(word in result.stderr for word in said), result.stderr
