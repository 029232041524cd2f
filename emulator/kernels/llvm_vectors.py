"""LLVM vectors, as the generators of kernels emit them."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils

I64, I32, I16, I8 = (ir.IntType(bits) for bits in (64, 32, 16, 8))
F32 = ir.FloatType()


def call(builder: Any, name: str, result: Any, *args: Any) -> Any:
    kind = ir.FunctionType(result, [arg.type for arg in args])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), args)


def broadcast(builder: Any, value: Any, vector: Any) -> Any:
    undefined = ir.Constant(vector, ir.Undefined)
    lone = builder.insert_element(undefined, value, ir.Constant(I32, 0))
    return builder.shuffle_vector(lone, undefined, ir.Constant(ir.VectorType(I32, vector.count), [0] * vector.count))


def load(builder: Any, base: Any, offset: Any, kind: Any, align: int = 0) -> Any:
    loaded = builder.load(builder.inttoptr(builder.add(base, offset), kind.as_pointer()))
    loaded.align = align or (4 if getattr(kind, "element", kind) == I32 else 8)
    return loaded
