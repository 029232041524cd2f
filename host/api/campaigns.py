"""Campaigns of many runs that are kept in a folder: `sweep`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from weakcell.host.board.inference.studies import make_executor
from weakcell.host.board.memory.studies import refuse_hardware
from weakcell.host.campaign.campaign import Campaign, resolve_campaign
from weakcell.host.campaign.schema import parse_campaign, read_campaign, write_toml
from weakcell.host.campaign.store import open_store
from weakcell.host.campaign.sweep import SweepProgress
from weakcell.host.campaign.sweep import run_campaign as run_missing
from weakcell.host.campaign.tables import Tables, write_tables
from weakcell.host.report.notebook import CampaignResults, read_results
from weakcell.host.study.executors import MOST_PROCESSES, Executor, Processes, Threads, default_workers, run_task
from weakcell.memmodels.errors import Interrupted, UsageError


def sweep(
    campaign: str | Path | Mapping[str, Any],
    out: str | Path,
    *,
    half_width: float | None = None,
    threads: int | None = None,
    processes: int | None = None,
    cluster: str | None = None,
    data_dir: str | Path | None = None,
    yes: bool = False,
    on_step: Callable[[SweepProgress], None] | None = None,
) -> CampaignResults:
    """Make every run of a campaign that is missing: networks x memories x operating points x trials.

    Finished runs are kept in the folder. The same call continues a campaign that was stopped. Results do not depend on the workers.

    Args:
        campaign: A campaign file (TOML), or the same tables as a dict: `network` and `memory` are lists of tables, `placement`,
            `trials`, `half_width`, `seeds`, `read_every`, `batch`, `die` and `compute` are optional.
        out: The folder for runs and tables.
        half_width: Stop a point when its 95 % interval is no wider than ± this share, instead of the campaign's own value.
        threads: Threads of this process; None for all cores.
        processes: Processes of this machine instead of threads.
        cluster: A Dask scheduler instead of threads: `tcp://HOST:PORT`, or `local:N` for N processes here.
        data_dir: The folder to search first for a data set's files.
        yes: Let memories of a campaign file open a board's port. A dict always may.
        on_step: Called after each task, in the calling thread.

    Returns:
        The results in the folder. `.summary` has one row per point, `.frame` one per run.

    Raises:
        InputError: The campaign has mistakes; the message lists all of them with their lines.
        UsageError: More than one kind of workers is asked for, or a campaign file names a board and `yes` is not given.
        OutputError: The folder cannot be written, or holds another program's files.
        Interrupted: Ctrl-C. Finished runs are kept.

    Examples:
        >>> import weakcell
        >>> campaign = {
        ...     "trials": 2,
        ...     "network": [{"model": "digits-bnn", "images": 50}],
        ...     "memory": [{"spec": "uniform", "grid": {"ber": [0.01, 0.1]}}],
        ... }
        >>> results = weakcell.sweep(campaign, "campaign")
        >>> results.summary.select("sweep_value", "trials").rows()
        [(0.01, 2), (0.1, 2)]
    """
    check_workers(threads, processes, cluster)
    folder = Path(out)
    if isinstance(campaign, Mapping):
        file = parse_campaign(write_toml(campaign), Path("campaign.toml"))
    else:
        file = read_campaign(Path(campaign))
    asked = resolve_campaign(file, None if data_dir is None else Path(data_dir), half_width)
    refuse_hardware(f"Sweep into {folder}", asked.studies, yes or isinstance(campaign, Mapping))
    executor = choose_executor(asked, threads, processes, cluster)
    with open_store(folder) as store:
        try:
            run_missing(asked, store, executor, ["weakcell.sweep"], on_step or (lambda step: None))
        except KeyboardInterrupt:
            raise Interrupted(f"Sweep into {folder}", "interrupted", "Finished runs are kept; the same call goes on") from None
        write_tables(Tables(store), folder)
    return read_results(folder, None if data_dir is None else Path(data_dir))


def check_workers(threads: int | None, processes: int | None, cluster: str | None) -> None:
    """UsageError if more than one kind of workers is asked for, or more processes than a machine can bear."""
    if processes is not None and processes > MOST_PROCESSES:
        raise UsageError(f"--processes {processes}", f"{MOST_PROCESSES:,} are the most on one machine", "Take fewer")
    if sum(choice is not None for choice in (threads, processes, cluster)) > 1:
        raise UsageError("weakcell sweep", "several kinds of workers are asked for", "Give --threads, --processes or --cluster")


def choose_executor(campaign: Campaign, threads: int | None, processes: int | None, cluster: str | None) -> Executor:
    """Return the workers of a campaign: a cluster, processes, threads, or boards.

    Raises:
        UsageError: boards compute the images, and the workers would be other processes.
    """
    if campaign.compute == "board":
        if cluster is not None or processes is not None:
            found = 'its images are computed by boards (compute = "board"), whose ports one process holds'
            raise UsageError("A campaign on several processes", found, "Leave out --processes and --cluster")
        return make_executor(campaign.studies)
    if cluster is not None:
        from weakcell.host.campaign.cluster import Cluster

        return Cluster(campaign.workloads, cluster)
    if processes is not None:
        return Processes(campaign.workloads, processes)
    return Threads(partial(run_task, campaign.workloads), threads or default_workers())
