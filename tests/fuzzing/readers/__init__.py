"""The readers under test, by name. A module of readers is imported when one of its readers is asked for."""

from __future__ import annotations

from importlib import import_module

from tests.fuzzing.engine import Reader

MODULES = {
    "spec": "grammars",
    "sweep": "grammars",
    "task": "grammars",
    "place": "grammars",
    "profile": "profiles",
    "recording": "archives",
    "data-npz": "archives",
    "readbacks-npz": "archives",
    "readbacks-toml": "tables",
    "campaign": "tables",
    "settings": "tables",
    "results-sqlite": "results",
    "results-study": "results",
    "run-folder": "results",
    "faults-csv": "fault_lists",
    "faults-parquet": "fault_lists",
    "idx": "datasets",
    "cifar": "datasets",
    "svhn": "datasets",
    "images": "datasets",
    "onnx": "networks",
    "frames": "board",
    "link": "board",
    "socket": "board",
    "serve": "board",
}


def get_reader(name: str) -> Reader:
    """Return a reader by name."""
    readers: dict[str, Reader] = import_module(f"tests.fuzzing.readers.{MODULES[name]}").READERS
    return readers[name]
