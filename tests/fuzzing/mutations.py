"""Damage to inputs: bytes, text, and the trees of dictionaries and lists that TOML and JSON hold."""

from __future__ import annotations

import copy
import datetime
import json
import math
from collections.abc import Sequence
from random import Random
from typing import Any

INTEGERS = (0, 1, -1, 2, 3, 7, 8, 63, 64, 65, 255, 256, -128, 1 << 15, 1 << 31, (1 << 32) - 1, -(1 << 31), 1 << 40, (1 << 53) + 1,
            (1 << 63) - 1, 1 << 63, -(1 << 63), 1 << 64, 1 << 70, 10**30, -(10**30), 10**400)  # fmt: skip
FLOATS = (0.0, -0.0, 1.0, -1.0, 0.5, math.nan, math.inf, -math.inf, 5e-324, 1e-300, 1.7e308, 1e15, 0.1, 1e-9, 2.0)
TEXTS = (
    *(
        "",
        " ",
        "\0",
        "a\0b",
        "\x1b[31mred\x1b[0m",
        "\x9b2J",
        "a\nb",
        "=1+1",
        "../x",
        "/dev/zero",
        "/",
        ".",
        "..",
        "é",
        "\U0001d4d0",
    ),
    *("\u202e", "0", "-1", "nan", "inf", "1e999", "0x10", "1_0", "true", "None", "[", "]", "{", "}", "%s", "{0}", "*", "?", "[1]"),
    *("a" * 300, "\u0661\u0662", "\u00b2", "~", "$HOME", "file:x", "uniform:ber=0.1", "virtual:rp2350", "a:b", "a,b", "a=b", "a@b"),
    *("é", "\U0001d4d0", "\ufeff", "\u2028", "1" * 5000, "[" * 3000, "{a=" * 3000, "a." * 3000),
)
_DATES = (datetime.date(1, 1, 1), datetime.datetime(9999, 12, 31, 23, 59, 59), datetime.time(0, 0))


def damage(data: bytes, random: Random) -> bytes:
    """Change a few bytes, insert or remove some, cut the end, or repeat a part."""
    broken = bytearray(data)
    for _ in range(random.randint(1, 4)):
        at, kind = random.randrange(len(broken) + 1), random.randrange(8)
        if kind <= 1 and at < len(broken):
            broken[at] = random.randrange(256)
        elif kind == 2 and at < len(broken):
            broken[at] ^= 1 << random.randrange(8)
        elif kind == 3:
            broken[at:at] = random.randbytes(random.randint(1, 8))
        elif kind == 4:
            del broken[at : at + random.randint(1, 8)]
        elif kind == 5:
            part = broken[at : at + random.randint(1, 40)]
            broken[at:at] = part
        elif kind == 6 and len(broken) >= 8:
            width, at = random.choice((1, 2, 4, 8)), random.randrange(len(broken) - 7)
            value = random.choice(INTEGERS) % (1 << (8 * width))
            broken[at : at + width] = value.to_bytes(width, random.choice(("little", "big")))
        elif random.randrange(10) == 0:
            del broken[at:]
    return bytes(broken)


def damage_text(data: bytes, random: Random) -> bytes:
    """Change characters: insert a hostile text, remove, repeat or swap parts."""
    text = data.decode("utf-8", "replace")
    for _ in range(random.randint(1, 3)):
        at, size = random.randrange(len(text) + 1), random.randint(1, 8)
        kind = random.randrange(5)
        if kind == 0:
            text = text[:at] + hostile_text(random) + text[at:]
        elif kind == 1:
            text = text[:at] + text[at + size :]
        elif kind == 2:
            text = text[:at] + text[at : at + size] * random.choice((2, 3, 50)) + text[at + size :]
        elif kind == 3:
            text = text[:at] + random.choice(":=,+[]{}@*/x.-'\"#\n eE0123456789") + text[at + random.randrange(2) :]
        else:
            text = text[:at] + str(random.choice(INTEGERS + FLOATS)) + text[at + size :]
    return text.encode("utf-8", "replace")


def hostile_text(random: Random) -> str:
    """Return a text that readers may not expect."""
    return random.choice(TEXTS)


