"""SIGTERM ends a command as Ctrl-C does: finished results are kept. The exit code says which of the two it was."""

from __future__ import annotations

import _thread
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

INTERRUPTED, NO_READER, TERMINATED = 130, 141, 143
"""Exit codes: 128 and the number of the signal (SIGINT, SIGPIPE, SIGTERM), as shells count."""

_SECONDS_UNTIL_AGAIN = 0.02

_received: list[signal.Signals] = []
"""SIGINT and SIGTERM that the running command got."""


@contextmanager
def interrupt_on_sigterm() -> Iterator[None]:
    """Raise KeyboardInterrupt in the main thread at SIGTERM, as at SIGINT; restore handlers afterwards.

    A signal that is ignored stays ignored. Python drops a KeyboardInterrupt that it raises in a finalizer or in a callback from C;
    it is raised again then, until it reaches code that can pass it on.
    """
    usual: dict[signal.Signals, Any] = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    before = {number: handler for number, handler in usual.items() if signal.getsignal(number) == handler}
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        _received.append(signal.Signals(number))
        raise KeyboardInterrupt

    def send_again(number: signal.Signals) -> None:
        if signal.getsignal(number) is interrupt:  # the command has not ended meanwhile
            main = threading.main_thread().ident
            if hasattr(signal, "pthread_kill") and main is not None:
                signal.pthread_kill(main, number)  # also ends a call that waits
            else:
                _thread.interrupt_main(number)

    def raise_again(unraisable: sys.UnraisableHookArgs) -> None:
        if issubclass(unraisable.exc_type, KeyboardInterrupt) and _received:
            # by another thread: it would be dropped in this function, too
            again = threading.Timer(_SECONDS_UNTIL_AGAIN, send_again, (_received[-1],))
            again.daemon = True
            again.start()
        elif not issubclass(unraisable.exc_type, MemoryError):  # the command itself ends with a message about memory
            hook(unraisable)

    _received.clear()
    hook, sys.unraisablehook = sys.unraisablehook, raise_again
    for number in before:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        sys.unraisablehook = hook


def is_interruption(error: BaseException) -> bool:
    """Return whether an error ends a command because of SIGINT or SIGTERM.

    Code in C may turn the KeyboardInterrupt into an error of its own. Whatever ends a command after a signal counts as its effect.
    """
    return isinstance(error, KeyboardInterrupt) or (bool(_received) and isinstance(error, Exception))


def interrupted_code() -> int:
    """Return the exit code of a command that was interrupted: 143 after SIGTERM, 130 after Ctrl-C."""
    return TERMINATED if signal.SIGTERM in _received else INTERRUPTED
