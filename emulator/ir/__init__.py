"""Records of a network: layers, values, and the tensors that a memory stores."""
