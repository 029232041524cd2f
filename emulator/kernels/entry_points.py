"""Kernels that Python calls as cached machine code (`weakcell.memmodels.native.kernel_cache`).

The kernel sources are imported by compiler processes only, so a run starts without Numba.
"""

from __future__ import annotations

from weakcell.memmodels.native.kernel_cache import Kernel

_PACKAGE = "weakcell.emulator.kernels"
_PREDICTION, _MARGINS = "weakcell.emulator.prediction", "weakcell.emulator.margins"

fill_offsets = Kernel(f"{_PACKAGE}.conv", "fill_offsets")
convolution = Kernel(f"{_PACKAGE}.conv", "convolution")
convolution_resampled = Kernel(f"{_PACKAGE}.conv", "convolution_resampled")
add_weights_by_tap = Kernel(f"{_PACKAGE}.conv", "add_weights_by_tap")
subtract_window_sums = Kernel(f"{_PACKAGE}.conv", "subtract_window_sums")
fill_limits = Kernel(f"{_PACKAGE}.conv_sign", "fill_limits")
sign_convolution = Kernel(f"{_PACKAGE}.conv_sign", "sign_convolution")
sign_convolution_resampled = Kernel(f"{_PACKAGE}.conv_sign", "sign_convolution_resampled")
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
read_regions = Kernel(f"{_PACKAGE}.fault_reads", "read_regions")
dense_resampled = Kernel(f"{_PACKAGE}.dense_resampled", "dense_resampled")
draw_mismatches = Kernel(f"{_PACKAGE}.output_sampling", "draw_mismatches")
draw_signs = Kernel(f"{_PACKAGE}.output_sampling", "draw_signs")
sample_convolution_signs = Kernel(f"{_PACKAGE}.output_sampling", "sample_convolution_signs")

draw_sums = Kernel(f"{_PREDICTION}.sum_kernels", "draw_sums")
draw_flips = Kernel(f"{_PREDICTION}.sum_kernels", "draw_flips")
power_sums = Kernel(f"{_PREDICTION}.sum_kernels", "power_sums")
win_probability = Kernel(f"{_PREDICTION}.sum_kernels", "win_probability")

fill_pair_tolerance = Kernel(f"{_MARGINS}.tolerance_kernels", "fill_pair_tolerance")
fill_neuron_tolerance = Kernel(f"{_MARGINS}.tolerance_kernels", "fill_neuron_tolerance")
fill_pixel_costs = Kernel(f"{_MARGINS}.certificate_kernels", "fill_pixel_costs")
fill_pool_costs = Kernel(f"{_MARGINS}.certificate_kernels", "fill_pool_costs")
count_changed_neurons = Kernel(f"{_MARGINS}.certificate_kernels", "count_changed_neurons")
