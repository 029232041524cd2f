"""Kernels that Python calls, as machine code that is kept (`memmodels.native`): the sources are imported only to be compiled.

A run without faults needs no others, so it starts without Numba.
"""

from __future__ import annotations

from memmodels.native import Kernel

fill_offsets = Kernel("emulator.kernels.sums", "fill_offsets")
convolution = Kernel("emulator.kernels.sums", "convolution")
shift = Kernel("emulator.kernels.sums", "shift")
fill_limits = Kernel("emulator.kernels.signs", "fill_limits")
signs = Kernel("emulator.kernels.signs", "signs")
invert_bits = Kernel("emulator.kernels.signs", "invert_bits")
pack = Kernel("emulator.kernels.packing", "pack")
flatten_bits = Kernel("emulator.kernels.packing", "flatten_bits")
threshold_pack = Kernel("emulator.kernels.packing", "threshold_pack")
as_bytes = Kernel("emulator.kernels.packing", "as_bytes")
as_integers = Kernel("emulator.kernels.packing", "as_integers")
max_pool = Kernel("emulator.kernels.pool", "max_pool")
or_pool = Kernel("emulator.kernels.pool", "or_pool")
sum_pool = Kernel("emulator.kernels.pool", "sum_pool")
requantize = Kernel("emulator.kernels.elementwise", "requantize")
quantize = Kernel("emulator.kernels.elementwise", "quantize")
add = Kernel("emulator.kernels.elementwise", "add")
add_fused = Kernel("emulator.kernels.elementwise", "add_fused")
multiply = Kernel("emulator.kernels.elementwise", "multiply")
look_up = Kernel("emulator.kernels.elementwise", "look_up")
put = Kernel("emulator.kernels.scatter", "put")
flip_rows = Kernel("emulator.kernels.scatter", "flip_rows")
flip_values = Kernel("emulator.kernels.scatter", "flip_values")
