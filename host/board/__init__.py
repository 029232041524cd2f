"""The board: its firmware, the link to it, and virtual boards that run the same image."""
