"""A scene as a model sees it: on the model's grid, in its bands and units, read window by window.

Every task cuts chips through this module, so that they agree on where a chip lies, what happens at the border, and
what is done to imagery of another ground sample distance or band order.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from geograft.errors import ModelMismatch, SceneTooSmall
from geograft.models.model import DISPLAY
from geograft.raster import Scene, ground_gsd, read
from geograft.sensors import Sensor

logger = logging.getLogger(__name__)

SAME_GSD = 0.02
"""Relative difference of ground sample distances below which nothing is resampled."""


@dataclass(frozen=True)
class View:
    """A scene on the grid, in the bands and in the units that a model takes.

    Attributes:
        scene: what is read.
        sensor: the model's sensor; pixels come in its bands and native units.
        grid: the model's grid over the whole scene.
        bands: where each of the model's bands lies in the scene.
        note: what was done to the scene's grid, empty if nothing.
    """

    scene: Scene
    sensor: Sensor
    grid: GeoBox
    bands: tuple[int, ...]
    note: str = ""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the grid."""
        return int(self.grid.shape[0]), int(self.grid.shape[1])

    def read(self, rows: slice, columns: slice) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Pixels (C, H, W) in the model's native units and whether each is valid (H, W).

        Pixels without data hold the sensor's mean, so that a border of nodata says as little as possible.
        """
        raster = read(self.scene, self.grid[rows, columns])
        pixels = _as_the_model(raster.pixels, self.bands, self.scene.sensor, self.sensor)
        if not raster.valid.all():
            pixels = np.where(raster.valid, pixels, _mean_pixel(self.sensor, pixels.dtype))
        return pixels, raster.valid


@dataclass(frozen=True)
class Chips:
    """Chips cut from one block of a view.

    Attributes:
        pixels: native units of the model's sensor, (N, C, S, S).
        valid: share of each chip that holds data, (N,).
        rows: top row of each chip in the view's grid, (N,).
        columns: left column of each chip, (N,).
    """

    pixels: NDArray[Any]
    valid: NDArray[np.float32]
    rows: NDArray[np.int64]
    columns: NDArray[np.int64]


def open_view(scene: Scene, *, sensor: Sensor, gsd: float, size: int = 1) -> View:
    """The scene as a model with this sensor and ground sample distance sees it.

    A metric scene of the model's ground sample distance is read as it is; any other is resampled on read, in its own
    CRS if that is metric and true to scale, otherwise in the UTM zone of its centre. Resampling is logged as a warning.

    Args:
        scene: the scene.
        sensor: the model's sensor.
        gsd: metres per pixel that the model takes.
        size: rows and columns that the scene must have at least, on the model's grid.

    Raises:
        ModelMismatch: the scene lacks a band that the model needs.
        SceneTooSmall: a chip does not fit into the scene.
    """
    bands = _band_order(scene, sensor)
    grid, note = model_grid(scene.geobox, gsd)
    if min(grid.shape) < size:
        raise SceneTooSmall(
            f"{scene.path} has {grid.shape[0]} x {grid.shape[1]} px of {gsd:g} m, but a chip needs {size} x {size}; "
            "use a larger scene, or a model with smaller chips."
        )
    if note:
        logger.warning("%s: %s", scene.path, note)
    return View(scene=scene, sensor=sensor, grid=grid, bands=bands, note=note)


def model_grid(geobox: GeoBox, gsd: float) -> tuple[GeoBox, str]:
    """The grid on which a model of this ground sample distance sees a raster, and what that changes (or "")."""
    true = ground_gsd(geobox)
    nominal = abs(geobox.affine.a)
    if not _is_true_to_scale(geobox, true, nominal):
        note = f"resampled from {geobox.crs} (about {true:.3g} m) to {gsd:g} m in UTM"
        return geobox.to_crs("utm", resolution=gsd), note
    if abs(true / gsd - 1) <= SAME_GSD:
        return geobox, ""
    return geobox.zoom_to(resolution=gsd), f"resampled from {nominal:.3g} m to {gsd:g} m, which the model takes"


def chip_starts(length: int, size: int, stride: int) -> NDArray[np.int64]:
    """Where chips of a size start along one side so that they cover it; the last one is pushed back to the border.

    Raises:
        SceneTooSmall: a chip is longer than the side.
    """
    if length < size:
        raise SceneTooSmall(f"a chip of {size} pixels does not fit into {length}; use a larger scene")
    starts = np.arange(0, length - size + 1, stride)
    return starts if starts[-1] + size == length else np.append(starts, length - size)


def chips(view: View, *, size: int, stride: int, block: int = 1024) -> Iterator[Chips]:
    """All chips of a view, block by block so that memory does not grow with the scene.

    Args:
        view: the scene as the model sees it.
        size: rows and columns of a chip.
        stride: pixels from one chip to the next.
        block: chips whose top-left corner lies in the same block x block pixels come together.

    Yields:
        The chips of each block, row by row; the order of all chips does not depend on anything but `block`.
    """
    rows, columns = (chip_starts(length, size, stride) for length in view.shape)
    for top in _groups(rows, block):
        for left in _groups(columns, block):
            yield cut(view, top, left, size=size)


def count_blocks(view: View, *, size: int, stride: int, block: int = 1024) -> int:
    """How many items `chips` yields."""
    counts = [len(_groups(chip_starts(length, size, stride), block)) for length in view.shape]
    return counts[0] * counts[1]


def cut(view: View, rows: NDArray[np.int64], columns: NDArray[np.int64], *, size: int) -> Chips:
    """The chips that start at every combination of ascending rows and columns, read in one go."""
    pixels, valid = view.read(
        slice(int(rows[0]), int(rows[-1]) + size), slice(int(columns[0]), int(columns[-1]) + size)
    )
    return slice_chips(pixels, valid, rows, columns, size=size)


def slice_chips(
    pixels: NDArray[Any],
    valid: NDArray[np.bool_],
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
    *,
    size: int,
) -> Chips:
    """The chips of pixels whose first row and column are the first of `rows` and `columns`."""
    corners = [(r, c) for r in (rows - rows[0]).tolist() for c in (columns - columns[0]).tolist()]
    return Chips(
        pixels=np.stack([pixels[:, r : r + size, c : c + size] for r, c in corners]),
        valid=np.array([valid[r : r + size, c : c + size].mean() for r, c in corners], dtype=np.float32),
        rows=np.repeat(rows, len(columns)),
        columns=np.tile(columns, len(rows)),
    )


def _groups(starts: NDArray[np.int64], block: int) -> list[NDArray[np.int64]]:
    """Ascending starts, apart by the block that they lie in."""
    borders = np.flatnonzero(np.diff(starts // block)) + 1
    return np.split(starts, borders)


def _is_true_to_scale(geobox: GeoBox, true: float, nominal: float) -> bool:
    """Whether rows and columns are metres on the ground, north up."""
    affine = geobox.affine
    upright = affine.b == 0 and affine.d == 0 and affine.e < 0
    square = abs(abs(affine.e) / nominal - 1) <= SAME_GSD
    return bool(geobox.crs.projected and upright and square and abs(true / nominal - 1) <= SAME_GSD)


def _band_order(scene: Scene, sensor: Sensor) -> tuple[int, ...]:
    """Where each of a sensor's bands lies in the scene; a model of pictures sees whatever the scene shows as one."""
    present = scene.sensor.bands
    if sensor.name == DISPLAY:
        return scene.sensor.rgb_bands
    if missing := [band for band in sensor.bands if band not in present]:
        raise ModelMismatch(
            f"{scene.path} ({scene.sensor.name}: {', '.join(present)}) lacks the bands {', '.join(missing)} that the "
            f"model needs ({', '.join(sensor.bands)}); use a model for these bands."
        )
    return tuple(present.index(band) for band in sensor.bands)


def _as_the_model(pixels: NDArray[Any], bands: tuple[int, ...], source: Sensor, target: Sensor) -> NDArray[Any]:
    """Native values of a scene (C, H, W) as those of the model's sensor: a picture where it takes pictures."""
    if target.name == DISPLAY != source.name:
        return source.rgb(pixels).transpose(2, 0, 1)
    return _convert(pixels[list(bands)], source, target)


def _convert(pixels: NDArray[Any], source: Sensor, target: Sensor) -> NDArray[Any]:
    """Native values of one sensor as native values of another, float32 unless both pack alike."""
    if (source.scale, source.offset) == (target.scale, target.offset):
        return pixels
    return (source.physical(pixels) - np.float32(target.offset)) / np.float32(target.scale)


def _mean_pixel(sensor: Sensor, dtype: np.dtype[Any]) -> NDArray[Any]:
    """The mean of each band in native units, (C, 1, 1)."""
    native = (np.asarray(sensor.mean) - sensor.offset) / sensor.scale
    if np.issubdtype(dtype, np.integer):
        native = native.round()
    return native.astype(dtype)[:, None, None]
