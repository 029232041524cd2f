"""Checksums of published data sets, compared when a file is read: anybody may have changed it since it was fetched.

A file of one's own under a published name stays usable. A warning says that it is another one; the identity of results holds the
digest of the images in any case.
"""

from __future__ import annotations

import gzip
import hashlib
import logging
import os
from functools import cache
from pathlib import Path

from weakcell.memmodels.cached_code import load_code, save_code
from weakcell.memmodels.printable import printable_name

log = logging.getLogger(__name__)

_MD5 = {
    "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
    "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
    "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
    "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
    "train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
    "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
}
"""Published files by name, without `.gz`: the MD5 of what they hold. Archives of many files are compared when they are fetched."""


@cache
def warn_of_other_file(file: Path) -> None:
    """Warn once if a file with the name of a published one is another one."""
    published = _MD5.get(file.name.removesuffix(".gz"))
    if published is not None and (found := find_md5(file)) not in (None, published):
        log.warning(
            "%s is not the published file of that name: its MD5 is %s, not %s. It is used as it is.",
            printable_name(str(file)), found, published,
        )  # fmt: skip


def find_md5(file: Path) -> str | None:
    """Return the MD5 of what a file holds, unpacked; None if it cannot be read.

    The user's cache keeps it with inode, size and times of the file, so that an unchanged file is read once.
    """
    try:
        status = os.stat(file)
        stamp = f"{status.st_dev} {status.st_ino} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"
        name = hashlib.sha256(os.fsencode(file.resolve())).hexdigest()[:32]
        known = (load_code("checksums", name) or b"").decode().rpartition(" ")
        if known[0] == stamp:
            return known[2]
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as opened:
            digest = hashlib.md5(usedforsecurity=False)
            while part := opened.read(1 << 20):
                digest.update(part)
    except (OSError, EOFError, ValueError):
        return None
    save_code("checksums", name, f"{stamp} {digest.hexdigest()}".encode())
    return digest.hexdigest()
