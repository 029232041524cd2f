"""Accuracy, energy and access latency of the shipped networks on every technology at three points; prints a Markdown table.

    python tests/benchmarks/technologies.py [--trials 20]

Weights are read once per image: energies count one read of every weight per inference. The latency is that of one access.
"""

from __future__ import annotations

import argparse

from weakcell import emulate

POINTS = [
    ("sram-14nm", "v_over_vmin=0.8,0.85,0.9"),
    ("sram-28nm-vc707", "vdd=0.54,0.55,0.56"),
    ("dram:vendor=B", "trcd=6,7,8"),
    ("rram:g_low=1,g_high=10", "time=1,86400,172800"),
    ("sttram:delta=60", "tau=4,5,6"),
    ("fefet", "domains=50,100,200"),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=20)
    trials = parser.parse_args().trials
    print("| memory | point | flip rate | BNN accuracy | QNN accuracy | energy of an inference BNN | QNN | latency of an access |")
    print("|---|---|---|---|---|---|---|---|")
    for memory, sweep in POINTS:
        bnn, qnn = (
            emulate(model, memory=memory, sweep=sweep, trials=trials, read_every="image").summary.iter_rows(named=True)
            for model in ("digits-bnn", "digits-qnn")
        )
        for b, q in zip(bnn, qnn, strict=True):
            scores = " | ".join(f"{100 * r['mean']:.1f} % ({100 * r['low']:.1f} … {100 * min(1.0, r['high']):.1f})" for r in (b, q))
            energies = " | ".join(f"{r['energy']:.3g} {r['energy_unit']}" for r in (b, q))
            latency = "" if b["access_latency_ns"] is None else f"{b['access_latency_ns']:.3g} ns"
            point = f"{b['sweep_key']}={b['sweep_value']:g}"
            print(f"| `{memory}` | {point} | {b['flip_rate']:.2g} | {scores} | {energies} | {latency} |")


if __name__ == "__main__":
    main()
