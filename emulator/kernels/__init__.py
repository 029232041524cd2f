"""Compiled loops. Serial, nogil, on plain arrays; parallelism is over trials, above them."""
