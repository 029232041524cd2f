"""Sampling: exact, reproducible bit errors, addressed by what they are drawn for."""
