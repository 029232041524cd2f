"""The caption of a table or figure: read policy, dies and trials, lifetimes, interval, basis. Nothing is shown without it."""

from __future__ import annotations

from host.results import StudyResult

_READS = {
    "load": "weights read once per trial (load)",
    "batch": "weights read once per batch of {batch}",
    "image": "weights read once per image",
    "access": "weights read at each use (access)",
}


def title_of(result: StudyResult) -> str:
    """Network, data and memory in one line."""
    prepared = result.prepared
    rules = "".join(f", {target} in {spec}" for target, spec in prepared.study.places)
    return f"{prepared.model.name} on {prepared.dataset.name} ({len(prepared.dataset)} images), {memory_of(result)}{rules}"


def memory_of(result: StudyResult) -> str:
    """The default memory as it was asked for, or what stands in its place."""
    prepared = result.prepared
    return prepared.points[0].memory if prepared.points[0].memory.startswith("faults:") else str(prepared.study.memory)


def caption_of(result: StudyResult) -> str:
    """What must be known to read the numbers, in sentences."""
    study, prepared = result.prepared.study, result.prepared
    sentences = [_READS[str(study.read_every)].format(batch=study.batch).capitalize(), _dies(result), _lifetimes(result)]
    score = "accuracy" if result.labelled else "share of unchanged predictions (no labels)"
    if study.trials > 1:
        sentences.append(f"Mean {score} with its 95 % t-interval over trials, on these images")
    else:
        sentences.append(f"{score[0].upper()}{score[1:]} of one trial, so no interval")
    sentences.append(energy_note(result))
    if prepared.replays:
        sentences.append("Replayed from a fault list")
    return ". ".join(sentences) + "."


def energy_note(result: StudyResult) -> str:
    """Unit, basis and source of the energies and what they are made of, or why there are none."""
    cost = result.prepared.points[0].cost
    if not cost.energy:
        return "No energy: none is published for this memory"
    if len(cost.energy) > 1:
        return f"No energy: its memories give it in units that do not add up ({', '.join(q.unit for q in cost.energy)})"
    one = cost.energy[0]
    meaning = "per inference" if one.unit == "pJ" else "of the same accesses"
    share = "" if cost.share > 0.9995 else f", for the {100 * cost.share:.3g} % of bits read whose energy is known"
    made_of = f" of {' and '.join(cost.parts)}" if cost.parts else ""
    return f"Energy{made_of} {meaning} in {one.unit}: {one.basis} ({one.source}){share}{_use(result)}"


def _use(result: StudyResult) -> str:
    """How the writes are shared, and over what time cells leak, where the user said so."""
    spec = result.prepared.study.memory
    said = [f"{key}={spec.conditions[key]:g}" for key in ("inferences_per_write", "time_per_inference") if key in spec.conditions]
    return f", with {' and '.join(said)}" if said else ""


def _dies(result: StudyResult) -> str:
    study = result.prepared.study
    if study.trials == 1:
        return f"1 trial, on die {study.die or 0}, seed {study.seed}"
    if study.die is not None:
        return f"{study.trials} trials, all on die {study.die}, seed {study.seed}"
    return f"{study.trials} trials, trial t on die t, seed {study.seed}"


def _lifetimes(result: StudyResult) -> str:
    lifetimes = list(dict.fromkeys(life for point in result.prepared.points for life in point.lifetimes))
    return f"Error lifetime: {', '.join(lifetimes)}" if lifetimes else "Errors as recorded"
