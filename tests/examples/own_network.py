"""How does my own network behave on an unreliable memory?

A small PyTorch network is exported with `torch.onnx.export` and quantized with onnxruntime's `quantize_static`. The data are NumPy
arrays. Nothing has to be written for Weakcell.
"""

import io
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import torch
from onnxruntime import quantization
from torch import nn

import weakcell


def make_data() -> tuple[np.ndarray, np.ndarray]:
    """Two noisy classes: bright upper half, or bright lower half, of 8 × 8 images."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 400)
    images = rng.normal(0, 0.7, (400, 1, 8, 8)).astype(np.float32)
    images[labels == 0, :, :4] += 1
    images[labels == 1, :, 4:] += 1
    return images, labels


def train_network(images: np.ndarray, labels: np.ndarray) -> nn.Module:
    """Train a small convolutional network for a few steps."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(128, 2))
    optimizer = torch.optim.Adam(network.parameters(), 0.01)
    x, y = torch.tensor(images), torch.tensor(labels)
    for _ in range(40):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(x), y).backward()
        optimizer.step()
    return network.eval()


def quantize(network: nn.Module, images: np.ndarray) -> onnx.ModelProto:
    """Export to ONNX, and quantize weights and activations to 8 bits."""
    buffer = io.BytesIO()
    names = {"input_names": ["input"], "output_names": ["logits"]}
    torch.onnx.export(network, (torch.zeros(2, 1, 8, 8),), buffer, dynamic_shapes=({0: "N"},), verbose=False, **names)

    class Calibration(quantization.CalibrationDataReader):
        batches = iter([{"input": images}])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.batches, None)

    with TemporaryDirectory() as folder:
        quantized = Path(folder) / "quantized.onnx"
        quantization.quantize_static(onnx.load_from_string(buffer.getvalue()), quantized, Calibration(), per_channel=True)
        return onnx.load(quantized)


def main() -> weakcell.Emulation:
    """Return the accuracies over a sweep of bit error rates."""
    images, labels = make_data()
    model = quantize(train_network(images, labels), images)
    print(weakcell.inspect(model))
    result = weakcell.emulate(model, (images, labels), memory="uniform", sweep={"ber": [0, 0.01, 0.1, 0.3]}, trials=5)
    print(result)
    print(result.summary.select("sweep_value", "mean", "low", "high", "flip_rate"))
    return result


if __name__ == "__main__":
    main()
