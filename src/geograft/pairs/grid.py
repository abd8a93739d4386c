"""The metric grid that chips lie on: UTM zones, whole pixels, names that say where a chip is.

A chip is a square of whole pixels of its zone's grid: column `x` counts pixels east of easting 0, row `y`
counts pixels north of northing 0 (the chip's top edge). So a chip's name and pixels depend on where it is
alone, never on the table that asked for it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from geograft.errors import BadSetting
from geograft.raster.grids import to_crs

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Grid:
    """Squares of `size` pixels of `gsd` metres.

    Attributes:
        size: pixels along a chip's side.
        gsd: metres a pixel.
    """

    size: int
    gsd: float

    def __post_init__(self) -> None:
        """Refuse grids without area."""
        if self.size < 1 or not 0 < self.gsd < 100_000:
            raise BadSetting(f"A chip of {self.size} px at {self.gsd} m has no area: give both above 0.")

    @property
    def extent(self) -> float:
        """A chip's side in metres."""
        return self.size * self.gsd

    def centred(self, east: Floats, north: Floats) -> tuple[Ints, Ints]:
        """The grid positions (x, y) of the chips centred on points, to the nearest whole pixel."""
        x = np.floor(east / self.gsd - self.size / 2 + 0.5)
        y = np.ceil(north / self.gsd + self.size / 2 - 0.5)
        return x.astype(np.int64), y.astype(np.int64)

    def corner(self, x: Ints, y: Ints) -> tuple[Floats, Floats]:
        """Easting and northing of the top left corner of grid positions, metres."""
        return x.astype(np.float64) * self.gsd, y.astype(np.float64) * self.gsd

    def names(self, epsg: Ints, x: Ints, y: Ints) -> pa.Array:
        """Chip ids: zone, size and sampling, and grid position, such as `32656-64x4-83120-1562300`; Arrow strings."""
        kind = pa.scalar(f"{self.size}x{self.gsd:g}")
        zone, column, row = (pa.array(values).cast(pa.string()) for values in (epsg, x, y))
        return pc.binary_join_element_wise(zone, kind, column, row, "-")


def project(lon: Floats, lat: Floats, epsg: int) -> tuple[Floats, Floats]:
    """Easting and northing of points in a metric CRS, metres."""
    east, north = to_crs(epsg).transform(lon, lat)
    return np.asarray(east, np.float64), np.asarray(north, np.float64)


def groups(values: NDArray[Any]) -> Iterator[tuple[int, Ints]]:
    """Each distinct value, ascending, with the rows that hold it."""
    for value in np.unique(values):
        yield int(value), np.flatnonzero(values == value)


CELL_ROW = 1 << 32
"""Keys of square cells are row * CELL_ROW + column."""


def cell_keys(east: Floats, north: Floats, side: float) -> Ints:
    """One number for the square cell that each point lies in; neighbours in a row differ by one, (N,)."""
    row, column = np.floor(north / side).astype(np.int64), np.floor(east / side).astype(np.int64)
    return np.asarray(row * CELL_ROW + column)


def metric_corners(left: Floats, top: Floats, side: float | Floats, margin: float = 0.0) -> Floats:
    """The corners of squares in metres, (N, 4, 2) as easting, northing, from the top left clockwise.

    Args:
        left: easting of the left edge, (N,).
        top: northing of the top edge, (N,).
        side: metres.
        margin: metres by which each side is moved outwards.
    """
    left, top = left - margin, top + margin
    right, bottom = left + side + 2 * margin, top - side - 2 * margin
    return np.stack([np.stack([left, right, right, left], 1), np.stack([top, top, bottom, bottom], 1)], -1)


def to_degrees(epsg: int, corners: Floats) -> Floats:
    """Corners in metres of a zone, (N, 4, 2), as lon, lat; those that cross the antimeridian run beyond 180."""
    flat = corners.reshape(-1, 2)
    lon, lat = to_crs(epsg).transform(flat[:, 0], flat[:, 1], direction="INVERSE")
    out = np.stack([lon, lat], -1).reshape(-1, 4, 2)
    crossing = np.ptp(out[..., 0], axis=1) > 180
    out[crossing, :, 0] %= 360
    return np.asarray(out, np.float64)


def corners(chips: pd.DataFrame, margin: float = 0.0) -> Floats:
    """Footprint corners of chips in degrees, (N, 4, 2) as lon, lat, from the top left clockwise.

    Args:
        chips: epsg, left, top, gsd, size.
        margin: metres by which each side is moved outwards.

    Returns:
        Longitudes of a chip that crosses the antimeridian run beyond 180.
    """
    side = (chips["gsd"] * chips["size"]).to_numpy(np.float64)
    xy = metric_corners(chips["left"].to_numpy(np.float64), chips["top"].to_numpy(np.float64), side, margin)
    out = np.empty_like(xy)
    for zone, rows in groups(chips["epsg"].to_numpy()):
        out[rows] = to_degrees(zone, xy[rows])
    return out
