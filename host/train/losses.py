"""Training losses: cross entropy (CEL), modified hinge (MHL), margin cross entropy (MCEL), multi-class margin (MML).

`UnclampedMarginCrossEntropy` is the form that MCEL's paper shows and rejects; networks of earlier versions were trained with it.

Every loss takes float32 logits of shape [N, C] and int64 classes of shape [N]. It multiplies the logits by `scale` first and
returns a scalar, or shape [N] with `reduction="none"`. Margins are in units of the scaled logits. `loss_spec.LOSSES` gives each
loss its name on the command line.
"""

# mypy: allow-subclassing-any

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

Reduction = Literal["none", "mean", "sum"]


class CrossEntropy(nn.Module):
    """Cross entropy loss (CEL): −log softmax(scale · z)_y.

    The logits of a BNN are integers up to the fan-in K of its last layer; a scale of 1/√K brings them near 1.
    """

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, logits: Tensor, classes: Tensor) -> Tensor:
        """Return the loss of logits [N, C] for classes [N]."""
        return functional.cross_entropy(logits * self.scale, classes)

    def __str__(self) -> str:
        return "cross entropy" + _describe_scale(self.scale)


class ModifiedHinge(nn.Module):
    """Modified hinge loss (MHL): mean over images and classes of max{0, b − y · z}.

    y is +1 for the true class and −1 for every other class, so each output is pushed to distance b from 0 on its own side.
    Buschjäger et al., Margin-Maximization in Binarized Neural Networks for Optimizing Bit Error Tolerance, DATE 2021. The paper
    searches b over powers of two, up to twice the largest output.

    Args:
        b: Margin of every output, in scaled logits.
        scale: Factor of the logits.
        reduction: How the losses of the images are combined.
        divide: Divide the loss by b, as the author's framework does. An image that misses by the whole margin then costs 1.
    """

    def __init__(self, b: float, scale: float = 1.0, reduction: Reduction = "mean", *, divide: bool = False) -> None:
        super().__init__()
        self.b, self.scale, self.reduction, self.divide = b, scale, reduction, divide

    def forward(self, logits: Tensor, classes: Tensor) -> Tensor:
        """Return the loss of logits [N, C] for classes [N]."""
        signs = 2.0 * functional.one_hot(classes, logits.shape[-1]).to(logits.dtype) - 1.0
        losses = functional.relu(self.b - signs * logits * self.scale).mean(-1)
        if self.divide:
            losses = losses / self.b
        if self.reduction == "none":
            return losses
        return losses.sum() if self.reduction == "sum" else losses.mean()

    def __str__(self) -> str:
        return f"modified hinge, b = {self.b:g}" + (", divided by b" if self.divide else "") + _describe_scale(self.scale)


