"""Errors of a board, each with its exit code; they join the tree in `weakcell.memmodels.errors`.

WeakcellError                     1
└── BoardError                    8   a board that is missing, answers wrongly or cannot do what was asked
    ├── LinkError                 9   bytes that did not get through: never a memory flip
    └── VoltageRefused           10   a voltage that the board refused, or did not confirm
"""

from __future__ import annotations

from weakcell.memmodels.errors import WeakcellError


class BoardError(WeakcellError):
    """A board that is missing, answers wrongly or cannot do what was asked."""

    exit_code = 8


class LinkError(BoardError):
    """Bytes that did not get through, after all retries; what the arena holds is then unknown, and nothing was counted."""

    exit_code = 9


class VoltageRefused(BoardError):
    """A voltage above nominal or out of range, or a regulator that does not confirm what was commanded."""

    exit_code = 10
