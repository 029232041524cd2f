"""Build hook: a wheel that is built where it is used holds machine code of kernels, so that the first run need not compile them.

`pip install .` compiles for the processor of this machine, for at most a minute. Other processors, and other versions of Python,
NumPy, Numba or llvmlite, do not find this code under the names that they look for, and compile their own. Without Numba, and with
WEAKCELL_BUILD_KERNELS=0, the wheel is pure Python.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

MOST_SECONDS = 60

_COMPILE = """
import sys
sys.path.insert(0, sys.argv[1])
from weakcell.memmodels.native.kernel_cache import prepare_kernels, wait_for_kernels
from weakcell.memmodels.native.known_kernels import all_kernels
wait_for_kernels(prepare_kernels(all_kernels()[: int(sys.argv[2])]))
"""


class KernelHook(BuildHookInterface):  # type: ignore[type-arg]
    """Compiles kernels and puts their object files into the wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile kernels of the list, the first ones first, until the time is over."""
        most = int(os.environ.get("WEAKCELL_BUILD_KERNELS", "1000"))
        if version != "standard" or most == 0:  # an editable installation has no place for them
            return
        self.folder = Path(tempfile.mkdtemp(prefix="weakcell-kernels-"))
        environment = {**os.environ, "NUMBA_CACHE_DIR": str(self.folder)}
        command = [sys.executable, "-c", _COMPILE, str(Path(self.root) / ".packages"), str(most)]
        try:
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=MOST_SECONDS)
            if done.returncode:
                self.app.display_warning(f"Kernels are compiled at the first run: {done.stderr.strip().splitlines()[-1]}")
        except subprocess.TimeoutExpired:
            self.app.display_info(f"Some kernels are compiled at the first run: {MOST_SECONDS} s are over")
        files = list(self.folder.glob("kernels/[!.]*"))
        self.app.display_info(f"Machine code of {len(files)} kernels is in the wheel")
        if files:
            build_data["pure_python"], build_data["infer_tag"] = False, True
            build_data["force_include"].update({str(file): f"weakcell/memmodels/native/code/{file.name}" for file in files})

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove the object files, which are in the wheel now."""
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder, ignore_errors=True)
