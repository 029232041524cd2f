"""`compiled`: a function that Numba compiles, and whose machine code is kept. Numba is imported when the function is needed."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, update_wrapper
from typing import Any

KEEPS_CODE = True
"""Whether functions keep the machine code that Python calls; a compiler process has none."""


def compiled(function: Callable[..., Any] | None = None, **options: Any) -> Any:
    """Compile a function at its first call with arguments of some types; it releases the GIL while it runs.

    Args:
        function: The function. Without it, a decorator is returned.
        options: Of `numba.njit`.
    """
    if function is None:
        return lambda later: CompiledFunction(later, options)
    return CompiledFunction(function, options)


class CompiledFunction:
    """A function that Numba compiles. To Numba it is the dispatcher itself, so compiled functions may call it."""

    def __init__(self, function: Callable[..., Any], options: dict[str, Any]) -> None:
        self._options = options
        update_wrapper(self, function)

    def __call__(self, *arguments: Any) -> Any:
        return self.dispatcher(*arguments)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what copies, pickles and inspects this object does not mean the dispatcher
            raise AttributeError(name)
        return getattr(self.dispatcher, name)

    @cached_property
    def dispatcher(self) -> Any:
        """Numba's dispatcher; reading this property loads Numba."""
        import numba

        function = self.__wrapped__  # type: ignore[attr-defined]  # set by `update_wrapper`
        dispatcher = numba.njit(nogil=True, **self._options)(function)
        if KEEPS_CODE:
            from weakcell.memmodels.native.function_cache import CachedOverloads

            dispatcher._cache = CachedOverloads(function)
        return dispatcher

    @property
    def _numba_type_(self) -> Any:
        return self.dispatcher._numba_type_
