"""Which layer should go into the best memory?

`rank` puts one layer at a time into a faulty memory and predicts the loss of accuracy per flip. `check_trials` measures the same
losses with injected flips.
"""

import weakcell


def main() -> weakcell.Ranking:
    """Return the ranking of the layers."""
    ranking = weakcell.rank("digits-bnn", memory="uniform:ber=0.05", images=200, samples=100, check_trials=5)
    print(ranking)
    print(ranking.summary.select("part", "bits", "flips", "loss", "loss_per_flip", "measured_per_flip"))
    return ranking


if __name__ == "__main__":
    main()
