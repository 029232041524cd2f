"""Can training make a network more tolerant of bit errors?

Two small binarized networks are trained on the digits that come with Weakcell: one with plain cross entropy, one with bit flips
injected during training. Both are exported to ONNX and evaluated on the same faulty memory.
"""

from tempfile import TemporaryDirectory

import weakcell


def main() -> weakcell.TrainingResult:
    """Return both networks with their accuracies under errors."""
    with TemporaryDirectory() as folder:
        result = weakcell.train(
            data="digits", width=0.1, epochs=6, out=folder, sweep="ber=0,0.05,0.1", trials=2,
            grid={"flips": ["none", "uniform:ber=0.1"]},
        )  # fmt: skip
        print(result)
        print(result.curves.group_by("id", "value", maintain_order=True).agg(result.curves["accuracy"].name).head(6))
    return result


if __name__ == "__main__":
    main()
