"""Settings of a training run: a frozen record, read from command-line options or TOML, checked before anything is loaded."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from itertools import product
from math import prod
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from weakcell.host.train.layers import WIDTHS
from weakcell.host.train.loss_spec import LossSpec
from weakcell.memmodels.catalogue import parse_spec
from weakcell.memmodels.errors import UsageError
from weakcell.memmodels.files import read_text, reason
from weakcell.memmodels.numbers import parse_number
from weakcell.memmodels.toml_text import parse_toml

_LATER_SETTINGS = ("quantizer", "output_scale", "schedule", "clip", "patience", "augment", "ema", "margin_warm_up")
_MOST_RUNS, _MOST_LETTERS = 10_000, 180


_SMALLEST_LAYER = {"fcnn": 2048, "vgg3": 64, "vgg7": 128, "mobilenetv2": 16, "resnet18": 64}
"""Channels or neurons of the narrowest hidden layer, before `width`."""


class Run(BaseModel):
    """One network to train. Every field is an option of `weakcell train` and a key of its TOML files.

    Attributes:
        data: Name of the data set.
        network: Name of the architecture.
        bits: Bits of a stored weight. 1 is a BNN; from 2 on, a QNN whose activations have as many bits.
        quantizer: Codes of weights of several bits. `power-of-two` are steps of 2^(1−bits) over [−1, 1). `min-max` are MCEL's: the
            range of each tensor is divided evenly, the integers are used as they are, and biases are stored likewise.
        width: Factor of the papers' numbers of channels and neurons.
        loss: SPEC of the loss, as in `mhl:b=128` or `mcel:rls=16%`. That of a clamped loss is stored with m and L written out.
        flips: SPEC of the memory whose errors are injected in training, or None.
        gradient: Gradient of flipped weights.
        tolerance: λ and δ of the neuron regularizer, or None.
        output_scale: Start of a learnable factor of all outputs: a number, `papers` (1e-3 for a BNN, 1e-5 for more bits), or
            `fan-in` (1/√K). None for no such factor. It changes no answer, and the exported network does without it.
        epochs: Number of epochs.
        halve_every: The learning rate is halved every so many epochs.
        schedule: `step` halves the learning rate; `cosine` lowers it to 0 over all epochs.
        clip: Largest norm of all gradients together; longer ones are shortened to it. None for no limit.
        patience: Training stops after so many epochs without a better validation accuracy, and takes the weights of the best epoch.
            None trains all epochs and takes the last weights.
        augment: Random changes of the training images: `crops` out of a border of 4 black pixels, `crops-flips` mirrors half
            of them as well.
        ema: Decay per step of an exponential moving average of the weights, as in 0.999. The average is validated and exported.
            None exports the last weights.
        margin_warm_up: The margin of the loss rises evenly from 0 over so many epochs. 0 for none.
        batch: Images per step.
        rate: Learning rate of Adam at the start.
        images: Only the first so many images of the training part are used.
        precision: float32, or bfloat16 for products.
        seed: Seed of the weights, image order and flips.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: Literal["digits", "fashion-mnist", "cifar-10", "svhn", "imagenette"] = "fashion-mnist"
    network: Literal["fcnn", "vgg3", "vgg7", "mobilenetv2", "resnet18"] = "fcnn"
    bits: int = 1
    quantizer: Literal["power-of-two", "min-max"] = "power-of-two"
    width: float = Field(1.0, gt=0, le=4)
    loss: str = "cel"
    flips: str | None = None
    gradient: Literal["straight-through", "plain"] = "straight-through"
    tolerance: tuple[float, float] | None = None
    output_scale: Literal["papers", "fan-in"] | float | None = None
    epochs: int = Field(10, ge=1)
    halve_every: int = Field(2, ge=1)
    schedule: Literal["step", "cosine"] = "step"
    clip: float | None = Field(None, gt=0, lt=1e6)
    patience: int | None = Field(None, ge=1)
    augment: Literal["crops", "crops-flips"] | None = None
    ema: float | None = Field(None, gt=0, lt=1)
    margin_warm_up: int = Field(0, ge=0)
    batch: int = Field(256, ge=2)
    rate: float = Field(1e-3, gt=0, lt=1)
    images: int | None = Field(None, ge=2)
    precision: Literal["float32", "bfloat16"] = "float32"
    seed: int = Field(1, ge=0, lt=1 << 63)

    @field_validator("width")
    @classmethod
    def _leaves_a_neuron(cls, width: float, others: ValidationInfo) -> float:
        smallest = _SMALLEST_LAYER.get(others.data.get("network", ""), 1)
        if round(smallest * width) < 1:
            raise ValueError(f"it leaves nothing of a layer of {smallest} channels or neurons")
        return width

    @field_validator("tolerance")
    @classmethod
    def _finite(cls, pair: tuple[float, float] | None) -> tuple[float, float] | None:
        if pair is not None and not all(map(math.isfinite, pair)):
            raise ValueError("its numbers are not finite")
        return pair

    @field_validator("bits")
    @classmethod
    def _known_width(cls, bits: int) -> int:
        if bits not in WIDTHS:
            raise ValueError(f"weights have {', '.join(map(str, WIDTHS))} bits")
        return bits

    @field_validator("quantizer")
    @classmethod
    def _codes_of_several_bits(cls, quantizer: str, others: ValidationInfo) -> str:
        if others.data.get("bits") == 1 and quantizer != "power-of-two":
            raise ValueError("min-max are codes of 2, 4 or 8 bits; one bit stores a sign")
        return quantizer

    @field_validator("loss")
    @classmethod
    def _known_loss(cls, text: str) -> str:
        spec = LossSpec.parse(text)
        # A stored MCEL always states L. By that it is told from the unclamped form, which was once called mcel.
        return text if spec.limit is None else spec.text

    @field_validator("margin_warm_up")
    @classmethod
    def _of_a_margin(cls, epochs: int, others: ValidationInfo) -> int:
        loss = others.data.get("loss")
        if epochs and loss is not None and LossSpec.parse(loss).margin is None:
            raise ValueError(f"the loss {loss} has no margin")
        return epochs

    @field_validator("clip", "patience", "augment", "ema", mode="before")
    @classmethod
    def _none_in_words(cls, value: object) -> object:
        return None if value in ("", "none") else value

    @field_validator("output_scale", mode="before")
    @classmethod
    def _start(cls, start: object) -> object:
        if start is None or start in ("papers", "fan-in"):
            return start
        if start in ("", "none"):
            return None
        try:
            number = parse_number(str(start))
        except ValueError:
            number = 0.0
        if not 1e-12 <= number <= 1e6:
            raise ValueError("it is not papers, fan-in, none or a number between 1e-12 and 1e6")
        return number

    @field_validator("flips")
    @classmethod
    def _known_memory(cls, text: str | None) -> str | None:
        if text in (None, "", "none"):
            return None
        parse_spec(str(text)).check()
        return text

    @field_validator("tolerance", mode="before")
    @classmethod
    def _pair(cls, pair: object) -> object:
        if pair in ("", "none"):
            return None
        return [parse_number(part) for part in pair.split(",")] if isinstance(pair, str) else pair

    @property
    def identity(self) -> str:
        """All settings as JSON: everything that the trained network depends on except the machine.

        A setting that earlier versions did not have is left out at its default, so that their runs keep their identity.
        """
        defaults = {name for name in _LATER_SETTINGS if getattr(self, name) == type(self).model_fields[name].default}
        return self.model_dump_json(exclude=defaults)

    @property
    def legacy_name(self) -> str | None:
        """Name that an earlier version gave to a run of the unclamped loss, which it called `mcel`; None for other losses.

        A run of `mcel` has one as well: what an earlier version trained if it was given the same words.
        """
        if self.loss.startswith("margin-ce:"):
            old = self.loss.replace("margin-ce:", "mcel:", 1)
        else:
            old = self.loss.replace(",L=100", "", 1)
        return None if old == self.loss else self.model_copy(update={"loss": old}).name

    @property
    def name(self) -> str:
        """File name of the run: the settings that people compare, and eight letters of a digest of all settings."""
        kind = "bnn" if self.bits == 1 else f"qnn{self.bits}"
        words = [self.network, kind, *self.loss.replace("%", "pc").replace("=", "").replace(":", ",").split(",")]
        if self.quantizer != "power-of-two":
            words.append(self.quantizer)
        if self.output_scale is not None:
            words.append(f"scale-{self.output_scale}")
        if self.flips is not None:
            words += ["plain" if self.gradient == "plain" else "flips", *self.flips.replace(":", "-").replace("=", "").split(",")]
        readable = re.sub(r"[/\\\x00-\x1f]", "-", "_".join([*words, f"seed{self.seed}"]))[:_MOST_LETTERS]
        return f"{readable}_{hashlib.sha256(self.identity.encode()).hexdigest()[:8]}"


