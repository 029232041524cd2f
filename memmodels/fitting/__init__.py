"""Fitting: from read-backs to a memory profile, by maximum likelihood. `fit.py` is the way in."""
