"""Trials under faults, their score, and the confidence intervals over trials."""
