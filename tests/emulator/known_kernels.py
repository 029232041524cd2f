"""Record `memmodels/native/known_kernels.txt`: the kernels that kinds of networks need.

python -m tests.emulator.known_kernels > memmodels/native/known_kernels.txt
"""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import Any

import numpy as np
import torch
from torch import nn

import weakcell
from tests.emulator.models import exported, quantized
from weakcell.memmodels.native import kernel_cache, known_kernels

SHAPE = (3, 12, 12)
SHIPPED = ("digits-bnn", "digits-qnn")
MEMORY = "uniform:p01=0.02,p10=0.01"


class Residual(nn.Module):
    """A convolution that is added to its input."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x + self.inner(x))


def plain() -> nn.Module:
    """Return a convolutional network as beginners write them."""
    body = nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.Flatten()
    return nn.Sequential(*body, nn.Linear(32 * 36, 64), nn.ReLU(), nn.Linear(64, 10))


def residual() -> nn.Module:
    """Return a small network of the kind of ResNet."""
    ends = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10)
    return nn.Sequential(nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), Residual(nn.Conv2d(32, 32, 3, padding=1)), *ends)


def mobile() -> nn.Module:
    """Return a small network of the kind of MobileNetV2."""
    depthwise = nn.Conv2d(32, 32, 3, padding=1, groups=32), nn.ReLU6()
    inner = nn.Sequential(nn.Conv2d(32, 32, 1), nn.ReLU6(), *depthwise, nn.Conv2d(32, 32, 1))
    ends = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10)
    return nn.Sequential(nn.Conv2d(3, 32, 3, stride=2, padding=1), nn.ReLU6(), Residual(inner), *ends)


def emulate_qdq(module: nn.Module, **options: Any) -> None:
    """Emulate a network, quantized to 8 bits by onnxruntime."""
    torch.manual_seed(0)
    x = np.random.default_rng(0).normal(size=(64, *SHAPE)).astype(np.float32)
    weakcell.emulate(quantized(exported(module, SHAPE, dynamo=False), x, per_channel=True), x, **options)


CASES: dict[str, Callable[[], object]] = {
    "binary": lambda: weakcell.emulate("digits-bnn", trials=1, images=60),
    "binary, read for each image": lambda: weakcell.emulate("digits-bnn", trials=1, images=60, read_every="image"),
    "4 bits": lambda: weakcell.emulate("digits-qnn", trials=1, images=60),
    "8 bits, convolutional": lambda: emulate_qdq(plain(), trials=1),
    "8 bits, residual": lambda: emulate_qdq(residual(), trials=1),
    "8 bits, depthwise": lambda: emulate_qdq(mobile(), trials=1),
    "predicted": lambda: [weakcell.predict(name, memory=MEMORY, images=60) for name in SHIPPED],
    "margins": lambda: [weakcell.validate(name, images=60, trials=1, hidden=True, predict=False) for name in SHIPPED],
    "certified": lambda: weakcell.margins("digits-bnn", images=60, certify=4),
}


ANALYSES = ("predicted", "margins", "certified")
"""Cases that need kernels after those of a network: their sections hold what no earlier section has."""


def record(case: Callable[[], object]) -> None:
    """Print the kernels that a run opens, in their order."""
    with redirect_stdout(io.StringIO()):
        case()
    for kernel in dict.fromkeys(kernel_cache.opened_kernels):
        print(known_kernels.format_kernel(kernel))


def main() -> None:
    """Print the list. Each case runs in a process of its own, which has opened no kernel before."""
    if len(sys.argv) > 1:
        record(CASES[sys.argv[1]])
        return
    print("# Kernels that kinds of networks need: see known_kernels.py. Recorded by tests/emulator/known_kernels.py.")
    earlier: set[str] = set()
    for name in CASES:
        command = [sys.executable, "-m", "tests.emulator.known_kernels", name]
        lines = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
        print(f"\n[{name}]", *(line for line in lines if name not in ANALYSES or line not in earlier), sep="\n", flush=True)
        earlier.update(lines)


if __name__ == "__main__":
    main()
