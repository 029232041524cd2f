"""Which memory is better for my network: RRAM, STT-RAM or FeFET?

A campaign runs every network on every memory at every operating point. Finished runs are kept, so it can be stopped and continued.
"""

from tempfile import TemporaryDirectory

import weakcell

CAMPAIGN = {
    "trials": 4,
    "network": [{"model": "digits-bnn", "images": 200}, {"model": "digits-qnn", "images": 200}],
    "memory": [
        {"spec": "rram", "grid": {"time": [1e3, 1e5]}},
        {"spec": "sttram", "grid": {"tau": [5, 8]}},
        {"spec": "fefet", "grid": {"domains": [50, 200]}},
    ],
}


def main() -> weakcell.CampaignResults:
    """Return the results of the campaign."""
    with TemporaryDirectory() as folder:
        results = weakcell.sweep(CAMPAIGN, folder)
        print(results)
        print(results.summary.select("model", "memory", "sweep_value", "mean", "low", "high", "flip_rate"))
    return results


if __name__ == "__main__":
    main()
