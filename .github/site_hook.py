"""Hooks of the documentation site: pages from the whole repository, and reference pages generated from the code.

A page keeps its path in the repository as its name, so links between Markdown files mean the same on the site and in a checkout.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path, PurePosixPath
from typing import Any

import click
import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

import weakcell
from weakcell.host.cli import app

ROOT = Path(__file__).parents[1]
_SHOWN = (".md", ".svg", ".png")
_NO_PAGES = (".github/PULL_REQUEST_TEMPLATE.md",)
_LINK = re.compile(r"(?<!!)\[([^\]\n]*)\]\(([^()\s#]+)(#[^()\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Take the Markdown files and pictures that git tracks, and the generated pages."""
    command = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(command, capture_output=True, text=True, check=True)
    theme = [file for file in files if not file.src_uri.endswith(_SHOWN) or file.src_uri.startswith("assets/")]
    pages = [
        _moved(File.generated(config, name, abs_src_path=str(ROOT / name)))
        for name in listing.stdout.splitlines()
        if name.endswith(_SHOWN)
        and name not in _NO_PAGES
        and not name.startswith(".github/docs/assets/")
        and (ROOT / name).is_file()
    ]
    generated = [
        File.generated(config, "reference/api.md", content=_api_page()),
        File.generated(config, "reference/cli.md", content=_cli_page()),
    ]
    return Files([*theme, *pages, *generated])


def _moved(file: File) -> File:
    """Give pages of the dot folder an address without a dot."""
    for prefix, place in ((".github/docs/", ""), (".github/", "project/")):
        if file.src_uri.startswith(prefix):
            file.dest_uri = place + file.dest_uri.removeprefix(prefix)
            break
    return file


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links to files that are no pages, such as sources, into plain text."""
    folder = PurePosixPath(page.file.src_uri).parent

    def shown(match: re.Match[str]) -> str:
        text, target, _ = match.groups()
        if re.match(r"[a-z]+:", target):
            return match[0]
        inside = (ROOT / folder / target).resolve()
        known = inside.is_relative_to(ROOT) and files.get_file_from_path(inside.relative_to(ROOT).as_posix())
        return match[0] if known or not inside.exists() else text

    return _LINK.sub(shown, markdown)


def _api_page() -> str:
    """Return a page with every exported name; mkdocstrings fills in signatures and docstrings."""
    source = Path(weakcell.__file__).read_text(encoding="utf-8")
    listing = source[source.index("__all__ = [") : source.index("]", source.index("__all__ = ["))]
    items = re.findall(r"^    (?:# (.+)|\"(\w+)\",)$", listing, re.MULTILINE)  # comments of the list are headings
    assert [name for _, name in items if name] == list(weakcell.__all__)
    names = "\n\n".join(f"## {heading}" if heading else f"::: weakcell.{name}" for heading, name in items)
    promise = "[What is stable](../.github/ARCHITECTURE.md#what-is-stable) says what is promised to stay."
    return f"# Python API\n\nEvery name that `import weakcell` offers. {promise}\n\n{names}\n"


def _cli_page() -> str:
    """Return a page with every command and option, as `--help` shows them."""
    group = typer.main.get_command(app)
    assert isinstance(group, click.Group) or hasattr(group, "commands")
    sections = "\n".join(_command_section(group, name, ("weakcell",)) for name in group.commands)  # type: ignore[attr-defined]
    return f"# Command line\n\nEvery command and option, generated from `weakcell COMMAND --help`.\n\n{sections}"


def _command_section(group: Any, name: str, parents: tuple[str, ...]) -> str:
    path = (*parents, name)
    context = click.Context(group, info_name=parents[-1])
    command = group.get_command(context, name)
    context = typer.Context(command, info_name=" ".join(path))
    lines = [f"{'#' * len(path)} `{' '.join(path)}`", "", _cell(command.help or "", newline="\n"), ""]
    if subcommands := getattr(command, "commands", None):
        return "\n".join(lines) + "\n" + "\n".join(_command_section(command, sub, path) for sub in subcommands)
    lines += ["```", command.get_usage(context).removeprefix("Usage: "), "```", "", "| option | meaning |", "|---|---|"]
    for parameter in command.params:
        if record := parameter.get_help_record(context):
            lines.append(f"| `{record[0].replace('|', chr(92) + '|')}` | {_cell(record[1])} |")
    return "\n".join(lines) + "\n"


def _cell(text: str, newline: str = " ") -> str:
    """Return help text that Markdown shows as it is."""
    return re.sub(r"([|<*])", r"\\\1", text.replace("\b", "")).replace("\n", newline)
