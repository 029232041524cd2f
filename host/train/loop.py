"""The training loop: seeded, Adam, a learning rate that halves at fixed epochs, as in the margin papers; it can stop and go on."""

from __future__ import annotations

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

from weakcell.host.atomic_files import write_atomically
from weakcell.host.datasets.training import Part
from weakcell.host.train.layers import clamp_latent
from weakcell.memmodels.errors import InputError

Loss = Callable[[Tensor, Tensor], Tensor]
Precision = Literal["float32", "bfloat16"]
EveryStep = Callable[[nn.Module], Tensor]


@dataclass(frozen=True)
class Schedule:
    """How long and how fast: `rate` is Adam's at the start, halved every `halve_every` epochs; `batch` in images."""

    epochs: int
    halve_every: int
    batch: int = 256
    rate: float = 1e-3


@dataclass(frozen=True)
class Epoch:
    """What an epoch came to: mean loss over its images, accuracy on the validation part, seconds by the clock and of all cores."""

    number: int
    loss: float
    accuracy: float
    seconds: float
    core_seconds: float


def seed(value: int) -> None:
    """Fix the initial weights and the order of the images; call before the network is made."""
    torch.manual_seed(value)


def train(
    network: nn.Module,
    loss: Loss,
    schedule: Schedule,
    part: Part,
    validation: Part,
    *,
    precision: Precision = "float32",
    penalty: EveryStep | None = None,
    checkpoint: Path | None = None,
    identity: str = "",
    device: str = "cpu",
) -> list[Epoch]:
    """Fit `network` to `part` in place and leave it in evaluation mode; progress and accuracies go to stderr.

    precision: bfloat16 halves the cost of products on processors that know it; ±1 and codes are exact in it, sums are rounded to 8
    bits before the batch norms, and the last layer and evaluation stay float32. penalty: added to each step's loss. checkpoint:
    written after each epoch, and gone on from if it is there; `identity` says which run it belongs to (InputError if another).
    The whole part lies on `device`.
    """
    images, labels = torch.tensor(part.images, device=device), torch.tensor(part.labels, device=device).long()
    network.to(device=device, memory_format=torch.channels_last)
    # Fused steps round otherwise: float32 runs repeat those that made the shipped networks, bit for bit.
    optimizer = torch.optim.Adam(network.parameters(), lr=schedule.rate, fused=precision != "float32")
    decay = torch.optim.lr_scheduler.StepLR(optimizer, schedule.halve_every, gamma=0.5)
    parts = {"network": network, "optimizer": optimizer, "decay": decay}
    done = _go_on(checkpoint, parts, identity)
    mixed = nullcontext() if precision == "float32" else torch.autocast(device, torch.bfloat16)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("training", total=schedule.epochs, completed=len(done))
        for number in range(len(done) + 1, schedule.epochs + 1):
            network.train()
            began, worked, total = time.perf_counter(), time.process_time(), torch.zeros((), dtype=torch.float64, device=device)
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
            took, worked = time.perf_counter() - began, time.process_time() - worked
            done.append(Epoch(number, float(total) / len(part), share, took, worked))
            progress.console.print(
                f"epoch {number:3d}  loss {done[-1].loss:.4f}  validation accuracy {share:.2%}  {done[-1].seconds:.1f} s"
            )
            progress.advance(task)
            if checkpoint is not None:
                _keep(checkpoint, parts, identity, done)
    network.eval()
    return done


def _keep(path: Path, parts: dict[str, Any], identity: str, done: list[Epoch]) -> None:
    state = {name: part.state_dict() for name, part in parts.items()}
    held = {**state, "identity": identity, "random": torch.get_rng_state(), "epochs": [vars(epoch) for epoch in done]}
    write_atomically(path, lambda place: torch.save(held, place))


def _go_on(path: Path | None, parts: dict[str, Any], identity: str) -> list[Epoch]:
    """Put the state of a checkpoint into `parts` and the random numbers; the epochs it has behind it, none without a file."""
    if path is None or not path.is_file():
        return []
    try:
        held = torch.load(path, weights_only=True)
        if held["identity"] != identity:
            raise InputError(f"Going on from {path}", "it belongs to another run", "Remove it, or give that run's settings")
        for name, part in parts.items():
            part.load_state_dict(held[name])
        torch.set_rng_state(held["random"])
        return [Epoch(**epoch) for epoch in held["epochs"]]
    except (OSError, RuntimeError, KeyError, ValueError, EOFError, TypeError, pickle.UnpicklingError) as error:
        found = (str(error).splitlines() or ["it cannot be read"])[0]
        raise InputError(f"Going on from {path}", found, "Remove it and start anew") from error


def logits(network: nn.Module, images: np.ndarray, batch: int = 1000) -> np.ndarray:
    """The outputs [N, classes] of `network` in evaluation mode on uint8 `images` [N, C, H, W], in float32."""
    network.eval()
    device = next(network.parameters()).device
    with torch.no_grad():
        outputs = torch.cat([network(chunk.to(device).float()) for chunk in torch.tensor(images).split(batch)])
    return np.asarray(outputs.cpu())


def accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    """The share of rows [N, classes] whose highest logit is the label's [N]."""
    return float((logits.argmax(1) == labels).mean())
