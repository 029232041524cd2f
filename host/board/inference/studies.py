"""Studies and campaigns whose images a board computes: what they ask for, how long they take, and how their trials run."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from weakcell.emulator.engine.executor import check_inputs
from weakcell.emulator.evaluation.trials import run_trial
from weakcell.emulator.faults.deployment import Sampling
from weakcell.emulator.faults.placement import Placement
from weakcell.emulator.faults.read_policy import ReadPolicy
from weakcell.host.board.inference.compute import BoardComputer, LoadedNetwork
from weakcell.host.board.inference.program import BoardNetwork, split_network
from weakcell.host.board.inference.resident import ResidentBoard
from weakcell.host.board.memory.session import PROCESS_SESSIONS
from weakcell.host.board.memory.spec import technology_of
from weakcell.host.board.memory.studies import board_port, list_board_ports
from weakcell.host.study.executors import Task, TaskResult, Threads
from weakcell.host.study.study import ResolvedStudy
from weakcell.memmodels.errors import UsageError
from weakcell.memmodels.memory import Key
from weakcell.memmodels.protection.wrappers import split_wrappers

Compute = Literal["emulator", "board"]
"""Who computes the images of a study."""


def find_board_network(resolved: ResolvedStudy, compute: Compute, fault_list: str | Path | None = None) -> BoardNetwork | None:
    """Return what a board computes in a study; None if the emulator computes it.

    Args:
        resolved: the study.
        compute: who computes the images.
        fault_list: a list of flips that is replayed or recorded.

    Raises:
        UsageError: there is no such choice, there is a fault list, or as in `split_study`.
        ModelError: as in `split_study`.
    """
    if compute not in get_args(Compute):
        raise UsageError(f"Computing on {compute!r}", "there is no such choice", f"Choose {' or '.join(get_args(Compute))}")
    if compute == "emulator":
        return None
    if fault_list is not None:
        found = f"{fault_list} holds flips, and a board flips its own cells"
        raise UsageError("--compute board with a fault list", found, "Leave out --compute: the flips and outputs are the same")
    return split_study(resolved)


def split_study(resolved: ResolvedStudy) -> BoardNetwork:
    """Return what a board computes in a study.

    Raises:
        UsageError: the study's memories or reads are not those of one board that holds all weights as they are.
        ModelError: the network is not of the kind that the firmware computes.
    """
    study, found = resolved.study, split_network(resolved.network)
    asked = f"Computing {resolved.model.name} on a board (--compute board)"
    memories = {spec.name for point in resolved.points for spec in point.placement.arrays}
    if len(list_board_ports(resolved)) != 1 or len(memories) != 1 or any(split_wrappers(name)[0] for name in memories):
        raise UsageError(
            asked,
            f"the memories are {', '.join(sorted(memories))}",
            "Give one board that holds all weights, without a protection: --memory board:PORT",
        )
    (slots,) = {tuple(sorted(slot.tensor for slot in point.placement.slots)) for point in resolved.points}
    if slots != tuple(sorted(found.weights)):
        outside, others = sorted({*found.weights} - {*slots}), sorted({*slots} - {*found.weights})
        words = [f"{', '.join(names)} {where}" for names, where in ((outside, "not in it"), (others, "in it")) if names]
        raise UsageError(asked, f"the board is to hold the weights and nothing else: {'; '.join(words)}", "Leave out --place")
    if study.read_every is not ReadPolicy.LOAD or study.sampling is not Sampling.BITS:
        found_reads = f"weights are read once per {study.read_every}, and {study.sampling} are sampled"
        raise UsageError(asked, found_reads, "The cells keep what one time at the low voltage left: give --read-every load")
    return found


def measure_seconds_per_image(resolved: ResolvedStudy, found: BoardNetwork) -> float:
    """Measure how long the board takes for an image, in s, with whatever its cells hold; no voltage is lowered.

    Raises:
        BoardError: the board cannot compute the network.
    """
    memory = _open_memory(resolved.points[0].placement)
    for slot in resolved.points[0].placement.slots:
        layout = resolved.plan.layout(slot.tensor, slot.planes)
        memory.write(resolved.plan.stored(layout), layout, Key())
    loaded = LoadedNetwork.load(memory.session.link, found, memory.first_words(), memory.pages)
    start = time.perf_counter()
    loaded.compute(np.zeros(found.input.shape, np.int32))
    return time.perf_counter() - start


def make_executor(studies: Sequence[ResolvedStudy]) -> Threads:
    """Return an executor that runs the trials of studies on their boards, one after the other."""
    return Threads(_performer(studies), 1)


def _performer(studies: Sequence[ResolvedStudy]) -> Callable[[Task], TaskResult]:
    workloads = {study.workload.key: study.workload for study in studies}
    networks = {key: split_network(workload.network) for key, workload in workloads.items()}
    inputs = {key: check_inputs(workload.plan, workload.questions.inputs) for key, workload in workloads.items()}

    def work(task: Task) -> TaskResult:
        results, seconds, workload = [], [], workloads[task.workload]
        for trial in task.trials:
            start, memory = time.perf_counter(), _open_memory(task.placement)
            computer = BoardComputer(workload.plan, networks[task.workload], memory, inputs[task.workload])
            results.append(
                run_trial(
                    workload.plan, task.placement, workload.questions, task.read_every, trial=trial, seed=task.seed, die=task.die,
                    memories=[memory], compute=computer.outputs,
                )
            )  # fmt: skip
            seconds.append(time.perf_counter() - start)
        return TaskResult(task.cell, tuple(results), tuple(seconds))

    return work


def _open_memory(placement: Placement) -> ResidentBoard:
    (spec,) = placement.arrays
    port = board_port(spec)
    assert port is not None, "split_study has seen to that"
    return ResidentBoard(PROCESS_SESSIONS.get(port), technology_of(port).resolve(spec.conditions))
