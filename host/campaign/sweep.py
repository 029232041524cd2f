"""Run a campaign: find the runs that are missing, have an executor make them, and keep them as they arrive.

In the first stage every point gets its first trials. With a half width, the trials made so far decide how many the point gets in
the next stage; further stages follow while its interval is too wide. Memory does not grow with the number of runs.

`estimate_effort` says beforehand what a campaign will take.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field

from weakcell.host.board.inference.studies import find_board_network, measure_seconds_per_image
from weakcell.host.board.memory.studies import estimate_board_seconds, list_board_ports, open_boards
from weakcell.host.campaign.campaign import Campaign, Cell
from weakcell.host.campaign.stopping import FIRST_STAGE, find_control_variate, trials_needed, wants_covariate
from weakcell.host.campaign.store import Store
from weakcell.host.study.estimate import estimate
from weakcell.host.study.executors import Executor, Task, TaskResult, make_task
from weakcell.host.study.results import cell_columns, placed_tensors
from weakcell.host.study.results_folder import describe_machine
from weakcell.host.study.study import ResolvedStudy

TARGET_SECONDS = 0.25
"""What a task should take: long against sending it, short against losing it."""

_MOST_TRIALS = 256


@dataclass(frozen=True)
class SweepProgress:
    """State of a sweep after a task.

    Attributes:
        cell: the task's cell.
        done: the task's results.
        finished: runs that are stored.
        needed: runs that are known to be needed.
    """

    cell: Cell
    done: TaskResult
    finished: int
    needed: int


def run_campaign(
    campaign: Campaign, store: Store, executor: Executor, command: list[str], on_step: Callable[[SweepProgress], None] | None = None
) -> int:
    """Run everything that is missing in the store; finished runs stay stored whatever happens.

    Args:
        campaign: what to run.
        store: where runs are stored.
        executor: runs the trials.
        command: the command line, stored with the runs.
        on_step: called after each task.

    Returns:
        How many runs were made.
    """
    numbers = register_campaign(campaign, store, command)
    work = _Work(campaign, store, executor, numbers, on_step)
    first = campaign.trials if campaign.half_width is None else min(FIRST_STAGE, campaign.trials)
    needed = [first] * len(campaign.cells)
    work.make(needed)
    if campaign.half_width is not None:
        while (more := _plan_trials(campaign, store, numbers, needed, first)) != needed:
            needed = more
            work.make(needed)
        with store.db:  # one transaction for all
            store.db.executemany(
                "INSERT OR REPLACE INTO facts VALUES (?, ?)",
                [(f"trials {cell.sha256}", str(n)) for cell, n in zip(campaign.cells, needed, strict=True)],
            )
    return work.made


def _plan_trials(campaign: Campaign, store: Store, numbers: list[int], made: list[int], first: int) -> list[int]:
    """Return how many trials each cell should have, based on its runs; the same numbers once all intervals are narrow."""
    cells = zip(campaign.cells, numbers, made, strict=True)
    return [_trials_needed(campaign, cell, store, number, count, first) for cell, number, count in cells]


def _trials_needed(campaign: Campaign, cell: Cell, store: Store, number: int, made: int, first: int) -> int:
    """Return how many trials a cell should have; its first stage decides whether a covariate is used."""
    assert campaign.half_width is not None
    runs = list(store.runs(number, made))
    scores = [run.score for run in runs]
    known: list[float] | None = None
    if wants_covariate(scores[:first], campaign.half_width, campaign.trials) and (
        control := find_control_variate(cell.resolved, cell.point)
    ):
        place = placed_tensors(cell.resolved).index(control.tensor)
        known = [run.flips[place] - control.expected for run in runs]
        store.set_fact(f"control {cell.sha256}", asdict(control))
    return trials_needed(scores, campaign.half_width, campaign.trials, known, first_stage=first)


def register_campaign(campaign: Campaign, store: Store, command: list[str]) -> list[int]:
    """Store the campaign's facts and cells; return the store's number of each cell."""
    store.set_fact("file", campaign.text)
    store.set_fact("title", campaign.title)
    store.set_fact("command", command)
    store.set_fact("machine", describe_machine())
    store.set_fact("networks", list_networks(campaign))
    stage = None if campaign.half_width is None else min(FIRST_STAGE, campaign.trials)
    plan = {"labels": campaign.labels, "trials": campaign.trials, "half_width": campaign.half_width, "first_stage": stage}
    store.set_fact("campaign", plan)
    with store.db:
        store.db.execute("DELETE FROM facts WHERE name LIKE 'trials %' OR name LIKE 'control %'")
    return store.register_cells(
        (cell.sha256, cell.study, placed_tensors(cell.resolved), cell_columns(cell.resolved, cell.point), emulate_options(cell))
        for cell in campaign.cells
    )


def list_networks(campaign: Campaign) -> list[dict[str, object]]:
    """Return every network with its data: the options that name them, and their `Workload.identity`."""
    first = {study.workload.key: study for study in reversed(campaign.studies)}
    return [
        {
            "model": s.study.model,
            "data": s.study.data,
            "images": s.study.images,
            "identity": s.workload.identity,
            "task": s.study.task,
            "output": s.study.output,
        }
        for s in reversed(first.values())
    ]


def emulate_options(cell: Cell) -> dict[str, object]:
    """Return the options of `weakcell emulate` that run this cell, except for the trial."""
    study, specs = cell.resolved.study, cell.point.placement.arrays
    return {
        "model": study.model,
        "data": study.data,
        "memory": str(specs[0]),
        "place": [f"{target}={spec}" for target, spec in study.places],
        "read_every": str(study.read_every),
        "batch": study.batch,
        "seed": study.seed,
        "die": study.die,
        "images": study.images,
        "task": study.task,
        "output": study.output,
    }


def count_missing(campaign: Campaign, store: Store) -> int:
    """Return how many runs of the campaign are not stored; fewer may do if there is a half width."""
    known: dict[str, int] = dict(store.db.execute("SELECT sha256, id FROM cells").fetchall())
    there = sum(store.count_runs(known[cell.sha256], campaign.trials) for cell in campaign.cells if cell.sha256 in known)
    return campaign.runs - there


@dataclass(eq=False)
class _Work:
    campaign: Campaign
    store: Store
    executor: Executor
    numbers: list[int]
    on_step: Callable[[SweepProgress], None] | None
    made: int = 0
    finished: int = 0
    needed: int = 0
    pace: dict[str, float] = field(default_factory=dict)

    def make(self, trials: list[int]) -> None:
        """Run the trials of each cell that are missing.

        Args:
            trials: for each cell, how many of its first trials are needed.
        """
        cells = self.campaign.cells
        self.needed = sum(trials)
        self.finished = sum(self.store.count_runs(number, most) for number, most in zip(self.numbers, trials, strict=True))
        if self.finished == self.needed:
            return
        for done in self.executor.run(self._tasks(trials)):
            cell = cells[done.cell]
            self._learn(cell.resolved, done)
            self.store.add_runs(self.numbers[done.cell], placed_tensors(cell.resolved), done.results, done.seconds)
            self.made += len(done.results)
            self.finished += len(done.results)
            if self.on_step:
                self.on_step(SweepProgress(cell, done, self.finished, self.needed))

    def _tasks(self, trials: list[int]) -> Iterator[Task]:
        """Yield tasks of about `TARGET_SECONDS`; the size of tasks changes no result."""
        for cell, number, most in zip(self.campaign.cells, self.numbers, trials, strict=True):
            there = self.store.finished_trials(number) if self.store.count_runs(number, most) else set()
            todo = [trial for trial in range(most) if trial not in there]
            while todo:
                size = self._size(cell.resolved, len(todo))
                yield make_task(cell.resolved, cell.point, cell.number, tuple(todo[:size]))
                del todo[:size]

    def _size(self, resolved: ResolvedStudy, left: int) -> int:
        pace = self.pace.get(resolved.workload.key)
        if pace is None:
            return 1
        fair = -(-left // self.executor.workers)
        return max(1, min(int(TARGET_SECONDS / pace), fair, _MOST_TRIALS))

    def _learn(self, resolved: ResolvedStudy, done: TaskResult) -> None:
        """Update the running mean of seconds per trial of a network; the first trial compiles and soon loses its weight."""
        took, key = sum(done.seconds) / len(done.seconds), resolved.workload.key
        self.pace[key] = 0.5 * (self.pace.get(key, took) + took) + 1e-6


_STORE_BYTES, _STORE_BYTES_PER_TENSOR = 76, 6
_TABLE_BYTES, _TABLE_BYTES_PER_TENSOR = 330, 9
"""Measured: a run in the store; and in the tables written at the end, nearly all of which is CSV."""


@dataclass(frozen=True)
class Effort:
    """Estimated effort of a campaign.

    Attributes:
        runs: at most; a half width may need fewer.
        missing: runs that are not stored.
        seconds: wall time on `workers` workers, without compilation and start.
        memory_bytes, disk_bytes: at most.
        board_seconds: at most, in addition, on boards, which do one run after the other.
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


def estimate_effort(campaign: Campaign, workers: int, missing: int, processes: bool = False) -> Effort:
    """Time a few images of each network under each read policy, and scale up.

    Boards report how fast they are; no voltage is lowered to find out.

    Args:
        campaign: what would be run.
        workers: how many trials run at a time.
        missing: runs that are not stored.
        processes: whether each worker is a process.
    """
    samples: dict[tuple[str, str], tuple[float, int]] = {}
    seconds, memory, board_seconds = 0.0, 0, 0.0
    for study in campaign.studies:
        if list_board_ports(study):
            with open_boards(study, None):
                board_seconds += estimate_board_seconds(study)
                if (found := find_board_network(study, campaign.compute)) is not None:
                    board_seconds += measure_seconds_per_image(study, found) * study.jobs * len(study.dataset)
            continue
        kind = study.workload.key, str(study.study.read_every)
        if kind not in samples:
            estimated = estimate(study, 1)
            samples[kind] = estimated.seconds / study.jobs, estimated.memory_bytes
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
