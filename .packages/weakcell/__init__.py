"""Weakcell: run quantized and binarized neural networks whose weights live in an unreliable memory.

    import weakcell

    result = weakcell.emulate("digits-bnn", memory="sram-14nm", sweep="v_over_vmin=0.75:1.0:0.05", trials=20)
    result                   # one line; in a notebook a table and a picture
    result.summary           # polars: one row per operating point
    result.frame             # polars: one row per point and trial
    result.plot("a.png")     # a matplotlib figure

Functions, each with an example in its own help (`help(weakcell.emulate)`):

    emulate, predict                        accuracy over a memory's operating points, with and without injecting faults
    rank, margins, validate                 sensitive layers and bits, tolerated flips, margin bounds checked on real flips
    optimize, sweep, read_results           the cheapest usable operating point, campaigns of many runs
    load, load_data, inspect, infer         networks, data sets, summaries, fault-free outputs
    memories, open_memory                   memory models by name
    characterize, train                     boards, error-tolerant networks

Networks are shipped names, ONNX files, `onnx.ModelProto` or what `load` returns; data are names, `.npz` files, arrays or `(x, y)`;
memories are SPEC strings or dicts. Only the names below are promised. All other modules may change at any time.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if not os.path.isdir(os.path.join(os.path.dirname(__file__), "emulator")):
    # A checkout without symbolic links, as on Windows, or an unpacked source archive: the packages lie at its root.
    __path__.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from weakcell.memmodels.lazy import attributes

if TYPE_CHECKING:
    from weakcell.emulator.ir.network import Network
    from weakcell.host.analysis.margins import MarginReport
    from weakcell.host.analysis.ranking import Ranking
    from weakcell.host.api.bounds import Validation, margins, rank, validate
    from weakcell.host.api.campaigns import sweep
    from weakcell.host.api.characterization import Characterization, characterize
    from weakcell.host.api.emulation import Emulation, Prediction, emulate, predict
    from weakcell.host.api.inference import infer, load
    from weakcell.host.api.inspection import Inspection, inspect
    from weakcell.host.api.memory_catalogue import memories, open_memory
    from weakcell.host.api.optimization import Optimum, optimize
    from weakcell.host.api.training import TrainingResult, train
    from weakcell.host.board.errors import BoardError, LinkError, VoltageRefused
    from weakcell.host.datasets.registry import load_data
    from weakcell.host.report.notebook import CampaignResults, read_results
    from weakcell.memmodels.definition import Technology
    from weakcell.memmodels.errors import (
        InputError,
        Interrupted,
        MemoryFault,
        MemorySpecError,
        ModelError,
        OutputError,
        UsageError,
        WeakcellError,
    )
    from weakcell.memmodels.memory import Memory

__version__ = "0.1.0"

__all__ = [  # noqa: RUF022  (grouped by subject)
    # Networks and data
    "load",
    "load_data",
    "inspect",
    "infer",
    "Network",
    "Inspection",
    # Memories
    "memories",
    "open_memory",
    "Memory",
    "Technology",
    # Emulation and prediction
    "emulate",
    "predict",
    "Emulation",
    "Prediction",
    # Analysis
    "rank",
    "margins",
    "validate",
    "Ranking",
    "MarginReport",
    "Validation",
    # Operating points and campaigns
    "optimize",
    "sweep",
    "read_results",
    "Optimum",
    "CampaignResults",
    # Boards
    "characterize",
    "Characterization",
    # Training
    "train",
    "TrainingResult",
    # Errors
    "WeakcellError",
    "UsageError",
    "InputError",
    "ModelError",
    "MemorySpecError",
    "OutputError",
    "MemoryFault",
    "BoardError",
    "LinkError",
    "VoltageRefused",
    "Interrupted",
]  # fmt: skip

__getattr__, __dir__ = attributes(
    __name__,
    {
        "emulator.ir.network": ("Network",),
        "host.analysis.margins": ("MarginReport",),
        "host.analysis.ranking": ("Ranking",),
        "host.api.bounds": ("Validation", "margins", "rank", "validate"),
        "host.api.campaigns": ("sweep",),
        "host.api.characterization": ("Characterization", "characterize"),
        "host.api.emulation": ("Emulation", "Prediction", "emulate", "predict"),
        "host.api.inference": ("infer", "load"),
        "host.api.inspection": ("Inspection", "inspect"),
        "host.api.memory_catalogue": ("memories", "open_memory"),
        "host.api.optimization": ("Optimum", "optimize"),
        "host.api.training": ("TrainingResult", "train"),
        "host.board.errors": ("BoardError", "LinkError", "VoltageRefused"),
        "host.datasets.registry": ("load_data",),
        "host.report.notebook": ("CampaignResults", "read_results"),
        "memmodels.definition": ("Technology",),
        "memmodels.errors": (
            "InputError", "Interrupted", "MemoryFault", "MemorySpecError", "ModelError", "OutputError", "UsageError",
            "WeakcellError",
        ),
        "memmodels.memory": ("Memory",),
    },
)  # fmt: skip
