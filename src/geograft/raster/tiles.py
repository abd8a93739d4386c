"""XYZ map tiles as a raster: a local folder or an HTTP server, EPSG:3857, any target grid.

Tiles are decoded once and kept, so neighbouring chips cost one decode. A tile that is missing makes its pixels
invalid, never an error.
"""

import io
import logging
import math
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from PIL import Image, UnidentifiedImageError
from rasterio.enums import Resampling
from rasterio.warp import reproject

from geograft.errors import BadSetting, MissingInput, UnreadableScene
from geograft.raster import remote
from geograft.raster.globe import EDGE, mercator_bounds

logger = logging.getLogger(__name__)

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp"})
MAX_TILES = 1024
"""The most tiles that one read may touch."""

_FRAGMENT = re.compile(r"#zoom=(\d+)$")


@dataclass(frozen=True)
class TileSource:
    """A pyramid level of XYZ tiles.

    Attributes:
        template: a local path or http(s) URL with `{x}` and `{y}`, the zoom filled in.
        zoom: the pyramid level.
        size: pixels per tile side.
    """

    template: str
    zoom: int
    size: int = 256

    @property
    def remote(self) -> bool:
        """Whether the tiles come over HTTP."""
        return self.template.startswith(("http://", "https://"))

    @property
    def address(self) -> str:
        """The template, with `#zoom=15` behind it where its path does not say the zoom; `find_tiles` takes it back."""
        told = _told_zoom(self.template) == self.zoom
        return self.template if told else f"{self.template}#zoom={self.zoom}"

    @property
    def resolution(self) -> float:
        """Web Mercator metres per pixel (on the ground: times cos(latitude))."""
        return 2 * EDGE / (self.size << self.zoom)

    def geobox(self, x: int, y: int, columns: int = 1, rows: int = 1) -> GeoBox:
        """The grid of a block of tiles whose top-left tile is (x, y)."""
        step = self.resolution * self.size
        corner = Affine(self.resolution, 0, x * step - EDGE, 0, -self.resolution, EDGE - y * step)
        return GeoBox((rows * self.size, columns * self.size), corner, "EPSG:3857")


def is_tiles(source: str | Path) -> bool:
    """Whether a path or URL means XYZ tiles: it has `{x}` and `{y}`, or is a folder `[z/]x/y.jpg`."""
    text = str(source)
    if "{x}" in text and "{y}" in text:
        return True
    folder = Path(text)
    return folder.is_dir() and _first_tile(folder) is not None


def find_tiles(source: str | Path, zoom: int | None = None) -> TileSource:
    """The tile source that a template or folder names.

    Args:
        source: `…/{z}/{x}/{y}.jpg`, the same with a number for `{z}`, an http(s) URL of that form, or a local
            folder of zooms (`tiles`) or of one zoom (`tiles/15`).
        zoom: the level; needed for a URL with `{z}`; the deepest one of a folder where None.

    Raises:
        MissingInput: there is no such folder, zoom or tile.
        BadSetting: the zoom is not known or the template is not one.
    """
    text = str(source)
    if match := _FRAGMENT.search(text):
        return TileSource(text[: match.start()], int(match[1]))
    if text.startswith(("http://", "https://")):
        return _remote_source(text, zoom)
    if "://" in text:
        raise BadSetting(f"Tiles come from a folder or over http(s), not from {text}.")
    template = text if "{x}" in text else _folder_template(Path(text))
    if "{z}" in template:
        zoom = _deepest(Path(template.split("{z}", maxsplit=1)[0])) if zoom is None else zoom
        template = template.replace("{z}", str(zoom))
    source_ = TileSource(str(Path(template).absolute()), _zoom_of(template, zoom))
    return TileSource(source_.template, source_.zoom, _tile_size(source_))


def list_tiles(source: TileSource) -> tuple[tuple[int, int], ...] | None:
    """The (x, y) of every tile of a local source, sorted; None where the source is remote."""
    return None if source.remote else _list_local(source.template)


def tiles_geobox(source: TileSource) -> GeoBox:
    """The grid that spans all tiles of a source; the whole Web Mercator square of a remote one."""
    tiles = list_tiles(source)
    if tiles is None:
        return source.geobox(0, 0, 2**source.zoom, 2**source.zoom)
    columns, rows = zip(*tiles, strict=True)
    x, y = min(columns), min(rows)
    return source.geobox(x, y, max(columns) - x + 1, max(rows) - y + 1)


