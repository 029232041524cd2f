"""Kernels that Python calls, as machine code that is kept (`weakcell.emulator.native.kernel_cache`): the sources are imported
only to be compiled.

A run without faults needs no others, so it starts without Numba.
"""

from __future__ import annotations

from weakcell.emulator.native.kernel_cache import Kernel

fill_offsets = Kernel("weakcell.emulator.kernels.conv", "fill_offsets")
convolution = Kernel("weakcell.emulator.kernels.conv", "convolution")
subtract_window_sums = Kernel("weakcell.emulator.kernels.conv", "subtract_window_sums")
fill_limits = Kernel("weakcell.emulator.kernels.conv_sign", "fill_limits")
sign_convolution = Kernel("weakcell.emulator.kernels.conv_sign", "sign_convolution")
invert_bits = Kernel("weakcell.emulator.kernels.conv_sign", "invert_bits")
pack = Kernel("weakcell.emulator.kernels.bitpack", "pack")
flatten_bits = Kernel("weakcell.emulator.kernels.bitpack", "flatten_bits")
threshold_pack = Kernel("weakcell.emulator.kernels.bitpack", "threshold_pack")
as_bytes = Kernel("weakcell.emulator.kernels.bitpack", "as_bytes")
as_integers = Kernel("weakcell.emulator.kernels.bitpack", "as_integers")
max_pool = Kernel("weakcell.emulator.kernels.pooling", "max_pool")
or_pool = Kernel("weakcell.emulator.kernels.pooling", "or_pool")
sum_pool = Kernel("weakcell.emulator.kernels.pooling", "sum_pool")
requantize = Kernel("weakcell.emulator.kernels.requantization", "requantize")
quantize = Kernel("weakcell.emulator.kernels.requantization", "quantize")
add = Kernel("weakcell.emulator.kernels.requantization", "add")
add_fused = Kernel("weakcell.emulator.kernels.requantization", "add_fused")
multiply = Kernel("weakcell.emulator.kernels.requantization", "multiply")
look_up = Kernel("weakcell.emulator.kernels.requantization", "look_up")
scatter_codes = Kernel("weakcell.emulator.kernels.fault_scatter", "scatter_codes")
flip_rows = Kernel("weakcell.emulator.kernels.fault_scatter", "flip_rows")
flip_values = Kernel("weakcell.emulator.kernels.fault_scatter", "flip_values")
