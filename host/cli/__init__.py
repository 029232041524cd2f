"""The command line: one module per command. Heavy modules are imported inside the commands, so that `--help` is fast.

A WeakcellError is printed as one paragraph on stderr and sets the exit code; other exceptions keep their traceback.
"""

from __future__ import annotations

import errno
import os
import re
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from weakcell.host.cli.completion import complete_in_bash, set_up_shell
from weakcell.host.cli.encoding import accept_any_text
from weakcell.host.cli.numeric_options import check_numbers
from weakcell.host.cli.options import JsonEvents
from weakcell.host.cli.repeated import refuse_repeated
from weakcell.host.cli.termination import NO_READER, interrupt_on_sigterm, interrupted_code, is_interruption
from weakcell.host.foreign_folder import distrust_current_folder

if TYPE_CHECKING:
    from weakcell.memmodels.errors import WeakcellError

_GROUPS = {
    "Emulate and analyse": {
        "emulate": "Measure accuracy and energy over a memory's operating points.",
        "predict": "Predict accuracy without injecting faults.",
        "infer": "Run a network without faults.",
        "inspect": "Show a network's layers and what a memory stores of it.",
        "margins": "Measure margins and tolerated flips of a network on data.",
        "validate": "Check the margin bounds against the flips of a memory.",
        "rank": "Rank layers and bits by the accuracy they lose per flip.",
        "optimize": "Find the usable operating point of lowest energy.",
    },
    "Campaigns": {
        "sweep": "Run a campaign of many runs; continue it at any time.",
        "explain": "Print the command that reproduces one row of a campaign.",
        "report": "Write results as one self-contained page.",
    },
    "Train": {
        "train": "Train networks that tolerate errors, export and evaluate them.",
        "download": "Download and check the files of a data set.",
    },
    "Memories and boards": {
        "memories": "List memory technologies and how each number is known.",
        "characterize": "Measure a board's flips over its voltage, and fit a profile.",
        "board": "Talk to a Pico or Pico 2, real or virtual.",
        "firmware": "Build firmware images for the boards.",
    },
    "Maintenance": {
        "doctor": "Check what is installed and which boards answer.",
        "help": "Show the help of a command.",
        "version": "Print the version.",
    },
}
"""Commands in the order of `--help`. Each is a module of this package with a function of that name, or with an `app`."""

_COMMANDS = {name: text for commands in _GROUPS.values() for name, text in commands.items()}

_EXAMPLES = """
\b
Examples:
  weakcell emulate
      digits on 14 nm SRAM over its supply voltage
  weakcell emulate digits-qnn --memory uniform --sweep ber=1e-5:1e-1:x10
  weakcell emulate net.onnx --data test.npz --memory sram-14nm --out results
  weakcell memories sram-14nm
"""


_EXIT_CODES = {
    "0": "done",
    "1": "other error",
    "2": "usage: an option or sweep that cannot be understood",
    "3": "a file or data set that is missing, damaged or does not fit",
    "4": "a model that is invalid or not supported",
    "5": "an unknown memory or key, or a value outside a law's valid range",
    "6": "results that cannot be written",
    "7": "a memory that cannot answer",
    "8": "a board that is missing or answers wrongly",
    "9": "a link that loses bytes",
    "10": "a voltage refused or not confirmed",
    "130": "Ctrl-C",
    "141": "the reader of the output left, as head does",
    "143": "SIGTERM",
}


