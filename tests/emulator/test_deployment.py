"""Deployments on memories: every route of a read gives the same faults and the same logits.

Oracles: the memory's own `read`, and the plain NumPy network with recorded faults.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.emulator.reference import evaluate
from tests.emulator.small import OnlyReads, RandomNetwork, pixels, replay, small_bnn, small_qnn
from tests.memmodels.memories import CASES, Case, RecordingMemory
from weakcell.emulator import Deployment, Network, ReadPolicy, compile_plan, deploy, infer, load, outputs_under_faults, place
from weakcell.emulator.engine.executor import check_inputs, values_with
from weakcell.emulator.faults.deployment import reads_per_image
from weakcell.emulator.ir.values import SIGN1, Window
from weakcell.emulator.plan.parameters import new_parameters
from weakcell.emulator.plan.plan import Plan
from weakcell.memmodels import open_memory
from weakcell.memmodels.address import popcount
from weakcell.memmodels.catalogue import parse_spec
from weakcell.memmodels.memory import Memory

DIGITS = Path(__file__).resolve().parents[2] / "host" / "shipped" / "digits_bnn.onnx"
NETWORKS = {"bnn": small_bnn(), "qnn": small_qnn()}
PLANS = {name: compile_plan(network) for name, network in NETWORKS.items()}
DEFAULT, OTHER = parse_spec("uniform:ber=0.02"), parse_spec("uniform:ber=0.03")
IMAGES, BATCH = 5, 2


def dense_network(seed: int = 3) -> Network:
    """Return a network of dense layers only: 130 pixels, 70 signs, 5 logits."""
    d = RandomNetwork(np.random.default_rng(seed))
    x = d.threshold(d.dense(d.input("x", (130,), "int8"), 70, SIGN1), 300)
    return d.network(d.dequantize(d.dense(x, 5, SIGN1)))


def rules_of(kind: str, network: Network) -> list[tuple[str, object]]:
    """Return placement rules. `weights`: all in one memory. `split`: planes, biases and thresholds in two memories."""
    if kind == "weights":
        return []
    rules = [(f"{t.name}@{t.encoding.bits - 1}", OTHER) for t in network.weights if t.encoding.bits > 1]
    rules += [(t.name, OTHER) for t in list(network.weights)[1:2]]
    small = [t.name for t in network.tensors.values() if t.role != "weight"]
    return [*rules, (small[0], DEFAULT), *((name, OTHER) for name in small[1:])]


def deployed(
    kind: str,
    placed: str,
    policy: ReadPolicy,
    memories: Iterable[Memory],
    *,
    record: bool = False,
    trial: int = 0,
    plan: Plan | None = None,
) -> Deployment:
    network = NETWORKS[kind]
    placement = place(network, DEFAULT, rules_of(placed, network))  # type: ignore[arg-type]
    return deploy(plan or PLANS[kind], placement, policy, trial=trial, memories=list(memories), record=record)


def logits(kind: str, deployment: Deployment) -> np.ndarray:
    network = NETWORKS[kind]
    return outputs_under_faults(deployment.plan, pixels(network, IMAGES), deployment, BATCH)[network.outputs[0]]


def two_of(case: Case) -> list[Memory]:
    """Return two dies of a memory, for the two arrays of a placement."""
    return [case.build(die=0), case.build(die=1)]


def flips_by_tensor(deployment: Deployment) -> Counter[str]:
    counts: Counter[str] = Counter()
    for fault in deployment.faults or ():
        counts[fault.slot.tensor] += popcount(fault.flips)
    return counts


SIMULATED = [case for case in CASES if case.drawn]
POLICIES = list(ReadPolicy)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("placed", ["weights", "split"])
@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("case", SIMULATED, ids=lambda case: case.name)
def test_sampler_and_read_give_the_same(case: Case, kind: str, placed: str, policy: ReadPolicy) -> None:
    """Compare four routes: sampled in kernels, read through the memory, recorded, replayed by the reference."""
    drawn = deployed(kind, placed, policy, two_of(case))
    ours = logits(kind, drawn)
    read = deployed(kind, placed, policy, map(OnlyReads, two_of(case)))
    np.testing.assert_array_equal(logits(kind, read), ours)
    recorded = deployed(kind, placed, policy, two_of(case), record=True)
    np.testing.assert_array_equal(logits(kind, recorded), ours)
    assert drawn.tally.flips == read.tally.flips == recorded.tally.flips
    assert drawn.tally.bits_read == read.tally.bits_read == recorded.tally.bits_read
    assert Counter(drawn.tally.flips) == flips_by_tensor(recorded)
    assert recorded.faults is not None
    theirs = replay(NETWORKS[kind], pixels(NETWORKS[kind], IMAGES), recorded.faults, policy, BATCH)
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize(
    "case", [case for case in CASES if case.name.split()[0] in ("ecc", "board", "planes")], ids=lambda c: c.name
)
def test_memories_that_can_only_be_read(case: Case, kind: str, policy: ReadPolicy) -> None:
    """What ECC, a board and bit planes return is what layers compute with, and what is counted."""
    deployment = deployed(kind, "split", policy, two_of(case), record=True)
    ours = logits(kind, deployment)
    assert deployment.faults is not None
    np.testing.assert_array_equal(ours, replay(NETWORKS[kind], pixels(NETWORKS[kind], IMAGES), deployment.faults, policy, BATCH))
    assert flips_by_tensor(deployment) == Counter(deployment.tally.flips)
    if case.repeats:
        again = deployed(kind, "split", policy, two_of(case))
        np.testing.assert_array_equal(logits(kind, again), ours)
        assert again.tally.flips == deployment.tally.flips


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("kind", NETWORKS)
def test_a_recording_replays(kind: str, policy: ReadPolicy) -> None:
    """A run on the recording of another run has the same logits."""
    tapes = [OnlyReads(memory, RecordingMemory(memory.conditions)) for memory in two_of(SIMULATED[0])]
    first = deployed(kind, "split", policy, tapes)
    ours = logits(kind, first)
    second = deployed(kind, "split", policy, [tape.tape for tape in tapes if tape.tape])
    np.testing.assert_array_equal(logits(kind, second), ours)
    assert first.tally.flips == second.tally.flips


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("policy", POLICIES)
def test_recorded_faults_replay_through_the_parameters(kind: str, policy: ReadPolicy) -> None:
    """Under `load`, flips put into a plan's parameters by hand give the same logits. The reference covers other policies."""
    deployment = deployed(kind, "split", policy, two_of(SIMULATED[0]), record=True)
    ours = logits(kind, deployment)
    if policy is not ReadPolicy.LOAD:
        assert {fault.read for fault in deployment.faults or ()} > {0}
        return
    plan = PLANS[kind]
    parameters = new_parameters(plan)
    for fault in deployment.faults or ():
        parameters.flip(fault.slot.tensor, fault.slot.planes, fault.flips)
    checked = check_inputs(plan, pixels(plan.network, IMAGES))
    parts = values_with(parameters, checked, plan.network.outputs)
    np.testing.assert_array_equal(np.concatenate([part[plan.network.outputs[0]] for part in parts]), ours)


