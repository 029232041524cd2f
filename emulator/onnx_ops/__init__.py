"""ONNX operators in NumPy.

They fold constants, and run what stays float32 in a network.

`apply` runs one operator. It computes in the type of the inputs, in the order of onnxruntime where that is known. No
operator allocates more than `MAX_ELEMENTS` for a result whose size the data can choose freely.
"""

from __future__ import annotations

import numpy as np

from weakcell.emulator.onnx_ops import activations as _activations
from weakcell.emulator.onnx_ops import attention as _attention
from weakcell.emulator.onnx_ops import interpolation as _resize
from weakcell.emulator.onnx_ops import microsoft as _microsoft
from weakcell.emulator.onnx_ops import normalization as _normalization
from weakcell.emulator.onnx_ops import qonnx_quantizers as _qonnx
from weakcell.emulator.onnx_ops import recurrent as _recurrent
from weakcell.emulator.onnx_ops import selection as _selection
from weakcell.emulator.onnx_ops.arithmetic import batch_norm_factors, clip_limits
from weakcell.emulator.onnx_ops.movement import axes_of, pad_amounts
from weakcell.emulator.onnx_ops.quantization import integer_limits
from weakcell.emulator.onnx_ops.reductions import explicit_pads
from weakcell.emulator.onnx_ops.registry import (
    ABSENT,
    CACHE,
    CACHED,
    MAX_ELEMENTS,
    OPERATORS,
    POINTWISE,
    SEVERAL,
    Array,
    Attributes,
    Inputs,
    text,
)

# imported for the operators that they register
del _activations, _attention, _microsoft, _normalization, _qonnx, _recurrent, _resize, _selection

__all__ = [
    "ABSENT",
    "CACHE",
    "CACHED",
    "MAX_ELEMENTS",
    "OPERATORS",
    "POINTWISE",
    "SEVERAL",
    "apply",
    "apply_all",
    "axes_of",
    "batch_norm_factors",
    "clip_limits",
    "explicit_pads",
    "integer_limits",
    "pad_amounts",
    "text",
]


def apply(op_type: str, opset: int, attributes: Attributes, inputs: Inputs) -> Array:
    """Run one operator and return its first output.

    Args:
        op_type: name in OPERATORS.
        opset: of the operator's domain.
        attributes: of the node.
        inputs: of the node; `ABSENT` counts as left out.

    Raises:
        KeyError: the operator is not in the table.
    """
    function = OPERATORS[op_type]
    with np.errstate(all="ignore"):
        return function([None if x is ABSENT else x for x in inputs], attributes, opset)


def apply_all(op_type: str, opset: int, attributes: Attributes, inputs: Inputs, outputs: int) -> tuple[Array, ...]:
    """Run one operator and return its first `outputs` outputs; see `apply`.

    Raises:
        ValueError: it has fewer outputs.
    """
    if op_type not in SEVERAL:
        results: tuple[Array, ...] = (apply(op_type, opset, attributes, inputs),)
    else:
        with np.errstate(all="ignore"):
            results = SEVERAL[op_type]([None if x is ABSENT else x for x in inputs], attributes, opset, outputs)
    if len(results) < outputs:
        raise ValueError(f"{op_type} gives {len(results)} outputs here, and {outputs} are read")
    return results[:outputs]
