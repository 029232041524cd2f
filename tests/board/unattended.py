"""Characterize a virtual board that loses power, hangs for good and warms up, for a simulated time: is any point wrong or lost?

python -m tests.board.unattended --hours 24
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from weakcell.host.board.characterization.dump import Dump, open_dump
from weakcell.host.board.characterization.patterns import parse_contents
from weakcell.host.board.characterization.points import Outcome, Record, make_plan
from weakcell.host.board.characterization.power_cycle import open_power_cycle
from weakcell.host.board.characterization.rig import CharacterizationRig, characterize
from weakcell.host.board.characterization.supply import OnChipSupply
from weakcell.host.board.link.link import Link
from weakcell.host.board.link.transport import Transport
from weakcell.host.board.virtual.faults import FaultyBoard, Misbehaviour
from weakcell.host.board.virtual.virtual_board import VirtualBoard
from weakcell.memmodels.address import popcount

PAGES, WEAK_CELLS = 8, 40
VOLTAGES = (0.9, 0.8, 0.7, 0.6)


@dataclass
class SimulatedHours:
    """A line to a virtual board whose time passes when the board is low, or silent.

    Attributes:
        board: the board.
        seconds: the time.
    """

    board: VirtualBoard
    seconds: float = 0.0

    def write(self, data: bytes) -> None:
        self.board.write(data)

    def read(self, timeout_s: float) -> bytes:
        before = self.board.machine.now_us()
        answer = self.board.read(timeout_s)
        self.seconds += timeout_s if not answer else max(self.board.machine.now_us() - before, 0) / 1e6
        self.board.machine.celsius = 25.0 + min(self.seconds / 3600, 10.0)  # one degree an hour, ten at most
        return answer

    def close(self) -> None:
        """Close nothing."""

    def release(self) -> None:
        """Hold no line."""

    def pull(self, line: str, seconds: float) -> None:
        self.seconds += seconds
        self.board.pull(line, seconds)


def flip_weak_cells(board: FaultyBoard, volts: float) -> None:
    """Flip some cells, always the same, below 0.65 V."""
    if volts < 0.65:
        cells = np.random.default_rng(3).choice(PAGES * 256 * 8, WEAK_CELLS, replace=False)
        np.bitwise_xor.at(board.arena, cells // 64, np.uint64(1) << (cells % 64).astype(np.uint64))


def run_unattended(
    folder: Path, hours: float, misbehaviour: Misbehaviour, seed: int = 1
) -> tuple[list[Record], Dump, SimulatedHours]:
    """Characterize with dwells of 4 s until the simulated time is over; returns the records of all points."""
    line = SimulatedHours(VirtualBoard("rp2350", flip_weak_cells, "flash", misbehaviour=misbehaviour, seed=seed))
    transport: Transport = line
    repeats = max(1, round(hours * 3600 / 4.0 / (2 * len(VOLTAGES)) / 5))
    plan = make_plan("retention", voltages=VOLTAGES, dwells=(3.9, 3.95, 3.98, 3.99, 4.0), patterns=("zeros", "ones"),
                     repeats=min(repeats, 5), pages=PAGES, nominal=1.10)  # fmt: skip
    contents = {name: parse_contents(name, PAGES) for name in plan.patterns}
    run = {"identity": {"chip": "rp2350", "memory": None, "virtual": True, "supply": "on-chip"}, "plan": vars(plan)}
    words = {name: each.words(0, PAGES) for name, each in contents.items()}
    records: list[Record] = []
    dumps: list[Dump] = []
    while True:
        dumps.append(open_dump(folder / f"run{len(dumps)}", run, words, False))
        cycle = open_power_cycle("rts", transport)
        rig = CharacterizationRig(Link(transport, retries=4), OnChipSupply(), contents, attempts=4, power_cycle=cycle)
        records += characterize(rig, plan, dumps[-1], yes=True)
        if line.seconds >= hours * 3600:
            return records, dumps, line


def count_wrong(records: list[Record]) -> int:
    """Return how many counted read-backs hold other errors than the weak cells'."""
    wrong = 0
    for record in records:
        if record.errors is not None:
            expected = WEAK_CELLS if record.point.vdd < 0.65 else 0
            wrong += sum(popcount(errors) != expected for errors in record.errors)
    return wrong


def read_log(dump: Dump) -> list[dict[str, Any]]:
    """Return the attempts that were logged."""
    return [json.loads(line) for line in (dump.path / "attempts.jsonl").read_text().splitlines()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=24.0)
    parser.add_argument("--power-loss", type=float, default=0.02)
    parser.add_argument("--lock-up", type=float, default=0.01)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        failing = Misbehaviour(hang=0.01, reset=0.01, power_loss=options.power_loss, lock_up=options.lock_up)
        records, dumps, line = run_unattended(Path(folder), options.hours, failing, options.seed)
        ends = Counter(str(record.outcome) for record in records)
        attempts = Counter(str(failure.outcome) for record in records for failure in record.failures)
        print(f"{line.seconds / 3600:.1f} h, {len(records)} points: {dict(ends)}; failed attempts {dict(attempts)}")
        cycles = sum(each["power_cycles"] for dump in dumps for each in read_log(dump))
        print(f"resets {line.board.resets}, power cycles {cycles}; wrong read-backs {count_wrong(records)}")
        assert Outcome.NO_RESPONSE not in {record.outcome for record in records}


if __name__ == "__main__":
    main()
