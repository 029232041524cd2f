"""Campaigns: files refused with line and reason, runs that are named, kept, gone on with, exported and reproduced."""

from __future__ import annotations

import json
import os
import sqlite3
import tomllib
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from tests.host.campaigns import campaign_of, run_all
from weakcell import emulate
from weakcell.host.campaign.campaign import Campaign
from weakcell.host.campaign.schema import find_lines, read_campaign, write_toml
from weakcell.host.campaign.store import open_store, read_store, run_id
from weakcell.host.campaign.sweep import count_missing
from weakcell.host.cli import app
from weakcell.host.cli.progress import checking
from weakcell.host.cli.sweep import EXAMPLE
from weakcell.memmodels import ErrorTerm, Lifetime
from weakcell.memmodels.errors import InputError, OutputError, UsageError
from weakcell.memmodels.profile import OperatingPoint, Profile

TEXT = """\
trials = 3
seeds = [0, 1]

[[network]]
model = "digits-bnn"
images = 12

[[memory]]
spec = "sram-14nm"
grid = { v_over_vmin = "0.8:0.9:0.05" }

[[memory]]
spec = "dram"
grid = { trcd = [6, 8], vendor = ["A", "B"] }

[[placement]]

[[placement]]
name = "first layer safe"
rules = { "*conv1*" = "uniform:ber=0" }
"""


def weakcell(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(part) for part in arguments])


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    return campaign_of(TEXT, tmp_path_factory.mktemp("campaign"))


@pytest.fixture(scope="module")
def folder(campaign: Campaign, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("out")
    assert run_all(campaign, made) == campaign.runs
    return made


def test_grid_is_crossed(campaign: Campaign) -> None:
    assert len(campaign.studies) == 2 * 2 * 3
    assert len(campaign.cells) == 2 * 2 * (3 + 2 + 2)
    assert len(campaign.workloads) == 1
    assert campaign.labels[0] == "digits-bnn, sram-14nm, placement 1, seed 0"
    assert [point.memory.count("vendor=B") for study in campaign.studies for point in study.points].count(1) == 8


def test_rows_are_those_of_emulate(folder: Path) -> None:
    frame = pl.read_parquet(folder / "results.parquet")
    part = frame.filter(pl.col("study") == "digits-bnn, sram-14nm, first layer safe, seed 1")
    alone = emulate(
        images=12, memory="sram-14nm", sweep="v_over_vmin=0.8:0.9:0.05", place={"*conv1*": "uniform:ber=0"}, trials=3, seed=1
    ).frame
    assert part.select(alone.columns).equals(alone)
    assert frame["row"].to_list() == list(range(1, frame.height + 1))
    assert frame["run"].n_unique() == frame.height
    assert pl.read_csv(folder / "results.csv").height == frame.height


def test_running_again_makes_nothing_and_changes_nothing(campaign: Campaign, folder: Path) -> None:
    before = (folder / "results.csv").read_bytes(), (folder / "results.parquet").read_bytes()
    assert run_all(campaign, folder, workers=1) == 0
    assert before == ((folder / "results.csv").read_bytes(), (folder / "results.parquet").read_bytes())


def test_more_trials_go_on_and_changed_inputs_are_new(tmp_path: Path) -> None:
    small = TEXT.replace("seeds = [0, 1]", "seeds = [0]").replace("[6, 8]", "[6]").replace('["A", "B"]', '["A"]')
    run_all(campaign_of(small, tmp_path), tmp_path / "out")
    more = campaign_of(small.replace("trials = 3", "trials = 5"), tmp_path)
    assert run_all(more, tmp_path / "out") == 2 * len(more.cells)
    for change in (("images = 12", "images = 11"), ("0.8:0.9:0.05", "0.81:0.91:0.05"), ("trcd = [6]", "trcd = [7]")):
        other = campaign_of(small.replace(*change), tmp_path)
        with open_store(tmp_path / "out") as store:
            new = count_missing(other, store)
        assert new > 0
        assert run_all(other, tmp_path / "out") == new
        assert pl.read_parquet(tmp_path / "out" / "results.parquet").height == other.runs
    assert run_all(campaign_of(small, tmp_path), tmp_path / "out") == 0
    assert pl.read_parquet(tmp_path / "out" / "results.parquet")["trial"].max() == 2


def test_batch_counts_only_where_it_matters(tmp_path: Path) -> None:
    for policy, same in (("image", True), ("batch", False)):
        text = f'batch = 7\nread_every = ["{policy}"]\n{TEXT}'
        one, two = (campaign_of(t, tmp_path).cells[0].sha256 for t in (text, text.replace("batch = 7", "batch = 8")))
        assert (one == two) is same


def test_the_contents_of_a_memory_file_count(tmp_path: Path) -> None:
    path = tmp_path / "board.toml"
    text = f'trials = 1\n[[network]]\nmodel = "digits-bnn"\nimages = 2\n[[memory]]\nspec = "file:{path}"\n'
    names = []
    for rate in (0.01, 0.02):
        Profile("board", points=(OperatingPoint({}, (ErrorTerm("die", Lifetime.DIE, rate, rate),)),)).save(path)
        names.append(campaign_of(text, tmp_path).cells[0].sha256)
    assert names[0] != names[1]


def test_explain_reproduces_a_row(folder: Path, tmp_path: Path) -> None:
    frame = pl.read_parquet(folder / "results.parquet")
    row = frame.filter(pl.col("places") != "").row(5, named=True)
    for name in (str(row["row"]), row["run"], row["run"][:8]):
        again = weakcell("explain", folder, name, "--run")
        assert again.exit_code == 0, again.output
        assert again.stdout.splitlines()[-1] == "equal"
    command = again.stdout.splitlines()[0]
    assert command.startswith("weakcell emulate digits-bnn")
    words = [word.strip("'") for word in command.split()[1:]]
    assert weakcell(*words, "--out", tmp_path / "one").exit_code == 0
    assert pl.read_parquet(tmp_path / "one" / "results.parquet")["flips"][0] == row["flips"]
    assert weakcell("explain", folder, "1000000").exit_code == 2
    assert weakcell("explain", tmp_path, "1").exit_code == 3


def test_explain_sees_a_store_that_lies(campaign: Campaign, tmp_path: Path) -> None:
    run_all(campaign, tmp_path / "out")
    with sqlite3.connect(tmp_path / "out" / "runs.sqlite") as db:
        db.execute("UPDATE runs SET changed = changed + 0.5 WHERE trial = 1")
    found = weakcell("explain", tmp_path / "out", "2", "--run")
    assert found.exit_code == 1
    assert "DIFFERENT" in found.stdout


def test_names_of_runs() -> None:
    names = {run_id(cell, trial) for cell in ("a" * 64, "b" * 64) for trial in range(100)}
    assert len(names) == 200


def test_two_sweeps_never_share_a_folder(tmp_path: Path) -> None:
    with open_store(tmp_path / "out"), pytest.raises(OutputError, match="another sweep"), open_store(tmp_path / "out"):
        pass


def test_a_damaged_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "runs.sqlite").write_bytes(b"SQLite format 3\0" + bytes(range(256)) * 20)
    with pytest.raises(OutputError), open_store(tmp_path):
        pass
    with pytest.raises(InputError), read_store(tmp_path / "nowhere"):
        pass