# --- read policies -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("kind", NETWORKS)
def test_chunks_change_nothing(kind: str, policy: ReadPolicy) -> None:
    runs = []
    for size in (1, 3000, 8 << 20):
        plan = compile_plan(NETWORKS[kind], chunk_bytes=size)
        deployment = deployed(kind, "split", policy, two_of(SIMULATED[1]), plan=plan)
        runs.append((logits(kind, deployment).tobytes(), deployment.tally.flips, deployment.tally.bits_read))
    assert runs[0] == runs[1] == runs[2]


@pytest.mark.parametrize("policy", POLICIES)
def test_only_the_batch_policy_knows_the_batch_size(policy: ReadPolicy) -> None:
    plan, x = PLANS["bnn"], pixels(NETWORKS["bnn"], 24)
    outs = {}
    for batch in (4, 6, 24):
        deployment = deployed("bnn", "weights", policy, two_of(SIMULATED[0]))
        outs[batch] = outputs_under_faults(plan, x, deployment, batch)[plan.network.outputs[0]].tobytes()
    assert len(set(outs.values())) == (3 if policy is ReadPolicy.BATCH else 1)


def test_a_batch_reads_by_its_number() -> None:
    """Batch 1 of two equals a second batch of the same images. A batch of all images is a load."""
    plan, x = PLANS["bnn"], pixels(NETWORKS["bnn"], 6)
    whole = {policy: deployed("bnn", "weights", policy, two_of(SIMULATED[0])) for policy in (ReadPolicy.BATCH, ReadPolicy.LOAD)}
    made = [outputs_under_faults(plan, x, d, 6) for d in whole.values()]
    assert {k: v.tobytes() for k, v in made[0].items()} == {k: v.tobytes() for k, v in made[1].items()}


