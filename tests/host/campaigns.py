"""Campaigns of tests: from their text, and run into a folder."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from weakcell.host.campaign.campaign import Campaign, resolve_campaign
from weakcell.host.campaign.schema import read_campaign
from weakcell.host.campaign.store import open_store
from weakcell.host.campaign.sweep import run_campaign
from weakcell.host.campaign.tables import Tables, write_tables
from weakcell.host.study.executors import Threads, run_task


def campaign_of(text: str, folder: Path) -> Campaign:
    path = folder / "campaign.toml"
    path.write_text(text, encoding="utf-8")
    return resolve_campaign(read_campaign(path))


def run_all(campaign: Campaign, folder: Path, workers: int = 2) -> int:
    with open_store(folder) as store:
        made = run_campaign(campaign, store, Threads(partial(run_task, campaign.workloads), workers), ["weakcell"])
        write_tables(Tables(store), folder)
    return made
