"""Scales, zero points and float biases that live in a memory, against the reference engine with the same bits flipped."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from tests.emulator.reference import LAYERS, as_held
from tests.emulator.small import INT8, RandomNetwork, pixels, small_bnn, small_qnn
from weakcell.emulator import (
    Network,
    ReadPolicy,
    compile_plan,
    deploy,
    infer,
    outputs_under_faults,
    place,
    prepare_evaluation,
    run_trial,
)
from weakcell.emulator.engine.executor import check_inputs, values_with
from weakcell.emulator.faults.deployment import Fault, reads_per_image
from weakcell.emulator.ir.faultable import collect_constants, storable
from weakcell.emulator.ir.layer import Layer
from weakcell.emulator.ir.layers import AffineRequantize, Dequantize, Step
from weakcell.emulator.ir.values import FLOAT32, Window, bits_to_floats, floats_to_bits
from weakcell.emulator.plan.parameters import new_parameters
from weakcell.emulator.tasks import Asked
from weakcell.memmodels.address import Words, set_bits
from weakcell.memmodels.catalogue import MemorySpec, parse_spec
from weakcell.memmodels.errors import UsageError

QNN, BNN = small_qnn(), small_bnn()
SAFE = MemorySpec("uniform", {"ber": 0.0})
RULES = [(f"{role}:*", parse_spec("uniform:ber=0.01")) for role in ("scale", "zero_point")]


def affine_network() -> Network:
    """Return a network with a float bias, batch norm steps, a residual sum, and float scores with a bias."""
    d = RandomNetwork(np.random.default_rng(4))
    x = d.quantize(d.input("x", (3, 5, 4), "float32"), 0.75, 100)
    acc = d.convolution(x, 5, Window((2, 2)), INT8)
    c = d.rng.normal(0, 20, (3, 5)).astype(np.float32)
    steps = (Step("mul", c[0] / 20), Step("add", c[1]))
    d.value("y", "codes", d.values[acc].shape, "uint8", 0.5, 90)
    d.layers.append(AffineRequantize("affine", (acc,), "y", np.full(5, 0.01, np.float32), c[2], 0.5, 90, 0, 255, steps))
    d.value("z", "float", d.values[acc].shape, "float32")
    d.layers.append(Dequantize("last", (d.add("y", "y"),), "z", np.array(0.25, np.float32), c[1]))
    return d.network("z")


def flipped_float(value: float, mask: int) -> np.float32:
    """Return one float32 with bits flipped, by the standard library."""
    (bits,) = struct.unpack("<I", struct.pack("<f", value))
    return np.array(struct.unpack("<f", struct.pack("<I", bits ^ mask))[0], np.float32)[()]


def masks(fault: Fault, elements: int) -> list[int]:
    """Return the flipped bits of each element."""
    made, planes = [0] * elements, fault.slot.planes
    for cell in set_bits(fault.flips).tolist():
        made[cell // len(planes)] |= 1 << planes[cell % len(planes)]
    return made


def spoiled(network: Network, layer: Layer, faults: Sequence[Fault]) -> tuple[Network, Layer]:
    """Return a network and layer with the constants of this layer flipped, decoded one by one."""
    values, tensors = dict(network.values), dict(network.tensors)
    for constant in collect_constants(network).get(layer.output, ()):
        for fault in (f for f in faults if f.slot.tensor == constant.tensor.name):
            name, old = fault.slot.tensor, constant.tensor
            each = zip(old.values.reshape(-1).tolist(), masks(fault, old.elements), strict=True)
            if old.encoding == FLOAT32:
                new = np.array([flipped_float(struct.unpack("<f", struct.pack("<i", v))[0], m) for v, m in each], np.float32)
            else:
                bits = old.encoding.bits
                codes = [(v & ((1 << bits) - 1)) ^ m for v, m in each]
                wide = [c - (1 << bits) if old.encoding.kind == "signed" and c >> (bits - 1) else c for c in codes]
                new = np.array(wide, np.int32)
            held = new.reshape(old.shape)
            single = int(new[0]) if old.role == "zero_point" else held
            if name == f"{layer.inputs[0]}.w.zero_point" or ".w." in name:
                weight = layer.weight  # type: ignore[attr-defined]
                tensors[weight] = replace(tensors[weight], zero_point=held)
            elif ".input" in name:
                digit = name.split(".input")[1][0]
                value = layer.inputs[int(digit) if digit.isdigit() else 0]
                values[value] = replace(values[value], **{"scale" if old.role == "scale" else "zero_point": single})
            elif name[-1].isdigit():
                steps = list(layer.steps)  # type: ignore[attr-defined]
                steps[int(name[-1])] = replace(steps[int(name[-1])], constant=held)
                layer = replace(layer, steps=tuple(steps))  # type: ignore[call-arg]
            else:
                layer = replace(layer, **{name.rpartition(".")[2]: single})
    return replace(network, values=values, tensors=tensors), layer


def reference_outputs(network: Network, inputs: dict[str, np.ndarray], faults: Sequence[Fault], policy: ReadPolicy) -> np.ndarray:
    rows = []
    for image in range(len(next(iter(inputs.values())))):
        values = {name: as_held(network, name, x[image : image + 1]) for name, x in inputs.items()}
        own = [f for f in faults if f.read == (image if policy is ReadPolicy.IMAGE else 0)]
        for layer in network.layers:
            there, changed = spoiled(network, layer, own)
            with np.errstate(all="ignore"):
                values[layer.output] = LAYERS[type(layer)](there, changed, [values[name] for name in layer.inputs])
        rows.append(values[network.outputs[0]])
    return np.concatenate(rows)


@pytest.mark.parametrize("policy", [ReadPolicy.LOAD, ReadPolicy.IMAGE])
@pytest.mark.parametrize("network", [QNN, affine_network()], ids=["qnn", "affine"])
def test_faulty_constants_are_those_of_the_reference(network: Network, policy: ReadPolicy) -> None:
    plan, x = compile_plan(network), pixels(network, 4)
    placement = place(network, SAFE, [*RULES, ("bias:*", parse_spec("uniform:ber=0.01"))][: 2 if network is QNN else 3])
    differ = 0
    for trial in range(12):
        deployment = deploy(plan, placement, policy, trial=trial, record=True)
        ours = outputs_under_faults(plan, x, deployment)[network.outputs[0]]
        theirs = reference_outputs(network, x, deployment.faults or [], policy)
        np.testing.assert_array_equal(ours, theirs)
        again = deploy(plan, placement, policy, trial=trial)
        np.testing.assert_array_equal(outputs_under_faults(plan, x, again)[network.outputs[0]], ours)
        assert again.tally.flips == deployment.tally.flips
        differ += not np.array_equal(ours, infer(plan, x)[network.outputs[0]])
    assert differ > 6


@pytest.mark.parametrize("policy", list(ReadPolicy))
def test_every_constant_is_read_as_often_as_announced(policy: ReadPolicy) -> None:
    plan, x = compile_plan(QNN), pixels(QNN, 5)
    deployment = deploy(plan, place(QNN, SAFE, RULES), policy)
    outputs_under_faults(plan, x, deployment, 2)
    reads, items = reads_per_image(QNN, policy, 5, 2), storable(QNN)
    placed = [name for name, item in items.items() if item.role in ("weight", "scale", "zero_point")]
    assert deployment.tally.bits_read == {name: round(items[name].bits * reads[name] * 5) for name in deployment.tally.bits_read}
    assert set(deployment.tally.bits_read) == set(placed)


def test_chunks_change_nothing() -> None:
    x, runs = pixels(QNN, 5), []
    for size in (1, 3000, 8 << 20):
        plan = compile_plan(QNN, chunk_bytes=size)
        deployment = deploy(plan, place(QNN, parse_spec("uniform:ber=0.01"), RULES), ReadPolicy.IMAGE, record=True)
        runs.append(outputs_under_faults(plan, x, deployment)[QNN.outputs[0]].tobytes())
    assert runs[0] == runs[1] == runs[2]


def test_constants_of_the_die_do_not_need_to_be_read_again() -> None:
    """Beside weights that a kernel redraws for each image: the steady constants of the same layer stay spoiled."""
    plan, x = compile_plan(QNN), pixels(QNN, 4)
    rules = [(name, parse_spec("uniform:ber=0.1,lifetime=die")) for name, _ in RULES]
    runs = [
        outputs_under_faults(plan, x, deploy(plan, place(QNN, parse_spec("uniform:ber=0.01"), rules), ReadPolicy.IMAGE, record=r))
        for r in (False, True)
    ]
    np.testing.assert_array_equal(runs[0][QNN.outputs[0]], runs[1][QNN.outputs[0]])


# --- what a flipped float means ------------------------------------------------------------------------------------------------


def spoil(network: Network, name: str, value: float) -> dict[str, np.ndarray]:
    """Return every value of a run with one constant replaced."""
    plan = compile_plan(network)
    parameters = new_parameters(plan, [name])
    parameters.values[name][...] = floats_to_bits(value)
    checked = check_inputs(plan, pixels(network, 3))
    (chunk,) = values_with(parameters, checked, list(network.values))
    return chunk


@pytest.mark.parametrize(("value", "low"), [(math.nan, True), (-math.inf, None), (math.inf, None), (-0.01, None), (0.0, None)])
def test_any_scale_makes_codes_within_their_limits(value: float, low: bool | None) -> None:
    (name,) = [c.tensor.name for own in collect_constants(QNN).values() for c in own if c.tensor.name.endswith("multiplier")][:1]
    layer = next(layer for layer in QNN.layers if name.startswith(f"{layer.name}."))
    seen, acc = spoil(QNN, name, value)[layer.output], spoil(QNN, name, value)[layer.inputs[0]]
    assert seen.dtype == np.uint8
    with np.errstate(all="ignore"):
        exact = np.rint(acc.astype(np.float32) * np.float32(value)) + np.float32(layer.zero_point)  # type: ignore[attr-defined]
    expected = np.where(np.isnan(exact), 0, np.clip(exact, 0, 255))
    np.testing.assert_array_equal(seen, expected)
    if low:
        assert not seen.any()


def test_a_score_that_is_nan_never_wins() -> None:
    network = affine_network()
    plan, x = compile_plan(network), pixels(network, 6)
    bias = collect_constants(network)["z"][1].tensor
    parameters = new_parameters(plan, [bias.name])
    questions = prepare_evaluation(plan, x, asked=Asked("pixels"))
    channel = int(questions.fault_free_answers[0, 0, 0])
    parameters.values[bias.name][channel] = int(floats_to_bits(math.nan)[0])
    scores = next(iter(values_with(parameters, check_inputs(plan, x), ["z"])))["z"]
    assert np.isnan(scores[:, channel]).all()
    assert not np.any(questions.task.answers(scores) == channel)
    assert not questions.task.answers(np.full_like(scores, np.nan)).any()


@pytest.mark.parametrize("value", [0.0, -0.0, 1.5, -3e-39, math.inf, -math.inf, math.nan])
def test_floats_and_their_bits(value: float) -> None:
    assert floats_to_bits(value).view(np.uint32).item() == struct.unpack("<I", struct.pack("<f", value))[0]
    np.testing.assert_array_equal(bits_to_floats(floats_to_bits(value)), np.array([value], np.float32))


# --- rules ---------------------------------------------------------------------------------------------------------------------


def placed(network: Network, target: str) -> set[str]:
    other = MemorySpec("uniform", {"ber": 0.5})
    return {slot.tensor for slot in place(network, SAFE, [(target, other)]).slots if slot.array == 1}


def test_rules_name_roles() -> None:
    first = next(layer for layer in QNN.layers if layer.name == "c1")
    assert placed(QNN, "scale:*") == {n for n, item in storable(QNN).items() if item.role == "scale"}
    assert placed(QNN, "bias:c1") == {first.bias} == placed(QNN, "bias:c1.*")  # type: ignore[attr-defined]
    assert placed(QNN, "weight:c*") == {tensor.name for tensor in QNN.weights}
    assert placed(BNN, "threshold:*") == {t.name for t in BNN.tensors.values() if t.role == "threshold"}
    assert placed(QNN, "zero_point:c1") == {"c1.input_zero_point"}
    assert placed(QNN, "c1.input_zero_point@7") == {"c1.input_zero_point"}
    for nothing in ("scale:c9", "zero_point:t1", "scales:*", "buffer:d*"):
        with pytest.raises(UsageError, match="inspect --storable"):
            placed(QNN if nothing[0] != "z" else BNN, nothing)


def test_nothing_but_weights_is_placed_by_default() -> None:
    assert {slot.tensor for slot in place(QNN, SAFE, [("*", MemorySpec("uniform", {"ber": 0.5}))]).slots} == {
        tensor.name for tensor in QNN.weights
    }


def test_erased_constants_are_zero() -> None:
    """A parity error in a word of scales: the scale is 0.0, and every code that it makes is the zero point."""
    plan, x = compile_plan(QNN), pixels(QNN, 3)
    layer = next(layer for layer in QNN.layers if type(layer).__name__ == "Requantize")
    rules = [(f"scale:{layer.name}", parse_spec("parity[word=32]+uniform:ber=0.4"))]
    deployment = deploy(plan, place(QNN, SAFE, rules), ReadPolicy.LOAD, record=True)
    parameters = new_parameters(plan, deployment.slots)
    (part,) = deployment.slots[f"{layer.name}.multiplier"]
    flips: Words = deployment.read(part, 0).flips
    parameters.flip(part.slot.tensor, part.slot.planes, flips)
    seen = bits_to_floats(parameters.values[part.slot.tensor])  # type: ignore[arg-type]
    assert (seen == 0.0).any()
    made = next(iter(values_with(parameters, check_inputs(plan, x), [layer.output])))[layer.output]
    assert np.all(made[..., seen == 0.0] == layer.zero_point)  # type: ignore[attr-defined]


def test_a_trial_survives_any_constants() -> None:
    """At half of all bits wrong, scales are infinite, NaN, negative; the trial still answers."""
    network = affine_network()
    plan = compile_plan(network)
    wild = [(f"{role}:*", parse_spec("uniform:ber=0.5")) for role in ("scale", "zero_point", "bias", "buffer")]
    questions = prepare_evaluation(plan, pixels(network, 8), asked=Asked("pixels"))
    for policy in ReadPolicy:
        result = run_trial(plan, place(network, SAFE, wild), questions, policy, trial=1)
        assert 0.0 <= result.changed <= 1.0
        assert result.flip_rate > 0.05
