"""Grammars of the command line: SPEC, sweep, task, placement."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from random import Random

from tests.fuzzing.engine import Reader
from tests.fuzzing.mutations import FLOATS, INTEGERS, damage_text, hostile_text
from weakcell.emulator.tasks.build import _TAKES as TASK_OPTIONS
from weakcell.emulator.tasks.build import NAMES as TASKS
from weakcell.emulator.tasks.build import parse_task
from weakcell.host.study.sweep_values import parse_sweep
from weakcell.memmodels.address import Layout
from weakcell.memmodels.catalogue import names, open_memory, parse_spec, technology
from weakcell.memmodels.definition import Condition
from weakcell.memmodels.memory import Accesses, Key
from weakcell.memmodels.protection.wrappers import WRAPPERS

_SCHEMES = (
    *("file:", "recording:", "board:", "file:/dev/zero", "recording:.", "file:a\0b:x=1", "board:virtual:rp2350", "board:["),
    *("board:virtual:rp2350[uniform:ber=1e-3]", "board:loop://", "file:[a:b=1]", "recording:/dev/null", "file:/proc/self/environ"),
    "board:virtual:x[y[z]]",
)
_NUMBERS = ("0", "1", "0.5", "1e-3", "0.8", "1e-9", "25", "85", "0.75", "1e-5", "1e-1", "2", "10", "64", "100")


def _number(random: Random) -> str:
    kind = random.randrange(10)
    if kind <= 6:
        return random.choice(_NUMBERS)
    return str(random.choice(INTEGERS + FLOATS)) if kind <= 8 else hostile_text(random)


def _value(condition: Condition, random: Random) -> str:
    if random.randrange(6) == 0:
        return _number(random)
    if condition.choices:
        return random.choice(condition.choices)
    low, high = (condition.low or 0.0), (1.0 if condition.high is None else condition.high)
    value = random.choice((low, high, low + (high - low) * random.random()))
    return repr(value) if random.randrange(2) else f"{value:g}"


@cache
def _names() -> tuple[str, ...]:
    return names()


def spec(random: Random) -> str:
    """Return a SPEC: wrappers, a name, conditions; mostly known ones."""
    parts = []
    for _ in range(random.choice((0, 0, 0, 1, 1, 2, 3))):
        name = random.choice(list(WRAPPERS))
        options = WRAPPERS[name].options
        chosen = random.sample(options, random.randrange(len(options) + 1))
        inside = ",".join(f"{option.name}={_value(option, random)}" for option in chosen)
        parts.append(f"{name}[{inside}]" if inside else name)
    if random.randrange(25) == 0:
        return "+".join([*parts, random.choice(_SCHEMES)])
    name = random.choice(_names())
    conditions = technology(name).conditions
    required = [condition for condition in conditions if condition.required or random.randrange(3) == 0]
    given = [f"{condition.name}={_value(condition, random)}" for condition in required]
    if random.randrange(15) == 0:
        given.append(f"{random.choice(('ber', 'seed', 'extrapolate', hostile_text(random)))}={_number(random)}")
    return "+".join([*parts, name + (":" + ",".join(given) if given else "")])


def _read_spec(text: str) -> None:
    parsed = parse_spec(text)
    assert parse_spec(str(parsed)) == parsed, f"{parsed} reads back as {parse_spec(str(parsed))}"
    parsed.check()
    memory = open_memory(parsed, seed=1, die=2)
    if parsed.name.startswith("board:") or "+board:" in parsed.name:
        return
    region = memory.write(_BITS, Layout("w", 100, 8, tuple(range(8))), Key(0, 0, 0))
    memory.cost(region, Accesses(1.0))


def _sweep(random: Random) -> bytes:
    key = random.choice(("ber", "vdd", "v_over_vmin", hostile_text(random)))
    kind = random.randrange(3)
    if kind == 0:
        values = ",".join(_number(random) for _ in range(random.choice((1, 2, 3, 200))))
    else:
        step = _number(random)
        values = f"{_number(random)}:{_number(random)}:{'x' if kind == 1 else ''}{step}"
    return f"{key}={values}".encode()


def _task(random: Random) -> bytes:
    name = random.choice(TASKS)
    options = random.sample(TASK_OPTIONS[name], random.randrange(len(TASK_OPTIONS[name]) + 1))
    words = ("first", "last", "mae", "mse", "mean_iou", "accuracy", "xyxy", "xywh", "1", "5", "0.5", "255")
    given = [f"{option}={random.choice(words) if random.randrange(3) else _number(random)}" for option in options]
    return f"{name}:{','.join(given)}".encode()


def _place(random: Random) -> bytes:
    names_ = (
        *("w", "v", "c", "p1", "y", "*", "w*", "[a-z]", "[", "!w", "buffer:*", "accumulator:*", "scale:*", "threshold:*", "bias:c"),
        *("zero_point:*", "weight:*", "buffer:x", "fc1", ""),
    )
    bits = ("@0", "@0-7", "@7-0", "@0,0,0", "@1-", "@-1", "@99999999999999999999", "@0-999999999", "@\u00b2", "@\u0663", "@x")
    planes = random.choice(("", "", *bits))
    name = random.choice(names_) if random.randrange(8) else hostile_text(random)
    return f"{name}{planes}={spec(random)}".encode("utf-8", "replace")


def _read_place(text: str) -> None:
    from weakcell.emulator.faults.placement import place
    from weakcell.host.study.arguments import as_rules

    network = _network()
    place(network, parse_spec("uniform:ber=0"), as_rules([text]))


@cache
def _network():  # type: ignore[no-untyped-def]
    from tests.fuzzing.readers.networks import SEEDS
    from weakcell.emulator.importer import load

    return load(SEEDS["binary"]())


def _words():  # type: ignore[no-untyped-def]
    import numpy as np

    return np.arange(13, dtype=np.uint64)


_BITS = _words()
_UNKNOWN = "there is no technology|not key=value|there is no wrapper"


def _reader(name: str, generate: Callable[[Random], bytes], parse: Callable[[str], object], early: str) -> Reader:
    return Reader(name, generate, lambda data, _: parse(data.decode("utf-8", "replace")), early, ".txt", damage_text)


READERS = {
    reader.name: reader
    for reader in (
        _reader("spec", lambda random: spec(random).encode("utf-8", "replace"), _read_spec, _UNKNOWN),
        _reader("sweep", _sweep, parse_sweep, "not KEY=VALUES|is not a number|parts, not three"),
        _reader("task", _task, parse_task, "there is no task"),
        _reader("place", _place, _read_place, f"not LAYER=SPEC|{_UNKNOWN}"),
    )
}
