"""Kernels that Python calls as cached machine code (`weakcell.emulator.native.kernel_cache`).

The kernel sources are imported only when something must be compiled. A run without faults needs no other kernels, so it starts
without Numba.
"""

from __future__ import annotations

from weakcell.emulator.native.kernel_cache import Kernel

_PACKAGE = "weakcell.emulator.kernels"

fill_offsets = Kernel(f"{_PACKAGE}.conv", "fill_offsets")
convolution = Kernel(f"{_PACKAGE}.conv", "convolution")
subtract_window_sums = Kernel(f"{_PACKAGE}.conv", "subtract_window_sums")
fill_limits = Kernel(f"{_PACKAGE}.conv_sign", "fill_limits")
sign_convolution = Kernel(f"{_PACKAGE}.conv_sign", "sign_convolution")
invert_bits = Kernel(f"{_PACKAGE}.conv_sign", "invert_bits")
pack = Kernel(f"{_PACKAGE}.bitpack", "pack")
flatten_bits = Kernel(f"{_PACKAGE}.bitpack", "flatten_bits")
threshold_pack = Kernel(f"{_PACKAGE}.bitpack", "threshold_pack")
to_padded_bytes = Kernel(f"{_PACKAGE}.bitpack", "to_padded_bytes")
to_integers = Kernel(f"{_PACKAGE}.bitpack", "to_integers")
max_pool = Kernel(f"{_PACKAGE}.pooling", "max_pool")
or_pool = Kernel(f"{_PACKAGE}.pooling", "or_pool")
sum_pool = Kernel(f"{_PACKAGE}.pooling", "sum_pool")
requantize = Kernel(f"{_PACKAGE}.requantization", "requantize")
quantize = Kernel(f"{_PACKAGE}.requantization", "quantize")
add = Kernel(f"{_PACKAGE}.requantization", "add")
add_fused = Kernel(f"{_PACKAGE}.requantization", "add_fused")
multiply = Kernel(f"{_PACKAGE}.requantization", "multiply")
look_up = Kernel(f"{_PACKAGE}.requantization", "look_up")
scatter_codes = Kernel(f"{_PACKAGE}.fault_scatter", "scatter_codes")
flip_rows = Kernel(f"{_PACKAGE}.fault_scatter", "flip_rows")
flip_values = Kernel(f"{_PACKAGE}.fault_scatter", "flip_values")
