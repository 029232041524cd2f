"""Call a function for many items in several processes of this machine, so that they share its cores.

The processes end with this one, however it ends: each waits for the end of a pipe that only this process holds open.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from multiprocessing.connection import Connection
from threading import Thread
from typing import TypeVar

T = TypeVar("T")


def call_in_processes(function: Callable[[T], object], items: Sequence[T], processes: int) -> Iterator[T]:
    """Call a function once for each item, and yield the items as they finish.

    If the iterator is closed, or a call raises, all processes end at once.

    Args:
        function: Can be pickled.
        items: Started in this order.
        processes: How many are worked on at a time.

    Raises:
        BrokenProcessPool: A process died.
        Exception: What the function raised.
    """
    context = get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    workers = min(processes, len(items))
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker, initargs=(receiver,))
    try:
        futures = {pool.submit(function, item): item for item in items}
        for future in as_completed(futures):
            future.result()
            yield futures[future]
        pool.shutdown()
    finally:
        sender.close()  # ends processes that still work
        pool.shutdown(cancel_futures=True)
        receiver.close()


def _start_worker(parent: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - their progress would mix
    Thread(target=_exit_with_parent, args=(parent,), daemon=True).start()


def _exit_with_parent(parent: Connection) -> None:
    try:
        parent.recv_bytes()
    except (EOFError, OSError):
        os._exit(1)
