"""Energy saved at a limited loss, by technology and network: what `weakcell optimize` finds, beside BERA; prints a Markdown table.

    python tests/benchmarks/operating_points.py digits-bnn digits-qnn
    python tests/benchmarks/operating_points.py fashion-bnn --data-dir DIR --images 500 --memory dram sram-14nm

Whatever is found is put to 200 dies that nothing has seen; more than 15 that lose more than the limit reject it. BERA's assignment
is put to the same dies. Where they reject it, its budget of loss is halved until they do not: what it costs to make it hold.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from weakcell.host.campaign.optimize import (
    Search,
    assign_layerwise,
    default_values,
    find_nominal,
    open_search,
)
from weakcell.host.campaign.optimize import optimize as find
from weakcell.host.campaign.optimum import Candidate, Goal, Optimum, ScreenedCandidate, Setting
from weakcell.host.study.study import Study
from weakcell.host.study.sweep_values import parse_sweep
from weakcell.host.study.workload import Workload, open_workload
from weakcell.memmodels.catalogue import parse_spec
from weakcell.memmodels.errors import WeakcellError

TECHNOLOGIES = (
    ("sram-14nm", "v_over_vmin", None),
    ("sram-28nm-kc705b", "vdd", "vdd=0.53:0.62:0.01"),
    ("sram-28nm-vc707", "vdd", "vdd=0.54:0.62:0.01"),
    ("dram:vendor=A,p_in_line=0.02", "vdd", "vdd=1.1:1.35:0.025"),
    ("rram:g_low=1,time=86400,energy=window", "g_high", "g_high=5,10,15,20,25,30,35,40"),
    ("sttram:tau_d=1,v_write=0.5,resistance=3000,inferences_per_write=1", "pulse", "pulse=2,3,4,5,6,7,8,10"),
    ("fefet", "domains", "domains=50,75,100,150,200,300"),
)
HEAD = ("memory", "network", "chosen", "energy", "saved", "fresh dies (bad)", "bad of 200 further dies", "one condition for all",
        "BERA (bad of the same 200)", "BERA made to hold")  # fmt: skip
GOAL = Goal()
FURTHER_DIES, MOST_BAD = 200, 15
FIRST_FURTHER_DIE = 5_000_000
HALVINGS = 4


def bad_of_further(search: Search, candidate: Candidate) -> int:
    ready, point = search.resolve(candidate)
    return sum(drop > GOAL.max_drop for drop in search.measure_drops(ready, point, FIRST_FURTHER_DIE, FURTHER_DIES))


def bera_made_to_hold(
    search: Search, uniform: list[ScreenedCandidate], fallback: Setting
) -> Iterator[tuple[float, ScreenedCandidate, int]]:
    """(budget, assignment, bad dies) for smaller and smaller budgets, until one holds."""
    for halving in range(HALVINGS + 1):
        budget = GOAL.max_drop / 2**halving
        found = assign_layerwise(search, uniform, replace(GOAL, max_drop=budget), fallback)
        bad = bad_of_further(search, found.candidate)
        yield budget, found, bad
        if bad <= MOST_BAD:
            return


def row_of(search: Search, found: Optimum) -> list[str]:
    if found.chosen is None or found.saving is None:
        return [f"none confirmed in {len(found.tests)} tests"]
    chosen, test, key = found.chosen, found.tests[-1], search.key
    over = bad_of_further(search, chosen.candidate)
    uniform = [one for one in found.screened if one.how == "one condition"]
    best = min((one for one in uniform if one.likely_passes(GOAL.max_drop)), key=lambda one: one.energy)
    apart = "".join(f", {layer} {setting}" for layer, setting in chosen.candidate.own.items())
    first = held = ""
    if found.bera is not None:
        tried = list(bera_made_to_hold(search, uniform, best.candidate.setting))
        budget, last, bad = tried[-1]
        first = f"{tried[0][1].energy:.4g} ({tried[0][2]})"
        held = f"{last.energy:.4g}, budget {100 * budget:g} points" if bad <= MOST_BAD else f"not at {100 * budget:g} points"
    return [
        f"{key}={chosen.candidate.value:g}{apart}", f"{chosen.energy:.4g} {chosen.unit}",
        f"{100 * found.saving:.1f} % against {key}={found.nominal.candidate.value:g}", f"{test.dies} ({test.bad})",
        f"{over}{'' if over <= MOST_BAD else ' REJECTED'}", f"{best.energy:.4g} at {best.candidate.value:g}", first, held,
    ]  # fmt: skip


def optimize(workload: Workload, model: str, memory: str, key: str, swept: str | None) -> list[str]:
    spec = parse_spec(memory)
    try:
        values = parse_sweep(swept).values if swept else default_values(spec, key)
        search = open_search(workload, Study(model=model, memory=spec, sweep=None), key)
        return row_of(search, find(search, values, GOAL, find_nominal(spec, key, values)))
    except WeakcellError as error:
        return [str(error)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--images", type=int)
    parser.add_argument("--sweep", metavar="KEY=VALUES", help="candidates, instead of the table's")
    parser.add_argument("--memory", nargs="+", default=[memory for memory, _, _ in TECHNOLOGIES], help="beginnings of their names")
    given = parser.parse_args()
    print(f"| {' | '.join(HEAD)} |")
    print("|---" * len(HEAD) + "|")
    for model in given.models:
        workload = open_workload(model, None, given.images, given.data_dir)
        for memory, key, swept in TECHNOLOGIES:
            if memory.startswith(tuple(given.memory)):
                began = time.perf_counter()
                row = optimize(workload, model, memory, key, given.sweep or swept)
                print(f"| `{memory}` | {model} | {' | '.join(row)} |", flush=True)
                print(f"{time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
