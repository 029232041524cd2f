"""Fault lists: saved, read back, replayed to the same results, and refused where they do not fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from weakcell import emulator
from weakcell.emulator.faults.deployment import ReadPolicy, deploy
from weakcell.emulator.faults.run import outputs_under_faults
from weakcell.host.study.fault_list import load_faults, save_faults
from weakcell.host.study.networks import find_model
from weakcell.host.study.replay import Replay, restore_study
from weakcell.host.study.results import StudyResult
from weakcell.host.study.runner import run_study
from weakcell.host.study.study import Study, resolve_study
from weakcell.host.study.sweep_values import parse_sweep
from weakcell.memmodels.catalogue import open_memory, parse_spec
from weakcell.memmodels.errors import InputError, UsageError
from weakcell.memmodels.memory import Memory


def recorded(policy: ReadPolicy = ReadPolicy.LOAD, memory: str = "uniform", **more: object) -> StudyResult:
    study = Study(memory=parse_spec(memory), sweep=parse_sweep("ber=0.001,0.02"), trials=2, images=10, batch=4, read_every=policy)
    return run_study(resolve_study(study if not more else Study(**{**vars(study), **more})), record=True)  # type: ignore[arg-type]


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
@pytest.mark.parametrize("policy", ReadPolicy)
def test_replay_gives_the_same_results(policy: ReadPolicy, suffix: str, tmp_path: Path) -> None:
    result = recorded(policy)
    path = tmp_path / f"flips{suffix}"
    assert result.faults is not None
    save_faults(path, result.faults, result.resolved.identity)
    faults = load_faults(path)
    study = restore_study(faults, Study(model="digits-bnn"), {})
    replay = Replay(faults)
    resolved = resolve_study(study, replays=replay.sha256)
    replay.check(resolved)
    assert run_study(resolved, memories=replay.memories).frame.equals(result.frame)


def test_replay_gives_the_same_logits(tmp_path: Path) -> None:
    places = (("*dense*", parse_spec("sram-28nm-kc705b:vdd=0.53")), ("/conv1/Conv@6-7", parse_spec("uniform:ber=0.3")))
    result = recorded(ReadPolicy.IMAGE, "uniform", model="digits-qnn", places=places)
    assert result.faults is not None
    save_faults(tmp_path / "flips.parquet", result.faults, result.resolved.identity)
    faults = load_faults(tmp_path / "flips.parquet")
    resolved = result.resolved
    point, plan = resolved.points[1], resolved.plan

    def logits(memories: list[Memory]) -> np.ndarray:
        deployment = deploy(plan, point.placement, ReadPolicy.IMAGE, trial=1, die=1, memories=memories)
        return outputs_under_faults(plan, resolved.questions.inputs, deployment)[plan.network.outputs[0]]

    fresh = [open_memory(spec, 0, 1, array) for array, spec in enumerate(point.placement.arrays)]
    replayed = list(Replay(faults).memories(point, 1))
    assert all(isinstance(memory, Memory) for memory in replayed)
    assert np.array_equal(logits(fresh), logits(replayed))
    clean = emulator.infer(plan, resolved.questions.inputs)[plan.network.outputs[0]]
    assert not np.array_equal(logits(replayed), clean)


def hand_made(path: Path, **change: list[object]) -> Path:
    network = find_model("digits-bnn").load()
    bit = int(network.tensors["conv1.weight"].values.reshape(-1)[0] > 0)
    row: dict[str, list[object]] = {
        "tensor": ["conv1.weight"], "element": [0], "bit": [0], "stored": [bit], "read_back": [1 - bit], **change,
    }  # fmt: skip
    pl.DataFrame(row).write_csv(path)
    return path


def replayed(path: Path) -> StudyResult:
    faults = load_faults(path)
    study = restore_study(faults, Study(images=10), {})
    replay = Replay(faults)
    resolved = resolve_study(study, replays=replay.sha256, memory_label="faults:hand")
    replay.check(resolved)
    return run_study(resolved, memories=replay.memories)


def test_a_list_made_by_hand(tmp_path: Path) -> None:
    result = replayed(hand_made(tmp_path / "hand.csv"))
    assert result.frame["flips[conv1.weight]"].to_list() == [1]
    assert result.frame["memory"].to_list() == ["faults:hand"]
    assert result.frame["energy"].null_count() == 1


@pytest.mark.parametrize(
    "change",
    [
        {"tensor": ["conv9.weight"]},
        {"tensor": ["/sign1/Sign_output_0.threshold"]},
        {"element": [10**6]},
        {"element": [-1]},
        {"bit": [1]},
        {"stored": [2]},
        {"stored": [0], "read_back": [0]},
        {"element": [None]},
        {"trial": [-1]},
        {"sweep_value": [0.5]},
        {"element": ["one"]},
    ],
)
def test_lists_that_do_not_fit(change: dict[str, list[object]], tmp_path: Path) -> None:
    with pytest.raises((InputError, UsageError)):
        replayed(hand_made(tmp_path / "hand.csv", **change))


def test_a_list_with_the_other_stored_bit_is_refused(tmp_path: Path) -> None:
    path = hand_made(tmp_path / "hand.csv")
    table = pl.read_csv(path)
    table.with_columns(stored=table["read_back"], read_back=table["stored"]).write_csv(path)
    with pytest.raises(InputError, match="stores"):
        replayed(path)


def test_a_flip_named_twice_is_refused(tmp_path: Path) -> None:
    path = hand_made(tmp_path / "hand.csv")
    table = pl.read_csv(path)
    pl.concat([table, table]).write_csv(path)
    with pytest.raises(InputError, match="twice"):
        load_faults(path)


@pytest.mark.parametrize("name", ["none.csv", "none.parquet"])
def test_missing_list(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError):
        load_faults(tmp_path / name)


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"\0\xff\0", b"# weakcell-faults {\ntensor\n", b'# weakcell-faults {"format": 9}\n']
)
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_damaged_lists(content: bytes, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"flips{suffix}"
    path.write_bytes(content)
    with pytest.raises(InputError):
        load_faults(path)


def test_a_damaged_header_is_refused(tmp_path: Path) -> None:
    path = hand_made(tmp_path / "hand.csv")
    path.write_text('# weakcell-faults {"format": 1, "sweep": 3}\n' + path.read_text())
    with pytest.raises(InputError, match="header"):
        restore_study(load_faults(path), Study(), {})


def test_options_that_the_header_fixes(tmp_path: Path) -> None:
    result = recorded()
    assert result.faults is not None
    save_faults(tmp_path / "flips.csv", result.faults, result.resolved.identity)
    with pytest.raises(UsageError, match="--seed"):
        restore_study(load_faults(tmp_path / "flips.csv"), Study(seed=1), {"seed": 1})
    with pytest.raises(UsageError, match="parquet"):
        save_faults(tmp_path / "flips.txt", result.faults, result.resolved.identity)


def test_scales_and_buffers_replay_to_the_same_results(tmp_path: Path) -> None:
    """Saved, replayed and saved again: the same bytes but for the header, which tells that it was a replay."""
    half = parse_spec("uniform:ber=0.002")
    places = tuple((f"{role}:*", half) for role in ("scale", "zero_point", "bias", "buffer"))
    for policy in (ReadPolicy.LOAD, ReadPolicy.BATCH, ReadPolicy.IMAGE):
        result = recorded(policy, model="digits-qnn", places=places)
        assert result.faults is not None
        save_faults(tmp_path / "flips.csv", result.faults, result.resolved.identity)
        faults = load_faults(tmp_path / "flips.csv")
        assert {name.split(":")[0] for name in faults.tensors if ":" in name} == {"buffer"}
        replay = Replay(faults)
        resolved = resolve_study(restore_study(faults, Study(model="digits-qnn"), {}), replays=replay.sha256)
        replay.check(resolved)
        again = run_study(resolved, memories=replay.memories, record=True)
        assert again.frame.equals(result.frame)
        assert again.faults is not None
        save_faults(tmp_path / "again.csv", again.faults, again.resolved.identity)
        first, second = ((tmp_path / name).read_bytes().split(b"\n", 1)[1] for name in ("flips.csv", "again.csv"))
        assert first == second


def test_threads_change_nothing_in_buffers() -> None:
    places = (("buffer:*", parse_spec("sttram:delta=60,tau=4")), ("scale:*", parse_spec("uniform:ber=0.002,lifetime=die")))
    study = Study(
        "digits-bnn", memory=parse_spec("uniform"), sweep=parse_sweep("ber=0.001,0.02"), trials=3, images=8, places=places
    )
    frames = [run_study(resolve_study(study), threads=threads).frame for threads in (1, 3)]
    assert frames[0].equals(frames[1])
