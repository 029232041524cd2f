"""Colours and Matplotlib settings that all figures share."""

from __future__ import annotations

from typing import Any

BLUE, ORANGE, GREEN, INK, GREY = "#0072B2", "#D55E00", "#009E73", "#24292f", "#8c959f"
COLOURS = (BLUE, ORANGE, GREEN, "#CC79A7", "#E69F00", "#56B4E9", "#8c6bb1", "#8b5e3c")
"""The palette of Okabe and Ito: distinguishable with any colour vision. Markers and line styles distinguish further series."""
DARK_COLOURS = ("#4BA3E3", "#FF8A3D", "#2FC79A", "#E39CC3", "#F0B73A", "#7CC7F2", "#AE93DB", "#C2926B")
"""The same colours on dark paper."""
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "*", "<", ">", "p")
"""Matplotlib's symbols. Eleven: no divisor in common with the colours, so that 88 series differ in colour and marker."""
DASHES: tuple[Any, ...] = ("-", (0, (4, 3)), ":", "-.", (0, (8, 2)), (0, (5, 1, 1, 1, 1, 1)))
"""Matplotlib's line styles."""

STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.parse_math": False,
    "text.usetex": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#eaeef2",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 7.5,
    "lines.markersize": 3,
    "svg.hashsalt": "weakcell",
    "svg.fonttype": "none",
}
"""Matplotlib settings of all figures; `svg.hashsalt` makes equal figures equal files."""

STUDY_STYLE: dict[str, Any] = {
    **STYLE,
    "text.color": INK,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.7,
    "grid.linewidth": 0.8,
    "xtick.color": INK,
    "ytick.color": INK,
}
PAGE_STYLE: dict[str, Any] = {
    **STUDY_STYLE,
    "font.size": 8,
    "legend.fontsize": 7.5,
    "lines.markersize": 4,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}
"""Of charts inside a page, which has a background of its own."""
PAPER_STYLE: dict[str, Any] = {
    **STYLE,
    "font.size": 7.5,
    "legend.fontsize": 6.5,
    "lines.linewidth": 1.2,
    "pdf.fonttype": 42,
}


def series_look(number: int) -> dict[str, Any]:
    """Return colour, marker and dash of the `number`-th series; the dash changes when all colours are used."""
    return {"colour": COLOURS[number % len(COLOURS)], "marker": number % len(MARKERS), "dash": number // len(COLOURS) % len(DASHES)}


def reference_look(number: int) -> dict[str, Any]:
    """Return colour and dash of the `number`-th reference line: never solid, never in a colour of the data."""
    broken = len(DASHES) - 1
    return {"colour": (INK, GREY)[number // broken % 2], "dash": 1 + number % broken}


def level_colours(count: int) -> list[str]:
    """Return `count` ordered colours from sky blue over orange to vermilion, as #rrggbb."""
    stops = [tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5)) for colour in ("#56B4E9", "#E69F00", "#D55E00")]
    colours = []
    for k in range(count):
        position = 2 * k / max(1, count - 1)
        start, end, share = stops[int(position)], stops[min(2, int(position) + 1)], position % 1
        colours.append("#" + "".join(f"{round(a + share * (b - a)):02x}" for a, b in zip(start, end, strict=True)))
    return colours
