"""Fit memory profiles from a shell.

    python -m weakcell.memmodels.fitting RECORDING.npz PROFILE.toml [--rows 1024 --columns 16 --line 512] [--law vdd]
    python -m weakcell.memmodels.fitting --coverage [--dies 400]

The first command fits recorded read-backs and writes a profile. The second fits simulated dies and prints how often the 95 %
intervals contain the true constants (`coverage.py`).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from weakcell.memmodels.error_model.structure import Bank
from weakcell.memmodels.fitting.counts import LINE
from weakcell.memmodels.fitting.coverage import print_coverage
from weakcell.memmodels.fitting.fit import extract_readbacks, fit
from weakcell.memmodels.recording import load


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one of the commands at the head of this module."""
    parser = argparse.ArgumentParser(
        prog="python -m weakcell.memmodels.fitting", description="Fit a memory profile to recorded read-backs."
    )
    parser.add_argument("recording", nargs="?")
    parser.add_argument("profile", nargs="?")
    parser.add_argument("--rows", type=int, default=1024)
    parser.add_argument("--columns", type=int, default=16)
    parser.add_argument("--line", type=int, default=LINE, help="cells of a line: errors may come in bad lines")
    parser.add_argument("--law", help="the condition that a probit runs over")
    parser.add_argument("--unit", default="")
    parser.add_argument("--coverage", action="store_true", help="fit simulated dies and count how often intervals hold the truth")
    parser.add_argument("--dies", type=int, default=400)
    parser.add_argument("--only", help="with --coverage: one structure")
    options = parser.parse_args(arguments)
    if options.coverage:
        print_coverage(options.dies, options.only)
        return
    if not options.recording or not options.profile:
        parser.error("give RECORDING.npz and PROFILE.toml, or --coverage")
    bank = Bank(options.rows, options.columns)
    readbacks = extract_readbacks(load(options.recording))
    fitted = fit(readbacks, bank, options.law, unit=options.unit, name=str(options.profile), line=options.line)
    fitted.profile.save(options.profile)
    print(fitted)


if __name__ == "__main__":
    main()
