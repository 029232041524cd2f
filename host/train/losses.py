"""What training minimizes."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class CrossEntropy:
    """Cross entropy of `scale` · logits; integer logits of a BNN span its last fan-in K, so 1/√K brings them near 1."""

    scale: float = 1.0

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        return functional.cross_entropy(logits * self.scale, labels)

    def __str__(self) -> str:
        return "cross entropy" if self.scale == 1 else f"cross entropy of {self.scale:.6g} x logits"