def read_tiles(
    source: TileSource, geobox: GeoBox, *, signer: str | None = None
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """The pixels of a target grid, any CRS, bilinear where the grids differ.

    Args:
        source: the tiles.
        geobox: the grid.
        signer: the name of what signs the tiles' addresses.

    Returns:
        uint8 (3, H, W), 0 where invalid, and bool (H, W): where tiles exist.

    Raises:
        BadSetting: the grid spans more than `MAX_TILES` tiles.
        UnreadableScene: a tile server failed.
    """
    block, place = _mosaic(source, geobox, signer)
    shift = ~place.affine @ geobox.affine
    if geobox.crs == place.crs and shift.almost_equals(Affine.translation(shift.c, shift.f), 1e-6):
        column, row = round(shift.c), round(shift.f)
        if max(abs(shift.c - column), abs(shift.f - row)) < 1e-3:
            height, width = geobox.shape
            return _split(block[:, row : row + height, column : column + width])
    found = _warp(block, place, geobox)
    for turn in (-1, 1):  # what lies beyond 180 degrees on one side is asked for on the other
        beyond = place.boundingbox.right > EDGE if turn < 0 else place.boundingbox.left < -EDGE
        if beyond:
            moved = GeoBox(place.shape, Affine.translation(2 * EDGE * turn, 0) @ place.affine, place.crs)
            found = np.where(found[3] > 127, found, _warp(block, moved, geobox))
    return _split(found)


def _mosaic(source: TileSource, geobox: GeoBox, signer: str | None) -> tuple[NDArray[np.uint8], GeoBox]:
    """The tiles under a grid with one tile's pixel of margin, as RGBA (4, h, w), and their own grid."""
    left, bottom, right, top_ = mercator_bounds(geobox)
    step, pixel = source.resolution * source.size, source.resolution * 2
    x0, x1 = (math.floor((value + EDGE) / step) for value in (left - pixel, right + pixel))
    y0, y1 = (math.floor((EDGE - value) / step) for value in (top_ + pixel, bottom - pixel))
    columns, rows = x1 - x0 + 1, y1 - y0 + 1
    if columns * rows > MAX_TILES:
        raise BadSetting(f"One read spans {columns} x {rows} tiles of zoom {source.zoom}: use a lower zoom.")
    block = np.zeros((4, rows * source.size, columns * source.size), np.uint8)
    for row in range(rows):
        for column in range(columns):
            tile = _tile(source, x0 + column, y0 + row, signer)
            if tile is not None:
                top, left_ = row * source.size, column * source.size
                block[:, top : top + source.size, left_ : left_ + source.size] = tile
    return block, source.geobox(x0, y0, columns, rows)


def _warp(block: NDArray[np.uint8], place: GeoBox, geobox: GeoBox) -> NDArray[np.uint8]:
    """Bilinear resampling of an RGBA block onto another grid, transparent pixels weighing nothing."""
    target = np.zeros((4, *geobox.shape), np.uint8)
    reproject(
        block,
        target,
        src_transform=place.affine,
        src_crs=place.crs.to_wkt(),
        dst_transform=geobox.affine,
        dst_crs=geobox.crs.to_wkt(),
        src_alpha=4,
        dst_alpha=4,
        resampling=Resampling.bilinear,
    )
    return target


def _split(rgba: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Colour and validity of an RGBA block; invalid pixels are 0."""
    valid = rgba[3] > 127
    return np.ascontiguousarray(rgba[:3] * valid), valid


# --- one tile ---------------------------------------------------------------------------------------------


@lru_cache(maxsize=256)
def _tile(source: TileSource, x: int, y: int, signer: str | None = None) -> NDArray[np.uint8] | None:
    """One decoded tile, RGBA (4, size, size), or None where it is missing or damaged."""
    if not 0 <= y < 2**source.zoom:
        return None
    address = source.template.format(x=x % 2**source.zoom, y=y)
    content = remote.fetch(address, signer=signer) if source.remote else _read_local(Path(address))
    if content is None:
        return None
    try:
        image = Image.open(io.BytesIO(content)).convert("RGBA")
    except (UnidentifiedImageError, OSError, ValueError) as error:
        logger.warning("Tile %s cannot be decoded (%s); its pixels are left out.", address, error)
        return None
    if image.size != (source.size, source.size):
        image = image.resize((source.size, source.size), Image.Resampling.BILINEAR)
    return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))


def _read_local(path: Path) -> bytes | None:
    """The bytes of a local tile, or None where there is none."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


# --- finding tiles ----------------------------------------------------------------------------------------


def _remote_source(template: str, zoom: int | None) -> TileSource:
    """The source of a URL template."""
    if "{x}" not in template or "{y}" not in template:
        raise BadSetting(f"A tile URL needs {{x}} and {{y}}: {template} has not.")
    if "{z}" in template:
        if zoom is None:
            raise BadSetting(f"Say which zoom of {template} to read: write `zoom: 15` into a YAML file for --config.")
        template = template.replace("{z}", str(zoom))
    if "{" in template.replace("{x}", "").replace("{y}", ""):
        raise BadSetting(f"{template} has other braces than {{z}}, {{x}} and {{y}}: fill them in.")
    return TileSource(template, _zoom_of(template, zoom))


def _zoom_of(template: str, zoom: int | None) -> int:
    """The zoom: the number of the folder above `{x}` or `{y}`, or as given."""
    told = _told_zoom(template)
    if told is not None:
        return told
    if zoom is None:
        raise BadSetting(f"The folder above {{x}} in {template} is not a zoom: write …/{{z}}/{{x}}/{{y}}.jpg.")
    return zoom


def _told_zoom(template: str) -> int | None:
    """The number of the folder above `{x}` or `{y}`, whichever comes first, or None."""
    above = re.split(r"\{[xy]\}", template, maxsplit=1)[0].replace("\\", "/")
    name = above.rstrip("/").rsplit("/", maxsplit=1)[-1]
    return int(name) if above.endswith("/") and name.isdigit() else None


def _folder_template(folder: Path) -> str:
    """The template of a folder of zooms or of one zoom."""
    first = _first_tile(folder)
    if first is None:
        raise MissingInput(f"{folder} holds no tiles named z/x/y.jpg (or png, webp).")
    above = "{x}" if first.parent.parent == folder else "{z}/{x}"
    return str(folder / above / f"{{y}}{first.suffix}")


def _first_tile(folder: Path) -> Path | None:
    """Any tile of a folder `[z/]x/y.jpg`, or None."""
    for depth in ("", "*/"):
        for path in folder.glob(f"{depth}[0-9]*/[0-9]*.*"):
            names = (path.stem, path.parent.name, *((path.parent.parent.name,) if depth else ()))
            if path.suffix.lower() in SUFFIXES and all(name.isdigit() for name in names):
                return path
    return None


def _deepest(folder: Path) -> int:
    """The largest zoom of a folder of zooms."""
    zooms = [int(path.name) for path in folder.glob("*") if path.name.isdigit()]
    if not zooms:
        raise MissingInput(f"{folder} holds no zoom folders named 0, 1, 2 …")
    return max(zooms)


@lru_cache(maxsize=8)
def _list_local(template: str) -> tuple[tuple[int, int], ...]:
    """The tiles of a local template, sorted."""
    folder, suffix = Path(template.split("{x}", maxsplit=1)[0]), Path(template).suffix
    found = (
        (int(path.parent.name), int(path.stem))
        for path in folder.glob(f"*/*{suffix}")
        if path.stem.isdigit() and path.parent.name.isdigit()
    )
    tiles = tuple(sorted(found))
    if not tiles:
        raise MissingInput(f"There are no tiles {template}: check the path and the zoom.")
    return tiles


def _tile_size(source: TileSource) -> int:
    """The pixel size of the first tile of a local source."""
    x, y = _list_local(source.template)[0]
    path = Path(source.template.format(x=x, y=y))
    try:
        with Image.open(path) as image:
            return int(image.size[0])
    except (UnidentifiedImageError, OSError) as error:
        raise UnreadableScene(f"Tile {path} cannot be decoded: fetch it again.") from error


def tile_at(source: TileSource, lon: float, lat: float) -> GeoBox:
    """The grid of the tile that holds a place."""
    count = 2**source.zoom
    north = math.asinh(math.tan(math.radians(lat))) / math.pi
    return source.geobox(math.floor((lon + 180) / 360 * count), math.floor((1 - north) / 2 * count))


def tile_square(source: TileSource, x: int, y: int) -> Any:
    """The outline of one tile in lon, lat, a shapely polygon."""
    from shapely import box

    degrees = [
        (360 * (tx / 2**source.zoom) - 180, math.degrees(math.atan(math.sinh(math.pi * (1 - 2 * ty / 2**source.zoom)))))
        for tx, ty in ((x, y + 1), (x + 1, y))
    ]
    return box(*degrees[0], *degrees[1])
