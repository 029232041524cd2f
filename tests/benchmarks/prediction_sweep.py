"""How far predictions are from trials, over widths, weight bits, depths and rates; prints a Markdown table.

    python tests/benchmarks/prediction_sweep.py [--widths 16,64,256] [--bits 1,2,4,8] [--depths 2] [--rates …]

Networks have random features (tests/emulator/random_features.py) and classify the shipped digits. Trials read weights once per
image up to a width of 256, else once per pass: the mean is the same. `missed` is by how much the prediction's interval (prediction
± its half-width) and the measured 95 % interval lie apart.
"""

from __future__ import annotations

import argparse
import time

from tests.emulator.random_features import digits, feature_network
from weakcell.emulator import compile_plan, place, prepare_evaluation, run_trial
from weakcell.emulator.evaluation.intervals import SHARE, mean_interval
from weakcell.emulator.faults.deployment import ReadPolicy
from weakcell.emulator.prediction import predict
from weakcell.memmodels.catalogue import parse_spec

RATES = {1: (0.02, 0.1), 2: (0.02, 0.08), 4: (0.01, 0.04), 8: (0.003, 0.015)}
"""Rates that cost some and most of the accuracy, by weight bits."""


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", type=numbers, default=[16, 64, 256])
    parser.add_argument("--bits", type=numbers, default=[1, 2, 4, 8])
    parser.add_argument("--depths", type=numbers, default=[2])
    parser.add_argument(
        "--rates", type=lambda text: [float(part) for part in text.split(",")], help="[default: two per weight bits]"
    )
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--samples", type=int, default=100)
    given = parser.parse_args()
    images, labels = digits("test")
    print(
        "| width | depth | bits | p01 | p10 | clean | predicted | ± | of it bias | measured (95 %) | difference | missed | CPU s |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|---|---|")
    worst = missed = 0.0
    for width in given.widths:
        policy = ReadPolicy.IMAGE if width <= 256 else ReadPolicy.LOAD
        for depth, bits in ((depth, bits) for depth in given.depths for bits in given.bits):
            plan = compile_plan(feature_network(width, bits, depth))
            questions = prepare_evaluation(plan, {"x": images}, labels)
            for p01, p10 in ((p, q) for p in given.rates or RATES[bits] for q in (p, 0.1 * p)):
                placement = place(plan.network, parse_spec(f"uniform:p01={p01:.4g},p10={p10:.4g}"))
                began = time.process_time()
                (found,) = predict(plan, [placement], questions, samples=given.samples)
                seconds = time.process_time() - began
                runs = [
                    run_trial(plan, placement, questions, policy, trial=trial, seed=1).accuracy for trial in range(given.trials)
                ]
                mean, low, high = mean_interval([score for score in runs if score is not None], bounds=SHARE)
                assert found.accuracy is not None
                apart = max(0.0, abs(found.accuracy - mean) - (high - mean) - found.half_width)
                worst, missed = max(worst, abs(found.accuracy - mean)), max(missed, apart)
                print(
                    f"| {width} | {depth} | {bits} | {p01:.4g} | {p10:.4g} | {100 * (questions.fault_free_accuracy or 0):.1f} | "
                    f"{100 * found.accuracy:.2f} | {100 * found.half_width:.2f} | {100 * found.bias:.2f} | "
                    f"{100 * low:.2f} … {100 * high:.2f} | {100 * (found.accuracy - mean):+.2f} | "
                    f"{100 * apart:.2f} | {seconds:.1f} |",
                    flush=True,
                )
    print(f"\nLargest difference {100 * worst:.2f} points; largest miss beyond both intervals {100 * missed:.2f} points.")


if __name__ == "__main__":
    main()
