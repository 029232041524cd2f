"""Packaging: what wheel, source archive and editable install bring, each installed into a fresh environment without network.

Oracles: the tracked files of the repository, and pip.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from functools import partial
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path

import pytest

import weakcell
from weakcell.memmodels.native import installed_code
from weakcell.memmodels.native.installed_code import find_target, write_target
from weakcell.memmodels.native.known_kernels import read_sections

ROOT = Path(__file__).parents[1]
MOST_BYTES = 2_000_000
"""Bytes of the wheel."""
SHIPPED_NETWORK = len(set(read_sections()["binary"]))
"""Kernels that `weakcell emulate` needs."""


def _has_pip() -> bool:
    """Return whether pip is installed. `find_spec("pip")` would switch off setuptools' own distutils for the whole process."""
    try:
        distribution("pip")
    except PackageNotFoundError:
        return False
    return True


pytestmark = [
    pytest.mark.skipif(not find_spec("hatchling"), reason="hatchling, which builds the package, is not installed"),
    pytest.mark.skipif(not _has_pip(), reason="pip is not installed"),
]


def _run(*command: str | Path, cwd: Path = ROOT, kernels: int = 0, **variables: str) -> str:
    """Run a command; kernels: how many kernels a wheel may hold as machine code."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"WEAKCELL_BUILD_KERNELS": str(kernels), **variables}
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, cwd=cwd, env=environment)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


class Environment:
    """A fresh environment that sees the dependencies of this one, but not its Weakcell."""

    def __init__(self, folder: Path) -> None:
        venv.EnvBuilder(symlinks=True).create(folder)
        self.python = folder / "bin" / "python"
        self.site_packages = Path(_run(self.python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
        # Python searches a path of a .pth file, but does not read the .pth files in it: an editable Weakcell there stays unseen.
        packages = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
        (self.site_packages / "dependencies.pth").write_text("\n".join(packages) + "\n")

    def install(self, *what: str | Path) -> None:
        """Install without dependencies, index or isolated build."""
        options = ("--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--no-compile", "--force-reinstall")
        _run(sys.executable, "-m", "pip", "--python", self.python, "install", *options, *what)

    def installed(self) -> set[str]:
        """Return the files below site-packages that the installation brought."""
        files = (path.relative_to(self.site_packages) for path in self.site_packages.rglob("*") if path.is_file())
        return {str(file) for file in files if file.name not in ("dependencies.pth", "direct_url.json", "RECORD", "REQUESTED")}

    def check_beside_foreign_modules(self, folder: Path) -> None:
        """Run the command line where `host.py` and `emulator/` of somebody else lie: they must not be imported."""
        (folder / "emulator").mkdir()
        for name in ("host.py", "memmodels.py", "emulator/__init__.py"):
            (folder / name).write_text("raise SystemExit('the file of somebody else was imported')\n")
        expected = f"weakcell {weakcell.__version__}"
        assert _run(self.python, "-m", "weakcell", "--version", cwd=folder).strip() == expected
        assert _run(self.python.with_name("weakcell"), "--version", cwd=folder).strip() == expected
        lines = "import weakcell.emulator, weakcell.memmodels, weakcell.host; print(weakcell.__file__)"
        assert Path(_run(self.python, "-c", lines, cwd=folder).strip()).name == "__init__.py"


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The wheel and the source archive of this checkout."""
    folder = tmp_path_factory.mktemp("dist")
    _run(sys.executable, "-m", "hatchling", "build", "--directory", folder)
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return wheel, sdist


