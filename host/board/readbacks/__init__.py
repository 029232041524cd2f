"""Read-backs: load them, find artefacts in them, and fit error rates and structure."""
