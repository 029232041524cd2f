"""Protections that drop the signs of wrong words from sums. Oracle: zeros in the weight tensor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from tests.emulator.reference import evaluate
from tests.emulator.small import OnlyReads, RandomNetwork, pixels, small_bnn
from weakcell.emulator import Network, ReadPolicy, compile_plan, deploy, outputs_under_faults, place
from weakcell.emulator.engine.executor import check_inputs
from weakcell.emulator.engine.fault_free_cache import FaultFreeCache
from weakcell.emulator.ir.values import SIGN1, Window
from weakcell.emulator.plan.parameters import new_parameters
from weakcell.memmodels.address import Layout, Words, set_bits
from weakcell.memmodels.catalogue import open_memory, parse_spec
from weakcell.memmodels.errors import UsageError
from weakcell.memmodels.memory import Key, Memory, Region
from weakcell.memmodels.protection.check_bits import ProtectedReport


def mixed_network() -> Network:
    """Return sign layers on integer pixels, on bits behind padding, grouped, and on float pixels."""
    d = RandomNetwork(np.random.default_rng(8))
    a = d.threshold(d.convolution(d.input("x", (4, 6, 5), "int8"), 70, Window((3, 3), pads=(1, 1, 1, 1)), SIGN1), 200)
    a = d.threshold(d.pool(d.convolution(a, 34, Window((3, 2), pads=(1, 1, 0, 0)), SIGN1), Window((2, 1), (2, 1))))
    a = d.threshold(d.convolution(a, 6, Window((2, 2)), SIGN1, groups=2), 3)
    return d.network(d.dequantize(d.dense(a, 4, SIGN1)))


NETWORKS = {"bnn": small_bnn(), "mixed": mixed_network()}
SPECS = ["parity[word=32,policy=drop]+uniform:ber=0.01", "secded[policy=drop]+uniform:ber=0.03"]


@dataclass(frozen=True, eq=False)
class Spy(OnlyReads):
    """Memory that keeps the flips and the dropped cells of each tensor and read."""

    seen: dict[tuple[str, int], tuple[Words, Words | None]] = field(default_factory=dict)

    def read(self, region: Region, key: Key, out: Words) -> ProtectedReport:
        report = self.inner.read(region, key, out)
        assert isinstance(report, ProtectedReport)
        self.seen[region.layout.name, key.read] = out ^ region.written, report.dropped
        return report


def with_zeros(network: Network, seen: Mapping[tuple[str, int], tuple[Words, Words | None]], read: int) -> Network:
    """Return the network with its weights as one read returned them, and zeros for the dropped signs."""
    tensors = dict(network.tensors)
    for name, _ in (key for key in seen if key[1] == read):
        flips, dropped = seen[name, read]
        values = tensors[name].values.reshape(-1).copy()
        values[set_bits(flips)] *= -1
        if dropped is not None:
            values[set_bits(dropped)] = 0
        tensors[name] = replace(tensors[name], codes=values.reshape(tensors[name].shape))
    return replace(network, tensors=tensors)


@pytest.mark.parametrize("policy", list(ReadPolicy)[:3])
@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("kind", NETWORKS)
def test_dropped_signs_are_zeros_in_the_weights(kind: str, spec: str, policy: ReadPolicy) -> None:
    network, images, batch = NETWORKS[kind], 5, 2
    spy = Spy(open_memory(spec, 1))
    deployment = deploy(compile_plan(network), place(network, parse_spec(spec)), policy, memories=[spy])
    x = pixels(network, images)
    clean = FaultFreeCache(deployment.plan, check_inputs(deployment.plan, x))
    ours = outputs_under_faults(deployment.plan, x, deployment, batch, clean)[network.outputs[0]]
    assert sum(dropped is not None for _, dropped in spy.seen.values()) >= 3
    for image in range(images):
        read = {ReadPolicy.LOAD: 0, ReadPolicy.BATCH: image // batch, ReadPolicy.IMAGE: image}[policy]
        one = {name: value[image : image + 1] for name, value in x.items()}
        theirs = evaluate(with_zeros(network, spy.seen, read), one)[network.outputs[0]]
        np.testing.assert_array_equal(ours[image : image + 1], theirs)


def one_layer(kind: str) -> Network:
    """Return a single binary layer: dense, or a padded convolution of pixels or of bits."""
    d = RandomNetwork(np.random.default_rng(4))
    x = d.input("x", (3, 5, 4), "int8")
    if kind == "dense":
        return d.network(d.dequantize(d.dense(x, 40, SIGN1)))
    x = d.threshold(d.convolution(x, 33, Window((1, 1)), SIGN1), 200) if kind == "bits" else x
    return d.network(d.dequantize(d.convolution(x, 7, Window((3, 3), pads=(1, 1, 1, 1)), SIGN1)))


@pytest.mark.parametrize("spec", SPECS)
def test_a_dense_layer_read_at_each_access_drops_the_same_signs(spec: str) -> None:
    """A dense layer uses each weight once per image, so `access` equals `image`; both differ from a run without drops."""
    network, plan = one_layer("dense"), compile_plan(one_layer("dense"))
    raw = spec.replace("drop", "raw")
    runs = [(spec, ReadPolicy.IMAGE), (spec, ReadPolicy.ACCESS), (raw, ReadPolicy.ACCESS)]
    x = pixels(network, 5)
    image, access, kept = (
        outputs_under_faults(plan, x, deploy(plan, place(network, parse_spec(text)), policy))[network.outputs[0]]
        for text, policy in runs
    )
    np.testing.assert_array_equal(access, image)
    assert (access != kept).any()


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("kind", ["pixels", "bits"])
def test_under_access_every_output_pixel_has_its_own_zeros(kind: str, spec: str) -> None:
    """Pixel i of image n equals the reference with the zeros of read n * pixels + i in its weights."""
    network, images = one_layer(kind), 2
    last = network.layers[-2].name
    spy, plan, x = Spy(open_memory(spec, 1)), compile_plan(network), pixels(network, images)
    placement = place(network, parse_spec("uniform:ber=0"), [(f"{last}.w", parse_spec(spec))])
    ours = outputs_under_faults(plan, x, deploy(plan, placement, ReadPolicy.ACCESS, memories=[open_memory("uniform:ber=0"), spy]))[
        network.outputs[0]
    ]
    height, width = ours.shape[2:]
    assert len({dropped.tobytes() for _, dropped in spy.seen.values() if dropped is not None}) > 3
    for image in range(images):
        one = {name: value[image : image + 1] for name, value in x.items()}
        for pixel in range(height * width):
            theirs = evaluate(with_zeros(network, spy.seen, image * height * width + pixel), one)[network.outputs[0]]
            np.testing.assert_array_equal(ours[image, :, *divmod(pixel, width)], theirs[0, :, *divmod(pixel, width)])


def test_a_check_bit_alone_drops_signs() -> None:
    """Words that are right except for their parity drop out, and the fault-free cache is not used for them."""
    network = NETWORKS["bnn"]
    plan, x = compile_plan(network), pixels(network, 3)
    spec = "parity[word=8,policy=drop]+uniform:ber=0.00015"
    for seed in range(40):
        spy = Spy(open_memory(spec, seed))
        deployment = deploy(plan, place(network, parse_spec(spec)), ReadPolicy.LOAD, memories=[spy])
        ours = outputs_under_faults(plan, x, deployment, 3, FaultFreeCache(plan, check_inputs(plan, x)))[network.outputs[0]]
        theirs = evaluate(with_zeros(network, spy.seen, 0), x)[network.outputs[0]]
        np.testing.assert_array_equal(ours, theirs)
        if sum(deployment.tally.dropped.values()) and not sum(deployment.tally.flips.values()):
            return
    raise AssertionError("no check bit failed alone")


def test_nothing_stays_dropped() -> None:
    """Signs that one read dropped count again in the next; after a run, no parameter is changed."""
    network = NETWORKS["mixed"]
    plan = compile_plan(network)
    parameters = new_parameters(plan)
    before = {name: values.tobytes() for name, values in parameters.values.items()}
    for name in (tensor.name for tensor in network.weights):
        bring_back = parameters.drop_signs(name, np.array([0b1011], np.uint64))
        assert {k: v.tobytes() for k, v in parameters.values.items()} != before or name in parameters.dropped
        bring_back()
    assert {name: values.tobytes() for name, values in parameters.values.items()} == before
    assert not parameters.dropped


@pytest.mark.parametrize("width", [1, 8])
def test_only_signs_are_reported_as_dropped(width: int) -> None:
    """Wider elements read as zero, as under `erase`. A wrapper around a dropping protection passes its marks on."""
    layout = Layout("w", 512, width, erased=5)
    for text in (SPECS[0], f"msb+{SPECS[0]}", f"secded[policy=raw]+{SPECS[0]}"):
        memory: Memory = open_memory(text, 2)
        bits = np.random.default_rng(0).integers(0, 1 << 64, layout.words, dtype=np.uint64)
        region = memory.write(bits, layout, Key())
        out = np.empty_like(bits)
        report = memory.read(region, Key(), out)
        assert isinstance(report, ProtectedReport)
        assert (report.dropped is not None) is (width == 1)
        assert report.erased > 0


def test_dropped_signs_cannot_be_recorded() -> None:
    network = NETWORKS["bnn"]
    with pytest.raises(UsageError, match="no flip"):
        deploy(compile_plan(network), place(network, parse_spec(SPECS[0])), ReadPolicy.LOAD, record=True)
