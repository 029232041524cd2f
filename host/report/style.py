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


def level_colours(count: int) -> list[str]:
    """Colours from sky blue over orange to vermilion, as #rrggbb, for things that have an order."""
    stops = [tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5)) for colour in ("#56B4E9", "#E69F00", "#D55E00")]
    made = []
    for k in range(count):
        at = 2 * k / max(1, count - 1)
        a, b, share = stops[int(at)], stops[min(2, int(at) + 1)], at % 1
        made.append("#" + "".join(f"{round(x + share * (y - x)):02x}" for x, y in zip(a, b, strict=True)))
    return made
