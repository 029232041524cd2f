"""Presets: the runs of one table of a paper at full length, by name. `weakcell train --preset NAME` trains them.

Every preset has both fair baselines, CEL with a learned output scale and CEL on logits/√K, and three seeds. On a few cores they
take weeks; other settings win over them (`--epochs 4 --width 0.25`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from weakcell.host.train.settings import Run, expand_runs
from weakcell.memmodels.errors import UsageError

_SEEDS = [1, 2, 3]
_MCEL_SWEEP = "ber=0:0.02:0.0025"
_FLIPS = ["none", *(f"uniform:ber={rate:g}" for rate in (0.01, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3))]


@dataclass(frozen=True)
class Preset:
    """The runs of one table.

    Attributes:
        about: Which table, and what of its schedule is not the paper's.
        settings: Settings that all runs share.
        fan_in: Inputs of the last layer at full width, K.
        losses: SPECs of the losses beside CEL.
        widths: Bits of a weight → settings of that width.
        output_scale: Whether the losses get a learned output scale, as in the framework of MCEL's author.
        flips: Errors in training.
        sweep: Bit error rates of the evaluation.
    """

    about: str
    settings: Mapping[str, Any]
    fan_in: int
    losses: tuple[str, ...]
    widths: Mapping[int, Mapping[str, Any]]
    output_scale: bool
    flips: tuple[str, ...]
    sweep: str


def _make_mcel_preset(about: str, network: str, fan_in: int, margins: Sequence[int], **settings: Any) -> Preset:
    codes = {"quantizer": "min-max", "rate": 1e-4, "epochs": 50, "halve_every": 5}
    return Preset(
        about, {"network": network, **settings}, fan_in, (*(f"mcel:m={margin}" for margin in margins), "mhl:b=128,divide=b"),
        {1: {"epochs": 200, "halve_every": 25}, 2: codes, 4: codes, 8: codes}, True, ("none",), _MCEL_SWEEP,
    )  # fmt: skip


def _make_date_preset(about: str, network: str, fan_in: int, sweep: str, **settings: Any) -> Preset:
    return Preset(
        about, {"network": network, "halve_every": 25, **settings}, fan_in, ("mhl:b=128", "mhl:b=256"), {1: {}}, False,
        tuple(_FLIPS), sweep,
    )  # fmt: skip


_MCEL, _DATE = "MCEL (arXiv 2603.05048)", "Buschjäger et al. (DATE 2021)"
_UNKNOWN = "The number of epochs and the augmentation are ours"
PRESETS: Mapping[str, Preset] = {
    "mcel-fashion-mnist": _make_mcel_preset(f"{_MCEL}: Fashion-MNIST, VGG3", "vgg3", 2048, (32, 64, 128), data="fashion-mnist"),
    "mcel-svhn": _make_mcel_preset(f"{_MCEL}: SVHN, VGG7. {_UNKNOWN}", "vgg7", 1024, (32, 64, 128), data="svhn", augment="crops"),
    "mcel-cifar-10": _make_mcel_preset(
        f"{_MCEL}: CIFAR-10, MobileNetV2. {_UNKNOWN}", "mobilenetv2", 1280, (32, 64, 128), data="cifar-10", augment="crops-flips"
    ),
    "mcel-imagenette": _make_mcel_preset(
        f"{_MCEL}: Imagenette 64 × 64, ResNet18. {_UNKNOWN}", "resnet18", 512, (32, 64, 128), data="imagenette",
        augment="crops-flips",
    ),
    "date-fcnn": _make_date_preset(
        f"{_DATE}, figure 1: Fashion-MNIST, FCNN", "fcnn", 2048, "ber=0:0.35:0.01", data="fashion-mnist", epochs=200
    ),
    "date-vgg3": _make_date_preset(
        f"{_DATE}, figure 2: Fashion-MNIST, VGG3", "vgg3", 2048, "ber=0:0.35:0.01", data="fashion-mnist", epochs=200
    ),
    "date-vgg7": _make_date_preset(
        f"{_DATE}: CIFAR-10, VGG7. The augmentation is ours", "vgg7", 1024, "ber=0:0.06:0.005", data="cifar-10", epochs=500,
        augment="crops-flips",
    ),
}  # fmt: skip


def find_preset(name: str) -> Preset:
    """Return the preset of a name.

    Raises:
        UsageError: There is none.
    """
    if name not in PRESETS:
        raise UsageError(f"--preset {name}", "there is no such preset", f"Known: {', '.join(PRESETS)}")
    return PRESETS[name]


def expand_preset(preset: Preset, given: Mapping[str, Any], grid: Mapping[str, list[Any]]) -> list[Run]:
    """Return the runs of a preset, seed by seed: all settings of the first seed come first.

    Args:
        preset: Preset.
        given: Single settings, which win over the preset.
        grid: Lists of settings, which win over the preset and lose to `given`.

    Raises:
        UsageError: A setting is wrong.
    """
    scale = (preset.fan_in * float(given.get("width", 1.0))) ** -0.5
    start = "papers" if preset.output_scale else "none"
    methods: list[dict[str, Any]] = [
        {"loss": "cel", "output_scale": "papers"},
        {"loss": f"cel:scale={scale:.6g}"},
        *({"loss": loss, "output_scale": start} for loss in preset.losses),
    ]
    chosen = {name: values for name, values in grid.items() if name not in given}
    seeds = [given["seed"]] if "seed" in given else chosen.pop("seed", _SEEDS)
    widths = [int(given["bits"])] if "bits" in given else [int(bits) for bits in chosen.pop("bits", list(preset.widths))]
    runs: dict[str, Run] = {}
    for seed in seeds:
        for bits in widths:
            for method in methods:
                settings = {**preset.settings, **preset.widths.get(bits, {}), **method, **given, "bits": bits, "seed": seed}
                several = {"flips": list(preset.flips), **chosen}
                several = {name: values for name, values in several.items() if name not in given}
                runs.update({run.identity: run for run in expand_runs(settings, several)})
    return list(runs.values())
