"""Runs a network whose weights come from a memory: ONNX -> integer network -> kernels -> accuracy with intervals."""

from __future__ import annotations

from os import PathLike
from typing import TYPE_CHECKING

from memmodels.lazy import attributes

if TYPE_CHECKING:
    from onnx import ModelProto

    from emulator.accuracy import Questions, TrialResult, pose, run_trial
    from emulator.deployment import Deployment, ReadPolicy, deploy
    from emulator.intervals import low_quantile_bound, mean_interval, unseen_share
    from emulator.network import Network, StoredTensor
    from emulator.placement import Placement, place
    from emulator.plan import Plan, compile_plan
    from emulator.run import outputs_under_faults
    from emulator.walk import infer

__all__ = [
    "Deployment",
    "Network",
    "Placement",
    "Plan",
    "Questions",
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
    "pose",
    "run_trial",
    "unseen_share",
]

__getattr__ = attributes(
    __name__,
    {
        "accuracy": ("Questions", "TrialResult", "pose", "run_trial"),
        "deployment": ("Deployment", "ReadPolicy", "deploy"),
        "intervals": ("low_quantile_bound", "mean_interval", "unseen_share"),
        "network": ("Network", "StoredTensor"),
        "placement": ("Placement", "place"),
        "plan": ("Plan", "compile_plan"),
        "run": ("outputs_under_faults",),
        "walk": ("infer",),
    },
)


def load(source: str | PathLike[str] | ModelProto, *, integer_input: bool | None = None) -> Network:
    """The network of an ONNX file or model in memory, as integer layers; see `emulator.importer.load`."""
    from emulator import importer

    return importer.load(source, integer_input=integer_input)
