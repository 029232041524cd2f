"""Campaigns of tests: from their text, and run into a folder."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from host.campaign.campaign import Campaign, prepare_campaign
from host.campaign.executors import Threads
from host.campaign.export import export
from host.campaign.schema import read_campaign
from host.campaign.store import open_store
from host.campaign.sweep import sweep
from host.campaign.table import Tables
from host.campaign.tasks import perform


def campaign_of(text: str, folder: Path) -> Campaign:
    path = folder / "campaign.toml"
    path.write_text(text, encoding="utf-8")
    return prepare_campaign(read_campaign(path))


def run_all(campaign: Campaign, folder: Path, workers: int = 2) -> int:
    with open_store(folder) as store:
        made = sweep(campaign, store, Threads(partial(perform, campaign.benches), workers), ["weakcell"])
        export(Tables(store), folder)
    return made
