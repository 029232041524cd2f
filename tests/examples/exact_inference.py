"""Does Weakcell compute what the deployed network computes?

The shipped 8-bit network runs on the integer engine and on onnxruntime. In QDQ networks onnxruntime sums floats, so an output can
differ by one quantization step; the classes are compared as well.
"""

from pathlib import Path

import numpy as np
import onnxruntime

import weakcell


def main() -> float:
    """Return the share of equal logits."""
    images = weakcell.load_data("digits").x
    model = Path(weakcell.__file__).parent / "host" / "shipped" / "digits_qnn.onnx"
    ours = weakcell.infer(model, images)["logits"]
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    theirs = session.run(["logits"], {"input": images.astype(np.float32)})[0]
    equal = float((ours == theirs).mean())
    print(f"{equal:.2%} of the logits are equal; classes equal: {(ours.argmax(1) == theirs.argmax(1)).mean():.2%}")
    return equal


if __name__ == "__main__":
    main()
