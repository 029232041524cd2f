"""What campaigns cost and save, measured; each command prints what it found.

python tests/benchmarks/campaign.py overhead [--runs 100000]     milliseconds per run beside the run itself; the driver's memory
python tests/benchmarks/campaign.py dask                         two Dask workers against one
python tests/benchmarks/campaign.py kills [--kills 20]           workers, scheduler and driver killed at random: the same table?
python tests/benchmarks/campaign.py factor DATA_DIR              a 20-point Fashion-MNIST sweep against the plain loop

`operating_points.py` is about what optimize finds, `intervals.py` about what intervals hold.
"""

from __future__ import annotations

import argparse
import random
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import polars as pl

from weakcell.emulator.evaluation.trials import run_trial
from weakcell.host.campaign.campaign import Campaign, resolve_campaign
from weakcell.host.campaign.schema import read_campaign
from weakcell.host.campaign.store import open_store
from weakcell.host.campaign.sweep import SweepProgress, run_campaign
from weakcell.host.campaign.tables import Tables, write_tables
from weakcell.host.study.executors import Threads, run_task
from weakcell.host.study.study import Study, resolve_study
from weakcell.host.study.sweep_values import parse_sweep
from weakcell.memmodels.catalogue import parse_spec


def campaign_of(text: str, folder: Path, data_dir: Path | None = None) -> Campaign:
    path = folder / "campaign.toml"
    path.write_text(text, encoding="utf-8")
    return resolve_campaign(read_campaign(path), data_dir)


