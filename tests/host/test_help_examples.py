"""Every example of every `--help`, and the walks of `anchors.md`, run as they are printed, in one folder and in this order.

The files that they name are made first: `net.onnx` is a shipped network. Work is kept small: fewer images, trials and samples. What
needs hardware, another machine or minutes is checked with `--dry-run`, or by the exit code that says what is missing.
"""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from tests.host.test_cli import _commands_with_options
from tests.host.test_import_tables import retention_table, share
from weakcell import load_data
from weakcell.host.cli import app
from weakcell.host.study.networks import SHIPPED_FOLDER

SMALL = {"--trials": "2", "--check-trials": "2", "--images": "10", "--samples": "2"}
"""Values of options that every command gets where it has them."""
NO_BOARD = 8
ON_A_BOARD = ("weakcell emulate --memory board:auto", "weakcell characterize --out pico2", "weakcell characterize --vdd")
ONLY_PLANNED = (
    "weakcell download",
    "weakcell train",
    "weakcell optimize",
    "weakcell sweep campaign.toml --out results --cluster",
    "weakcell characterize --port virtual",
    "weakcell report results --figures figures",
    "weakcell report campaign --figures",
)
"""Examples that take minutes, load files or need another machine: `--dry-run` is added."""
ELSEWHERE = ("weakcell memories --plots", "weakcell emulate fashion-bnn")
"""Examples that `test_curves` and `test_shipped_networks` run."""


def examples() -> dict[str, list[str]]:
    """Return the examples of each help page, a command each; continued lines are joined."""
    pages = {}
    for names in ("", *(names for names, _ in _commands_with_options())):
        text = CliRunner().invoke(app, [*names.split(), "--help"]).stdout
        (part,) = re.findall(r"^ *Examples?:\n((?:.+\n)+)", text, re.MULTILINE) or [""]
        lines = part.replace("\\\n", " ").splitlines()
        found = [" ".join(piece.split()) for line in lines if line.strip().startswith("weakcell ") for piece in line.split("&&")]
        pages[names] = sorted(found, key=lambda text: " file:" in text or "--check " in text)  # files of other examples
    walks = (Path(__file__).parents[2] / ".github/docs/anchors.md").read_text(encoding="utf-8").partition("## Three walks")[2]
    pages["walks"] = re.findall("^weakcell .*", walks, re.MULTILINE)
    return pages


def make_files() -> None:
    """Write the files that the examples name into the current folder."""
    data = load_data("digits")
    x = np.asarray(data.x[:20])
    shutil.copy(SHIPPED_FOLDER / "digits_bnn.onnx", "net.onnx")
    np.savez("test.npz", x=x, y=np.asarray(data.y[:20]))
    np.savez("images.npz", x=x)
    Path("runs.toml").write_text("[run]\ndata = 'digits'\n", encoding="utf-8")
    volts = np.arange(0.85, 0.53, -0.05)
    thresholds, written = np.random.default_rng(5).normal(0.6, 0.05, 16_000), np.arange(2_000).astype(np.uint8)
    read = np.stack([written ^ np.packbits(thresholds > volt, bitorder="little") for volt in volts])
    np.savez("readbacks.npz", vdd=volts, written=written, read=read, nominal=1.0)
    retention_table(Path("retention.csv"), np.random.default_rng(5), {f"90C_{s}s": share(s, 90) for s in (4, 16, 64, 256)})


def make_small(arguments: list[str], known: set[str]) -> list[str]:
    """Give the options of `SMALL` their values; a validation goes without its prediction."""
    for option, value in SMALL.items():
        if option in arguments:
            arguments[arguments.index(option) + 1] = value
        elif option in known and arguments[0] != "train":
            arguments += [option, value]
    return [*arguments, "--no-predict"] if arguments[0] == "validate" else arguments


def test_every_example_runs_as_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_files()
    commands: dict[str, Any] = dict(_commands_with_options())
    pages = examples()
    assert sum(map(len, pages.values())) > 35
    for page, texts in sorted(pages.items(), key=lambda item: item[0] == "memories"):
        if texts and page != "report":  # it reports what `sweep` left
            shutil.rmtree("results", ignore_errors=True)
        for text in texts:
            run(text, commands)


def run(example: str, commands: dict[str, Any]) -> None:
    """Run an example; its exit code is 0, or that of a board which is missing."""
    if example.startswith(ELSEWHERE):
        return
    command, _, target = example.partition(" > ")
    arguments = shlex.split(command)[1:]
    known = {option for parameter in commands[arguments[0]].params for option in parameter.opts}
    arguments = make_small(arguments, known)
    if example.startswith(ONLY_PLANNED) and "--dry-run" not in arguments:
        arguments.append("--dry-run")
    if " file:" in example:
        shutil.copytree("theirs", "pico2", dirs_exist_ok=True)
        shutil.copy("theirs/profile.npz", "profile.npz")
        shutil.copy("theirs/profile.toml", "law.toml")
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == (NO_BOARD if example.startswith(ON_A_BOARD) else 0), f"{example}\n{done.output}"
    if target:
        campaign = done.stdout.partition('[[memory]]\nspec = "dram"')[0].replace('[[network]]\nmodel = "digits-qnn"\n', "")
        campaign = campaign.replace("trials = 100", "trials = 2").replace("0.75:1.0:0.025", "0.75:1.0:0.125")
        campaign = re.sub(r'(model = "digits-bnn")', "\\1\nimages = 10", campaign)
        Path(target).write_text(campaign, encoding="utf-8")
