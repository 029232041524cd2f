"""What training minimizes: cross entropy (CEL), the modified hinge loss (MHL) and margin cross entropy (MCEL).

All take logits [N, C] in float32, as the network's last layer sums them, and classes [N] int64, multiply the logits by `scale` and
return a scalar (or [N] for `reduction="none"`). b and m are in the units of scaled logits, unless `largest` is given: then they
are shares of the largest output that the network can make, `largest`, in unscaled units.
"""

# mypy: allow-subclassing-any

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from weakcell.memmodels.errors import UsageError

Reduction = Literal["none", "mean", "sum"]


class CrossEntropy(nn.Module):
    """CEL: −log softmax(scale · z)_y. Integer logits of a BNN span its last fan-in K, so 1/√K brings them near 1."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, logits: Tensor, classes: Tensor) -> Tensor:
        return functional.cross_entropy(logits * self.scale, classes)

    def __str__(self) -> str:
        return "cross entropy" + _of_scaled(self.scale)


class ModifiedHinge(nn.Module):
    """MHL: mean over images and classes of max{0, b − y_enc · ŷ}, y_enc = +1 for the true class and −1 for the others.

    Buschjäger et al., Margin-Maximization in Binarized Neural Networks for Optimizing Bit Error Tolerance, DATE 2021: every output
    is asked to be b away from 0 on its own side. b is searched over powers of two up to twice the largest output.
    """

    def __init__(self, b: float, scale: float = 1.0, largest: float | None = None, reduction: Reduction = "mean") -> None:
        super().__init__()
        self.scale, self.reduction = scale, reduction
        self.b = b if largest is None else b * largest * scale

    def forward(self, logits: Tensor, classes: Tensor) -> Tensor:
        sides = 2.0 * functional.one_hot(classes, logits.shape[-1]).to(logits.dtype) - 1.0
        return _reduced(functional.relu(self.b - sides * logits * self.scale).mean(-1), self.reduction)

    def __str__(self) -> str:
        return f"modified hinge, b = {self.b:g}" + _of_scaled(self.scale)


class MarginCrossEntropy(nn.Module):
    """MCEL: cross entropy after the true class's logit is lowered by m: −log( e^(z_y − m) / (e^(z_y − m) + Σ_{j≠y} e^(z_j)) ).

    An image costs little only once its true class leads by about m. After Yayla and Kumar, MCEL: Margin-Based Cross-Entropy Loss
    for Error-Tolerant Quantized Neural Networks, arXiv 2603.05048, 2026. **The equation is reconstructed**: only the paper's
    abstract and summaries of it were at hand.

    A drop-in for `torch.nn.CrossEntropyLoss`: weight [C], ignore_index, reduction and label_smoothing mean the same, also for
    logits [C] and [N, C, d1, …]; with m = 0 and scale = 1 the two are equal. Classes given as probabilities are refused.
    """

    weight: Tensor | None

    def __init__(
        self,
        m: float,
        scale: float = 1.0,
        largest: float | None = None,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        reduction: Reduction = "mean",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        self.m = m if largest is None else m * largest * scale
        self.scale, self.ignore_index, self.reduction, self.label_smoothing = scale, ignore_index, reduction, label_smoothing
        self.register_buffer("weight", weight)

    def forward(self, logits: Tensor, classes: Tensor) -> Tensor:
        if classes.is_floating_point():
            raise TypeError("MarginCrossEntropy takes classes as numbers: a margin needs one true class")
        axis = 1 if logits.ndim > 1 else 0
        known = classes.masked_fill(classes == self.ignore_index, 0).unsqueeze(axis)
        lowered = (logits * self.scale).scatter_add(axis, known, torch.full_like(known, -self.m, dtype=logits.dtype))
        return functional.cross_entropy(
            lowered, classes, self.weight, ignore_index=self.ignore_index,
            reduction=self.reduction, label_smoothing=self.label_smoothing,
        )  # fmt: skip

    def __str__(self) -> str:
        return f"margin cross entropy, m = {self.m:g}" + _of_scaled(self.scale)


@dataclass(frozen=True)
class LossSpec:
    """A loss by name with its numbers, as in `mcel:m=256,scale=0.02`; b and m may be shares of the largest output: `m=12.5%`."""

    name: str
    margin: float | None
    relative: bool
    scale: float

    @classmethod
    def parse(cls, text: str) -> LossSpec:
        """Read a SPEC; UsageError if it names no loss, or a number that this loss has not."""
        name, _, rest = text.partition(":")
        own = {"cel": None, "mhl": "b", "mcel": "m"}
        if name not in own:
            raise _refusal(text, f"there is no loss {name!r}")
        given = dict(part.partition("=")[::2] for part in rest.split(",") if part)
        wanted = {"scale"} | ({own[name]} - {None})
        if set(given) - wanted or (own[name] is not None and own[name] not in given):
            raise _refusal(text, f"{name} takes {' and '.join(sorted(map(str, wanted)))}")
        margin = given.get(str(own[name]))
        try:
            scale = float(given.get("scale", "1"))
            value = None if margin is None else float(margin.removesuffix("%")) / (100 if margin.endswith("%") else 1)
        except ValueError:
            raise _refusal(text, "a number cannot be read") from None
        if not 0 < scale < float("inf") or (value is not None and not 0 <= value < float("inf")):
            raise _refusal(text, "scale must be positive and a margin not negative")
        return cls(name, value, margin is not None and margin.endswith("%"), scale)

    def build(self, largest: float) -> nn.Module:
        """The loss for a network whose largest possible output is `largest`."""
        share = largest if self.relative else None
        if self.margin is None:
            return CrossEntropy(self.scale)
        kind: Callable[..., nn.Module] = ModifiedHinge if self.name == "mhl" else MarginCrossEntropy
        return kind(self.margin, scale=self.scale, largest=share)


def _refusal(text: str, found: str) -> UsageError:
    return UsageError(f"Loss {text!r}", found, "Write cel, cel:scale=0.02, mhl:b=128 or mcel:m=256; b and m also as m=12.5%")


def _reduced(values: Tensor, reduction: Reduction) -> Tensor:
    return values if reduction == "none" else values.sum() if reduction == "sum" else values.mean()


def _of_scaled(scale: float) -> str:
    return "" if scale == 1 else f" of {scale:.6g} x logits"
