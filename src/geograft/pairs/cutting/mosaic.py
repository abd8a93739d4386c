"""One chip of several scenes, without seams.

Where the scenes share one pixel grid, as the tiles of one flight do, they are put together on that grid and warped
once, so the chip is the same as of one whole scene. Scenes of other grids are each warped onto the chip's, and pixels
at a scene's rim, which only half of their neighbours made, are used where no other scene has better ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.enums import Resampling
from rasterio.warp import reproject

from geograft.pairs.cutting.windows import offset
from geograft.raster import Raster, Scene, cloud_share, read

MARGIN = 3
"""Source pixels beyond a chip's rim that its own pixels are made of, at least."""

STRIPS = 4
"""Rectangles in which a scene's clouds are measured, at most."""

LARGEST = 2**24
"""Pixels of the largest source window that is put together at once."""


@dataclass(frozen=True)
class Mosaic:
    """Pixels of several scenes.

    Attributes:
        raster: pixels on the chip's grid.
        owner: the scene that each pixel comes of, (h, w), -1 where none has it; on `grid`.
        grid: where the pixels were put together: the chip's grid, or the part of the scenes' under it.
    """

    raster: Raster
    owner: NDArray[np.int16]
    grid: GeoBox

    @cached_property
    def used(self) -> tuple[int, ...]:
        """The scenes that pixels come of, ascending."""
        return tuple(np.unique(self.owner[self.owner >= 0]).tolist())

    def cloud(self, scenes: Sequence[Scene]) -> float:
        """The share of the pixels that lie under clouds in the scene that they come of, 0 to 1.

        A scene's cloud is measured in rectangles around its pixels: exact where they end at rows and columns, else
        as if the clouds of the rectangle lay evenly on them.
        """
        total = 0.0
        for number in self.used:
            for part in _rectangles(self.owner == number):
                count = float((self.owner[part] == number).sum())
                total += cloud_share(scenes[number], self.grid[part]) * count
        return total / max(1, int((self.owner >= 0).sum()))


def _rectangles(mask: NDArray[np.bool_]) -> list[tuple[slice, slice]]:
    """Rectangles that hold all pixels of a mask, one where it would be many."""
    edges = [0, *(np.flatnonzero((mask[1:] != mask[:-1]).any(axis=1)) + 1).tolist(), len(mask)]
    if len(edges) > STRIPS + 1:
        edges = [0, len(mask)]
    found = []
    for top, bottom in pairwise(edges):
        rows, columns = (np.flatnonzero(mask[top:bottom].any(axis=axis)) for axis in (1, 0))
        if len(rows):
            found.append((slice(top + rows[0], top + rows[-1] + 1), slice(columns[0], columns[-1] + 1)))
    return found


def read_mosaic(scenes: Sequence[Scene], box: GeoBox) -> Mosaic:
    """A chip's pixels, of the first scene, and of the next ones where those before have none.

    Args:
        scenes: of one sensor, in order of preference.
        box: the chip's grid.

    Raises:
        UnreadableScene: a file is damaged or gone.
    """
    window = _shared_window(scenes, box)
    if window is None or offset(window, box) is not None:
        rasters = [read(scene, box) for scene in scenes]
        inner = [_inner(scene, raster) for scene, raster in zip(scenes, rasters, strict=True)]
        return _put_together(rasters, box, inner)
    rasters = [read(scene, window) for scene in scenes]
    whole = _put_together(rasters, window, [raster.valid for raster in rasters])
    return Mosaic(_warp(whole.raster, box), whole.owner, window)


def _inner(scene: Scene, raster: Raster) -> NDArray[np.bool_]:
    """The pixels of a scene whose neighbours are its own too; all where it was read as it is."""
    if scene.kind != "xyz" and offset(scene.geobox, raster.geobox) is not None:
        return raster.valid
    valid = raster.valid.copy()
    for axis in (0, 1):
        for step in (-1, 1):
            beside = np.roll(raster.valid, step, axis)
            edge = [slice(None), slice(None)]
            edge[axis] = slice(0, 1) if step == 1 else slice(-1, None)
            beside[tuple(edge)] = True
            valid &= beside
    return valid


def _put_together(rasters: Sequence[Raster], grid: GeoBox, inner: Sequence[NDArray[np.bool_]]) -> Mosaic:
    """Pixels of the first raster that has them well inside, then of the first that has them at all."""
    pixels = rasters[0].pixels.copy()
    owner = np.full(pixels.shape[1:], -1, np.int16)
    for masks in (inner, [raster.valid for raster in rasters]):
        for number, (raster, mask) in enumerate(zip(rasters, masks, strict=True)):
            fill = mask & (owner < 0)
            pixels[:, fill] = raster.pixels[:, fill]
            owner[fill] = number
    return Mosaic(Raster(pixels, owner >= 0, grid), owner, grid)


# --- scenes of one grid -----------------------------------------------------------------------------------


def _shared_window(scenes: Sequence[Scene], box: GeoBox) -> GeoBox | None:
    """The part of the scenes' common pixel grid that a chip is made of, or None where they have none."""
    first = scenes[0].geobox
    if any(scene.kind == "xyz" or offset(first, scene.geobox) is None for scene in scenes):
        return None
    window = _under(first, box)
    return window if window.shape[0] * window.shape[1] <= LARGEST else None


def _under(grid: GeoBox, box: GeoBox) -> GeoBox:
    """The window of a grid, which need not lie inside it, that holds a box and the pixels around it."""
    outline = box.extent.to_crs(grid.crs) if grid.crs != box.crs else box.extent
    x, y = np.asarray(outline.exterior.coords).T[:2]
    columns, rows = ~grid.affine @ (x, y)
    coarser = np.ptp(columns) / box.shape[1], np.ptp(rows) / box.shape[0]
    margin = MARGIN + int(np.ceil(2 * max(coarser)))
    left, top = int(np.floor(columns.min())) - margin, int(np.floor(rows.min())) - margin
    right, bottom = int(np.ceil(columns.max())) + margin, int(np.ceil(rows.max())) + margin
    return GeoBox((bottom - top, right - left), grid.affine @ Affine.translation(left, top), grid.crs)


def _warp(raster: Raster, box: GeoBox) -> Raster:
    """Bilinear resampling onto another grid in which invalid pixels weigh nothing."""
    weight = _resample(raster.valid[None].astype(np.float32), raster.geobox, box)[0]
    values = _resample(np.where(raster.valid, raster.pixels, 0).astype(np.float32), raster.geobox, box)
    valid = weight > 0.5
    values = np.divide(values, weight, out=np.zeros_like(values), where=valid)
    return Raster(_native(values, raster.pixels.dtype), valid, box)


def _resample(values: NDArray[np.float32], grid: GeoBox, box: GeoBox) -> NDArray[np.float32]:
    """Values, (C, h, w), on another grid; 0 outside."""
    target = np.zeros((len(values), *box.shape), np.float32)
    place = {"src_transform": grid.affine, "src_crs": grid.crs.to_wkt()}
    to = {"dst_transform": box.affine, "dst_crs": box.crs.to_wkt()}
    reproject(values, target, resampling=Resampling.bilinear, **place, **to)
    return target


def _native(values: NDArray[np.float32], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Values in a scene's data type, integers rounded as GDAL does."""
    if not np.issubdtype(dtype, np.integer):
        return values.astype(dtype)
    limits = np.iinfo(dtype)
    rounded: NDArray[Any] = np.clip(np.floor(values + 0.5), limits.min, limits.max).astype(dtype)
    return rounded
