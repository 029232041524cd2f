"""What a training run is asked to do: a frozen record, read from flags or TOML, checked before anything is loaded."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from weakcell.host.train.layers import WIDTHS
from weakcell.host.train.losses import LossSpec
from weakcell.memmodels.catalogue import parse_spec
from weakcell.memmodels.errors import UsageError


class Run(BaseModel):
    """One network to train; every field is a flag of `weakcell train` and a key of its TOML files.

    bits: of stored weights; 1 is a BNN, more a QNN whose activations have as many. width: of the papers' channels and neurons.
    loss: `cel`, `mhl:b=128`, `mcel:m=256,scale=0.02`; b and m in logits or, as in `m=12.5%`, as a share of the largest output.
    flips: the memory SPEC whose errors the weights suffer in training, or none. tolerance: λ and δ of the neuron regularizer.
    images: only the first so many of the training part. precision: float32, or bfloat16 products.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: Literal["digits", "fashion-mnist", "cifar-10", "svhn", "imagenette"] = "fashion-mnist"
    network: Literal["fcnn", "vgg3", "vgg7", "mobilenetv2", "resnet18"] = "fcnn"
    bits: int = 1
    width: float = Field(1.0, gt=0, le=4)
    loss: str = "cel"
    flips: str | None = None
    gradient: Literal["straight-through", "plain"] = "straight-through"
    tolerance: tuple[float, float] | None = None
    epochs: int = Field(10, ge=1)
    halve_every: int = Field(2, ge=1)
    batch: int = Field(256, ge=2)
    rate: float = Field(1e-3, gt=0, lt=1)
    images: int | None = Field(None, ge=2)
    precision: Literal["float32", "bfloat16"] = "float32"
    seed: int = Field(1, ge=0, lt=1 << 63)

    @field_validator("bits")
    @classmethod
    def _known_width(cls, bits: int) -> int:
        if bits not in WIDTHS:
            raise ValueError(f"weights have {', '.join(map(str, WIDTHS))} bits")
        return bits

    @field_validator("loss")
    @classmethod
    def _known_loss(cls, text: str) -> str:
        LossSpec.parse(text)
        return text

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
        return pair.split(",") if isinstance(pair, str) else pair

    @property
    def identity(self) -> str:
        """Everything the trained network depends on but the machine, as JSON."""
        return self.model_dump_json()

    @property
    def name(self) -> str:
        """A file name for it: what people compare in words, and eight letters of the identity for the rest."""
        kind = "bnn" if self.bits == 1 else f"qnn{self.bits}"
        words = [self.network, kind, *self.loss.replace("%", "pc").replace("=", "").replace(":", ",").split(",")]
        if self.flips is not None:
            words += ["plain" if self.gradient == "plain" else "flips", *self.flips.replace(":", "-").replace("=", "").split(",")]
        return "_".join([*words, f"seed{self.seed}", hashlib.sha256(self.identity.encode()).hexdigest()[:8]])


def run_of(settings: Mapping[str, Any]) -> Run:
    """A checked run; UsageError names the first setting that is wrong."""
    try:
        return Run.model_validate(dict(settings))
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            raise UsageError(f"Setting {name}", "there is none of that name", f"Known: {', '.join(Run.model_fields)}") from error
        raise UsageError(f"Setting {name} = {first['input']!r}", first["msg"], "See `weakcell train --help`") from error


def read_settings(path: Path) -> tuple[dict[str, Any], dict[str, list[Any]]]:
    """The tables `[run]` and `[grid]` of a TOML file; UsageError if it is not one."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"Reading {path}", str(error), "Give a TOML file with a table [run] and, for several, [grid]") from error
    run, grid = content.pop("run", {}), content.pop("grid", {})
    if content or not isinstance(run, dict) or not isinstance(grid, dict) or not all(isinstance(v, list) for v in grid.values()):
        found = f"it has {', '.join(content)} beside them" if content else "a key of [grid] is not a list"
        raise UsageError(f"Reading {path}", found, "Write [run] with one value a key and [grid] with lists")
    return run, grid


def runs_of(settings: Mapping[str, Any], grid: Mapping[str, list[Any]]) -> list[Run]:
    """Every combination of the grid's values over the settings that all share, the last key changing fastest.

    Combinations that differ in nothing that counts (`gradient` without flips) are trained once.
    """
    made: dict[str, Run] = {}
    for values in product(*grid.values()):
        run = run_of({**settings, **dict(zip(grid, values, strict=True))})
        if run.flips is None and run.gradient != "straight-through":
            run = run.model_copy(update={"gradient": "straight-through"})
        made.setdefault(run.identity, run)
    return list(made.values())
