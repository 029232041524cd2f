"""What intervals over trials hold: shares of them that hold the true mean, and their widths; prints Markdown tables.

python tests/benchmarks/intervals.py fixed   [--experiments 20000]   10 and 20 trials: Student's interval and
`weakcell.emulator.evaluation.intervals`
python tests/benchmarks/intervals.py stopped [--experiments 4000]    `--half-width` of 0.5, 1 and 2 points: coverage and trials
python tests/benchmarks/intervals.py control [--experiments 4000]    the same with flips as a covariate

Populations are gamma and normal trials, and some thousand trials of the shipped networks (weights read once per trial), drawn from
again: their mean is then known exactly.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from functools import partial

import numpy as np
import numpy.typing as npt
from scipy import stats

from weakcell.emulator.evaluation.intervals import mean_interval
from weakcell.emulator.evaluation.trials import run_trial
from weakcell.host.campaign.stopping import FIRST_STAGE, stein_interval, trials_needed, wants_covariate
from weakcell.host.study.study import Study, resolve_study
from weakcell.host.study.sweep_values import parse_sweep
from weakcell.memmodels.catalogue import parse_spec

Floats = npt.NDArray[np.float64]
MOST = 10_000
MEASURED = (
    ("digits-bnn", "uniform", "ber=0.05", 4000),
    ("digits-qnn", "uniform", "ber=0.003", 4000),
    ("digits-qnn", "uniform", "ber=0.01", 4000),
    ("digits-bnn", "sram-14nm", "v_over_vmin=0.8", 3000),
)


def measured(model: str, memory: str, at: str, trials: int) -> Floats:
    """(trials, 2): accuracy, and flips of the first tensor less their mean."""
    resolved = resolve_study(Study(model=model, memory=parse_spec(memory), sweep=parse_sweep(at), trials=trials))
    point, policy = resolved.points[0], resolved.study.read_every
    results = [run_trial(resolved.plan, point.placement, resolved.questions, policy, trial=t) for t in range(trials)]
    first = next(iter(results[0].flips))
    flips = np.array([result.flips[first] for result in results], dtype=np.float64)
    return np.stack([np.array([result.accuracy for result in results], dtype=np.float64), flips - flips.mean()], axis=1)


def computed() -> dict[str, Floats]:
    """Populations of mean 0 and standard deviation 1, as (size, 1)."""
    rng, made = np.random.default_rng(0), {}
    made["normal"] = rng.normal(size=(400_000, 1))
    for skewness in (1.0, -1.0, 2.0, -2.0):
        shape = 4 / skewness**2
        drawn = (rng.gamma(shape, 1.0, (400_000, 1)) - shape) / math.sqrt(shape)
        made[f"gamma of skewness {skewness:g}"] = math.copysign(1.0, skewness) * drawn
    return made


def fixed(experiments: int) -> None:
    """Coverage at 10 and 20 trials, with the mean width relative to Student's."""
    print("| population | skewness | Student, 10 | here, 10 (width) | Student, 20 | here, 20 (width) |\n|---|---|---|---|---|---|")
    populations = {name: values[:, 0] for name, values in computed().items()}
    populations |= {f"{model}, {memory}:{at}": measured(model, memory, at, n)[:, 0] for model, memory, at, n in MEASURED}
    for name, population in populations.items():
        cells = [name, f"{stats.skew(population):.1f}"]
        for trials in (10, 20):
            draws = np.random.default_rng(trials).choice(population, (experiments, trials))
            plain, ours = (_ends(draws, partial(mean_interval, skewed=skewed)) for skewed in (False, True))
            hold = [100 * np.mean((low <= population.mean()) & (population.mean() <= high)) for low, high in (plain, ours)]
            width = np.mean(ours[1] - ours[0]) / np.mean(plain[1] - plain[0])
            cells += [f"{hold[0]:.1f} %", f"{hold[1]:.1f} % ({width:.2f})"]
        print(f"| {' | '.join(cells)} |", flush=True)


def _ends(draws: Floats, interval: Callable[[Floats], tuple[float, float, float]]) -> tuple[Floats, Floats]:
    made = np.array([interval(draw)[1:] for draw in draws])
    return made[:, 0], made[:, 1]


def stopped(experiments: int) -> None:
    """Coverage and mean number of trials for three half widths. Computed populations have a standard deviation of 3 points."""
    print("| population | ± 0.5 points: hold, trials | ± 1 | ± 2 |\n|---|---|---|---|")
    populations = {f"{name}, standard deviation 3 points": 0.03 * values for name, values in computed().items()}
    populations |= {f"{model}, {memory}:{at}": measured(model, memory, at, n) for model, memory, at, n in MEASURED}
    for name, population in populations.items():
        cells = [_held(population, half, experiments, covariate=False) for half in (0.005, 0.01, 0.02)]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def control(experiments: int) -> None:
    """The same with the flips of the first tensor as a covariate, where enough trials are needed."""
    for model, memory, at, n in MEASURED:
        population = measured(model, memory, at, n)
        cells = [_held(population, half, experiments, covariate=True) for half in (0.005, 0.01, 0.02)]
        print(f"| {model}, {memory}:{at} | {' | '.join(cells)} |", flush=True)


def _held(population: Floats, half: float, experiments: int, covariate: bool) -> str:
    """Make intervals as a campaign does: stages until neither end is farther away than `half`."""
    rng, mean, hits, total = np.random.default_rng(1), float(population[:, 0].mean()), 0, 0
    for _ in range(experiments):
        trials = rng.choice(population, FIRST_STAGE)
        with_it = covariate and wants_covariate(trials[:, 0], half, MOST)
        while (needed := trials_needed(trials[:, 0], half, MOST, trials[:, 1] if with_it else None)) > len(trials):
            trials = np.concatenate([trials, rng.choice(population, needed - len(trials))])
        _, low, high = stein_interval(trials[:, 0], FIRST_STAGE, trials[:, 1] if with_it else None)
        hits, total = hits + (low <= mean <= high), total + len(trials)
    return f"{100 * hits / experiments:.1f} %, {total / experiments:.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["fixed", "stopped", "control"])
    parser.add_argument("--experiments", type=int, default=None)
    given = parser.parse_args()
    match given.what:
        case "fixed":
            fixed(given.experiments or 20_000)
        case "stopped":
            stopped(given.experiments or 4_000)
        case "control":
            control(given.experiments or 4_000)


if __name__ == "__main__":
    main()
