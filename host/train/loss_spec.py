"""Losses by name: the table of all losses, and the SPEC strings that `weakcell train --loss` takes.

A SPEC is `NAME:key=value,key=value`, as in `mcel:m=32,L=100`. This module does not import torch, so the command line can
make its help from the table.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING, Any

from weakcell.memmodels.errors import UsageError
from weakcell.memmodels.numbers import parse_number

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class LossType:
    """An entry of `LOSSES`.

    Attributes:
        target: `module:class` of the loss. The class takes its margin, if it has one, and `scale`.
        margin: Name of the margin parameter; None for a loss without one.
        example: A SPEC that shows the loss in help and messages.
        label: Its name in tables and figures.
        limit: L of a loss that clamps its logits, by default; None for a loss that does not.
        divisible: Whether `divide=b` divides it by its margin.
    """

    target: str
    margin: str | None
    example: str
    label: str
    limit: float | None = None
    divisible: bool = False


LOSSES = {
    "cel": LossType("weakcell.host.train.losses:CrossEntropy", None, "cel", "CEL"),
    "mhl": LossType("weakcell.host.train.losses:ModifiedHinge", "b", "mhl:b=128", "MHL", divisible=True),
    "mcel": LossType("weakcell.host.train.losses:MarginCrossEntropy", "m", "mcel:m=32,L=100", "MCEL", limit=100.0),
    "margin-ce": LossType("weakcell.host.train.losses:UnclampedMarginCrossEntropy", "m", "margin-ce:m=256", "unclamped margin CE"),
    "mml": LossType("weakcell.host.train.losses:MultiMargin", "m", "mml:m=64", "MML"),
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
        limit: L of a loss that clamps its logits; None for others.
        divide: Whether the loss is divided by its margin.
    """

    name: str
    margin: float | None
    relative: bool
    scale: float
    limit: float | None = None
    divide: bool = False

    @classmethod
    def parse(cls, text: str) -> LossSpec:
        """Parse a SPEC.

        Raises:
            UsageError: There is no such loss, or it has no such parameter, or a number is out of range.
        """
        name, _, parameters = text.partition(":")
        if name not in LOSSES:
            near = get_close_matches(name.lower(), LOSSES, n=1)
            raise _reject(text, f"there is no loss {name!r}" + (f"; did you mean {near[0]}" if near else ""))
        loss = LOSSES[name]
        parts = [part.partition("=")[::2] for part in parameters.split(",") if part]
        values = dict(parts)
        margin_names = {key for key in (loss.margin, None if loss.limit is None else "rls") if key is not None}
        others = {"scale"} | ({"L"} if loss.limit is not None else set()) | ({"divide"} if loss.divisible else set())
        one_margin = len(margin_names & set(values)) == min(1, len(margin_names))
        if len(values) < len(parts) or not one_margin or set(values) - margin_names - others:
            raise _reject(text, f"{name} takes {_describe_parameters(loss)}, each once")
        if values.get("divide", loss.margin) != loss.margin:
            raise _reject(text, f"divide={values['divide']} is not divide={loss.margin}")
        try:
            scale = parse_number(values.get("scale", "1"))
            limit = None if loss.limit is None else parse_number(values.get("L", str(loss.limit)))
            margin, relative = _parse_margin(text, loss, values, limit)
        except ValueError:
            raise _reject(text, "a number cannot be read") from None
        positive = 0 < scale < float("inf") and (limit is None or 0 < limit < float("inf"))
        if not positive or (margin is not None and not 0 <= margin < float("inf")):
            raise _reject(text, "scale and L must be positive and a margin not negative")
        if "divide" in values and not margin:
            raise _reject(text, "a loss cannot be divided by a margin of 0")
        return cls(name, margin, relative, scale, limit, "divide" in values)

    @property
    def rls(self) -> float | None:
        """m / (2L) of a loss that clamps its logits; None for others."""
        return None if self.limit is None or self.margin is None else self.margin / (2 * self.limit)

    @property
    def text(self) -> str:
        """The SPEC with every parameter written out. `rls` becomes m."""
        loss, parts = LOSSES[self.name], []
        if self.margin is not None:
            parts.append(f"{loss.margin}={_write(self.margin * 100)}%" if self.relative else f"{loss.margin}={_write(self.margin)}")
        if self.limit is not None:
            parts.append(f"L={_write(self.limit)}")
        if self.divide:
            parts.append(f"divide={loss.margin}")
        if self.scale != 1:
            parts.append(f"scale={_write(self.scale)}")
        return self.name + (":" + ",".join(parts) if parts else "")

    def build(self, output_bound: float) -> nn.Module:
        """Return the loss as a torch module for a network whose largest possible logit is `output_bound`."""
        module, _, class_name = LOSSES[self.name].target.partition(":")
        options: dict[str, Any] = {"scale": self.scale}
        if self.limit is not None:
            options["L"] = self.limit
        if self.divide:
            options["divide"] = True
        margin = [] if self.margin is None else [self.margin * output_bound * self.scale if self.relative else self.margin]
        loss: nn.Module = getattr(import_module(module), class_name)(*margin, **options)
        return loss


def name_stored_loss(text: str) -> str:
    """Return the SPEC of a loss in the record of a run, under its present name.

    Earlier versions called the unclamped form `mcel`. Runs of the published loss always state L in their record.
    """
    name, _, parameters = text.partition(":")
    if name == "mcel" and not any(part.startswith("L=") for part in parameters.split(",")):
        return f"margin-ce:{parameters}"
    return text


def list_examples() -> str:
    """Return one SPEC of every loss, as help and messages show them."""
    examples = [loss.example for loss in LOSSES.values()]
    return f"{', '.join(examples[:-1])} or {examples[-1]}"


def _parse_margin(text: str, loss: LossType, values: dict[str, str], limit: float | None) -> tuple[float | None, bool]:
    """Return the margin and whether it is a share of the largest output; ValueError if a number cannot be read."""
    if loss.margin is None:
        return None, False
    if limit is not None:
        if "rls" in values and not values["rls"].endswith("%"):
            raise _reject(text, "rls is a share and has no %")
        if "rls" in values:
            return parse_number(values["rls"].removesuffix("%")) / 100 * 2 * limit, False
        if values[loss.margin].endswith("%"):
            raise _reject(text, f"{loss.margin} of clamped logits is no share of the largest output; rls is a share of their range")
        return parse_number(values[loss.margin]), False
    margin = values[loss.margin]
    return parse_number(margin.removesuffix("%")) / (100 if margin.endswith("%") else 1), margin.endswith("%")


def _describe_parameters(loss: LossType) -> str:
    """Return the parameters of a loss in words, for messages."""
    names = [] if loss.margin is None else [loss.margin] if loss.limit is None else [f"{loss.margin} or rls", "L"]
    names += [f"divide={loss.margin}"] if loss.divisible else []
    return " and ".join([*names, "scale"])


def _write(number: float) -> str:
    """Return a float that parses to itself, without a trailing `.0`."""
    return repr(float(number)).removesuffix(".0")


def _reject(text: str, found: str) -> UsageError:
    advice = (
        f"Write {list_examples()}; mcel:rls=16% states m as m/(2L); b, and m of the others, also as a share of the largest output, "
        "m=12.5%; scale=0.02 multiplies the logits; divide=b divides mhl by b"
    )
    return UsageError(f"Loss {text!r}", found, advice)
