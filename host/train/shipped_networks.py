"""Recipes of the shipped networks: data, architecture, loss, schedule, and stored form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import onnx
import torch
from torch import nn

from weakcell.host.datasets import training
from weakcell.host.train import export, loop, networks
from weakcell.host.train.losses import CrossEntropy


@dataclass(frozen=True)
class Recipe:
    """How one network is made.

    Attributes:
        dataset: Loads the data set from a folder.
        network: Makes the network.
        loss: Training loss.
        schedule: Epochs, batch size and learning rate.
        bits: Bits of a stored weight: 1 packs ±1 weights, 8 quantizes float weights, None keeps floats.
        tolerance: Largest difference between the logits of the export and of torch, before quantization.
    """

    dataset: Callable[[Path], training.TrainingData]
    network: Callable[[], nn.Module]
    loss: loop.Loss
    schedule: loop.Schedule
    bits: int | None = None
    tolerance: float = 0.0


RECIPES = {
    "digits-bnn": Recipe(
        dataset=training.load_training_digits,
        network=networks.digits_bnn,
        loss=CrossEntropy(scale=96**-0.5),
        schedule=loop.Schedule(epochs=100, halve_every=25, batch=64),
    ),
    "digits-qnn": Recipe(
        dataset=training.load_training_digits,
        network=networks.digits_qnn,
        loss=CrossEntropy(),
        schedule=loop.Schedule(epochs=60, halve_every=15, batch=64),
        bits=8,
        tolerance=1e-3,
    ),
    "fashion-bnn": Recipe(
        dataset=lambda folder: training.load_training_data("fashion-mnist", folder),
        network=networks.fashion_bnn,
        loss=CrossEntropy(scale=512**-0.5),
        schedule=loop.Schedule(epochs=6, halve_every=1),
        bits=1,
    ),
}


def train_shipped_network(name: str, data_dir: Path, seed: int, epochs: int | None = None) -> onnx.ModelProto:
    """Train a shipped network, export it, check the export, and record in its metadata how it was made.

    Args:
        name: Key of `RECIPES`.
        data_dir: Folder of the data set.
        seed: Seed of the weights and the image order.
        epochs: Number of epochs; that of the recipe by default.

    Raises:
        ModelError: The exported model does not compute the logits of the trained network.
    """
    recipe = RECIPES[name]
    schedule = recipe.schedule if epochs is None else replace(recipe.schedule, epochs=epochs)
    data = recipe.dataset(data_dir)

    loop.seed(seed)
    network = recipe.network()
    loop.train(network, recipe.loss, schedule, data.train, data.validation)

    expected = loop.logits(network, data.test.images)
    model = export.to_onnx(network, data.train.images.shape[1:])
    outputs = export.logits(model, data.test.images)
    export.require_equal_logits(outputs, expected, recipe.tolerance)
    if recipe.bits == 8:
        model = export.quantize(model, data.train.images)
        outputs = export.logits(model, data.test.images)
    elif recipe.bits is not None:
        model = export.pack(model, recipe.bits)
        outputs = export.logits(model, data.test.images)
        export.require_equal_logits(outputs, expected, recipe.tolerance)

    threads = torch.get_num_threads()
    onnx.helper.set_model_props(
        model,
        {
            "dataset": data.name,
            "preprocessing": "raw pixels, no scaling",
            "loss": str(recipe.loss),
            "seed": str(seed),
            "epochs": str(schedule.epochs),
            "test_accuracy": f"{loop.accuracy(outputs, data.test.labels):.4f}",
            "made_by": f"python -m weakcell.host.train {name} --seed {seed} --epochs {schedule.epochs} --threads {threads}",
        },
    )
    return model