def test_access_equals_image_for_dense_layers() -> None:
    network = dense_network()
    plan, x = compile_plan(network), pixels(network, 9)
    placement = place(network, DEFAULT)
    runs = [deploy(plan, placement, policy, seed=4) for policy in (ReadPolicy.IMAGE, ReadPolicy.ACCESS)]
    image, access = (outputs_under_faults(plan, x, run)[network.outputs[0]] for run in runs)
    np.testing.assert_array_equal(image, access)
    assert (runs[0].tally.flips, runs[0].tally.bits_read) == (runs[1].tally.flips, runs[1].tally.bits_read)
    assert sum(runs[0].tally.flips.values()) > 0


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("kind", NETWORKS)
def test_bits_read_are_those_predicted(kind: str, policy: ReadPolicy) -> None:
    """The tally agrees with `reads_per_image`, from which times and fault lists are estimated."""
    network = NETWORKS[kind]
    deployment = deployed(kind, "split", policy, two_of(SIMULATED[0]))
    logits(kind, deployment)
    reads = reads_per_image(network, policy, IMAGES, BATCH)
    expected = {name: round(network.tensors[name].bits * reads[name] * IMAGES) for name in network.tensors}
    assert deployment.tally.bits_read == expected


@pytest.mark.parametrize("policy", POLICIES)
def test_no_images(policy: ReadPolicy) -> None:
    plan, x = PLANS["qnn"], pixels(NETWORKS["qnn"], 0)
    made = outputs_under_faults(plan, x, deployed("qnn", "split", policy, two_of(SIMULATED[0])))
    assert made[plan.network.outputs[0]].shape == (0, 4)


def scores_by_trial(network: Network, x: dict[str, np.ndarray], policy: ReadPolicy, trials: int, spec: str) -> np.ndarray:
    """Return the outputs of every trial: (trials, n, ...)."""
    plan = compile_plan(network)
    placement = place(network, parse_spec(spec))
    runs = (deploy(plan, placement, policy, trial=trial, seed=11) for trial in range(trials))
    return np.stack([outputs_under_faults(plan, x, run, 6)[network.outputs[0]] for run in runs])


def test_expected_accuracy_does_not_depend_on_load_batch_or_image(capsys: pytest.CaptureFixture[str]) -> None:
    """Read-lifetime errors on the digits network: means within 4 standard errors, and less variance the more often it reads.

    Access is reported, not compared: a convolution that reads again for each pixel has independent errors at its pixels, where the
    others share theirs, and behind the first layer a network turns that into another mean. See the next test for what is equal.
    """
    network = load(DIGITS)
    with np.load(DIGITS.parent / "digits.npz") as data:
        x, y = {"input": data["x_test"][:24].astype(np.float32)}, data["y_test"][:24]
    seen = {}
    for policy, trials in zip(POLICIES, (400, 300, 150, 10), strict=True):
        accuracy = np.mean(scores_by_trial(network, x, policy, trials, "uniform:ber=0.1").argmax(2) == y, axis=1)
        seen[policy] = accuracy.mean(), accuracy.std(ddof=1), accuracy.std(ddof=1) / trials**0.5
    with capsys.disabled():
        print("\naccuracy at BER 0.1:", ", ".join(f"{k} {m:.3f} ± {e:.3f} (sd {s:.3f})" for k, (m, s, e) in seen.items()))
    load_mean, load_sd, load_error = seen[ReadPolicy.LOAD]
    for policy in (ReadPolicy.BATCH, ReadPolicy.IMAGE):
        mean, _, error = seen[policy]
        assert abs(mean - load_mean) < 4 * np.hypot(error, load_error)
    assert load_sd > 1.15 * seen[ReadPolicy.BATCH][1] > 1.15**2 * seen[ReadPolicy.IMAGE][1]


