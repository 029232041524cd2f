"""Characterization of a board: plan, experiments, supplies, the measurement, and its results."""
