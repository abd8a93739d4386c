"""Some chips with their photos, drawn at random to be looked at, and their pictures small enough to embed."""

import base64
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image, ImageOps

from geograft.errors import GeograftError
from geograft.hashing import hash_ids
from geograft.pairs.cutting.shards import read_pixels
from geograft.pairs.publishing.folder import PairFolder, column, names
from geograft.sensors import Sensor

_THUMB = (300, 220)
_PHOTOS = 160
"""Photos embedded in all, so that a page stays a few megabytes."""
_SMOOTH = 128
"""Chips of more pixels are embedded as JPEG."""


@dataclass(frozen=True)
class ShownPhoto:
    """A photo of a shown chip.

    Attributes:
        row: of the photo table and of the pair table, by column; None where a value is missing.
        picture: a JPEG as data URI, or "".
        link: the photo's address where it is http or https, or "".
        problem: why there is no picture: "remote", "missing" or "unreadable"; "" where there is one.
    """

    row: dict[str, Any]
    picture: str = ""
    link: str = ""
    problem: str = ""


@dataclass(frozen=True)
class ShownChip:
    """A chip to look at.

    Attributes:
        row: of the chip table, by column; None where a value is missing.
        picture: a PNG or JPEG as data URI, "" where there are no pixels.
        photos: those embedded, by position from top to bottom.
        more: further photos of the chip.
    """

    row: dict[str, Any]
    picture: str = ""
    photos: Sequence[ShownPhoto] = field(default_factory=list)
    more: int = 0


def sample_chips(
    folder: PairFolder, sensors: dict[str, Sensor | None], *, count: int, seed: int, split: str | None
) -> list[ShownChip]:
    """Chips drawn at random, the splits in turn, with their photos and pictures.

    Args:
        folder: the pairs.
        sensors: by name; a chip of one that is None has no picture.
        count: chips to draw.
        seed: another one draws others.
        split: draw from this split only.
    """
    chosen = _draw(folder, count, seed, split)
    chips = _rows(folder.chips, "chip_id", chosen, without=("geometry", "stacks")).set_index("chip_id", drop=False)
    pairs = _rows(folder.pairs, "chip_id", chosen)
    photos = _rows(folder.photos, "photo_id", pairs["photo_id"].unique().tolist(), without=("geometry",))
    fields = ["photo_id", *photos.columns.difference(pairs.columns)]
    pairs = pairs.merge(photos[fields], on="photo_id", how="left").sort_values(["row", "photo_id"])
    pixels = dict(_pixels(folder.shards, frozenset(chosen)))
    each = max(1, _PHOTOS // max(1, len(chosen)))
    return [
        _shown(_plain(chips.loc[chip_id]), pairs[pairs["chip_id"] == chip_id], pixels.get(chip_id), sensors, each)
        for chip_id in chosen
        if chip_id in chips.index
    ]


def _draw(folder: PairFolder, count: int, seed: int, split: str | None) -> list[str]:
    """Ids of chips: each split's in pseudo-random order, one of each split in turn."""
    table = pd.DataFrame(
        {name: column(folder.chips, name).to_numpy(zero_copy_only=False) for name in ("chip_id", "split")}
    )
    if split is not None:
        table = table[table["split"] == split]
    table = table.assign(order=hash_ids(table["chip_id"], f"inspect {seed}")).sort_values(["order", "chip_id"])
    turn = table.groupby("split").cumcount()
    return list(table.assign(turn=turn).sort_values(["turn", "order"])["chip_id"].iloc[:count])


def _rows(path: Path, key: str, wanted: Sequence[str], without: Sequence[str] = ()) -> pd.DataFrame:
    """The rows of a table whose key is wanted."""
    columns = [name for name in names(path) if name not in without]
    return pq.read_table(path, columns=columns, filters=[(key, "in", list(wanted) or [""])]).to_pandas()


def _pixels(shards: Sequence[Path], wanted: frozenset[str]) -> Iterator[tuple[str, NDArray[Any]]]:
    """Pixels of the wanted chips; shards without any are not read."""
    for path in shards:
        here = wanted & frozenset(column(path, "chip_id").to_pylist())
        if here:
            yield from zip(*read_pixels(path, here), strict=True)


def _shown(
    chip: dict[str, Any], pairs: pd.DataFrame, pixels: NDArray[Any] | None, sensors: dict[str, Sensor | None], each: int
) -> ShownChip:
    """A chip with its picture and some of its photos."""
    sensor = sensors.get(chip.get("sensor") or "")
    picture = "" if pixels is None or sensor is None else chip_picture(sensor.rgb(pixels))
    photos = [_photo(_plain(row)) for _, row in pairs.iloc[:each].iterrows()]
    return ShownChip(chip, picture, photos, max(0, len(pairs) - each))


def _plain(row: Any) -> dict[str, Any]:
    """A table's row with None for what is missing."""
    return {name: None if pd.api.types.is_scalar(value) and pd.isna(value) else value for name, value in row.items()}


def _photo(row: dict[str, Any]) -> ShownPhoto:
    """A photo with its thumbnail, or why it has none."""
    uri = str(row.get("uri") or "")
    if link := web_address(uri):
        return ShownPhoto(row, link=link, problem="remote")
    path = Path(uri.removeprefix("file://"))
    try:
        found = bool(uri) and path.is_file()
    except (OSError, ValueError):
        found = False
    if not found:
        return ShownPhoto(row, problem="missing")
    try:
        return ShownPhoto(row, picture=thumbnail(path))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, GeograftError):
        return ShownPhoto(row, problem="unreadable")


