"""Pixels in: any grid of a scene, with its mask.

Georeferencing travels as one value, `odc.geo.GeoBox`. A target grid that lies on the scene's own pixels is read
directly, any other through a warp (bilinear).
"""

from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.enums import ColorInterp, MaskFlags, Resampling
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from geograft.raster import tiles
from geograft.raster.files import with_file
from geograft.raster.globe import turns
from geograft.raster.grids import ground_gsd
from geograft.raster.scene import Scene

Block = tuple[NDArray[Any], NDArray[np.bool_]]
"""Bands (C, H, W) and validity (H, W)."""

_TOLERANCE_PX = 0.001
"""How far off GDAL may place a pixel: so little that what is read does not depend on the window."""
_AVERAGED = 0.9
"""Pixels finer than this share of the target's are averaged over its area, others interpolated."""


@dataclass(frozen=True)
class Raster:
    """Pixels with their mask and place.

    Attributes:
        pixels: native values, (C, H, W); the sensor's nodata (or 0) where invalid.
        valid: bool, (H, W).
        geobox: the grid, of shape (H, W).
    """

    pixels: NDArray[Any]
    valid: NDArray[np.bool_]
    geobox: GeoBox


def read(scene: Scene, geobox: GeoBox) -> Raster:
    """The pixels of a target grid, with their mask.

    Args:
        scene: the scene.
        geobox: any grid, in any CRS; the part outside the scene comes back invalid.

    Raises:
        UnreadableScene: the file is damaged or gone, or its server refuses, fails or does not answer.
    """
    if scene.kind == "xyz":
        pixels, valid = tiles.read_tiles(scene.tiles, geobox, signer=scene.signer)
    elif scene.parts:
        pixels, valid = _read_parts(scene, geobox)
    else:
        work = partial(read_grid, bands=scene.bands, geobox=geobox, nodata=scene.nodata)
        pixels, valid = with_file(scene.path, work, signer=scene.signer)
    if scene.shift:
        pixels = _shifted(pixels, scene)
    pixels[:, ~valid] = _fill(scene)
    return Raster(pixels, valid, geobox)


def read_grid(
    file: Any,
    bands: tuple[int, ...],
    geobox: GeoBox,
    nodata: float | None,
    resampling: Resampling = Resampling.bilinear,
) -> Block:
    """Bands of an open file on a grid."""
    window = _aligned_window(file, geobox)
    if window is not None:
        return _read_window(file, bands, window, nodata)
    shifts = turns(file, geobox)
    pixels, valid = _warp(file, bands, geobox, nodata, resampling, shifts[0])
    for shift in shifts[1:]:
        more, there = _warp(file, bands, geobox, nodata, resampling, shift)
        pixels = np.where(valid, pixels, more)
        valid |= there
    return pixels, valid


# --- several files ----------------------------------------------------------------------------------------


def _read_parts(scene: Scene, geobox: GeoBox) -> Block:
    """A scene's bands one by one; a pixel is valid where any band has data, and a band without holds nodata."""
    pixels = np.empty((len(scene.parts), *geobox.shape), scene.sensor.dtype)
    valid = np.zeros(geobox.shape, np.bool_)
    for row, part in enumerate(scene.parts):
        work = partial(_read_alone, band=part.band, geobox=geobox, nodata=part.nodata)
        block, there = with_file(part.path, work, signer=scene.signer)
        pixels[row] = np.where(there, block[0], _fill(scene))
        valid |= there
    return pixels, valid


def _read_alone(file: Any, band: int, geobox: GeoBox, nodata: float | None) -> Block:
    """One band of a file, whose nodata the other bands do not share."""
    alone = file.count == 1 or nodata is None or _aligned_window(file, geobox) is not None
    if alone or file.name.startswith("<") or not Path(file.name).is_file():  # "<": a VRT by its text
        return read_grid(file, (band,), geobox, nodata)
    with rasterio.open(f"vrt://{file.name}?bands={band}") as single:
        return read_grid(single, (1,), geobox, nodata)


def _fill(scene: Scene) -> float:
    """What invalid pixels hold."""
    return 0 if scene.sensor.nodata is None else scene.sensor.nodata


