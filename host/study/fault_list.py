"""Fault lists: every flip of a study as a table that can be saved, compared, edited and replayed.

One row per flipped cell and read: sweep_value, trial, read, tensor, element, bit, stored, read_back. `read` is the read's number
in its trial (0 for `load`, the batch, the image, or image x pixels + pixel; of a buffer, called `buffer:NAME` or
`accumulator:NAME`, always the image). `element` counts in the order of the memory, in which a layer's weights are sorted by
output channel: element e of a MatMul's weight (K, N) is weight[e % K, e // K] in the file. `bit` 0 is the least significant. A
header (Parquet metadata, or the first line of a CSV file after `# weakcell-faults `) holds the study that made the list.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import numpy.typing as npt

from weakcell.emulator.ir.faultable import storable
from weakcell.emulator.ir.network import Network
from weakcell.emulator.ir.values import Buffer, encode_values
from weakcell.memmodels.address import set_bits
from weakcell.memmodels.atomic_files import write_atomically
from weakcell.memmodels.errors import InputError, UsageError
from weakcell.memmodels.files import parse_json, reason

if TYPE_CHECKING:
    import polars as pl

    from weakcell.emulator.evaluation.trials import TrialResult
    from weakcell.emulator.plan.plan import Plan
    from weakcell.host.study.study import Point

FORMAT = 1
COLUMNS = ("sweep_value", "trial", "read", "tensor", "element", "bit", "stored", "read_back")
_CSV_HEAD = "# weakcell-faults "
_LONGEST_HEAD = 64 << 20
_REQUIRED = ("tensor", "element", "bit", "stored", "read_back")


@dataclass(frozen=True, eq=False)
class FaultRows:
    """The flips of one trial at one point: parallel arrays, ascending by read, tensor, element, bit.

    Attributes:
        value: The swept value of the point.
        trial: The trial.
        names: All tensors and buffers of the network.
        read: The number of the read in the trial.
        tensor: Index in `names`.
        element: The element of the tensor.
        bit: The bit of the element, 0 the least significant.
        stored: The stored bit; the read returned the other.
    """

    value: float | None
    trial: int
    names: tuple[str, ...]
    read: npt.NDArray[np.int64]
    tensor: npt.NDArray[np.uint32]
    element: npt.NDArray[np.int64]
    bit: npt.NDArray[np.uint8]
    stored: npt.NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.read)


def collect_fault_rows(plan: Plan, point: Point, result: TrialResult) -> FaultRows:
    """Return the recorded flips of a trial as rows."""
    names = tuple(plan.storable)
    parts: list[tuple[npt.NDArray[Any], ...]] = []
    for fault in result.faults:
        cells = set_bits(fault.flips)
        planes = np.array(fault.slot.planes, dtype=np.int64)
        element, bit = cells // len(planes), planes[cells % len(planes)]
        stored = (fault.written[cells >> 6] >> (cells & 63).astype(np.uint64)) & np.uint64(1)
        shared = np.full(len(cells), fault.read), np.full(len(cells), names.index(fault.slot.tensor))
        parts.append((*shared, element, bit, stored))
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)] if parts else [np.empty(0, np.int64)] * 5
    order = np.lexsort((columns[3], columns[2], columns[1], columns[0]))
    types = (np.int64, np.uint32, np.int64, np.uint8, np.uint8)
    read, tensors, elements, bits, stored_bits = (column[order].astype(dtype) for column, dtype in zip(columns, types, strict=True))
    return FaultRows(point.value, result.trial, names, read, tensors, elements, bits, stored_bits)


def fault_table(rows: Sequence[FaultRows]) -> pl.DataFrame:
    """Return all rows in one frame, in the order given."""
    import polars as pl

    names = rows[0].names if rows else ()
    tensors = pl.Series(names, dtype=pl.Enum(names))
    frames = [
        pl.DataFrame(
            {
                "sweep_value": pl.repeat(part.value, len(part), dtype=pl.Float64, eager=True),
                "trial": pl.repeat(part.trial, len(part), dtype=pl.Int64, eager=True),
                "read": part.read,
                "tensor": tensors.gather(part.tensor),
                "element": part.element,
                "bit": part.bit,
                "stored": part.stored,
                "read_back": part.stored ^ 1,
            }
        )
        for part in rows
    ]
    return pl.concat(frames)


def save_faults(path: Path, rows: Sequence[FaultRows], identity: dict[str, object]) -> None:
    """Write a list with the study's identity as its header; `.parquet` or `.csv`. OutputError if it cannot be written."""
    check_suffix(path)
    from weakcell.host.table_files import guard_json, write_csv

    table, header = fault_table(rows), json.dumps({"format": FORMAT, **identity})
    if path.suffix == ".parquet":
        write_atomically(path, lambda file: table.write_parquet(file, metadata={"weakcell-faults": header}))
        return

    def write(file: BinaryIO) -> None:
        file.write(f"{_CSV_HEAD}{guard_json(header)}\n".encode())
        write_csv(table, file)

    write_atomically(path, write)


