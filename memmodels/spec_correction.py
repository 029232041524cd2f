"""Correct a memory SPEC that cannot be understood, so that an error can show the SPEC that was meant."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from weakcell.memmodels.definition import Condition
from weakcell.memmodels.protection.wrappers import WRAPPERS

DEFAULT_MEMORY = "sram-14nm"
"""The memory that a SPEC of wrappers alone is completed with; it needs no condition."""

_MOST_CHARACTERS, _LEAST_LIKENESS = 200, 0.75
_WORD = re.compile(r"[A-Za-z_][\w-]*|[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
_PERCENT = re.compile(r"(?<![\w.])(\d+\.?\d*|\.\d+)\s*%")


@dataclass
class _Parts:
    """What is recognized of a SPEC so far."""

    wrappers: list[tuple[str, list[str]]] = field(default_factory=list)
    memory: str | None = None
    values: list[tuple[str, str]] = field(default_factory=list)

    def text(self) -> str:
        options = [f"{name}[{','.join(given)}]" if given else name for name, given in self.wrappers]
        given = ",".join(f"{key}={value}" for key, value in self.values)
        memory = self.memory or DEFAULT_MEMORY
        return "+".join([*options, f"{memory}:{given}" if given else memory])


def correct_spec(text: str, names: Sequence[str], conditions_of: Callable[[str], Sequence[Condition]]) -> str | None:
    """Return the SPEC that a text probably means.

    The words of the text are matched with the names of wrappers, technologies and conditions, whatever separates them. The result
    follows the grammar; the caller checks that it is valid.

    Args:
        text: A SPEC that was refused.
        names: Names of all technologies.
        conditions_of: Returns the conditions of a technology.

    Returns:
        The corrected SPEC, or None if a word means nothing.
    """
    if len(text) > _MOST_CHARACTERS:
        return None
    words = _WORD.findall(_PERCENT.sub(lambda found: f"{float(found[1]) / 100:.12g}", text))
    parts = _Parts(memory=next((near for word in words if (near := _nearest(word, names))), None))
    pending: tuple[str, bool] | None = None  # a key that waits for its value, and whether it belongs to the last wrapper
    for word in words:
        if pending is not None:
            key, of_wrapper = pending
            if of_wrapper:
                parts.wrappers[-1][1].append(f"{key}={word}")
            else:
                parts.values.append((key, word))
            pending = None
        elif wrapper := _nearest(word, WRAPPERS):
            parts.wrappers.append((wrapper, []))
        elif parts.memory is not None and _nearest(word, names) == parts.memory:
            continue
        elif parts.wrappers and (option := _nearest(word, (c.name for c in WRAPPERS[parts.wrappers[-1][0]].options))):
            pending = option, True
        else:
            found = _condition(word, parts, names, conditions_of)
            if found is None:
                return None
            parts.memory, key, value = found
            if value is None:
                pending = key, False
            else:
                parts.values.append((key, value))
    return parts.text() if words and pending is None else None


def _condition(
    word: str, parts: _Parts, names: Sequence[str], conditions_of: Callable[[str], Sequence[Condition]]
) -> tuple[str, str, str | None] | None:
    """Return the memory, the key and, for a number without a key, the value that a word stands for."""
    if word[0] not in "+-." and not word[0].isdigit():
        for memory in [parts.memory] if parts.memory is not None else names:
            if key := _nearest(word, [condition.name for condition in conditions_of(memory)]):
                return memory, key, None
        return None
    memory = parts.memory or "uniform"  # a number alone is most likely a bit error rate
    keys = [condition.name for condition in conditions_of(memory)]
    return (memory, keys[0], word) if keys and not parts.values else None


def _nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the known name that a word means, whatever its case and hyphens; None if none is near."""
    plain = {name.replace("_", "-").lower(): name for name in known}
    word = word.replace("_", "-").lower()
    if word in plain:
        return plain[word]
    if len(word) < 3:
        return None
    near = difflib.get_close_matches(word, plain, n=2, cutoff=_LEAST_LIKENESS)
    return plain[near[0]] if len(near) == 1 else None
