"""How many bit flips does each answer survive?

The margin of an image is the highest score less the second highest. From it follows the number of flips in the output layer that
can never change the answer. `certify` also gives a number of flips, anywhere in the network, that provably cannot.
"""

import weakcell


def main() -> weakcell.MarginReport:
    """Return the margins of 200 images."""
    report = weakcell.margins("digits-bnn", images=200, certify=8)
    print(report)
    print(report.summary)
    print(report.frame.sort("margin").head(5))
    return report


if __name__ == "__main__":
    main()
