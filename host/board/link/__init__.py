"""The serial link to a board: transport, frames, protocol."""
