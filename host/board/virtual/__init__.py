"""Virtual boards: an emulated chip that runs the unmodified firmware image."""
