"""A memory that a campaign file or a results folder names never opens a port on its own. Truth: a listening socket's clients."""

from __future__ import annotations

import socket
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.host.campaigns import campaign_of, run_all
from weakcell import UsageError, sweep
from weakcell.host.cli import app

CAMPAIGN = '[[network]]\nmodel = "digits-bnn"\nimages = 2\n[[memory]]\nspec = "{}"\n'


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        yield server


def _had_a_client(server: socket.socket) -> bool:
    try:
        server.accept()[0].close()
    except TimeoutError:
        return False
    return True


def test_a_campaign_file_opens_a_port_only_with_yes(listener: socket.socket, tmp_path: Path) -> None:
    spec = f"parity+board:socket://127.0.0.1:{listener.getsockname()[1]}"
    path = tmp_path / "c.toml"
    path.write_text(CAMPAIGN.format(spec) + '[[placement]]\nname = "all"\n')
    for words in (["--dry-run"], ["--out", str(tmp_path / "out")]):
        done = CliRunner().invoke(app, ["sweep", str(path), *words])
        assert (done.exit_code, "--yes" in done.output) == (2, True), done.output
    with pytest.raises(UsageError, match="yes"):
        sweep(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not _had_a_client(listener)


def test_a_results_folder_opens_a_port_only_with_yes(listener: socket.socket, tmp_path: Path) -> None:
    """The stored SPEC of a stranger's row is that of a board."""
    run_all(campaign_of("trials = 1\n" + CAMPAIGN.format("uniform:ber=0.1"), tmp_path), tmp_path / "out")
    spec = f"board:socket://127.0.0.1:{listener.getsockname()[1]}"
    with sqlite3.connect(tmp_path / "out" / "runs.sqlite") as db:
        for column in ("asked", "columns"):
            db.execute(f"UPDATE cells SET {column} = replace({column}, 'uniform:ber=0.1', ?)", (spec,))
    db.close()
    done = CliRunner().invoke(app, ["explain", str(tmp_path / "out"), "1", "--run"])
    assert (done.exit_code, "--yes" in done.output) == (2, True), done.output
    assert CliRunner().invoke(app, ["report", str(tmp_path / "out")]).exit_code == 0
    assert not _had_a_client(listener)
