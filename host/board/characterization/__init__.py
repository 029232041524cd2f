"""Characterization of a board: operating points, experiments, supplies, and the run itself."""
