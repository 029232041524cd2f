"""Do the published margin bounds hold?

`validate` runs the network with faults beside its fault-free twin and counts every flip that reaches the output layer. A claim is
violated if an answer changes although fewer flips occurred than the bound tolerates.
"""

import weakcell


def main() -> weakcell.Validation:
    """Return the counts of all claims."""
    validation = weakcell.validate("digits-bnn", memory="uniform:ber=0.01", trials=4, images=200)
    print(validation)
    print(validation.summary)
    return validation


if __name__ == "__main__":
    main()
