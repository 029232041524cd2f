"""Error terms, spatial structure, and multi-level cells: what goes wrong in a cell."""
