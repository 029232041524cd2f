"""Characterize virtual boards whose regulators are bypassed, slow, noisy, stop at a floor or ignore writes.

python -m tests.board.lying_regulators --runs 1000        prints every wrong statement, and must print none
python -m tests.board.lying_regulators --first-steps      floors within two steps of nominal, measured at one of these steps

The truth is the core voltage of the virtual board: the lowest that a pulse reached. `ok` is wrong if that was more than 30 mV
above the commanded voltage. `voltage not reached` is wrong if it was less than 18 mV above when the count began, 0.35 ms
before the end of the dwell. Half a regulator step, 25 mV, is what the host promises; the rest is noise.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

from weakcell.host.board.characterization.experiments import Experiment
from weakcell.host.board.characterization.patterns import parse_contents
from weakcell.host.board.characterization.points import Outcome, Point
from weakcell.host.board.characterization.rig import CharacterizationRig, measure_point
from weakcell.host.board.characterization.supply import OnChipSupply
from weakcell.host.board.link.link import Link
from weakcell.host.board.virtual.rail import RailFaults
from weakcell.host.board.virtual.virtual_board import VirtualBoard

_OK_WITHIN, _NOT_REACHED_BEYOND = 0.030, 0.018
_PAGES = 4


@dataclass
class Result:
    """What the host said of a board.

    Attributes:
        outcomes: how often each.
        wrong: statements that are not true.
    """

    outcomes: Counter[Outcome] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


def draw_faults(seed: int) -> RailFaults:
    """Draw how a regulator lies; every fourth is honest but for noise."""
    random = Random(seed)
    noise = random.choice([0.0, 0.0005, 0.001, 0.002, 0.01])
    match seed % 4:
        case 0:
            return RailFaults(noise=noise)
        case 1:
            return RailFaults(bypassed=random.random() < 0.5, floor_v=random.uniform(0.55, 1.1), noise=noise)
        case 2:
            return RailFaults(fall_v_per_s=10 ** random.uniform(0, 3), noise=noise)
        case _:
            return RailFaults(ignored_writes=random.uniform(0.05, 0.5), fall_v_per_s=random.choice([0.0, 200.0]), noise=noise)


def draw_floor(seed: int) -> RailFaults:
    """Draw a floor within two steps of nominal."""
    random = Random(seed)
    return RailFaults(floor_v=random.uniform(1.0, 1.1), noise=random.choice([0.0, 0.0005, 0.001, 0.002]))


def check_board(seed: int, faults: RailFaults, steps: Sequence[int] = ()) -> Result:
    """Measure some points of a board and compare what the host says with the core voltage.

    Args:
        seed: of the board and of what is measured.
        faults: how the regulator lies.
        steps: how far below the nominal code to measure, in this order; empty: four codes are drawn.
    """
    random, result = Random(seed + 1), Result()
    board = VirtualBoard(random.choice(["rp2040", "rp2350"]), rail=faults, seed=seed)
    link = Link(board)
    rig = CharacterizationRig(link, OnChipSupply(), {"ones": parse_contents("ones", _PAGES, 0)}, Experiment.RETENTION)
    nominal = board.type.regulator.nominal_code
    drawn = sorted(random.sample(range(board.type.regulator.minimum_code, nominal), 4), reverse=True)
    for index, code in enumerate([nominal - step for step in steps] or drawn):
        volts, dwell = board.type.regulator.volts(code), 10 ** random.uniform(-3, -1)
        record = measure_point(rig, Point(index, volts, dwell, "ones", 1), _PAGES)
        result.outcomes[record.outcome] += 1
        above = board.lowest_of_pulse - volts
        if record.outcome is Outcome.OK and above > _OK_WITHIN:
            result.wrong.append(f"seed {seed}: ok at {volts:.2f} V, the core came to {board.lowest_of_pulse:.3f} V; {faults}")
        counted = board.machine.clocks.counted[-2]  # before, while low, after
        if record.outcome is Outcome.NOT_REACHED and counted < volts + _NOT_REACHED_BEYOND:
            result.wrong.append(f"seed {seed}: not reached at {volts:.2f} V, the core was at {counted:.3f} V; {faults}")
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--first-steps", action="store_true")
    options = parser.parse_args()
    outcomes: Counter[Outcome] = Counter()
    wrong = 0
    for seed in range(options.first, options.first + options.runs):
        faults = draw_floor(seed) if options.first_steps else draw_faults(seed)
        result = check_board(seed, faults, [1 + seed % 2] if options.first_steps else ())
        outcomes += result.outcomes
        wrong += len(result.wrong)
        for line in result.wrong:
            print(line, flush=True)
        if seed % 50 == 49:
            print(seed + 1, dict(outcomes), flush=True)
    print(f"{options.runs} boards: {dict(outcomes)}; wrong {wrong}")


if __name__ == "__main__":
    main()
