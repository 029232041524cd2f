"""Import of ONNX files as integer networks: `load` is the only public function."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from weakcell.emulator.ir.network import Network

if TYPE_CHECKING:
    import onnx

__all__ = ["load"]


def load(
    source: str | os.PathLike[str] | onnx.ModelProto,
    *,
    integer_input: bool | None = None,
    shapes: Mapping[str, int] | None = None,
    like: Mapping[str, tuple[int, ...]] | None = None,
) -> Network:
    """Import an ONNX file as a network of integer layers.

    A network whose first layers have ±1 weights and read a float input directly takes integer codes (raw pixels) there. A
    run then demands integer data.

    Args:
        source: path of a file, or a model in memory.
        integer_input: False keeps that input float (normalized images): the first layers compute in float32 up to the first
            binarization. None uses the file's metadata `weakcell.integer_input`, or else decides as above.
        shapes: sizes of dimensions that the file leaves open, by name; the batch needs none.
        like: shapes of data by input ("x" for a sole input), from which open dimensions get their sizes.

    Raises:
        InputError: there is no such file, or `shapes` or `like` do not fit it.
        ModelError: the file cannot be imported; the message says what is wrong with it.
    """
    from weakcell.emulator.importer.lowering import load_model

    return load_model(source, integer_input, shapes, like)
