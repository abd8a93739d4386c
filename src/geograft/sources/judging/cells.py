"""Cells of the ground that are about as wide as high everywhere, for counting photos of one place."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

EARTH_RADIUS_M = 6_371_008.8
"""Mean radius (IUGG)."""

_METRES_A_DEGREE = EARTH_RADIUS_M * np.pi / 180
_COLUMNS = 2**32
"""More than a row has."""

Degrees = NDArray[np.float64]


def place_cells(lon: Any, lat: Any, side_m: float) -> NDArray[np.int64]:
    """The cell that each position lies in, (N,).

    Rows of equal height run from pole to pole; each is divided into as many columns of equal width as fit, so a
    cell is at least `side_m` wide, and hardly more but at the poles.

    Args:
        lon: degrees east, (N,); any turn of the globe.
        lat: degrees north, (N,), -90 to 90.
        side_m: the height of a cell in metres.
    """
    lon, lat = np.asarray(lon, np.float64), np.asarray(lat, np.float64)
    row = np.floor((lat + 90) * _METRES_A_DEGREE / side_m)
    south = row * side_m / _METRES_A_DEGREE - 90
    farthest = np.maximum(np.abs(south), np.abs(south + side_m / _METRES_A_DEGREE))
    around = 2 * np.pi * EARTH_RADIUS_M * np.cos(np.radians(np.minimum(farthest, 90)))
    columns = np.maximum(np.floor(around / side_m), 1)
    column = np.minimum(np.floor(np.mod(lon + 180, 360) / 360 * columns), columns - 1)
    return np.asarray(row.astype(np.int64) * _COLUMNS + column.astype(np.int64))


def neighbourhoods(lon: Any, lat: Any, side_m: float) -> NDArray[np.int64]:
    """The cells around each position, its own among them, (N, 15); some occur twice.

    They hold everything that lies within `side_m` to the north, south, east and west.

    Args:
        lon: degrees east, (N,).
        lat: degrees north, (N,).
        side_m: as of `place_cells`.
    """
    lon, lat = np.asarray(lon, np.float64), np.asarray(lat, np.float64)
    found = []
    for up in (-1, 0, 1):
        north = np.clip(lat + up * side_m / _METRES_A_DEGREE, -90, 90)
        wide = np.maximum(np.cos(np.radians(np.maximum(np.abs(north), np.abs(lat)))), 1e-9)
        step = np.minimum(side_m / (_METRES_A_DEGREE * wide), 120)
        found += [place_cells(lon + across * step, north, side_m) for across in (-1, -0.5, 0, 0.5, 1)]
    return np.stack(found, axis=1)
