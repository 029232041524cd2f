"""What the outputs of a network look like, in words and as records that tasks are chosen by."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from weakcell.emulator.ir.network import Network
from weakcell.emulator.ir.values import OutputMeaning, ValueSpec

_COMPARES = {
    "And", "Equal", "Greater", "GreaterOrEqual", "IsInf", "IsNaN", "Less", "LessOrEqual", "Not", "Or", "Xor",
}  # fmt: skip


@dataclass(frozen=True)
class OutputInfo:
    """One output: its name, what is known of it, and how the file's graph makes it."""

    name: str
    spec: ValueSpec
    ending: OutputMeaning

    @property
    def sizes(self) -> tuple[int, ...]:
        """The shape of an image's output without axes of size 1."""
        return tuple(n for n in self.spec.shape if n != 1)

    @property
    def is_probability(self) -> bool:
        """Whether a Sigmoid makes it, so that one half is where classes part."""
        kinds = [kind for kind in self.ending.operators if kind != "Clip"]
        written_out = len(kinds) > 2 and kinds[0] in ("Div", "Reciprocal") and kinds[1:3] == ["Add", "Exp"]
        return kinds[:1] in (["Sigmoid"], ["HardSigmoid"]) or written_out

    @property
    def chosen(self) -> bool:
        """Whether it holds class numbers that an ArgMax, ArgMin or TopK chose."""
        return self.ending.last in ("ArgMax", "ArgMin") or (self.ending.last == "TopK" and self.ending.output_index == 1)

    @property
    def is_top_values(self) -> bool:
        """Whether it holds the sorted scores of a TopK, which do not say of which class they are."""
        return self.ending.last == "TopK" and self.ending.output_index == 0

    @property
    def is_decision(self) -> bool:
        """Whether it holds 0 and 1, from a comparison or a rounded probability."""
        kinds = self.ending.operators
        rounded = kinds[:2] in (("Round", "Sigmoid"), ("Round", "HardSigmoid"))
        return rounded or self.ending.last in _COMPARES or self.spec.dtype == "bool"

    @property
    def has_labels(self) -> bool:
        """Whether its numbers are classes already."""
        whole = self.spec.kind == "float" and np.dtype(self.spec.dtype).kind in "iu" and not self.is_top_values
        return self.chosen or self.is_decision or whole

    @property
    def classes(self) -> int | None:
        """How many classes there are, where the output holds class numbers and the graph says it."""
        return self.ending.classes if self.chosen else 2 if self.is_decision else None

    @property
    def softmax_axis(self) -> int | None:
        """The axis of a Softmax at the end, among `sizes`; None without."""
        soft = self.ending.last in ("Softmax", "LogSoftmax", "Hardmax")
        return self.class_axis if soft else None

    @property
    def class_axis(self) -> int | None:
        """The axis of classes or channels that the graph tells of, among `sizes`; None if it does not."""
        axis = self.ending.axis
        if axis is None or not 0 < axis <= len(self.spec.shape) or self.spec.shape[axis - 1] == 1:
            return None
        return sum(n != 1 for n in self.spec.shape[: axis - 1])

    @property
    def best_axis(self) -> int | None:
        """The axis of the k best classes of a TopK, among `sizes`; None for k = 1 and for other operators."""
        return self.class_axis if self.ending.last == "TopK" else None

    @property
    def text(self) -> str:
        """Name, shape, type and last operator."""
        shape = "".join(f", {n}" for n in self.spec.shape)
        last = f" from {self.ending.last}" if self.ending.last else ""
        return f"{self.name!r} [N{shape}] {self.spec.dtype}{last}"


def describe_outputs(network: Network) -> tuple[OutputInfo, ...]:
    """The outputs in the file's order."""
    return tuple(
        OutputInfo(name, network.values[name], network.output_meanings.get(name, OutputMeaning())) for name in network.outputs
    )


def listed(outputs: Iterable[OutputInfo]) -> str:
    """Outputs in words, one after the other."""
    return "; ".join(info.text for info in outputs)