def hostile_value(random: Random, depth: int = 0) -> Any:
    """Return a value of any type: number, text, truth value, date, list or table."""
    kind = random.randrange(10)
    if kind <= 2:
        return random.choice(INTEGERS)
    if kind <= 4:
        return random.choice(FLOATS)
    if kind <= 6:
        return hostile_text(random)
    if kind == 7:
        return random.choice((True, False, *_DATES))
    if depth > 2:
        return []
    if kind == 8:
        return [hostile_value(random, depth + 1) for _ in range(random.randrange(4))]
    return {hostile_text(random): hostile_value(random, depth + 1) for _ in range(random.randrange(3))}


def change_tree(tree: Any, random: Random, changes: int = 1) -> Any:
    """Return a copy of a tree with some places changed, removed, repeated, renamed or nested."""
    tree = copy.deepcopy(tree)
    for _ in range(changes):
        places = list(_places(tree))
        if not places:
            return hostile_value(random)
        parent, key = random.choice(places)
        kind, value = random.randrange(12), parent[key]
        if kind <= 4:
            parent[key] = _near(value, random)
        elif kind <= 6:
            parent[key] = hostile_value(random)
        elif kind == 7:
            del parent[key]
        elif kind == 8 and isinstance(parent, list):
            parent.insert(key, copy.deepcopy(value))
        elif kind == 8:
            parent[hostile_text(random)] = parent.pop(key)
        elif kind == 9:
            parent[key] = copy.deepcopy(random.choice(places)[0])
        elif kind == 10:
            parent[key] = [value] if random.randrange(2) else {"a": value}
        else:
            parent[key] = _nested(value, random.choice((2, 10, 60)), random)
    return tree


def _places(tree: Any) -> list[tuple[Any, Any]]:
    """Return (container, key) of everything in a tree."""
    found: list[tuple[Any, Any]] = []
    stack = [tree]
    while stack:
        item = stack.pop()
        keys: Sequence[Any] = list(item) if isinstance(item, dict) else range(len(item)) if isinstance(item, list) else ()
        for key in keys:
            found.append((item, key))
            stack.append(item[key])
    return found


def _near(value: Any, random: Random) -> Any:
    """Return another value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return random.choice((*INTEGERS, value + 1, value - 1, -value, value * 2))
    if isinstance(value, float):
        return random.choice((*FLOATS, -value, value * 1e6, value / 1e6))
    if isinstance(value, str):
        at = random.randrange(len(value) + 1)
        return random.choice((hostile_text(random), value[:at] + hostile_text(random) + value[at:], value * 2, value[:at]))
    if isinstance(value, list):
        return random.choice(([], value * 2, value[:1], value[::-1], value * 20))
    return {}


def _nested(value: Any, depth: int, random: Random) -> Any:
    for _ in range(depth):
        value = [value] if random.randrange(2) else {"a": value}
    return value


def write_toml(tree: Any) -> bytes:
    """Return a tree as TOML: a line for each key, inline tables below."""
    if not isinstance(tree, dict):
        tree = {"a": tree}
    lines = []
    for key, value in tree.items():
        tables = isinstance(value, list) and value and all(isinstance(entry, dict) for entry in value)
        if tables:
            for entry in value:
                lines += [f"[[{_text(key)}]]", *(f"{_text(name)} = {_toml(part)}" for name, part in entry.items())]
    head = [f"{_text(key)} = {_toml(value)}" for key, value in tree.items() if f"[[{_text(key)}]]" not in lines]
    return "\n".join([*head, *lines, ""]).encode("utf-8", "surrogatepass")


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return {math.inf: "inf", -math.inf: "-inf"}.get(value, "nan" if math.isnan(value) else repr(value))
    if isinstance(value, int):
        return str(value)
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_text(key)} = {_toml(part)}" for key, part in value.items()) + " }"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, datetime.date | datetime.datetime | datetime.time):
        return value.isoformat()
    return _text(str(value))


def _text(value: object) -> str:
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")


def write_json(tree: Any, random: Random) -> bytes:
    """Return a tree as JSON; now and then with a key twice or a lone surrogate."""
    text = json.dumps(tree, default=str)
    if random.randrange(30) == 0:
        text = text.replace("a", "\\ud800", 1)
    if text.startswith("{") and len(text) > 2 and random.randrange(30) == 0:
        text = "{" + text[1:-1] + ", " + text[1:]
    return text.encode()
