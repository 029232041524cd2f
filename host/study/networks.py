"""Networks by name: those that come with Weakcell, or any ONNX file."""

from __future__ import annotations

import difflib
import hashlib
from dataclasses import dataclass
from pathlib import Path

from weakcell.memmodels.errors import InputError

SHIPPED_FOLDER = Path(__file__).parents[1] / "shipped"

_SHIPPED = {
    "digits-bnn": ("digits_bnn.onnx", "digits"),
    "digits-qnn": ("digits_qnn.onnx", "digits"),
    "fashion-bnn": ("fashion_bnn.onnx", "fashion-mnist"),
}


@dataclass(frozen=True)
class Model:
    """An ONNX file and the name it goes by; `data` is the data set it was trained on, if it is one of ours."""

    name: str
    path: Path
    data: str | None = None

    @property
    def sha256(self) -> str:
        """Of the file's bytes (weights kept in external files are not in it)."""
        return hashlib.sha256(self.path.read_bytes()).hexdigest()


def shipped_models() -> tuple[str, ...]:
    """The names of the networks that come with Weakcell."""
    return tuple(_SHIPPED)


def find_model(name_or_path: str | Path) -> Model:
    """A shipped network by name, or the file at that path; InputError if it is neither."""
    text = str(name_or_path)
    if text in _SHIPPED:
        file, data = _SHIPPED[text]
        return Model(text, SHIPPED_FOLDER / file, data)
    path = Path(name_or_path)
    if path.is_file():
        return Model(path.stem, path)
    found = "it is a folder" if path.is_dir() else "there is no such file"
    near = difflib.get_close_matches(text, _SHIPPED, n=1)
    hint = f"Perhaps {near[0]} is meant" if near else f"Name an ONNX file, or one of {', '.join(_SHIPPED)}"
    raise InputError(f"Model {text}", found, hint)
