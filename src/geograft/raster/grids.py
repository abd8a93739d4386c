"""Metric grids: which UTM zone a place lies in, a chip's grid there, and the true size of a pixel.

Chips lie on whole pixels of their UTM zone's grid, never on degrees: a chip cut in degrees is stretched from east
to west by 1 / cos(latitude).
"""

import math
from functools import cache, lru_cache
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import ArrayLike, NDArray
from odc.geo.geobox import GeoBox
from pyproj import Geod, Transformer

from geograft.errors import BadSetting

_EARTH = Geod(ellps="WGS84")


def utm_epsg(lon: float, lat: float) -> int:
    """The EPSG code of the UTM zone (WGS 84) that holds a place.

    Zones are the regular ones of 6 degrees, without the exceptions of Norway and Svalbard.

    Raises:
        BadSetting: the place is outside -180 to 180 and -84 to 84, or not finite.
    """
    return int(utm_epsgs([lon], [lat])[0])


def utm_epsgs(lon: ArrayLike, lat: ArrayLike) -> NDArray[np.int64]:
    """The EPSG codes of the UTM zones of many places; see `utm_epsg`."""
    lon, lat = np.asarray(lon, np.float64), np.asarray(lat, np.float64)
    inside = (np.abs(lon) <= 180) & (np.abs(lat) <= 84)
    if not inside.all():
        first = int(np.flatnonzero(~inside)[0])
        raise BadSetting(f"UTM covers -180 to 180 east and -84 to 84 north; {lon[first]}, {lat[first]} lies outside.")
    zone = np.clip(((lon + 180) // 6).astype(np.int64) + 1, 1, 60)
    return np.where(lat < 0, 32700, 32600) + zone


def utm_geobox(lon: float, lat: float, *, gsd: float, size: int) -> GeoBox:
    """The grid of a chip centred on a place, snapped to whole pixels of its UTM zone's grid.

    Args:
        lon: degrees east.
        lat: degrees north.
        gsd: metres per pixel.
        size: pixels per side.

    Returns:
        A square north-up GeoBox; the place lies within half a pixel of its centre.

    Raises:
        BadSetting: the place is outside UTM, or gsd or size are not positive.
    """
    if gsd <= 0 or size <= 0:
        raise BadSetting(f"A chip needs a positive gsd and size, not {gsd} and {size}.")
    epsg = utm_epsg(lon, lat)
    x, y = to_crs(epsg).transform(lon, lat)
    left = round(x / gsd - size / 2) * gsd
    top = round(y / gsd + size / 2) * gsd
    return chip_geobox(epsg, left, top, gsd=gsd, size=size)


def chip_geobox(epsg: int, left: float, top: float, *, gsd: float, size: int) -> GeoBox:
    """The square north-up GeoBox of a chip with its top-left corner at (left, top), in metres."""
    return GeoBox((size, size), Affine(gsd, 0, left, 0, -gsd, top), _crs_name(epsg))


@cache
def _crs_name(epsg: int) -> str:
    """An EPSG code as GeoBox takes it."""
    return f"EPSG:{epsg}"


@lru_cache(maxsize=256)
def to_crs(epsg: int) -> Any:
    """A transformer from lon, lat (WGS 84) to a CRS's x, y."""
    return Transformer.from_crs(4326, epsg, always_xy=True)


@lru_cache(maxsize=256)
def to_degrees(crs: str) -> Any:
    """A transformer from a CRS's x, y (by code or definition) to lon, lat (WGS 84); making one costs a millisecond."""
    return Transformer.from_crs(crs, 4326, always_xy=True)


def ground_gsd(geobox: GeoBox) -> float:
    """The size of a grid's pixel on the ground, in metres, at the grid's centre.

    Right for degrees and for Web Mercator too. A metric grid's own resolution is given as it is where it is true
    within 0.5 %.
    """
    a, b, d, e = (getattr(geobox.affine, name) for name in "abde")
    nominal = math.sqrt(abs(a * e - b * d))
    true = _geodesic_gsd(geobox)
    if geobox.crs.units[0] in {"metre", "m"} and abs(true / nominal - 1) < 0.005:
        return nominal
    return true


def _geodesic_gsd(geobox: GeoBox) -> float:
    """The root of the area of the centre pixel, by the lengths of its two sides on the ellipsoid."""
    row, col = geobox.shape[0] / 2, geobox.shape[1] / 2
    corners = [geobox.affine @ point for point in ((col, row), (col + 1, row), (col, row + 1))]
    lon, lat = to_degrees(str(geobox.crs)).transform(*zip(*corners, strict=True))
    _, _, east = _EARTH.inv(lon[0], lat[0], lon[1], lat[1])
    _, _, south = _EARTH.inv(lon[0], lat[0], lon[2], lat[2])
    return math.sqrt(east * south)