class WeakcellGroup(TyperGroup):
    """Group that imports a command when it is called, and turns errors into a paragraph and an exit code."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        # Typer would read the annotations of all commands at every start; lists and suggestions need only the names
        self.commands: Any = dict.fromkeys(_COMMANDS) | self.commands

    def make_context(self, *arguments: Any, **attributes: Any) -> Any:
        """Parse the command line, which also prints `--help`."""
        try:
            return super().make_context(*arguments, **attributes)
        except BrokenPipeError:
            raise typer.Exit(NO_READER) from None

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the options of the program itself; those of completion may name a shell."""
        if len(args) == 2 and args[0] in ("--install-completion", "--show-completion"):
            with ctx:
                set_up_shell(ctx, *args)
        return list(super().parse_args(ctx, args))

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command, imported when it is first asked for."""
        if cmd_name in self.commands and self.commands[cmd_name] is None:
            self.commands[cmd_name] = _command(cmd_name)
        return self.commands.get(cmd_name)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the commands of `--help` in groups; no command is imported."""
        for title, commands in _GROUPS.items():
            with formatter.section(title):
                formatter.write_dl(list(commands.items()))

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the examples, and the exit codes in as many columns as the terminal has."""
        super().format_epilog(ctx, formatter)
        with formatter.section("Exit codes"):
            formatter.write_dl(list(_EXIT_CODES.items()))

    def invoke(self, ctx: Any) -> Any:
        """Run a command; turn errors into a paragraph and an exit code."""
        try:
            with interrupt_on_sigterm():
                return super().invoke(ctx)
        except typer.Exit:
            raise
        except BrokenPipeError:
            raise typer.Exit(NO_READER) from None
        except BaseException as error:  # polars raises errors that are no Exception
            raise typer.Exit(_explain(error, ctx.invoked_subcommand)) from None


_KEPT = (
    dict.fromkeys(
        ("emulate", "predict", "rank", "validate", "optimize", "infer", "margins", "report"),
        "No results were written; the same command starts again.",
    )
    | dict.fromkeys(("inspect", "explain", "memories", "firmware"), "The same command starts again.")
    | {
        "sweep": "Finished runs are kept; the same command goes on.",
        "train": "Finished runs and epochs are kept; the same command with --resume goes on.",
        "download": "Finished files are kept and not fetched again; the same command goes on.",
        "characterize": "Measured points are kept, and --resume goes on with them; an import (--import) starts again.",
        "board": "No results were written; a board restores its nominal voltage by itself.",
        "doctor": "Kernels that were compiled are kept; the same command goes on.",
    }
)
"""What an interruption leaves of a command that does not say so itself."""


def _explain(error: BaseException, command: str | None = None) -> int:
    """Print what ended a command, and return the exit code; raise the error again if nobody foresaw it."""
    from weakcell.memmodels.errors import Interrupted, WeakcellError

    if is_interruption(error) and not isinstance(error, Interrupted):
        typer.echo(" ".join(["Interrupted.", *filter(None, [_KEPT.get(command or "")])]), err=True)
        return interrupted_code()
    from weakcell.host.cli.little_memory import explain, is_lack_of_memory
    from weakcell.host.cli.terminal import exit_code, show_error

    if not isinstance(error, WeakcellError):
        if is_lack_of_memory(error):
            sys.stderr.write(f"Error: {explain(type(error).__name__)}\n")
            return 1
        error = _find_cause(error, f"weakcell {command or ''}".strip())
    show_error(error)
    return exit_code(error)


def _find_cause(error: BaseException, asked: str) -> WeakcellError:
    """Return an error that the machine or its settings cause as one of the project; raise any other again."""
    from weakcell.memmodels.atomic_files import is_full
    from weakcell.memmodels.errors import WeakcellError
    from weakcell.memmodels.files import reason
    from weakcell.memmodels.native.compilers import CompilationFailed

    if isinstance(error, CompilationFailed):
        do = "Unset the environment variables of Numba (NUMBA_…), if there are any, and report the error if it stays"
        return WeakcellError(asked, reason(error), do)
    if isinstance(error, RuntimeError) and "start new thread" in str(error):
        return WeakcellError(asked, "the system starts no further thread", "Allow more (ulimit -u, the container's limit)")
    if type(error).__name__ == "PanicException" and (said := re.search(r'Os \{ code: (\d+), .*message: "(.*?)"', str(error))):
        error = OSError(int(said[1]), said[2])  # of polars
    if not isinstance(error, OSError) or is_full(error):
        raise error
    files = " and ".join(repr(str(name)) for name in (error.filename, error.filename2) if name is not None)
    do = "Allow more open files (ulimit -n)" if error.errno in (errno.EMFILE, errno.ENFILE) else "Mend that on this machine"
    return WeakcellError(asked, f"{reason(error)}{f' ({files})' if files else ''}", do)


app = typer.Typer(
    cls=WeakcellGroup,
    name="weakcell",
    help="Run trained quantized and binarized networks with their weights in a memory that makes mistakes.",
    epilog=_EXAMPLES,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


def _command(name: str) -> Any:
    """Import a command, or group of commands, and build it with Typer."""
    module, alone = import_module(f"weakcell.host.cli.{name}"), typer.Typer(rich_markup_mode=None)
    if hasattr(module, "app"):
        alone.add_typer(module.app, name=name, short_help=_COMMANDS[name])
    else:
        alone.command(name, short_help=_COMMANDS[name])(getattr(module, name))
    alone.callback()(lambda: None)
    command = typer.main.get_group(alone).commands[name]
    refuse_repeated(command)
    check_numbers(command)
    _name_types(command)
    return command


def _name_types(command: Any) -> None:
    """Show a number with limits as its type; the limits are listed after the text of the option."""
    for inner in getattr(command, "commands", {}).values():
        _name_types(inner)
    for parameter in command.params:
        if parameter.metavar is None and parameter.type.name.endswith(" range"):
            parameter.metavar = f"<{parameter.type.name.removesuffix(' range')}>"


def _show_version(wanted: bool) -> None:
    if wanted:
        import weakcell

        typer.echo(f"weakcell {weakcell.__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Run trained quantized and binarized networks with their weights in a memory that makes mistakes."""


@app.command("help", short_help=_COMMANDS["help"])
def show_help(ctx: typer.Context, command: Annotated[list[str] | None, typer.Argument(metavar="[COMMAND]")] = None) -> None:
    """Show the help of a command, as `weakcell help emulate` or `weakcell help board info`."""
    names = command or []
    app(args=[*names, "--help"], prog_name=ctx.find_root().info_name)


@app.command("version")
def show_version(as_json: JsonEvents = False) -> None:
    """Print the version."""
    if not as_json:
        _show_version(True)
    import weakcell
    from weakcell.host.cli.terminal import emit

    emit("weakcell", release=weakcell.__version__)


def main() -> None:
    """Run `weakcell`."""
    from weakcell.host.cli.little_memory import ROOMY, find_limit, run_within

    accept_any_text()
    distrust_current_folder()
    if os.environ.get("_WEAKCELL_COMPLETE") == "complete_bash":
        complete_in_bash(app)
    limit = find_limit()
    if limit is None or limit >= ROOMY or not hasattr(os, "fork"):
        _run_app()
    else:
        run_within(limit, _run_app)


def _run_app() -> None:
    """Run the command line; a full disk behind standard output ends with one paragraph, a pipe without a reader silently."""
    try:
        try:
            app()
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        _drop_output()
        raise SystemExit(NO_READER) from None
    except OSError as error:
        from weakcell.host.cli.terminal import show_error
        from weakcell.memmodels.atomic_files import is_full
        from weakcell.memmodels.errors import OutputError
        from weakcell.memmodels.files import reason

        if not is_full(error):
            raise
        _drop_output()
        what = error.filename or "standard output, or a temporary file"
        show_error(OutputError(f"Writing {what}", reason(error), "Choose a place that has room"))
        raise SystemExit(OutputError.exit_code) from None


def _drop_output() -> None:
    """Let standard output lead nowhere: Python flushes it once more at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
