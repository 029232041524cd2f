"""Files of the current folder run no code and change no machine code. The oracle is Python and Numba: what they import and read."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from weakcell.memmodels.native import compilers

_MODULES = ("signal", "enum", "multiprocessing", "subprocess", "pickle", "numpy", "numba", "yaml", "polars", "weakcell")
_CAMPAIGN = """\
trials = 1
[[network]]
model = "digits-bnn"
images = 3
[[memory]]
spec = "uniform:ber=0.01"
"""


@pytest.fixture
def foreign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with modules that leave a mark, and with settings of Numba."""
    folder = tmp_path / "foreign"
    folder.mkdir()
    for name in _MODULES:
        (folder / f"{name}.py").write_text(f"open({str(tmp_path / 'mark')!r}, 'a').write({name!r})\nraise SystemExit(99)\n")
    (folder / ".numba_config.yaml").write_text("boundscheck: 1\nopt: 1\n")
    (folder / "c.toml").write_text(_CAMPAIGN)
    monkeypatch.chdir(folder)
    return folder


def _run(script: Path, text: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a script of another folder, as a console script is run."""
    script.parent.mkdir(exist_ok=True)
    script.write_text(text)
    return subprocess.run([sys.executable, str(script), *arguments], capture_output=True, text=True, check=False, timeout=900)


def test_a_command_and_its_workers_use_no_module_of_the_folder(foreign: Path, tmp_path: Path) -> None:
    text = "from weakcell.host.cli import main\nif __name__ == '__main__':\n    main()\n"
    done = _run(tmp_path / "bin" / "run.py", text, "sweep", "c.toml", "--out", "out", "--processes", "1", "--quiet")
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "mark").exists(), (tmp_path / "mark").read_text()


def test_compilers_use_nothing_of_the_folder(foreign: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = "import signal, sys; sys.path[:] = {path!r}; from numba.core import config; print(config.BOUNDSCHECK, int(config.OPT))"
    monkeypatch.setattr(compilers, "_START", asked)
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    pool = compilers.CompilerPool(lambda name, code: None)
    process = pool._start()
    assert process is not None
    said, _ = process.communicate(timeout=120)
    assert said.split() == [b"None", b"3"]
    assert not (tmp_path / "mark").exists()


def test_settings_of_the_folder_are_refused_and_never_read(foreign: Path, tmp_path: Path) -> None:
    text = """\
import os
from pathlib import Path
from weakcell.host.foreign_folder import SETTINGS, distrust_current_folder
from weakcell.memmodels.errors import UsageError

distrust_current_folder()
settings = Path(SETTINGS).read_text()
try:
    import numba
except UsageError as error:
    assert SETTINGS in str(error), error
else:
    raise AssertionError("Numba is imported")
Path(SETTINGS).unlink()
from numba.core import config

Path(SETTINGS).write_text(settings)
config.reload_config()
assert config.BOUNDSCHECK is None, config.BOUNDSCHECK
"""
    for name in _MODULES:
        (foreign / f"{name}.py").unlink()
    done = _run(tmp_path / "bin" / "run.py", text)
    assert done.returncode == 0, done.stderr


def test_matplotlib_takes_no_settings_of_the_folder(foreign: Path, tmp_path: Path) -> None:
    """They could start LaTeX on the names of a stranger's network. Alone, Matplotlib reads them."""
    (foreign / "matplotlibrc").write_text("text.usetex: True\nfont.size: 3\n")
    look = "import matplotlib; print(matplotlib.rcParams['text.usetex'], matplotlib.rcParams['font.size'])"
    distrust = "from weakcell.host.foreign_folder import distrust_current_folder as d; d()\n"
    for name in _MODULES:
        (foreign / f"{name}.py").unlink()
    assert _run(tmp_path / "bin" / "run.py", look).stdout.split() == ["True", "3.0"]
    assert _run(tmp_path / "bin" / "run.py", distrust + look).stdout.split() == ["False", "10.0"]


def test_figures_never_start_latex() -> None:
    import matplotlib as mpl

    from weakcell.host.report.matplotlib_charts import apply_style
    from weakcell.host.report.style import PAPER_STYLE, STUDY_STYLE, STYLE

    with mpl.rc_context({"text.usetex": True}):
        for style in (STYLE, PAPER_STYLE, STUDY_STYLE):
            with apply_style(style):
                assert not mpl.rcParams["text.usetex"]
