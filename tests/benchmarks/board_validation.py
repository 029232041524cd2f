"""The margin bounds against flips that a virtual board's SRAM made; prints a Markdown table, exits with 1 on a violation.

    python tests/benchmarks/board_validation.py [--reads 60]

Every read streams all weights of digits-bnn through the board's arena: written, voltage lowered and restored, read back.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from weakcell.host.board.link.link import Link
from weakcell.host.board.link.ports import open_port
from weakcell.host.board.memory.board_memory import BoardMemory
from weakcell.host.study.study import Point, Study, resolve_study
from weakcell.host.validation.trials import validate_study
from weakcell.memmodels.catalogue import parse_spec
from weakcell.memmodels.memory import Memory

CAMPAIGN = [
    ("rp2350", 0.55, "sram-28nm-vc707:vdd=0.55"),
    *((chip, vdd, f"uniform:ber={ber}") for chip, vdd in (("rp2350", 0.60), ("rp2040", 0.80)) for ber in (0.0005, 0.002, 0.006)),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reads", type=int, default=60)
    reads = parser.parse_args().reads
    resolved = resolve_study(Study(memory=parse_spec("uniform:ber=0"), sweep=None, trials=reads))
    print("| board | cells | reads | passes | flips | corollary-2: non-vacuous, near | pair | greedy | violations |")
    print("|---|---|---|---|---|---|---|---|---|")
    violation_count = 0
    for seed, (chip, vdd, cells) in enumerate(CAMPAIGN):
        with Link(open_port(f"virtual:{chip}", cells, seed)) as link:
            board = BoardMemory(link, vdd, 0.0001)

            def memories(point: Point, trial: int, board: BoardMemory = board) -> Sequence[Memory]:
                return [board]

            found = validate_study(resolved, memories=memories, threads=1)
            counters = board.counters
        pairs = " | ".join(f"{check.non_vacuous:,}, {check.near:,}" for check in found.checks)
        print(
            f"| {chip} at {vdd:.2f} V | `{cells}` | {reads} | {counters.passes} | {counters.memory_flips:,} | {pairs} | "
            f"{found.violation_count} |",
            flush=True,
        )
        violation_count += found.violation_count
        assert counters.device_errors == 0
    raise SystemExit(1 if violation_count else 0)


if __name__ == "__main__":
    main()
