"""`weakcell doctor`: check what is installed and which boards answer, and say what to do about the rest."""

from __future__ import annotations

from typing import Annotated

import typer


def doctor(as_json: Annotated[bool, typer.Option("--json", help="NDJSON events on stdout instead of lines.")] = False) -> None:
    """Look at packages, firmware images, serial ports and boards; the emulator itself needs none of them."""

    from weakcell.host.board.doctor import run_checks
    from weakcell.host.cli.terminal import emit, show

    signs = {"ok": "ok", "missing": "--", "silent": "??"}
    for finding in run_checks():
        if as_json:
            emit("finding", **vars(finding))
            continue
        show(f"{signs[finding.state]}  {finding.what}: {finding.found}")
        if finding.do:
            show(f"      {finding.do.rstrip('.')}")
