"""Random torch networks through real exporters and onnxruntime's quantizer in random settings, engine against onnxruntime.

python -m tests.emulator.random_networks [--first 0] [--count 100]

Prints a line per network that is not equal in every output, and how many were: equal, at most one step of their last grid apart
(sums of floats in another order, ties in a rounding), further apart, refused by the importer, or not run by onnxruntime itself.
"""

from __future__ import annotations

import argparse
import random
from collections import Counter
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from onnxruntime.quantization import CalibrationMethod, QuantType
from torch import Tensor, nn
from torch.nn import functional as f

from tests.emulator.models import exported, quantized, quietly, run
from weakcell.emulator.engine.executor import infer
from weakcell.emulator.importer import load
from weakcell.emulator.plan.plan import compile_plan
from weakcell.memmodels.errors import ModelError

Outcome = Literal["equal", "one step", "apart", "refused", "not run"]

SIZE = (3, 14, 14)
ACTIVATIONS: tuple[Callable[[], nn.Module], ...] = (
    nn.ReLU, nn.ReLU6, lambda: nn.LeakyReLU(0.1), nn.Hardswish, nn.Sigmoid, nn.Hardsigmoid, nn.Tanh, nn.PReLU,
)  # fmt: skip
TYPES = {
    "operators": [("QInt8", "QInt8"), ("QUInt8", "QInt8"), ("QUInt8", "QUInt8")],
    "qdq": [("QInt8", "QInt8"), ("QUInt8", "QInt8"), ("QUInt8", "QUInt8"), ("QInt16", "QInt8"), ("QUInt16", "QUInt8"),
            ("QUInt8", "QInt4"), ("QInt8", "QUInt4")],
}  # fmt: skip
EXTRA = ("ActivationSymmetric", "WeightSymmetric", "AddQDQPairToWeight", "DedicatedQDQPair", "ForceQuantizeNoInputCheck")


