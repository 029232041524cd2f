"""Placement rules: which memory each bit plane of each tensor lives in."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.emulator.small import small_bnn, small_qnn
from weakcell.emulator import Placement, compile_plan, deploy, place
from weakcell.emulator.faults.deployment import ReadPolicy
from weakcell.emulator.faults.placement import layers_by_weight
from weakcell.emulator.ir.network import Network
from weakcell.memmodels.address import unpack
from weakcell.memmodels.catalogue import MemorySpec
from weakcell.memmodels.errors import UsageError

A, B, C = (MemorySpec("uniform", {"ber": rate}) for rate in (0.1, 0.2, 0.3))
QNN, BNN = small_qnn(), small_bnn()
WEIGHTS = [t.name for t in QNN.weights]


def spec_by_plane(placement: Placement, tensor: str) -> dict[int, MemorySpec]:
    """Return for each bit plane the SPEC of its memory."""
    return {plane: placement.arrays[slot.array] for slot in placement.slots_of(tensor) for plane in slot.planes}


def test_weights_live_in_the_default_memory_and_nothing_else_does() -> None:
    placement = place(QNN, A)
    assert placement.arrays == (A,)
    assert [slot.tensor for slot in placement.slots] == WEIGHTS
    assert placement.bits(QNN) == QNN.weight_bits == sum(t.elements * t.encoding.bits for t in QNN.weights)
    assert all(spec_by_plane(placement, t.name) == dict.fromkeys(range(t.encoding.bits), A) for t in QNN.weights)


def test_a_rule_names_a_tensor_or_its_layer() -> None:
    by_weight = layers_by_weight(QNN)
    for tensor in WEIGHTS:
        assert place(QNN, A, [(tensor, B)]) == place(QNN, A, [(by_weight[tensor], B)])
    placement = place(QNN, A, [(by_weight[WEIGHTS[1]], B)])
    assert [spec_by_plane(placement, t)[0] for t in WEIGHTS] == [B if t == WEIGHTS[1] else A for t in WEIGHTS]


def test_biases_and_thresholds_are_placed_by_their_names_only() -> None:
    biases = [t.name for t in QNN.tensors.values() if t.role == "bias"]
    assert all(not place(QNN, A, [("*", B)]).slots_of(bias) for bias in biases)
    placement = place(QNN, A, [(biases[0], B)])
    assert spec_by_plane(placement, biases[0]) == dict.fromkeys(range(32), B)
    thresholds = [t.name for t in BNN.tensors.values() if t.role == "threshold"]
    assert spec_by_plane(place(BNN, A, [(f"{thresholds[0]}@31", B)]), thresholds[0]) == {
        31: B
    }  # its other bits stay in a safe place


def test_planes_and_ranges() -> None:
    first = WEIGHTS[0]
    for text, planes in (("7", {7}), ("6-7", {6, 7}), ("7-6", {6, 7}), ("0,2, 4-5", {0, 2, 4, 5}), ("0-7", set(range(8)))):
        found = spec_by_plane(place(QNN, A, [(f"{first}@{text}", B)]), first)
        assert {plane for plane, spec in found.items() if spec == B} == planes
        assert len(found) == 8


def test_patterns() -> None:
    assert all(spec_by_plane(place(QNN, A, [("c*", B)]), t)[0] == B for t in WEIGHTS)
    sign = place(QNN, A, [("*@1", B)])
    assert all(spec_by_plane(sign, t)[1] == B and spec_by_plane(sign, t)[0] == A for t in WEIGHTS)
    with pytest.raises(UsageError, match="'7' is no bit or range of bits"):
        place(QNN, A, [("*@7", B)])  # the int4 weights have no bit 7


def test_later_rules_win() -> None:
    first = WEIGHTS[0]
    found = spec_by_plane(place(QNN, A, [("*", B), (f"{first}@4-7", C), (f"{first}@7", A)]), first)
    assert [found[plane] for plane in range(8)] == [B] * 4 + [C] * 3 + [A]
    assert spec_by_plane(place(QNN, A, [(f"{first}@7", C), ("*", B)]), first)[7] == B


def test_equal_specs_share_an_array() -> None:
    placement = place(QNN, A, [(WEIGHTS[0], B), (WEIGHTS[1], MemorySpec("uniform", {"ber": 0.2})), (WEIGHTS[2], A)])
    assert placement.arrays == (A, B)
    moved = placement.at(ber=0.4)
    assert moved.arrays == (MemorySpec("uniform", {"ber": 0.4}), B)
    assert moved.slots == placement.slots


@pytest.mark.parametrize(
    ("rule", "found"),
    [
        ("nothing", "no layer or tensor is called 'nothing'"),
        ("d*", "no layer or tensor is called 'd*'"),
        ("c1@8", "'8' is no bit or range of bits of c1.w"),
        ("c1@3-9", "'3-9' is no bit"),
        ("c1@", None),
        ("c1@x", "'x' is no bit"),
        ("c1@-1", "'-1' is no bit"),
        ("c1@1,,2", "'' is no bit"),
        ("c1@1.5", "'1.5' is no bit"),
        ("", "no layer or tensor is called ''"),
    ],
)
def test_rules_that_mean_nothing_are_refused(rule: str, found: str | None) -> None:
    if found is None:
        assert place(QNN, A, [(rule, B)]) == place(QNN, A, [("c1", B)])  # no planes are all planes
        return
    with pytest.raises(UsageError) as error:
        place(QNN, A, [(rule, B)])
    assert found in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("rule", "near"), [("c12", "Did you mean c1 or "), ("c1.v", "Did you mean c1.w or "), ("nothing", "Known: ")]
)
def test_a_name_that_nothing_has_is_answered_with_the_nearest(rule: str, near: str) -> None:
    with pytest.raises(UsageError) as error:
        place(QNN, A, [(rule, B)])
    assert near in str(error.value)
    assert near == "Known: " or str(error.value).index(near) < str(error.value).index("Known: ")
    assert (near == "Known: ") == ("Did you mean" not in str(error.value))


RULES = st.lists(
    st.tuples(st.sampled_from(["*", "c*", *WEIGHTS]), st.sampled_from(["", "@0", "@1", "@0-1"]), st.sampled_from([A, B, C])),
    max_size=6,
)


@given(RULES)
def test_every_bit_is_placed_once_and_stored_there(rules: list[tuple[str, str, MemorySpec]]) -> None:
    """Compare with the rules applied bit by bit, and the contents of all regions with the tensor."""
    placement = place(QNN, A, [(name + planes, spec) for name, planes, spec in rules])
    for tensor in QNN.weights:
        expected = dict.fromkeys(range(tensor.encoding.bits), A)
        for name, planes, spec in rules:
            if name in ("*", "c*", tensor.name):
                expected.update(dict.fromkeys({"@0": [0], "@1": [1], "@0-1": [0, 1]}.get(planes, list(expected)), spec))
        found = [plane for slot in placement.slots_of(tensor.name) for plane in slot.planes]
        assert len(found) == len(set(found))
        assert spec_by_plane(placement, tensor.name) == expected
    deployment = deploy(compile_plan(QNN), placement, ReadPolicy.LOAD)
    for tensor in QNN.weights:
        codes = np.zeros(tensor.elements, np.uint64)
        for stored in deployment.slots[tensor.name]:
            unpack(stored.region.written, stored.region.layout, codes)
        np.testing.assert_array_equal(codes, tensor.values.reshape(-1).astype(np.int64) & ((1 << tensor.encoding.bits) - 1))


def renamed(*names: str) -> Network:
    """Return QNN with other names for its layers with weights."""
    given = dict(zip(layers_by_weight(QNN).values(), names, strict=False))
    return replace(QNN, layers=tuple(replace(layer, name=given.get(layer.name, layer.name)) for layer in QNN.layers))


def test_a_part_of_a_name_that_one_layer_has_is_enough() -> None:
    network = renamed("/conv1/Conv", "/block/fc1/Gemm")
    by_weight = layers_by_weight(network)
    first, second = (next(w for w, name in by_weight.items() if name == full) for full in ("/conv1/Conv", "/block/fc1/Gemm"))
    for short, tensor in (("conv1", first), ("/conv1", first), ("fc1", second), ("block/fc1", second), ("Gemm@0", second)):
        moved = {slot.tensor for slot in place(network, A, [(short, B)]).slots if slot.array == 1}
        assert moved == {tensor}
    assert place(network, A, [("bias:fc1", B)]) == place(network, A, [("bias:/block/fc1/Gemm", B)])
    for nothing in ("onv1", "conv", "c1/Gem"):
        with pytest.raises(UsageError, match="no layer or tensor"):
            place(network, A, [(nothing, B)])


def test_a_part_of_a_name_that_several_layers_have_is_refused() -> None:
    with pytest.raises(UsageError, match="could be /block/fc1/Gemm or /block/fc2/Gemm"):
        place(renamed("/block/fc1/Gemm", "/block/fc2/Gemm"), A, [("block", B)])
