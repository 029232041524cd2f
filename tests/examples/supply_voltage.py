"""How far can the supply voltage fall before the network loses one point of accuracy, and what does that save?

The shipped binarized network reads its weights from 14 nm SRAM. Every die has its own weak cells, so each voltage is tried on
several dies, and the answer uses the lower end of the 95 % confidence interval.
"""

import weakcell


def main() -> float:
    """Return the lowest voltage, as a multiple of Vmin, at which the network is still good enough."""
    result = weakcell.emulate("digits-bnn", memory="sram-14nm", sweep="v_over_vmin=0.75:1.0:0.05", trials=8)
    summary = result.summary
    fault_free = result.frame["clean_accuracy"][0]
    good = summary.filter(summary["low"] >= fault_free - 0.01)
    lowest = good.sort("sweep_value").row(0, named=True)
    nominal = summary.filter(summary["sweep_value"] == 1.0).row(0, named=True)
    print(result)
    print(f"lowest voltage {lowest['sweep_value']:g} Vmin: accuracy {lowest['mean']:.2%} (fault-free {fault_free:.2%}),")
    print(f"energy {lowest['energy'] / nominal['energy']:.0%} of that at Vmin")
    return float(lowest["sweep_value"])


if __name__ == "__main__":
    main()
