"""The micro-kernel of processors with matrix tiles (AMX): 32 rows of activations times one micropanel, by `tdpbusd`.

    sums[r][lane] = init[lane] + sum over k of x[r][k] * w[k][lane]          r < TILED_ROWS, lane < LANES

A tile has 16 rows of 64 bytes. Four tiles hold the sums of 2 x 16 rows and 2 x 16 lanes. Two hold activations and two hold
weights, so each loaded tile is used twice. One *block* of k is 64 bytes of activations. Weights in the order of Int8x4 need no
packing: 16 words of 16 lanes are a tile. `tile_packing.py` makes rows and panels of other layouts.

Sums go through memory to the epilogues of the other micro-kernels, which read a few rows at a time.

The state of tiles belongs to a thread. It is set up at the beginning of a kernel and released at its end, since other libraries use
tiles, too. The system must have given permission (`native/tile_permission.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from weakcell.emulator.kernels.arguments import MatrixOperands, TileOperands
from weakcell.emulator.kernels.isa import (
    I8,
    I32,
    I64,
    broadcast,
    call,
    emit_multiply_accumulate,
    i64,
    load,
    store,
    undo_packing_shift,
)
from weakcell.emulator.kernels.microkernel import Sums, make_sign_microkernel, make_value_microkernel, tile_shape
from weakcell.emulator.kernels.weight_layouts import LANES, Int8x4, PackedInt1
from weakcell.memmodels.native.tile_permission import choose_tiles

TILES = choose_tiles().tiles
"""What computes matrix products in the code of this process."""

HAS_TILES = TILES != "none"
"""Whether kernels have a path for tiles. A kernel asks this first, so that Numba leaves the path out where there is none."""

TILE_ROWS = 16
"""Rows of a tile."""

TILED_ROWS = 2 * TILE_ROWS
"""Rows of one product."""

BLOCK = 64
"""Bytes of a tile's row: the inputs of one block."""

