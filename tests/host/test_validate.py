"""`weakcell validate`: flips counted right, bounds never broken by honest flips, and a bound that is one too large caught."""

from __future__ import annotations

import functools
import json
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner, Result

import weakcell.host.validation.trials as hv
from tests.emulator.small import OnlyReads, with_flips
from weakcell.emulator import infer
from weakcell.emulator import margins as mg
from weakcell.emulator.faults.deployment import ReadPolicy, deploy
from weakcell.emulator.faults.run import outputs_under_faults
from weakcell.emulator.plan.plan import compile_plan
from weakcell.host.cli import app
from weakcell.host.study.study import Point, ResolvedStudy, Study, resolve_study
from weakcell.host.validation.claims import KEPT, LOST, TIED, TIED_AWAY, CheckSummary
from weakcell.host.validation.stress import resolve_validation
from weakcell.host.validation.trials import Validation, validate_study
from weakcell.memmodels.address import Words
from weakcell.memmodels.catalogue import open_memory, parse_spec
from weakcell.memmodels.memory import Key, Memory, ReadReport, Region
from weakcell.memmodels.recording import Recording


def study(model: str = "digits-bnn", memory: str = "uniform:ber=0.005", **others: Any) -> Study:
    return Study(**{"model": model, "memory": parse_spec(memory), "sweep": None, "trials": 2, "images": 60, **others})


def of(found: Validation, check: str) -> CheckSummary:
    return next(one for one in found.checks if one.check == check)


def weakcell(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["validate", *(str(part) for part in arguments)])


