"""The command line: one thin function per command. Heavy modules are imported inside the commands, so that `--help` is fast.

Every WeakcellError becomes one paragraph on stderr and its exit code; anything unexpected keeps its traceback.
"""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from host.cli.board import app as board
from host.cli.characterize import characterize
from host.cli.doctor import doctor
from host.cli.download import download
from host.cli.emulate import emulate
from host.cli.explain import explain
from host.cli.firmware import app as firmware
from host.cli.infer import infer
from host.cli.inspect import inspect
from host.cli.margins import margins
from host.cli.memories import memories
from host.cli.optimize import optimize
from host.cli.predict import predict
from host.cli.rank import rank
from host.cli.report import report
from host.cli.sweep import sweep
from host.cli.train import train
from host.cli.validate import validate

_EXAMPLES = """
\b
Examples:
  weakcell emulate                                  the embedded example: digits on 14 nm SRAM over its supply voltage
  weakcell emulate digits-qnn --memory uniform --sweep ber=1e-5:1e-1:x10
  weakcell emulate net.onnx --data test.npz --memory sram-14nm:v_over_vmin=0.85 --trials 59 --out results
  weakcell memories sram-14nm

\b
Exit codes:
  0 done   1 other error   2 usage: an option or sweep that cannot be understood   3 a file or data set that is missing,
  damaged or does not fit   4 a model that is invalid or not supported   5 an unknown memory or key, or a value outside
  a law's valid range   6 results that cannot be written   7 a memory that cannot answer   8 a board that is missing or
  answers wrongly   9 a link that loses bytes   10 a voltage refused or not confirmed   130 Ctrl-C
"""


class WeakcellGroup(TyperGroup):
    """A group of commands that turns our errors into a paragraph and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            typer.echo("Interrupted.", err=True)
            raise typer.Exit(130) from None
        except BrokenPipeError:
            raise typer.Exit(1) from None
        except Exception as error:
            errors = sys.modules.get("memmodels.errors")
            if errors is None or not isinstance(error, errors.WeakcellError):
                raise
            from host.cli.screen import show_error

            show_error(error)
            raise typer.Exit(error.exit_code) from None


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
app.command(short_help="Accuracy and energy over a memory's operating points.")(emulate)
app.command(short_help="Campaigns of many runs, kept and gone on with.")(sweep)
app.command(short_help="The command that reproduces one row of a campaign.")(explain)
app.command(short_help="Results as one self-contained page.")(report)
app.command(short_help="The operating point of lowest energy that may be used.")(optimize)
app.command(short_help="Fault-free integer inference.")(infer)
app.command(short_help="What a network is made of and what a memory will hold.")(inspect)
app.command(short_help="Memory technologies and how each number is known.")(memories)
app.command(short_help="A board's flips over its voltage, and the profile they fit.")(characterize)
app.command(short_help="A data set's published files, checked.")(download)
app.command(short_help="Networks that tolerate errors: losses, flips in training, export, verdict.")(train)
app.command(short_help="What is installed, which boards answer, and what to do about the rest.")(doctor)
app.add_typer(board, name="board", short_help="A Pico or Pico 2, real or virtual.")
app.add_typer(firmware, name="firmware", short_help="Firmware images for the boards.")
app.command(short_help="Accuracy over the operating points, worked out without faults.")(predict)
app.command(short_help="Which layers and bits cost most accuracy per flip.")(rank)
app.command(short_help="Margins, tolerances and certificates of a network on data.")(margins)
app.command(short_help="The margin bounds against every flip of a memory.")(validate)


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"weakcell {version('weakcell')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Run trained quantized and binarized networks with their weights in a memory that makes mistakes."""


def main() -> None:
    """The entry point of `weakcell`."""
    app()
