"""Compiled kernels as machine code that is cached between processes."""
