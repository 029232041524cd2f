"""Exact, reproducible sampling of bit errors."""
