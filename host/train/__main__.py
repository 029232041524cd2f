"""`python -m weakcell.host.train digits-bnn --out FILE`: train one of the shipped networks and write it as ONNX."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from weakcell.host.train.shipped_networks import RECIPES, train_shipped_network
from weakcell.memmodels.atomic_files import write_bytes_atomically
from weakcell.memmodels.errors import OutputError, WeakcellError

SHIPPED = Path(__file__).parent.parent / "shipped"


def positive(text: str) -> int:
    """Parse a positive integer for argparse."""
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return number


def main(arguments: list[str] | None = None) -> int:
    """Parse the options, train and write; return 0, or the exit code of an error that is printed to stderr."""
    parser = argparse.ArgumentParser(prog="python -m weakcell.host.train", description="Train a network and write it as ONNX.")
    parser.add_argument("network", choices=RECIPES)
    parser.add_argument("--data-dir", type=Path, default=SHIPPED, metavar="DIR", help="folder of the data set's files")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="ONNX file to write")
    parser.add_argument("--seed", type=int, default=1, help="of weights and image order (default 1)")
    parser.add_argument("--epochs", type=positive, help="instead of the recipe's own number")
    parser.add_argument("--threads", type=positive, default=2, help="torch's; part of what a seed reproduces (default 2)")
    options = parser.parse_args(arguments)

    torch.set_num_threads(options.threads)
    try:
        if options.out.is_dir() or not options.out.parent.is_dir():
            found = "it is a folder" if options.out.is_dir() else "its folder does not exist"
            raise OutputError(f"Writing the network to {options.out}", found, "Name a file in a folder that exists")
        model = train_shipped_network(options.network, options.data_dir, options.seed, options.epochs)
        write_bytes_atomically(options.out, model.SerializeToString())
    except WeakcellError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    facts = {entry.key: entry.value for entry in model.metadata_props}
    print(f"{options.out}: {options.out.stat().st_size:,} bytes, test accuracy {float(facts['test_accuracy']):.2%}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
