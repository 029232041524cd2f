"""Read policies: when weights are read again, and the policy that every entry uses by default.

This module imports nothing heavy: the command line needs it for `--help`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

Reads = Literal["load", "batch", "image", "access"]
"""The read policies as command lines, campaign files and the Python API write them."""

DEFAULT_READS: Reads = "load"
"""One read per trial: weights are loaded into an accelerator once and used for all images.

A trial is then one draw of the memory: results do not depend on the batch size, and the spread over trials is that of dies and
loads. It is also the cheapest policy. For errors of lifetime `die` and `write` the policy changes nothing. For errors of lifetime
`read`, `batch` and `image` have the same mean and a smaller spread.
"""


class ReadPolicy(StrEnum):
    """When weights are read from their memory again."""

    LOAD = "load"
    """Once per trial."""
    BATCH = "batch"
    """Once per batch; the result depends on the batch size."""
    IMAGE = "image"
    """Each weight once per image: weight-stationary hardware."""
    ACCESS = "access"
    """Each time an output uses it: output-stationary hardware. A weight of a convolution is read for every output pixel.

    Errors of different pixels are then independent. So the mean accuracy of a convolutional network differs from that under the
    other policies, which all have the same mean. That of a dense network does not.
    """


DEFAULT_POLICY = ReadPolicy(DEFAULT_READS)
