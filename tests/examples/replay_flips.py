"""Which flips caused this result, and does it come out the same again?

`record_faults` keeps every flip of a study, and `faults` replays a list of flips instead of sampling new ones. The list is a CSV
file that can be edited: here, only the flips of the first layer are kept, to see how much of the loss they cause.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import weakcell


def main() -> tuple[float, float, float]:
    """Return the accuracies of the study, of its replay, and with the flips of the first layer only."""
    study = weakcell.emulate("digits-bnn", memory="uniform:ber=0.05", trials=1, images=200, record_faults=True)
    with TemporaryDirectory() as folder:
        every_flip = study.save_faults(Path(folder) / "faults.csv")
        lines = every_flip.read_text(encoding="utf-8").splitlines(keepends=True)
        first_layer = Path(folder) / "first_layer.csv"
        kept = [line for line in lines if line.startswith("#") or ".weight" not in line or "conv1.weight" in line]
        first_layer.write_text("".join(kept), encoding="utf-8")
        results = [study, *(weakcell.emulate("digits-bnn", faults=path) for path in (every_flip, first_layer))]
    names = ("study", "replay", "first layer only")
    accuracies = [float(result.summary["mean"][0]) for result in results]
    for name, accuracy in zip(names, accuracies, strict=True):
        print(f"{name:16s} {accuracy:.2%}")
    return accuracies[0], accuracies[1], accuracies[2]


if __name__ == "__main__":
    main()
