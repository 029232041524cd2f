"""What runs make for themselves and do not need any more, kept for the next ones."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

T = TypeVar("T")


class Spare:
    """Things by a key that says what they are good for; threads share it. It travels empty."""

    def __init__(self) -> None:
        self._left: dict[Hashable, list[Any]] = {}

    def __reduce__(self) -> tuple[type[Spare], tuple[()]]:
        return Spare, ()

    def take(self, key: Hashable, make: Callable[[], T]) -> T:
        """What somebody left, which nobody else has; or what `make` makes."""
        left = self._left.setdefault(key, [])
        try:
            taken: T = left.pop()
        except IndexError:
            return make()
        return taken

    def leave(self, key: Hashable, what: object) -> None:
        self._left.setdefault(key, []).append(what)
