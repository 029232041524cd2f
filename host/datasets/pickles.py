"""Read pickles of plain data without unpickling them.

Unpickling runs what a file says. NumPy trusts the state of a pickled array or dtype, so a forged one can crash the process.
This reader interprets the opcodes itself. It can make nothing but None, booleans, numbers, text, bytes, lists, tuples, dictionaries
and arrays of uint8; anything else is refused by name. Opcodes: Python's Lib/pickletools.py.
"""

from __future__ import annotations

import pickletools
from dataclasses import dataclass, field
from typing import Any

import numpy as np

_ARRAY, _KIND, _DTYPE, _ENCODE = "array", "ndarray", "dtype", "encode"
_CALLABLES = {
    ("numpy.core.multiarray", "_reconstruct"): _ARRAY,
    ("numpy._core.multiarray", "_reconstruct"): _ARRAY,
    ("numpy", "ndarray"): _KIND,
    ("numpy", "dtype"): _DTYPE,
    ("_codecs", "encode"): _ENCODE,
}
"""The only names that a file may call; this module carries them out itself."""

_MOST_OPERATIONS = 500_000
"""A published batch has 40,000."""

_VALUES = {
    "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES",
    "SHORT_BINBYTES", "BINBYTES8",
}  # fmt: skip
_OLD_BYTES = {"BINSTRING", "SHORT_BINSTRING"}
_CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


@dataclass(frozen=True)
class _Callable:
    name: str


@dataclass(eq=False)
class _Object:
    """The result of a call: an array or a dtype whose state is not set yet."""

    name: str
    arguments: tuple[Any, ...]
    state: Any = None


@dataclass(eq=False)
class _Machine:
    stack: list[Any] = field(default_factory=list)
    marks: list[int] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)

    def since_mark(self) -> list[Any]:
        begin = self.marks.pop()
        values = self.stack[begin:]
        del self.stack[begin:]
        return values

    def take(self, count: int) -> tuple[Any, ...]:
        """Pop the last values; none may lie below a mark."""
        begin = len(self.stack) - count
        if begin < (self.marks[-1] if self.marks else 0):
            raise ValueError("its operations do not fit together")
        values = tuple(self.stack[begin:])
        del self.stack[begin:]
        return values

    def step(self, name: str, argument: Any) -> None:
        """Carry out one opcode.

        Args:
            name: The opcode's name in `pickletools`.
            argument: Its decoded argument, or None.

        Raises:
            ValueError: The opcode makes something else than plain data.
        """
        stack = self.stack
        if name in _VALUES:
            stack.append(argument)
        elif name in _OLD_BYTES:  # text of Python 2, which pickletools decodes as Latin-1
            stack.append(argument.encode("latin-1"))
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name == "EMPTY_LIST":
            stack.append([])
        elif name == "EMPTY_DICT":
            stack.append({})
        elif name == "MARK":
            self.marks.append(len(stack))
        elif name in ("BINPUT", "LONG_BINPUT", "MEMOIZE"):
            self.memo[len(self.memo) if argument is None else argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(self.memo[argument])
        elif name in ("APPEND", "APPENDS"):
            values = self.since_mark() if name == "APPENDS" else list(self.take(1))
            _require_type(stack[-1], list).extend(values)
        elif name in ("SETITEM", "SETITEMS"):
            values = self.since_mark() if name == "SETITEMS" else list(self.take(2))
            if not all(type(key) in (str, bytes, int) for key in values[::2]):  # the hash of nested tuples may take for ever
                raise ValueError("it has a key that is neither text nor a number")
            _require_type(stack[-1], dict).update(zip(values[::2], values[1::2], strict=True))
        elif name == "TUPLE" or name in _TUPLES:
            stack.append(tuple(self.since_mark()) if name == "TUPLE" else self.take(_TUPLES[name]))
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            asked = argument.split(" ", 1) if name == "GLOBAL" else self.take(2)
            module, called = (_require_type(part, str) for part in asked)
            if (module, called) not in _CALLABLES:
                raise ValueError(f"it asks for {module[:80]}.{called[:80]}")
            stack.append(_Callable(_CALLABLES[module, called]))
        elif name == "REDUCE":
            called, arguments = self.take(2)
            stack.append(_call(called, _require_type(arguments, tuple)))
        elif name == "BUILD":
            (state,) = self.take(1)
            _require_type(stack[-1], _Object).state = state
        elif name not in ("PROTO", "FRAME", "STOP"):
            raise ValueError(f"it uses the operation {name}, which plain data do not need")


def read_plain_pickle(content: bytes) -> dict[Any, Any]:
    """Return the dictionary that a pickle describes.

    Args:
        content: The pickle, of protocol 1 to 4. Text of Python 2 becomes bytes.

    Returns:
        Plain data by name; arrays are made only where they are entries of the dictionary itself.

    Raises:
        ValueError: It is damaged, or it describes something else than plain data and arrays of uint8.
    """
    machine = _Machine()
    try:
        for number, (opcode, argument, _) in enumerate(pickletools.genops(content)):
            if number > _MOST_OPERATIONS:
                raise ValueError(f"it has more than {_MOST_OPERATIONS:,} operations")
            machine.step(opcode.name, argument)
        (found,) = machine.stack
        entries: dict[Any, Any] = _require_type(found, dict)
        return {key: _array(value) if type(value) is _Object else value for key, value in entries.items()}
    except (IndexError, KeyError, TypeError, UnicodeError, AttributeError, RecursionError) as error:
        raise ValueError(f"its operations do not fit together ({type(error).__name__})") from error


def _require_type(value: Any, kind: type[Any]) -> Any:
    if type(value) is not kind:
        raise ValueError(f"it has a {type(value).__name__} where a {kind.__name__} belongs")
    return value


def _call(called: Any, arguments: tuple[Any, ...]) -> Any:
    if type(called) is not _Callable:
        raise ValueError(f"it calls a {type(called).__name__}")
    if called.name == _ENCODE:  # how protocols 1 and 2 write bytes
        text, encoding = arguments
        if _require_type(encoding, str) != "latin1":
            raise ValueError(f"it encodes text as {encoding[:80]!r}")
        return _require_type(text, str).encode("latin-1")
    if called.name == _KIND:
        raise ValueError("it makes an array from its address")
    return _Object(called.name, arguments)


def _array(pickled: _Object) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return an array of uint8; its state is (version, shape, dtype, whether it is stored by columns, bytes)."""
    if pickled.name != _ARRAY or pickled.arguments[0] != _Callable(_KIND):
        raise ValueError("it holds a dtype or an array of another kind")
    _, shape, dtype, by_columns, content = pickled.state
    if type(dtype) is not _Object or dtype.name != _DTYPE or dtype.arguments[0] not in ("u1", b"u1"):
        raise ValueError("it holds an array of something else than bytes")
    if type(content) is not bytes or not all(type(length) is int and length >= 0 for length in shape):
        raise ValueError("it holds an array whose shape or contents are of another type")
    return np.frombuffer(content, np.uint8).reshape(shape, order="F" if by_columns else "C")
