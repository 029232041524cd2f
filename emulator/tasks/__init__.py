"""Tasks: what an output of a network means, and how answers become a score."""

from __future__ import annotations

from emulator.tasks.build import NAMES, parse_task
from emulator.tasks.classes import ClassTask
from emulator.tasks.metric import COLUMNS, METRICS, Metric, metric_of
from emulator.tasks.recognise import Asked, Seen, is_default, recognise
from emulator.tasks.task import Judgement, Task
from emulator.tasks.values import ValueTask

__all__ = [
    "COLUMNS",
    "METRICS",
    "NAMES",
    "Asked",
    "ClassTask",
    "Judgement",
    "Metric",
    "Seen",
    "Task",
    "ValueTask",
    "is_default",
    "metric_of",
    "parse_task",
    "recognise",
]
