"""Arrays by address, inside compiled code.

An array that is handed to a compiled function costs seven registers and, at times, a count of references up and down; a block of
few flips is drawn in the time of a handful of those. So what is called per block hands on addresses, and looks at them as arrays.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numba.np.arrayobj import populate_array

_I64 = ir.IntType(64)


@intrinsic  # type: ignore[untyped-decorator]
def address_of(typingctx, array):  # type: ignore[no-untyped-def]
    """Where the data of an array lie: int64. The caller keeps the array."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.ptrtoint(context.make_array(array)(context, builder, args[0]).data, _I64)

    return types.int64(array), codegen


@intrinsic  # type: ignore[untyped-decorator]
def words_at(typingctx, address, count):  # type: ignore[no-untyped-def]
    """The `count` words at an address, as a contiguous array of uint64 that owns nothing: (int64, int64) -> array."""
    kind = types.Array(types.uint64, 1, "C")

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        view, size = context.make_array(kind)(context, builder), ir.Constant(_I64, 8)
        populate_array(view, builder.inttoptr(args[0], view.data.type), [args[1]], [size], size, None)
        return view._getvalue()

    return kind(types.int64, types.int64), codegen
