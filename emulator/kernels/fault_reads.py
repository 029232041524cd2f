"""Reads of stored tensors inside a kernel: flips are drawn block by block and put into the kernel's values while they are in cache.

One table says what is drawn in each region (SOURCE of `weakcell.memmodels.sampling.sampler`), another where the region's cells lie
(`arguments.FLIP_TARGET`). Parts without flips in both the previous and the current read are skipped, so the cost of a read is
proportional to its flips.
"""

from __future__ import annotations

import numpy as np

from weakcell.emulator.kernels.fault_scatter import FlatPanels, FlipWords, flip_cells, flip_panel
from weakcell.emulator.kernels.weight_layouts import LANES
from weakcell.memmodels.address import BLOCK_WORDS
from weakcell.memmodels.compilation import compiled
from weakcell.memmodels.sampling.pointers import bytes_at, data_ptr, integers_at, move_bytes
from weakcell.memmodels.sampling.read_errors import block_range, count_bits, draw_block, new_workspace, read_stream, words_in_block


@compiled
def new_read_buffers(targets):  # type: ignore[no-untyped-def]
    """Return a sampling workspace and a buffer of flips.

    Both suffice for all regions of the table.
    """
    longest = 0
    for i in range(targets.size):
        longest = max(longest, targets[i].words)
    return new_workspace(), np.empty(BLOCK_WORDS + LANES * longest + 2, dtype=np.uint64)


@compiled
def _remove_flips(target):  # type: ignore[no-untyped-def]
    """Remove the flips of the previous read."""
    stale = bytes_at(target.stale_ptr, 1)
    if target.leads and stale[0]:
        move_bytes(target.values_ptr, target.fault_free_ptr, target.size)
        stale[0] = 0


@compiled
def _read_cells(source, target, stream, buffers):  # type: ignore[no-untyped-def]
    """Read a region cell by cell; return its flips."""
    workspace, drawn = buffers
    outer = integers_at(target.outer_ptr, target.channels)
    inner = integers_at(target.inner_ptr, target.channel_size)
    masks, stale = integers_at(target.masks_ptr, target.cells), bytes_at(target.stale_ptr, 1)
    total = 0
    _remove_flips(target)
    start, stop = block_range(source)
    for block in range(start, stop):
        first, n = words_in_block(source, block)
        draw_block(source, stream, block, drawn[:n], workspace)
        count = count_bits(drawn[:n])
        if count:
            flip_cells(target.values_ptr, outer, inner, masks, drawn[:n], first)
        total += count
    stale[0] |= total > 0
    return total


@compiled
def _any_bit(words):  # type: ignore[no-untyped-def]
    union = np.uint64(0)
    for i in range(words.size):
        union |= words[i]
    return union != 0


@compiled
def _read_flat(source, target, stream, buffers):  # type: ignore[no-untyped-def]
    """Read a region of flat PackedInt1 weights; return its flips.

    The head of the buffer carries over the flips of a panel that the previous block completes only in part. Its first word is the
    region's word `begin`.
    """
    workspace, drawn = buffers
    panels = FlatPanels(target.fault_free_ptr, target.values_ptr, target.words, target.channel_size, target.channels)
    last_panel, bits = (target.channels + LANES - 1) // LANES, LANES * target.channel_size
    done, begin, filled, total = 0, 0, 0, 0
    stale = bytes_at(target.stale_ptr, last_panel + 8)
    start, stop = block_range(source)
    for block in range(start, stop):
        first, n = words_in_block(source, block)
        draw_block(source, stream, block, drawn[filled : filled + n], workspace)
        total += count_bits(drawn[filled : filled + n])
        filled += n
        complete = last_panel if block + 1 == stop else (first + n) * 64 // bits
        for panel in range(done, complete):
            head, tail = (panel * bits >> 6) - begin, ((panel + 1) * bits + 63 >> 6) - begin
            flipped = _any_bit(drawn[min(head, filled) : min(tail, filled)])
            if flipped or stale[panel]:
                flip_panel(panels, panel, FlipWords(data_ptr(drawn), begin, filled))
                stale[panel] = flipped
        used = min((complete * bits >> 6) - begin, filled)
        move_bytes(data_ptr(drawn), data_ptr(drawn) + 8 * used, 8 * (filled - used))
        done, begin, filled = complete, begin + used, filled - used
    return total


@compiled
def read_region(source, target, trial, read, buffers):  # type: ignore[no-untyped-def]
    """Read a region again and return how many of its bits flipped.

    Args:
        source: record of type SOURCE.
        target: record of type FLIP_TARGET.
        trial, read: numbers of the trial and of the read.
        buffers: from `new_read_buffers`.
    """
    stream = read_stream(source, trial, target.write, read)
    if target.flat:
        return _read_flat(source, target, stream, buffers)
    return _read_cells(source, target, stream, buffers)


@compiled
def read_regions(sources, targets, trial, read, counts):  # type: ignore[no-untyped-def]
    """Read all regions of two tables again.

    Args:
        sources, targets: (R,) records of type SOURCE and FLIP_TARGET.
        trial, read: numbers of the trial and of the read.
        counts: int64 (R,): how many bits of each region flipped, written.
    """
    buffers = new_read_buffers(targets)
    for i in range(targets.size):
        counts[i] = read_region(sources[i], targets[i], trial, read, buffers)


@compiled
def read_weights(faults, read, buffers):  # type: ignore[no-untyped-def]
    """Read the weights of a layer again and count their flips.

    faults: FaultSource.
    """
    for i in range(faults.targets.size):
        faults.counts[i] += read_region(faults.sources[i], faults.targets[i], faults.trial, read, buffers)
