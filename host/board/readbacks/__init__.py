"""Analysis of read-backs: error rates, structure, and artefacts that are not memory errors."""