# ── the command ─────────────────────────────────────────────────────────────────────────────────────


def test_sweep_from_the_command_line(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text(TEXT, encoding="utf-8")
    dry = weakcell("sweep", path, "--dry-run", "--out", tmp_path / "out")
    assert dry.exit_code == 0, dry.output
    assert "28 points x 3 trials: 84 runs, 84 of them missing" in dry.stdout
    assert not (tmp_path / "out").exists()
    made = weakcell("sweep", path, "--out", tmp_path / "out", "--json")
    assert made.exit_code == 0, made.output
    events = [json.loads(line) for line in made.stdout.splitlines()]
    assert [event["event"] for event in events].count("run") == 84
    assert events[-1]["event"] == "done"
    assert events[-1]["rows"] == 84
    provenance = json.loads((tmp_path / "out" / "campaign.json").read_text(encoding="utf-8"))
    assert provenance["file"] == TEXT
    assert provenance["versions"]["numpy"] == np.__version__
    again = weakcell("sweep", path, "--out", tmp_path / "out")
    assert "0 runs made; 84 in" in again.stderr
    assert "v_over_vmin" in again.stdout


def test_the_example_is_a_campaign(tmp_path: Path) -> None:
    assert weakcell("sweep", "--example").stdout == EXAMPLE
    assert len(campaign_of(EXAMPLE, tmp_path).cells) == 68


@pytest.mark.parametrize("arguments", [[], ["c.toml"], ["c.toml", "--out", "o", "--threads", "1", "--processes", "1"]])
def test_usage(arguments: list[str]) -> None:
    assert weakcell("sweep", *arguments).exit_code == 2


def test_cluster_addresses_are_checked() -> None:
    pytest.importorskip("distributed")
    from weakcell.host.campaign.cluster import parse_local_workers

    assert parse_local_workers("local:3") == 3
    assert parse_local_workers("tcp://head:8786") is None
    for bad in ("local:0", "local:x", "head:8786"):
        with pytest.raises(UsageError):
            parse_local_workers(bad)


# ── bad files ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("old", "new", "lines"),
    [
        ("trials = 3", "trials = 0", [1]),
        ("trials = 3", "trials = 'three'", [1]),
        ("trials = 3", "trails = 3", [1]),
        ("seeds = [0, 1]", "seeds = [0, -1]", [2]),
        ("seeds = [0, 1]", "seeds = [0, 0]", [8, 12]),
        ('model = "digits-bnn"', 'model = "digit-bnn"', [4]),
        ('model = "digits-bnn"', "", [4]),
        ("images = 12", "images = 12.5", [6]),
        ('spec = "sram-14nm"', 'spec = "sram-13nm"', [9]),
        ('spec = "sram-14nm"', "spec = 14", [9]),
        ("0.8:0.9:0.05", "0.8:0.9:-0.05", [10]),
        ("0.8:0.9:0.05", "0.2:0.9:0.05", [10]),
        ("v_over_vmin", "volts", [10]),
        ("[6, 8]", "[6, 6]", [14]),
        ("[6, 8]", "[6, 'x']", [14]),
        ("[6, 8]", "[]", [14]),
        ("*conv1*", "*conv9*", [20]),
        ("uniform:ber=0", "uniform:ber=2", [20]),
        ("uniform:ber=0", "uniform", [20]),
        ("rules = {", "rules = [", [20]),
        ("[[placement]]\n\n", "[[placement]]\nname = 'x'\n\n[placement]\n", [19]),
        ("trials = 3", "half_width = 0.7\ntrials = 3\nbatch = 0", [1, 3]),
        ('spec = "dram"', "spec = 'nope'\nsize = 1", [13, 14]),
    ],
)
def test_mistakes_are_named_with_their_lines(old: str, new: str, lines: list[int], tmp_path: Path) -> None:
    path, text = tmp_path / "c.toml", TEXT.replace(old, new, 1)
    assert text != TEXT
    path.write_text(text, encoding="utf-8")
    refused = weakcell("sweep", path, "--out", tmp_path / "out")
    assert refused.exit_code == 3, refused.output
    assert "Traceback" not in refused.output
    found = {int(part.partition(":")[0]) for part in refused.stderr.split("  line ")[1:]}
    assert found == set(lines), refused.stderr
    assert not (tmp_path / "out").exists()


