"""Fit a memory profile to read-backs by maximum likelihood."""
