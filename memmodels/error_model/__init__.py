"""What goes wrong in a cell: error terms, spatial structure, multi-level cells."""
