"""Scenes in: open a georeferenced raster, read any grid of it with its mask, ask for its clouds.

Georeferencing travels as one value, `odc.geo.GeoBox`. A target grid that lies on the scene's own pixels is read
directly, any other through a warp (bilinear). Files stay open per process and thread, so reading is safe in
threads, forked loaders and spawned workers alike.
"""

import os
import threading
import warnings
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio._err import CPLE_BaseError
from rasterio.enums import ColorInterp, MaskFlags, Resampling
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from geograft.errors import MissingInput, SensorMismatch, UnknownSensor, UnreadableScene
from geograft.raster import metadata, tiles
from geograft.raster.grids import ground_gsd
from geograft.sensors import Sensor, get_sensor

_OPEN_FILES = 8


@dataclass(frozen=True)
class Scene:
    """A georeferenced raster and what its bands mean.

    Attributes:
        path: the file's path, or a tile template or URL with `{x}` and `{y}`.
        geobox: its grid.
        sensor: its bands.
        taken: when it was taken (UTC), or None where neither name nor tags say.
        nodata: the DN that means no data, or None.
        bands: the file's band numbers (from 1) in the sensor's order.
    """

    path: str
    geobox: GeoBox
    sensor: Sensor
    taken: datetime | None = None
    nodata: float | None = None
    bands: tuple[int, ...] = ()

    @property
    def kind(self) -> str:
        """`xyz` for map tiles, else `file`."""
        return "xyz" if "{x}" in self.path else "file"

    @cached_property
    def gsd(self) -> float:
        """Metres per pixel on the ground, which may differ from the sensor's nominal value."""
        return ground_gsd(self.geobox)

    @cached_property
    def tiles(self) -> tiles.TileSource:
        """The tile source of a scene of kind `xyz`."""
        return tiles.find_tiles(self.path)


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


def open_scene(path: str | Path, *, sensor: str | Sensor | None = None, zoom: int | None = None) -> Scene:
    """Open a raster file, or XYZ tiles by their template or folder.

    Args:
        path: a raster that GDAL reads, `…/{z}/{x}/{y}.jpg` (local or http), or a folder of tiles.
        sensor: what its bands mean; where None the file must say so, by its tag `GEOGRAFT_SENSOR` or by band
            names, data type and resolution that fit exactly one known sensor.
        zoom: the level of XYZ tiles, where the path does not say.

    Raises:
        MissingInput: there is no such file.
        UnreadableScene: it is damaged or not a raster.
        NoGeoreference: it has no CRS or no transform.
        UnknownSensor: the sensor is not named and cannot be told, or has an unknown name.
        SensorMismatch: bands, data type or scale contradict the sensor.
    """
    wanted = None if sensor is None else get_sensor(sensor)
    if tiles.is_tiles(path):
        return _open_tiles(path, wanted, zoom)
    with _reading(path) as file:
        geobox = metadata.file_geobox(file, path)
        found = wanted or metadata.infer_sensor(file, ground_gsd(geobox), path)
        bands = metadata.match_bands(file, found, path)
        nodata = file.nodata if file.nodata is not None else found.nodata
        taken = metadata.date_taken(Path(path).stem, file.tags())
        return Scene(_absolute(path), geobox, found, taken, nodata, bands)


def _open_tiles(path: str | Path, sensor: Sensor | None, zoom: int | None) -> Scene:
    """XYZ tiles as a scene; their sensor must be named."""
    if sensor is None:
        raise UnknownSensor(f"Tiles do not say what they show: pass --sensor for {path}, such as map-tiles.")
    if len(sensor.bands) != 3 or sensor.dtype != "uint8":
        raise SensorMismatch(f"Tiles are three bands of uint8, unlike {sensor.name}: pass --sensor map-tiles or rgb.")
    source = tiles.find_tiles(path, zoom)
    return Scene(source.template, tiles.tiles_geobox(source), sensor)