_VOID = ir.VoidType()
_ROW = ir.VectorType(I32, BLOCK // 4)
_PANEL_ROW = LANES * 4
_INPUTS, _WEIGHTS = (4, 5), (6, 7)
"""Numbers of the tiles that are loaded; tile 2 i + j holds the sums of rows 16 i … and lanes 16 j …."""


class _AmxTiles:
    """The instructions of AMX. Tile numbers are parts of instructions."""

    def __init__(self, builder: Any) -> None:
        self._builder = builder

    def load(self, tile: int, address: Any, row_bytes: Any) -> None:
        """Load 16 rows that are `row_bytes` apart."""
        call(self._builder, "llvm.x86.tileloadd64", _VOID, I8(tile), self._pointer(address), row_bytes)

    def store(self, tile: int, address: Any, row_bytes: Any) -> None:
        """Store 16 rows, `row_bytes` apart."""
        call(self._builder, "llvm.x86.tilestored64", _VOID, I8(tile), self._pointer(address), row_bytes)

    def multiply(self, sums: int, inputs: int, weights: int) -> None:
        """Add the products of unsigned and signed bytes."""
        call(self._builder, "llvm.x86.tdpbusd", _VOID, I8(sums), I8(inputs), I8(weights))

    def _pointer(self, address: Any) -> Any:
        return self._builder.inttoptr(address, I8.as_pointer())


class _SoftwareTiles:
    """The same operations as loops over memory, for tests on any processor."""

    def __init__(self, builder: Any) -> None:
        self._builder = builder
        room = cgutils.alloca_once(builder, I64, size=TILE_ROWS * BLOCK)  # eight tiles
        self._state = builder.ptrtoint(room, I64)

    def load(self, tile: int, address: Any, row_bytes: Any) -> None:
        """Load 16 rows that are `row_bytes` apart."""
        self._call("copy_tile", _emit_copy, address, row_bytes, self._tile(tile), i64(BLOCK))

    def store(self, tile: int, address: Any, row_bytes: Any) -> None:
        """Store 16 rows, `row_bytes` apart."""
        self._call("copy_tile", _emit_copy, self._tile(tile), i64(BLOCK), address, row_bytes)

    def multiply(self, sums: int, inputs: int, weights: int) -> None:
        """Add the products of unsigned and signed bytes."""
        self._call("multiply_tile", _emit_product, *map(self._tile, (sums, inputs, weights)))

    def _tile(self, tile: int) -> Any:
        return self._builder.add(self._state, i64(tile * TILE_ROWS * BLOCK))

    def _call(self, name: str, emit: Callable[..., None], *args: Any) -> None:
        """Call a function of int64 arguments. Inlined and unrolled, its loops would make large kernels."""
        kind = ir.FunctionType(_VOID, [I64] * len(args))
        function = cgutils.get_or_insert_function(self._builder.module, kind, f"weakcell_{name}")
        if not function.blocks:
            function.linkage = "linkonce_odr"
            for attribute in ("noinline", "optnone"):
                function.attributes.add(attribute)
            builder = ir.IRBuilder(function.append_basic_block())
            emit(builder, *function.args)
            builder.ret_void()
        self._builder.call(function, args)


def _emit_copy(builder: Any, source: Any, source_row: Any, target: Any, target_row: Any) -> None:
    """Copy 16 rows of 64 bytes."""
    with cgutils.for_range(builder, i64(TILE_ROWS)) as row:
        values = load(builder, source, builder.mul(row.index, source_row), _ROW, align=1)
        store(builder, values, builder.add(target, builder.mul(row.index, target_row)), 1)


def _emit_product(builder: Any, sums: Any, inputs: Any, weights: Any) -> None:
    """Add the products of two tiles to a third, in memory."""
    with cgutils.for_range(builder, i64(TILE_ROWS)) as row, cgutils.for_range(builder, i64(BLOCK // 4)) as quad:
        row_offset = builder.mul(row.index, i64(BLOCK))
        x = load(builder, inputs, builder.add(row_offset, builder.mul(quad.index, i64(4))), I32)
        w = load(builder, weights, builder.mul(quad.index, i64(BLOCK)), _ROW, align=1)
        total = load(builder, sums, row_offset, _ROW, align=1)
        total = emit_multiply_accumulate(builder, Int8x4, total, broadcast(builder, x, _ROW), w)
        store(builder, total, builder.add(sums, row_offset), 1)


@intrinsic  # type: ignore[untyped-decorator]
def set_up_tiles(typingctx):  # type: ignore[no-untyped-def]
    """set_up_tiles() -> int64: give this thread eight tiles of 16 rows of 64 bytes."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        if TILES == "amx":
            row_bytes = [BLOCK if byte % 2 == 0 else 0 for byte in range(16)]  # uint16 each
            content = bytes([1, *[0] * 15, *row_bytes, *[0] * 16, *[TILE_ROWS] * 8, *[0] * 8])
            words = [int.from_bytes(content[i : i + 4], "little") for i in range(0, len(content), 4)]
            room = cgutils.alloca_once_value(builder, ir.Constant(_ROW, words))
            call(builder, "llvm.x86.ldtilecfg", _VOID, builder.bitcast(room, I8.as_pointer()))
        return i64(0)

    return types.int64(), codegen


@intrinsic  # type: ignore[untyped-decorator]
def release_tiles(typingctx):  # type: ignore[no-untyped-def]
    """release_tiles() -> int64: end the use of tiles in this thread."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        if TILES == "amx":
            call(builder, "llvm.x86.tilerelease", _VOID)
        return i64(0)

    return types.int64(), codegen


@intrinsic  # type: ignore[untyped-decorator]
def multiply_tiles(typingctx, operands):  # type: ignore[no-untyped-def]
    """multiply_tiles(operands) -> int64: compute TILED_ROWS x LANES sums; operands: MatrixOperands."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        operand = MatrixOperands(*cgutils.unpack_tuple(builder, args[0]))
        tiles = _AmxTiles(builder) if TILES == "amx" else _SoftwareTiles(builder)
        rows = [[load(builder, operand.rows_ptr, i64(8 * (3 * i + field)), I64) for field in range(3)] for i in range(2)]
        halves = [(i, j) for i in range(2) for j in range(2)]
        for i, j in halves:  # rows that are 0 bytes apart: the same initial sums in all of them
            tiles.load(2 * i + j, builder.add(operand.init_ptr, i64(BLOCK * j)), i64(0))
        with cgutils.for_range(builder, operand.blocks) as block:
            for tile, (first, row_bytes, offsets_ptr) in zip(_INPUTS, rows, strict=True):
                offset = load(builder, offsets_ptr, builder.mul(block.index, i64(8)), I64)
                tiles.load(tile, builder.add(first, offset), row_bytes)
            weights_ptr = builder.add(operand.weights_ptr, builder.mul(block.index, i64(TILE_ROWS * _PANEL_ROW)))
            for j, tile in enumerate(_WEIGHTS):
                tiles.load(tile, builder.add(weights_ptr, i64(BLOCK * j)), i64(_PANEL_ROW))
            for i, j in halves:
                tiles.multiply(2 * i + j, _INPUTS[i], _WEIGHTS[j])
        for i, j in halves:
            corner = builder.add(operand.sums_ptr, i64(TILE_ROWS * _PANEL_ROW * i + BLOCK * j))
            tiles.store(2 * i + j, corner, i64(_PANEL_ROW))
        return i64(0)

    return types.int64(operands), codegen


def _emit_finished_sums(builder: Any, operands: TileOperands, layout: type, pooled: bool = False) -> Iterator[tuple[Sums, int]]:
    """Load the finished sums of mr rows; `operands.inputs_ptr` is the address of int32 [mr][LANES]. See `microkernel.EmitSums`."""
    shape, vector = tile_shape(layout, pooled), ir.VectorType(I32, tile_shape(layout, pooled).lanes)

    def finished(row: int, lane: int) -> Any:
        total = load(builder, operands.inputs_ptr, i64((row * LANES + lane) * 4), vector)
        wide = ir.VectorType(I64, shape.lanes)
        return builder.sext(total, wide) if layout is PackedInt1 else undo_packing_shift(builder, layout, total)

    for first in range(0, LANES, shape.vectors * shape.lanes):
        lanes = [first + v * shape.lanes for v in range(shape.vectors)]
        yield [[finished(row, lane) for lane in lanes] for row in range(shape.mr)], first


finish_values = make_value_microkernel(_emit_finished_sums)
"""The epilogue of `microkernel.value_microkernel` on finished sums."""

finish_signs, finish_pooled_signs = (
    make_sign_microkernel(partial(_emit_finished_sums, pooled=pooled), pooled) for pooled in (False, True)
)
"""The epilogues of `microkernel.sign_microkernel` on finished sums."""
