"""Architectures of the papers. All take raw integer pixels as float32, so the sums of the first layer are exact integers.

C = 3 × 3 convolution with zero padding, MP2 = 2 × 2 max pooling, FC = dense layer, BN = batch norm with its activation.
`bits` are those of a stored weight and, from 2 on, of an activation. `width` is a factor of the papers' channels and neurons.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from math import prod

from torch import nn

from weakcell.host.train.layers import OutputScale, Sign, StoredConv2d, StoredLinear, activation, list_stored_layers
from weakcell.host.train.residual import mobilenetv2, resnet18

Shape = tuple[int, int, int]
"""(channels, height, width) of an image."""


def network(**layers: nn.Module) -> nn.Sequential:
    """Return the layers in order. Their names are the names of their tensors in ONNX files and fault lists."""
    return nn.Sequential(OrderedDict(layers))


def fcnn(shape: Shape, classes: int, bits: int, width: float = 1.0) -> nn.Sequential:
    """Fashion FCNN of the margin papers: FC2048 - BN - FC2048 - BN - FC10."""
    neurons = round(2048 * width)
    return network(
        flatten=nn.Flatten(),
        dense1=StoredLinear(prod(shape), neurons, bits),
        norm1=nn.BatchNorm1d(neurons),
        act1=activation(bits),
        dense2=StoredLinear(neurons, neurons, bits),
        norm2=nn.BatchNorm1d(neurons),
        act2=activation(bits),
        dense3=StoredLinear(neurons, classes, bits, head=True),
    )


def vgg3(shape: Shape, classes: int, bits: int, width: float = 1.0) -> nn.Sequential:
    """Fashion CNN of the margin papers: C64 - MP2 - BN - C64 - MP2 - BN - FC2048 - BN - FC10."""
    channels, neurons = round(64 * width), round(2048 * width)
    return network(
        conv1=StoredConv2d(shape[0], channels, bits),
        pool1=nn.MaxPool2d(2),
        norm1=nn.BatchNorm2d(channels),
        act1=activation(bits),
        conv2=StoredConv2d(channels, channels, bits),
        pool2=nn.MaxPool2d(2),
        norm2=nn.BatchNorm2d(channels),
        act2=activation(bits),
        flatten=nn.Flatten(),
        dense3=StoredLinear(channels * (shape[1] // 4) * (shape[2] // 4), neurons, bits),
        norm3=nn.BatchNorm1d(neurons),
        act3=activation(bits),
        dense4=StoredLinear(neurons, classes, bits, head=True),
    )


def vgg7(shape: Shape, classes: int, bits: int, width: float = 1.0) -> nn.Sequential:
    """CIFAR-10 CNN of the margin papers: C128 twice - MP2 - C256 twice - MP2 - C512 twice - MP2 - FC1024 - FC10, BN after each."""
    layers: dict[str, nn.Module] = {}
    inputs = shape[0]
    for number, (channels, pooled) in enumerate(((128, 0), (128, 1), (256, 0), (256, 1), (512, 0), (512, 1)), 1):
        outputs = round(channels * width)
        layers[f"conv{number}"] = StoredConv2d(inputs, outputs, bits)
        if pooled:
            layers[f"pool{number}"] = nn.MaxPool2d(2)
        layers[f"norm{number}"] = nn.BatchNorm2d(outputs)
        layers[f"act{number}"] = activation(bits)
        inputs = outputs
    neurons = round(1024 * width)
    return network(
        **layers,
        flatten=nn.Flatten(),
        dense7=StoredLinear(inputs * (shape[1] // 8) * (shape[2] // 8), neurons, bits),
        norm7=nn.BatchNorm1d(neurons),
        act7=activation(bits),
        dense8=StoredLinear(neurons, classes, bits, head=True),
    )


Architecture = Callable[[Shape, int, int, float], nn.Module]
ARCHITECTURES: dict[str, Architecture] = {
    "fcnn": fcnn,
    "vgg3": vgg3,
    "vgg7": vgg7,
    "mobilenetv2": mobilenetv2,
    "resnet18": resnet18,
}


def append_output_scale(network: nn.Module, start: float | str, bits: int) -> None:
    """Add a learnable output scale behind the last layer of one of the architectures.

    Args:
        network: Network whose modules run in their order.
        start: Value at the start; `papers` for those of MCEL's author (1e-3 for a BNN, 1e-5 for more bits), or `fan-in` for 1/√K,
            where K is the fan-in of the last layer.
        bits: Bits of a stored weight.
    """
    if start == "papers":
        start = 1e-3 if bits == 1 else 1e-5
    elif start == "fan-in":
        start = list_stored_layers(network)[-1][1].weight[0].numel() ** -0.5
    network.add_module("output_scale", OutputScale(float(start)))


def digits_bnn() -> nn.Sequential:
    """[N, 1, 8, 8] pixels 0..16 → [N, 10] integer logits: C32 - BN - C32 - MP2 - BN - FC96 - BN - FC10."""
    return network(
        conv1=StoredConv2d(1, 32),
        norm1=nn.BatchNorm2d(32),
        sign1=Sign(),
        conv2=StoredConv2d(32, 32),
        pool2=nn.MaxPool2d(2),
        norm2=nn.BatchNorm2d(32),
        sign2=Sign(),
        flatten=nn.Flatten(),
        dense3=StoredLinear(512, 96),
        norm3=nn.BatchNorm1d(96),
        sign3=Sign(),
        dense4=StoredLinear(96, 10),
    )


def digits_qnn() -> nn.Sequential:
    """[N, 1, 8, 8] pixels 0..16 → [N, 10] logits: C16 - MP2 - C32 - MP2 - FC64 - FC10 with ReLU, float until export."""
    return network(
        conv1=nn.Conv2d(1, 16, 3, padding=1),
        relu1=nn.ReLU(),
        pool1=nn.MaxPool2d(2),
        conv2=nn.Conv2d(16, 32, 3, padding=1),
        relu2=nn.ReLU(),
        pool2=nn.MaxPool2d(2),
        flatten=nn.Flatten(),
        dense3=nn.Linear(128, 64),
        relu3=nn.ReLU(),
        dense4=nn.Linear(64, 10),
    )


def fashion_bnn() -> nn.Sequential:
    """[N, 1, 28, 28] pixels 0..255 → [N, 10] integer logits: the papers' VGG3 with FC512 for its FC2048."""
    return network(
        conv1=StoredConv2d(1, 64),
        pool1=nn.MaxPool2d(2),
        norm1=nn.BatchNorm2d(64),
        sign1=Sign(),
        conv2=StoredConv2d(64, 64),
        pool2=nn.MaxPool2d(2),
        norm2=nn.BatchNorm2d(64),
        sign2=Sign(),
        flatten=nn.Flatten(),
        dense3=StoredLinear(3136, 512),
        norm3=nn.BatchNorm1d(512),
        sign3=Sign(),
        dense4=StoredLinear(512, 10),
    )
