"""One run from settings to ONNX: train, export, prove that the file computes what torch computes, and say in it how it was made."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import onnx
import torch
from torch import nn

from weakcell.host.datasets.training import Dataset
from weakcell.host.train import export, loop
from weakcell.host.train.flips import flipping
from weakcell.host.train.layers import Levels, StoredLinear, stored_layers
from weakcell.host.train.losses import LossSpec
from weakcell.host.train.networks import ARCHITECTURES
from weakcell.host.train.regularizer import TolerancePenalty
from weakcell.host.train.settings import Run
from weakcell.memmodels.catalogue import open_memory, parse_spec
from weakcell.memmodels.errors import UsageError


@dataclass(frozen=True, eq=False)
class Made:
    """A trained network as ONNX, and how its training went."""

    model: onnx.ModelProto
    epochs: tuple[loop.Epoch, ...]


def make(run: Run, data: Dataset, checkpoint: Path | None = None, device: str = "cpu") -> Made:
    """Train and export; metadata say data set, preprocessing, loss, b or m, training errors, seed and accuracy.

    The logits of the test part must come out of onnxruntime exactly as torch computes them (ModelError otherwise) if all neurons
    are thresholds of integers; elsewhere on 99 % of the images: torch and onnxruntime round batch norms differently, which tells
    where a sum lies between two codes. The metadata say on how many they differ.
    """
    loop.seed(run.seed)
    shape = (int(data.train.images.shape[1]), int(data.train.images.shape[2]), int(data.train.images.shape[3]))
    classes = int(data.train.labels.max()) + 1
    network = ARCHITECTURES[run.network](shape, classes, run.bits, run.width)
    spec = LossSpec.parse(run.loss)
    largest = largest_output(network)
    loss = spec.build(largest)
    part = data.train.first(run.images)
    schedule = loop.Schedule(run.epochs, run.halve_every, run.batch, run.rate)
    penalty = None if run.tolerance is None else TolerancePenalty(network, *run.tolerance)
    memory = None if run.flips is None else open_memory(parse_spec(run.flips), run.seed, 0, 0)
    with nullcontext() if memory is None else flipping(network, memory, run.gradient):
        epochs = loop.train(
            network, loss, schedule, part, data.validation, precision=run.precision, penalty=penalty,
            checkpoint=checkpoint, identity=run.identity, device=device,
        )  # fmt: skip
    if penalty is not None:
        penalty.remove()

    network.cpu()
    export.settle_thresholds(network)
    model = export.pack(export.to_onnx(network, shape), run.bits)
    expected, outputs = loop.logits(network, data.test.images), export.logits(model, data.test.images)
    plain = run.bits == 1 and len(export.threshold_norms(network)) == len(stored_layers(network)) - 1
    differ = export.demand_equal(outputs, expected, share=0.0 if plain else 0.01)
    scores = export.logits(model, data.validation.images)
    facts = {
        "dataset": data.name,
        "preprocessing": "raw pixels, no scaling",
        "loss": str(loss),
        "loss_spec": run.loss,
        "training_errors": "none" if run.flips is None else f"{run.flips}, {run.gradient} gradient",
        "seed": str(run.seed),
        "epochs": str(run.epochs),
        "largest_output": f"{largest:g}",
        "images_unlike_torch": f"{differ} of {len(expected)}",
        "validation_accuracy": f"{loop.accuracy(scores, data.validation.labels):.4f}",
        "test_accuracy": f"{loop.accuracy(outputs, data.test.labels):.4f}",
        "run": run.identity,
        "made_by": f"weakcell train, torch {torch.__version__}, {torch.get_num_threads()} threads, {device}",
    }
    onnx.helper.set_model_props(model, facts)
    return Made(model, tuple(epochs))


def largest_output(network: nn.Module) -> float:
    """The largest logit that the last layer can make: its fan-in times the largest input and the largest weight."""
    heads = [layer for _, layer in stored_layers(network)]
    activations = [module for module in network.modules() if isinstance(module, Levels)]
    head = heads[-1]
    if not isinstance(head, StoredLinear):
        raise UsageError("The largest output", "the network does not end in a dense layer", "End it in a StoredLinear")
    largest_input = activations[-1].codes[1] * activations[-1].step if activations else 1.0
    return float(head.in_features * largest_input)
