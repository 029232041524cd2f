"""A binarized network that a board computes itself, with weights that were at the low voltage."""
