"""Protection: wrappers that put ECC, parity, safe bits or interleaving around any memory."""