class Block(nn.Module):
    """Convolution, batch norm, an activation, and one way to go on from there."""

    def __init__(self, choose: random.Random, channels: int) -> None:
        super().__init__()
        c, self.kind = channels, choose.choice(sorted(WAYS))
        self.first, self.norm, self.act = nn.Conv2d(c, c, 3, 1, 1), nn.BatchNorm2d(c), choose.choice(ACTIVATIONS)()
        kernel = choose.choice([1, 3])
        self.next, self.join = nn.Conv2d(c, c, kernel, padding=kernel // 2), nn.Conv2d(2 * c, c, 1)
        self.depthwise, self.dilated = nn.Conv2d(c, c, 3, 1, 1, groups=c), nn.Conv2d(c, c, 3, 1, 2, 2, groups=choose.choice([1, 2]))
        self.linear = nn.Linear(c, c)
        with torch.no_grad():
            for values, low, high in ((self.norm.running_mean, -0.5, 0.5), (self.norm.running_var, 0.3, 2.0),
                                      (self.norm.weight, -1.0, 1.5), (self.norm.bias, -1.0, 1.0)):  # fmt: skip
                assert values is not None
                values.uniform_(low, high)

    def forward(self, x: Tensor) -> Tensor:
        return WAYS[self.kind](self, x, self.act(self.norm(self.first(x))))


WAYS: dict[str, Callable[[Any, Tensor, Tensor], Tensor]] = {
    "residual": lambda b, x, y: torch.relu(x + y),
    "concat": lambda b, x, y: b.join(torch.cat([x, y], 1)),
    "gated": lambda b, x, y: b.next(x * y),
    "halves": lambda b, x, y: torch.cat(torch.chunk(y, 2, 1)[::-1], 1),
    "squeeze and excite": lambda b, x, y: y * torch.sigmoid(b.linear(y.mean((2, 3))))[:, :, None, None],
    "cropped": lambda b, x, y: y[:, :, 1:, :-1],
    "dense by pixel": lambda b, x, y: b.linear(y.permute(0, 2, 3, 1)).permute(0, 3, 1, 2),
    "centred": lambda b, x, y: y - x.mean((2, 3), keepdim=True),
    "larger": lambda b, x, y: f.interpolate(y, scale_factor=2, mode="nearest")[:, :, ::2, ::2],
    "smooth": lambda b, x, y: f.interpolate(y, scale_factor=2, mode="bilinear", align_corners=False)[:, :, 1::2, ::2],
    "padded": lambda b, x, y: b.next(f.pad(y, (1, 0, 0, 2))),
    "dilated": lambda b, x, y: b.dilated(y),
    "depthwise": lambda b, x, y: b.depthwise(y) * 0.5,
    "silu": lambda b, x, y: f.silu(b.next(y)),
    "attention": lambda b, x, y: y * torch.softmax(y, 1),
    "turned": lambda b, x, y: y.transpose(2, 3),
}


class Net(nn.Module):
    def __init__(self, choose: random.Random) -> None:
        super().__init__()
        channels = choose.choice([4, 8, 16])
        self.stem = nn.Conv2d(3, channels, choose.choice([3, 5]), choose.choice([1, 2]), choose.choice([0, 1, 2]))
        self.blocks = nn.Sequential(*(Block(choose, channels) for _ in range(choose.choice([1, 2, 3]))))
        padded = nn.AvgPool2d(3, 2, 1, count_include_pad=choose.random() < 0.5)
        self.pool = choose.choice([nn.MaxPool2d(2), nn.MaxPool2d(3, 2, 1, ceil_mode=True), nn.AvgPool2d(2), padded])
        self.whole, self.last = choose.random() < 0.5, nn.LazyLinear(10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.blocks(torch.relu(self.stem(x))))
        logits: Tensor = self.last(x.flatten(1) if self.whole else x.mean((2, 3)))
        return logits


def settings(choose: random.Random) -> dict[str, Any]:
    """Arguments of `quantized`."""
    operators = choose.random() < 0.33
    activation, weight = choose.choice(TYPES["operators" if operators else "qdq"])
    extra = dict.fromkeys(choose.sample(EXTRA, choose.choice([0, 1, 2])), True)
    if choose.random() < 0.2:
        extra["QuantizeBias"] = False
    return {
        "operators": operators,
        "activation_type": getattr(QuantType, activation),
        "weight_type": getattr(QuantType, weight),
        "per_channel": choose.random() < 0.5,
        "reduce_range": choose.random() < 0.3,
        "calibrate_method": choose.choice([CalibrationMethod.MinMax, CalibrationMethod.Percentile]),
        "extra_options": extra,
    }


def compare(seed: int) -> tuple[Outcome, str]:
    """One network: how its logits stand to onnxruntime's on the model as written, and what it is made of."""
    choose = random.Random(seed)
    torch.manual_seed(seed)
    x = np.random.default_rng(seed).normal(size=(16, *SIZE)).astype(np.float32)
    with quietly():
        network = Net(choose).eval()
        network(torch.from_numpy(x[:2]))  # the last layer learns its width
        dynamo, options = choose.random() < 0.3, settings(choose)
        proto = quantized(exported(network, SIZE, dynamo), x, **options)
    kinds = [f"{block.kind} ({type(block.act).__name__})" for block in network.blocks]  # type: ignore[union-attr]
    made = f"{', '.join(kinds)}; {'dynamo' if dynamo else 'torchscript'}, {options}"
    try:
        theirs = run(proto, {"x": x})[0]
    except Exception as e:  # onnxruntime's own, which derive from nothing else
        return "not run", f"{made}: {e}"
    try:
        ours = infer(compile_plan(load(proto)), {"x": x})["y"]
    except ModelError as e:
        return "refused", f"{made}: {e}"
    if np.array_equal(ours, theirs):
        return "equal", made
    steps = np.diff(np.unique(theirs))
    apart = np.abs(ours - theirs).max() / steps[steps > 1e-7].min()
    return "one step" if apart < 1.01 else "apart", f"{made}: {apart:.3g} steps"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=100)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found: Counter[str] = Counter()
    for seed in range(arguments.first, arguments.first + arguments.count):
        outcome, what = compare(seed)
        found[outcome] += 1
        if outcome != "equal":
            print(f"{seed}: {outcome}: {what}", flush=True)
    print(", ".join(f"{outcome} {count}" for outcome, count in found.most_common()))


if __name__ == "__main__":
    main()
