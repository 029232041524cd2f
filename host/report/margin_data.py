"""Margins of a report's networks, from one fault-free pass over the images of the runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from weakcell.memmodels.errors import InputError, WeakcellError

_STEPS = 200


@dataclass(frozen=True)
class NetworkRequest:
    """A network and its data as a study named them.

    Attributes:
        model, data, images, task, output: options of `weakcell emulate`; None if not given.
        identity: `Workload.identity`, which shows whether network and data are unchanged.
    """

    model: str
    data: str | None
    images: int | None
    identity: dict[str, Any]
    task: str | None = None
    output: str | None = None

    @property
    def name(self) -> str:
        """Network and data in words."""
        return f"{self.identity['model']} on {self.identity['data']}"


@dataclass(frozen=True, eq=False)
class NetworkMargins:
    """Margins of one network's predictions, one value per image, ascending.

    Attributes:
        shares: of the largest possible score.
        flips: bits of the output layer that may flip without changing a prediction.
    """

    name: str
    shares: npt.NDArray[np.float64]
    flips: npt.NDArray[np.int64]

    @property
    def caption(self) -> str:
        """Medians and ties as a sentence."""
        tied = int((self.shares <= 0).sum())
        ties = f", {tied:,} images with a tie" if tied else ""
        return f"{self.name}: median {100 * float(np.median(self.shares)):.3g} %, {float(np.median(self.flips)):.4g} flips{ties}"


def cumulative_shares(values: npt.NDArray[Any]) -> tuple[list[float], list[float]]:
    """Return some of the values, and the percentage of all values that are at most as large."""
    at = np.unique(np.linspace(0, len(values) - 1, _STEPS).round().astype(int))
    share = 100 * np.searchsorted(values, values[at], side="right") / len(values)
    return [float(f"{x:.5g}") for x in values[at]], [float(f"{y:.5g}") for y in share]


def measure_margins(
    networks: Sequence[NetworkRequest], data_dir: Path | None
) -> tuple[tuple[NetworkMargins, ...], tuple[str, ...]]:
    """Return the margins of the networks that still exist unchanged, and for the others the reason."""
    margins, missing = list[NetworkMargins](), list[str]()
    for network in networks:
        try:
            margins.append(_margins(network, data_dir))
        except WeakcellError as error:
            missing.append(f"{network.name}: {error.found}")
    return tuple(margins), tuple(missing)


def _margins(network: NetworkRequest, data_dir: Path | None) -> NetworkMargins:
    from weakcell.emulator.tasks import Asked
    from weakcell.host.analysis.margins import report_margins
    from weakcell.host.study.workload import open_workload

    workload = open_workload(network.model, network.data, network.images, data_dir, asked=Asked(network.task, network.output))
    for part, what in (("weights_sha256", "network"), ("data_sha256", "data")):
        if workload.identity[part] != network.identity[part]:
            raise InputError(f"Margins of {network.name}", f"the {what} changed since it ran", "Run it again")
    frame = report_margins(workload).frame
    return NetworkMargins(network.name, np.sort(frame["relative_margin"].to_numpy()), np.sort(frame["exact"].to_numpy()))
