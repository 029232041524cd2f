"""The training loop: seeded, Adam, a learning rate that halves at fixed epochs, as in the margin papers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor, nn

from host.train.datasets import Part
from host.train.layers import clamp_latent

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Schedule:
    """How long and how fast: `rate` is Adam's at the start, halved every `halve_every` epochs; `batch` in images."""

    epochs: int
    halve_every: int
    batch: int = 256
    rate: float = 1e-3


def seed(value: int) -> None:
    """Fix the initial weights and the order of the images; call before the network is made."""
    torch.manual_seed(value)


def train(network: nn.Module, loss: Loss, schedule: Schedule, part: Part, validation: Part) -> None:
    """Fit `network` to `part` in place and leave it in evaluation mode; progress and accuracies go to stderr."""
    images, labels = torch.tensor(part.images), torch.tensor(part.labels).long()
    network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(network.parameters(), lr=schedule.rate)
    decay = torch.optim.lr_scheduler.StepLR(optimizer, schedule.halve_every, gamma=0.5)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        for epoch in progress.track(range(1, schedule.epochs + 1), description="training"):
            network.train()
            total = 0.0
            for chosen in torch.randperm(len(part)).split(schedule.batch):
                value = loss(network(images[chosen].float()), labels[chosen])
                optimizer.zero_grad()
                value.backward()
                optimizer.step()
                clamp_latent(network)
                total += value.item() * len(chosen)
            decay.step()
            share = accuracy(logits(network, validation.images), validation.labels)
            progress.console.print(f"epoch {epoch:3d}  loss {total / len(part):.4f}  validation accuracy {share:.2%}")
    network.eval()


def logits(network: nn.Module, images: np.ndarray, batch: int = 1000) -> np.ndarray:
    """The outputs [N, classes] of `network` in evaluation mode on uint8 `images` [N, C, H, W]."""
    network.eval()
    with torch.no_grad():
        outputs = torch.cat([network(chunk.float()) for chunk in torch.tensor(images).split(batch)])
    return np.asarray(outputs)


def accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    """The share of rows [N, classes] whose highest logit is the label's [N]."""
    return float((logits.argmax(1) == labels).mean())
