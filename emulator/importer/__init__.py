"""ONNX files into networks: `load`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from weakcell.emulator.ir.layers import Network

if TYPE_CHECKING:
    import onnx

__all__ = ["load"]


def load(source: str | os.PathLike[str] | onnx.ModelProto, *, integer_input: bool | None = None) -> Network:
    """The network of an ONNX file (or of a model in memory), as integer layers; `ModelError` says what is wrong with it.

    A network whose first layers have ±1 weights and read a float input directly takes integer codes (raw pixels) there, and
    a run demands integer data. `integer_input=False`, or the file's metadata `weakcell.integer_input=false`, keeps that
    input float (normalized images): its first layers then compute in float32 up to the first binarization.
    """
    from weakcell.emulator.importer.lowering import load_model

    return load_model(source, integer_input)
