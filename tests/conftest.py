"""What all tests share: seeds, a hypothesis profile that never varies, and the path of the shared folder."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from zlib import crc32

# One thread per library: processes of pytest-xdist share the cores, and idle threads of OpenMP and BLAS spin. Read at their import.
for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

import numpy as np  # noqa: E402
import pytest  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402

settings.register_profile("weakcell", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("weakcell")

SHARED = Path(__file__).resolve().parents[2] / "shared"


def pytest_configure() -> None:
    """Ctrl-C reaches the tests that send it, though a shell that starts them in the background has it ignored."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """A generator that is seeded by the test's name: the same in every run, whatever else runs."""
    return np.random.default_rng(crc32(request.node.nodeid.split("/")[-1].encode()))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder `shared` beside the checkout (data sets, device data); tests that need it are skipped where it is not."""
    if not SHARED.is_dir():
        pytest.skip(f"there is no {SHARED}: it holds data that is not in the repository")
    return SHARED
