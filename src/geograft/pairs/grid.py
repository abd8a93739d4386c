"""The metric grid that chips lie on: UTM zones, whole pixels, names that say where a chip is.

A chip is a square of whole pixels of its zone's grid: column `x` counts pixels east of easting 0, row `y`
counts pixels north of northing 0 (the chip's top edge). So a chip's name and pixels depend on where it is
alone, never on the table that asked for it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from geograft.errors import BadSetting
from geograft.raster.grids import chip_geobox, to_crs, utm_epsgs

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

    def names(self, epsg: Ints, x: Ints, y: Ints) -> list[str]:
        """Chip ids: zone, size and sampling, and grid position, such as `32656-64x4-83120-1562300`."""
        kind = f"{self.size}x{self.gsd:g}"
        rows = zip(epsg.tolist(), x.tolist(), y.tolist(), strict=True)
        return [f"{e}-{kind}-{i}-{j}" for e, i, j in rows]


@dataclass(frozen=True)
class Places:
    """Points in the UTM zones that they lie in.

    Attributes:
        lon: degrees east, (N,).
        lat: degrees north, (N,).
    """

    lon: Floats
    lat: Floats

    @cached_property
    def epsg(self) -> Ints:
        """The EPSG code of each point's own zone, (N,)."""
        return utm_epsgs(self.lon, self.lat)

    @cached_property
    def metric(self) -> tuple[Floats, Floats]:
        """Easting and northing in each point's own zone, metres, (N,) each."""
        east, north = np.empty_like(self.lon), np.empty_like(self.lat)
        for zone, rows in groups(self.epsg):
            east[rows], north[rows] = project(self.lon[rows], self.lat[rows], zone)
        return east, north

    def near(self, zone: int, margin: float) -> Ints:
        """Rows of the points in a zone or within about `margin` metres of it, ascending."""
        dlat = margin / 110_000
        dlon = dlat / np.maximum(np.cos(np.radians(self.lat)), 0.05)
        close = self.epsg == zone
        for east, north in ((dlon, 0.0), (-dlon, 0.0), (0.0, dlat), (0.0, -dlat)):
            lon = (self.lon + east + 180) % 360 - 180
            close |= utm_epsgs(lon, np.clip(self.lat + north, -84, 84)) == zone
        return np.flatnonzero(close)


def project(lon: Floats, lat: Floats, epsg: int) -> tuple[Floats, Floats]:
    """Easting and northing of points in a metric CRS, metres."""
    east, north = to_crs(epsg).transform(lon, lat)
    return np.asarray(east, np.float64), np.asarray(north, np.float64)


def groups(values: NDArray[Any]) -> Iterator[tuple[int, Ints]]:
    """Each distinct value, ascending, with the rows that hold it."""
    for value in np.unique(values):
        yield int(value), np.flatnonzero(values == value)


def geobox(chip: Any) -> GeoBox:
    """The GeoBox of a row of the chip table (epsg, left, top, gsd, size)."""
    return chip_geobox(int(chip.epsg), chip.left, chip.top, gsd=chip.gsd, size=int(chip.size))


def corners(chips: pd.DataFrame, margin: float = 0.0) -> Floats:
    """Footprint corners of chips in degrees, (N, 4, 2) as lon, lat, from the top left clockwise.

    Args:
        chips: epsg, left, top, gsd, size.
        margin: metres by which each side is moved outwards.

    Returns:
        Longitudes of a chip that crosses the antimeridian run beyond 180.
    """
    side = (chips["gsd"] * chips["size"]).to_numpy(np.float64)
    left = chips["left"].to_numpy(np.float64) - margin
    top = chips["top"].to_numpy(np.float64) + margin
    right, bottom = left + side + 2 * margin, top - side - 2 * margin
    xy = np.stack([np.stack([left, right, right, left], 1), np.stack([top, top, bottom, bottom], 1)], -1)
    out = np.empty_like(xy)
    for zone, rows in groups(chips["epsg"].to_numpy()):
        flat = xy[rows].reshape(-1, 2)
        lon, lat = to_crs(zone).transform(flat[:, 0], flat[:, 1], direction="INVERSE")
        out[rows] = np.stack([lon, lat], -1).reshape(-1, 4, 2)
    crossing = np.ptp(out[..., 0], axis=1) > 180
    out[crossing, :, 0] %= 360
    return out


def hash_ids(ids: Any, salt: str) -> NDArray[np.uint64]:
    """A fixed pseudo-random number for each id, (N,), the same on every machine and in every order.

    Args:
        ids: strings.
        salt: what the numbers are for, with the seed; another salt gives unrelated numbers.
    """
    key = f"{salt:<16.16}"
    values = np.asarray(ids, dtype=object)
    return np.asarray(pd.util.hash_array(values, hash_key=key, categorize=False), dtype=np.uint64)


def mix(left: NDArray[np.uint64], right: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """One pseudo-random number of two, elementwise (the finaliser of SplitMix64)."""
    with np.errstate(over="ignore"):
        z = left + right * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return np.asarray(z, np.uint64)