def check_suffix(path: Path) -> None:
    """UsageError unless the file's name ends in .parquet or .csv."""
    if path.suffix not in (".parquet", ".csv"):
        raise UsageError(f"Fault list {path}", f"its name ends in {path.suffix or 'nothing'!r}", "End it in .parquet or .csv")


@dataclass(frozen=True, eq=False)
class FaultList:
    """A fault list that was read; `header` is the identity of the study that made it, None for a list made by hand."""

    path: Path
    header: dict[str, Any] | None
    rows: dict[tuple[float | None, int, str], FaultsOfTensor]

    @property
    def trials(self) -> int:
        """One more than the highest trial in the list."""
        return 1 + max((trial for _, trial, _ in self.rows), default=0)

    @property
    def values(self) -> tuple[float | None, ...]:
        """The swept values in the list, ascending."""
        return tuple(sorted({value for value, _, _ in self.rows}, key=lambda value: (value is not None, value or 0.0)))

    @property
    def tensors(self) -> tuple[str, ...]:
        """The tensors in the list, in the order of their first row."""
        return tuple(dict.fromkeys(name for _, _, name in self.rows))

    def check(self, network: Network) -> None:
        """InputError if a row names a cell that the network does not have, or one of a tensor that stores another bit."""
        items = storable(network)
        for (_, _, name), part in self.rows.items():
            tensor = items.get(name)
            if tensor is None:
                raise self._refusal(f"{name!r} is no tensor of {network.name}, which has {', '.join(network.tensors)}")
            elements, bits = tensor.elements, tensor.encoding.bits
            outside = (part.element < 0) | (part.element >= elements) | (part.bit < 0) | (part.bit >= bits)
            if outside.any():
                i = int(outside.argmax())
                size = f"{elements} elements of {bits} bits"
                raise self._refusal(f"{name} has {size}, but a row names element {part.element[i]} bit {part.bit[i]}")
            if isinstance(tensor, Buffer):
                continue
            codes = encode_values(tensor.values, tensor.encoding)
            held = (codes[part.element] >> part.bit.astype(np.uint64)) & np.uint64(1)
            if (wrong := held != part.stored).any():
                i = int(wrong.argmax())
                raise self._refusal(
                    f"element {part.element[i]} bit {part.bit[i]} of {name} stores {held[i]}, the list says {part.stored[i]}"
                )

    def flips(self, value: float | None, trial: int, tensor: str, read: int) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Return (elements, bits) that are inverted at one read."""
        part = self.rows.get((value, trial, tensor))
        if part is None:
            return np.empty(0, np.int64), np.empty(0, np.int64)
        first, last = np.searchsorted(part.read, (read, read + 1))
        return part.element[first:last], part.bit[first:last]

    def _refusal(self, found: str) -> InputError:
        return InputError(f"Replaying {self.path}", found, "Replay a list on the network that it was made with")


@dataclass(frozen=True, eq=False)
class FaultsOfTensor:
    """The flips of one tensor in one trial: parallel arrays, ascending by read."""

    read: npt.NDArray[np.int64]
    element: npt.NDArray[np.int64]
    bit: npt.NDArray[np.int64]
    stored: npt.NDArray[np.uint64]


def load_faults(path: Path) -> FaultList:
    """Read a list; InputError if it is damaged, lacks a column, or says something twice."""
    check_suffix(path)
    import polars as pl

    from weakcell.host.table_files import open_table, read_parquet, restore_text

    header: dict[str, Any] | None = None
    try:
        if path.suffix == ".parquet":
            with open_table(path) as file:
                table = read_parquet(file)
                file.seek(0)
                text = pl.read_parquet_metadata(file).get("weakcell-faults")
        else:
            with open_table(path) as file:
                line = file.readline(_LONGEST_HEAD).decode("utf-8")
                text = line[len(_CSV_HEAD) :] if line.startswith(_CSV_HEAD) else None
                if text is None:
                    file.seek(0)
                rows = io.BytesIO(file.read())  # versions of polars differ in whether they heed the position in a file
                table = pl.read_csv(rows, infer_schema_length=None)
                if "tensor" in table.columns:
                    table = table.with_columns(restore_text("tensor"))
        header = parse_json(text) if text else None
        if header is not None and not isinstance(header, dict):
            raise ValueError("its header is no table")
        missing = [name for name in _REQUIRED if name not in table.columns]
        if missing:
            raise ValueError(f"it has no column {', '.join(missing)}")
        table = _complete(table)
    except (OSError, ValueError, TypeError, RecursionError, MemoryError, pl.exceptions.PolarsError) as error:
        raise InputError(f"Reading the fault list {path}", reason(error), "Bring a list that --save-faults wrote") from error
    if header is not None and header.get("format") != FORMAT:
        found = f"its format is {header.get('format')}"
        raise InputError(f"Reading the fault list {path}", found, f"This version reads format {FORMAT}")
    return FaultList(path, header, _split(path, table))


def _complete(table: pl.DataFrame) -> pl.DataFrame:
    """Return all columns, typed and sorted. A list made by hand may leave out point, trial and read: they are the first."""
    import polars as pl

    absent: dict[str, pl.Expr] = {
        "sweep_value": pl.lit(None), "trial": pl.lit(0), "read": pl.lit(0),
    }  # fmt: skip
    table = table.with_columns(**{name: value for name, value in absent.items() if name not in table.columns})
    whole = [pl.col(name).cast(pl.Int64) for name in COLUMNS if name not in ("sweep_value", "tensor")]
    table = table.select(pl.col("sweep_value").cast(pl.Float64), pl.col("tensor").cast(pl.String), *whole)
    if table.select(pl.exclude("sweep_value")).null_count().sum_horizontal().item():
        raise ValueError("it has empty cells")
    bits = table.select(((pl.col("stored") + pl.col("read_back")) != 1).any() | (pl.col("stored") * pl.col("read_back") != 0).any())
    if len(table) and bits.item():
        raise ValueError("stored and read_back of a row are not 0 and 1, or 1 and 0")
    keys = ["sweep_value", "trial", "tensor", "read", "element", "bit"]
    if table.select(keys).is_duplicated().any():
        raise ValueError("it names one flip twice")
    return table.sort(keys, nulls_last=False)


def _split(path: Path, table: pl.DataFrame) -> dict[tuple[float | None, int, str], FaultsOfTensor]:
    parts: dict[tuple[float | None, int, str], FaultsOfTensor] = {}
    for (value, trial, tensor), part in table.group_by(["sweep_value", "trial", "tensor"], maintain_order=True):
        arrays = {name: part[name].to_numpy() for name in ("read", "element", "bit", "stored")}
        parts[value, trial, tensor] = FaultsOfTensor(  # type: ignore[index]
            arrays["read"], arrays["element"], arrays["bit"], arrays["stored"].astype(np.uint64)
        )
    return parts
