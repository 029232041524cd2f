"""Download the files that data sets are published in, and check them against their published checksums."""

from __future__ import annotations

import hashlib
import http.client
import os
import tarfile
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import BinaryIO

from weakcell.memmodels.atomic_files import create_folder, write_atomically
from weakcell.memmodels.errors import InputError, OutputError, UsageError
from weakcell.memmodels.files import reason

_CHUNK = 1 << 18
_FASHION = "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion"
_SVHN = "http://ufldl.stanford.edu/housenumbers"
OnBytes = Callable[[int, int | None], None]
"""Called as bytes arrive, with those received and those in all (None if the server does not say)."""


@dataclass(frozen=True)
class Source:
    """A published file.

    Attributes:
        url: Where it is.
        md5: Its checksum as published.
        archive: Whether it is unpacked.
    """

    url: str
    md5: str
    archive: bool = False

    @property
    def name(self) -> str:
        """The file's name."""
        return self.url.rsplit("/", 1)[1]


SOURCES: dict[str, tuple[Source, ...]] = {
    "fashion-mnist": (
        Source(f"{_FASHION}/train-images-idx3-ubyte.gz", "8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
        Source(f"{_FASHION}/train-labels-idx1-ubyte.gz", "25c81989df183df01b3e8a0aad5dffbe"),
        Source(f"{_FASHION}/t10k-images-idx3-ubyte.gz", "bef4ecab320f06d8554ea6380940ec79"),
        Source(f"{_FASHION}/t10k-labels-idx1-ubyte.gz", "bb300cfdad3c16e7a12a480ee83cd310"),
    ),
    "cifar-10": (
        Source("https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz", "c58f30108f718f92721af3b95e74349a", archive=True),
    ),
    "svhn": (
        Source(f"{_SVHN}/train_32x32.mat", "e26dedcc434d2e4c54c9b2d4a06d8373"),
        Source(f"{_SVHN}/test_32x32.mat", "eb5a983be6a315427106f1b164d9cef3"),
    ),
    "imagenette": (
        Source("https://s3.amazonaws.com/fast-ai-imageclas/imagenette2-320.tgz", "3df6f0d01a2c9592104656642f5e78a3", archive=True),
    ),
}


def download(
    name: str, folder: Path, on_source: Callable[[Source], OnBytes], sources: tuple[Source, ...] | None = None
) -> list[Path]:
    """Download the files of a data set that a folder lacks, and unpack archives.

    Args:
        name: The data set.
        folder: Where the files go; it is made if it is not there.
        on_source: Called for each file that is downloaded; returns the function to call as its bytes arrive.
        sources: The files, instead of those of `SOURCES`.

    Returns:
        The paths of all files.

    Raises:
        UsageError: No source is known for the data set.
        InputError: A server does not answer, or its bytes are not those published.
    """
    known = sources if sources is not None else _find_sources(name)
    create_folder(folder)
    paths = []
    for source in known:
        path = folder / source.name
        if not _is_there(source, folder):
            _fetch(source, path, on_source(source))
        if source.archive:
            _unpack(path)
        paths.append(path)
    return paths


def list_missing(name: str, folder: Path) -> list[Source]:
    """Return the files of a data set that a folder lacks. UsageError if no source is known for the data set."""
    return [source for source in _find_sources(name) if not _is_there(source, folder)]


def _find_sources(name: str) -> tuple[Source, ...]:
    if name in SOURCES:
        return SOURCES[name]
    near = get_close_matches(name.lower(), SOURCES, n=1, cutoff=0.4)
    hint = f"Did you mean {near[0]}? " if near else ""
    raise UsageError(f"Downloading {name}", "no source is known for it", f"{hint}Known: {', '.join(SOURCES)}")


def _is_there(source: Source, folder: Path) -> bool:
    path = folder / source.name
    return os.path.isfile(path) and _md5(path) == source.md5


def _fetch(source: Source, path: Path, on_bytes: OnBytes) -> None:
    def write(file: BinaryIO) -> None:
        digest = hashlib.md5(usedforsecurity=False)
        try:
            request = urllib.request.Request(source.url, headers={"User-Agent": "weakcell"})
            with urllib.request.urlopen(request, timeout=30) as answer:
                length = answer.headers.get("Content-Length")
                total, received = int(length) if length else None, 0
                while chunk := answer.read(_CHUNK):
                    file.write(chunk)
                    digest.update(chunk)
                    received += len(chunk)
                    on_bytes(received, total)
        except (urllib.error.URLError, TimeoutError, ConnectionError, http.client.HTTPException) as error:
            found = str(getattr(error, "reason", error))
            do = f"Check the network, or put the file into {path.parent}"
            raise InputError(f"Downloading {source.url}", found, do) from error
        if (found := digest.hexdigest()) != source.md5:
            raise InputError(f"Downloading {source.url}", f"its MD5 is {found}, not {source.md5}", "Try again, or fetch it by hand")

    write_atomically(path, write)


def _unpack(path: Path) -> None:
    """Unpack an archive into its own folder; entries that lie elsewhere are refused."""
    try:
        with tarfile.open(path) as archive:
            archive.extractall(path.parent, filter="data")
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise InputError(f"Unpacking {path}", reason(error), "Remove it and download it again") from error
    except OSError as error:
        raise OutputError(f"Unpacking {path}", reason(error), "Choose a place that can be written and has room") from error


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()
