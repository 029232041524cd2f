"""Networks: shipped ones by name, ONNX files, ONNX models in memory, and networks that are imported already."""

from __future__ import annotations

import difflib
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import weakcell.emulator
from weakcell.emulator.ir.network import Network
from weakcell.host.digests import network_sha256
from weakcell.memmodels.errors import InputError, UsageError
from weakcell.memmodels.printable import printable_name

if TYPE_CHECKING:
    from onnx import ModelProto

ModelLike: TypeAlias = "str | PathLike[str] | ModelProto | Network"
"""What a caller may pass as a network."""

SHIPPED_FOLDER = Path(__file__).parents[1] / "shipped"

_SHIPPED = {
    "digits-bnn": ("digits_bnn.onnx", "digits"),
    "digits-qnn": ("digits_qnn.onnx", "digits"),
    "fashion-bnn": ("fashion_bnn.onnx", "fashion-mnist"),
}


@dataclass(frozen=True, eq=False)
class Model:
    """A network as it was given, before it is imported.

    Attributes:
        name: What results call it: the shipped name, the file's stem, or the graph's name.
        source: An ONNX file, an ONNX model in memory, or an imported network.
        data: The data set that a shipped network was trained on.
    """

    name: str
    source: Path | ModelProto | Network
    data: str | None = None

    @property
    def path(self) -> Path | None:
        """The ONNX file, None for a model in memory."""
        return self.source if isinstance(self.source, Path) else None

    @property
    def sha256(self) -> str:
        """Digest of the file's bytes, of the serialized model, or of the imported network. It excludes external weight files."""
        if isinstance(self.source, Network):
            return network_sha256(self.source)
        content = self.source.read_bytes() if isinstance(self.source, Path) else self.source.SerializeToString(deterministic=True)
        return hashlib.sha256(content).hexdigest()

    def load(
        self,
        *,
        integer_input: bool | None = None,
        shapes: Mapping[str, int] | None = None,
        like: Mapping[str, tuple[int, ...]] | None = None,
    ) -> Network:
        """Import the network; a network that is imported already is returned as it is.

        Args:
            integer_input: As for `weakcell.load`.
            shapes: Sizes of open dimensions, by name.
            like: Shapes of data by input, from which open dimensions get their sizes.
        """
        if isinstance(self.source, Network):
            return self.source
        return weakcell.emulator.load(self.source, integer_input=integer_input, shapes=shapes, like=like)


def shipped_models() -> tuple[str, ...]:
    """Return the names of the networks that come with Weakcell."""
    return tuple(_SHIPPED)


def find_model(model: ModelLike) -> Model:
    """Find the network that an argument names or holds.

    Args:
        model: A shipped name, the path of an ONNX file, an `onnx.ModelProto`, or a network from `weakcell.load`.

    Raises:
        InputError: A name is neither shipped nor a file.
        UsageError: The argument is something else.
    """
    if isinstance(model, Network):
        return Model(model.name, model)
    if not isinstance(model, str | PathLike):
        from onnx import ModelProto

        if not isinstance(model, ModelProto):
            found = f"it is a {type(model).__name__}"
            raise UsageError("The network", found, "Give a name, the path of an ONNX file, an onnx.ModelProto or a loaded network")
        return Model(model.graph.name or "model", model)
    text = str(model)
    if text in _SHIPPED:
        file, data = _SHIPPED[text]
        return Model(text, SHIPPED_FOLDER / file, data)
    path = Path(model)
    if os.path.isfile(path):
        return Model(printable_name(path.stem), path)
    found = "it is a folder" if os.path.isdir(path) else "there is no such file"
    near = difflib.get_close_matches(text, _SHIPPED, n=1)
    hint = f"Perhaps {near[0]} is meant" if near else f"Name an ONNX file, or one of {', '.join(_SHIPPED)}"
    raise InputError(f"Model {text}", found, hint)
