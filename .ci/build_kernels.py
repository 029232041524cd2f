"""Build hook: the package brings machine code of kernels, so that the first run need not compile them.

`pip install .` and `pip install -e .` compile for the processor of this machine: first what the shipped networks need, then others
until a minute is over. An editable installation finds the code in the checkout. For releases, WEAKCELL_BUILD_TARGETS=common
compiles all kernels for `COMMON_TARGETS` instead. WEAKCELL_BUILD_KERNELS=0, and a build without Numba, leave all of it out.
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

MOST_SECONDS = 900
"""Seconds after which the build goes on with the machine code that is there, on a busy machine."""

CODE = "memmodels/native/code"


class KernelHook(BuildHookInterface):  # type: ignore[type-arg]
    """Compiles kernels and puts their object files into the wheel, or into the checkout of an editable installation."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile kernels for this machine, or for the common targets."""
        most = os.environ.get("WEAKCELL_BUILD_KERNELS", "1000")
        if most == "0":
            return
        common = os.environ.get("WEAKCELL_BUILD_TARGETS") == "common"
        self.folder = Path(tempfile.mkdtemp(prefix="weakcell-kernels-"))
        script, packages = (Path(self.root) / name for name in (".ci/compile_kernels.py", ".packages"))
        command = [sys.executable, script, packages, self.folder, "common" if common else "host", most]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=common, timeout=None if common else MOST_SECONDS)
            if done.returncode:
                self.app.display_warning(f"Some kernels are compiled at the first run: {done.stderr.strip().splitlines()[-1]}")
        except subprocess.TimeoutExpired:
            self.app.display_warning(f"Some kernels are compiled at the first run: {MOST_SECONDS} s are over")
        files = [file for file in self.folder.rglob("*") if file.is_file()]
        self.app.display_info(f"Machine code of {sum('-' in file.name for file in files)} kernels comes with the package")
        if version == "editable":
            shutil.rmtree(Path(self.root) / CODE, ignore_errors=True)
            shutil.copytree(self.folder, Path(self.root) / CODE)
        elif files:
            build_data["pure_python"], build_data["infer_tag"] = False, not common
            if common:
                build_data["tag"] = "py3-none-manylinux_2_17_x86_64"  # kernels call nothing newer of the C library
            build_data["force_include"].update({str(f): f"weakcell/{CODE}/{f.relative_to(self.folder)}" for f in files})

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove the object files, which are in the wheel now."""
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder, ignore_errors=True)
