"""Cached machine code of kernels: equal to Numba's results, found by other processes, and made again if damaged."""

from __future__ import annotations

import math
import os
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from weakcell.emulator.kernels import bitpack
from weakcell.host.cli import app
from weakcell.memmodels.native import code_names, compilers, installed_code, kernel_cache, known_kernels
from weakcell.memmodels.native.arguments import flatten as flatten_arguments
from weakcell.memmodels.native.code_names import name_cached_code, name_installed_code
from weakcell.memmodels.native.compilers import CompilationFailed, CompilerPool, Request
from weakcell.memmodels.native.kernel_cache import Kernel

ROOT = Path(__file__).resolve().parents[2]

flatten = Kernel("weakcell.emulator.kernels.bitpack", "flatten_bits")
pack = Kernel("weakcell.emulator.kernels.bitpack", "pack")


def to_integers() -> Kernel:
    """Return a new Kernel, which has not loaded any machine code."""
    return Kernel("weakcell.emulator.kernels.bitpack", "to_integers")


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 4), st.integers(1, 5), st.integers(1, 130), st.integers(0, 1 << 32))
def test_results_are_those_of_numba(images: int, side: int, channels: int, seed: int) -> None:
    """Oracle: the same function compiled by Numba. `flatten_bits` allocates, reshapes and writes arrays."""
    words = -(-channels // 64)
    x = np.random.default_rng(seed).integers(0, 1 << 63, (images, side, side, words)).astype(np.uint64)
    made, expected = (np.zeros((images, 1, 1, -(-channels * side * side // 64)), np.uint64) for _ in range(2))
    assert flatten(x, channels, made) == 0
    bitpack.flatten_bits(x, channels, expected)
    np.testing.assert_array_equal(made, expected)


@pytest.mark.parametrize("strided", [False, True])
def test_results_are_returned_and_strides_respected(strided: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    x = np.array([1.0, 2.5, -3.0, 300.0, 7.0, 0.5])[:: 2 if strided else 1]
    out = np.zeros(x.size, np.int64)
    assert to_integers()(x, -128, 127, out) == np.sum((x != np.rint(x)) | (np.abs(x) > 127))
    np.testing.assert_array_equal(out, x.astype(np.int64))


def test_bound_arguments() -> None:
    """Each call reads the current contents of a bound array; other types of the first arguments get other machine code."""
    x = np.arange(6.0)
    out = np.zeros(6, np.int8)
    bound = to_integers().bind(0, 127, out)
    for factor in (1, 2):
        assert bound(x * factor) == 0
        np.testing.assert_array_equal(out, np.arange(6) * factor)
    assert bound((x * 20).astype(np.float32)) == 0
    np.testing.assert_array_equal(out, np.arange(6) * 20)


def test_arguments_of_other_types_are_refused() -> None:
    with pytest.raises(TypeError, match="takes no str"):
        flatten(np.zeros((1, 1, 1, 1), np.uint64), "64", np.zeros((1, 1, 1, 1), np.uint64))


def test_cache_keys_distinguish_argument_types() -> None:
    def key_of(*arguments: Any) -> tuple[object, ...]:
        kinds: list[object] = []
        flatten_arguments(arguments, kinds, [])
        return tuple(kinds)

    x = np.zeros((4, 4), np.int32)
    read_only = x.copy()
    read_only.flags.writeable = False
    others = [x.T, x[::2], x.astype(np.int64), x.reshape(-1), x.astype(">i4"), read_only, (x,), 1]
    assert len({key_of(x), *map(key_of, others)}) == len(others) + 1
    assert key_of(x) == key_of(np.ones((7, 2), np.int32))
    assert key_of(np.zeros((1, 4))) == key_of(np.zeros((4, 1)))  # contiguous in both orders
    assert key_of((1, (2, 3))) != key_of((1, 2, 3))


def test_code_is_stored_and_damaged_code_is_made_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(kernel_cache, "expect_kernels", lambda opened: [])
    x, out = np.array([1.0, 2.5]), np.zeros(2, np.int8)
    assert to_integers()(x, 0, 9, out) == 1
    (file,) = (tmp_path / "kernels").iterdir()
    whole = file.read_bytes()
    builds: list[str] = []
    save = compilers.__dict__["save_code"]
    monkeypatch.setattr(compilers, "save_code", lambda kind, name, code: (builds.append(name), save(kind, name, code)))
    assert to_integers()(x, 0, 9, out) == 1
    assert builds == []
    for damage in (whole[:-7], whole[:50] + b"x" + whole[51:], b""):
        file.write_bytes(damage)
        assert to_integers()(x, 0, 9, out) == 1
        assert file.read_bytes()[:32] == whole[:32]
    assert builds == [file.name] * 3


def test_code_that_cannot_be_linked_runs_in_numba(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(kernel_cache, "_load", lambda name, code: None)
    out = np.zeros(2, np.int8)
    assert to_integers()(np.array([3.0, 2.5]), 0, 9, out) == 1
    assert out[0] == 3


def test_other_targets_and_other_sources_have_other_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Code in the cache depends on the compilers, too; installed code does not."""
    pack = "weakcell.emulator.kernels.bitpack", "pack", (int,)
    here, installed = name_cached_code(*pack), name_installed_code(*pack)
    assert (name_cached_code(*pack), name_installed_code(*pack)) == (here, installed)
    assert here != name_cached_code(*pack[:2], (bool,)) != installed != name_installed_code(*pack[:2], (bool,))
    monkeypatch.setenv("NUMBA_CPU_NAME", "haswell")
    assert name_cached_code(*pack) != here
    monkeypatch.delenv("NUMBA_CPU_NAME")
    with monkeypatch.context() as patch:
        patch.setattr(code_names, "list_compilers", lambda: ("others",))
        assert (name_cached_code(*pack) != here, name_installed_code(*pack)) == (True, installed)
    monkeypatch.setattr(code_names, "digest_sources", lambda *modules: "edited")
    assert (name_cached_code(*pack) != here, name_installed_code(*pack) != installed) == (True, True)


def test_a_run_without_faults_starts_without_numba() -> None:
    """The second process finds the machine code that the first one stored."""
    script = (
        "import sys, numpy as np, weakcell.emulator\n"
        "network = weakcell.emulator.load('host/shipped/digits_bnn.onnx')\n"
        "x = np.load('host/shipped/digits.npz')['x_test'][:3]\n"
        "print(weakcell.emulator.infer(weakcell.emulator.compile_plan(network), {network.inputs[0]: x})['logits'].tolist())\n"
        "heavy = {'numba', 'scipy', 'polars', 'pydantic', 'matplotlib', 'rich'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    outputs = [
        subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True,
                       capture_output=True, text=True).stdout.splitlines()
        for _ in range(2)
    ]  # fmt: skip
    assert outputs[0][0] == outputs[1][0]
    assert outputs[1][1] == "[]"


def test_analyses_run_without_numba() -> None:
    """Other processes compile what no earlier run or installation has left."""
    script = (
        "import sys, weakcell\n"
        "weakcell.emulate('digits-qnn', memory='msb[planes=1]+parity+interleave+uniform:ber=0.01', images=5, trials=1)\n"
        "weakcell.predict('digits-qnn', memory='uniform:ber=0.01', images=5, samples=2)\n"
        "weakcell.margins('digits-bnn', images=5, certify=2)\n"
        "weakcell.validate('digits-bnn', images=5, trials=1)\n"
        "print('numba' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_compiling_is_announced_and_failures_are_raised(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    pool = CompilerPool("kernels")
    pool._silent_seconds = 0.02

    def compile_kernel(name: str, request: Request) -> bytes | None:
        return pool.wait_for(pool.submit(name, request))

    kinds = (np.dtype(np.float64), 1, 0x501, int, int, np.dtype(np.int8), 1, 0x501)
    code = compile_kernel("a", Request("weakcell.emulator.kernels.bitpack", "to_integers", kinds, "kernel"))
    assert code is not None
    assert code[1:4] in (b"ELF", b"\xfa\xed\xfe") or code[:2] == b"d\x86"
    assert caplog.records[0].getMessage().endswith("once: 0 kernels ready, at least 1 left.")
    with pytest.raises(CompilationFailed, match=r"bitpack\.to_integers cannot be compiled: TypingError"):
        compile_kernel("b", Request("weakcell.emulator.kernels.bitpack", "to_integers", kinds[:-3], "kernel"))
    for process in pool._processes:  # a second one if the first thread was not idle yet
        process.kill()
        process.wait()
    assert compile_kernel("c", Request("weakcell.emulator.kernels.bitpack", "to_integers", kinds, "kernel")) == code
    pool.close()
    assert all(process.returncode is not None for process in pool._processes)


def test_a_worker_starts_a_single_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(64)), raising=False)
    assert compilers._count_processes() == compilers.MOST_PROCESSES
    monkeypatch.setattr("multiprocessing.parent_process", lambda: object())
    assert compilers._count_processes() == 1


SHARED = """
from pathlib import Path
from weakcell.memmodels.native import compilers, installed_code, kernel_cache, known_kernels
installed_code._FOLDER = Path("nothing was installed")
compiled = []
ask = compilers._ask
compilers._ask = lambda process, request: compiled.append(request.symbol) or ask(process, request)
few = [kernel for kernel in known_kernels.all_kernels() if kernel.function in ("to_integers", "scatter_codes")]
kernel_cache.wait_for_kernels(kernel_cache.prepare_kernels(few))
print(len(few), len(compiled))
"""


def test_processes_that_need_the_same_kernels_compile_each_once(tmp_path: Path) -> None:
    """One of them that is killed while it compiles is not waited for."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    killed, *others = (
        subprocess.Popen([sys.executable, "-c", SHARED], env=environment, stdout=subprocess.PIPE, text=True) for _ in range(3)
    )
    while not (tmp_path / "kernels.lock").exists() and killed.poll() is None:
        time.sleep(0.01)
    killed.kill()
    killed.communicate()
    counts = [[int(number) for number in process.communicate()[0].split()] for process in others]
    assert sum(compiled for _, compiled in counts) == counts[0][0] == len(list((tmp_path / "kernels").iterdir()))


@pytest.mark.parametrize("value", [0.1, -0.0, math.inf, np.float64(1e300), (1 << 63) + 5, -1])
def test_numbers_arrive_as_they_are(value: float) -> None:
    """Oracle: struct. An unsigned word keeps its bits."""
    number = np.uint64(value) if isinstance(value, int) and value > 0 else value
    words: list[int] = []
    flatten_arguments((number,), [], words)
    assert struct.pack("q", *words) == struct.pack("d" if isinstance(value, float) else "Q" if value > 0 else "q", value)


def test_known_kernels_are_those_that_a_run_opens() -> None:
    """A kernel that is missing here is compiled late; `python -m tests.emulator.known_kernels` records the list anew."""
    script = (
        "import weakcell\n"
        "from weakcell.memmodels.native import kernel_cache, known_kernels\n"
        "weakcell.emulate('digits-bnn', trials=1, images=60)\n"
        "print(*dict.fromkeys(map(known_kernels.format_kernel, kernel_cache.opened_kernels)), sep='\\n')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, capture_output=True, text=True)
    opened = {known_kernels.parse_kernel(line) for line in done.stdout.splitlines()}
    assert opened == set(known_kernels.read_sections()["binary"])


def test_the_list_of_known_kernels_is_read_and_written_alike() -> None:
    lines = (ROOT / "memmodels/native/known_kernels.txt").read_text(encoding="utf-8").splitlines()
    kernels = [line for line in lines if line and line[0] not in "#["]
    assert [known_kernels.format_kernel(known_kernels.parse_kernel(line)) for line in kernels] == kernels
    x = np.zeros((2, 3, 4))
    read_only = x[0]
    read_only.flags.writeable = False
    kinds: list[object] = []
    flatten_arguments((x.T, x[:, ::2], read_only, (1, (True, 2.0)), np.uint64(1), ()), kinds, [])
    kernel = known_kernels.KnownKernel("weakcell.a.b", "c", tuple(kinds))
    assert known_kernels.format_kernel(kernel) == "a.b.c float64[3]F, float64[3]S, float64[2]R, (int, (bool, float)), uint64, ()"
    assert known_kernels.parse_kernel(known_kernels.format_kernel(kernel)) == kernel


def test_kernels_are_expected_as_soon_as_they_are_certain() -> None:
    sections = known_kernels.read_sections()
    binary, four = sections["binary"], sections["4 bits"]
    networks = [kernels for kernels in sections.values() if binary[0] in kernels]  # not those of analyses
    shared = [kernel for kernel in binary if all(kernel in kernels for kernels in networks)]
    assert len(shared) > 2
    assert known_kernels.expect_kernels(shared[:1]) == shared[1:]
    only_binary = next(kernel for kernel in binary if kernel not in four)
    assert set(known_kernels.expect_kernels([shared[0], only_binary])) <= set(binary) - {shared[0], only_binary}
    assert known_kernels.expect_kernels([known_kernels.KnownKernel("a", "b", (int,))]) == []


def test_doctor_compiles_what_has_no_machine_code(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(installed_code, "_FOLDER", tmp_path / "nothing was installed")
    pool = CompilerPool("kernels")  # that of this process may be at work for other tests
    monkeypatch.setattr(kernel_cache, "_compilers", pool)
    few = [kernel for kernel in known_kernels.all_kernels() if kernel.function in ("to_integers", "scatter_codes")]
    monkeypatch.setattr(known_kernels, "all_kernels", lambda: few)
    for compiled in (len(few), 0):
        done = CliRunner().invoke(app, ["doctor", "--compile"])
        assert done.exit_code == 0, done.output
        assert f"machine code of {len(few)} kernels is in {tmp_path}/kernels; {compiled} were compiled now" in done.output
    assert len(list((tmp_path / "kernels").iterdir())) == len(few)
