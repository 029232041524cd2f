"""Execution of a compiled network: layer by layer, over chunks of images."""
