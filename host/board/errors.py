"""Errors of boards, with their exit codes. They extend the tree in `weakcell.memmodels.errors`.

WeakcellError                     1
└── BoardError                    8   a board is missing, answers wrongly or cannot do what was asked
    ├── LinkError                 9   bytes were lost on the line: never a memory flip
    └── VoltageRefused           10   the board refused a voltage or did not confirm it
        └── VoltageNotReached    10   the core voltage did not fall to what was commanded
"""

from __future__ import annotations

from weakcell.memmodels.errors import WeakcellError


class BoardError(WeakcellError):
    """A board is missing, answers wrongly or cannot do what was asked."""

    exit_code = 8


class LinkError(BoardError):
    """Bytes were lost on the line, after all retries.

    Nothing was counted, and the contents of the arena are unknown.
    """

    exit_code = 9


class VoltageRefused(BoardError):
    """A voltage is out of range, or the regulator does not confirm the commanded one."""

    exit_code = 10


class VoltageNotReached(VoltageRefused):
    """The register confirms the commanded voltage, and the core did not fall to it.

    The regulator is bypassed, ignored the write, or the dwell was too short.
    """
