"""Argument records of the kernels.

Numba passes a NamedTuple as its fields, so a record costs nothing in machine code. Fields called `*_ptr` are addresses (int64).
This module does not need Numba.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from weakcell.emulator.kernels.weight_layouts import LANES

SCALE, BIAS, OUT_SCALE, LOW, HIGH, ZERO = range(6)
"""Rows of a micropanel's rounding constants, float32 (6, LANES): see `epilogues.store_codes`."""

ROUNDING_BYTES = 6 * LANES * 4
"""Bytes of one micropanel's rounding constants."""

DIVIDED, BOUNDED = 1, 2
"""Rounding flags: see `epilogues.store_codes`."""

# --- what Python passes to an entry kernel -----------------------------------------------------------------------------------


class ConvContext(NamedTuple):
    """Geometry and constants of one convolution, for the weights as they are."""

    geometry: Any
    """((kh, kw), (sh, sw), (dh, dw), pads): kernel size, stride and dilation; x already contains the padding."""
    groups: int
    """Groups of the convolution."""
    pooled: bool
    """Whether `row_table` lists the output pixels pool by pool, so that a sign kernel joins POOL of them by OR."""
    inputs_per_tap: int
    """Input channels of a group: values that one tap of the window reads."""
    border_patterns: Any
    """bool (patterns, taps): which taps of the window lie inside the image. One full pattern except for PackedInt1."""
    row_table: Any
    """int64 (2, output pixels of an image): byte offset of each pixel's window in its image, and its border pattern."""
    input_zero_point: int
    """The stored activation that means 0."""
    weight_zero_points: Any
    """int32 (O,): the stored weight that means 0."""
    bias: Any
    """int32 (O,)."""


class Rounding(NamedTuple):
    """Requantization of int32 sums to bytes: see `epilogues.store_codes`."""

    constants: Any
    """float32 (panels, 6, LANES); no panels if the sums stay int32."""
    flags: int
    """DIVIDED, BOUNDED, both or 0."""


class Epilogue(NamedTuple):
    """Everything that is done to the sums of a convolution."""

    offsets: Any
    """int32 (patterns, panels * LANES): added to every sum, see `conv.fill_offsets`."""
    rounding: Rounding


class FaultSource(NamedTuple):
    """Weights that a kernel reads from an unreliable memory."""

    sources: Any
    """(R,) records of type SOURCE: the memory's read errors in each region."""
    targets: Any
    """(R,) records of type FLIP_TARGET: where each region's cells lie in the kernel's weights."""
    trial: int
    first_image: int
    """Number of the first image in the data set."""
    per_pixel: bool
    """Whether weights are read for each output pixel instead of each image."""
    counts: Any
    """int64 (R,): incremented by the flips drawn in each region."""


FLIP_TARGET = np.dtype(
    [
        (name, np.int64)
        for name in (
            "write",  # number of the write
            "fault_free_ptr",  # values without flips, in kernel order
            "values_ptr",  # values that the kernel reads
            "size",  # bytes of both
            "stale_ptr",  # uint8: parts of the values that hold flips: each micropanel if `flat`, else the first byte for all
            "leads",  # whether this is the first region of its tensor, which removes the flips of the previous read
            "flat",  # see `StorageOrder.flat`
            "words",  # 64-bit words of an output channel, if `flat`
            "channels",  # output channels
            "outer_ptr",  # int64 (channels,), see `StorageOrder`
            "channel_size",  # elements of an output channel; its bits, if `flat`
            "inner_ptr",  # int64 (channel_size,)
            "cells",  # cells of an element in this region
            "masks_ptr",  # int64 (cells,): what a flip of each cell changes
        )
    ]
)
"""Where the cells of a region lie in the values that a kernel reads."""


class ReadSequence(NamedTuple):
    """Numbered reads of one region."""

    sources: Any
    """(1,) record of type SOURCE."""
    trial: int
    write: int
    numbers: Any
    """int64 (reads,): the number of each read."""


