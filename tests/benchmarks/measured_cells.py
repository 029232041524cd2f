"""Judge memory models by accuracy: networks on measured cells against networks on profiles that were fitted to other cells.

    python tests/benchmarks/measured_cells.py --raw FOLDER [--trials 40]

FOLDER holds `ddr4-retention/` and `rram-relaxation/`: tables of the sources that `memmodels/TRUST.md` names.

DDR4: even rows of a module, without the wait in question, are imported (`weakcell characterize --import`) and fitted. The network
is then placed in the odd rows. Each trial takes other rows. In every row as many cells lose a stored 1 as were counted there after
that wait, at random places, since the source has no addresses in a row.
RRAM: every second cell is imported. Each cell of the network (two bits) is then one of the other cells that started within 6 % of
the full scale of its level, with the change that was measured. It is read as the nearest level.

`random` is what a study without a law does: flips of the measured rate, in either direction. Gaps are differences of mean
accuracies over trials, with the standard error of the difference.
"""

from __future__ import annotations

import argparse
import gzip
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from weakcell.emulator.evaluation.trials import run_trial
from weakcell.emulator.faults.placement import place
from weakcell.host.measurements.adapters import import_table
from weakcell.host.study.study import Study, resolve_study
from weakcell.memmodels import Cost, Key, Layout, Memory, MemorySpec, ReadReport, open_memory
from weakcell.memmodels.address import Words, popcount
from weakcell.memmodels.error_model.levels import level_codes
from weakcell.memmodels.memory import Accesses, Region, RegionStore

ROW = 65536
Cells = Callable[[Words, int], Words]
"""(stored words, address of their first cell) -> the words as read."""


class MeasuredMemory:
    """A memory whose cells behave as measured ones did."""

    def __init__(self, cells: Cells) -> None:
        self.cells, self.store, self.conditions = cells, RegionStore(), {}

    def at(self, **conditions: float | str) -> MeasuredMemory:
        return self

    def write(self, bits: Words, layout: Layout, key: Key) -> Region:
        return self.store.write(bits, layout, key)

    def read(self, region: Region, key: Key, out: Words) -> ReadReport:
        out[:] = self.cells(region.stored, region.first_word * 64)
        out[-1:] &= region.layout.last_mask
        return ReadReport(popcount(out ^ region.written))

    def sampler(self, region: Region) -> None:
        return None

    def cost(self, region: Region, accesses: Accesses) -> Cost:
        return Cost()


class Case(NamedTuple):
    """One memory at one operating point.

    name, point: for the table. truth: measured cells of a trial. law: a SPEC, fitted to other cells.
    """

    name: str
    point: str
    truth: Callable[[int], Cells]
    law: str


# --- DDR4 --------------------------------------------------------------------------------------------------------------------


def ddr4_cases(raw: Path, scratch: Path) -> Iterator[Case]:
    for module, waits in (("hyhy0c", (64, 256, 1024)), ("sasa29", (16, 64, 256)), ("hisasa01", (64, 256, 1024))):
        with gzip.open(raw / "ddr4-retention" / f"{module}.csv.gz", "rt") as file:
            comment, header, *rows = file.read().splitlines()
        names, table = header.split(","), [row.split(",") for row in rows]
        for wait in waits:
            column = names.index(f"ones_90C_{wait}s")
            kept = [i for i, name in enumerate(names) if not name.endswith(f"_90C_{wait}s")]
            half = scratch / f"{module}-{wait}.csv"
            half.write_text("\n".join([comment, *(",".join(row[i] for i in kept) for row in [names, *table[::2]])]))
            (fit,) = import_table(half).fits
            profile = fit.profile.save(scratch / f"{module}-{wait}.toml")
            counts = np.array([int(row[column]) for row in table[1::2]])
            truth = partial(lose_ones, counts)
            yield Case(f"DDR4 {module}", f"{wait} s, 90 °C", truth, f"file:{profile}:interval={wait}")


def lose_ones(counts: np.ndarray, trial: int) -> Cells:
    """Rows in a row of the module, other ones in each trial; in each, the counted number of cells at random places."""

    def read(stored: Words, first: int) -> Words:
        bits, at = np.unpackbits(stored.view(np.uint8), bitorder="little"), 0
        while at < bits.size:
            row, inside = divmod(first + at, ROW)
            rng = np.random.default_rng((trial, row))
            weak = np.zeros(ROW, bool)
            weak[rng.choice(ROW, counts[(row + 37 * trial) % counts.size], replace=False)] = True
            part = bits[at : at + ROW - inside]
            part[weak[inside : inside + part.size]] = 0
            at += part.size
        return np.packbits(bits, bitorder="little").view(np.uint64)

    return read


# --- RRAM --------------------------------------------------------------------------------------------------------------------


def rram_cases(raw: Path, scratch: Path) -> Iterator[Case]:
    relaxed, baked = {"C": (40.0, "g_100000s")}, {"A": (240.0, 220.0), "C": (40.0, 140.0)}
    for technology, (scale, name) in relaxed.items():
        comment, names, table = read_rows(raw / "rram-relaxation" / f"{technology}_relax.csv.gz")
        profile = import_half(scratch / f"{technology}-relax.csv", comment, names, table)
        start, end = (np.array([float(row[names.index(key)] or "nan") for row in table[1::2]]) / scale for key in ("g_0s", name))
        time = name[2:-1]
        for bits in (2,):
            yield Case(
                f"RRAM {technology}, {bits} bit",
                f"{float(time):g} s",
                move(start, end - start, bits),
                f"{profile}:time={time},bits_per_cell={bits}",
            )
    for technology, (scale, degrees) in baked.items():
        comment, names, table = read_rows(raw / "rram-relaxation" / f"{technology}_bake.csv.gz")
        table = [row for row in table if float(row[names.index("t_after_s")]) > 1000]
        profile = import_half(scratch / f"{technology}-bake.csv", comment, names, table)
        others = [row for row in table[1::2] if float(row[names.index("temp_c")]) == degrees]
        start, end = (np.array([float(row[names.index(key)]) for row in others]) / scale for key in ("g_before", "g_after"))
        for bits in (2,):
            yield Case(
                f"RRAM {technology}, {bits} bit",
                f"baked at {degrees:g} °C",
                move(start, end - start, bits),
                f"{profile}:bake={degrees},bits_per_cell={bits}",
            )


