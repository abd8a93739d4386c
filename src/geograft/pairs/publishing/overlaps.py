"""Chips of different splits that overlap on the ground, exact on the metric grid, among millions."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import shapely
from numpy.typing import NDArray

from geograft.pairs.grid import corners, groups
from geograft.pairs.publishing.nearness import beside_others
from geograft.raster.grids import to_crs, utm_epsgs

_TOUCH = 1e-6
"""Chips that share less than this part of a side share an edge, no ground."""
_CHUNK = 50_000
_SEAM = 99.0
"""Beyond this longitude, which no zone ends at, footprints are compared in 0 to 360 degrees."""

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Footprints:
    """Squares on the ground.

    Attributes:
        epsg: the metric CRS of each, (N,).
        left: easting of the left edge, metres, (N,).
        top: northing of the top edge, metres, (N,).
        side: metres, (N,).
        split: a number for the split, (N,), values below 64.
        scene: a number for the scene, -1 where unknown, (N,).
    """

    epsg: Ints
    left: NDArray[np.float64]
    top: NDArray[np.float64]
    side: NDArray[np.float64]
    split: NDArray[np.uint8]
    scene: NDArray[np.int32]

    def take(self, rows: Ints) -> "Footprints":
        """Some of the squares, by row."""
        return Footprints(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))

    @property
    def corners(self) -> NDArray[np.float64]:
        """Corners in degrees, (N, 4, 2)."""
        return corners(pd.DataFrame({name: getattr(self, name) for name in ("epsg", "left", "top")}
                                    | {"gsd": self.side, "size": 1}))  # fmt: skip


@dataclass(frozen=True)
class Overlaps:
    """How many pairs of squares of different splits share ground.

    Attributes:
        count: pairs.
        same_scene: those of them cut of one scene.
    """

    count: int = 0
    same_scene: int = 0

    def __add__(self, other: "Overlaps") -> "Overlaps":
        """Both together."""
        return Overlaps(self.count + other.count, self.same_scene + other.same_scene)


def overlaps(squares: Footprints) -> Overlaps:
    """Pairs of squares of different splits that share more than an edge, within zones and across their borders."""
    found = Overlaps()
    if len(np.unique(squares.split)) < 2:
        return found
    for _, rows in groups(squares.epsg):
        found += _in_zone(squares.take(rows))
    return found + _across_zones(squares.take(_at_border(squares)))


def _in_zone(squares: Footprints) -> Overlaps:
    """Overlaps of squares of one metric grid, by arithmetic."""
    cell = squares.side.max()
    x, y = np.floor(squares.left / cell).astype(np.int64), np.floor(squares.top / cell).astype(np.int64)
    near = squares.take(np.flatnonzero(beside_others(x, y, squares.split)))
    right, bottom = near.left + near.side, near.top - near.side
    found = Overlaps()
    for one, other in _candidates(shapely.box(near.left, bottom, right, near.top), near.split):
        least = _TOUCH * near.side[one]
        wide = np.minimum(right[one], right[other]) - np.maximum(near.left[one], near.left[other]) > least
        high = np.minimum(near.top[one], near.top[other]) - np.maximum(bottom[one], bottom[other]) > least
        found += _counted(near, one[wide & high], other[wide & high])
    return found


def _across_zones(squares: Footprints) -> Overlaps:
    """Overlaps of squares of different zones, by their outlines in degrees."""
    if not len(squares.split):
        return Overlaps()
    outline = squares.corners
    far = np.abs(outline[:, :, 0].mean(axis=1)) > _SEAM
    outline[far, :, 0] %= 360
    shapes = shapely.polygons(outline)
    found = Overlaps()
    for pair in _candidates(shapes, squares.split):
        apart = squares.epsg[pair[0]] != squares.epsg[pair[1]]
        one, other = pair[0][apart], pair[1][apart]
        shared = shapely.area(shapely.intersection(shapes[one], shapes[other]))
        real = shared > _TOUCH * shapely.area(shapes[one])
        found += _counted(squares, one[real], other[real])
    return found


def _candidates(shapes: NDArray[np.object_], split: NDArray[np.uint8]) -> Iterator[tuple[Ints, Ints]]:
    """Rows of shapes of different splits whose boxes meet, each pair once, some at a time."""
    tree = shapely.STRtree(shapes)
    for start in range(0, len(shapes), _CHUNK):
        one, other = tree.query(shapes[start : start + _CHUNK])
        one = one + start
        across = (one < other) & (split[one] != split[other])
        yield one[across], other[across]


def _counted(squares: Footprints, one: Ints, other: Ints) -> Overlaps:
    """Pairs of rows as a count."""
    same = (squares.scene[one] == squares.scene[other]) & (squares.scene[one] >= 0)
    return Overlaps(len(one), int(same.sum()))


def _at_border(squares: Footprints) -> Ints:
    """Rows of the squares that reach within two sides of another zone."""
    lon, lat = np.empty(len(squares.left)), np.empty(len(squares.left))
    half = squares.side / 2
    for zone, rows in groups(squares.epsg):
        east, north = squares.left[rows] + half[rows], squares.top[rows] - half[rows]
        lon[rows], lat[rows] = to_crs(zone).transform(east, north, direction="INVERSE")
    step = 2 * squares.side / 110_000
    wide = step / np.maximum(np.cos(np.radians(lat)), 0.05)
    border = np.zeros(len(lon), np.bool_)
    for right, up in ((1, 0), (-1, 0), (0, 1), (0, -1)):
        zones = utm_epsgs((lon + right * wide + 180) % 360 - 180, np.clip(lat + up * step, -84, 84))
        border |= zones != squares.epsg
    return np.flatnonzero(border)
