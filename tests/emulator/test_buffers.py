"""Activation buffers in a memory. Oracle: the plain NumPy network, with recorded flips put into each buffered value."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from tests.emulator.reference import LAYERS, as_held
from tests.emulator.small import OnlyReads, pixels, small_bnn, small_qnn
from weakcell.emulator import Deployment, Network, ReadPolicy, compile_plan, deploy, infer, outputs_under_faults, place
from weakcell.emulator.faults.deployment import Fault
from weakcell.emulator.faults.energy import cost_per_inference
from weakcell.emulator.ir.faultable import collect_buffers
from weakcell.emulator.ir.values import Buffer
from weakcell.emulator.plan.plan import Plan
from weakcell.memmodels.address import popcount, set_bits
from weakcell.memmodels.catalogue import MemorySpec, open_memory, parse_spec
from weakcell.memmodels.cost import EnergyRates, access_cost
from weakcell.memmodels.memory import Accesses, Quantity

NETWORKS = {"bnn": small_bnn(), "qnn": small_qnn()}
PLANS = {name: compile_plan(network) for name, network in NETWORKS.items()}
SAFE = MemorySpec("uniform", {"ber": 0.0})
IMAGES = 5
MEMORIES = [
    "uniform:ber=0.02",
    "uniform:ber=0.02,lifetime=die",
    "uniform:p01=0.03,p10=0.01,lifetime=write",
    "sttram:delta=60,tau=4",
    "secded+uniform:ber=0.03",
    "interleave[stride=8]+uniform:ber=0.02",
]


def run(
    kind: str,
    spec: str,
    policy: ReadPolicy = ReadPolicy.LOAD,
    target: str = "*",
    plan: Plan | None = None,
    **more: object,
) -> Deployment:
    network = NETWORKS[kind]
    targets = ("buffer:*", "accumulator:*") if target == "*" else (target,)
    placement = place(network, SAFE, [(target, parse_spec(spec)) for target in targets])
    deployment = deploy(plan or PLANS[kind], placement, policy, seed=3, **more)  # type: ignore[arg-type]
    deployment.outputs = outputs_under_faults(deployment.plan, pixels(network, IMAGES), deployment, 2)  # type: ignore[attr-defined]
    return deployment


def outputs(deployment: Deployment) -> np.ndarray:
    made: np.ndarray = deployment.outputs[deployment.plan.network.outputs[0]]  # type: ignore[attr-defined]
    return made


def codes(buffer: Buffer, x: np.ndarray) -> list[int]:
    """Return the stored code of each element of one image, in ONNX order."""
    bits = buffer.encoding.bits
    return [int(v > 0) if buffer.encoding.kind == "sign" else int(v) & ((1 << bits) - 1) for v in x.reshape(-1)]


def flipped(buffer: Buffer, x: np.ndarray, faults: Sequence[Fault], image: int) -> np.ndarray:
    """Return a value with recorded flips, decoded element by element; check that the reference value was written."""
    held, bits = codes(buffer, x), buffer.encoding.bits
    for fault in (f for f in faults if f.slot.tensor == buffer.name and f.read == image):
        planes = fault.slot.planes
        for cell in set_bits(fault.flips).tolist():
            element, plane = cell // len(planes), planes[cell % len(planes)]
            assert (held[element] >> plane) & 1 == (int(fault.written[cell >> 6]) >> (cell & 63)) & 1
            held[element] ^= 1 << plane
    if buffer.encoding.kind == "sign":
        values = [2 * code - 1 for code in held]
    else:
        signed = buffer.encoding.kind == "signed"
        values = [code - (1 << bits) if signed and code >> (bits - 1) else code for code in held]
    return np.array(values, np.int64).reshape(x.shape)


def reference_outputs(network: Network, faults: Sequence[Fault]) -> np.ndarray:
    """Return the first output, image by image; every buffered value is flipped as recorded before a layer reads it."""
    inputs, buffers = pixels(network, IMAGES), {b.value.name: b for b in collect_buffers(network)}
    rows = []
    for image in range(IMAGES):
        values = {name: as_held(network, name, x[image : image + 1]) for name, x in inputs.items()}
        for name in network.inputs:
            if name in buffers:
                values[name] = flipped(buffers[name], values[name], faults, image)
        for layer in network.layers:
            made = LAYERS[type(layer)](network, layer, [values[name] for name in layer.inputs])
            own = buffers.get(layer.output)
            values[layer.output] = flipped(own, made, faults, image) if own else made
        rows.append(values[network.outputs[0]])
    return np.concatenate(rows)


@pytest.mark.parametrize("spec", MEMORIES)
@pytest.mark.parametrize("kind", NETWORKS)
def test_layers_see_what_the_memory_returns(kind: str, spec: str) -> None:
    deployment = run(kind, spec, record=True)
    assert deployment.faults
    np.testing.assert_array_equal(outputs(deployment), reference_outputs(NETWORKS[kind], deployment.faults))
    plain = run(kind, spec)
    np.testing.assert_array_equal(outputs(plain), outputs(deployment))
    assert plain.tally.flips == deployment.tally.flips
    assert sum(plain.tally.flips.values()) == sum(popcount(fault.flips) for fault in deployment.faults)


@pytest.mark.parametrize("policy", list(ReadPolicy))
@pytest.mark.parametrize("kind", NETWORKS)
def test_buffers_are_read_once_per_image_under_every_policy(kind: str, policy: ReadPolicy) -> None:
    deployment, reference = run(kind, "uniform:ber=0.02", policy), run(kind, "uniform:ber=0.02")
    np.testing.assert_array_equal(outputs(deployment), outputs(reference))
    for buffer in collect_buffers(NETWORKS[kind]):
        assert deployment.tally.bits_read[buffer.name] == buffer.bits * IMAGES
        assert deployment.tally.flips[buffer.name] == reference.tally.flips[buffer.name]


@pytest.mark.parametrize("policy", [ReadPolicy.LOAD, ReadPolicy.BATCH, ReadPolicy.IMAGE])
def test_chunks_change_nothing(policy: ReadPolicy) -> None:
    """Write errors of switching cells depend on the previous image, and still do not depend on chunks."""
    runs = []
    for size in (1, 3000, 8 << 20):
        plan = compile_plan(NETWORKS["qnn"], chunk_bytes=size)
        deployment = run("qnn", "sttram:delta=60,tau=4", policy, plan=plan)
        runs.append((outputs(deployment).tobytes(), deployment.tally.flips))
    assert runs[0] == runs[1] == runs[2]


def test_weak_cells_are_the_same_in_every_image_and_prefer_a_value() -> None:
    """A cell errs in exactly the images that store the value that it does not prefer."""
    buffer = next(b for b in collect_buffers(NETWORKS["bnn"]) if b.value.kind == "bits")
    deployment = run("bnn", "uniform:ber=0.2,lifetime=die", target=buffer.name, record=True)
    clean = infer(PLANS["bnn"], pixels(NETWORKS["bnn"], IMAGES), [buffer.value.name])[buffer.value.name]
    stored = clean.reshape(IMAGES, -1) > 0
    erred = np.zeros_like(stored)
    for fault in deployment.faults or ():
        erred[fault.read, set_bits(fault.flips)] = True
    assert erred.any()
    for cell in np.flatnonzero(erred.any(axis=0)):
        (wrong,) = set(stored[erred[:, cell], cell].tolist())
        np.testing.assert_array_equal(erred[:, cell], stored[:, cell] == wrong)


@pytest.mark.parametrize(("lifetime", "same"), [("die", True), ("write", False), ("read", False)])
def test_lifetimes(lifetime: str, same: bool) -> None:
    """Equal images have equal flips in the first buffer for errors of the die, and different ones for write and read errors."""
    network = NETWORKS["bnn"]
    deployment = deploy(
        PLANS["bnn"], place(network, SAFE, [("buffer:x", parse_spec(f"uniform:ber=0.1,lifetime={lifetime}"))]), ReadPolicy.LOAD,
        record=True,
    )  # fmt: skip
    one = pixels(network, 1)["x"]
    outputs_under_faults(PLANS["bnn"], {"x": np.repeat(one, 4, axis=0)}, deployment)
    flips = [fault.flips.tobytes() for fault in deployment.faults or ()]
    assert len(flips) == 4
    assert (len(set(flips)) == 1) is same
    assert same or len(set(flips)) == 4


def test_bit_planes_of_a_buffer_can_be_placed_separately() -> None:
    top = run("qnn", "uniform:ber=0.3", target="buffer:q2@7", record=True)
    assert {fault.slot.planes for fault in top.faults or ()} == {(7,)}
    (buffer,) = [b for b in collect_buffers(NETWORKS["qnn"]) if b.name == "buffer:q2"]
    assert top.tally.bits_read["buffer:q2"] == buffer.elements * IMAGES
    np.testing.assert_array_equal(outputs(top), reference_outputs(NETWORKS["qnn"], top.faults or []))


def test_any_memory_can_hold_buffers() -> None:
    """A memory with nothing but `read` gives the same bits as the simulation that it wraps."""
    network = NETWORKS["qnn"]
    placement = place(network, parse_spec("uniform:ber=0.02"), [("buffer:*", parse_spec("uniform:ber=0.02,lifetime=die"))])
    memories = [open_memory(str(spec), array=array) for array, spec in enumerate(placement.arrays)]
    runs = [
        deploy(PLANS["qnn"], placement, ReadPolicy.IMAGE),
        deploy(PLANS["qnn"], placement, ReadPolicy.IMAGE, memories=list(map(OnlyReads, memories))),
    ]
    ours, theirs = (outputs_under_faults(PLANS["qnn"], pixels(network, IMAGES), d)[network.outputs[0]] for d in runs)
    np.testing.assert_array_equal(ours, theirs)
    assert runs[0].tally.flips == runs[1].tally.flips


def test_a_rule_for_all_buffers_leaves_sums_in_their_registers() -> None:
    slots = place(NETWORKS["qnn"], SAFE, [("buffer:*", parse_spec("uniform:ber=0.5"))]).slots
    names = {slot.tensor for slot in slots if slot.array == 1}
    assert names == {buffer.name for buffer in collect_buffers(NETWORKS["qnn"]) if buffer.value.dtype != "int32"}


def test_values_that_cannot_be_buffers() -> None:
    """Float values cannot, nor can 32-bit integers that a convolution reads as 16-bit ones."""
    values = {buffer.value.name for buffer in collect_buffers(NETWORKS["qnn"])}
    assert values == {name for name, spec in NETWORKS["qnn"].values.items() if spec.kind != "float"}
    assert "x" in {buffer.value.name for buffer in collect_buffers(NETWORKS["bnn"])}


def test_a_buffer_is_charged_one_write_and_one_read_per_image() -> None:
    network, spec = NETWORKS["qnn"], "sttram:delta=60,tau=4"
    weights = deploy(PLANS["qnn"], place(network, parse_spec(spec)), ReadPolicy.IMAGE)
    both = deploy(PLANS["qnn"], place(network, parse_spec(spec), [("buffer:q2", parse_spec(spec))]), ReadPolicy.IMAGE)
    (buffer,) = [b for b in collect_buffers(network) if b.name == "buffer:q2"]
    memory = open_memory(spec)
    alone = memory.technology.cost(memory.conditions, buffer.bits, Accesses(1.0, 1.0))
    assert alone.energy is not None
    assert alone.parts["write"].value > 0
    (before,), (after,) = (cost_per_inference(d, 10).energy for d in (weights, both))
    assert after.value - before.value == pytest.approx(alone.energy.value)


def test_counted_writes_are_charged_in_full() -> None:
    one = Quantity(2.0, "pJ/bit", "assumed", "")
    shared = access_cost({"inferences_per_write": 4.0}, 10, Accesses(1.0), EnergyRates(one, one))
    counted = access_cost({"inferences_per_write": 4.0}, 10, Accesses(1.0, 3.0), EnergyRates(one, one))
    assert (shared.parts["write"].value, counted.parts["write"].value) == (5.0, 60.0)
    assert "write" not in access_cost({}, 10, Accesses(1.0), EnergyRates(one, one)).parts