class UnclampedMarginCrossEntropy(nn.Module):
    """Cross entropy after the logit of the true class is lowered by m, without a limit on the logits.

    This is the form that the paper of `MarginCrossEntropy` shows in its equations 5 and 6 and **rejects**: nothing bounds the
    logits, so a network can reach any m by larger logits alone. It was called `mcel` in earlier versions of Weakcell.

    loss = −log( e^(z_y − m) / (e^(z_y − m) + Σ_{j≠y} e^(z_j)) ): an image has a small loss only if its true class leads by about m.

    It is a drop-in for `torch.nn.CrossEntropyLoss`, also for logits of shape [C] and [N, C, d1, …]. With m = 0 and
    scale = 1 the two are equal.

    Args:
        m: Margin of the true class, in scaled logits.
        scale: Factor of the logits.
        weight: Weight of each class, shape [C].
        ignore_index: Images of this class do not count.
        reduction: How the losses of the images are combined.
        label_smoothing: As in torch, in [0, 1].

    Raises:
        TypeError: The classes are given as probabilities; a margin needs one true class.
    """

    weight: Tensor | None

    def __init__(
        self,
        m: float,
        scale: float = 1.0,
        *,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        reduction: Reduction = "mean",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        self.m, self.scale = m, scale
        self.ignore_index, self.reduction, self.label_smoothing = ignore_index, reduction, label_smoothing
        self.register_buffer("weight", weight)

    def limit_logits(self, logits: Tensor) -> Tensor:
        """Return the logits from which the margin is subtracted."""
        return logits * self.scale

    def forward(self, logits: Tensor, classes: Tensor) -> Tensor:
        """Return the loss of logits [N, C] for classes [N]."""
        if classes.is_floating_point():
            raise TypeError(f"{type(self).__name__} takes classes as numbers: a margin needs one true class")
        class_axis = 1 if logits.ndim > 1 else 0
        true_class = classes.masked_fill(classes == self.ignore_index, 0).unsqueeze(class_axis)
        margins = torch.full_like(true_class, -self.m, dtype=logits.dtype)
        lowered = self.limit_logits(logits).scatter_add(class_axis, true_class, margins)
        return functional.cross_entropy(
            lowered, classes, self.weight, ignore_index=self.ignore_index,
            reduction=self.reduction, label_smoothing=self.label_smoothing,
        )  # fmt: skip

    def __str__(self) -> str:
        return f"unclamped margin cross entropy, m = {self.m:g}" + _describe_scale(self.scale)


class MarginCrossEntropy(UnclampedMarginCrossEntropy):
    """Margin cross entropy loss (MCEL): logits are clamped to ±L, and the logit of the true class is lowered by m.

    z̃_k = L · tanh(z_k / L) for every class, z̃_y ← z̃_y − m for the true class, loss = −log softmax(z̃)_y (equations 7 to 10).
    RLS = m / (2L) is the demanded lead as a share of the whole range of the clamped logits (equation 8).
    Yayla and Kumar, MCEL: Margin-Based Cross-Entropy Loss for Error-Tolerant Quantized Neural Networks, arXiv 2603.05048, 2026.

    The logits should be of magnitude 1 at the start of training, or tanh has no gradient: use `layers.OutputScale`, or `scale`.
    It is a drop-in for `torch.nn.CrossEntropyLoss`, also for logits of shape [C] and [N, C, d1, …].

    Args:
        m: Margin of the true class, in clamped logits. The paper tries 1 to 192; 32 to 128 are its best.
        L: Largest magnitude of a clamped logit.
        scale: Factor of the logits, before they are clamped.
        options: `weight`, `ignore_index`, `reduction` and `label_smoothing` of `torch.nn.CrossEntropyLoss`.

    Raises:
        TypeError: The classes are given as probabilities; a margin needs one true class.
    """

    def __init__(self, m: float = 32.0, *, L: float = 100.0, scale: float = 1.0, **options: Any) -> None:
        super().__init__(m, scale, **options)
        self.L = L

    @property
    def rls(self) -> float:
        """m / (2L)."""
        return self.m / (2 * self.L)

    def limit_logits(self, logits: Tensor) -> Tensor:
        """Return the clamped logits, in (−L, L)."""
        return self.L * torch.tanh(logits * (self.scale / self.L))

    def __str__(self) -> str:
        return f"MCEL, m = {self.m:g}, L = {self.L:g}, RLS = {100 * self.rls:.3g} %" + _describe_scale(self.scale)


class MultiMargin(nn.Module):
    """Multi-class margin loss (MML): mean over images of Σ_{j≠y} max{0, m − z_y + z_j} / C.

    The true class must lead every other class by m; outputs do not have to lie on a side of 0, as in `ModifiedHinge`. Weston and
    Watkins, Support Vector Machines for Multi-Class Pattern Recognition, ESANN 1999; with scale = 1 it is
    `torch.nn.MultiMarginLoss(margin=m)`.

    Args:
        m: Margin between the true class and every other class, in scaled logits.
        scale: Factor of the logits.
    """

    def __init__(self, m: float, scale: float = 1.0) -> None:
        super().__init__()
        self.m, self.scale = m, scale

    def forward(self, logits: Tensor, classes: Tensor) -> Tensor:
        """Return the loss of logits [N, C] for classes [N]."""
        leads = logits.gather(1, classes[:, None]) - logits
        true_class = functional.one_hot(classes, logits.shape[1]).bool()
        return functional.relu(self.m - self.scale * leads).masked_fill(true_class, 0.0).mean()

    def __str__(self) -> str:
        return f"multi-class margin, m = {self.m:g}" + _describe_scale(self.scale)


def _describe_scale(scale: float) -> str:
    return "" if scale == 1 else f" of {scale:.6g} x logits"
