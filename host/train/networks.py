"""The networks we train. All take raw integer pixels as float32, so a binarized net's accumulators are exact integers."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from host.train.layers import BinaryConv2d, BinaryLinear, Sign


def network(**layers: nn.Module) -> nn.Sequential:
    """The layers in order, under the names that their tensors carry in the ONNX file and in fault lists."""
    return nn.Sequential(OrderedDict(layers))


def digits_bnn() -> nn.Sequential:
    """[N, 1, 8, 8] pixels 0..16 → [N, 10] integer logits: C32 - BN - C32 - MP2 - BN - FC96 - BN - FC10."""
    return network(
        conv1=BinaryConv2d(1, 32),
        norm1=nn.BatchNorm2d(32),
        sign1=Sign(),
        conv2=BinaryConv2d(32, 32),
        pool2=nn.MaxPool2d(2),
        norm2=nn.BatchNorm2d(32),
        sign2=Sign(),
        flatten=nn.Flatten(),
        dense3=BinaryLinear(512, 96),
        norm3=nn.BatchNorm1d(96),
        sign3=Sign(),
        dense4=BinaryLinear(96, 10),
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
        conv1=BinaryConv2d(1, 64),
        pool1=nn.MaxPool2d(2),
        norm1=nn.BatchNorm2d(64),
        sign1=Sign(),
        conv2=BinaryConv2d(64, 64),
        pool2=nn.MaxPool2d(2),
        norm2=nn.BatchNorm2d(64),
        sign2=Sign(),
        flatten=nn.Flatten(),
        dense3=BinaryLinear(3136, 512),
        norm3=nn.BatchNorm1d(512),
        sign3=Sign(),
        dense4=BinaryLinear(512, 10),
    )
