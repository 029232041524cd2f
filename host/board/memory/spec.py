"""`board:PORT`, or `board:virtual:rp2350[SPEC]`, as a memory's name: an entry point in `weakcell.kinds` registers this module.

board:auto:vdd=0.7          board:/dev/ttyUSB0:vdd=0.7,dwell_s=0.1          board:socket://10.0.0.7:5000:vdd=0.7
board:virtual:rp2350[sram-28nm-vc707]:vdd=0.55
"""

from __future__ import annotations

from collections.abc import Mapping

from weakcell.host.board.link.protocol import MAX_DWELL_US
from weakcell.host.board.memory.session import SharedBoard, session_of
from weakcell.memmodels.definition import Condition, Technology, free_of_charge
from weakcell.memmodels.memory import ConditionValue, Memory

_CONDITIONS = (
    Condition("vdd", "V", "core voltage while low, in steps of 0.05", 1.10, low=0.55, high=1.10),
    Condition("dwell_s", "s", "how long it stays low", 0.01, low=0.0, high=MAX_DWELL_US / 1e6),
    Condition("kib", "KiB", "only the first so many of the arena; all of it if not given", low=1, high=512),
    Condition("read_all", "", "read every page back, not only those whose CRC changed", "no", choices=("no", "yes")),
)


def technology_of(port: str) -> Technology:
    """What a board can be asked for."""
    return Technology(
        name=f"board:{port}",
        title=f"the board at {port}",
        conditions=_CONDITIONS,
        terms=lambda conditions: (),
        cost=free_of_charge,
        law="what the cells of this board do: written, lowered, restored, read back",
        source="this board",
        basis="computed" if port.startswith("virtual:") else "measured",
        sweep="vdd",
        notes="One die, whatever die is asked for. Networks larger than the arena go through it in passes, which share cells.",
    )


def open_memory(port: str, conditions: Mapping[str, ConditionValue], seed: int, die: int, array: int) -> Memory:
    """The board at an operating point; its port is opened when it is first read. Seed, die and array do not matter."""
    return SharedBoard(session_of(port), technology_of(port).resolve(conditions))