def test_expected_outputs_of_a_layer_do_not_depend_on_the_policy() -> None:
    """One binary layer on copies of a flat image: each output has the same mean under all four policies."""
    d = RandomNetwork(np.random.default_rng(6))
    x = d.convolution(d.input("x", (3, 5, 5), "int8"), 8, Window((3, 3), pads=(1, 1, 1, 1)), SIGN1)
    network = d.network(d.dequantize(d.threshold(x, 150)))
    images, trials = {"x": np.broadcast_to(np.array([90, -40, 25]).reshape(1, 3, 1, 1), (12, 3, 5, 5))}, 300
    runs = {policy: scores_by_trial(network, images, policy, trials, "uniform:ber=0.1") for policy in POLICIES}
    means, spreads = {p: made.mean(0) for p, made in runs.items()}, {p: made.mean((1, 2, 3, 4)).std() for p, made in runs.items()}
    for policy in POLICIES[1:]:
        error = np.sqrt((runs[policy].var(0) + runs[ReadPolicy.LOAD].var(0)) / trials)
        apart = np.abs(means[policy] - means[ReadPolicy.LOAD])
        assert np.all(apart <= 5.5 * error + 4 / trials)  # 2,400 outputs, each judged on its own
        assert np.mean(apart > 1.96 * error + 1e-9) < 0.1
    assert spreads[ReadPolicy.LOAD] > 1.2 * spreads[ReadPolicy.BATCH] > 1.2**2 * spreads[ReadPolicy.IMAGE]
    assert spreads[ReadPolicy.IMAGE] > 1.2 * spreads[ReadPolicy.ACCESS]


def test_fused_steps_compute_what_their_parts_do() -> None:
    """Faults in bias and threshold may take sums past int32, where they wrap, also in a step that writes only bits."""
    d = RandomNetwork(np.random.default_rng(12))
    x = d.threshold(d.convolution(d.input("x", (2, 4, 4), "int8"), 40, Window((2, 2)), SIGN1, bias=True))
    network = d.network(d.dequantize(x))
    plan, images = compile_plan(network), pixels(network, 6)
    for cells in ("c0.b@31", "t1.t@31"):
        memories = [open_memory(f"uniform:ber={rate}") for rate in (0, 0.5)]
        placement = place(network, DEFAULT, [(cells, OTHER)])
        runs = [deploy(plan, placement, ReadPolicy.LOAD, memories=memories, record=record) for record in (True, False)]
        ours = [outputs_under_faults(plan, images, run)[network.outputs[0]] for run in runs]
        np.testing.assert_array_equal(ours[0], replay(network, images, runs[0].faults or [], ReadPolicy.LOAD, 1))
        np.testing.assert_array_equal(ours[0], ours[1])


# --- lifetimes and rates -----------------------------------------------------------------------------------------------------


def recorded_faults(spec: str, trial: int, die: int | None, seed: int = 0) -> list[bytes]:
    plan = PLANS["qnn"]
    deployment = deploy(plan, place(plan.network, parse_spec(spec)), ReadPolicy.LOAD, trial=trial, seed=seed, die=die, record=True)
    outputs_under_faults(plan, pixels(plan.network, 1), deployment)
    return [fault.flips.tobytes() for fault in deployment.faults or ()]


def test_a_die_keeps_its_faults() -> None:
    die = "uniform:ber=0.02,lifetime=die"
    pinned = [recorded_faults(die, trial, die=7) for trial in range(3)]
    assert pinned[0] == pinned[1] == pinned[2] != recorded_faults(die, 0, die=8)
    assert recorded_faults(die, 5, die=None) == recorded_faults(die, 0, die=5)  # without a pin, trial t is die t
    assert recorded_faults(die, 0, die=7, seed=1) != pinned[0]
    reads = [recorded_faults("uniform:ber=0.02", trial, die=7) for trial in range(2)]
    assert reads[0] != reads[1]


@pytest.mark.parametrize("lifetime", ["read", "write", "die"])
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("kind", NETWORKS)
def test_no_errors_no_change(kind: str, policy: ReadPolicy, lifetime: str) -> None:
    memories = [open_memory(f"uniform:ber=0,lifetime={lifetime}", array=a) for a in (0, 1)]
    deployment = deployed(kind, "split", policy, memories)
    network = NETWORKS[kind]
    clean = infer(PLANS[kind], pixels(network, IMAGES))[network.outputs[0]]
    np.testing.assert_array_equal(logits(kind, deployment), clean)
    assert set(deployment.tally.flips.values()) == {0}


