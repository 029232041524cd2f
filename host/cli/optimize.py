"""`weakcell optimize`: find the usable operating point of lowest energy."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from weakcell.emulator.faults.read_policy import DEFAULT_READS
from weakcell.host.cli.completion import complete_memory, complete_sweep
from weakcell.host.cli.options import (
    Batch,
    Data,
    DataDir,
    DryRun,
    Explain,
    Images,
    JsonEvents,
    Model,
    Output,
    Quiet,
    ReadEvery,
    Seed,
    Task,
    Threads,
)

if TYPE_CHECKING:
    from weakcell.host.campaign.optimum import Optimum, ScreenedCandidate

_MEMORY = "The memory of all weights: NAME or NAME:key=value,… . [default: sram-14nm]"
_SWEEP = "Candidates: KEY=START:STOP:STEP, KEY=START:STOP:xFACTOR or KEY=A,B,C. [default: 26 values over the law's range]"
_PROTECT = "Also try this in front of the memory: secded, or 'in-place[code=parity]'. Repeatable."
_DROP = "Accuracy (for pixels: mean IoU) that a die may lose, as 1% or 0.01."


def optimize(
    model: Model = "digits-bnn",
    data: Data = None,
    memory: Annotated[
        str, typer.Option(metavar="SPEC", autocompletion=complete_memory, help=_MEMORY, show_default=False)
    ] = "sram-14nm",
    sweep: Annotated[
        str | None, typer.Option(metavar="KEY=VALUES", autocompletion=complete_sweep, help=_SWEEP, show_default=False)
    ] = None,
    max_drop: Annotated[str, typer.Option(metavar="SHARE", help=_DROP)] = "1%",
    dies: Annotated[float, typer.Option("--share", help="Share of dies that must not lose more.")] = 0.95,
    confidence: Annotated[float, typer.Option(help="Confidence of the whole result.")] = 0.95,
    failures: Annotated[int, typer.Option(help="Bad dies that a test allows. More make the test longer and less strict.")] = 1,
    tries: Annotated[int, typer.Option(help="Most candidates tested on fresh dies; they share the confidence.")] = 3,
    partitions: Annotated[int, typer.Option(help="How many different conditions layers may have; 1: the same for all.")] = 2,
    nominal: Annotated[
        float | None, typer.Option(help="Value that savings are relative to. [default: the technology's]", show_default=False)
    ] = None,
    protect: Annotated[list[str] | None, typer.Option(metavar="WRAPPER", help=_PROTECT, show_default=False)] = None,
    read_every: ReadEvery = DEFAULT_READS,
    batch: Batch = 256,
    seed: Seed = 0,
    images: Images = None,
    task: Task = None,
    output: Output = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE.json", help="Write all results here.", show_default=False)] = None,
    data_dir: DataDir = None,
    threads: Threads = None,
    dry_run: DryRun = False,
    as_json: JsonEvents = False,
    explain: Explain = False,
    quiet: Quiet = False,
) -> None:
    """Find the operating point of lowest energy at which most dies lose little accuracy; exit code 1 if there is none.

    Candidates are screened on 24 dies. The cheapest are confirmed on dies that were not used before. The confidence is corrected
    for the number of candidates tested.

    \b
    Examples:
      weakcell optimize digits-bnn --memory sram-14nm --max-drop 1%
      weakcell optimize digits-qnn --protect secded --protect range
      weakcell optimize digits-qnn --memory sram-28nm-vc707 \\
          --sweep vdd=0.54:0.60:0.005 --partitions 3 --out optimum.json
    """
    from weakcell.host.api.optimization import optimize as find
    from weakcell.host.cli.sweep import parse_share
    from weakcell.host.cli.terminal import emit, errors_as_events, note, show_plan, stderr
    from weakcell.memmodels.atomic_files import check_writable
    from weakcell.memmodels.catalogue import parse_spec

    with errors_as_events(as_json):
        most = parse_share(max_drop)
        if out is not None:
            check_writable(out)
        spec = parse_spec(memory)
        if dry_run:
            from weakcell.host.campaign.optimize import SCREENING_DIES, find_energy, list_candidates, open_search
            from weakcell.host.campaign.optimum import Goal
            from weakcell.host.study.arguments import resolve_arguments

            goal = Goal(most, dies, confidence, failures, tries, partitions)
            key, values = list_candidates(spec, sweep, goal, protect or ())
            optional: dict[str, Any] = {"images": images, "task": task, "output": output}
            optional = {name: value for name, value in optional.items() if value is not None}
            swept = f"{key}={','.join(f'{value:.12g}' for value in values)}"
            resolved = resolve_arguments(
                model, data, data_dir, memory=spec, sweep=swept, read_every=read_every, batch=batch, seed=seed, **optional
            )
            find_energy(spec, resolved.points[0])
            if nominal is not None:
                spec.at(**{key: nominal}).check()
            count = len(resolved.dataset)
            refused = open_search(resolved.workload, resolved.study, key).find_misfits(values[0], protect or ())
            fitting = [protection for protection in protect or () if protection not in refused]
            more = f", without protection and with {', '.join(fitting)}" if fitting else ""
            text = f"{len(values)} values of {key}{more}: at most {SCREENING_DIES} dies each, then at most {tries} tests of "
            plan = {
                "key": key,
                "values": list(values),
                "screening_dies": SCREENING_DIES,
                "tests": tries,
                "dies_per_test": goal.dies,
            }
            for protection, reason in refused.items():
                note(_explain_misfit(protection, reason), as_json)
            show_plan(f"{text}{goal.dies} fresh dies; {count} images on each die.", as_json, **plan, images=count, refused=refused)
            return
        console = stderr()
        with console.status("screening", spinner="line") if console.is_terminal and not (quiet or as_json) else _silent() as status:
            trials_made = 0

            def on_trials(count: int) -> None:
                nonlocal trials_made
                trials_made += count
                if status is not None:
                    status.update(f"{trials_made} trials")

            optimum = find(
                model, data, memory=spec, sweep=sweep, max_drop=most, share=dies, confidence=confidence, failures=failures,
                tries=tries, partitions=partitions, nominal=nominal, protect=protect or (), read_every=read_every, batch=batch,
                seed=seed, images=images, task=task, output=output, data_dir=data_dir, threads=threads, on_trials=on_trials,
            )  # fmt: skip
    content = as_dict(optimum, str(spec), trials_made)
    if out is not None:
        _keep(out, content)
    if as_json:
        emit("optimum", **content)
    else:
        named = {"--data": data, "--images": images, "--task": task, "--output": output, "--data-dir": data_dir}
        named |= {"--read-every": read_every, "--batch": batch if read_every == "batch" else None, "--seed": seed or None}
        given = [str(part) for name, value in named.items() if value is not None for part in (name, value)]
        _show(optimum, [model, *given], str(spec), explain)
    if optimum.chosen is None:
        raise typer.Exit(1)


def _silent() -> Any:
    from contextlib import nullcontext

    return nullcontext()


def _keep(path: Path, content: dict[str, Any]) -> None:
    import json

    from weakcell.memmodels.atomic_files import write_text_atomically

    write_text_atomically(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def as_dict(optimum: Optimum, memory: str, trials: int) -> dict[str, Any]:
    """Everything found, as JSON has it."""

    def one(screened: ScreenedCandidate | None) -> dict[str, Any] | None:
        if screened is None:
            return None
        return {
            "value": screened.candidate.value, "protection": screened.candidate.setting.protection,
            "layers": {layer: setting.value for layer, setting in screened.candidate.own.items()},
            "layer_protections": {layer: setting.protection for layer, setting in screened.candidate.own.items()},
            "how": screened.how,
            "energy": screened.energy, "energy_unit": screened.unit, "energy_basis": screened.basis, "accesses": screened.accesses,
            "mean_drop": screened.mean, "worst_drop": max(screened.drops), "screening_dies": len(screened.drops),
        }  # fmt: skip

    tests = [
        {"first_die": t.first_die, "dies": t.dies, "bad": t.bad, "passed": t.passed, **(one(t.screened) or {})}
        for t in optimum.tests
    ]
    return {
        "memory": memory, "key": optimum.key, "goal": vars(optimum.goal), "score": optimum.metric.name,
        "clean_score": optimum.clean,
        "clean_accuracy": optimum.clean if optimum.metric.name == "accuracy" else None, "saving": optimum.saving,
        "chosen": one(optimum.chosen), "nominal": one(optimum.nominal), "bera": one(optimum.bera), "tests": tests,
        "front": [one(s) for s in optimum.front], "screened": [one(s) for s in optimum.screened], "refused": dict(optimum.refused),
        "trials": trials,
    }  # fmt: skip


def _show(optimum: Optimum, arguments: list[str], memory: str, explain: bool) -> None:
    """Show what was found, and the command that emulates it.

    Args:
        optimum: What was found.
        arguments: Model and options that this command was given.
        memory: Its SPEC.
        explain: Say what the energy counts.
    """
    import shlex

    from rich.text import Text

    from weakcell.host.cli.result_table import percent
    from weakcell.host.cli.tables import Column, show_table
    from weakcell.host.cli.terminal import say, show

    goal = optimum.goal
    tested = {id(test.screened): test for test in optimum.tests}
    rows = [(candidate, "none") for candidate in optimum.front]
    rows += [(test.screened, "tested") for test in optimum.tests if all(test.screened is not candidate for candidate, _ in rows)]
    rows += [(optimum.bera, "each layer alone (BERA)")] if optimum.bera is not None else []
    candidates = [candidate for candidate, _ in rows]
    tests = [tested.get(id(candidate)) for candidate in candidates]
    verdicts = [
        word if test is None else "CHOSEN" if candidate is optimum.chosen else "failed"
        for (candidate, word), test in zip(rows, tests, strict=True)
    ]
    apart = [", ".join(f"{layer} {setting}" for layer, setting in c.candidate.own.items()) for c in candidates]
    columns = [
        Column(optimum.key, [f"{c.candidate.value:.6g}" for c in candidates]),
        Column("protection", [c.candidate.setting.protection for c in candidates], left=True),
        Column("layers that differ", apart, left=True, drop=1),
        Column("energy", [f"{c.energy:.4g} {c.unit}" for c in candidates]),
        Column("mean loss", [percent(c.mean) for c in candidates]),
        Column("worst of screening", [percent(max(c.drops)) for c in candidates], drop=2, short="worst"),
        Column("fresh dies", [f"{test.dies}" if test else "" for test in tests], drop=3, short="dies"),
        Column("bad", [f"{test.bad}" if test else "" for test in tests], drop=4),
        Column("test", verdicts, left=True),
    ]
    show(Text.assemble((f"{arguments[0]} on {memory}", "bold"), f", fault-free {optimum.metric.words} {percent(optimum.clean)}"))
    show(describe_answer(optimum))
    show_table([column for column in columns if any(column.cells)])
    for protection, reason in optimum.refused.items():
        show(_explain_misfit(protection, reason), "dim")
    counted = f"the memory accesses of one inference; {optimum.nominal.accesses}"
    show(f"Energy: {counted if explain else 'of the memory accesses of one inference'}.", "dim")
    if explain:
        show(
            "Rows: the candidates that no other beats in both energy and mean loss, and those tested on fresh dies. BERA gives "
            "each layer what it alone tolerates of its share of the loss (Yayla et al. 2022).",
            "dim",
        )
    if optimum.chosen is None:
        return
    last = optimum.tests[-1]
    shared = f"; {goal.tries} tests share the confidence" if goal.tries > 1 else ""
    show(f"Test: {last.bad} of {last.dies} fresh dies lost more; at most {goal.failures} may{shared}.", "dim")
    show("Dies are drawn from one law of this memory. How chips, lots or modules differ is not in it.", "dim")
    setting = optimum.chosen.candidate.setting
    if setting.protection:
        from weakcell.memmodels.protection.wrappers import WRAPPERS, split_wrappers

        for wrapper in split_wrappers(f"{setting.protection}+")[0]:
            show(f"{wrapper.name} costs: {WRAPPERS[wrapper.name].overhead}.", "dim")
    front = f"{setting.protection}+" if setting.protection else ""
    at = f"{front}{memory}{',' if ':' in memory else ':'}{optimum.key}={setting.value:.12g}"
    rules = [part for rule in optimum.chosen.places for part in ("--place", str(rule))]
    say(f"weakcell emulate {shlex.join([*arguments, '--memory', at, *rules])}")


def _explain_misfit(protection: str, reason: str) -> str:
    return f"{protection} does not fit this network: {reason}"


def describe_answer(optimum: Optimum) -> str:
    """Return the answer in words: the chosen point, what it saves, and what is promised of it."""
    goal, chosen = optimum.goal, optimum.chosen
    claim = f"at least {100 * goal.share:g} % of dies lose at most {100 * goal.max_drop:g} %"
    if chosen is None or optimum.saving is None:
        return f"No candidate was confirmed in {len(optimum.tests)} tests: none for which {claim}."
    protection = chosen.candidate.setting.protection
    point = f"{optimum.key}={chosen.candidate.value:.6g}" + (f" behind {protection}" if protection else "")
    nominal = f"{optimum.key}={optimum.nominal.candidate.value:.6g}"
    sure = f"With {100 * goal.confidence:g} % confidence, {claim}."
    if chosen.candidate == optimum.nominal.candidate:
        return f"Nothing is saved: of the candidates, only the nominal point {nominal} is confirmed. {sure}"
    if optimum.saving == 0.0:
        return f"{point} is usable, but saves nothing: the energy known does not depend on {optimum.key}. {sure}"
    known = "a ratio, joules are not published" if chosen.unit != "pJ" else chosen.basis
    return f"{point} saves {100 * optimum.saving:.2f} % of the energy at {nominal} ({known}). {sure}"
