"""`weakcell doctor`: check what is installed and which boards answer, say what to do about the rest, and compile kernels ahead."""

from __future__ import annotations

from typing import Annotated

import typer

from weakcell.host.cli.options import DryRun, JsonEvents, Quiet


def doctor(
    compile_kernels: Annotated[
        bool, typer.Option("--compile", help="Only compile the kernels of common networks, so that no later run waits for them.")
    ] = False,
    dry_run: DryRun = False,
    as_json: JsonEvents = False,
    quiet: Quiet = False,
) -> None:
    """Look at packages, firmware images, serial ports and boards; the emulator itself needs none of them."""

    from weakcell.host.board.doctor import run_checks
    from weakcell.host.cli.terminal import emit, show

    if compile_kernels:
        _compile_kernels(dry_run, as_json)
        return
    signs = {"ok": "ok", "missing": "--", "silent": "??"}
    for finding in run_checks():
        if as_json:
            emit("finding", **vars(finding))
            continue
        show(f"{signs[finding.state]}  {finding.what}: {finding.found}")
        if finding.do and not quiet:
            show(f"      {finding.do.rstrip('.')}")


def _compile_kernels(dry_run: bool, as_json: bool) -> None:
    """Compile all kernels of `known_kernels.txt` that have no machine code yet, and say where it is kept."""
    from weakcell.host.cli.terminal import emit, show, show_plan
    from weakcell.memmodels.cached_code import cache_folders
    from weakcell.memmodels.errors import OutputError
    from weakcell.memmodels.native.kernel_cache import list_missing_kernels, prepare_kernels, wait_for_kernels
    from weakcell.memmodels.native.known_kernels import all_kernels

    folders, kernels = cache_folders("kernels"), all_kernels()
    if not folders:
        raise OutputError("machine code of kernels", "no folder can be written", "Name one with NUMBA_CACHE_DIR")
    if dry_run:
        count = len(list_missing_kernels(kernels))
        text = f"{count} of {len(kernels)} kernels would be compiled into {folders[-1]}."
        show_plan(text, as_json, kernels=len(kernels), missing=count, folder=str(folders[-1]))
        return
    missing = prepare_kernels(kernels)
    wait_for_kernels(missing)
    if as_json:
        emit("compiled", kernels=len(kernels), compiled=len(missing), folder=str(folders[-1]))
    else:
        show(f"ok  machine code of {len(kernels)} kernels is in {folders[-1]}; {len(missing)} were compiled now")
