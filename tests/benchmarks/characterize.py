"""How long a virtual RP2350 takes to be characterized at one voltage: `python tests/benchmarks/characterize.py`.

256 KiB, one pattern, at several bit error rates: write, lower, restore, read back (one shot), and the fit of its read-backs.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from weakcell.host.board.characterization.dump import open_dump
from weakcell.host.board.characterization.patterns import parse_contents
from weakcell.host.board.characterization.points import make_plan
from weakcell.host.board.characterization.rig import CharacterizationRig, characterize
from weakcell.host.board.characterization.supply import OnChipSupply
from weakcell.host.board.link.link import Link
from weakcell.host.board.link.ports import open_port
from weakcell.host.board.readbacks.analysis import analyze_readbacks
from weakcell.host.board.readbacks.loading import load_run

PAGES = 1024


def main() -> None:
    """Print a table."""
    print("BER       measured (s)   fitted (s)")
    for ber in (0.0, 1e-5, 1e-4, 1e-3, 1e-2):
        measured, fitted = timed(f"uniform:ber={ber},cells=invert")
        print(f"{ber:<8g}  {measured:12.2f}   {fitted:10.2f}")


def timed(spec: str) -> tuple[float, float]:
    """Seconds for the point at 0.6 V, and for the fit of it and its control."""
    link = Link(open_port(f"virtual:rp2350[{spec}]"))
    plan = make_plan("retention", voltages=(0.6,), dwells=(0.01,), patterns=("ones",), repeats=1, pages=PAGES, nominal=1.10)
    contents = {"ones": parse_contents("ones", PAGES)}
    identity = {"chip": "rp2350", "virtual": True, "memory": spec, "supply": "on-chip regulator"}
    with tempfile.TemporaryDirectory() as folder:
        words = {"ones": contents["ones"].words(0, PAGES)}
        dump = open_dump(Path(folder) / "run", {"identity": identity, "plan": vars(plan)}, words, False)
        link.pulse(1, 100)  # the memory's kernels compile
        (_, record) = characterize(CharacterizationRig(link, OnChipSupply(), contents), plan, dump)
        began = time.perf_counter()
        analyze_readbacks(load_run(dump))
        return record.seconds, time.perf_counter() - began


if __name__ == "__main__":
    main()
