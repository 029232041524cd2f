"""Errors that a user can meet, each with its exit code.

    WeakcellError                     1
    ├── UsageError                    2   an option, a SPEC or a sweep that cannot be understood
    ├── InputError                    3   a file or data set that is missing, damaged or does not fit
    │   └── ModelError                4   an ONNX model that is invalid or not supported
    ├── MemorySpecError               5   an unknown memory or key, or a value outside a law's valid range
    ├── OutputError                   6   results that cannot be written
    ├── MemoryFault                   7   a memory that cannot answer: a full array, an uncorrectable word under `raise`
    └── Interrupted                 130   Ctrl-C (143: SIGTERM); finished results are kept

A message has three parts: what was asked, what was found, and what to do. The constructor joins them, so none can be left out.
"""


class WeakcellError(Exception):
    """Base of all errors that Weakcell raises on purpose.

    Attributes:
        asked: What was asked for.
        found: What was found instead.
        do: What the user can do.
        exit_code: Exit code of the command line.
    """

    exit_code = 1

    def __init__(self, asked: str, found: str, do: str) -> None:
        self.asked, self.found, self.do = asked, found, do
        super().__init__(f"{asked}: {found}. {do}.")

    def __reduce__(self) -> tuple[type["WeakcellError"], tuple[str, str, str]]:
        return type(self), (self.asked, self.found, self.do)


class UsageError(WeakcellError):
    """An option, a SPEC or a sweep that cannot be understood."""

    exit_code = 2


class InputError(WeakcellError):
    """A file or data set that is missing, damaged or does not fit the network."""

    exit_code = 3


class ModelError(InputError):
    """An ONNX model that is invalid, or that uses what the engine does not support."""

    exit_code = 4


class MemorySpecError(WeakcellError):
    """An unknown memory or key, or a value outside a law's valid range."""

    exit_code = 5


class OutputError(WeakcellError):
    """Results that cannot be written to the requested place."""

    exit_code = 6


class MemoryFault(WeakcellError):
    """A memory that cannot answer: a full array, an unknown region, a word that cannot be corrected."""

    exit_code = 7


class Interrupted(WeakcellError):
    """Ctrl-C during a run; finished results are kept."""

    exit_code = 130
