"""I measured a chip. How does my network run on it?

`characterize` fits a memory profile to read-backs: what was written, and what came back at each voltage. The read-backs here are
simulated; a file of your own has the same arrays. The profile is then the memory of a study.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

import weakcell


def main() -> weakcell.Emulation:
    """Return the accuracies of a network on the fitted profile."""
    rng = np.random.default_rng(1)
    written = rng.integers(0, 256, 8192, dtype=np.uint8)
    voltages = [0.60, 0.58, 0.56]
    thresholds = rng.normal(0.5, 0.03, (written.size, 8))  # V: a cell flips below its own threshold
    read = np.stack([written ^ np.packbits(thresholds > v, axis=1, bitorder="little")[:, 0] for v in voltages])
    with TemporaryDirectory() as name:
        folder = Path(name)
        np.savez(folder / "readbacks.npz", vdd=voltages, written=written, read=read)
        board = weakcell.characterize(folder / "board", readbacks=folder / "readbacks.npz")
        print(board)
        memory = f"file:{board.profiles[0]}"
        result = weakcell.emulate("digits-bnn", memory=memory, sweep={"vdd": voltages}, trials=4, images=200)
    print(result)
    return result


if __name__ == "__main__":
    main()