GUIDE_BITS = 6
"""Leading bits of a random word that index the guide table of a MismatchDistribution."""


class SampledRows(NamedTuple):
    """Where sampling of a convolution's signs begins, and why it stopped."""

    begin: int
    """First row."""
    outside: Any
    """int64 (2,), written: the fewest and most fault-free mismatches of rows that the tables do not cover."""


class MismatchModel(NamedTuple):
    """Distribution of the mismatches of one output, given its fault-free mismatches.

    Errors come in two steps. Cells that store `stored_value` err first, by `extra`; then all cells err, by `base`.
    """

    bits: int
    """Cells of one sum."""
    ones: Any
    """int64 (R,): inputs that are 1 in each row; not read if `stored_value` is -1."""
    weight_ones: Any
    """int64 (O,): weights that are 1 in each output channel; not read if `stored_value` is -1."""
    base: Any
    """MismatchDistribution of all cells."""
    extra: Any
    """MismatchDistribution of the cells that store `stored_value`."""
    stored_value: int
    """0 or 1; -1 if all cells have the same error rate."""


class FloatSteps(NamedTuple):
    """Float steps of a requantization, and its divisor."""

    operators: Any
    """int64 (steps,): positions in `ir.layers.STEP_OPERATORS`."""
    constants: Any
    """float32 (steps, C)."""
    divisor: Any
    """float32 (1,); 1 changes nothing."""


class CodeRange(NamedTuple):
    """Output codes clamp(rint(y) + zero_point, low, high)."""

    zero_point: int
    low: int
    high: int


# --- what one micro-kernel call gets -----------------------------------------------------------------------------------------


class Runs(NamedTuple):
    """The contiguous runs of a window: see `indirection.contiguous_runs`."""

    offsets: Any
    """int64 (runs,): byte offset of each run from the window's address."""
    words: int
    """Weight words of each run. For depthwise weights: SLIDING or 1."""


class TileOperands(NamedTuple):
    """Operands of one tile's multiplication; all fields are int64."""

    inputs_ptr: Any
    """Address of int64 [mr]: the address of each row's window of activations (or of its carry-save chain)."""
    weights_ptr: Any
    """Address of one micropanel (or of its carry-save chain)."""
    runs_ptr: Any
    """Address of int64 [runs]: `Runs.offsets`. Not read for carry-save chains."""
    runs: Any
    run_words: Any
    """`Runs.words`; for carry-save chains the words of a chain."""


class ValueEpilogue(NamedTuple):
    """Epilogue of one tile that stores int32 sums or rounded bytes; all int64."""

    init_ptr: Any
    """Address of int64 [mr]: for each row the address of int32 [LANES], added to its sums."""
    rounding_ptr: Any
    """Address of float32 [6][LANES]; not read if the output is int32."""
    rounding_flags: Any
    outputs_ptr: Any
    """Address of int64 [mr]: for each row the address of its LANES outputs."""


class SignEpilogue(NamedTuple):
    """Epilogue of one tile that stores one bit per sum; all fields are int64."""

    limits_ptr: Any
    """Address of int64 [mr]: for each row the address of LANES limits, as wide as a sum."""
    outputs_ptr: Any
    """Address of int64 [mr / pool]: for each output pixel the address of LANES / 8 bytes."""


class MatrixOperands(NamedTuple):
    """Operands of one product of matrix tiles (`matrix_tiles.py`); all fields are int64."""

    rows_ptr: Any
    """Address of int64 [2][3]: for 16 rows the address of the first, the bytes between rows, and the address of int64 [blocks],
    the byte offset of each block of inputs."""
    weights_ptr: Any
    """Address of one micropanel in the order of Int8x4, in whole blocks."""
    init_ptr: Any
    """Address of int32 [LANES]: the initial sums."""
    blocks: Any
    """Blocks of 64 inputs."""
    sums_ptr: Any
    """Address of int32 [TILED_ROWS][LANES], written."""
