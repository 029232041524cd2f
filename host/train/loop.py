"""Training loop of the margin papers: Adam with a falling learning rate. It can resume from a checkpoint.

Timing goes to stderr: the time of the whole training, estimated from its first steps, and the seconds of each epoch.
"""

from __future__ import annotations

import io
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor, nn

from weakcell.host.datasets.training import LabelledImages
from weakcell.host.train.layers import clamp_latent
from weakcell.memmodels.atomic_files import write_bytes_atomically
from weakcell.memmodels.errors import InputError

Loss = Callable[[Tensor, Tensor], Tensor]
Precision = Literal["float32", "bfloat16"]
EveryStep = Callable[[nn.Module], Tensor]
_ESTIMATE_STEPS = 4
"""Steps after the first that the estimate of the whole training is taken from."""


@dataclass(frozen=True)
class Schedule:
    """Schedule of a training run.

    Attributes:
        epochs: Largest number of epochs.
        halve_every: The learning rate is halved every so many epochs, if `decay` is `step`.
        batch: Images per step.
        rate: Learning rate of Adam at the start.
        decay: How the learning rate falls: by halves, or as a half cosine to 0 over all epochs.
        clip: Largest norm of all gradients together, or None.
        patience: Training stops after so many epochs without a better validation accuracy and takes the weights of the best epoch;
            None trains all epochs and takes the last weights.
        augment: Random changes of the images, or None.
        ema: Decay per step of an exponential moving average of the weights, or None. The average is validated and becomes the
            trained network.
        margin_warm_up: The margin of the loss rises evenly from 0 to its value over so many epochs; 0 for none.
    """

    epochs: int
    halve_every: int
    batch: int = 256
    rate: float = 1e-3
    decay: Literal["step", "cosine"] = "step"
    clip: float | None = None
    patience: int | None = None
    augment: Literal["crops", "crops-flips"] | None = None
    ema: float | None = None
    margin_warm_up: int = 0


@dataclass(frozen=True)
class Epoch:
    """Record of an epoch.

    Attributes:
        number: From 1 on.
        loss: Mean over the images.
        accuracy: On the validation part, in [0, 1].
        seconds: Wall-clock time.
        core_seconds: Processor time of all cores.
    """

    number: int
    loss: float
    accuracy: float
    seconds: float
    core_seconds: float


def seed(value: int) -> None:
    """Seed the initial weights and the order of the images. Call it before the network is made."""
    torch.manual_seed(value)