def read_rows(path: Path) -> tuple[str, list[str], list[list[str]]]:
    with gzip.open(path, "rt") as file:
        comment, header, *rows = file.read().splitlines()
    return comment, header.split(","), [row.split(",") for row in rows]


def import_half(path: Path, comment: str, names: list[str], table: list[list[str]]) -> str:
    """Import every second row; return the SPEC of the profile."""
    path.write_text("\n".join([comment, *(",".join(row) for row in [names, *table[::2]])]))
    (fit,) = import_table(path).fits
    return f"file:{fit.profile.save(path.with_suffix('.toml'))}"


def move(start: np.ndarray, change: np.ndarray, bits: int) -> Callable[[int], Cells]:
    """Cells that move as measured cells near their level did."""
    top = (1 << bits) - 1
    whole = np.isfinite(change)
    near = [change[whole & (np.abs(start - level / top) < 0.06)] for level in range(top + 1)]
    codes = level_codes(top + 1, "gray")

    def of_trial(trial: int) -> Cells:
        def read(stored: Words, first: int) -> Words:
            rng = np.random.default_rng((trial, first))
            plain = np.unpackbits(stored.view(np.uint8), bitorder="little").reshape(-1, bits)
            level = np.argsort(codes)[(plain.astype(int) << np.arange(bits)).sum(axis=1)]
            moved = np.empty(level.size)
            for one, changes in enumerate(near):
                at = level == one
                moved[at] = rng.choice(changes, int(at.sum()))
            found = np.clip(np.rint(level + moved * top), 0, top).astype(int)
            plain = ((codes[found][:, None] >> np.arange(bits)) & 1).astype(np.uint8)
            return np.packbits(plain.reshape(-1), bitorder="little").view(np.uint64)

        return read

    return of_trial


# --- accuracy ----------------------------------------------------------------------------------------------------------------


class Network:
    """A shipped network with its test data, on any memory."""

    def __init__(self, name: str) -> None:
        workload = resolve_study(Study(name, None, MemorySpec("uniform", {"ber": 0.0}), sweep=None)).workload
        self.plan, self.evaluation = workload.plan, workload.questions
        self.placement = place(self.plan.network, MemorySpec("uniform", {"ber": 0.0}))

    def accuracies(self, memory: Callable[[int], Memory], trials: int) -> tuple[np.ndarray, float]:
        """Return the accuracy of each trial in points, and the flip rate."""
        runs = [
            run_trial(self.plan, self.placement, self.evaluation, trial=trial, memories=[memory(trial)]) for trial in range(trials)
        ]
        flips, bits = (sum(sum(getattr(run, key).values()) for run in runs) for key in ("flips", "bits_read"))
        return np.array([100 * run.accuracy for run in runs]), flips / bits


def compare(truth: np.ndarray, other: np.ndarray) -> str:
    """Return the difference of means with its standard error."""
    error = np.hypot(truth.std(ddof=1), other.std(ddof=1)) / np.sqrt(truth.size)
    return f"{other.mean() - truth.mean():+.2f} ± {error:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--raw", type=Path, required=True)
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--cells", choices=("ddr4", "rram"), help="only these")
    options = parser.parse_args()
    networks = {"BNN": Network("digits-bnn"), "QNN": Network("digits-qnn")}
    gaps: dict[str, list[float]] = {"law": [], "random": []}
    headings = ("cells", "point", "network", "flip rate", "law off by (decades)", "accuracy on measured cells", "gap of the law")
    print("|", " | ".join((*headings, "gap of random flips")), "|")
    print("|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        kinds = {"ddr4": ddr4_cases, "rram": rram_cases}
        chosen = [cases for name, cases in kinds.items() if options.cells in (None, name)]
        for case in (case for cases in chosen for case in cases(options.raw, Path(scratch))):
            for name, network in networks.items():
                truth, rate = network.accuracies(lambda trial, c=case: MeasuredMemory(c.truth(trial)), options.trials)
                law, said = network.accuracies(lambda trial, c=case: open_memory(c.law, 1, trial), options.trials)
                random, _ = network.accuracies(
                    lambda trial, r=rate: open_memory(f"uniform:ber={r!r},lifetime=die", 1, trial), options.trials
                )
                gaps["law"].append(law.mean() - truth.mean())
                gaps["random"].append(random.mean() - truth.mean())
                off = f"{np.log10(said / rate):+.3f}" if rate and said else "no flips"
                mean = f"{truth.mean():.2f} %"
                cells = (case.name, case.point, name, f"{rate:.2g}", off, mean, compare(truth, law), compare(truth, random))
                print("|", " | ".join(cells), "|", flush=True)
    print()
    for name, found in gaps.items():
        print(
            f"{name}: largest gap {np.abs(found).max():.2f}, mean {np.abs(found).mean():.2f} points over {len(found)} comparisons"
        )


if __name__ == "__main__":
    main()
