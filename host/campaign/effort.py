"""What a campaign will take before it is run: runs, seconds, bytes of memory and of disk."""

from __future__ import annotations

from dataclasses import dataclass

from weakcell.host.board.memory.studies import estimate_board_seconds, list_board_ports, open_boards
from weakcell.host.campaign.campaign import Campaign
from weakcell.host.study.estimate import estimate
from weakcell.host.study.results import placed_tensors
from weakcell.host.study.study import ResolvedStudy

_STORE_BYTES, _STORE_BYTES_PER_TENSOR = 76, 6
_TABLE_BYTES, _TABLE_BYTES_PER_TENSOR = 330, 9
"""Measured: a run in the store; and in the tables written at the end, nearly all of which is CSV."""


@dataclass(frozen=True)
class Effort:
    """seconds: wall time on `workers` workers, without compilation and start. runs: at most, where a half width may need fewer.

    board_seconds: besides, at most, through boards, which do one run after the other.
    """

    studies: int
    points: int
    runs: int
    missing: int
    workers: int
    seconds: float
    memory_bytes: int
    disk_bytes: int
    board_seconds: float


def effort_of(campaign: Campaign, workers: int, missing: int, processes: bool = False) -> Effort:
    """Time a few images on each network under each read policy, and scale up. missing: runs that are not there yet.

    Boards are asked how fast they are; nothing is lowered to find out.
    """
    samples: dict[tuple[str, str], tuple[float, int]] = {}
    seconds, memory, board_seconds = 0.0, 0, 0.0
    for study in campaign.studies:
        if list_board_ports(study):
            with open_boards(study, None):
                board_seconds += estimate_board_seconds(study)
            continue
        kind = study.workload.key, str(study.study.read_every)
        if kind not in samples:
            found = estimate(study, 1)
            samples[kind] = found.seconds / study.jobs, found.memory_bytes
        per_trial, resident = samples[kind]
        seconds += per_trial * len(study.points) * campaign.trials
        memory = max(memory, resident)
    share = missing / campaign.runs
    return Effort(
        len(campaign.studies),
        len(campaign.cells),
        campaign.runs,
        missing,
        workers,
        seconds * share / workers,
        memory * (workers + 1 if processes else 1),
        round(sum(_bytes_of_run(study) * study.jobs for study in campaign.studies)),
        board_seconds * share,
    )


def _bytes_of_run(study: ResolvedStudy) -> float:
    tensors = len(placed_tensors(study))
    return _STORE_BYTES + _TABLE_BYTES + tensors * (_STORE_BYTES_PER_TENSOR + _TABLE_BYTES_PER_TENSOR)
