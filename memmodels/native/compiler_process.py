"""The main function of a compiler process: it compiles kernels to object files for the process that started it.

Numba's way of compiling is changed for the whole process (`object_files.defer_optimization`), so a process that runs kernels has
others compile them.
"""

from __future__ import annotations

import gc
import os
import pickle
import sys
from importlib import import_module


def serve() -> None:
    """Answer requests (module, function, kinds, symbol) on stdin with (object file or None, error text) until stdin ends."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what anything prints must not get between the answers
    from weakcell.memmodels.native.object_files import build, defer_optimization

    defer_optimization()
    gc.set_threshold(100_000)  # compilers make many objects that live long
    while True:
        try:
            module, function, kinds, symbol = pickle.load(sys.stdin.buffer)
        except (EOFError, pickle.UnpicklingError):  # UnpicklingError: the other process was killed while it asked
            return
        code, error = None, ""
        try:
            code = build(getattr(import_module(module), function), kinds, symbol)
        except Exception as reason:  # whatever Numba may raise: the other process raises it
            error = f"{type(reason).__name__}: {reason}"
        try:
            pickle.dump((code, error), answers)
            answers.flush()
        except BrokenPipeError:  # nobody waits for the answer: the other process was killed
            os._exit(0)
