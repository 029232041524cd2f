"""Captions: what one must know to read a table or figure of a study, and how intervals are written.

A caption names read policy, dies and trials, error lifetimes, the interval's method, and the basis of energies. Every table and
figure has one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from weakcell.emulator.faults.deployment import ReadPolicy, Sampling
from weakcell.emulator.faults.energy import InferenceCost
from weakcell.emulator.ir.layers import DynamicQuantize
from weakcell.emulator.ir.values import Buffer
from weakcell.emulator.tasks import Metric
from weakcell.host.study.results import StudyResult, placed_tensors
from weakcell.host.study.study import ResolvedStudy
from weakcell.memmodels.protection.wrappers import WRAPPERS, split_wrappers

METHOD = "Student's t, corrected for skewness"
NO_DIFFERENCE = "no trial differed"

_READS = {
    "load": "weights read once per trial (load)",
    "batch": "weights read once per batch of {batch}",
    "image": "weights read once per image",
    "access": "weights read at each use (access)",
}


def study_title(resolved: ResolvedStudy, memory: str | None = None) -> str:
    """Return network, data and memory in one line.

    Args:
        resolved: the study.
        memory: name of its default memory; None: its SPEC.
    """
    rules = "".join(f", {target} in {spec}" for target, spec in resolved.study.places)
    data = f"{resolved.model.name} on {resolved.dataset.name} ({len(resolved.dataset)} images)"
    return f"{data}, {memory or name_memory(resolved)}{rules}"


def name_memory(resolved: ResolvedStudy) -> str:
    """Return the SPEC of the default memory, or the fault list that replaces it."""
    return resolved.points[0].memory if resolved.points[0].memory.startswith("faults:") else str(resolved.study.memory)


def describe_study(resolved: ResolvedStudy) -> str:
    """Return the caption of a study: what one must know to read its numbers."""
    study = resolved.study
    sentences = [_READS[str(study.read_every)].format(batch=study.batch).capitalize(), _dies(resolved), _lifetimes(resolved)]
    if study.sampling is Sampling.OUTPUTS:
        sentences.append(_by_outputs(resolved))
    sentences.append(describe_task_output(resolved))
    score = resolved.questions.metric.words if resolved.workload.labelled else _UNLABELLED[resolved.questions.metric.name]
    if study.trials > 1:
        mean = f"{score[0].upper()}{score[1:]}, averaged over trials," if score.startswith("mean") else f"Mean {score}"
        sentences.append(f"{mean} with its 95 % interval over trials ({METHOD}), on these images")
    else:
        sentences.append(f"{score[0].upper()}{score[1:]} of one trial, so no interval")
    sentences += describe_quantization(resolved)
    sentences += describe_rounding(_list_memories(resolved))
    sentences += describe_unplaced(resolved)
    sentences.append(describe_energy(resolved))
    sentences += describe_latency(resolved)
    if resolved.replays:
        sentences.append("Replayed from a fault list")
    return ". ".join(sentences) + "."


def describe_briefly(result: StudyResult) -> list[str]:
    """Return at most three short lines that say what the numbers of a table mean; `describe_result` says everything."""
    resolved = result.resolved
    study, summary = resolved.study, result.summary
    lines = [f"{_dies(resolved)}; {_READS[str(study.read_every)].format(batch=study.batch)}."]
    meanings = ["Interval: 95 %, of the mean."] if study.trials > 1 else []
    if summary["energy"].null_count() == 0:
        meanings.append(f"Energy: of the memory accesses ({', '.join(summary['energy_basis'].unique(maintain_order=True))}).")
    if meanings:
        lines.append(" ".join(meanings))
    notes = [f"{note}." for note in describe_rounding(_list_memories(resolved))]
    missing = [tensor for tensor in resolved.network.unplaced if not tensor.registers]
    if missing:
        share = 100 * sum(tensor.bits for tensor in missing) / max(1, resolved.network.integer_bits)
        notes.append(f"Not in the memory: {len(missing)} tensors, {share:.2g} % of the file's integer bits.")
    return [*lines, " ".join(notes)] if notes else lines


def describe_rounding(memories: Iterable[str]) -> list[str]:
    """Return which protections change bits without any error; none for most memories.

    Args:
        memories: SPECs, or their names with the wrappers.
    """
    wrappers = (wrapper.name for memory in memories for wrapper in split_wrappers(memory)[0])
    rounding = [name for name in dict.fromkeys(wrappers) if WRAPPERS[name].rounds]
    return [f"Flip rate: counts the bits that {' and '.join(rounding)} rounds, too"] if rounding else []


def _list_memories(resolved: ResolvedStudy) -> list[str]:
    return [resolved.study.memory.name, *(spec.name for _, spec in resolved.study.places)]


def describe_unplaced(resolved: ResolvedStudy) -> list[str]:
    """Return which weights of the file are in no memory, with share and reason; none for most networks.

    Biases, zero points and sizes are not listed: every target keeps them in registers or code.
    """
    total = max(1, resolved.network.integer_bits)
    missing = [tensor for tensor in resolved.network.unplaced if not tensor.registers]
    named = [f"{x.name} ({100 * x.bits / total:.2g} % of the file's integer bits: {x.reason})" for x in missing[:4]]
    if not named:
        return []
    others = f" and {len(missing) - 4} more tensors" if len(missing) > 4 else ""
    return [f"Not in the memory: {', '.join(named)}{others}"]


def describe_quantization(resolved: ResolvedStudy) -> list[str]:
    """Return how a dynamically quantized network takes its ranges; none for other networks."""
    dynamic = any(isinstance(layer, DynamicQuantize) for layer in resolved.network.layers)
    return ["Dynamic quantization: each image has a range of its own (a batch of one)"] if dynamic else []


def describe_result(result: StudyResult) -> str:
    """Return the caption of finished trials, with the meaning of "no trial differed" if that occurs."""
    note = explain_no_difference(result.summary["differ_below"])
    return describe_study(result.resolved) + (f" {note}." if note else "")


_UNLABELLED = {
    "unchanged": "share of unchanged predictions (no labels)",
    "mean_change": "change of the values, in standard deviations of the fault-free output (no labels)",
}


def describe_task_output(resolved: ResolvedStudy) -> str:
    """Return which output is scored, and as what."""
    return f"Output {resolved.workload.task.output} judged as {resolved.workload.task.words}"


def _by_outputs(resolved: ResolvedStudy) -> str:
    """Return which layers' outputs were sampled, and which tensors' bits."""
    drawn = list(dict.fromkeys(name for point in resolved.points for name in point.by_outputs))
    by_bits = [name for name in placed_tensors(resolved) if name not in drawn]
    others = f", bits of {', '.join(by_bits)}" if by_bits else ""
    return f"Sampling: outputs of the layers with {', '.join(drawn)} (exact in distribution, flips not counted){others}"


def describe_energy(resolved: ResolvedStudy) -> str:
    """Return which accesses the energies count, how they are known and what they leave out; or why there are none."""
    cost = resolved.points[0].cost
    if not cost.energy:
        return "No energy: none is published for this memory"
    if len(cost.energy) > 1:
        return f"No energy: its memories give it in units that do not add up ({', '.join(q.unit for q in cost.energy)})"
    one, all_shared = cost.energy[0], tuple(number for point in resolved.points for number in point.cost.shared)
    made_of = f" ({' and '.join(cost.parts)})" if cost.parts else ""
    relative = "" if one.unit == "pJ" else ", relative to the same accesses at the reference point"
    share = "" if cost.share > 0.9995 else f", for the {100 * cost.share:.3g} % of bits read whose energy is known"
    known = [point.cost.energy[0] for point in resolved.points if len(point.cost.energy) == 1]
    basis, source = (" and ".join(dict.fromkeys(words)) for words in zip(*((q.basis, q.source) for q in known), strict=True))
    accesses = describe_accesses(replace(cost, shared=all_shared), resolved.study.read_every)
    return (
        f"Energy in {one.unit}: the memory accesses of one inference{made_of}{relative}; "
        f"{accesses}{_use(resolved)}: {basis} ({source}){share}. "
        f"Left out: {_left_out(resolved)}"
    )


def describe_accesses(cost: InferenceCost, policy: ReadPolicy) -> str:
    """Return how often an inference reads its weights, and how many inferences share a read."""
    most, least = max(cost.shared), min(cost.shared)
    if most > 1.0:
        count = f"{most:g}" if most == least else f"{least:g} to {most:g}"
        why = "a batch" if policy is ReadPolicy.BATCH else "inferences_per_read"
        return f"{count} inferences share one read of the weights ({why})"
    if policy is ReadPolicy.ACCESS:
        return f"each use of a weight is a read, {cost.reads:.4g} reads of a stored bit for each inference on average"
    shareable = policy is ReadPolicy.LOAD and any(quantity.unit == "pJ" for quantity in cost.energy)
    hint = " (inferences_per_read=N shares it among N)" if shareable else ""
    if cost.reads == 1.0:
        return f"one read of every weight is counted for each inference, whatever the number of images{hint}"
    return f"{cost.reads:.4g} reads of a stored bit are counted for each inference on average, whatever the number of images{hint}"


def _left_out(resolved: ResolvedStudy) -> str:
    """Return what the energies do not include."""
    cost = resolved.points[0].cost
    parts = cost.parts or {}
    held = any(isinstance(resolved.plan.storable[name], Buffer) for name in placed_tensors(resolved))
    elsewhere = "activations outside these memories" if held else "activations"
    missing = ["arithmetic (MACs)", elsewhere]
    if parts:
        missing += ["writes of the weights"] * ("write" not in parts) + ["leakage"] * ("leakage" not in parts)
    return f"{', '.join(missing[:-1])} and {missing[-1]}"


def describe_latency(resolved: ResolvedStudy) -> list[str]:
    """Return what the latencies mean, if there are any."""
    latencies = [point.cost.latency for point in resolved.points if point.cost.latency is not None]
    if not latencies:
        return []
    slowest = " to the slowest memory" if len(resolved.points[0].placement.arrays) > 1 else ""
    sources = " and ".join(dict.fromkeys(f"{latency.basis} ({latency.source})" for latency in latencies))
    return [f"Access latency: of one access{slowest}, not of an inference: {sources}"]


def _use(resolved: ResolvedStudy) -> str:
    """Return how writes are shared and how long cells leak, if the user gave that."""
    spec = resolved.study.memory
    said = [f"{key}={spec.conditions[key]:g}" for key in ("inferences_per_write", "time_per_inference") if key in spec.conditions]
    return f", with {' and '.join(said)}" if said else ""


def _dies(resolved: ResolvedStudy) -> str:
    study = resolved.study
    kind, _, _ = study.memory.name.rpartition("+")[2].partition(":")
    if kind in ("board", "recording"):
        return f"{study.trials} {'trial' if study.trials == 1 else 'trials'}, all on the one {kind}, which has one die"
    if study.trials == 1:
        return f"1 trial, on die {study.die or 0}, seed {study.seed}"
    if study.die is not None:
        return f"{study.trials} trials, all on die {study.die}, seed {study.seed}"
    return f"{study.trials} trials, trial t on die t, seed {study.seed}"


def _lifetimes(resolved: ResolvedStudy) -> str:
    lifetimes = list(dict.fromkeys(life for point in resolved.points for life in point.lifetimes))
    return f"Error lifetime: {', '.join(lifetimes)}" if lifetimes else "Errors as they came back"


def format_interval(low: float | None, high: float | None, unit: str = " %") -> str:
    """Return an interval of shares as text, in percent.

    Returns:
        "97.10 … 97.90 %"; "" if there is no interval (one trial); `NO_DIFFERENCE` if the interval has no width.
    """
    if low is None or high is None:
        return ""
    return NO_DIFFERENCE if low == high else f"{100 * low:.2f} … {100 * high:.2f}{unit}"


def format_metric_interval(metric: Metric, low: float | None, high: float | None) -> str:
    """Return an interval of any metric as text: shares in percent, errors in the metric's unit."""
    if metric.share or low is None or high is None or low == high:
        return format_interval(low, high)
    return f"{metric.text(low)} … {metric.text(high)}"


def explain_no_difference(differ_below: Iterable[float | None]) -> str | None:
    """Return the sentence that explains `NO_DIFFERENCE`; None if trials differed at every point.

    Args:
        differ_below: the column of `weakcell.host.study.results.summary_of`.
    """
    bounds = [bound for bound in differ_below if bound is not None]
    if not bounds:
        return None
    return (
        f"{NO_DIFFERENCE.capitalize()}: all trials of the point gave the same score; with 95 % confidence, at most "
        f"{100 * max(bounds):.2g} % of further trials would give another"
    )
