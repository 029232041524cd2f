"""The energy of one inference in closed form: bits x reads x pJ/bit, whatever the number of images.

The figure of the FeFET array is typed here from its source (NVSim, 22 nm): 0.0110156 pJ per bit read, 0.294563 per bit written.
"""

from __future__ import annotations

import pytest

from tests.emulator.small import small_qnn
from weakcell.emulator import ReadPolicy, compile_plan, deploy, place
from weakcell.emulator.faults.deployment import reads_per_image, reads_per_inference
from weakcell.emulator.faults.energy import InferenceCost, cost_per_inference
from weakcell.emulator.ir.faultable import collect_buffers
from weakcell.memmodels.catalogue import names, parse_spec, technology
from weakcell.memmodels.errors import UsageError

READ, WRITE = 0.0110156, 0.294563
QNN = small_qnn()
PLAN = compile_plan(QNN)
BITS = sum(tensor.bits for tensor in QNN.tensors.values() if tensor.role == "weight")


def cost(knobs: str, policy: ReadPolicy, batch: int = 256, buffer: str | None = None) -> InferenceCost:
    spec = parse_spec(f"fefet:domains=100{knobs}")
    rules = [(buffer, spec)] if buffer else []
    return cost_per_inference(deploy(PLAN, place(QNN, spec, rules), policy), batch)


def pixels_read() -> float:
    """Return the weight bits that an output-stationary inference reads: every weight once per output pixel of its layer."""
    total = 0.0
    for layer in QNN.layers:
        weight = getattr(layer, "weight", None)
        height, width = QNN.values[layer.output].height_width
        total += QNN.tensors[weight].bits * height * width if weight is not None else 0.0
    return total


@pytest.mark.parametrize(
    ("policy", "batch", "bits"),
    [
        (ReadPolicy.LOAD, 256, BITS),
        (ReadPolicy.IMAGE, 256, BITS),
        (ReadPolicy.BATCH, 256, BITS / 256),
        (ReadPolicy.BATCH, 1, BITS),
        (ReadPolicy.ACCESS, 256, pixels_read()),
    ],
)
def test_energy_of_an_inference_in_closed_form(policy: ReadPolicy, batch: int, bits: float) -> None:
    found = cost("", policy, batch)
    assert BITS > 0
    (energy,) = found.energy
    assert (energy.value, energy.unit) == (pytest.approx(READ * bits, rel=1e-5), "pJ")
    assert found.reads == pytest.approx(bits / BITS)
    assert found.shared == ((batch,) if policy is ReadPolicy.BATCH else (1.0,))


def test_a_shared_read_is_the_users_choice_and_leaves_writes_alone() -> None:
    found = cost(",inferences_per_read=10,inferences_per_write=1000", ReadPolicy.LOAD)
    assert found.parts is not None
    assert found.parts["read"].value == pytest.approx(READ * BITS / 10, rel=1e-5)
    assert found.parts["write"].value == pytest.approx(WRITE * BITS / 1000, rel=1e-5)
    assert (found.reads, found.shared) == (pytest.approx(0.1), (10.0,))


def test_buffers_are_read_and_written_by_every_inference() -> None:
    (buffer,) = [b for b in collect_buffers(QNN) if b.name == "buffer:q2"]
    alone = cost(",inferences_per_read=10", ReadPolicy.LOAD).energy[0].value
    both = cost(",inferences_per_read=10", ReadPolicy.LOAD, buffer="buffer:q2").energy[0].value
    assert both - alone == pytest.approx((READ + WRITE) * buffer.bits, rel=1e-5)


@pytest.mark.parametrize("policy", [ReadPolicy.BATCH, ReadPolicy.IMAGE, ReadPolicy.ACCESS])
def test_sharing_that_contradicts_the_read_policy_is_refused(policy: ReadPolicy) -> None:
    with pytest.raises(UsageError, match=f"inferences_per_read=10 with --read-every {policy}"):
        cost(",inferences_per_read=10", policy)


def test_reads_of_a_run_and_of_an_inference_differ() -> None:
    """A run over 50 images reads the weights once under `load`. So does a single inference."""
    run, inference = reads_per_image(QNN, ReadPolicy.LOAD, 50, 256), reads_per_inference(QNN, ReadPolicy.LOAD)
    weights = [name for name, tensor in QNN.tensors.items() if tensor.role == "weight"]
    assert [50 * run[name] for name in weights] == pytest.approx([inference[name] for name in weights])


@pytest.mark.parametrize("name", names())
def test_energy_conditions_have_no_defaults(name: str) -> None:
    """The identity of a run holds its conditions with all defaults. A new default would rename every saved run."""
    knobs = [
        c for c in technology(name).conditions if c.name in ("inferences_per_read", "inferences_per_write", "time_per_inference")
    ]
    assert all(knob.default is None for knob in knobs)
    energy = [c.default for c in technology(name).conditions if c.name == "energy"]
    assert energy == ([None] if name.startswith("sram-28nm") else ["nvsim-22nm"] if name in ("rram", "sttram") else [])
