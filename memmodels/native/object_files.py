"""Compile a function to an object file that needs no Numba at run time.

Numba compiles `entry(address)`, which reads the arguments from the address and calls the function. Usually it optimizes every
function, links it into its callers, and optimizes those again: a function is optimized once for each level above it, and gets
machine code at each. `defer_optimization` puts that off. Here, LLVM IR of all functions is linked once, with the few functions of
Numba's runtime that arrays within kernels need, and optimized once. Everything but `entry` is private to the object file. Other
symbols are looked up in the process when the file is loaded.

Only a compiler process (`compiler_process.py`) may use this file: Numba cannot call what it compiles any more.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numba
import numpy as np
from llvmlite import binding, ir
from numba import _dynfunc, types
from numba.core import config
from numba.core.codegen import JITCodeLibrary
from numba.core.registry import cpu_target
from numba.core.runtime.nrtdynmod import _meminfo_struct_type
from numba.extending import intrinsic, overload
from numba.np import arrayobj
from numba.np.numpy_support import from_dtype

from weakcell.memmodels import compilation
from weakcell.memmodels.native.arguments import C_CONTIGUOUS, FORTRAN_CONTIGUOUS, WRITEABLE

_I64 = ir.IntType(64)

_RUNTIME = """
declare ptr @malloc(i64)
declare void @free(ptr)

define ptr @NRT_MemInfo_alloc_aligned(i64 %size, i32 %align) {
  %wide = zext i32 %align to i64
  %more = add i64 %size, 64
  %room = add i64 %more, %wide
  %info = call ptr @malloc(i64 %room)
  %failed = icmp eq ptr %info, null
  br i1 %failed, label %end, label %fill
fill:
  store i64 1, ptr %info
  %begin = getelementptr i8, ptr %info, i64 64
  %address = ptrtoint ptr %begin to i64
  %mask = sub i64 %wide, 1
  %up = add i64 %address, %mask
  %back = urem i64 %up, %wide
  %data = sub i64 %up, %back
  %pointer = inttoptr i64 %data to ptr
  %place = getelementptr i8, ptr %info, i64 24
  store ptr %pointer, ptr %place
  br label %end
end:
  ret ptr %info
}

define void @NRT_MemInfo_call_dtor(ptr %info) {
  call void @free(ptr %info)
  ret void
}

define i32 @numba_attempt_nocopy_reshape(
    i64 %axes, ptr %shape, ptr %strides, i64 %new_axes, ptr %new_shape, ptr %new_strides, i64 %itemsize, i32 %fortran) {
entry:
  br label %new
new:
  %j = phi i64 [%new_axes, %entry], [%place, %fill]
  %step = phi i64 [%itemsize, %entry], [%wider, %fill]
  %full = icmp eq i64 %j, 0
  br i1 %full, label %filled, label %fill
fill:
  %place = sub i64 %j, 1
  %to = getelementptr i64, ptr %new_strides, i64 %place
  store i64 %step, ptr %to
  %count_at = getelementptr i64, ptr %new_shape, i64 %place
  %count = load i64, ptr %count_at
  %wider = mul i64 %step, %count
  br label %new
filled:
  %empty = icmp eq i64 %step, 0
  br i1 %empty, label %made, label %old
old:
  %i = phi i64 [%axes, %filled], [%before, %next]
  %size = phi i64 [%itemsize, %filled], [%grown, %next]
  %done = icmp eq i64 %i, 0
  br i1 %done, label %made, label %axis
axis:
  %before = sub i64 %i, 1
  %length_at = getelementptr i64, ptr %shape, i64 %before
  %length = load i64, ptr %length_at
  %stride_at = getelementptr i64, ptr %strides, i64 %before
  %stride = load i64, ptr %stride_at
  %dense = icmp eq i64 %stride, %size
  %single = icmp eq i64 %length, 1
  %fits = or i1 %dense, %single
  br i1 %fits, label %next, label %refused
next:
  %grown = mul i64 %size, %length
  br label %old
made:
  ret i32 1
refused:
  ret i32 0
}
"""
"""Numba runtime functions in LLVM IR.

Memory of arrays made within a kernel: a reference count first, the address of the data at byte 24. And `reshape` of contiguous
arrays.
"""


class _DeferredLibrary(JITCodeLibrary):  # type: ignore[misc]
    """The LLVM IR of one function, with Numba's cheap passes; what it calls is linked by `build`."""

    def finalize(self) -> None:
        self._finalized = True


def defer_optimization() -> None:
    """Make Numba compile functions to LLVM IR only, without the wrappers through which Python would call them."""

    def make_placeholder(library: Any, description: Any, environment: Any) -> Any:
        """Return the object that stands for a compiled function; its address is never called."""
        return _dynfunc.make_function(description.lookup_module(), description.qualname, "", 1, environment, (library,))

    compilation.KEEPS_CODE = False
    context = cpu_target.target_context
    context.refresh()  # makes the runtime's own library, which is called
    context.get_executable = make_placeholder
    context.create_cpython_wrapper = context.create_cfunc_wrapper = lambda *arguments, **options: None
    context.codegen()._library_class = _DeferredLibrary


