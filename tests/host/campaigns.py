"""Campaigns of tests: from their text, and run into a folder."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from weakcell.host.campaign.campaign import Campaign, prepare_campaign
from weakcell.host.campaign.schema import read_campaign
from weakcell.host.campaign.store import open_store
from weakcell.host.campaign.sweep import sweep
from weakcell.host.campaign.tables import Tables, export
from weakcell.host.study.executors import Threads, perform


def campaign_of(text: str, folder: Path) -> Campaign:
    path = folder / "campaign.toml"
    path.write_text(text, encoding="utf-8")
    return prepare_campaign(read_campaign(path))


def run_all(campaign: Campaign, folder: Path, workers: int = 2) -> int:
    with open_store(folder) as store:
        made = sweep(campaign, store, Threads(partial(perform, campaign.workloads), workers), ["weakcell"])
        export(Tables(store), folder)
    return made
