"""Pictures of a dataset card: a map of the chips by split, for one town as for the globe, and histograms."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geograft.pairs.publishing.facts import Chips
from geograft.pairs.publishing.histograms import Histogram
from geograft.pairs.publishing.page import asset
from geograft.tables import atomic

COLOURS = ("#0072b2", "#d98200", "#b5447f", "#00805c", "#6b6b6b")
"""Of the splits, in order; told apart by colour-blind readers, and different in lightness."""

_INK, _SOFT, _LAND, _SEA, _GRID = "#18212b", "#566372", "#dfe3dc", "#f3f7f9", "#c9d2d8"
_WORLD_FROM = 60.0
_LAND_FROM = 12.0
_DRAWN = 300_000
_SHAPE = 1.45
"""Width over height of a local map, on the ground."""

Floats = NDArray[np.float64]


def write_map(chips: Chips, path: Path) -> Path:
    """Write a map of the chips, coloured by split, as PNG; the same chips give the same bytes.

    Spans of more than 60 degrees are drawn as the whole globe in the Equal Earth projection, others as a local map
    with a scale. Land is drawn where the map is wide enough for its coarse outlines.
    """
    west, south, east, north = chips.bounds
    rows = np.arange(len(chips.lon))
    if len(rows) > _DRAWN:
        rows = np.sort(np.random.default_rng(0).choice(rows, _DRAWN, replace=False))
    draw = _globe if max(east - west, north - south) > _WORLD_FROM else _local
    return _save(draw(chips, rows), path)


def _globe(chips: Chips, rows: NDArray[np.int64]) -> Any:
    """The whole globe in the Equal Earth projection."""
    figure, axes = _figure(10.0, 5.3)
    edge = np.concatenate([np.stack([np.full(90, side), np.linspace(-90, 90, 90)[:: int(np.sign(side))]], 1)
                           for side in (-180.0, 180.0)])  # fmt: skip
    axes.fill(*equal_earth(edge[:, 0], edge[:, 1]), facecolor=_SEA, edgecolor=_GRID, linewidth=0.8)
    for ring in _rings():
        axes.fill(*equal_earth(ring[:, 0], np.clip(ring[:, 1], -89, 89)), facecolor=_LAND, edgecolor="none")
    for meridian in range(-150, 180, 30):
        axes.plot(*equal_earth(np.full(90, meridian), np.linspace(-90, 90, 90)), color=_GRID, linewidth=0.5)
    for lat in range(-60, 90, 30):
        axes.plot(*equal_earth(np.linspace(-180, 180, 90), np.full(90, lat)), color=_GRID, linewidth=0.5)
    lon = (chips.lon[rows] + 180) % 360 - 180
    _scatter(axes, *equal_earth(lon, chips.lat[rows]), chips, rows)
    axes.set_aspect("equal")
    axes.axis("off")
    _legend(axes, chips)
    return figure


def _local(chips: Chips, rows: NDArray[np.int64]) -> Any:
    """A region in degrees, as wide as it is on the ground in its middle."""
    west, south, east, north = chips.bounds
    stretch = 1 / max(np.cos(np.radians((south + north) / 2)), 0.05)
    high, wide = north - south, (east - west) / stretch
    longest = max(high, wide, 1e-6)
    figure, axes = _figure(9.0, 6.4)
    axes.set_facecolor(_SEA)
    lon = np.where(chips.lon[rows] < west - 1, chips.lon[rows] + 360, chips.lon[rows])
    if longest > _LAND_FROM:
        for ring in _rings():
            for turn in (-360, 0, 360):
                axes.fill(ring[:, 0] + turn, ring[:, 1], facecolor=_LAND, edgecolor="none")
    if len(rows) < 5000 and chips.side.max() / 110_500 > longest / 250:
        _squares(axes, lon, chips, rows)
    else:
        _scatter(axes, lon, chips.lat[rows], chips, rows)
    half_high = 0.56 * max(high, wide / _SHAPE, 1e-6)
    half_wide = half_high * _SHAPE * stretch
    axes.set_xlim((west + east) / 2 - half_wide, (west + east) / 2 + half_wide)
    axes.set_ylim((south + north) / 2 - half_high, (south + north) / 2 + half_high)
    axes.set_aspect(stretch, adjustable="box")
    axes.grid(color=_GRID, linewidth=0.5)
    axes.tick_params(colors=_SOFT, labelsize=8, length=0)
    axes.xaxis.set_major_formatter(lambda value, _: _degrees((value + 180) % 360 - 180, "EW"))
    axes.yaxis.set_major_formatter(lambda value, _: _degrees(value, "NS"))
    axes.locator_params(nbins=6)
    _scale(axes, longest * 111_195, stretch)
    _legend(axes, chips)
    return figure


def equal_earth(lon: Any, lat: Any) -> tuple[Floats, Floats]:
    """Positions in the Equal Earth projection (Šavrič, Patterson and Jenny, 2018), sphere of radius 1.

    Args:
        lon: degrees, -180 to 180.
        lat: degrees, -90 to 90.
    """
    a = (1.340264, -0.081106, 0.000893, 0.003796)
    angle = np.arcsin(np.sqrt(3) / 2 * np.sin(np.radians(np.asarray(lat, np.float64))))
    square = angle**2
    sixth = square**3
    slope = a[0] + 3 * a[1] * square + sixth * (7 * a[2] + 9 * a[3] * square)
    x = 2 * np.sqrt(3) / 3 * np.radians(np.asarray(lon, np.float64)) * np.cos(angle) / slope
    return x, angle * (a[0] + a[1] * square + sixth * (a[2] + a[3] * square))


def _figure(width: float, height: float) -> tuple[Any, Any]:
    """An empty figure of inches, with one pair of axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=130, layout="constrained", facecolor="white")
    axes = figure.subplots()
    for spine in axes.spines.values():
        spine.set_color(_GRID)
    return figure, axes


