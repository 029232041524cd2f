"""Key-value caches that a graph writes out: the tokens so far, joined with the new ones."""

from __future__ import annotations

from dataclasses import replace

from weakcell.emulator.ir.network import Network
from weakcell.emulator.ir.operators import FloatOperator


def mark_joined_caches(network: Network) -> Network:
    """Return a network whose caches that a Concat makes are marked as such.

    Its Concat joins an input of the network (what earlier tokens left) with something new. The result is an output (what later
    tokens get), and other layers read it. The operators that have a cache of their own are marked where they are lowered.
    """
    read = {name for layer in network.layers for name in layer.inputs}
    caches = [
        layer.output
        for layer in network.layers
        if isinstance(layer, FloatOperator)
        and layer.op_type == "Concat"
        and len(layer.inputs) == 2
        and layer.inputs[0] in network.inputs
        and layer.output in network.outputs
        and layer.output in read
        and network.values[layer.output].dtype == "float32"
    ]
    return replace(network, values={**network.values, **{n: replace(network.values[n], cache=True) for n in caches}})
