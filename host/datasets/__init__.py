"""Data sets in the files they were published in: readers, and where those files come from."""
