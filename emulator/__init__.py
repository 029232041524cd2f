"""Runs a network whose weights come from a memory: ONNX -> integer network -> kernels -> accuracy with intervals."""

from emulator.accuracy import Questions, TrialResult, low_quantile_bound, pose, run_trial, t_interval
from emulator.deployment import Deployment, ReadPolicy, deploy
from emulator.network import Network, StoredTensor
from emulator.placement import Placement, place
from emulator.plan import Plan, compile_plan
from emulator.run import infer, outputs_under_faults

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


def load(source: object, **options: object) -> Network:
    """Read an ONNX model (path or ModelProto) into a `Network`; see `emulator.importer.load`."""
    from emulator.importer import load as load_model

    return load_model(source, **options)  # type: ignore[arg-type]
