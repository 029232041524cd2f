"""The integer network: layer records, values, and the tensors that a memory stores."""
