"""Fuzz readers, and print the log as a table.

    python -m tests.fuzzing spec sweep --inputs 1e6           # some readers; findings go to tests/fuzzing/corpus
    python -m tests.fuzzing --minutes 1                       # every reader, a minute each
    python -m tests.fuzzing --table                           # the table of README.md, from the log

An exit code of 1 says that something was found.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tests.fuzzing.engine import append_row, run
from tests.fuzzing.log import LOG, write_table
from tests.fuzzing.readers import MODULES, get_reader


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("readers", nargs="*", metavar="READER", help=f"default: all of {', '.join(MODULES)}")
    parser.add_argument("--inputs", type=float, default=1e9, help="inputs of each reader")
    parser.add_argument("--minutes", type=float, default=1e9, help="time of each reader")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--log", type=Path, default=LOG, help="file to which a row is appended for each run")
    parser.add_argument("--table", action="store_true", help="write the table into README.md and leave")
    options = parser.parse_args()
    if options.table:
        print(write_table(options.log))
        return 0
    found = 0
    for name in options.readers or MODULES:
        report = run(get_reader(name), int(options.inputs), options.seed, 60 * options.minutes)
        append_row(options.log, report)
        print(report.row, flush=True)
        found += len(report.findings)
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