@pytest.fixture(scope="module")
def from_wheel(archives: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Environment:
    environment = Environment(tmp_path_factory.mktemp("from_wheel"))
    environment.install(archives[0])
    return environment


def test_wheel_holds_the_package_and_nothing_else(archives: tuple[Path, Path]) -> None:
    names = zipfile.ZipFile(archives[0]).namelist()
    assert {name.split("/")[0] for name in names} == {"weakcell", f"weakcell-{weakcell.__version__}.dist-info"}
    assert {"weakcell/__init__.py", "weakcell/__main__.py", "weakcell/py.typed"} <= set(names)
    folders = {part for name in names for part in Path(name).parts[:-1]}
    assert not folders & {"tests", "benchmarks", "results", "train_findings", ".github"}
    assert not [name for name in names if Path(name).suffix in (".png", ".svg", ".pdf", ".ipynb")]
    assert {name for name in names if name.endswith(".md")} <= {
        "weakcell/memmodels/TRUST.md",  # messages name it
        "weakcell/host/shipped/README.md",  # states the licence of the digits
    }
    size = archives[0].stat().st_size
    print(f"wheel: {size:,} bytes, {len(names)} files")
    assert size <= MOST_BYTES


def test_wheel_holds_every_module_and_data_file(archives: tuple[Path, Path]) -> None:
    """The wheel has all tracked files of the three packages but their Markdown."""
    command = ["git", "-C", str(ROOT), "ls-files", "emulator", "memmodels", "host"]
    listing = subprocess.run(command, capture_output=True, text=True, check=False)
    if listing.returncode or not listing.stdout:
        pytest.skip("not a git checkout")
    tracked = {name for name in listing.stdout.splitlines() if not name.endswith(".md") and (ROOT / name).is_file()}
    names = {name.removeprefix("weakcell/") for name in zipfile.ZipFile(archives[0]).namelist()}
    assert tracked <= names


def test_installed_machine_code_is_used_by_any_version_of_the_compilers(tmp_path: Path) -> None:
    """A run from an empty cache compiles nothing, unless an installed file is damaged or the CPU lacks a feature."""
    _run(sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", tmp_path, kernels=SHIPPED_NETWORK)
    (wheel,) = tmp_path.glob("*.whl")
    assert not wheel.name.endswith("-none-any.whl")
    environment = Environment(tmp_path / "environment")
    environment.install(wheel)
    cache = tmp_path / "cache"
    lines = (
        "from weakcell.memmodels import source_digest\n"
        "from weakcell.memmodels.native import kernel_cache, known_kernels\n"
        "source_digest._list_versions = lambda: ('other versions',)\n"
        "print(len(kernel_cache.prepare_kernels(known_kernels.read_sections()['binary'])))"
    )
    missing = partial(_run, environment.python, "-c", lines, cwd=tmp_path, NUMBA_CACHE_DIR=str(cache))
    _run(environment.python, "-m", "weakcell", "emulate", "--trials", "1", cwd=tmp_path, NUMBA_CACHE_DIR=str(cache))
    assert not list(cache.glob("kernels/*"))
    assert missing().strip() == "0"
    assert missing(NUMBA_OPT="2").strip() == str(SHIPPED_NETWORK)
    target, *_ = (environment.site_packages / "weakcell/memmodels/native/code").glob("*/target.json")
    file = next(file for file in target.parent.iterdir() if file != target)
    file.write_bytes(file.read_bytes()[:-1])
    assert missing().strip() == "1"
    write_target(target.parent, find_target()._replace(features=("a-feature-of-the-future",)))
    assert missing().strip() == str(SHIPPED_NETWORK)


def test_code_for_the_cpu_is_preferred_and_unusable_code_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Among targets, that of this CPU comes first, then the one with most of its features."""
    here = find_target()
    targets = {
        "few": here._replace(cpu="x", features=here.features[:3]),
        "many": here._replace(cpu="x", features=here.features[:9]),
        "this": here._replace(features=here.features[:1]),
        "other": here._replace(triple="other"),
        "newer": here._replace(features=(*here.features, "newer")),
    }
    for label, target in targets.items():
        write_target(tmp_path / label, target)
    (tmp_path / "few" / "target.json").write_bytes(b"damaged")
    monkeypatch.setattr(installed_code, "_FOLDER", tmp_path)
    installed_code._choose_folder.cache_clear()
    assert installed_code._choose_folder() == tmp_path / "this"
    shutil.rmtree(tmp_path / "this")
    installed_code._choose_folder.cache_clear()
    assert installed_code._choose_folder() == tmp_path / "many"
    shutil.rmtree(tmp_path / "many")
    installed_code._choose_folder.cache_clear()
    assert installed_code._choose_folder() is None
    installed_code._choose_folder.cache_clear()


def test_wheel_works_beside_foreign_modules(from_wheel: Environment, tmp_path: Path) -> None:
    from_wheel.check_beside_foreign_modules(tmp_path)


def test_sdist_gives_the_same_files_as_the_wheel(archives: tuple[Path, Path], from_wheel: Environment, tmp_path: Path) -> None:
    environment = Environment(tmp_path / "from_sdist")
    environment.install(archives[1])
    without_cache = {name for name in from_wheel.installed() if "__pycache__" not in name}
    assert {name for name in environment.installed() if "__pycache__" not in name} == without_cache


def test_sdist_holds_each_file_once(archives: tuple[Path, Path]) -> None:
    """No tree twice through the links of `.packages`, and the tests come along."""
    with tarfile.open(archives[1]) as archive:
        names = archive.getnames()
    inner = {name.partition("/")[2] for name in names}
    assert len(names) == len(inner)
    assert {"emulator/__init__.py", "firmware/PROTOCOL.md", "tests/conftest.py", "README.md", "pyproject.toml"} <= inner
    assert {name for name in inner if name.startswith(".packages/weakcell/")} >= {".packages/weakcell/__init__.py"}
    assert not [name for name in inner if name.startswith(".packages/weakcell/emulator")]


def test_editable_install_imports_the_checkout(tmp_path: Path) -> None:
    environment = Environment(tmp_path / "editable")
    environment.install("--editable", ROOT)
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    environment.check_beside_foreign_modules(folder)
    file = _run(environment.python, "-c", "import weakcell.emulator; print(weakcell.emulator.__file__)", cwd=folder).strip()
    assert Path(file).resolve() == ROOT / "emulator" / "__init__.py"


def test_checkout_without_symbolic_links_can_be_imported(tmp_path: Path) -> None:
    """Git without links, as on Windows, makes a text file of each: the packages are then found at the root."""
    package = tmp_path / ".packages" / "weakcell"
    package.mkdir(parents=True)
    shutil.copy(ROOT / ".packages" / "weakcell" / "__init__.py", package)
    for name in ("emulator", "memmodels", "host"):
        (package / name).write_text(f"../../{name}")
        (tmp_path / name).symlink_to(ROOT / name)
    lines = f"import sys; sys.path.insert(0, {str(package.parent)!r}); import weakcell.emulator; print(weakcell.emulator.__file__)"
    assert Path(_run(sys.executable, "-c", lines, cwd=tmp_path).strip()) == tmp_path / "emulator" / "__init__.py"


def test_version_has_one_place(archives: tuple[Path, Path]) -> None:
    assert archives[0].name.split("-")[1] == weakcell.__version__
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.search(r"^version: (.+)$", citation, re.MULTILINE)[1] == weakcell.__version__  # type: ignore[index]
