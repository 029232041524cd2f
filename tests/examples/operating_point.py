"""At which voltage may I run all my chips?

A mean accuracy is not enough: a product ships every die. `optimize` finds the lowest energy at which at least 95 % of the dies lose
at most one point, with 95 % confidence, and confirms it on dies that the search has not seen.
"""

import weakcell


def main() -> weakcell.Optimum:
    """Return the optimum."""
    optimum = weakcell.optimize(
        "digits-bnn", memory="sram-14nm", sweep="v_over_vmin=0.8:1.0:0.05", max_drop=0.02, failures=0, tries=2, partitions=1
    )
    print(optimum)
    if optimum.chosen is not None:
        print(f"chosen: {optimum.chosen.candidate.value:g} Vmin, saves {optimum.saving:.0%} of the energy at Vmin")
    return optimum


if __name__ == "__main__":
    main()
