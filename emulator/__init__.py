"""Runs a network whose weights come from a memory: ONNX -> integer network -> kernels -> accuracy with intervals."""

from __future__ import annotations

from importlib import import_module
from os import PathLike
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx import ModelProto

    from emulator.accuracy import Questions, TrialResult, low_quantile_bound, pose, run_trial, t_interval
    from emulator.deployment import Deployment, ReadPolicy, deploy
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
    "outputs_under_faults",
    "place",
    "pose",
    "run_trial",
    "t_interval",
]

_HOMES = {
    "Questions": "emulator.accuracy",
    "TrialResult": "emulator.accuracy",
    "low_quantile_bound": "emulator.accuracy",
    "pose": "emulator.accuracy",
    "run_trial": "emulator.accuracy",
    "t_interval": "emulator.accuracy",
    "Deployment": "emulator.deployment",
    "ReadPolicy": "emulator.deployment",
    "deploy": "emulator.deployment",
    "Network": "emulator.network",
    "StoredTensor": "emulator.network",
    "Placement": "emulator.placement",
    "place": "emulator.placement",
    "Plan": "emulator.plan",
    "compile_plan": "emulator.plan",
    "outputs_under_faults": "emulator.run",
    "infer": "emulator.walk",
}


def __getattr__(name: str) -> object:
    """Load what is asked for when it is asked for: the package itself imports nothing heavy."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def load(source: str | PathLike[str] | ModelProto, *, integer_input: bool | None = None) -> Network:
    """The network of an ONNX file or model in memory, as integer layers; see `emulator.importer.load`."""
    from emulator import importer

    return importer.load(source, integer_input=integer_input)
