"""Several threads, forked and spawned processes, and a notebook that is run twice: results equal those of one thread after another.

API calls leave the process as it was: signal handlers, umask, locale, environment, random states, and the settings of torch and
Matplotlib. A clock that jumps changes no result.
"""

from __future__ import annotations

import locale
import multiprocessing
import os
import random
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest

import weakcell
from weakcell.memmodels.errors import UsageError

IMAGES = 20


def emulate() -> object:
    result = weakcell.emulate("digits-bnn", memory="uniform", sweep={"ber": [0.01, 0.2]}, trials=2, images=IMAGES, threads=2)
    return result.frame.rows(), result.summary.rows()


def emulate_images() -> object:
    return weakcell.emulate("digits-qnn", memory="uniform:ber=0.01", read_every="image", trials=2, images=IMAGES).frame.rows()


def predict() -> object:
    return weakcell.predict("digits-bnn", memory="uniform", sweep={"ber": [0.01]}, images=IMAGES).summary.rows()


def infer() -> object:
    images = weakcell.load_data("digits").x[:IMAGES]
    outputs = weakcell.infer("digits-bnn", images)
    return [values.tolist() for values in outputs.values()]


def margins() -> object:
    return weakcell.margins("digits-bnn", images=IMAGES).frame.rows()


def plot() -> object:
    result = weakcell.emulate("digits-bnn", memory="uniform", sweep={"ber": [0.01, 0.2]}, trials=2, images=IMAGES)
    return result._repr_html_()


CALLS: tuple[Callable[[], object], ...] = (emulate, emulate_images, predict, infer, margins, plot)


@pytest.fixture(scope="module")
def serial() -> dict[str, object]:
    return {call.__name__: call() for call in CALLS}


def test_threads_get_what_one_thread_gets(serial: dict[str, object]) -> None:
    calls = [call for call in CALLS for _ in range(3)]
    random.Random(1).shuffle(calls)
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda call: (call.__name__, call()), calls))
    for name, result in found:
        assert result == serial[name], name


def test_threads_share_one_network_and_its_caches(serial: dict[str, object]) -> None:
    """One plan, many threads, from its first use: caches fill while others read."""
    network = weakcell.load("digits-bnn")
    data = weakcell.load_data("digits")

    def run(_: int) -> object:
        result = weakcell.emulate(network, (data.x, data.y), memory="uniform", sweep={"ber": [0.01, 0.2]}, trials=2, images=IMAGES)
        return result.frame["accuracy"].to_list()

    with ThreadPoolExecutor(6) as pool:
        assert len({str(found) for found in pool.map(run, range(12))}) == 1


def test_a_notebook_that_is_run_twice(serial: dict[str, object]) -> None:
    """The same cells in one namespace, twice: as with `Run all`, then `Run all` again."""
    cells = [
        "import weakcell",
        "r = weakcell.emulate('digits-bnn', memory='uniform:ber=0.05', trials=2, images=20)",
        "html = r._repr_html_()",
    ]
    space: dict[str, object] = {}
    shown = []
    for _ in range(2):
        for cell in cells:
            exec(cell, space)
        shown.append(space["html"])
    assert shown[0] == shown[1]


# ── processes ───────────────────────────────────────────────────────────────────────────────────────


def test_spawned_processes_get_the_same(serial: dict[str, object]) -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(emulate) == serial["emulate"]


