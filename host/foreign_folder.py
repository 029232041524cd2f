"""Keep files of the current folder, which may be anybody's, from running code or changing how code is compiled.

Numba takes settings from a file in the current folder, and looks for it again whenever it compiles. Matplotlib takes settings from
such a file, too: they can start LaTeX. Python looks for modules in the current folder when it starts a process with `-c` or `-m`,
as `multiprocessing` does.
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
_PLOT_SETTINGS = "matplotlibrc"


def distrust_current_folder() -> None:
    """Let this process use no module and no settings of Numba or Matplotlib from the current folder, and its children no module."""
    os.environ["PYTHONSAFEPATH"] = "1"
    if not any(isinstance(finder, _SettingsFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _SettingsFinder())


class _SettingsFinder:
    """Finds the modules in which Numba and Matplotlib read their settings."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Return the specification of one of those modules, None for others."""
        kind = _LOADERS.get(fullname)
        spec = PathFinder.find_spec(fullname, path, target) if kind is not None else None
        if kind is not None and spec is not None and spec.loader is not None:
            spec.loader = kind(spec.loader)  # type: ignore[assignment]  # its base class takes long to import
        return spec


class _Loader:
    """Loads a module with a look at the settings that it reads."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Return what the usual loader makes."""
        return self._loader.create_module(spec)


class _NumbaLoader(_Loader):
    """Loads the settings of Numba from the environment only."""

    def exec_module(self, module: ModuleType) -> None:
        """Run the module; UsageError if it would find a file of settings."""
        if os.path.lexists(SETTINGS):
            found = f"the folder has a file {SETTINGS}. Numba would take settings from it, and so compile as whoever wrote it wants"
            do = "Start in another folder, or give settings as environment variables (NUMBA_…)"
            raise UsageError(f"Compiling machine code in {os.getcwd()}", found, do)
        self._loader.exec_module(module)
        module._config_fname = ""  # type: ignore[attr-defined]  # Numba does not look for the file again


class _MatplotlibLoader(_Loader):
    """Loads Matplotlib with the settings of this user only. It draws into files, so that no backend is looked for."""

    def exec_module(self, module: ModuleType) -> None:
        """Run the module as if the current folder had no file of settings."""
        exists = os.path.exists
        os.environ["MPLBACKEND"] = "agg"
        os.path.exists = lambda path: path != _PLOT_SETTINGS and exists(path)  # another thread gets the same answers from it
        try:
            self._loader.exec_module(module)
        finally:
            os.path.exists = exists


_LOADERS: dict[str, type[_NumbaLoader | _MatplotlibLoader]] = {"numba.core.config": _NumbaLoader, "matplotlib": _MatplotlibLoader}
