"""What the inspection page shows, in the words and numbers that its template writes out."""

import base64
import hashlib
import json
import math
import re
import zlib
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from geograft.pairs.leakage import Leakage
from geograft.pairs.publishing.facts import Chips, Facts
from geograft.pairs.publishing.folder import PairFolder, column, names
from geograft.pairs.publishing.histograms import Histogram
from geograft.pairs.publishing.sampling import ShownChip, wedge

MAP_CHIPS = 100_000
"""Chips that a map draws at most; beyond it draws a fair sample."""

_WORLD = 2**30
_TEMPLATES = "assets/pairs"


# --- templates --------------------------------------------------------------------------------------------


def asset(name: str) -> str:
    """The text of a file beside the templates."""
    return files("geograft").joinpath(_TEMPLATES, name).read_text(encoding="utf-8")


def render(name: str, *, escape: bool, **values: Any) -> str:
    """A template filled in.

    Args:
        name: the template's file.
        escape: values become HTML text; False for Markdown, whose template escapes itself.
        values: what the template names.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("geograft", _TEMPLATES),
        autoescape=escape,  # noqa: S701 - Markdown has its own escapes
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    environment.filters["number"] = number
    environment.filters["share"] = share
    environment.filters["md"] = markdown
    return environment.get_template(name).render(**values)


def number(value: float | None) -> str:
    """A number for people, with thin spaces between thousands; "–" where there is none."""
    if value is None:
        return "–"
    if isinstance(value, int) or float(value).is_integer():
        return f"{int(value):,}".replace(",", "\u202f")
    return f"{value:.1f}" if abs(value) < 100 else f"{value:,.0f}".replace(",", "\u202f")


def share(part: float, whole: float) -> str:
    """A part as percent of a whole."""
    percent = 100 * part / whole if whole else 0.0
    return f"{percent:.0f} %" if percent >= 10 or percent == 0 else f"{percent:.1f} %" if percent >= 0.1 else "< 0.1 %"


def markdown(text: object) -> str:
    """Text as Markdown shows it literally, in a table's cell too."""
    return re.sub(r"([\\`*_{}\[\]<>#|~&])", r"\\\1", " ".join(str(text).split()))