@pytest.mark.parametrize("lifetime", ["read", "die"])
@pytest.mark.parametrize("policy", POLICIES)
def test_every_sign_inverted(policy: ReadPolicy, lifetime: str) -> None:
    """With ber=1 on both values, the outputs are those of the network with negated weights."""
    network = NETWORKS["bnn"]
    negated = {n: replace(t, codes=-t.values) if t.role == "weight" else t for n, t in network.tensors.items()}
    spec = f"uniform:ber=1,lifetime={lifetime}" + (",cells=invert" if lifetime == "die" else "")
    plan, x = PLANS["bnn"], pixels(network, IMAGES)
    made = outputs_under_faults(plan, x, deploy(plan, place(network, parse_spec(spec)), policy))
    for name, expected in evaluate(replace(network, tensors=negated), x).items():
        if name in made:
            np.testing.assert_array_equal(made[name], expected)


# --- statistical defects that others have ---------------------------------------------


@pytest.mark.parametrize("policy", POLICIES)
def test_defect_h_padding_of_bipolar_tensors(policy: ReadPolicy) -> None:
    """FINN #996: padding around ±1 values counts as 0, not as -1 or +1; under faults, too."""
    network = NETWORKS["bnn"]
    plan = PLANS["bnn"]
    assert any(any(layer.window.pads) for layer in network.layers[2:3])  # type: ignore[attr-defined]
    x = pixels(network, 3)
    made = infer(plan, x, ["c2.acc"])["c2.acc"].astype(np.int64)
    bits = evaluate(network, x)["t1"]
    padded = np.pad(bits, ((0, 0), (0, 0), (1, 1), (0, 1)))
    weights = network.tensors["c2.w"].values
    by_hand = np.zeros_like(made)
    for (row, column), pixel in np.ndenumerate(np.zeros(made.shape[2:])):
        patch = padded[:, :, row : row + 3, column : column + 2].reshape(3, -1)
        by_hand[:, :, row, column] = patch @ weights.reshape(35, -1).T + int(pixel)
    np.testing.assert_array_equal(made, by_hand)
    corner = np.abs(made[:, :, 0, 0])
    assert corner.max() <= 9 * 4  # two rows of two columns are inside the image
    memories = [open_memory("uniform:ber=0.3")]
    deployment = deployed("bnn", "weights", policy, memories, record=True)
    ours = logits("bnn", deployment)
    np.testing.assert_array_equal(ours, replay(network, pixels(network, IMAGES), deployment.faults or [], policy, BATCH))


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("kind", NETWORKS)
def test_defect_i_every_stored_tensor_gets_flips(kind: str, policy: ReadPolicy) -> None:
    """TensorFI2 skips the last variable. Here every cell of every tensor flips."""
    network = NETWORKS[kind]
    deployment = deployed(kind, "split", policy, [open_memory("uniform:ber=0.5", array=a) for a in (0, 1)], record=True)
    logits(kind, deployment)
    assert set(deployment.tally.flips) == set(network.tensors)
    assert min(deployment.tally.flips.values()) > 0
    everything = deployed(kind, "split", policy, [open_memory("uniform:ber=1", array=a) for a in (0, 1)], record=True)
    logits(kind, everything)
    assert everything.tally.flips == everything.tally.bits_read
    for name, tensor in network.tensors.items():
        planes = {plane for fault in everything.faults or () if fault.slot.tensor == name for plane in fault.slot.planes}
        assert planes == set(range(tensor.encoding.bits))


@pytest.mark.parametrize("policy", POLICIES)
def test_defect_j_counters_report_all_layers(policy: ReadPolicy) -> None:
    """nvmFI reports the last group only. Here flips are counted by tensor, add up, and are near their expectation."""
    rate = 0.1
    memories = [open_memory(f"uniform:ber={rate}", array=a) for a in (0, 1)]
    deployment = deployed("qnn", "split", policy, memories)
    logits("qnn", deployment)
    assert list(deployment.tally.flips) == list(deployment.tally.bits_read)
    for name, flips in deployment.tally.flips.items():
        bits = deployment.tally.bits_read[name]
        assert bits % NETWORKS["qnn"].tensors[name].bits == 0
        assert abs(flips - rate * bits) < 5 * np.sqrt(rate * (1 - rate) * bits) + 1
