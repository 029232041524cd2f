"""How differences between the engine and onnxruntime grow with depth, in QDQ networks whose float sums are rounded differently.

python -m tests.emulator.deep_networks [--networks 5] [--images 100]

Residual networks of 3x3 convolutions with random weights, exported by torch and quantized by onnxruntime (QDQ, 8 bits). Prints, by
depth: logits that are equal, the largest difference in steps of the output's grid, and images whose class is the same.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from tests.emulator.models import exported, quantized, run
from weakcell.emulator.engine.executor import infer
from weakcell.emulator.importer import load
from weakcell.emulator.plan.plan import compile_plan

SHAPE, CHANNELS, CLASSES = (3, 12, 12), 16, 10


class Block(nn.Module):
    """Two convolutions around an addition."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.second(torch.relu(self.first(x))))


def network(depth: int) -> nn.Module:
    """`depth` convolutions (odd, at least 1) and one dense layer."""
    blocks = [Block() for _ in range((depth - 1) // 2)]
    ends = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(CHANNELS, CLASSES)
    return nn.Sequential(nn.Conv2d(3, CHANNELS, 3, padding=1), nn.ReLU(), *blocks, *ends)


def compare(depth: int, seed: int, images: int) -> tuple[float, int, float]:
    """Return the share of equal logits, the largest difference in steps, and the share of images of the same class."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    proto = exported(network(depth), SHAPE, dynamo=False)
    proto = quantized(proto, rng.normal(size=(64, *SHAPE)).astype(np.float32), per_channel=True)
    x = rng.normal(size=(images, *SHAPE)).astype(np.float32)
    (expected,) = run(proto, {proto.graph.input[0].name: x})
    imported = load(proto)
    found = infer(compile_plan(imported), {next(iter(imported.inputs)): x})[imported.outputs[0]]
    last = next(node for node in proto.graph.node if node.output[0] == proto.graph.output[0].name)
    scales = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    steps = np.rint((found - expected) / scales[last.input[1]]).astype(int)
    same = found.argmax(axis=1) == expected.argmax(axis=1)
    return float((steps == 0).mean()), int(np.abs(steps).max()), float(same.mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=int, default=5)
    parser.add_argument("--images", type=int, default=100)
    given = parser.parse_args()
    print("| convolutions | logits equal | largest difference (steps) | same class |\n|---|---|---|---|")
    for depth in (1, 5, 9, 17, 33):
        equal, steps, same = zip(*(compare(depth, seed, given.images) for seed in range(given.networks)), strict=True)
        print(f"| {depth} | {100 * np.mean(equal):.2f} % | {max(steps)} | {100 * np.mean(same):.1f} % |", flush=True)


if __name__ == "__main__":
    main()