# --- counting ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", [ReadPolicy.LOAD, ReadPolicy.BATCH, ReadPolicy.IMAGE])
def test_flips_are_counted_as_a_plain_recount_counts_them(policy: ReadPolicy) -> None:
    resolved = resolve_study(study(memory="uniform:ber=0.01", images=10, batch=4, read_every=policy, trials=1))
    found = validate_study(resolved)
    network = resolved.network
    head = mg.find_output_layer(network)
    wide = compile_plan(replace(network, outputs=(*network.outputs, head.input, head.accumulator)))
    data = {network.inputs[0]: resolved.dataset.x}
    deployment = deploy(wide, resolved.points[0].placement, policy, record=True)
    faulty, clean = outputs_under_faults(wide, data, deployment, 4), infer(wide, data)
    wanted: Counter[tuple[int, int, int]] = Counter()
    for image in range(10):
        read = {ReadPolicy.LOAD: 0, ReadPolicy.BATCH: image // 4, ReadPolicy.IMAGE: image}[policy]
        weights = head.tensor
        for fault in deployment.faults or ():
            if fault.read == read and fault.slot.tensor == weights.name:
                weights = with_flips(weights, fault.slot.planes, fault.flips)
        x, moved = (values[head.input][image].reshape(-1) for values in (clean, faulty))
        assert np.array_equal(weights.values.reshape(10, -1) @ moved.astype(int), faulty[head.accumulator][image].reshape(-1))
        per_neuron = (weights.values != head.tensor.values).reshape(10, -1).sum(1) + (x != moved).sum()
        logits = np.sort(clean[head.accumulator][image].reshape(-1))
        margin, winner = int(logits[-1] - logits[-2]), int(clean[head.accumulator][image].argmax())
        if margin == 0:
            continue
        after = faulty[head.accumulator][image].reshape(-1)
        ahead = (after[winner] > np.delete(after, winner)).all()
        lost = (after > after[winner]).any()
        tie = TIED if after.argmax() == winner else TIED_AWAY
        wanted[max(0, margin // 2 - 1), int(per_neuron.sum()), KEPT if ahead else LOST if lost else tie] += 1
    assert Counter({key[2:]: n for key, n in found.tally.items() if key[1] == "corollary-2"}) == wanted


def test_both_routes_and_any_number_of_threads_find_the_same() -> None:
    resolved = resolve_study(study())

    def reads_only(point: Point, trial: int) -> list[Memory]:
        return [OnlyReads(open_memory(spec, 0, trial, i)) for i, spec in enumerate(point.placement.arrays)]

    one = validate_study(resolved, threads=1)
    assert validate_study(resolved, threads=3).tally == one.tally == validate_study(resolved, memories=reads_only).tally
    later = [validate_study(resolve_study(study(trials=1)), first=trial).tally for trial in range(2)]
    assert later[0] + later[1] == one.tally  # a trial can be run again by its number


@pytest.mark.parametrize(
    ("model", "memory", "others"),
    [
        ("digits-bnn", "sram-14nm:v_over_vmin=0.8", {}),
        ("digits-bnn", "uniform:ber=0.01,lifetime=die", {"read_every": ReadPolicy.IMAGE, "images": 20}),
        ("digits-bnn", "secded+uniform:ber=0.02", {}),
        ("digits-qnn", "uniform:p01=0,p10=0.002", {"trials": 10}),
        ("digits-qnn", "uniform:ber=0", {"places": (("/dense4/Gemm@0-5", parse_spec("uniform:ber=0.02")),)}),
        ("digits-qnn", "dram:trcd=5", {"read_every": ReadPolicy.BATCH, "batch": 16}),
    ],
)
def test_no_bound_is_ever_broken(model: str, memory: str, others: dict[str, Any]) -> None:
    found = validate_study(resolve_study(study(model, memory, **others)))
    assert found.violation_count == 0
    assert not found.violations
    assert all(check.pairs > 0 for check in found.checks)
    assert [check.check for check in found.checks] == (["greedy"] if model.endswith("qnn") else ["corollary-2", "pair", "greedy"])


def test_a_recording_is_judged_like_the_memory_that_was_recorded(tmp_path: Path) -> None:
    resolved = resolve_study(study(memory="uniform:ber=0.01,lifetime=die", trials=1))
    memory, tape = open_memory("uniform:ber=0.01,lifetime=die"), Recording()
    for part in deploy(resolved.plan, resolved.points[0].placement, ReadPolicy.LOAD, memories=[memory]).all_slots:
        tape.take(memory, part.region, range(1))
    tape.save(tmp_path / "tape.npz")
    replayed = validate_study(resolve_study(study(memory=f"recording:{tmp_path / 'tape.npz'}", trials=1)))
    assert replayed.violation_count == 0
    assert replayed.tally == validate_study(resolved).tally


def test_hidden_neurons_keep_their_bounds() -> None:
    found = validate_study(resolve_study(study(memory="uniform:ber=0.02", images=30)), hidden=True)
    assert found.violation_count == 0
    assert of(found, "corollary-1").pairs == of(found, "neuron").pairs == 2 * 30 * (32 * 64 + 96)
    assert of(found, "greedy-neuron").pairs == 2 * 30 * 32 * 64
    assert min(of(found, name).near for name in ("corollary-1", "neuron", "greedy-neuron")) > 100
    exact = of(found, "neuron").tightest
    assert exact is not None
    assert exact[0] == exact[1] + 1  # with so many pairs, one flip above the exact count is seen to change a neuron


# --- an adversary --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Adversary:
    """A memory without errors but for chosen cells of one tensor."""

    inner: Memory
    tensor: str
    cells: tuple[int, ...]

    @property
    def conditions(self) -> Any:
        return self.inner.conditions

    def at(self, **conditions: Any) -> Adversary:
        return replace(self, inner=self.inner.at(**conditions))

    def write(self, bits: Words, layout: Any, key: Key) -> Region:
        return self.inner.write(bits, layout, key)

    def read(self, region: Region, key: Key, out: Words) -> ReadReport:
        self.inner.read(region, key, out)
        chosen = self.cells if region.layout.name == self.tensor else ()
        for cell in chosen:
            out[cell // 64] ^= np.uint64(1 << cell % 64)
        return ReadReport(len(chosen))

    def sampler(self, region: Region) -> None:
        return None

    def cost(self, region: Region, accesses: Any) -> Any:
        return self.inner.cost(region, accesses)


def worst_of(resolved: ResolvedStudy, image: int, more: int) -> tuple[str, tuple[int, ...]]:
    """The tensor, and the cells (1-bit weights) of the flips that an image tolerates at most, and `more`."""
    network = resolved.network
    head = mg.find_output_layer(network)
    clean = infer(resolved.plan, {network.inputs[0]: resolved.dataset.x}, [head.input, head.accumulator])
    margins = mg.compute_margins(head.scores(clean[head.accumulator]))
    winner, x = int(margins.winner[image]), clean[head.input][image].reshape(-1)
    other = int(np.argmin(np.where(np.arange(10) == winner, 1 << 40, margins.gaps[image])))
    weights = head.tensor.values.reshape(10, -1)
    own, theirs = np.flatnonzero(weights[winner] * x > 0), np.flatnonzero(weights[other] * x < 0)
    cells = [*(winner * head.fan_in + own), *(other * head.fan_in + theirs)]
    count = int(mg.output_exact(margins.margin)[image]) + more
    return head.tensor.name, tuple(int(cell) for cell in cells[:count])


def test_one_flip_too_many_is_caught() -> None:
    resolved = resolve_study(study(memory="uniform:ber=0", trials=1))
    for more, violation_count in ((0, False), (1, True)):
        tensor, cells = worst_of(resolved, 7, more)

        def memories(point: Point, trial: int, tensor: str = tensor, cells: tuple[int, ...] = cells) -> list[Memory]:
            return [Adversary(open_memory(spec, 0, trial, i), tensor, cells) for i, spec in enumerate(point.placement.arrays)]

        honest = validate_study(resolved, memories=memories)
        assert honest.violation_count == 0
        assert all((check.changed > 0) or not violation_count for check in honest.checks)
        wrong = validate_study(resolved, memories=memories, bound_offsets={"corollary-2": 1, "pair": 1, "greedy": 1})
        for check in ("corollary-2", "pair", "greedy"):
            caught = [one for one in wrong.violations if one.check == check and one.image == 7]
            assert bool(caught) == violation_count
            assert all(one.q == one.bound == len(cells) for one in caught)
    tightest = of(honest, "pair").tightest
    assert tightest is not None
    assert tightest[0] == tightest[1] + 1


# --- the command ---------------------------------------------------------------------------------------------------------------


def test_stress_brings_flips_near_the_bounds() -> None:
    resolved, only = resolve_validation(study(trials=3, images=100), stress=True)
    plain = validate_study(resolve_study(study(memory="uniform:ber=0.2", trials=3, images=100)))
    found = validate_study(resolved, only=only)
    assert set(np.concatenate(list(only.values())).tolist()) <= set(range(100))
    assert not found.scores
    assert found.violation_count == 0
    for check in ("corollary-2", "pair", "greedy"):
        assert of(found, check).near > of(plain, check).near
        assert of(found, check).near > 0.03 * of(found, check).pairs


def test_the_command_writes_tables_and_a_figure(tmp_path: Path) -> None:
    said = weakcell("digits-qnn", "--memory", "uniform:ber=0.001", "--trials", "2", "--images", "50", "--out", tmp_path, "-q")
    assert said.exit_code == 0, said.output
    assert "greedy" in said.stdout
    tallies = pl.read_parquet(tmp_path / "tallies.parquet")
    assert tallies["pairs"].sum() <= 100
    assert tallies.columns == ["point", "check", "bound", "q", "outcome", "pairs", "schema_version"]
    assert pl.read_parquet(tmp_path / "violations.parquet").is_empty()
    written = json.loads((tmp_path / "validation.json").read_text())
    assert written["violations"] == 0
    assert written["checks"][0]["pairs"] == tallies["pairs"].sum()
    assert (tmp_path / "validation.svg").stat().st_size > 1000
    (point,) = pl.read_parquet(tmp_path / "curve.parquet").to_dicts()
    assert point["trials"] == 2
    assert abs(point["predicted"] - point["measured"]) < 0.1
    assert written["curve"] == [point]
    assert (tmp_path / "validation.png").stat().st_size > 1000


def test_what_cannot_be_predicted_is_measured_all_the_same() -> None:
    said = weakcell("digits-bnn", "--memory", "secded+uniform:ber=0.01", "--trials", "2", "--images", "30", "-q")
    assert said.exit_code == 0, said.output
    assert "No prediction: what gets past a protection" in said.stdout


def test_a_violation_is_exit_code_1_and_says_how_to_see_it_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(hv, "validate_study", functools.partial(hv.validate_study, bound_offsets={"pair": 1000}))
    few = ("--memory", "uniform:ber=0.1", "--trials", "1", "--images", "40", "--seed", "3")
    said = weakcell(*few, "--first-trial", "2", "--out", tmp_path, "--quiet")
    assert said.exit_code == 1
    assert "VIOLATION pair: image" in said.stdout
    command = said.stdout.split("Again: weakcell validate ")[1].splitlines()[0]
    assert "--first-trial 2" in command
    assert weakcell(*command.replace("'", "").split(), "-q").stdout.count("VIOLATION") > 0
    assert len(pl.read_parquet(tmp_path / "violations.parquet")) > 0
    events = [json.loads(line) for line in weakcell(*few, "--first-trial", "2", "--json").stdout.splitlines()]
    assert [e["event"] for e in events][:3] == ["check"] * 3
    assert events[-1]["violations"] == sum(e["event"] == "violation" for e in events)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--memory", "sram-14nm", "--stress"), "no bit error rate to choose"),
        (("--sweep", "ber=0.1,0.2", "--stress"), "both choose the operating points"),
        (("--hidden", "--read-every", "access"), "each pixel sees weights of its own"),
        (("digits-qnn", "--place", "dense4.bias_quantized=uniform:ber=0.1"), "bounds are about weights and inputs"),
        (("digits-qnn", "--place", "scale:*=uniform:ber=0.1"), "bounds are about weights and inputs"),
        (("digits-bnn", "--place", "buffer:*=uniform:ber=0.1"), "bounds are about weights and inputs"),
    ],
)
def test_what_cannot_be_validated_is_refused(arguments: tuple[str, ...], said: str) -> None:
    result = weakcell(*arguments, "--images", "5")
    assert result.exit_code == 2
    assert said in result.stderr.replace("\n", " ")
