"""SIGTERM ends a command as Ctrl-C does: finished results are kept. The exit code says which of the two it was."""

from __future__ import annotations

import _thread
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

INTERRUPTED, TERMINATED = 130, 143
"""Exit codes: 128 and the number of the signal, as shells count."""

_received: list[signal.Signals] = []
"""Signals of the running command."""


@contextmanager
def interrupt_on_sigterm() -> Iterator[None]:
    """Raise KeyboardInterrupt in the main thread at SIGTERM; restore handlers afterwards.

    A SIGTERM that is ignored stays ignored. Python drops a KeyboardInterrupt that it raises in a finalizer or in a callback from C;
    it is raised again then, until it reaches code that can pass it on.
    """
    handler = signal.getsignal(signal.SIGTERM)
    if handler != signal.SIG_DFL or threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        _received.append(signal.Signals(number))
        raise KeyboardInterrupt

    def raise_again(unraisable: sys.UnraisableHookArgs) -> None:
        if issubclass(unraisable.exc_type, KeyboardInterrupt):
            _thread.interrupt_main(_received.pop() if _received else signal.SIGINT)
        else:
            hook(unraisable)

    _received.clear()
    hook, sys.unraisablehook = sys.unraisablehook, raise_again
    signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)
        sys.unraisablehook = hook


def interrupted_code() -> int:
    """Return the exit code of a command that was interrupted: 143 after SIGTERM, 130 after Ctrl-C."""
    return TERMINATED if _received else INTERRUPTED