def inspection_page(folder: PairFolder, facts: Facts, leaks: Leakage, chips: Sequence[ShownChip], *, title: str) -> str:
    """The HTML of the inspection page; nothing in it is fetched from anywhere."""
    script = "\n".join(asset(name) for name in ("page.js", "map.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    return render(
        "page.html.j2",
        escape=True,
        title=title,
        facts=facts,
        leaks=leaks,
        planned=folder.planned,
        histograms=[bars(each) for each in (facts.photos_a_chip, facts.gap_days, facts.accuracy_m)],
        chips=[shown(chip, place) for place, chip in enumerate(chips)],
        tiles=tiles(facts),
        lead=lead(folder, facts),
        css=safe(asset("page.css")),
        script=safe(script),
        script_digest=digest,
        payload=payload(folder, facts.chips, [chip.row["chip_id"] for chip in chips]),
        land=safe(asset("land.json").strip()),
    )


def safe(text: str) -> Any:
    """Text of this package's own files, which is HTML already."""
    from markupsafe import Markup

    return Markup(text)  # noqa: S704 - only ever files of this package


# --- words and bars ---------------------------------------------------------------------------------------


def lead(folder: PairFolder, facts: Facts) -> str:
    """One sentence on what the folder holds."""
    sides = np.unique(facts.chips.side)
    side = f"{sides[0]:g} m" if len(sides) == 1 else f"{sides[0]:g} to {sides[-1]:g} m"
    sensor = ", ".join(facts.sensors) or "an unnamed sensor"
    state = (
        "planned, not cut yet" if folder.planned else f"cut of {number(facts.scenes)} scene{'s' * (facts.scenes != 1)}"
    )
    return f"Chips of {side} ({sensor}), {state}, with the photos taken inside them."


def tiles(facts: Facts) -> list[tuple[str, str, str]]:
    """The numbers at the top: value, name, remark."""
    photo_span = " to ".join(facts.photo_dates) if facts.photo_dates else "undated"
    scene_span = " to ".join(facts.scene_dates) if facts.scene_dates else "undated"
    middle = facts.photos_a_chip.quantile(0.5)
    return [
        (number(len(facts.chips.lon)), "chips", f"median {number(round(middle or 0))} photos each"),
        (number(facts.photos), "photos", photo_span),
        (number(facts.pairs), "pairs", f"{facts.pairs / max(1, facts.photos):.2f} chips a photo"),
        (number(facts.scenes), "scenes", scene_span),
        (number(facts.users) if facts.users else "–", "photographers", "" if facts.users else "users not stated"),
    ]


def bars(histogram: Histogram) -> dict[str, Any]:
    """A histogram as the template draws it."""
    top = max(1, int(histogram.counts.max()))
    values = [
        {"label": label, "count": int(count), "height": 100 * int(count) / top}
        for label, count in zip(histogram.labels, histogram.counts, strict=True)
    ]
    quantiles = [histogram.quantile(part) for part in (0.05, 0.5, 0.95)]
    return {"title": histogram.title, "bars": values, "known": histogram.known, "unknown": histogram.unknown,
            "quantiles": quantiles}  # fmt: skip


def shown(chip: ShownChip, place: int) -> dict[str, Any]:
    """A chip with its photos' marks in pixels of its picture."""
    row = chip.row
    size, gsd = float(row["size"]), float(row["gsd"])
    labels = spread([(float(photo.row["col"]), float(photo.row["row"])) for photo in chip.photos], size)
    photos = [
        {
            "row": photo.row,
            "picture": photo.picture,
            "link": photo.link,
            "problem": photo.problem,
            "label": label,
            "wedge": wedge(photo.row["col"], photo.row["row"], photo.row.get("heading_deg"),
                           photo.row.get("fov_deg"), 0.17 * size),
            "blur": min(float(photo.row["accuracy_m"]) / gsd, 2 * size) if photo.row.get("accuracy_m") else 0.0,
        }
        for photo, label in zip(chip.photos, labels, strict=True)
    ]  # fmt: skip
    return {"place": place, "row": row, "picture": chip.picture, "photos": photos, "more": chip.more, "size": size,
            "extent": size * gsd}  # fmt: skip


def spread(positions: Sequence[tuple[float, float]], size: float) -> list[tuple[float, float]]:
    """Where the numbers of photos stand in a picture of `size` pixels: at their positions, or beside a number there."""
    apart = 0.056 * size
    found: list[tuple[float, float]] = []
    for col, row in positions:
        steps = [(0.0, 0)] + [(reach * apart, turn) for reach in (1.05, 2.1, 3.2) for turn in range(12)]
        tries = [
            (col + far * math.cos(turn * math.pi / 6), row + far * math.sin(turn * math.pi / 6)) for far, turn in steps
        ]
        free = (
            place
            for place in tries
            if min(place) >= 0 and max(place) <= size and all(math.dist(place, other) >= apart for other in found)
        )
        found.append(next(free, (col, row)))
    return found


# --- the map's data ---------------------------------------------------------------------------------------


def payload(folder: PairFolder, chips: Chips, shown_ids: Sequence[str]) -> str:
    """The map's chips as JSON, deflated, in base64: positions in 2^30ths of the Mercator square, as steps."""
    rows = _drawn(folder, len(chips.lon), shown_ids)
    x, y = mercator(chips.lon[rows], chips.lat[rows])
    taken = pa.array(rows)
    ids = column(folder.chips, "chip_id").take(taken).to_pylist()
    scenes, scene = _scenes(folder, taken)
    values = {
        "total": len(chips.lon),
        "splits": [{"name": name, "chips": int((chips.split == code).sum())} for code, name in enumerate(chips.splits)],
        "ids": ids,
        "x": np.diff(x, prepend=0).tolist(),
        "y": np.diff(y, prepend=0).tolist(),
        "side": _one_or_all(chips.side[rows]),
        "split": chips.split[rows].tolist(),
        "photos": chips.photos[rows].tolist(),
        "scenes": scenes,
        "scene": scene,
        "shown": {chip_id: place for place, chip_id in enumerate(shown_ids)},
    }
    text = json.dumps(values, separators=(",", ":"), ensure_ascii=False)
    return base64.b64encode(zlib.compress(text.encode(), 9)).decode("ascii")


def mercator(lon: NDArray[np.float64], lat: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Columns and rows in 2^30ths of the Web Mercator square, from the west and the north."""
    sine = np.sin(np.radians(np.clip(lat, -85.05, 85.05)))
    x = (lon + 180) / 360
    y = 0.5 - np.log((1 + sine) / (1 - sine)) / (4 * np.pi)
    return np.rint(x * _WORLD).astype(np.int64), np.rint(y * _WORLD).astype(np.int64)


def _drawn(folder: PairFolder, count: int, shown_ids: Sequence[str]) -> NDArray[np.int64]:
    """Rows of the chips that the map draws, ascending."""
    if count <= MAP_CHIPS:
        return np.arange(count)
    drawn = np.random.default_rng(0).choice(count, MAP_CHIPS, replace=False)
    found = pc.index_in(column(folder.chips, "chip_id"), value_set=pa.array(list(shown_ids), pa.string()))
    return np.union1d(drawn, np.flatnonzero(np.asarray(pc.is_valid(found))))


def _scenes(folder: PairFolder, rows: Any) -> tuple[list[str], list[int]]:
    """Names of the scenes of some chips, and each chip's place among them; empty for plans."""
    if "scene_id" not in names(folder.chips):
        return [], []
    found = column(folder.chips, "scene_id").take(rows).combine_chunks().dictionary_encode()
    return found.dictionary.to_pylist(), pc.fill_null(found.indices, -1).to_pylist()


def _one_or_all(values: NDArray[np.float64]) -> float | list[float]:
    """One value where all are the same."""
    return float(values[0]) if (values == values[0]).all() else values.tolist()
