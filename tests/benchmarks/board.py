"""Framed throughput of the in-process virtual boards, each way, and the line rate that the protocol reaches; prints a table.

    python tests/benchmarks/board.py [--rounds 5] [--json FILE]

A round writes 1024 pages of 256 bytes to a virtual board's arena and reads them back, framed and checked, four requests under way.
A figure is the median over rounds, in KB (1000 bytes) of payload per second.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from pathlib import Path

from weakcell.host.board.link.frames import encode
from weakcell.host.board.link.link import Link
from weakcell.host.board.link.protocol import PAGE
from weakcell.host.board.link.transport import BAUD
from weakcell.host.board.virtual.virtual_board import VirtualBoard

PAGES = 1024


def throughput(chip: str, rounds: int) -> dict[str, float]:
    link = Link(VirtualBoard(chip))
    contents = [random.Random(page).randbytes(PAGE) for page in range(PAGES)]
    times: dict[str, list[float]] = {"write": [], "read": []}
    link.write_pages(range(8), contents[:8])
    for _ in range(rounds):
        begun = time.perf_counter()
        link.write_pages(range(PAGES), contents)
        between = time.perf_counter()
        back = link.read_pages(range(PAGES))
        times["read"].append(time.perf_counter() - between)
        times["write"].append(between - begun)
        assert back == contents
    return {way: PAGES * PAGE / 1000 / statistics.median(seconds) for way, seconds in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    found = {chip: throughput(chip, given.rounds) for chip in ("rp2350", "rp2040")}
    for chip, rates in found.items():
        print(f"{chip}: write {rates['write']:.0f} KB/s, read {rates['read']:.0f} KB/s")
    for way, head in (("write", 9), ("read", 10)):
        frame = len(encode(bytes(head + 2) + b"\xff" * PAGE))
        print(f"line at {BAUD} baud, {way}: {PAGE} of {frame} bytes, {100 * PAGE / frame:.1f} % of {BAUD / 10000:.2f} KB/s")
    if given.json:
        given.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
