"""A fuzzer that is led by the branches it reaches: libFuzzer through atheris, with the generators and changes of a reader.

    pip install -e '.[test,fuzz]' && python -m tests.fuzzing.guided onnx --minutes 10

A finding is written to the corpus of the reader and ends the run with an error.
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from pathlib import Path
from random import Random

import atheris

from tests.fuzzing.engine import CORPUS, attempt, watch
from tests.fuzzing.readers import MODULES, get_reader


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reader", choices=MODULES)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    with atheris.instrument_imports(include=["weakcell"]):  # the module of a reader imports what it reads with
        reader = get_reader(options.reader)
    with tempfile.TemporaryDirectory() as inputs, tempfile.TemporaryDirectory() as scratch:

        def try_one(data: bytes) -> None:
            outcome = attempt(reader, data, Path(scratch))
            if outcome.kind == "finding":
                raise RuntimeError(f"{outcome.signature}\n{outcome.text}")

        def mutate(data: bytes, most: int, seed: int) -> bytes:
            random = Random(seed)
            if random.randrange(4) == 0:
                return bytes(atheris.Mutate(data, most))
            return (reader.mutate(data, random) if data else reader.generate(random))[:most]

        for number in range(200):
            Path(inputs, str(number)).write_bytes(reader.generate(Random(f"{reader.name} {options.seed} {number}")))
        (CORPUS / reader.name).mkdir(parents=True, exist_ok=True)
        # libFuzzer counts wall time, and kernels may be compiled; `attempt` counts the CPU time of an input
        limits = [f"-max_total_time={round(60 * options.minutes)}", "-timeout=300", f"-seed={options.seed}"]
        places = [f"-artifact_prefix={CORPUS / reader.name}/", "-print_final_stats=1", "-rss_limit_mb=2048", "-max_len=65536"]
        atheris.Setup(["guided", inputs, *limits, *places], try_one, custom_mutator=mutate)
        with watch():
            atheris.Fuzz()


if __name__ == "__main__":
    main()
