"""Colours and settings that the reports' figures share."""

from __future__ import annotations

from typing import Any

BLUE, ORANGE, GREEN, INK, GREY = "#0072B2", "#D55E00", "#009E73", "#24292f", "#8c959f"
COLOURS = (BLUE, ORANGE, GREEN, "#CC79A7", "#E69F00", "#56B4E9", "#8c6bb1")
"""Okabe and Ito's, which people with any colour vision tell apart; markers and dashes tell the rest."""

STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#eaeef2",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 7.5,
    "svg.hashsalt": "weakcell",
    "svg.fonttype": "none",
}
