"""What the shell offers behind Tab; oracles are the SPEC parser, the help texts, and a real bash."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weakcell.host.board.boards import BOARDS
from weakcell.host.cli.completion import (
    complete_data,
    complete_memory,
    complete_network,
    complete_place,
    complete_port,
    complete_sweep,
    join_pieces,
)
from weakcell.host.study.sweep_values import parse_sweep
from weakcell.memmodels import names, parse_spec
from weakcell.memmodels.errors import MemorySpecError


def context(**parameters: Any) -> Any:
    """What Typer hands to a completion: the parameters that are known so far."""
    return SimpleNamespace(params=parameters)


@pytest.mark.parametrize(
    "spec", ["uniform:ber=0,lifetime=die", "secded[policy=raw]+sram-14nm:v_over_vmin=1", "parity+dram:vendor=B"]
)
def test_every_prefix_of_a_spec_leads_to_it(spec: str) -> None:
    for end in range(len(spec)):
        offers = complete_memory(spec[:end])
        assert any(spec.startswith(offer) or offer.startswith(spec) for offer in offers), spec[:end]


@given(st.sampled_from(names()), st.data())
def test_what_is_offered_is_valid(name: str, data: st.DataObject) -> None:
    """Walk through offers at random. A condition that is offered is known, and its value lies in the valid range."""
    offers = [offer for offer in complete_memory(f"{name}:") if not offer.endswith("=")]
    if not offers:
        return
    spec = data.draw(st.sampled_from(offers))
    try:
        parse_spec(spec)
    except MemorySpecError as error:  # other conditions are missing
        assert not re.search("no condition|valid range|one of|takes a number", str(error)), spec  # noqa: PT017


def test_layers_and_tensors_of_the_network() -> None:
    offers = complete_place(context(model="digits-qnn"), "")
    assert {"/conv1/Conv=", "conv1.weight_quantized=", "/dense4/Gemm@"} <= set(offers)
    assert "/conv1/Conv=uniform" in complete_place(context(model="digits-qnn"), "/conv1/Conv=uni")


def test_conditions_of_a_sweep() -> None:
    assert "ber=0:" in complete_sweep(context(memory="secded+uniform"))
    assert parse_sweep(complete_sweep(context())[0] + "1:0.05").key == "v_over_vmin"


def test_names() -> None:
    assert "digits-bnn" in complete_network()
    assert "fashion-mnist" in complete_data()
    assert {f"virtual:{board}" for board in BOARDS} <= set(complete_port())


@given(st.lists(st.text("ab0.-+[]/", min_size=1).map(lambda text: text.replace("--", "-")), min_size=1), st.data())
def test_pieces_of_bash_become_words_again(parts: list[str], data: st.DataObject) -> None:
    """Bash splits words at colons and equals signs, and keeps runs of them together."""
    words = [word for word in ("".join(data.draw(st.permutations([part, ":", "="]))) for part in parts) if word[-1] not in ":="]
    words = [word for word in words if word[0] not in ":="]
    pieces = [piece for word in words for piece in re.findall("[:=]+|[^:=]+", word)]
    assert join_pieces(pieces) == words


def install(folder: Path, shell: str) -> tuple[dict[str, str], str]:
    """Write the program into a folder; return an environment that finds it, and its script for a shell."""
    program = folder / "weakcell"
    program.write_text(f"#!{sys.executable}\nfrom weakcell.host.cli import main\n\nmain()\n")
    program.chmod(0o755)
    environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "HOME": str(folder)}
    source = {**environment, "_WEAKCELL_COMPLETE": f"source_{shell}"}
    return environment, subprocess.run(["weakcell"], env=source, capture_output=True, text=True, check=True).stdout


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
def test_in_a_real_fish(tmp_path: Path) -> None:
    environment, script = install(tmp_path, "fish")
    line = "weakcell emulate --memory uniform:lifetime=d"
    command = ["fish", "--no-config", "-c", f"{script}\ncomplete -C '{line}'"]
    assert subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.split() == [
        "uniform:lifetime=die"
    ]


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed")
def test_in_a_real_zsh(tmp_path: Path) -> None:
    """The function that zsh calls, with the words as zsh splits them; `_arguments` is where zsh takes the offers."""
    environment, script = install(tmp_path, "zsh")
    test = f"compdef() {{ }}\n{script}\n_arguments() {{ print -r -- $1 }}\n"
    for line, offers in (
        ("ex", {"explain"}),
        ("memories in-p", {"in-place"}),
        ("emulate --memory in-place[c", {"in-place[code=parity"}),
    ):
        words = " ".join(f"'{word}'" for word in ["weakcell", *line.split()])
        call = f"{test}words=({words})\nCURRENT=$#words\n_weakcell_completion"
        done = subprocess.run(["zsh", "-f", "-c", call], env=environment, capture_output=True, text=True, check=True)
        assert offers <= set(re.findall('"([^"]+)"', done.stdout))


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_completion_of_a_named_shell_is_installed(shell: str, tmp_path: Path) -> None:
    """From whatever shell it is called."""
    environment, script = install(tmp_path, shell)
    for option in ("--install-completion", "--show-completion"):
        done = subprocess.run(["weakcell", option, shell], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == script.strip()
    written = [path for path in tmp_path.rglob("*weakcell*") if path.name != "weakcell"]
    assert [path.read_text().strip() for path in written] == [script.strip()]
    assert subprocess.run(["weakcell", "--install-completion", "tcsh"], env=environment, check=False).returncode == 2


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
@pytest.mark.parametrize(
    ("pieces", "offers"),
    [
        (["emulate", "--memory", "uniform", ":", "lifetime", "=", "d"], ["die"]),
        (["emulate", "--memory", "=", "rram-m"], ["rram-mlc", "rram-mlc:"]),
        (["board", "info", "--port", "virtual", ":", "rp2350"], ["rp2350", "rp2350-flash", "rp2350-usb"]),
    ],
)
def test_in_a_real_bash(pieces: list[str], offers: list[str], tmp_path: Path) -> None:
    """The function that bash calls, with the words as bash splits them."""
    environment, script = install(tmp_path, "bash")
    words = " ".join(f"'{piece}'" for piece in ["weakcell", *pieces])
    function = re.search(r"^(\w+)\(\)", script, re.MULTILINE)
    assert function is not None
    test = f"{script}\nCOMP_WORDS=({words})\nCOMP_CWORD={len(pieces)}\n{function[1]} weakcell\nprintf '%s\\n' \"${{COMPREPLY[@]}}\""
    done = subprocess.run(["bash", "--norc", "-c", test], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == offers
