"""Training and export of networks: the only room that knows torch."""