def train(
    network: nn.Module,
    loss: Loss,
    schedule: Schedule,
    part: LabelledImages,
    validation: LabelledImages,
    *,
    precision: Precision = "float32",
    penalty: EveryStep | None = None,
    set_margin: Callable[[float], None] | None = None,
    checkpoint: Path | None = None,
    identity: str = "",
    device: str = "cpu",
) -> list[Epoch]:
    """Train a network in place and leave it in evaluation mode. Progress and accuracies go to stderr.

    Args:
        network: Network with latent weights.
        loss: (logits [N, C], classes [N]) → scalar.
        schedule: Epochs, batch size and learning rate.
        part: Training images and labels; all of them are held on `device`.
        validation: Images and labels for the accuracy after each epoch.
        precision: bfloat16 is faster on processors that support it. ±1 and codes are exact in it; sums are rounded to 8 bits before
            the batch norms; the last layer and the validation stay float32.
        penalty: Added to the loss of each step.
        set_margin: Sets the margin of the loss to a share of its value. A margin that warms up needs it.
        checkpoint: File that is written after each epoch. If it exists, training resumes from it.
        identity: Identifies the run that the checkpoint belongs to.
        device: Device of torch.

    Returns:
        The record of each epoch, those before a resume included.

    Raises:
        InputError: The checkpoint cannot be read, or belongs to another run.
    """
    images, labels = torch.tensor(part.images, device=device), torch.tensor(part.labels, device=device).long()
    network.to(device=device, memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(network.parameters(), lr=schedule.rate, fused=True)
    decay: torch.optim.lr_scheduler.LRScheduler
    if schedule.decay == "cosine":
        decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, schedule.epochs)
    else:
        decay = torch.optim.lr_scheduler.StepLR(optimizer, schedule.halve_every, gamma=0.5)
    parts: dict[str, Any] = {"network": network, "optimizer": optimizer, "decay": decay}
    if schedule.patience is not None:
        parts["best"] = _BestWeights(network)
    average = None if schedule.ema is None else _AverageWeights(network, schedule.ema)
    if average is not None:
        parts["average"] = average
    epochs = _resume(checkpoint, parts, identity)
    first = len(epochs) + 1
    mixed = nullcontext() if precision == "float32" else torch.autocast(device, torch.bfloat16)
    stepper = _Stepper(network, loss, optimizer, schedule, mixed, penalty)
    steps = math.ceil(len(part) / schedule.batch)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("training", total=schedule.epochs, completed=len(epochs))
        for number in range(first, schedule.epochs + 1):
            if _is_out_of_patience(epochs, schedule.patience):
                break
            network.train()
            start, core_start = time.perf_counter(), time.process_time()
            total, estimate_start = torch.zeros((), dtype=torch.float64, device=device), start
            for step, chosen in enumerate(torch.randperm(len(part)).to(device).split(schedule.batch)):
                if set_margin is not None and number <= schedule.margin_warm_up:
                    set_margin(((number - 1) * steps + step + 1) / (schedule.margin_warm_up * steps))
                total += stepper.step(to_float(images[chosen]), labels[chosen]) * len(chosen)
                if average is not None:
                    average.update()
                if step == 0:
                    estimate_start = time.perf_counter()  # the first step also allocates and compiles
                elif step == _ESTIMATE_STEPS and number == first:
                    seconds = (time.perf_counter() - estimate_start) / _ESTIMATE_STEPS * steps
                    progress.console.print(_describe_estimate(seconds, schedule.epochs - number + 1))
            decay.step()
            with nullcontext() if average is None else average.installed():
                share = accuracy(logits(network, validation.images), validation.labels)
                if "best" in parts and share > max([epoch.accuracy for epoch in epochs], default=-1.0):
                    parts["best"].keep()
            seconds, core_seconds = time.perf_counter() - start, time.process_time() - core_start
            epochs.append(Epoch(number, float(total) / len(part), share, seconds, core_seconds))
            progress.console.print(
                f"epoch {number:3d}  loss {epochs[-1].loss:.4f}  validation accuracy {share:.2%}  {seconds:.1f} s"
            )
            progress.advance(task)
            if checkpoint is not None:
                _save(checkpoint, parts, identity, epochs)
    if "best" in parts:
        parts["best"].restore()
    elif average is not None:
        average.install()
    network.eval()
    return epochs


def to_float(images: Tensor) -> Tensor:
    """Return uint8 images [N, C, H, W] as float32 in channels-last order.

    An image of one channel has the same bytes in both orders, so torch has to be given the strides: otherwise its convolution
    returns the other order, and pooling and batch norms that follow take several times as long.
    """
    return torch.empty(images.shape, device=images.device, memory_format=torch.channels_last).copy_(images)


@dataclass(frozen=True, eq=False)
class _Stepper:
    """What one step of the optimizer needs."""

    network: nn.Module
    loss: Loss
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    mixed: AbstractContextManager[object]
    penalty: EveryStep | None

    def step(self, images: Tensor, classes: Tensor) -> Tensor:
        """Change the weights by one batch of float images [N, C, H, W], and return the loss before it."""
        if self.schedule.augment is not None:
            images = shift_and_flip(images, flips=self.schedule.augment == "crops-flips")
        with self.mixed:
            value = self.loss(self.network(images).float(), classes)
        if self.penalty is not None:
            value = value + self.penalty(self.network)
        self.optimizer.zero_grad()
        value.backward()
        if self.schedule.clip is not None:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.schedule.clip)
        self.optimizer.step()
        clamp_latent(self.network)
        return value.detach()


class _BestWeights:
    """Copy of a network's state at its best epoch."""

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._state: dict[str, Tensor] = {}

    def keep(self) -> None:
        """Copy the present state."""
        self._state = {name: value.detach().clone() for name, value in self._network.state_dict().items()}

    def restore(self) -> None:
        """Give the network the copied state."""
        self._network.load_state_dict(self._state)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the copy, for a checkpoint."""
        return self._state

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take the copy of a checkpoint."""
        self._state = state