def parse_run(settings: Mapping[str, Any]) -> Run:
    """Check settings and return the run; UsageError names the first invalid setting."""
    try:
        return Run.model_validate(dict(settings))
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        if first["type"] == "extra_forbidden":
            raise UsageError(f"Setting {name}", "there is none of that name", f"Known: {', '.join(Run.model_fields)}") from error
        found = first["msg"].removeprefix("Value error, ")
        raise UsageError(f"Setting {name} = {first['input']!r}", found, "See `weakcell train --help`") from error


def read_settings(path: Path) -> tuple[dict[str, Any], dict[str, list[Any]]]:
    """Read the tables `[run]` and `[grid]` of a TOML file; UsageError if the file is invalid."""
    try:
        content = parse_toml(read_text(path))
    except (OSError, ValueError, RecursionError) as error:
        do = "Give a TOML file with a table [run] and, for several, [grid]"
        raise UsageError(f"Reading {path}", reason(error), do) from error
    run, grid = content.pop("run", {}), content.pop("grid", {})
    if content or not isinstance(run, dict) or not isinstance(grid, dict) or not all(isinstance(v, list) for v in grid.values()):
        found = f"it has {', '.join(content)} beside them" if content else "a key of [grid] is not a list"
        raise UsageError(f"Reading {path}", found, "Write [run] with one value a key and [grid] with lists")
    return run, grid


def expand_runs(settings: Mapping[str, Any], grid: Mapping[str, list[Any]]) -> list[Run]:
    """Return a run for every combination of grid values; the last key changes fastest.

    Combinations that train the same network (`gradient` without flips) give one run.

    Args:
        settings: Settings that all runs share.
        grid: Values of the other settings.

    Raises:
        UsageError: A setting is invalid.
    """
    count = prod(map(len, grid.values()))
    if count > _MOST_RUNS:
        found = f"it has {count:,} combinations, and {_MOST_RUNS:,} are the most"
        raise UsageError("The grid of the runs", found, "Take fewer values")
    runs: dict[str, Run] = {}
    for values in product(*grid.values()):
        run = parse_run({**settings, **dict(zip(grid, values, strict=True))})
        if run.flips is None and run.gradient != "straight-through":
            run = run.model_copy(update={"gradient": "straight-through"})
        runs.setdefault(run.identity, run)
    return list(runs.values())