def read(scene: Scene, geobox: GeoBox) -> Raster:
    """The pixels of a target grid, with their mask.

    Args:
        scene: the scene.
        geobox: any grid, in any CRS; the part outside the scene comes back invalid.

    Raises:
        UnreadableScene: the file is damaged or gone.
    """
    if scene.kind == "xyz":
        pixels, valid = tiles.read_tiles(scene.tiles, geobox)
    else:
        with _reading(scene.path) as file:
            pixels, valid = _read_grid(file, scene.bands, geobox, scene.nodata, Resampling.bilinear)
    fill = 0 if scene.sensor.nodata is None else scene.sensor.nodata
    pixels[:, ~valid] = fill
    return Raster(pixels, valid, geobox)


def cloud_share(scene: Scene, geobox: GeoBox) -> float:
    """The share of a grid that clouds cover, 0 to 1, from the mask beside the scene.

    The mask is the sibling file `<stem>_clouds.tif` (uint8, 1 = cloud); without one the share is 0.
    """
    mask = cloud_mask_path(scene.path)
    if scene.kind == "xyz" or not mask.is_file():
        return 0.0
    with _reading(mask) as file:
        cloud, valid = _read_grid(file, (1,), geobox, None, Resampling.nearest)
    return float((cloud[0] == 1).sum() / max(1, valid.sum()))


def cloud_mask_path(path: str | Path) -> Path:
    """Where the cloud mask of a scene lies, if it has one."""
    path = Path(path)
    return path.with_name(f"{path.stem}_clouds.tif")


# --- pixels -----------------------------------------------------------------------------------------------


def _read_grid(
    file: Any, bands: tuple[int, ...], geobox: GeoBox, nodata: float | None, resampling: Resampling
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Bands (C, H, W) and validity (H, W) of a file on a grid."""
    window = _aligned_window(file, geobox)
    if window is not None:
        return _read_window(file, bands, window, nodata)
    options: dict[str, Any] = {
        "crs": geobox.crs.to_wkt(),
        "transform": geobox.affine,
        "height": geobox.shape[0],
        "width": geobox.shape[1],
        "resampling": resampling,
        "src_nodata": nodata,
        "add_alpha": ColorInterp.alpha not in file.colorinterp,
        "UNIFIED_SRC_NODATA": "YES",
    }
    with WarpedVRT(file, **options) as warped:
        block = warped.read((*bands, warped.count))
    return block[:-1], block[-1] > 0


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


def _read_window(
    file: Any, bands: tuple[int, ...], window: Window, nodata: float | None
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
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


# --- open files -------------------------------------------------------------------------------------------


class _OpenFiles(threading.local):
    """The files that this thread has open, by process, path and modification; the oldest is closed first."""

    def __init__(self) -> None:
        """Start with no open file."""
        self.files: OrderedDict[tuple[Any, ...], Any] = OrderedDict()

    def get(self, path: str | Path) -> Any:
        """An open dataset of a path."""
        key = (os.getpid(), str(path), *_modified(path))
        if key not in self.files:
            self.files[key] = metadata.open_raster(path)
        self.files.move_to_end(key)
        while len(self.files) > _OPEN_FILES:
            (process, *_), oldest = self.files.popitem(last=False)
            if process == os.getpid():
                oldest.close()
        return self.files[key]


_open_files = _OpenFiles()


def _modified(path: str | Path) -> tuple[int, int]:
    """Time and size of a local file, so that a file written anew is opened anew."""
    try:
        about = Path(path).stat()
    except OSError:
        return (0, 0)
    return (about.st_mtime_ns, about.st_size)


@contextmanager
def _reading(path: str | Path) -> Iterator[Any]:
    """An open dataset; GDAL's errors become named ones."""
    if not _is_remote(path) and not Path(path).is_file():
        hint = "it is a folder; name one raster in it" if Path(path).is_dir() else "check the path"
        raise MissingInput(f"There is no file {path}: {hint}.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            file = _open_files.get(path)
        yield file
    except (RasterioError, CPLE_BaseError) as error:
        raise UnreadableScene(f"{path} cannot be read as a raster ({error}): fetch it again.") from error


def _is_remote(path: str | Path) -> bool:
    """Whether GDAL, not the file system, finds the path."""
    return str(path).startswith(("http://", "https://", "s3://", "gs://", "/vsi"))


def _absolute(path: str | Path) -> str:
    """A path that means the same wherever a later stage runs."""
    return str(path) if _is_remote(path) else str(Path(path).absolute())
