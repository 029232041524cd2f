"""Arrays by address, inside compiled code.

An array that is handed to a compiled function costs seven registers and, at times, a count of references up and down; a block of
few flips is drawn in the time of a handful of those. So what is called per block hands on addresses, and looks at them as arrays.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import populate_array

_I64 = ir.IntType(64)


@intrinsic  # type: ignore[untyped-decorator]
def address_of(typingctx, array):  # type: ignore[no-untyped-def]
    """Where the data of an array lie: int64. The caller keeps the array."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.ptrtoint(context.make_array(array)(context, builder, args[0]).data, _I64)

    return types.int64(array), codegen


def records_at(kind: Any) -> Any:
    """An intrinsic record(address, index): a record of a numba type, as it lies in memory: (int64, int64) -> record."""

    @intrinsic  # type: ignore[untyped-decorator]
    def record(typingctx, address, index):  # type: ignore[no-untyped-def]
        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            place = builder.add(args[0], builder.mul(args[1], ir.Constant(_I64, kind.size)))
            return builder.inttoptr(place, context.get_value_type(kind))

        return kind(types.int64, types.int64), codegen

    return record


@intrinsic  # type: ignore[untyped-decorator]
def words_at(typingctx, address, count):  # type: ignore[no-untyped-def]
    """The `count` words at an address, as a contiguous array of uint64 that owns nothing: (int64, int64) -> array."""
    kind = types.Array(types.uint64, 1, "C")

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        view, size = context.make_array(kind)(context, builder), ir.Constant(_I64, 8)
        populate_array(view, builder.inttoptr(args[0], view.data.type), [args[1]], [size], size, None)
        return view._getvalue()

    return kind(types.int64, types.int64), codegen


@intrinsic  # type: ignore[untyped-decorator]
def move_bytes(typingctx, to, source, count):  # type: ignore[no-untyped-def]
    """Copy `count` bytes from one address to another; the two may overlap: (int64, int64, int64) -> int64."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        to, source = (builder.inttoptr(address, ir.IntType(8).as_pointer()) for address in args[:2])
        cgutils.raw_memmove(builder, to, source, args[2], 1)
        return args[2]

    return types.int64(*[types.int64] * 3), codegen
