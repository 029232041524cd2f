"""Analyses of a network: prediction, ranking, margins, summary."""
