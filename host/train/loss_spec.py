"""Losses by name: the table of all losses, and the SPEC strings that `weakcell train --loss` takes.

A SPEC is `NAME:key=value,key=value`, as in `mcel:m=256,scale=0.02`. This module does not import torch, so the command line can
make its help from the table.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from weakcell.memmodels.errors import UsageError

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class LossType:
    """An entry of `LOSSES`.

    Attributes:
        target: `module:class` of the loss. The class takes its margin, if it has one, and `scale`.
        margin: Name of the margin parameter; None for a loss without one.
        example: A SPEC that shows the loss in help and messages.
    """

    target: str
    margin: str | None
    example: str


LOSSES = {
    "cel": LossType("weakcell.host.train.losses:CrossEntropy", None, "cel"),
    "mhl": LossType("weakcell.host.train.losses:ModifiedHinge", "b", "mhl:b=128"),
    "mcel": LossType("weakcell.host.train.losses:MarginCrossEntropy", "m", "mcel:m=256"),
    "mml": LossType("weakcell.host.train.losses:MultiMargin", "m", "mml:m=64"),
}
"""All losses, in the order of tables and figures. The help, the messages and the labels of runs are made from this table."""


@dataclass(frozen=True)
class LossSpec:
    """A loss with its parameters.

    Attributes:
        name: Key of `LOSSES`.
        margin: Margin in scaled logits or, if `relative`, as a share of the largest output; None for a loss without one.
        relative: Whether `margin` is a share.
        scale: Factor of the logits.
    """

    name: str
    margin: float | None
    relative: bool
    scale: float

    @classmethod
    def parse(cls, text: str) -> LossSpec:
        """Parse a SPEC.

        Raises:
            UsageError: There is no such loss, or it has no such parameter, or a number is out of range.
        """
        name, _, parameters = text.partition(":")
        if name not in LOSSES:
            raise _reject(text, f"there is no loss {name!r}")
        margin_name = LOSSES[name].margin
        values = dict(part.partition("=")[::2] for part in parameters.split(",") if part)
        allowed = {"scale"} if margin_name is None else {"scale", margin_name}
        if set(values) - allowed or (margin_name is not None and margin_name not in values):
            raise _reject(text, f"{name} takes {' and '.join(sorted(allowed))}")
        margin_text = None if margin_name is None else values[margin_name]
        relative = margin_text is not None and margin_text.endswith("%")
        try:
            scale = float(values.get("scale", "1"))
            margin = None if margin_text is None else float(margin_text.removesuffix("%")) / (100 if relative else 1)
        except ValueError:
            raise _reject(text, "a number cannot be read") from None
        if not 0 < scale < float("inf") or (margin is not None and not 0 <= margin < float("inf")):
            raise _reject(text, "scale must be positive and a margin not negative")
        return cls(name, margin, relative, scale)

    def build(self, output_bound: float) -> nn.Module:
        """Return the loss as a torch module for a network whose largest possible logit is `output_bound`."""
        module, _, class_name = LOSSES[self.name].target.partition(":")
        loss_class = getattr(import_module(module), class_name)
        if self.margin is None:
            loss: nn.Module = loss_class(scale=self.scale)
        else:
            loss = loss_class(self.margin * output_bound * self.scale if self.relative else self.margin, scale=self.scale)
        return loss


def list_examples() -> str:
    """Return one SPEC of every loss, as help and messages show them."""
    examples = [loss.example for loss in LOSSES.values()]
    return f"{', '.join(examples[:-1])} or {examples[-1]}"


def list_margin_names() -> str:
    """Return the names of all margin parameters, as in `b and m`."""
    return " and ".join(dict.fromkeys(loss.margin for loss in LOSSES.values() if loss.margin is not None))


def _reject(text: str, found: str) -> UsageError:
    advice = f"Write {list_examples()}; scale=0.02 multiplies the logits; {list_margin_names()} also as a share, m=12.5%"
    return UsageError(f"Loss {text!r}", found, advice)
