"""How much can I shorten the activation time (tRCD) of DRAM, and does the vendor matter?

A shorter tRCD makes every access faster, but more cells are read before their bitline has settled. The error rates are measured on
DDR3 modules of three vendors.
"""

import weakcell


def main() -> dict[str, weakcell.Emulation]:
    """Return the accuracies over tRCD, in ns, for each vendor."""
    results = {}
    for vendor in "ABC":
        memory = {"name": "dram", "vendor": vendor}
        results[vendor] = weakcell.emulate("digits-qnn", memory=memory, sweep={"trcd": [5, 7.5, 10]}, trials=4, images=200)
        print(results[vendor])
        print(results[vendor].summary.select("sweep_value", "mean", "flip_rate"))
    return results


if __name__ == "__main__":
    main()
