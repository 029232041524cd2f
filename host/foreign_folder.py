"""Keep files of the current folder, which may be anybody's, from running code or changing how code is compiled.

Numba takes settings from a file in the current folder, and looks for it again whenever it compiles. Python looks for modules in the
current folder when it starts a process with `-c` or `-m`, as `multiprocessing` does.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import TYPE_CHECKING

from weakcell.memmodels.errors import UsageError

if TYPE_CHECKING:
    from importlib.abc import Loader

SETTINGS = ".numba_config.yaml"
_MODULE = "numba.core.config"


def distrust_current_folder() -> None:
    """Let this process and its children use no module and no settings of Numba from the current folder."""
    os.environ["PYTHONSAFEPATH"] = "1"
    if not any(isinstance(finder, _SettingsFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _SettingsFinder())


class _SettingsFinder:
    """Finds the module in which Numba reads its settings."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Return the specification of that module, None for others."""
        spec = PathFinder.find_spec(fullname, path, target) if fullname == _MODULE else None
        if spec is not None and spec.loader is not None:
            spec.loader = _SettingsLoader(spec.loader)  # type: ignore[assignment]  # its base class takes long to import
        return spec


class _SettingsLoader:
    """Loads the settings of Numba from the environment only."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Return what the usual loader makes."""
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Run the module; UsageError if it would find a file of settings."""
        if os.path.lexists(SETTINGS):
            found = f"the folder has a file {SETTINGS}. Numba would take settings from it, and so compile as whoever wrote it wants"
            do = "Start in another folder, or give settings as environment variables (NUMBA_…)"
            raise UsageError(f"Compiling machine code in {os.getcwd()}", found, do)
        self._loader.exec_module(module)
        module._config_fname = ""  # type: ignore[attr-defined]  # Numba does not look for the file again