def resident() -> float:
    """MiB that this process holds now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() / 2**20


def overhead(runs: int) -> None:
    text = f'trials = {runs // 10}\n[[network]]\nmodel = "digits-bnn"\nimages = 1\n[[memory]]\nspec = "uniform"\n'
    text += f"grid = {{ ber = {[0.001 * (i + 1) for i in range(10)]} }}\n"
    with tempfile.TemporaryDirectory() as place:
        campaign = campaign_of(text, Path(place))
        marks: list[tuple[int, float]] = []
        busy = 0.0

        def look(step: SweepProgress) -> None:
            nonlocal busy
            busy += sum(step.done.seconds)
            if not marks or step.finished >= marks[-1][0] + runs // 10:
                marks.append((step.finished, resident()))

        began, own = time.perf_counter(), time.thread_time()
        with open_store(Path(place)) as store:
            run_campaign(campaign, store, Threads(partial(run_task, campaign.workloads), 1), [], look)
            took, own = time.perf_counter() - began, time.thread_time() - own
            size = sum(path.stat().st_size for path in Path(place).glob("runs.sqlite*"))
            write_tables(Tables(store), Path(place))
            tables = sum((Path(place) / name).stat().st_size for name in ("results.csv", "results.parquet"))
        beside = 1000 * (took - busy) / runs
        print(f"{runs:,} runs in {took:.1f} s: {1000 * took / runs:.3f} ms each, of which {beside:.3f} ms beside the run")
        print(f"processor time of the driver's own thread: {1000 * own / runs:.3f} ms a run")
        print("driver's memory (MiB): " + ", ".join(f"{n:,} runs {mib:.0f}" for n, mib in marks))
        print(f"after writing the tables: {resident():.0f} MiB")
        print(f"store {size / runs:.0f} bytes a run, tables {tables / runs:.0f} bytes a run")


def dask() -> None:
    from distributed import LocalCluster

    from weakcell.host.campaign.cluster import Cluster

    text = (
        'trials = 150\n[[network]]\nmodel = "digits-qnn"\n[[memory]]\nspec = "uniform"\ngrid = { ber = [0.001, 0.01, 0.05, 0.1] }\n'
    )
    took: dict[int, list[float]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as place:
        campaign = campaign_of(text, Path(place))
        for repeat in range(3):
            for workers in (1, 2):
                with LocalCluster(n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
                    address = cluster.scheduler_address
                    with open_store(Path(place) / f"warm{workers}{repeat}") as store:
                        few = replace(campaign, trials=4 * workers)
                        run_campaign(few, store, Cluster(few.workloads, address), [])
                    with open_store(Path(place) / f"out{workers}{repeat}") as store:
                        began = time.perf_counter()
                        run_campaign(campaign, store, Cluster(campaign.workloads, address), [])
                        took[workers].append(time.perf_counter() - began)
    one, two = min(took[1]), min(took[2])
    print(f"{campaign.runs} runs: one worker {one:.2f} s, two workers {two:.2f} s, {one / two:.2f} x (best of 3 each)")


KILLS = """\
trials = 60
[[network]]
model = "digits-bnn"
[[network]]
model = "digits-qnn"
images = 100
[[memory]]
spec = "sram-14nm"
grid = { v_over_vmin = "0.78:0.9:0.02" }
"""


def kills(wanted: int) -> None:
    """A scheduler, two workers and the driver as processes; one of them dies every few seconds."""
    rng, counts = random.Random(11), {"worker": 0, "scheduler": 0, "driver": 0}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        campaign = campaign_of(KILLS, folder)
        with open_store(folder / "undisturbed") as store:
            run_campaign(campaign, store, Threads(partial(run_task, campaign.workloads), 2), [])
            write_tables(Tables(store), folder / "undisturbed")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]

        def start(*words: str) -> subprocess.Popen[bytes]:
            return subprocess.Popen([sys.executable, "-m", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

        def scheduler() -> subprocess.Popen[bytes]:
            return start("distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard")

        def worker() -> subprocess.Popen[bytes]:
            address = f"tcp://127.0.0.1:{port}"
            return start("distributed.cli.dask_worker", address, "--nthreads", "1", "--no-nanny", "--no-dashboard",
                         "--local-directory", place)  # fmt: skip

        def driver() -> subprocess.Popen[bytes]:
            address = f"tcp://127.0.0.1:{port}"
            return start(
                "weakcell.host.cli",
                "sweep",
                str(folder / "campaign.toml"),
                "--out",
                str(folder / "out"),
                "--cluster",
                address,
                "-q",
            )

        def finished() -> int:
            import sqlite3

            try:
                with sqlite3.connect(f"file:{folder / 'out' / 'runs.sqlite'}?mode=ro", uri=True) as db:
                    return int(db.execute("SELECT count(*) FROM runs").fetchone()[0])
            except sqlite3.Error:
                return 0

        crew = {"scheduler": scheduler(), "worker": worker(), "worker2": worker(), "driver": driver()}
        made = {"scheduler": scheduler, "worker": worker, "worker2": worker, "driver": driver}
        began, last = time.monotonic(), 0
        for number in range(wanted):
            aim = campaign.runs * (number + 1) // (wanted + 2)
            while finished() < aim and time.monotonic() - began < 3000:
                time.sleep(0.05)
                for name, process in crew.items():
                    if process.poll() is not None:  # workers leave when their scheduler does
                        crew[name] = made[name]()
            name = rng.choice(["worker", "worker2", "worker", "worker2", "driver", "scheduler"])
            crew[name].send_signal(signal.SIGKILL)
            crew[name].wait()
            crew[name] = made[name]()
            counts[name.rstrip("2")] += 1
            last = finished()
            print(f"kill {number + 1}: {name} at {last} of {campaign.runs} runs", flush=True)
        while not (folder / "out" / "results.csv").is_file():
            time.sleep(0.2)
            for name, process in crew.items():
                if process.poll() is not None:
                    crew[name] = made[name]()
        crew["driver"].wait()
        for process in crew.values():
            process.kill()
        names = ("results.csv", "results.parquet")
        same = all((folder / "out" / name).read_bytes() == (folder / "undisturbed" / name).read_bytes() for name in names)
        rows = pl.read_parquet(folder / "out" / "results.parquet")
        print(f"killed {counts}; {rows.height} rows of {campaign.runs}, {rows['run'].n_unique()} different; same bytes: {same}")


def factor(data_dir: Path, images: int) -> None:
    """Runs until every point's interval is ± 0.5 points: the plain loop, and what sweeps do; seconds of the processor."""
    grid = "v_over_vmin=0.81:1.0:0.01"
    half, most = 0.005, 400
    study = Study(model="fashion-bnn", memory=parse_spec("sram-14nm"), sweep=parse_sweep(grid), trials=2, images=images)
    resolved = resolve_study(study, data_dir)
    plain = replace(resolved.questions, fault_free_cache=None)
    run_trial(resolved.plan, resolved.points[0].placement, plain, study.read_every)
    per_trial = []
    for point in resolved.points:  # two trials of each point give the pace of the loop
        began = time.process_time()
        for trial in range(2):
            run_trial(resolved.plan, point.placement, plain, study.read_every, trial=trial)
        per_trial.append((time.process_time() - began) / 2)
    with tempfile.TemporaryDirectory() as place:
        text = f'trials = {most}\nhalf_width = {half}\n[[network]]\nmodel = "fashion-bnn"\nimages = {images}\n[[memory]]\n'
        text += 'spec = "sram-14nm"\ngrid = { v_over_vmin = "0.81:1.0:0.01" }\n'
        campaign = campaign_of(text, Path(place), data_dir)
        assert len(campaign.cells) == 20
        with open_store(Path(place) / "out") as store:
            began = time.process_time()
            made = run_campaign(campaign, store, Threads(partial(run_task, campaign.workloads), 1), [])
            took = time.process_time() - began
            summary = Tables(store).summary
    trials = summary["trials"].to_list()
    reached = ((summary["high"] - summary["low"]) / 2).to_list()
    without = [n / (1.0 - removed) for n, removed in zip(trials, summary["removed"].fill_null(0.0), strict=True)]
    loop, worst = sum(per_trial) * max(without), round(max(without))
    equal = sum(pace * n for pace, n in zip(per_trial, without, strict=True))
    print(
        f"20 points, {images} images, ± {100 * half} points; trials by point {trials}; widest half {100 * max(reached):.3f} points"
    )
    print(f"{made} runs in {took:.1f} s ({1000 * took / made:.1f} ms each)")
    print(
        f"plain loop, at every point the {worst} trials that the worst needs: {worst * 20} runs, {loop:.1f} s: {loop / took:.1f} x"
    )
    print(f"plain loop that knew the trials each point needs: {equal:.1f} s: {equal / took:.2f} x")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["overhead", "dask", "kills", "factor"])
    parser.add_argument("data_dir", nargs="?", type=Path)
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--images", type=int, default=2000)
    given = parser.parse_args()
    match given.what:
        case "overhead":
            overhead(given.runs)
        case "dask":
            dask()
        case "kills":
            kills(given.kills)
        case "factor":
            factor(given.data_dir, given.images)


if __name__ == "__main__":
    main()
