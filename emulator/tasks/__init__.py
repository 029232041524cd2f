"""Tasks: what an output of a network means, and how answers become a score."""

from __future__ import annotations

from weakcell.emulator.tasks.build import NAMES, parse_task
from weakcell.emulator.tasks.classes import ClassTask
from weakcell.emulator.tasks.metric import COLUMNS, METRICS, Metric, get_metric
from weakcell.emulator.tasks.recognise import Asked, Seen, is_default, recognise
from weakcell.emulator.tasks.task import Judgement, Task
from weakcell.emulator.tasks.values import ValueTask

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
    "get_metric",
    "is_default",
    "parse_task",
    "recognise",
]
