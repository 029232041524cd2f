"""Compile kernels of `known_kernels.txt`, and write them as the package has them: a folder for each target.

python compile_kernels.py PACKAGES FOLDER TARGETS MOST

PACKAGES: the folder that has `weakcell`. TARGETS: `host`, or `common` for all of `COMMON_TARGETS`. MOST: how many kernels at most.
For the host, those of the shipped networks are always compiled, the others until a minute is over. What the user's cache already
has is taken from there.
"""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import wait
from pathlib import Path
from time import monotonic

HOST_SECONDS = 60
FIRST = ("binary", "4 bits")
"""Sections of the list that shipped networks need."""


def compile_common(packages: str, folder: Path, most: int) -> None:
    """Compile kernels for each common target, in a process whose Numba compiles for that target."""
    from weakcell.memmodels.native.installed_code import COMMON_TARGETS

    for label, (cpu, features) in COMMON_TARGETS.items():
        target = {"NUMBA_CPU_NAME": cpu, "NUMBA_CPU_FEATURES": ",".join(f"+{feature}" for feature in features)}
        command = [sys.executable, __file__, packages, folder, label, str(most)]
        subprocess.run(command, env={**os.environ, **target}, check=True)


def compile_kernels(folder: Path, most: int, seconds: float | None) -> None:
    """Compile at most so many kernels for the target of this process.

    seconds: after which only kernels of shipped networks are waited for.
    """
    from weakcell.memmodels.cached_code import load_code
    from weakcell.memmodels.native.code_names import name_cached_code
    from weakcell.memmodels.native.installed_code import find_target, load_installed_kernel, write_kernel, write_target
    from weakcell.memmodels.native.kernel_cache import prepare_kernels
    from weakcell.memmodels.native.known_kernels import all_kernels, read_sections

    begin = monotonic()
    first = list(dict.fromkeys(kernel for name in FIRST for kernel in read_sections()[name]))[:most]
    others = [kernel for kernel in all_kernels() if kernel not in first][: most - len(first)]
    errors: list[BaseException] = []
    write_target(folder, find_target())
    for kernels, limit in (first, None), (others, seconds):
        tasks = {task.name: task.result for task in prepare_kernels(kernels)}
        for kernel in kernels:
            name = name_cached_code(*kernel)
            if name in tasks:
                done, _ = wait([tasks[name]], None if limit is None else max(0.0, begin + limit - monotonic()))
                errors += [error for result in done if (error := result.exception()) is not None]
            code = load_code("kernels", name) or load_installed_kernel(*kernel)
            if code is not None:
                write_kernel(folder, *kernel, code)  # at once: the build may be cut off
    if errors:
        sys.exit(str(errors[0]))


if __name__ == "__main__":
    path, where, what, number = sys.argv[1:]
    sys.path.insert(0, path)
    if what == "common":
        compile_common(path, Path(where), int(number))
    else:
        compile_kernels(Path(where) / what, int(number), HOST_SECONDS if what == "host" else None)
