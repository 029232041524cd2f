"""Compiled inner loops: serial, without the GIL, on plain arrays. README.md is the kernel guide."""
