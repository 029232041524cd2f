"""A board as a memory model: `board:PORT`."""