_FORKED = """
import os, signal, sys, threading
import weakcell
from weakcell.memmodels.errors import UsageError

def frame():
    return weakcell.emulate("digits-bnn", memory="uniform:ber=0.05", trials=2, images=20).frame.rows()

def fork(run):
    child = os.fork()
    if child == 0:
        signal.alarm(60)  # a deadlock ends the child
        os._exit(run())
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

import weakcell.host.api.emulation  # what `from weakcell import emulate` imports; no thread is started
first = fork(lambda: 0 if frame() else 1)
assert first == 0, f"a child before the first use ended with {first}"
made = weakcell.emulate("digits-bnn", memory="uniform:ber=0.05", trials=2, images=20)
made.summary  # starts threads of polars

def refused(use):
    try:
        use()
    except UsageError as error:
        return 0 if "spawn" in str(error) else 2
    return 3

uses = {
    "emulate": lambda: weakcell.emulate("digits-bnn", images=20), "summary": lambda: made.summary,
    "frame": lambda: made.frame, "html": made._repr_html_, "plot": made.plot,
    "inspection": lambda: weakcell.inspect("digits-bnn").frame,
}
for name, use in uses.items():
    second = fork(lambda: refused(use))
    assert second == 0, f"{name} in a child after the first use ended with {second}"
infers = fork(lambda: 0 if weakcell.infer("digits-bnn", weakcell.load_data("digits").x[:5]) else 1)
assert infers == 0, f"infer in a child ended with {infers}"
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_forked_processes_work_or_say_why_not(tmp_path: Path) -> None:
    import subprocess

    script = tmp_path / "forked.py"
    script.write_text(_FORKED)
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr


# ── the process ─────────────────────────────────────────────────────────────────────────────────────


def state_of_process() -> dict[str, object]:
    mask = os.umask(0)
    os.umask(mask)
    signals = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGXFSZ)}
    environment = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
    state: dict[str, object] = {
        "umask": mask, "signals": signals, "locale": locale.setlocale(locale.LC_ALL), "environment": environment,
        "folder": os.getcwd(), "hooks": (sys.excepthook, sys.unraisablehook, threading.excepthook),
        "recursion": sys.getrecursionlimit(),
        "random": random.getstate(), "numpy": np.random.get_state()[1].tolist(), "numpy errors": np.geterr(),
        "warnings": list(warnings.filters), "matplotlib": dict(mpl.rcParams), "backend": mpl.get_backend(auto_select=False),
        "start method": multiprocessing.get_start_method(allow_none=True), "threads left": threading.active_count(),
    }  # fmt: skip
    if torch := sys.modules.get("torch"):
        state |= {"torch threads": torch.get_num_threads(), "torch random": torch.get_rng_state().tolist()}
    return state


def test_calls_leave_the_process_as_it_was(serial: dict[str, object], tmp_path: Path) -> None:
    before = state_of_process()
    for call in (emulate, predict, infer, plot):
        call()
    weakcell.emulate("digits-bnn", memory="uniform:ber=0.01", trials=1, images=5).save(tmp_path / "out")
    weakcell.read_results(tmp_path / "out").report(tmp_path / "r.html")
    with pytest.raises(UsageError):
        weakcell.emulate("digits-bnn", memory="uniform", sweep="ber=1:0", images=5)
    after = state_of_process()
    for name, value in before.items():
        assert after[name] == value, name


def test_training_leaves_the_process_as_it_was(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    import weakcell.host.train.training_grid  # torch draws random numbers when parts of it are imported

    torch.manual_seed(5)
    torch.set_num_threads(2)
    before = state_of_process()
    weakcell.train(data="digits", width=0.05, epochs=1, images=64, sweep="ber=0", trials=1, threads=1, out=tmp_path / "t")
    after = state_of_process()
    for state in (before, after):
        environment = state["environment"]
        assert isinstance(environment, dict)
        environment.pop("TORCHINDUCTOR_CACHE_DIR", None)  # torch sets it when it exports, and adds filters when it is imported
        state.pop("warnings")
    assert not {name for name in before if before[name] != after[name]}


def test_a_clock_that_jumps_changes_nothing(serial: dict[str, object], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`time.time` goes back by a day at every call."""
    real, calls = time.time, 0

    def jumping() -> float:
        nonlocal calls
        calls += 1
        return real() - 86_400.0 * calls

    monkeypatch.setattr(time, "time", jumping)
    assert emulate() == serial["emulate"]
    campaign = tmp_path / "c.toml"
    campaign.write_text('trials = 3\n[[network]]\nmodel = "digits-bnn"\nimages = 5\n[[memory]]\nspec = "uniform:ber=0.1"\n')
    assert weakcell.sweep(campaign, out=tmp_path / "out").frame.height == 3