def _shifted(pixels: NDArray[Any], scene: Scene) -> NDArray[Any]:
    """Pixels moved onto the sensor's offset, kept within the data type and off a nodata of 0; nodata stays."""
    if pixels.dtype.kind == "f":
        return np.where(pixels == _fill(scene), pixels, pixels + pixels.dtype.type(scene.shift))
    limits = np.iinfo(pixels.dtype)
    least = 1 if scene.sensor.nodata == 0 else limits.min
    moved = np.clip(pixels.astype(np.int64) + scene.shift, least, limits.max).astype(pixels.dtype)
    return moved if scene.sensor.nodata is None else np.where(pixels == scene.sensor.nodata, pixels, moved)


# --- one file ---------------------------------------------------------------------------------------------


def _warp(
    file: Any,
    bands: tuple[int, ...],
    geobox: GeoBox,
    nodata: float | None,
    resampling: Resampling,
    shift: float,
) -> Block:
    """Bands of a file resampled onto a grid, the file moved east by `shift` of its own units."""
    options: dict[str, Any] = {
        "crs": geobox.crs.to_wkt(),
        "transform": geobox.affine,
        "height": geobox.shape[0],
        "width": geobox.shape[1],
        "resampling": resampling,
        "src_nodata": nodata,
        "add_alpha": ColorInterp.alpha not in file.colorinterp,
        "UNIFIED_SRC_NODATA": "YES",
        "tolerance": _TOLERANCE_PX,
    }
    if _gsd(file.crs.to_wkt(), file.transform, file.shape) > _AVERAGED * ground_gsd(geobox):
        options |= {"XSCALE": "1", "YSCALE": "1"}  # GDAL's own kernel depends on the window, and is slower
    if shift:
        options["src_transform"] = Affine.translation(shift, 0) @ file.transform
    with WarpedVRT(file, **options) as warped:
        block = warped.read((*bands, warped.count))
    return block[:-1], block[-1] > 0


@lru_cache(maxsize=256)
def _gsd(crs: str, transform: Affine, shape: tuple[int, int]) -> float:
    """Metres per pixel of a file on the ground."""
    return ground_gsd(GeoBox(shape, transform, crs))


def _aligned_window(file: Any, geobox: GeoBox) -> Window | None:
    """The window of a grid that lies on the file's own pixels, or None where it does not."""
    shift = ~file.transform @ geobox.affine
    column, row = round(shift.c), round(shift.f)
    if max(abs(shift.c - column), abs(shift.f - row)) > 1e-3:
        return None
    if not shift.almost_equals(Affine.translation(shift.c, shift.f), 1e-6):
        return None
    if file.crs != rasterio.CRS.from_user_input(geobox.crs.to_wkt()):
        return None
    return Window(column, row, geobox.shape[1], geobox.shape[0])


def _read_window(file: Any, bands: tuple[int, ...], window: Window, nodata: float | None) -> Block:
    """A window that may hang over the file's edge; outside is 0 and invalid."""
    pixels = np.zeros((len(bands), window.height, window.width), file.dtypes[bands[0] - 1])
    valid = np.zeros((window.height, window.width), bool)
    top, left = max(0, window.row_off), max(0, window.col_off)
    bottom = min(file.height, window.row_off + window.height)
    right = min(file.width, window.col_off + window.width)
    if bottom > top and right > left:
        inner = Window(left, top, right - left, bottom - top)
        rows = slice(top - window.row_off, bottom - window.row_off)
        columns = slice(left - window.col_off, right - window.col_off)
        pixels[:, rows, columns] = file.read(bands, window=inner)
        valid[rows, columns] = _valid(file, pixels[:, rows, columns], inner, nodata)
    return pixels, valid


def _valid(file: Any, pixels: NDArray[Any], window: Window, nodata: float | None) -> NDArray[np.bool_]:
    """Where a window has data: by nodata in all bands, and by the file's mask or alpha band."""
    valid: NDArray[np.bool_] = np.ones(pixels.shape[1:], bool)
    if nodata is not None:
        empty = np.isnan(pixels) if np.isnan(nodata) else pixels == nodata
        valid = ~empty.all(axis=0)
    if ColorInterp.alpha in file.colorinterp:
        valid &= file.read(file.colorinterp.index(ColorInterp.alpha) + 1, window=window) > 0
    elif MaskFlags.per_dataset in file.mask_flag_enums[0]:
        valid &= file.dataset_mask(window=window) > 0
    return valid