class _AverageWeights:
    """Exponential moving average of a network's float parameters and buffers.

    The decay of step t is at most (1 + t) / (10 + t), so the average soon forgets the initial weights.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self._decay, self._steps = decay, 0
        self._network = {name: value for name, value in network.state_dict().items() if value.is_floating_point()}
        self._average = {name: value.clone() for name, value in self._network.items()}

    def update(self) -> None:
        """Move the average towards the present weights."""
        self._steps += 1
        weight = 1 - min(self._decay, (1 + self._steps) / (10 + self._steps))
        for name, value in self._network.items():
            self._average[name].lerp_(value, weight)

    def install(self) -> None:
        """Give the network the average."""
        for name, value in self._network.items():
            value.copy_(self._average[name])

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Give the network the average for a while."""
        trained = {name: value.clone() for name, value in self._network.items()}
        self.install()
        try:
            yield
        finally:
            for name, value in self._network.items():
                value.copy_(trained[name])

    def state_dict(self) -> dict[str, Any]:
        """Return the average and the number of steps, for a checkpoint."""
        return {"steps": self._steps, "average": self._average}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take the state of a checkpoint."""
        self._steps, self._average = state["steps"], state["average"]


def _is_out_of_patience(epochs: list[Epoch], patience: int | None) -> bool:
    """Return whether the best of the epochs is more than `patience` epochs ago."""
    accuracies = [epoch.accuracy for epoch in epochs]
    return patience is not None and bool(epochs) and len(epochs) - 1 - accuracies.index(max(accuracies)) >= patience


def _describe_estimate(epoch_seconds: float, epochs: int) -> str:
    whole = epoch_seconds * epochs
    length = f"{whole:.0f} s" if whole < 120 else f"{whole / 60:.0f} min" if whole < 7200 else f"{whole / 3600:.1f} h"
    return f"about {epoch_seconds:.0f} s an epoch, {length} for {epochs} epoch{'s' if epochs > 1 else ''}, without the validation"


def shift_and_flip(images: Tensor, *, flips: bool, border: int = 4) -> Tensor:
    """Cut each image [N, C, H, W] at a random place out of itself with a black border; with `flips`, mirror half of them.

    The random numbers are those of torch's CPU generator, which a checkpoint keeps.
    """
    count, _, height, width = images.shape
    padded = nn.functional.pad(images, (border, border, border, border))
    offsets = torch.randint(0, 2 * border + 1, (2, count, 1))
    rows, columns = offsets[0] + torch.arange(height), offsets[1] + torch.arange(width)
    if flips:
        columns = torch.where(torch.rand(count, 1) < 0.5, columns.flip(1), columns)
    rows, columns = rows.to(images.device), columns.to(images.device)
    number = torch.arange(count, device=images.device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[number, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _save(path: Path, parts: dict[str, Any], identity: str, epochs: list[Epoch]) -> None:
    state = {name: part.state_dict() for name, part in parts.items()}
    content = {**state, "identity": identity, "random": torch.get_rng_state(), "epochs": [vars(epoch) for epoch in epochs]}
    buffer = io.BytesIO()  # torch hides the reason if a file cannot be written
    torch.save(content, buffer)
    write_bytes_atomically(path, buffer.getvalue())


def _resume(path: Path | None, parts: dict[str, Any], identity: str) -> list[Epoch]:
    """Restore the state of a checkpoint into `parts` and the random generator; return its epochs, none without a file."""
    if path is None or not os.path.isfile(path):
        return []
    try:
        content = torch.load(path, weights_only=True)
        if content["identity"] != identity:
            raise InputError(f"Going on from {path}", "it belongs to another run", "Remove it, or give that run's settings")
        for name, part in parts.items():
            part.load_state_dict(content[name])
        torch.set_rng_state(content["random"])
        return [Epoch(**epoch) for epoch in content["epochs"]]
    except InputError:
        raise
    except Exception as error:  # torch raises errors of nearly any type about a damaged file
        found = (str(error).splitlines() or ["it cannot be read"])[0]
        raise InputError(f"Going on from {path}", found, "Remove it and start anew") from error


def logits(network: nn.Module, images: np.ndarray, batch: int = 1000) -> np.ndarray:
    """Return the float32 logits [N, classes] of a network for uint8 images [N, C, H, W]. Sets evaluation mode."""
    network.eval()
    device = next(network.parameters()).device
    with torch.no_grad():
        outputs = torch.cat([network(to_float(chunk.to(device))) for chunk in torch.tensor(images).split(batch)])
    return np.asarray(outputs.cpu())


def accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the share of images whose highest logit [N, classes] is that of the label [N]."""
    return float((logits.argmax(1) == labels).mean())
