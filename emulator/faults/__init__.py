"""Where stored bits live, how often they are read, and what each read returns to the network."""
