"""`board:PORT` as a memory's name; an entry point in `weakcell.kinds` registers this module.

board:auto:vdd=0.7          board:/dev/ttyUSB0:vdd=0.7,dwell_s=0.1          board:socket://10.0.0.7:5000:vdd=0.7
board:virtual:rp2350[sram-28nm-vc707]:vdd=0.55
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from weakcell.host.board.boards import BOARDS
from weakcell.host.board.link.protocol import MAX_DWELL_US, PAGE_WORDS
from weakcell.host.board.memory.board_memory import BoardMemory, PassRecord
from weakcell.host.board.memory.session import PROCESS_SESSIONS, PortSession
from weakcell.memmodels.address import Layout, Words
from weakcell.memmodels.definition import Condition, Technology, no_cost
from weakcell.memmodels.memory import Accesses, ConditionValue, Cost, Key, Memory, ReadReport, Region, RegionStore
from weakcell.memmodels.sampling.sampler import Sampler


def technology_of(port: str) -> Technology:
    """Return the conditions of the board at a port.

    Which board it is shows only when the port is opened, at the first read. Until then every voltage and size that some board
    allows is accepted; the board refuses the rest.
    """
    regulators = [board.regulator for board in BOARDS.values()]
    low, high = min(one.minimum_v for one in regulators), max(one.nominal_v for one in regulators)
    step, kib = min(one.step_mv for one in regulators) / 1000, max(board.map.arena_bytes for board in BOARDS.values()) // 1024
    return Technology(
        name=f"board:{port}",
        title=f"the board at {port}",
        conditions=(
            Condition("vdd", "V", f"core voltage while low, in steps of {step:.2f}", high, low=low, high=high),
            Condition("dwell_s", "s", "how long it stays low", 0.01, low=0.0, high=MAX_DWELL_US / 1e6),
            Condition("kib", "KiB", "only the first so many of the arena; all of it if not given", low=1, high=kib),
            Condition("read_all", "", "read every page back, not only those whose CRC changed", "no", choices=("no", "yes")),
        ),
        terms=lambda conditions: (),
        cost=no_cost,
        law="what the cells of this board do: written, lowered, restored, read back",
        source="this board",
        basis="computed" if port.startswith("virtual:") else "measured",
        sweep="vdd",
        notes="One die, whatever die is asked for. Networks larger than the arena go through it in passes, which share cells.",
    )


def open_memory(port: str, conditions: Mapping[str, ConditionValue], seed: int, die: int, array: int) -> Memory:
    """Open the board at an operating point; seed, die and array make no difference."""
    return SharedBoard(PROCESS_SESSIONS.get(port), technology_of(port).resolve(conditions))


@dataclass(frozen=True, eq=False)
class SharedBoard:
    """A board at one operating point, read through its port's session.

    Attributes:
        session: the port.
        conditions: `vdd` (V), `dwell_s`, `kib`, `read_all`.
        regions: what was written; shared by all operating points.
    """

    session: PortSession
    conditions: Mapping[str, ConditionValue]
    regions: RegionStore = field(default_factory=lambda: RegionStore(PAGE_WORDS), repr=False)

    def at(self, **conditions: ConditionValue) -> SharedBoard:
        """Return the same memory at another operating point."""
        resolved = technology_of(self.session.port).resolve({**self.conditions, **conditions})
        return SharedBoard(self.session, resolved, self.regions)

    def write(self, bits: Words, layout: Layout, key: Key) -> Region:
        """Store a region on the host; the board gets it at each read."""
        return self.regions.write(bits, layout, key)

    def read(self, region: Region, key: Key, out: Words) -> ReadReport:
        """Send a region through the board and return what came back in `out`; see `BoardMemory.read`."""
        with self.session.lock:
            passes: list[PassRecord] = []
            report = self._memory(passes).read(region, key, out)
            if self.session.recorder is not None:
                self.session.recorder.add(region, self.conditions, np.array(out), report, passes)
        return report

    def _memory(self, passes: list[PassRecord]) -> BoardMemory:
        values: dict[str, Any] = dict(self.conditions)
        return BoardMemory(
            self.session.link,
            values["vdd"],
            values["dwell_s"],
            values["read_all"] == "yes",
            kib=round(values["kib"]) if "kib" in values else None,
            counters=self.session.counters,
            log=passes,
        )

    def sampler(self, region: Region) -> Sampler | None:
        """Return None: what comes back cannot be sampled without the board."""
        return None

    def cost(self, region: Region, accesses: Accesses) -> Cost:
        """Return no cost: the energy of a board's SRAM is unknown."""
        return Cost()
