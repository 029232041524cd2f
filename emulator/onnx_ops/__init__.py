"""ONNX operators in numpy: what stays float32 in a network, and what the importer folds in constants.

`apply` runs one operator. Arithmetic is done in the type of the inputs, in the order in which onnxruntime does it where that is
known. Nothing here allocates more than `MAX_ELEMENTS` for a result whose size the data could choose freely.
"""

from __future__ import annotations

import numpy as np

from weakcell.emulator.onnx_ops import activations as _activations
from weakcell.emulator.onnx_ops import interpolation as _resize
from weakcell.emulator.onnx_ops import microsoft as _microsoft
from weakcell.emulator.onnx_ops import qonnx_quantizers as _qonnx
from weakcell.emulator.onnx_ops.arithmetic import batch_norm_factors, clip_limits
from weakcell.emulator.onnx_ops.movement import axes_of, pad_amounts
from weakcell.emulator.onnx_ops.quantization import integer_limits
from weakcell.emulator.onnx_ops.reductions import explicit_pads
from weakcell.emulator.onnx_ops.registry import ABSENT, MAX_ELEMENTS, OPERATORS, POINTWISE, SEVERAL, Array, Attributes, Inputs, text

del _activations, _microsoft, _qonnx, _resize  # imported for the operators that they register

__all__ = [
    "ABSENT",
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
    """The output of one operator; `ABSENT` inputs count as left out. KeyError for an operator that is not in the table."""
    function = OPERATORS[op_type]
    with np.errstate(all="ignore"):
        return function([None if x is ABSENT else x for x in inputs], attributes, opset)


def apply_all(op_type: str, opset: int, attributes: Attributes, inputs: Inputs, outputs: int) -> tuple[Array, ...]:
    """The first `outputs` outputs of one operator; ValueError if it has fewer."""
    if op_type not in SEVERAL:
        made: tuple[Array, ...] = (apply(op_type, opset, attributes, inputs),)
    else:
        with np.errstate(all="ignore"):
            made = SEVERAL[op_type]([None if x is ABSENT else x for x in inputs], attributes, opset, outputs)
    if len(made) < outputs:
        raise ValueError(f"{op_type} gives {len(made)} outputs here, and {outputs} are read")
    return made[:outputs]
