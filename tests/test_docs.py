"""Documentation: every relative link, anchor and file name in Markdown exists, and the front page stays one page.

Commands and Python code in code blocks are checked, too. Oracles: the files of the repository, GitHub's rule for the anchors of
headings, and the options of the command line.
"""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import click
import pytest
import typer

from weakcell.host.cli import app

ROOT = Path(__file__).parents[1]
MOST_WORDS = 1_000
"""Words of the front page outside code blocks."""

_FENCE = re.compile(r"^( *)(```|~~~).*?^\1\2 *$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`[^`\n]+`")
_LINK = re.compile(r"\]\(<?([^()\s>]+)>?(?: \"[^\"]*\")?\)")
_PATH = re.compile(r"`((?:[\w.-]+/)+[\w.-]+\.(?:py|md|c|h|S|ld|mjs|toml|csv|onnx|npz|yml|html|css|js))`")
_OURS = ("emulator/", "memmodels/", "host/", "firmware/", "tests/", ".github/", ".ci/", ".packages/", "docs/")


def _pages() -> list[Path]:
    """Return the Markdown files that git knows or would add; in an unpacked source archive, all of them."""
    command = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard", "*.md"]
    listing = subprocess.run(command, capture_output=True, text=True, check=False)
    names = listing.stdout.splitlines() if listing.returncode == 0 else [str(path.relative_to(ROOT)) for path in ROOT.rglob("*.md")]
    return sorted(ROOT / name for name in names if (ROOT / name).is_file() and not name.startswith((".venv", ".packages")))


PAGES = _pages()


def _prose(page: Path) -> str:
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


@cache
def _anchors(page: Path) -> frozenset[str]:
    """Return the anchors of a page's headings as GitHub makes them: lower case, no punctuation, hyphens for blanks."""
    seen: dict[str, int] = {}
    anchors = set()
    for heading in re.findall(r"^#{1,6} +(.+?)(?: +#+)? *$", _prose(page), re.MULTILINE):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", text.lower()).strip().replace(" ", "-")
        anchors.add(f"{slug}-{seen[slug]}" if slug in seen else slug)
        seen[slug] = seen.get(slug, 0) + 1
    return frozenset(anchors)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    dead = []
    for link in _LINK.findall(_CODE.sub("", _prose(page))):
        if re.match(r"[a-z][a-z0-9+.-]*:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in _anchors(target)):
            dead.append(link)
    assert not dead, f"{page.relative_to(ROOT)} links to what does not exist: {dead}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_named_files_exist(page: Path) -> None:
    """A file of this repository that a page names in code style exists, relative to the root or to the page."""
    names = {name for name in _PATH.findall(_prose(page)) if name.startswith(_OURS) and "NAME" not in name}
    missing = [name for name in sorted(names) if not ((ROOT / name).exists() or (page.parent / name).exists())]
    assert not missing, f"{page.relative_to(ROOT)} names files that do not exist: {missing}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_pages_begin_with_a_title_and_a_paragraph(page: Path) -> None:
    if page.name == "PULL_REQUEST_TEMPLATE.md":
        pytest.skip("a form, not a page")
    first, *rest = page.read_text(encoding="utf-8").split("\n\n")
    assert first.startswith("# ")
    assert rest[0][0].isalpha() or rest[0][0] == "`"


def _code_blocks(page: Path, language: str) -> list[str]:
    blocks = re.findall(r"^ *```(\w*) *\n(.*?)^ *``` *$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [body for name, body in blocks if name == language]


@cache
def _root_command() -> Any:
    return typer.main.get_command(app)


def _options_of(words: list[str]) -> set[str]:
    """Return the options of the command that these words name; fail if there is none."""
    command, name = _root_command(), "weakcell"
    options = {option for parameter in command.params for option in parameter.opts} | {"--help", "--version"}
    while words and hasattr(command, "commands") and not words[0].startswith("-"):
        context, name = click.Context(command, info_name=name), words.pop(0)
        command = command.get_command(context, name)
        assert command is not None, f"there is no command {name}"
        options = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)} | {"--help"}
    return options


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_and_their_options_exist(page: Path) -> None:
    lines = [line.strip().removeprefix("$ ") for block in _code_blocks(page, "") for line in block.splitlines()]
    for line in lines:
        for command in line.split(" && "):
            if command.startswith("weakcell "):
                words = shlex.split(command, comments=True)[1:]
                options = _options_of(words)
                unknown = [word for word in words if word.startswith("--") and word.partition("=")[0] not in options]
                assert not unknown, f"{page.relative_to(ROOT)}: {command}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_python_code_compiles(page: Path) -> None:
    for block in _code_blocks(page, "python"):
        ast.parse(block)


def test_every_page_is_in_the_contents_of_the_site() -> None:
    contents = re.findall(r"[\w./-]+\.md$", (ROOT / ".github" / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)
    names = {page.relative_to(ROOT).as_posix() for page in PAGES} - {".github/PULL_REQUEST_TEMPLATE.md"}
    assert names == {name for name in contents if not name.startswith("reference/")}


def test_front_page_is_one_page() -> None:
    assert len(_prose(ROOT / "README.md").split()) <= MOST_WORDS


def test_front_page_holds_the_test_command() -> None:
    """`.ci/run` reads the first code block behind the mark."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    block = re.search(r"<!-- test command -->\n```\n(.+?)\n```", text, re.DOTALL)
    assert block is not None
    for command in ("pip install -e '.[test]'", "ruff check", "ruff format --check", "mypy", "pytest"):
        assert command in block[1]
