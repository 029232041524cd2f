"""Wrappers that protect a memory: ECC, parity, safe bits, interleaving."""
