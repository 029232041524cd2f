"""A resolved campaign: studies that share networks and data, with every point checked and every run named."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

from weakcell.emulator.faults.deployment import ReadPolicy
from weakcell.emulator.faults.placement import place
from weakcell.emulator.tasks import Asked
from weakcell.host.board.inference.studies import Compute, find_board_network
from weakcell.host.campaign.schema import CampaignFile, MemoryTable, Mistake, Place, parse_grid_values, refuse
from weakcell.host.study.networks import shipped_models
from weakcell.host.study.study import Point, ResolvedStudy, Study, resolve_study
from weakcell.host.study.sweep_values import Sweep
from weakcell.host.study.workload import Workload, open_workload
from weakcell.memmodels.catalogue import MemorySpec, parse_spec
from weakcell.memmodels.errors import UsageError, WeakcellError

MOST_POINTS = 100_000


@dataclass(frozen=True, eq=False)
class Cell:
    """One operating point of one study; trials of a cell differ in their number only.

    Attributes:
        number: position in the campaign.
        study: position of the study in the campaign.
    """

    number: int
    study: int
    resolved: ResolvedStudy
    point: Point

    @cached_property
    def sha256(self) -> str:
        """Content hash of everything that the cell's runs depend on."""
        return self.resolved.cell_sha256(self.point)


@dataclass(frozen=True, eq=False)
class Campaign:
    """Everything that a campaign file asks for, loaded and checked.

    Attributes:
        studies: one for each combination of network, seed, read policy, placement, memory, and the grid's conditions except the
            swept one.
        labels: names of the studies, different from each other.
        trials: most trials per point.
        half_width: of the interval of the mean at which a point is finished; None: all trials are run.
        text: of the campaign file.
        title: of the report; "": the folder's name.
        compute: who computes the images.
    """

    studies: tuple[ResolvedStudy, ...]
    labels: tuple[str, ...]
    trials: int
    half_width: float | None
    text: str
    title: str = ""
    compute: Compute = "emulator"

    @cached_property
    def cells(self) -> tuple[Cell, ...]:
        """All operating points, study by study."""
        pairs = [(number, study, point) for number, study in enumerate(self.studies) for point in study.points]
        return tuple(Cell(i, number, study, point) for i, (number, study, point) in enumerate(pairs))

    @cached_property
    def workloads(self) -> dict[str, Workload]:
        """Networks with their data, by key."""
        return {study.workload.key: study.workload for study in self.studies}

    @property
    def runs(self) -> int:
        """The largest number of runs."""
        return len(self.cells) * self.trials


@dataclass(frozen=True)
class _Branch:
    """A memory with fixed values of all conditions except the swept one."""

    place: Place
    spec: MemorySpec
    sweep: Sweep | None


def resolve_campaign(
    file: CampaignFile,
    data_dir: Path | None = None,
    half_width: float | None = None,
    on_study: Callable[[int, int], None] = lambda points, total: None,
) -> Campaign:
    """Load and check everything that a campaign file names.

    Args:
        file: the file, whose form is checked already.
        data_dir: folder to search first for data sets.
        half_width: replaces the file's.
        on_study: called after each study with the numbers of points that are checked, and of all points.

    Raises:
        InputError: with every mistake and its line.
    """
    table, mistakes = file.table, list[Mistake]()
    collect = _collector(file, mistakes)
    workloads: dict[int, Workload] = {}
    for i, network in enumerate(table.network):
        with collect(("network", i)):
            model, data = (_resolve_path(file.path, name) for name in (network.model, network.data))
            assert model is not None
            workloads[i] = open_workload(model, data, network.images, data_dir, asked=Asked(network.task, network.output))
    width = half_width or table.half_width
    for i, workload in workloads.items():
        metric = workload.questions.metric
        if width is not None and not metric.share:
            reason = f"half_width is a share, and the score of {workload.task.output!r} is its {metric.words}: leave half_width out"
            mistakes.append(file.mistake(("half_width",) if table.half_width else ("network", i), reason))
    branches: dict[int, list[_Branch]] = {}
    for j, memory in enumerate(table.memory):
        branches[j] = list(_expand_memory(j, memory, collect))
    rules = [tuple((target, parse_spec(spec)) for target, spec in entry.rules.items()) for entry in table.placement] or [()]
    for k, wanted in enumerate(rules):
        for (target, spec), workload in product(wanted, workloads.values()):
            with collect(("placement", k, "rules", target)):
                spec.check()
                place(workload.network, spec, [(target, spec)])
    total = len(table.network) * len(table.seeds) * len(table.read_every) * len(rules)
    total *= sum(len(b.sweep.values) if b.sweep else 1 for branch in branches.values() for b in branch)
    if total > MOST_POINTS:
        mistakes.append(file.mistake(("memory",), f"{total:,} operating points; {MOST_POINTS:,} are the most"))
    if mistakes:
        raise refuse(file.path, mistakes)
    studies, labels, places, points = list[ResolvedStudy](), list[str](), list[Place](), 0
    checked: dict[tuple[object, ...], ResolvedStudy] = {}
    for (i, workload), seed, policy, k, branch in product(
        workloads.items(), table.seeds, table.read_every, range(len(rules)), [b for part in branches.values() for b in part]
    ):
        network = table.network[i]
        study = Study(
            model=_resolve_path(file.path, network.model) or network.model,
            data=_resolve_path(file.path, network.data),
            memory=branch.spec,
            places=rules[k],
            sweep=branch.sweep,
            trials=table.trials,
            die=table.die,
            read_every=ReadPolicy(policy),
            batch=table.batch,
            seed=seed,
            images=network.images,
            task=network.task,
            output=network.output,
        )
        with collect(branch.place):
            key = i, policy, k, id(branch)
            if key in checked:  # seeds change what is drawn, but nothing that is checked or placed
                resolved = replace(checked[key], study=study)
            else:
                resolved = checked[key] = resolve_study(study, data_dir, workload=workload)
                find_board_network(resolved, table.compute)
            points += len(resolved.points)
            on_study(points, total)
            studies.append(resolved)
            labels.append(_name_study(file, workload, branch, k, seed, policy))
            places.append(branch.place)
    if not mistakes:
        _refuse_repeats(file, studies, places, mistakes)
    if mistakes:
        raise refuse(file.path, mistakes)
    return Campaign(tuple(studies), tuple(labels), table.trials, width, file.text, table.title, table.compute)


