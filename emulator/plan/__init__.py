"""A network compiled for the kernels, and the parameters of one run of it."""
