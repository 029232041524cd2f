"""Can I skip fault injection while I explore?

`predict` computes the mean accuracy under errors without injecting a fault. `check_trials` injects faults at the same operating
points, so both numbers stand in one table.
"""

import weakcell


def main() -> weakcell.Prediction:
    """Return the prediction beside the measured accuracies."""
    sweep = {"ber": [0.001, 0.01, 0.03, 0.1]}
    prediction = weakcell.predict("digits-bnn", memory="uniform", sweep=sweep, images=200, samples=100, check_trials=8)
    print(prediction)
    print(prediction.summary)
    return prediction


if __name__ == "__main__":
    main()
