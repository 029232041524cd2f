"""Training loop of the margin papers: Adam with a learning rate that halves at fixed epochs. It can resume from a checkpoint."""

from __future__ import annotations

import io
import pickle
import time
from collections.abc import Callable
from contextlib import nullcontext
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


@dataclass(frozen=True)
class Schedule:
    """Schedule of a training run.

    Attributes:
        epochs: Number of epochs.
        halve_every: The learning rate is halved every so many epochs.
        batch: Images per step.
        rate: Learning rate of Adam at the start.
    """

    epochs: int
    halve_every: int
    batch: int = 256
    rate: float = 1e-3


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
    # Fused steps round differently. Unfused float32 runs repeat the training of the shipped networks bit for bit.
    optimizer = torch.optim.Adam(network.parameters(), lr=schedule.rate, fused=precision != "float32")
    decay = torch.optim.lr_scheduler.StepLR(optimizer, schedule.halve_every, gamma=0.5)
    parts = {"network": network, "optimizer": optimizer, "decay": decay}
    epochs = _resume(checkpoint, parts, identity)
    mixed = nullcontext() if precision == "float32" else torch.autocast(device, torch.bfloat16)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("training", total=schedule.epochs, completed=len(epochs))
        for number in range(len(epochs) + 1, schedule.epochs + 1):
            network.train()
            start, core_start = time.perf_counter(), time.process_time()
            total = torch.zeros((), dtype=torch.float64, device=device)
            for chosen in torch.randperm(len(part)).to(device).split(schedule.batch):
                with mixed:
                    value = loss(network(images[chosen].float()).float(), labels[chosen])
                if penalty is not None:
                    value = value + penalty(network)
                optimizer.zero_grad()
                value.backward()
                optimizer.step()
                clamp_latent(network)
                total += value.detach() * len(chosen)
            decay.step()
            share = accuracy(logits(network, validation.images), validation.labels)
            seconds, core_seconds = time.perf_counter() - start, time.process_time() - core_start
            epochs.append(Epoch(number, float(total) / len(part), share, seconds, core_seconds))
            progress.console.print(
                f"epoch {number:3d}  loss {epochs[-1].loss:.4f}  validation accuracy {share:.2%}  {seconds:.1f} s"
            )
            progress.advance(task)
            if checkpoint is not None:
                _save(checkpoint, parts, identity, epochs)
    network.eval()
    return epochs


def _save(path: Path, parts: dict[str, Any], identity: str, epochs: list[Epoch]) -> None:
    state = {name: part.state_dict() for name, part in parts.items()}
    content = {**state, "identity": identity, "random": torch.get_rng_state(), "epochs": [vars(epoch) for epoch in epochs]}
    buffer = io.BytesIO()  # torch hides the reason if a file cannot be written
    torch.save(content, buffer)
    write_bytes_atomically(path, buffer.getvalue())


def _resume(path: Path | None, parts: dict[str, Any], identity: str) -> list[Epoch]:
    """Restore the state of a checkpoint into `parts` and the random generator; return its epochs, none without a file."""
    if path is None or not path.is_file():
        return []
    try:
        content = torch.load(path, weights_only=True)
        if content["identity"] != identity:
            raise InputError(f"Going on from {path}", "it belongs to another run", "Remove it, or give that run's settings")
        for name, part in parts.items():
            part.load_state_dict(content[name])
        torch.set_rng_state(content["random"])
        return [Epoch(**epoch) for epoch in content["epochs"]]
    except (OSError, RuntimeError, KeyError, ValueError, EOFError, TypeError, pickle.UnpicklingError) as error:
        found = (str(error).splitlines() or ["it cannot be read"])[0]
        raise InputError(f"Going on from {path}", found, "Remove it and start anew") from error


def logits(network: nn.Module, images: np.ndarray, batch: int = 1000) -> np.ndarray:
    """Return the float32 logits [N, classes] of a network for uint8 images [N, C, H, W]. Sets evaluation mode."""
    network.eval()
    device = next(network.parameters()).device
    with torch.no_grad():
        outputs = torch.cat([network(chunk.to(device).float()) for chunk in torch.tensor(images).split(batch)])
    return np.asarray(outputs.cpu())


def accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the share of images whose highest logit [N, classes] is that of the label [N]."""
    return float((logits.argmax(1) == labels).mean())
