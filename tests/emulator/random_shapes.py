"""Random networks whose tensors do not have the batch first, against onnxruntime, image by image.

    python -m tests.emulator.random_shapes --first 0 --count 200 [--batch 3 [--from-shapes]]

A network is a chain of operators on one tensor. Operators move, fold, reduce, slice, join and multiply it, with quantized matrix
products between them, so that the batch may be anywhere. The last operators bring it back to the front. With --batch, the file
fixes the batch: the numbers of its Reshapes hold it, as those of exporters with fixed shapes do. With --from-shapes, the file works
some of these numbers out of the shapes of tensors.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import numpy as np
import onnx

import weakcell
from tests.emulator.models import Array, model, node, run
from weakcell.memmodels.errors import ModelError

F = np.float32
MOST = 1500
"""Elements of a tensor of one image."""


class Chain:
    """A network under construction, followed with a batch of one and with one of three.

    Attributes:
        shape: of the tensor for one image.
        batch: where the batch is: the axis, and what it counts more than images (1, or the heads of an image).
        images: the batch that the file fixes; None if it leaves it open.
        from_shapes: whether a file with a fixed batch works out numbers of its Reshapes.
    """

    def __init__(self, seed: int, images: int | None = None, from_shapes: bool = False) -> None:
        self.rng, self.images, self.from_shapes = np.random.default_rng(seed), images, from_shapes
        self.opset = int(self.rng.choice([11, 13, 17, 18, 21]))
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, Array] = {}
        self.shape = tuple(int(n) for n in self.rng.integers(2, 6, self.rng.integers(1, 4)))
        self.start = self.shape
        self.shape = (1, *self.shape)
        self.batch, self.y = 0, "x"
        self.dynamic = bool(self.rng.random() < 0.4) and images is None

    def const(self, value: Any, dtype: Any = np.int64) -> str:
        """Add a constant."""
        name = f"c{len(self.constants)}"
        self.constants[name] = np.asarray(value, dtype)
        return name

    def op(self, kind: str, *inputs: str, outputs: int = 1, **attributes: Any) -> str:
        """Add a node and return the name of its first output."""
        names = [f"t{len(self.nodes)}_{i}" for i in range(outputs)]
        self.nodes.append(node(kind, " ".join(inputs), " ".join(names), **attributes))
        return names[0]

    def axes(self, kind: str, x: str, axes: list[int], **attributes: Any) -> str:
        """Add an operator whose axes are an attribute or an input, by its opset."""
        since = 13 if kind in ("Squeeze", "Unsqueeze", "ReduceSum") else 18
        if self.opset >= since:
            return self.op(kind, x, self.const(axes), **attributes)
        return self.op(kind, x, axes=axes, **attributes)

    @property
    def others(self) -> list[int]:
        """Axes that are not the batch."""
        return [i for i in range(len(self.shape)) if i != self.batch]

    def step(self) -> None:
        """Add one random operator that keeps images apart."""
        steps = [self.move, self.fold, self.unfold, self.add_axis, self.dense, self.reduce, self.soft, self.slice, self.join]
        steps += [self.pointwise, self.pick, self.dense, self.product, self.norm, self.quantize, self.convolve, self.repeat]
        self.rng.choice(np.array(steps, object))()

    def move(self) -> None:
        perm = [int(i) for i in self.rng.permutation(len(self.shape))]
        self.y = self.op("Transpose", self.y, perm=perm)
        self.shape = tuple(self.shape[i] for i in perm)
        self.batch = perm.index(self.batch)

    def fold(self) -> None:
        """Merge the axis behind the batch into it, or two others."""
        if len(self.shape) < 2:
            return
        i = int(self.rng.integers(0, len(self.shape) - 1))
        merged = (*self.shape[:i], self.shape[i] * self.shape[i + 1], *self.shape[i + 2 :])
        if i + 1 == self.batch and self.shape[i] > 1:
            return  # the rows of several images would alternate
        self.reshape(merged, i if i == self.batch or i + 1 == self.batch else self.batch - (self.batch > i))

    def unfold(self) -> None:
        """Split an axis."""
        i = int(self.rng.integers(0, len(self.shape)))
        parts = [n for n in range(1, self.shape[i] + 1) if self.shape[i] % n == 0]
        first = int(self.rng.choice(parts))
        if i == self.batch and first > 1:
            first = 1
        shape = (*self.shape[:i], first, self.shape[i] // first, *self.shape[i + 1 :])
        self.reshape(shape, self.batch + (self.batch > i))

    def reshape(self, shape: tuple[int, ...], batch: int) -> None:
        if self.images is not None and self.from_shapes and self.rng.random() < 0.8:
            target = self.sizes_from_shapes(shape, batch)
        elif self.images is not None:
            target = self.const([n * self.images if i == batch else n for i, n in enumerate(shape)])
        elif self.rng.random() < 0.5:
            target = self.const([-1 if i == batch else n for i, n in enumerate(shape)])
        else:  # what exporters make of x.shape
            count = self.op("Gather", self.op("Shape", "x"), self.const([0]), axis=0)
            count = self.op("Mul", count, self.const([shape[batch]]))
            parts = [self.const(shape[:batch]), count, self.const(shape[batch + 1 :])]
            target = self.op("Concat", *(p for p, n in zip(parts, (batch, 1, len(shape) - batch - 1), strict=True) if n), axis=0)
        self.y = self.op("Reshape", self.y, target)
        self.shape, self.batch = shape, batch

    def sizes_from_shapes(self, shape: tuple[int, ...], batch: int) -> str:
        """Add the numbers of a Reshape: the batch from the shape of the input or of this tensor, another one perhaps as -1."""
        own = shape[batch] % self.shape[self.batch] == 0 and self.rng.random() < 0.7
        size = self.op("Shape", self.y if own else "x")
        count = self.op("Gather", size, self.const([self.batch if own else 0]), axis=0)
        count = self.op("Mul", count, self.const([shape[batch] // self.shape[self.batch] if own else shape[batch]]))
        numbers = list(shape)
        others = [i for i in range(len(shape)) if i != batch]
        if others and self.rng.random() < 0.6:
            numbers[int(self.rng.choice(others))] = -1
        parts = [self.const(numbers[:batch]), count, self.const(numbers[batch + 1 :])]
        used = [part for part, n in zip(parts, (batch, 1, len(shape) - batch - 1), strict=True) if n]
        return self.op("Concat", *used, axis=0) if len(used) > 1 else count

    def add_axis(self) -> None:
        if len(self.shape) > 5:
            return
        ones = [i for i in self.others if self.shape[i] == 1]
        if ones and self.rng.random() < 0.5:
            i = int(self.rng.choice(ones))
            self.y = self.axes("Squeeze", self.y, [i])
            self.shape = (*self.shape[:i], *self.shape[i + 1 :])
            self.batch -= self.batch > i
        else:
            i = int(self.rng.integers(0, len(self.shape) + 1))
            self.y = self.axes("Unsqueeze", self.y, [i])
            self.shape = (*self.shape[:i], 1, *self.shape[i:])
            self.batch += self.batch >= i

    def weight(self, *shape: int) -> str:
        """Add an int8 weight with a scale that is a power of two."""
        codes = self.const(self.rng.integers(-100, 100, shape), np.int8)
        return self.op("DequantizeLinear", codes, self.const(2.0**-8, F), self.const(0, np.int8))

    def qdq(self, x: str) -> str:
        s, z = self.const(1 / 16, F), self.const(128, np.uint8)
        return self.op("DequantizeLinear", self.op("QuantizeLinear", x, s, z), s, z)

    def quantize(self) -> None:
        self.y = self.qdq(self.y)

    def dense(self) -> None:
        """Add a matrix product with stored weights, quantized statically or dynamically."""
        if len(self.shape) < 2 or self.batch == len(self.shape) - 1:
            return
        inner, outer = self.shape[-1], int(self.rng.integers(2, 7))
        if self.dynamic:
            q = self.op("DynamicQuantizeLinear", self.y, outputs=3)
            scale, zero = q[:-1] + "1", q[:-1] + "2"
            w = self.const(self.rng.integers(0, 120, (inner, outer)), np.uint8)
            total = self.op("Cast", self.op("MatMulInteger", q, w, zero, self.const(60, np.uint8)), to=1)
            factor = self.const(self.rng.uniform(0.005, 0.02, outer) if self.rng.random() < 0.5 else 0.01, F)
            self.y = self.op("Mul", total, self.op("Mul", scale, factor))
        elif len(self.shape) == 2 and self.rng.random() < 0.6:
            turned = int(self.rng.random() < 0.5)
            w = self.weight(outer, inner) if turned else self.weight(inner, outer)
            self.y = self.op("Gemm", self.qdq(self.y), w, self.const(self.rng.normal(size=outer), F), transB=turned)
        else:
            self.y = self.op("MatMul", self.qdq(self.y), self.weight(inner, outer))
            if self.rng.random() < 0.5:
                self.y = self.op("Add", self.y, self.const(self.rng.normal(size=outer), F))
        self.shape = (*self.shape[:-1], outer)

    def reduce(self) -> None:
        others = self.others
        if not others or len(self.shape) < 3:
            return
        count = int(self.rng.integers(1, len(others))) if len(others) > 1 else 1
        axes = sorted(int(i) for i in self.rng.choice(others, count, replace=False))
        keep = int(self.rng.random() < 0.5)
        kind = str(self.rng.choice(["ReduceMean", "ReduceSum", "ReduceMax"]))
        signed = [a - len(self.shape) if self.rng.random() < 0.5 else a for a in axes]
        self.y = self.axes(kind, self.y, signed, keepdims=keep)
        self.batch -= 0 if keep else sum(a < self.batch for a in axes)
        self.shape = tuple(1 if i in axes else n for i, n in enumerate(self.shape) if keep or i not in axes)

    def soft(self) -> None:
        last = [i for i in self.others if self.opset >= 13 or i == len(self.shape) - 1]
        if last:
            self.y = self.op("Softmax", self.y, axis=int(self.rng.choice(last)))

    def slice(self) -> None:
        wide = [i for i in self.others if self.shape[i] > 1]
        if not wide:
            return
        i = int(self.rng.choice(wide))
        start = int(self.rng.integers(0, self.shape[i] - 1))
        starts = self.const([start])
        self.y = self.op("Slice", self.y, starts, self.const([self.shape[i]]), self.const([i - len(self.shape)]))
        self.shape = (*self.shape[:i], self.shape[i] - start, *self.shape[i + 1 :])

    def join(self) -> None:
        if not self.others or np.prod(self.shape) > MOST // 2:
            return
        i = int(self.rng.choice(self.others))
        if self.shape[self.batch] == 1 and self.batch == 0 and self.rng.random() < 0.3:
            pads = [0] * (2 * len(self.shape))
            pads[i] = 1
            self.y = self.op("Pad", self.y, self.const(pads), self.const(0.25, F))
            self.shape = (*self.shape[:i], self.shape[i] + 1, *self.shape[i + 1 :])
            return
        self.y = self.op("Concat", self.y, self.op("Neg", self.y), axis=i)
        self.shape = (*self.shape[:i], 2 * self.shape[i], *self.shape[i + 1 :])

    def pointwise(self) -> None:
        kind = str(self.rng.choice(["Relu", "Tanh", "Sigmoid", "Add", "Mul", "Where"]))
        if kind in ("Add", "Mul"):
            size = [n if i != self.batch and self.rng.random() < 0.5 else 1 for i, n in enumerate(self.shape)]
            size = size[int(self.rng.integers(0, len(size) + 1)) :]
            self.y = self.op(kind, self.y, self.const(self.rng.normal(size=size), F))
        elif kind == "Where":
            self.y = self.op("Where", self.op("Greater", self.y, self.const(0.1, F)), self.y, self.const(-0.5, F))
        else:
            self.y = self.op(kind, self.y)

    def pick(self) -> None:
        if not self.others:
            return
        i = int(self.rng.choice(self.others))
        if self.rng.random() < 0.5 and len(self.shape) > 2:
            self.y = self.op("Gather", self.y, self.const(int(self.rng.integers(0, self.shape[i]))), axis=i)
            self.shape = (*self.shape[:i], *self.shape[i + 1 :])
            self.batch -= self.batch > i
        else:
            index = self.rng.integers(0, self.shape[i], int(self.rng.integers(1, 4)))
            self.y = self.op("Gather", self.y, self.const(index), axis=i)
            self.shape = (*self.shape[:i], len(index), *self.shape[i + 1 :])

    def product(self) -> None:
        """Multiply with the transposed tensor, as attention does; the batch must not be among the last two axes."""
        rank = len(self.shape)
        if rank < 3 or self.batch >= rank - 2 or np.prod(self.shape[:-1]) * self.shape[-2] > MOST:
            return
        perm = [*range(rank - 2), rank - 1, rank - 2]
        self.y = self.op("MatMul", self.y, self.op("Transpose", self.y, perm=perm))
        self.shape = (*self.shape[:-1], self.shape[-2])

    def convolve(self) -> None:
        """Add a quantized convolution; the batch may count frames or heads, too."""
        if len(self.shape) not in (3, 4) or self.batch:
            return
        outer, kernel = int(self.rng.integers(1, 4)), [3] * (len(self.shape) - 2)
        weight = self.weight(outer, self.shape[1], *kernel)
        self.y = self.op("Conv", self.qdq(self.y), weight, pads=[1, 1] * len(kernel))
        if self.rng.random() < 0.3:
            self.y = self.op("GlobalMaxPool", self.y)
            self.shape = (self.shape[0], outer, *[1] * len(kernel))
        else:
            self.shape = (self.shape[0], outer, *self.shape[2:])

    def repeat(self) -> None:
        """Add a CumSum, or a Tile or Expand with sizes that follow from a shape."""
        if not self.others:
            return
        i, kind = int(self.rng.choice(self.others)), str(self.rng.choice(["CumSum", "Tile", "Expand"]))
        if kind == "CumSum":
            self.y = self.op("CumSum", self.y, self.const(i))
        elif kind == "Tile" and np.prod(self.shape) < MOST // 2:
            self.y = self.op("Tile", self.y, self.const([2 if a == i else 1 for a in range(len(self.shape))]))
            self.shape = (*self.shape[:i], 2 * self.shape[i], *self.shape[i + 1 :])
        elif kind == "Expand" and self.shape[i] == 1 and np.prod(self.shape) < MOST // 3:
            self.y = self.op("Expand", self.y, self.const([3 if a == i else 1 for a in range(len(self.shape))]))
            self.shape = (*self.shape[:i], 3, *self.shape[i + 1 :])

    def norm(self) -> None:
        if self.opset >= 17 and self.batch < len(self.shape) - 1:
            self.y = self.op("LayerNormalization", self.y, self.const(self.rng.normal(size=self.shape[-1]), F), axis=-1)

    def finish(self) -> onnx.ModelProto:
        """Bring the batch to the front, and return the model."""
        if self.batch:
            perm = [self.batch, *self.others]
            self.y = self.op("Transpose", self.y, perm=perm)
            self.shape, self.batch = tuple(self.shape[i] for i in perm), 0
        rest = int(np.prod(self.shape))
        self.y = self.op("Reshape", self.y, self.const([self.images or -1, rest]))
        self.nodes.append(node("Identity", self.y, "out"))
        images = self.images or "N"
        return model(self.nodes, self.constants, {"x": [images, *self.start]}, {"out": [images, rest]}, self.opset)


def random_network(seed: int, images: int | None = None, from_shapes: bool = False) -> tuple[onnx.ModelProto, Array]:
    """Return a random network and data for it; the options are those of `Chain`."""
    chain = Chain(seed, images, from_shapes)
    for _ in range(int(chain.rng.integers(3, 12))):
        chain.step()
    return chain.finish(), chain.rng.normal(size=(images or 3, *chain.start)).astype(F)


def find_matrices(proto: onnx.ModelProto) -> frozenset[str]:
    """Return the weights that a product reads column by column: a memory stores them output by output."""
    codes = {made.output[0]: made.input[0] for made in proto.graph.node if made.op_type == "DequantizeLinear"}
    products = [n for n in proto.graph.node if n.op_type in ("MatMul", "MatMulInteger", "Gemm")]
    turned = [n for n in products if any(a.name == "transB" and a.i for a in n.attribute)]
    return frozenset(codes.get(n.input[1], n.input[1]) for n in products if n not in turned)


def differs(seed: int, images: int | None = None, from_shapes: bool = False) -> str:
    """Return how a random network differs from onnxruntime; "" if it does not, "invalid" if onnxruntime refuses it."""
    proto, x = random_network(seed, images, from_shapes)
    try:
        want = np.concatenate([run(proto, {"x": part})[0] for part in np.split(x, len(x) // (images or 1))])
    except Exception as error:
        return f"invalid: {str(error).splitlines()[0][:120]}"
    try:
        got = weakcell.infer(proto, x)["out"]
    except ModelError as error:
        return f"refused: {error}"
    if got.shape != want.shape:
        return f"shape {got.shape}, not {want.shape}"
    # a quantizer may round a float that differs in its last bit to the next code, and pass it on
    away = np.abs(got - want) > 2e-4 * np.maximum(1, np.abs(want))
    return f"{away.sum()} of {away.size} values, by up to {np.abs(got - want).max():.3g}" if away.mean() > 0.34 else ""


def main() -> int:
    """Compare many networks; exit code 1 if one differs or is refused."""
    parser = argparse.ArgumentParser(description="Random networks with the batch anywhere, against onnxruntime.")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--batch", type=int, help="The batch that the files fix.")
    parser.add_argument("--from-shapes", action="store_true", help="Work out numbers of Reshapes, with --batch.")
    asked = parser.parse_args()
    wrong = invalid = 0
    for seed in range(asked.first, asked.first + asked.count):
        text = differs(seed, asked.batch, asked.from_shapes)
        invalid += text.startswith("invalid")
        if text:
            wrong += not text.startswith("invalid")
            print(seed, text, flush=True)
    print(f"{asked.count} networks: {invalid} invalid, {wrong} wrong or refused")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
