"""Runs a network whose weights come from a memory: ONNX -> integer network -> kernels -> accuracy with intervals."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from typing import TYPE_CHECKING

from weakcell.memmodels.lazy import attributes

if TYPE_CHECKING:
    from onnx import ModelProto

    from weakcell.emulator.engine.executor import infer
    from weakcell.emulator.evaluation.intervals import low_quantile_bound, mean_interval, unseen_share
    from weakcell.emulator.evaluation.trials import EvaluationSet, TrialResult, prepare_evaluation, run_trial
    from weakcell.emulator.faults.deployment import Deployment, ReadPolicy, deploy
    from weakcell.emulator.faults.placement import Placement, place
    from weakcell.emulator.faults.run import outputs_under_faults
    from weakcell.emulator.ir.network import Network
    from weakcell.emulator.ir.values import StoredTensor
    from weakcell.emulator.plan.plan import Plan, compile_plan

__all__ = [
    "Deployment",
    "EvaluationSet",
    "Network",
    "Placement",
    "Plan",
    "ReadPolicy",
    "StoredTensor",
    "TrialResult",
    "compile_plan",
    "deploy",
    "infer",
    "load",
    "low_quantile_bound",
    "mean_interval",
    "outputs_under_faults",
    "place",
    "prepare_evaluation",
    "run_trial",
    "unseen_share",
]

__getattr__, __dir__ = attributes(
    __name__,
    {
        "evaluation.trials": ("EvaluationSet", "TrialResult", "prepare_evaluation", "run_trial"),
        "faults.deployment": ("Deployment", "ReadPolicy", "deploy"),
        "evaluation.intervals": ("low_quantile_bound", "mean_interval", "unseen_share"),
        "ir.network": ("Network",),
        "ir.values": ("StoredTensor",),
        "faults.placement": ("Placement", "place"),
        "plan.plan": ("Plan", "compile_plan"),
        "faults.run": ("outputs_under_faults",),
        "engine.executor": ("infer",),
    },
)


def load(
    source: str | PathLike[str] | ModelProto,
    *,
    integer_input: bool | None = None,
    shapes: Mapping[str, int] | None = None,
    like: Mapping[str, tuple[int, ...]] | None = None,
) -> Network:
    """The network of an ONNX file or model in memory, as integer layers; see `weakcell.emulator.importer.load`."""
    from weakcell.emulator import importer

    return importer.load(source, integer_input=integer_input, shapes=shapes, like=like)
