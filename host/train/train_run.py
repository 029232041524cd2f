"""Train one network and export it to ONNX: check the export against torch, and record how the network was made."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import onnx
import torch
from torch import nn

from weakcell.host.datasets.training import TrainingData
from weakcell.host.train import export, loop
from weakcell.host.train.flips import inject_flips
from weakcell.host.train.layers import Levels, StoredLinear, list_stored_layers, remove_output_scale, stored_step, use_min_max_codes
from weakcell.host.train.loss_spec import LOSSES, LossSpec
from weakcell.host.train.networks import ARCHITECTURES, append_output_scale
from weakcell.host.train.regularizer import TolerancePenalty
from weakcell.host.train.settings import Run
from weakcell.memmodels.catalogue import open_memory, parse_spec
from weakcell.memmodels.errors import UsageError


@dataclass(frozen=True, eq=False)
class TrainedNetwork:
    """A trained network as an ONNX model, and the record of its epochs."""

    model: onnx.ModelProto
    epochs: tuple[loop.Epoch, ...]


def train_run(run: Run, data: TrainingData, checkpoint: Path | None = None, device: str = "cpu") -> TrainedNetwork:
    """Train the network of a run and export it.

    The metadata of the model state the data set, preprocessing, loss, margin, training errors, seed and accuracy. The logits of
    onnxruntime on the test part must equal those of torch. If every neuron is a threshold of integers, they must be equal on all
    images. In other networks, torch and onnxruntime round batch norms differently, which changes codes at rounding ties: there 99 %
    of the images must be equal, and the metadata state on how many they differ.

    Args:
        run: Settings.
        data: Training, validation and test part.
        checkpoint: File that is written after each epoch. If it exists, training resumes from it.
        device: Device of torch.

    Raises:
        ModelError: The exported model does not compute the logits of the trained network.
    """
    loop.seed(run.seed)
    shape = (int(data.train.images.shape[1]), int(data.train.images.shape[2]), int(data.train.images.shape[3]))
    classes = int(data.train.labels.max()) + 1
    network = ARCHITECTURES[run.network](shape, classes, run.bits, run.width)
    if run.quantizer == "min-max":
        use_min_max_codes(network)
    if run.output_scale is not None:
        append_output_scale(network, run.output_scale, run.bits)
    output_bound = compute_output_bound(network)
    spec = LossSpec.parse(run.loss)
    loss = spec.build(output_bound)
    part = data.train.first(run.images)
    schedule = loop.Schedule(
        run.epochs, run.halve_every, run.batch, run.rate,
        decay=run.schedule, clip=run.clip, patience=run.patience, augment=run.augment, ema=run.ema,
        margin_warm_up=run.margin_warm_up,
    )  # fmt: skip
    penalty = None if run.tolerance is None else TolerancePenalty(network, *run.tolerance)
    memory = None if run.flips is None else open_memory(parse_spec(run.flips), run.seed, 0, 0)
    with nullcontext() if memory is None else inject_flips(network, memory, run.gradient):
        epochs = loop.train(
            network, loss, schedule, part, data.validation, precision=run.precision, penalty=penalty,
            set_margin=_make_margin_setter(loss, LOSSES[spec.name].margin), checkpoint=checkpoint, identity=run.identity,
            device=device,
        )  # fmt: skip
    if penalty is not None:
        penalty.remove()

    network.cpu()
    output_scale = remove_output_scale(network)
    export.center_thresholds(network)
    model = export.pack(export.to_onnx(network, shape), run.bits, stored_step(list_stored_layers(network)[-1][1]))
    expected, outputs = loop.logits(network, data.test.images), export.logits(model, data.test.images)
    only_thresholds = run.bits == 1 and len(export.find_threshold_norms(network)) == len(list_stored_layers(network)) - 1
    unequal_images = export.require_equal_logits(outputs, expected, share=0.0 if only_thresholds else 0.01)
    validation_logits = export.logits(model, data.validation.images)
    metadata = {
        "dataset": data.name,
        "preprocessing": "raw pixels, no scaling",
        "codes": f"{run.bits} bits, {run.quantizer}",
        "loss": str(loss),
        "loss_spec": run.loss,
        "training_errors": "none" if run.flips is None else f"{run.flips}, {run.gradient} gradient",
        "seed": str(run.seed),
        "epochs": str(len(epochs)),
        "output_scale": f"{output_scale:.9g}",
        "largest_output": f"{output_bound:g}",
        "images_unlike_torch": f"{unequal_images} of {len(expected)}",
        "validation_accuracy": f"{loop.accuracy(validation_logits, data.validation.labels):.4f}",
        "test_accuracy": f"{loop.accuracy(outputs, data.test.labels):.4f}",
        "run": run.identity,
        "made_by": f"weakcell train, torch {torch.__version__}, {torch.get_num_threads()} threads, {device}",
    }
    onnx.helper.set_model_props(model, metadata)
    return TrainedNetwork(model, tuple(epochs))


def _make_margin_setter(loss: nn.Module, name: str | None) -> Callable[[float], None] | None:
    """Return a function that sets the margin of a loss to a share of its value; None for a loss without one."""
    if name is None:
        return None
    margin = getattr(loss, name)
    return lambda share: setattr(loss, name, share * margin)


def compute_output_bound(network: nn.Module) -> float:
    """Return the largest possible logit: fan-in of the last layer × its largest input × the largest weight, + the largest bias.

    Raises:
        UsageError: The network does not end in a `StoredLinear`.
    """
    last_layer = list_stored_layers(network)[-1][1]
    activations = [module for module in network.modules() if isinstance(module, Levels)]
    if not isinstance(last_layer, StoredLinear):
        raise UsageError("The largest output", "the network does not end in a dense layer", "End it in a StoredLinear")
    largest_input = activations[-1].codes[1] * activations[-1].step if activations else 1.0
    largest_weight = stored_step(last_layer) * 2.0 ** (last_layer.bits - 1)
    largest_bias = 0.0 if last_layer.bias is None else largest_weight
    return float(last_layer.in_features * largest_input * largest_weight + largest_bias)
