"""Arrays by address, inside compiled code.

Passing an array to a compiled function copies a descriptor of seven words and may touch its reference count. For blocks with few
flips that dominates the cost. So functions that run once per block take addresses (`*_ptr`) and view them as arrays.
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
def data_ptr(typingctx, array):  # type: ignore[no-untyped-def]
    """Return the address of an array's data, int64. The caller must keep the array alive."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.ptrtoint(context.make_array(array)(context, builder, args[0]).data, _I64)

    return types.int64(array), codegen


def records_at(kind: Any) -> Any:
    """Return an intrinsic record(pointer, index) -> record of the Numba type `kind`, in place: (int64, int64) -> record."""

    @intrinsic  # type: ignore[untyped-decorator]
    def record(typingctx, pointer, index):  # type: ignore[no-untyped-def]
        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            address = builder.add(args[0], builder.mul(args[1], ir.Constant(_I64, kind.size)))
            return builder.inttoptr(address, context.get_value_type(kind))

        return kind(types.int64, types.int64), codegen

    return record


def _elements_at(element: Any) -> Any:
    """Return an intrinsic view(pointer, count): a contiguous array at an address that owns nothing: (int64, int64) -> array."""
    kind, bytes_each = types.Array(element, 1, "C"), element.bitwidth // 8

    @intrinsic  # type: ignore[untyped-decorator]
    def view(typingctx, pointer, count):  # type: ignore[no-untyped-def]
        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            array, size = context.make_array(kind)(context, builder), ir.Constant(_I64, bytes_each)
            populate_array(array, builder.inttoptr(args[0], array.data.type), [args[1]], [size], size, None)
            return array._getvalue()

        return kind(types.int64, types.int64), codegen

    return view


words_at = _elements_at(types.uint64)
"""View `count` uint64 words at an address."""
integers_at, shorts_at, bytes_at = _elements_at(types.int64), _elements_at(types.uint16), _elements_at(types.uint8)
"""The same for int64, uint16 and uint8. `array.view` does this too, but takes half a second to compile."""


@intrinsic  # type: ignore[untyped-decorator]
def move_bytes(typingctx, to_ptr, from_ptr, count):  # type: ignore[no-untyped-def]
    """Copy `count` bytes between two addresses; the two ranges may overlap: (int64, int64, int64) -> int64."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        to, source = (builder.inttoptr(address, ir.IntType(8).as_pointer()) for address in args[:2])
        cgutils.raw_memmove(builder, to, source, args[2], 1)
        return args[2]

    return types.int64(*[types.int64] * 3), codegen