def _collector(file: CampaignFile, mistakes: list[Mistake]) -> Callable[[Place], Any]:
    @contextmanager
    def collect(place: Place) -> Iterator[None]:
        try:
            yield
        except WeakcellError as error:
            mistakes.append(file.mistake(place, f"{error.asked}: {error.found}. {error.do}"))

    return collect


def _resolve_path(campaign: Path, name: str | None) -> str | None:
    """Return a path relative to the campaign file if there is such a file; otherwise the name as it is."""
    if name is None or name in shipped_models():
        return name
    near = campaign.parent / name
    return str(near) if near.is_file() else name


def _expand_memory(number: int, memory: MemoryTable, collect: Callable[[Place], Any]) -> Iterator[_Branch]:
    """Yield the memory of each study that a table stands for; collect each bad value once."""
    root: Place = ("memory", number)
    base, grid = parse_spec(memory.spec), dict[str, list[float] | list[str]]()
    for key, values in memory.grid.items():
        with collect((*root, "grid", key)):
            grid[key] = parse_grid_values(key, values)
            base.technology.resolve({**base.conditions, **{k: grid[k][0] for k in grid}})
    if set(grid) != set(memory.grid):
        return
    points = prod(map(len, grid.values()))
    if points > MOST_POINTS:  # before they are listed
        with collect((*root, "grid")):
            raise UsageError("grid", f"{points:,} operating points; {MOST_POINTS:,} are the most", "Take fewer values")
        return
    swept = next((key for key, values in grid.items() if isinstance(values[0], float)), None)
    others = [key for key in grid if key != swept]
    bad: set[str] = set()
    choices: list[list[float | str]] = [list(grid[key]) for key in others]
    for chosen in product(*choices):
        fixed: dict[str, float | str] = dict(zip(others, chosen, strict=True))
        spec = base.at(**fixed)
        numbers = tuple(float(value) for value in grid[swept]) if swept else ()
        for value in numbers or (None,):
            with collect(root if swept is None else (*root, "grid", swept)):
                try:
                    (spec if value is None or swept is None else spec.at(**{swept: value})).check()
                except WeakcellError as error:
                    if str(error) not in bad:
                        bad.add(str(error))
                        raise
        yield _Branch(root, spec, Sweep(swept, numbers, _spans_decades(numbers)) if swept else None)


def _spans_decades(values: tuple[float, ...]) -> bool:
    return min(values) > 0 and max(values) / min(values) >= 100


def _name_study(file: CampaignFile, workload: Workload, branch: _Branch, placement: int, seed: int, policy: str) -> str:
    """Return network and memory, and whatever else differs between the studies of the campaign."""
    table, parts = file.table, [workload.model.name, str(branch.spec)]
    if len({network.data for network in table.network}) > 1 or len({network.images for network in table.network}) > 1:
        parts.insert(1, f"{workload.dataset.name} ({len(workload.dataset)})")
    if len({(network.task, network.output) for network in table.network}) > 1:
        parts.append(f"{workload.task.output} as {workload.task.text}")
    if len(table.placement) > 1:
        parts.append(table.placement[placement].name or f"placement {placement + 1}")
    if len(table.read_every) > 1:
        parts.append(f"read every {policy}")
    if len(table.seeds) > 1:
        parts.append(f"seed {seed}")
    return ", ".join(parts)


def _refuse_repeats(file: CampaignFile, studies: list[ResolvedStudy], places: list[Place], mistakes: list[Mistake]) -> None:
    """Add a mistake for each cell that the campaign contains twice: its runs would be counted twice."""
    seen: dict[str, Place] = {}
    for study, where in zip(studies, places, strict=True):
        for point in study.points:
            sha = study.cell_sha256(point)
            if sha in seen:
                line = file.mistake(seen[sha], "").line
                mistakes.append(file.mistake(where, f"{point.memory} is there twice (see line {line}, the networks and the seeds)"))
                break
            seen[sha] = where
