"""Picture sheets: the chips of a search side by side, with their ranks and scores."""

from functools import lru_cache
from math import ceil
from pathlib import Path

import geopandas as gpd
import numpy as np
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from PIL import Image, ImageDraw, ImageFont

from geograft.raster import Scene, open_scene, read
from geograft.tables import atomic, check_output

PICTURES = (".png", ".jpg", ".jpeg", ".webp")
"""The kinds of file that a sheet is written to."""

TILE = 128
_CAPTION = 18
_COLUMNS = 5
_GAP = 6


def hit_sheet(hits: gpd.GeoDataFrame, out: Path, *, title: str) -> Path:
    """Write a picture of hits, best first from left to right and top to bottom.

    Args:
        hits: what `search` returns: rank, score, uri, sensor and where each chip lies.
        out: image file, for example a PNG.
        title: what was searched for.
    """
    check_output(out, PICTURES)
    pictures = [hit_picture(hits.iloc[number]) for number in range(len(hits))]
    captions = [f"{rank}. {score:.2f}" for rank, score in zip(hits["rank"], hits["score"], strict=True)]
    sheet = picture_sheet(pictures, captions, title=title)
    with atomic(out) as temporary:
        sheet.save(temporary)
    return out


def hit_picture(row: gpd.GeoSeries) -> NDArray[np.uint8]:
    """The chip of one row of a chip table as people see it, (S, S, 3) uint8."""
    affine = Affine(row["gsd"], 0, row["left"], 0, -row["gsd"], row["top"])
    geobox = GeoBox((int(row["size"]), int(row["size"])), affine, f"EPSG:{row['epsg']}")
    scene = _scene(row["uri"], row["sensor"])
    return scene.sensor.rgb(read(scene, geobox).pixels)


def picture_sheet(pictures: list[NDArray[np.uint8]], captions: list[str], *, title: str) -> Image.Image:
    """Pictures of any size on one white sheet, each scaled to the same square, with a caption below."""
    columns = min(_COLUMNS, max(len(pictures), 1))
    step_x, step_y = TILE + _GAP, TILE + _CAPTION + _GAP
    width, height = columns * step_x + _GAP, 2 * _CAPTION + ceil(len(pictures) / columns) * step_y
    sheet = Image.new("RGB", (max(width, 260), height), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=13)
    draw.text((_GAP, _GAP), title, fill="black", font=font)
    for number, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        x, y = _GAP + number % columns * step_x, 2 * _CAPTION + number // columns * step_y
        sheet.paste(Image.fromarray(picture).resize((TILE, TILE), Image.Resampling.NEAREST), (x, y))
        draw.text((x, y + TILE + 1), caption, fill="black", font=font)
    return sheet


@lru_cache(maxsize=32)
def _scene(uri: str, sensor: str) -> Scene:
    return open_scene(uri, sensor=sensor)
