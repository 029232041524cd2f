"""Cut the network between driver, scheduler and worker of a Dask cluster for 30 s: the campaign ends with the same table.

    python -m tests.endurance.network_cut            # both cuts, as root or where user namespaces are allowed
    python -m tests.endurance.network_cut --seconds 60

The program runs in a network namespace of its own and puts the far side into another one. A veth pair joins them; its near end goes
down, so that no packet passes and nobody is told. A worker that loses its scheduler ends; its nanny starts another.

The oracle is the table that threads of one process make.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from tests.host.test_campaign_executors import TEXT, run_with
from weakcell.host.campaign.campaign import Campaign, resolve_campaign
from weakcell.host.campaign.cluster import Cluster
from weakcell.host.campaign.schema import read_campaign
from weakcell.host.campaign.sweep import SweepProgress
from weakcell.host.study.executors import Threads, run_task

NEAR, FAR = "10.213.7.1", "10.213.7.2"
PORT = 18786
_INSIDE = "WEAKCELL_ENDURANCE_NETWORK"


def enter_namespace() -> bool:
    """Start this program again in a network namespace; return False if that is not allowed."""
    if _INSIDE in os.environ:
        return True
    options = ["--net"] if os.geteuid() == 0 else ["--map-root-user", "--net"]
    if subprocess.run(["unshare", *options, "true"], capture_output=True, check=False).returncode:
        return False
    os.environ[_INSIDE] = "1"
    command = ["unshare", *options, sys.executable, "-m", "tests.endurance.network_cut", *sys.argv[1:]]
    raise SystemExit(subprocess.run(command, check=False).returncode)


def ip(*words: str, prefix: tuple[str, ...] = ()) -> None:
    """Run `ip`."""
    subprocess.run([*prefix, "ip", *words], check=True)


@contextmanager
def far_side() -> Iterator[tuple[str, ...]]:
    """Make a second network namespace, joined by a cable; yield the words that run a command there."""
    with subprocess.Popen(["unshare", "--net", "sleep", "infinity"]) as holder:
        try:
            time.sleep(0.5)
            inside = ("nsenter", "--target", str(holder.pid), "--net")
            ip("link", "set", "lo", "up")
            ip("link", "add", "near", "type", "veth", "peer", "name", "far")
            ip("link", "set", "far", "netns", str(holder.pid))
            ip("addr", "add", f"{NEAR}/30", "dev", "near")
            ip("link", "set", "near", "up")
            for words in (("addr", "add", f"{FAR}/30", "dev", "far"), ("link", "set", "far", "up"), ("link", "set", "lo", "up")):
                ip(*words, prefix=inside)
            yield inside
        finally:
            holder.kill()


@contextmanager
def cluster(scheduler_side: tuple[str, ...], worker_side: tuple[str, ...], host: str, folder: Path) -> Iterator[str]:
    """Start a scheduler and a worker of two threads; yield the scheduler's address."""
    address = f"tcp://{host}:{PORT}"
    scheduler = ["scheduler", "--host", host, "--port", str(PORT), "--no-dashboard", "--no-jupyter"]
    worker = ["worker", address, "--nthreads", "2", "--no-dashboard", "--local-directory", str(folder)]
    with ExitStack() as stack:
        for side, (kind, *options) in ((scheduler_side, scheduler), (worker_side, worker)):
            command = [*side, sys.executable, "-m", f"distributed.cli.dask_{kind}", *options]
            process = stack.enter_context(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
            stack.callback(process.terminate)
        yield address


def run_cut(campaign: Campaign, far_scheduler: bool, seconds: float, folder: Path) -> tuple[tuple[bytes, bytes], float]:
    """Run the campaign and cut the network after a quarter of the runs; return the tables and how long it took."""
    cuts: list[threading.Thread] = []

    def cut() -> None:
        ip("link", "set", "near", "down")
        time.sleep(seconds)
        ip("link", "set", "near", "up")

    def disturb(step: SweepProgress) -> None:
        if not cuts and step.finished >= step.needed // 4:
            cuts.append(threading.Thread(target=cut))
            cuts[0].start()
            time.sleep(0.2)

    with far_side() as far:
        host = FAR if far_scheduler else NEAR
        with cluster(far if far_scheduler else (), far, host, folder) as address:
            start = time.perf_counter()
            tables = run_with(Cluster(campaign.workloads, address), campaign, folder / "out", disturb)
            took = time.perf_counter() - start
        for thread in cuts:
            thread.join()
    if not cuts:
        raise AssertionError("the network was never cut")
    return tables, took


def main() -> int:
    """Run the program; return 1 if a table differs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=30.0, help="how long no packet passes")
    parser.add_argument("--only", choices=("driver", "worker"), help="who is cut off; default: both, one after the other")
    asked = parser.parse_args()
    if not enter_namespace():
        print("skipped: network namespaces are not allowed here")
        return 0
    failed = 0
    with tempfile.TemporaryDirectory(prefix="cut-") as work:
        path = Path(work) / "c.toml"
        path.write_text(TEXT, encoding="utf-8")
        campaign = resolve_campaign(read_campaign(path))
        expected = run_with(Threads(partial(run_task, campaign.workloads), 1), campaign, Path(work) / "threads")
        for name, far_scheduler in (("driver", True), ("worker", False)):
            if asked.only not in (None, name):
                continue
            folder = Path(work) / str(far_scheduler)
            folder.mkdir()
            tables, took = run_cut(campaign, far_scheduler, asked.seconds, folder)
            equal = tables == expected
            failed += not equal
            found = "equal tables" if equal else "TABLES DIFFER"
            print(f"{name}: cut off for {asked.seconds:g} s, ended after {took:.0f} s: {found}", flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
