"""Firmware images: build them, write UF2 files, copy them to a board."""