def _scatter(axes: Any, x: Floats, y: Floats, chips: Chips, rows: NDArray[np.int64]) -> None:
    """Chips as dots, the splits with fewer chips on top."""
    size = float(np.clip(40_000 / len(rows), 1.2, 14))
    for code in _by_size(chips):
        mine = chips.split[rows] == code
        axes.scatter(x[mine], y[mine], s=size, c=_colour(code), alpha=0.75, linewidths=0, zorder=3)


def _squares(axes: Any, lon: Floats, chips: Chips, rows: NDArray[np.int64]) -> None:
    """Chips as squares of their own size."""
    from matplotlib.collections import PolyCollection

    half = chips.side[rows] / 2 / 111_195
    wide = half / np.cos(np.radians(chips.lat[rows]))
    signs = ((-1, -1), (1, -1), (1, 1), (-1, 1))
    outline = np.stack([np.stack([lon + x * wide, chips.lat[rows] + y * half], 1) for x, y in signs], 1)
    for code in _by_size(chips):
        mine = chips.split[rows] == code
        colour = _colour(code)
        axes.add_collection(PolyCollection(outline[mine], facecolors=f"{colour}55", edgecolors=colour, linewidths=0.9))


def _by_size(chips: Chips) -> list[int]:
    """Splits, most chips first."""
    counts = np.bincount(chips.split, minlength=len(chips.splits))
    return [int(code) for code in np.argsort(-counts, kind="stable")]


def _colour(code: int) -> str:
    """A split's colour."""
    return COLOURS[min(code, len(COLOURS) - 1)]


def _legend(axes: Any, chips: Chips) -> None:
    """Splits with their counts, under the map."""
    from matplotlib.lines import Line2D

    counts = np.bincount(chips.split, minlength=len(chips.splits))
    marks = [
        Line2D([], [], marker="s", linestyle="", color=_colour(code), label=f"{name}  {counts[code]:,} chips")
        for code, name in enumerate(chips.splits)
    ]
    axes.legend(handles=marks, loc="upper center", bbox_to_anchor=(0.5, -0.05), ncols=len(marks), frameon=False,
                fontsize=9, labelcolor=_INK)  # fmt: skip


def _scale(axes: Any, metres: float, stretch: float) -> None:
    """A bar of a round length in the lower right corner."""
    longest = metres / 4
    power = 10 ** np.floor(np.log10(longest))
    length = power * max(each for each in (1, 2, 5) if each * power <= longest)
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    end, y = right - 0.03 * (right - left), bottom + 0.04 * (top - bottom)
    start = end - length / 111_195 * stretch
    axes.plot([start, end], [y, y], color=_INK, linewidth=2.2, solid_capstyle="butt", zorder=4)
    text = f"{length / 1000:g} km" if length >= 1000 else f"{length:g} m"
    axes.annotate(text, ((start + end) / 2, y), (0, 4), textcoords="offset points", ha="center", fontsize=8, color=_INK)


def _degrees(value: float, letters: str) -> str:
    """A coordinate for people."""
    rounded = round(float(value), 4)
    return f"{abs(rounded):g}°{'' if rounded == 0 else letters[rounded < 0]}"


def _rings() -> list[Floats]:
    """Outlines of the land, (N, 2) each, degrees."""
    return [np.asarray(ring, np.float64).reshape(-1, 2) / 10 for ring in json.loads(asset("land.json"))["rings"]]


def write_histogram(histogram: Histogram, path: Path) -> Path | None:
    """Write a histogram as PNG; None where no value is known."""
    if not histogram.known:
        return None
    figure, axes = _figure(7.6, 2.9)
    heights = axes.bar(range(len(histogram.counts)), histogram.counts, color=COLOURS[0], width=0.86)
    axes.bar_label(heights, labels=[f"{count:,}" if count else "" for count in histogram.counts], fontsize=7,
                   color=_SOFT, padding=1)  # fmt: skip
    turned = len(histogram.labels) > 10
    axes.set_xticks(range(len(histogram.labels)), histogram.labels, fontsize=8, rotation=35 if turned else 0,
                    ha="right" if turned else "center")  # fmt: skip
    axes.set_title(histogram.title, fontsize=10, loc="left", color=_INK)
    axes.tick_params(colors=_SOFT, length=0)
    axes.set_yticks([])
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.margins(x=0.01, y=0.12)
    return _save(figure, path)


def _save(figure: Any, path: Path) -> Path:
    """Write a figure as PNG without saying when or by what."""
    with atomic(path) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None})
    return path
