"""Image folders: one folder per class, as Imagenette has (https://github.com/fastai/imagenette)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from weakcell.memmodels.errors import InputError

_SUFFIXES = {".jpeg", ".jpg", ".png"}


def read_image_folder(path: Path, size: int = 224) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Images (n, 3, size, size) uint8 and labels (n,): classes are the subfolders in alphabetical order.

    Each image is scaled so that its shorter side is `size` (bilinear, with antialiasing), and its middle is taken.
    """
    from PIL import Image, UnidentifiedImageError

    classes = sorted(folder for folder in path.iterdir() if folder.is_dir()) if path.is_dir() else []
    files = [
        (file, number)
        for number, folder in enumerate(classes)
        for file in sorted(folder.iterdir())
        if file.suffix.lower() in _SUFFIXES
    ]
    if not files or len(classes) > 256:
        found = f"it has {len(classes)} subfolders and {len(files)} images"
        raise InputError(f"Reading {path} as an image folder", found, "Bring one subfolder per class, of JPEG or PNG files")
    images = np.empty((len(files), 3, size, size), np.uint8)
    for place, (file, _) in enumerate(files):
        try:
            with Image.open(file) as image:
                images[place] = _middle(image.convert("RGB"), size).transpose(2, 0, 1)
        except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
            raise InputError(f"Reading {file}", str(error).splitlines()[0], "Remove or replace that image") from error
    return images, np.array([number for _, number in files], np.uint8)


def _middle(image, size: int) -> npt.NDArray[np.uint8]:  # type: ignore[no-untyped-def]
    from PIL import Image

    width, height = image.size
    scale = size / min(width, height)
    wide, high = max(size, round(width * scale)), max(size, round(height * scale))
    scaled = image if (wide, high) == image.size else image.resize((wide, high), Image.Resampling.BILINEAR)
    left, top = (wide - size) // 2, (high - size) // 2
    return np.asarray(scaled.crop((left, top, left + size, top + size)), dtype=np.uint8)