def web_address(uri: str) -> str:
    """An address that may be linked: http or https with a host; "" for anything else."""
    try:
        parts = urlsplit(uri)
    except ValueError:
        return ""
    printable = uri.isprintable() and not any(character in uri for character in " <>\"'\\`")
    return uri if parts.scheme in {"http", "https"} and parts.hostname and printable else ""


def thumbnail(path: Path) -> str:
    """A photo as a small JPEG, upright, as data URI."""
    with Image.open(path) as image:
        image.draft("RGB", (_THUMB[0] * 2, _THUMB[1] * 2))
        small = ImageOps.exif_transpose(image).convert("RGB")
        small.thumbnail(_THUMB)
    return data_uri(small, lossless=False)


def chip_picture(rgb: NDArray[np.uint8]) -> str:
    """A chip's picture as data URI; small ones without loss."""
    return data_uri(Image.fromarray(rgb), lossless=rgb.shape[0] <= _SMOOTH)


def data_uri(image: Image.Image, *, lossless: bool) -> str:
    """An image as data URI, a PNG or a JPEG without metadata."""
    buffer = io.BytesIO()
    if lossless:
        image.save(buffer, format="PNG", optimize=True)
    else:
        image.save(buffer, format="JPEG", quality=82, exif=b"")
    kind = "png" if lossless else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def wedge(col: float, row: float, heading: float | None, fov: float | None, reach: float) -> str:
    """The SVG path of what a photo looks at from its position; "" where its heading is unknown.

    Args:
        col: pixels from the left.
        row: pixels from the top.
        heading: degrees clockwise from north.
        fov: degrees; 60 where None.
        reach: pixels that the wedge is long.
    """
    if heading is None or not math.isfinite(heading):
        return ""
    half = min(max(fov if fov and math.isfinite(fov) else 60.0, 10.0), 170.0) / 2
    ends = [math.radians(heading + turn) for turn in (-half, half)]
    left, right = [(col + reach * math.sin(angle), row - reach * math.cos(angle)) for angle in ends]
    return (
        f"M{col:.2f} {row:.2f}L{left[0]:.2f} {left[1]:.2f}A{reach:.2f} {reach:.2f} 0 0 1 {right[0]:.2f} {right[1]:.2f}Z"
    )