JUNK = st.sampled_from(
    ["", "\x00", "é", "[", "]]", "= =", "'''", '"', "1e400", "-1", "nan", "9" * 30, "9" * 5000, "{}", "[[network]]", "true", "# x",
     "1979-05-27", "[a.b]", "spec", "trials = 1", "inf", "{ber = 1}", "\\u12", "🦆", "\t", "0x"]
)  # fmt: skip


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_fuzzed_files_are_refused_with_line_and_reason(data: st.DataObject, tmp_path: Path) -> None:
    lines = TEXT.splitlines()
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(lines) - 1))
        cut = data.draw(st.integers(0, len(lines[at])))
        end = data.draw(st.integers(cut, len(lines[at])))
        lines[at] = lines[at][:cut] + data.draw(JUNK | st.text(max_size=5)) + lines[at][end:]
    path, out = tmp_path / "c.toml", tmp_path / "out"
    path.write_text("\n".join(lines), encoding="utf-8", errors="surrogatepass")
    found = weakcell("sweep", path, "--dry-run", "--out", out)
    assert not out.exists()
    assume(found.exit_code != 0)
    assert found.exit_code == 3, found.output
    assert isinstance(found.exception, SystemExit)
    assert "\n  line " in found.stderr
    assert "Traceback" not in found.output


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[" * 5000, b"x = " + b"[" * 3000 + b"]" * 3000, b"a\x00b"])
def test_bytes_that_are_no_campaign(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_bytes(content)
    with pytest.raises(InputError, match="line 1"):
        read_campaign(path)


def test_lines_of_every_syntax() -> None:
    text = (
        'a = 1\n\n# b = 2\n[t]\nx = """\n[not.a.table]\ny = 1\n"""\nlist = [\n  1,\n  2,\n]\nd.e.f = 3\n[[r]]\nk = {v = 1}\n[[r]]\n'
    )
    found = find_lines(text)
    expected = {
        ("a",): 1, ("t",): 4, ("t", "x"): 5, ("t", "list"): 9, ("t", "list", 1): 9, ("t", "d", "e", "f"): 13, ("r", 0): 14,
        ("r", 0, "k", "v"): 15, ("r", 1): 16,
    }  # fmt: skip
    assert {path: found[path] for path in expected} == expected


# ── folders and files of others ─────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["link", "dangling link", "pipe", "folder"])
def test_a_lock_that_is_no_file_is_refused(kind: str, tmp_path: Path) -> None:
    """Nothing is emptied, followed or waited for: the folder may come from somebody else."""
    target, lock = tmp_path / "precious.txt", tmp_path / "got" / "runs.sqlite.lock"
    lock.parent.mkdir()
    if kind != "dangling link":
        target.write_text("kept")
    match kind:
        case "pipe":
            os.mkfifo(lock)
        case "folder":
            lock.mkdir()
        case _:
            lock.symlink_to(target)
    with pytest.raises(OutputError, match=r"runs\.sqlite\.lock"), open_store(lock.parent):
        pass
    assert target.read_text() == "kept" if target.exists() else kind == "dangling link"


def test_a_lock_is_never_emptied(tmp_path: Path) -> None:
    (tmp_path / "runs.sqlite.lock").write_text("of somebody else")
    with open_store(tmp_path):
        pass
    assert (tmp_path / "runs.sqlite.lock").read_text() == "of somebody else"


@pytest.mark.parametrize(("column", "text"), [("flips", "not json"), ("flips", "{}"), ("flips", "[" * 100_000)])
def test_stored_runs_that_are_no_json_are_refused(campaign: Campaign, tmp_path: Path, column: str, text: str) -> None:
    run_all(campaign, tmp_path)
    with sqlite3.connect(tmp_path / "runs.sqlite") as db:
        db.execute(f"UPDATE runs SET {column} = ?", (text,))
    for command in (("report", tmp_path), ("explain", tmp_path, "1")):
        result = weakcell(*command)
        assert result.exit_code == 6, result.output
        assert not isinstance(result.exception, (ValueError, RecursionError))


def test_a_grid_is_counted_before_it_is_listed(tmp_path: Path) -> None:
    ranges = "".join(f'{key} = "0.01:0.4:0.0001"\n' for key in ("p01", "p10"))
    text = f'[[network]]\nmodel = "digits-bnn"\nimages = 5\n[[memory]]\nspec = "uniform"\n[memory.grid]\n{ranges}'
    with pytest.raises(InputError, match="15,217,801 operating points"):
        campaign_of(text, tmp_path)


def test_a_campaign_given_as_a_mapping_is_written_as_a_file() -> None:
    given = {"trials": np.int64(2), "network": [{"model": Path("a\x7f ü.onnx"), "images": np.array([1, 2]), "é": float("inf")}]}
    assert tomllib.loads(write_toml(given)) == {
        "trials": 2,
        "network": [{"model": "a\x7f ü.onnx", "images": [1, 2], "é": float("inf")}],
    }
    with pytest.raises(InputError, match="NoneType"):
        write_toml({"trials": None})


def test_points_are_checked_without_drawing_anything(campaign: Campaign, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A campaign is resolved without samplers; each point has the name that a campaign of its seed alone gives it."""

    def refuse(*arguments: object) -> None:
        raise AssertionError("a sampler is made")

    monkeypatch.setattr("weakcell.memmodels.simulated.make_sampler", refuse)
    alone = [campaign_of(TEXT.replace("seeds = [0, 1]", f"seeds = [{seed}]"), tmp_path) for seed in (0, 1)]
    assert [cell.sha256 for cell in campaign.cells] == [cell.sha256 for part in alone for cell in part.cells]
    assert len({cell.sha256 for cell in campaign.cells}) == len(campaign.cells)
    assert [study.identity for study in campaign.studies] == [study.identity for part in alone for study in part.studies]


def test_a_long_check_says_how_far_it_is(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    now = 0.0
    monkeypatch.setattr("weakcell.host.cli.progress.time.perf_counter", lambda: now)
    on_study = checking(shown=True)
    for second in (1, 2, 4, 5, 13, 15, 20):
        now = float(second)
        on_study(second * 1000, 20_000)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(":")[1].split()[0] for line in lines] == ["4,000", "15,000"]


def test_few_of_many_mistakes_are_listed(tmp_path: Path) -> None:
    text = TEXT.replace('"0.8:0.9:0.05"', '"0.1:0.6:0.001"')
    with pytest.raises(InputError) as refusal:
        campaign_of(text, tmp_path)
    assert "501 mistakes" in str(refusal.value)
    assert "and 481 more" in str(refusal.value)
    assert str(refusal.value).count("\n") < 25