def build(function: Any, kinds: tuple[object, ...], symbol: str) -> bytes | None:
    """Compile a function for arguments of some types.

    Args:
        function: A Numba dispatcher.
        kinds: The types, from `arguments.flatten`.
        symbol: Name of the function in the object file.

    Returns:
        The object file; None if Numba's runtime differs from the one that `_RUNTIME` replaces.
    """
    if str(_meminfo_struct_type) != "{i64, i8*, i8*, i8*, i64}":
        return None
    entry = _make_entry(function, types.BaseTuple.from_types(_numba_types(kinds)))
    entry.compile((types.int64,))
    compiled = entry.overloads[types.int64,]
    module = compiled.library._final_module
    for library in _callees(compiled.library):
        module.link_in(library._final_module, preserve=True)
    module.link_in(binding.parse_assembly(_RUNTIME))
    for value in [*module.functions, *module.global_variables]:
        if not value.is_declaration:
            value.linkage = "internal"
    kernel = module.get_function(compiled.fndesc.llvm_func_name)
    kernel.name, kernel.linkage = symbol, "external"
    compiled.library._optimize_final_module()
    return bytes(_target_machine().emit_object(compiled.library._final_module))


def _callees(library: Any) -> list[Any]:
    """Return the libraries that a library calls, directly or not."""
    callees: dict[Any, None] = {}
    pending = [library]
    while pending:
        for callee in pending.pop()._linking_libraries:
            if callee not in callees:
                callees[callee] = None
                pending.append(callee)
    return list(callees)


def _numba_types(kinds: tuple[object, ...]) -> list[Any]:
    """Return the Numba types that `numba.typeof` gives for arguments of these kinds."""
    words = iter(kinds)
    return [_numba_type(kind, words) for kind in words]


def _numba_type(kind: Any, words: Iterator[Any]) -> Any:
    if isinstance(kind, np.dtype):
        axes, flags = next(words), next(words)
        layout = "C" if flags & C_CONTIGUOUS else "F" if flags & FORTRAN_CONTIGUOUS else "A"
        return types.Array(from_dtype(kind), axes, layout, readonly=not flags & WRITEABLE)
    if issubclass(kind, tuple):
        return types.BaseTuple.from_types([_numba_type(next(words), words) for _ in range(next(words))], kind)
    return {int: types.int64, bool: types.boolean, float: types.float64}.get(kind) or from_dtype(np.dtype(kind))


def _target_machine() -> Any:
    """Return the LLVM target machine for the CPU that Numba generates code for."""
    name = config.CPU_NAME or binding.get_host_cpu_name()
    features = binding.get_host_cpu_features().flatten() if config.CPU_FEATURES is None else config.CPU_FEATURES
    target = binding.Target.from_triple(binding.get_process_triple())
    return target.create_target_machine(cpu=name, features=features, opt=3, jit=True)


def _make_entry(function: Any, kinds: Any) -> Any:
    """Make the function entry(address) that calls `function`.

    kinds: Numba tuple type of the arguments.
    """
    read = _make_reader(kinds)

    @numba.njit(no_cpython_wrapper=True, no_cfunc_wrapper=True)  # type: ignore[untyped-decorator]
    def entry(address):  # type: ignore[no-untyped-def]
        return _to_number(function(*read(address)))

    return entry


def _to_number(result: Any) -> int:
    """Return a function's result as an integer, 0 for None."""
    return int(result or 0)


@overload(_to_number)  # type: ignore[untyped-decorator]
def _compiled_to_number(result):  # type: ignore[no-untyped-def]
    return (lambda result: 0) if isinstance(result, types.NoneType) else (lambda result: np.int64(result))


def _make_reader(kinds: Any) -> Any:
    """Make an intrinsic read(address) that returns a tuple of these types."""

    @intrinsic  # type: ignore[untyped-decorator]
    def read(typingctx, address):  # type: ignore[no-untyped-def]
        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            words = builder.inttoptr(args[0], _I64.as_pointer())
            return _read_value(context, builder, kinds, words, iter(range(1 << 16)))

        return kinds(types.int64), codegen

    return read


def _read_value(context: Any, builder: Any, kind: Any, words: Any, indices: Any) -> Any:
    """Emit the value of a type from the next words; `indices` counts them."""
    if isinstance(kind, types.BaseTuple):
        return context.make_tuple(builder, kind, [_read_value(context, builder, part, words, indices) for part in kind.types])
    word = builder.load(builder.gep(words, [ir.Constant(_I64, next(indices))]))
    if isinstance(kind, types.Array):
        return _read_array(context, builder, kind, word)
    if isinstance(kind, types.Boolean):
        return context.cast(builder, word, types.int64, types.boolean)
    if kind == types.float64:
        return builder.bitcast(word, ir.DoubleType())
    return context.cast(builder, word, types.int64, kind)


def _read_array(context: Any, builder: Any, kind: Any, address: Any) -> Any:
    """Emit an array from the address of its NumPy object.

    The object begins with data, dimensions, shape and strides.
    """
    head = object.__basicsize__

    def field(offset: int) -> Any:
        return builder.load(builder.inttoptr(builder.add(address, ir.Constant(_I64, head + offset)), _I64.as_pointer()))

    def row(offset: int) -> list[Any]:
        values = builder.inttoptr(field(offset), _I64.as_pointer())
        return [builder.load(builder.gep(values, [ir.Constant(_I64, axis)])) for axis in range(kind.ndim)]

    view, shape, strides = arrayobj.make_array(kind)(context, builder), row(16), row(24)
    arrayobj.populate_array(
        view,
        data=builder.inttoptr(field(0), view.data.type),
        shape=shape,
        strides=strides,
        itemsize=context.get_constant(types.intp, context.get_abi_sizeof(context.get_data_type(kind.dtype))),
        meminfo=None,
    )
    return view._getvalue()
