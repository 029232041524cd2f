"""Records of a profile as tables of TOML values, and back."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import MISSING, fields
from enum import StrEnum
from functools import cache
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from weakcell.memmodels.definition import Term
from weakcell.memmodels.error_model.levels import LevelTerm
from weakcell.memmodels.error_model.structure import Bank, Lines, Shared
from weakcell.memmodels.error_model.terms import Cells, ErrorTerm, Lifetime
from weakcell.memmodels.level_law import LevelLaw
from weakcell.memmodels.printable import printable
from weakcell.memmodels.retention_law import TimeLaw

_Record = TypeVar("_Record")


def make_record(kind: type[_Record], table: Any, **parts: Any) -> _Record:
    """Return a record of a table.

    Args:
        kind: Its dataclass.
        table: Values by the names of its fields.
        parts: Fields that are made already; they replace those of the table.

    Raises:
        ValueError: A value has another type than its field, a key is unknown, or one is missing.
    """
    if not isinstance(table, dict):
        raise ValueError(f"{str(table)[:80]!r} is no table")
    hints: dict[str, Any] = _hints(kind)  # type: ignore[arg-type]
    given = {name: value for name, value in table.items() if name not in parts}
    for name, value in given.items():
        if name in hints and not has_type(value, hints[name]):
            raise ValueError(f"{name} is {str(value)[:80]!r}")
        if hints.get(name) is float:
            given[name] = float(value)
    known = [each for each in fields(kind) if each.init]  # type: ignore[arg-type]
    unknown = sorted(given.keys() - {each.name for each in known})
    needed = [each.name for each in known if each.default is MISSING and each.default_factory is MISSING]
    missing = [_SAVED_NAMES.get(name, name) for name in needed if name not in given and name not in parts]
    if unknown or missing:
        found = [f"unknown {', '.join(map(printable, unknown))}"] if unknown else []
        raise ValueError("; ".join([*found, *([f"{', '.join(missing)} missing"] if missing else [])]))
    return kind(**given, **parts)


@cache
def _hints(kind: Hashable) -> dict[str, Any]:
    return get_type_hints(kind)


def has_type(value: Any, hint: Any) -> bool:
    """Return whether a value of a TOML file can be that of a field."""
    if get_origin(hint) is Literal:
        return isinstance(value, str) and value in get_args(hint)
    if get_origin(hint) in (UnionType, Union):  # `Rate | None` is a typing.Union: Rate is a Literal
        return any(has_type(value, part) for part in get_args(hint))
    if get_origin(hint) is tuple:
        return isinstance(value, tuple) and all(has_type(part, get_args(hint)[0]) for part in value)
    if hint is float:
        return type(value) in (float, int)
    return type(value) is hint or (isinstance(hint, type) and issubclass(hint, StrEnum) and isinstance(value, hint))


def tuples_of(value: Any) -> Any:
    """Return lists as tuples, and the numbers in them as floats."""
    return tuple(float(one) if type(one) is int else tuples_of(one) for one in value) if isinstance(value, list) else value


_SAVED_NAMES: Mapping[str, str] = {"failure_probability": "fails", "resampled": "redrawn"}
"""Fields of `ErrorTerm` that profiles save under an older name."""


def parse_term(table: dict[str, Any]) -> Term:
    """Return the error term of a table; ValueError or KeyError if it holds none."""
    fields_by_key = {key: name for name, key in _SAVED_NAMES.items()}
    given = {fields_by_key.get(key, key): value for key, value in table.items()}
    kind = given.pop("kind")
    if kind == "levels":
        return make_record(LevelTerm, {**given, "up": tuple(given["up"]), "down": tuple(given["down"])})
    if kind != "errors":
        raise ValueError(f"there is no kind of term {kind!r}")
    given |= {"lifetime": Lifetime(given["lifetime"]), "cells": Cells(given.get("cells", Cells.PREFER))}
    return make_record(ErrorTerm, given, structure=_parse_structure(given.get("structure")))


_MOST_COLUMNS, _MOST_CELLS = 1 << 20, 1 << 26
"""Limits of a bank. Those of the boards have 2048 columns and 2^21 cells."""


def _parse_structure(table: Any) -> Shared | Lines | None:
    if table is None:
        return None
    shared = "share" in table
    structure = make_record(Shared, table, bank=make_record(Bank, table["bank"])) if shared else make_record(Lines, table)
    bank = structure.bank
    if bank.columns > _MOST_COLUMNS or bank.rows * bank.columns > _MOST_CELLS:  # groups are listed, and drawn as a whole
        raise ValueError(
            f"a bank of {bank.rows} x {bank.columns} cells; {_MOST_COLUMNS} columns and {_MOST_CELLS} cells are the most"
        )
    return structure


def make_table(record: Any) -> dict[str, Any]:
    """Return a term, law or constant as a table: every field that is not None."""
    kinds = {ErrorTerm: "errors", LevelTerm: "levels", TimeLaw: "retention", LevelLaw: "levels"}
    kind = {"kind": kinds[type(record)]} if type(record) in kinds else {}
    values = {_SAVED_NAMES.get(each.name, each.name): getattr(record, each.name) for each in fields(record)}
    nested = {name: make_table(value) if hasattr(value, "__dataclass_fields__") else value for name, value in values.items()}
    return {**kind, **{name: value for name, value in nested.items() if value is not None}}
