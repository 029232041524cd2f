"""A simulated time for boards and what drives them."""

from __future__ import annotations

from weakcell.host.board.characterization.bench_supply import HostDrivenSupply


class Clock:
    """A time that passes when somebody sleeps."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds

    def drive(self, supply: HostDrivenSupply) -> HostDrivenSupply:
        """Let a supply live in this time."""
        supply.clock, supply.sleep = self, self.sleep
        return supply
