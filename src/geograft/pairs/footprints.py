"""Where chips lie on the ground: their middles, and which of them show the same ground."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Any, NamedTuple

import numba
import numpy as np
import shapely
from numpy.typing import NDArray

from geograft.pairs.grid import CELL_ROW, Floats, Ints, cell_keys, groups, metric_corners, to_degrees
from geograft.raster.grids import to_crs

_TOUCH = 1e-3
"""Chips that share less than this part of their area do not overlap."""


@dataclass(frozen=True)
class Squares:
    """Footprints of chips of one size.

    Attributes:
        epsg: the UTM zone's code, (N,).
        left: easting of the left edge, metres, (N,).
        top: northing of the top edge, metres, (N,).
        side: metres.
    """

    epsg: Ints
    left: Floats
    top: Floats
    side: float

    def __len__(self) -> int:
        """The number of chips."""
        return len(self.left)

    def take(self, rows: Ints) -> "Squares":
        """Some footprints, given by row, in that order."""
        return Squares(self.epsg[rows], self.left[rows], self.top[rows], self.side)

    def centres(self) -> Floats:
        """The chips' middles on the unit sphere, (N, 3): x towards 0° E, y towards 90° E, z towards the north pole.

        Geodetic latitudes are taken for spherical ones: distances on such a sphere are true within 0.6 %.
        """
        lon, lat = np.empty(len(self)), np.empty(len(self))
        for zone, rows in groups(self.epsg):
            east, north = self.left[rows] + self.side / 2, self.top[rows] - self.side / 2
            lon[rows], lat[rows] = to_crs(zone).transform(east, north, direction="INVERSE")
        lon, lat = np.radians(lon), np.radians(lat)
        return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=1)

    def corners(self, rows: Ints) -> Floats:
        """Corners of some chips of one zone in degrees, (n, 4, 2) as lon, lat; longitudes run on beyond 180."""
        zone = int(self.epsg[rows[0]])
        corners = to_degrees(zone, metric_corners(self.left[rows], self.top[rows], self.side))
        corners[..., 0] -= _turns(corners[..., 0].mean(axis=1, keepdims=True) - corners[0, 0, 0])
        return corners


@dataclass(frozen=True)
class Neighbours:
    """For each chip the chips that overlap it, as a list of arrays would be, in two arrays.

    Attributes:
        starts: where each chip's begin in `others`, and the number of all, (N + 1,).
        others: rows of chips, ascending for each chip, (M,) int32.
    """

    starts: Ints
    others: NDArray[np.int32]

    def __len__(self) -> int:
        """The number of chips."""
        return len(self.starts) - 1

    def __getitem__(self, chip: int) -> NDArray[np.int32]:
        """The chips that overlap one."""
        if not 0 <= chip < len(self):
            raise IndexError(chip)
        return self.others[self.starts[chip] : self.starts[chip + 1]]

    def __iter__(self) -> Iterator[NDArray[np.int32]]:
        """The chips that overlap each."""
        return (self[chip] for chip in range(len(self)))


def neighbours(squares: Squares) -> Neighbours:
    """For each chip those that share more than a thousandth of its ground.

    Squares of a zone are compared by their edges, in cells of the squares' side; those of different zones, which only
    meet at the zones' edges, as polygons in degrees.
    """
    zones = [_sorted_cells(squares, rows) for _, rows in groups(squares.epsg)]
    across = _across_zones(squares)
    counts = np.bincount(across[0], minlength=len(squares)).astype(np.int64)
    least = _TOUCH * squares.side**2
    for zone in zones:
        _count(*zone, squares.side, least, counts)
    starts = np.concatenate([[0], np.cumsum(counts)])
    others = np.empty(starts[-1], np.int32)
    at = starts[:-1].copy()
    for zone in zones:
        _fill(*zone, squares.side, least, at, others)
    _append(*across, at, others)
    _sort_each(starts, others)
    return Neighbours(starts, others)


def _sorted_cells(squares: Squares, rows: Ints) -> tuple[Ints, Ints, Floats, Floats]:
    """Chips of a zone by cell: keys of cells, rows, eastings and northings."""
    east, north = squares.left[rows], squares.top[rows]
    keys = cell_keys(east, north, squares.side)
    order = np.argsort(keys, kind="stable")
    return keys[order], rows[order], east[order], north[order]


@numba.njit(cache=True, nogil=True, inline="always")  # type: ignore[untyped-decorator]
def _shared(one: int, other: int, east: Any, north: Any, side: float) -> float:
    """The ground that two squares have in common, square metres."""
    across, down = side - abs(east[one] - east[other]), side - abs(north[one] - north[other])
    return across * down if across > 0 and down > 0 else 0.0


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _count(keys: Any, rows: Any, east: Any, north: Any, side: float, least: float, counts: Any) -> None:
    """Count the overlapping chips of each."""
    for one in range(len(keys)):
        for down in range(-1, 2):
            first = np.searchsorted(keys, keys[one] + down * CELL_ROW - 1)
            last = np.searchsorted(keys, keys[one] + down * CELL_ROW + 1, side="right")
            for other in range(first, last):
                if other != one and _shared(one, other, east, north, side) > least:
                    counts[rows[one]] += 1


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _fill(keys: Any, rows: Any, east: Any, north: Any, side: float, least: float, at: Any, others: Any) -> None:
    """Write the overlapping chips of each, as `_count` counts them."""
    for one in range(len(keys)):
        for down in range(-1, 2):
            first = np.searchsorted(keys, keys[one] + down * CELL_ROW - 1)
            last = np.searchsorted(keys, keys[one] + down * CELL_ROW + 1, side="right")
            for other in range(first, last):
                if other != one and _shared(one, other, east, north, side) > least:
                    others[at[rows[one]]] = rows[other]
                    at[rows[one]] += 1


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _append(left: Any, right: Any, at: Any, others: Any) -> None:
    """Add pairs of overlapping chips."""
    for place in range(len(left)):
        others[at[left[place]]] = right[place]
        at[left[place]] += 1


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _sort_each(starts: Any, others: Any) -> None:
    """Sort the chips of each."""
    for chip in range(len(starts) - 1):
        others[starts[chip] : starts[chip + 1]].sort()


# --- where zones meet -------------------------------------------------------------------------------------


class _Zone(NamedTuple):
    """The chips of a zone: their rows, corners in degrees, (n, 4, 2), and the rectangle around all, (2,) each."""

    rows: Ints
    corners: Floats
    low: Floats
    high: Floats


def _across_zones(squares: Squares) -> tuple[Ints, Ints]:
    """Pairs of overlapping chips of different zones, each both ways."""
    found = [(np.empty(0, np.int64), np.empty(0, np.int64))]
    if (squares.epsg[1:] != squares.epsg[:-1]).any():
        for one, other in combinations([_zone(squares, rows) for _, rows in groups(squares.epsg)], 2):
            left, right = _between(one, _beside(other, one))
            found += [(left, right), (right, left)]
    left, right = (np.concatenate(side) for side in zip(*found, strict=True))
    return left, right


def _zone(squares: Squares, rows: Ints) -> _Zone:
    corners = squares.corners(rows)
    return _Zone(rows, corners, corners.min(axis=(0, 1)), corners.max(axis=(0, 1)))


def _turns(degrees: Any) -> Any:
    """Whole turns, in degrees, that bring angles into -180 to 180."""
    return 360 * np.round(np.asarray(degrees) / 360)


def _beside(zone: _Zone, other: _Zone) -> _Zone:
    """A zone with its longitudes counted from the same meridian as another's."""
    turns = np.array([_turns(zone.low[0] - other.low[0]), 0.0])
    return zone if not turns.any() else _Zone(zone.rows, zone.corners - turns, zone.low - turns, zone.high - turns)


def _between(one: _Zone, other: _Zone) -> tuple[Ints, Ints]:
    """Pairs of overlapping chips of two zones, by row."""
    near, far = _touching(one, other), _touching(other, one)
    if not near.any() or not far.any():
        return np.empty(0, np.int64), np.empty(0, np.int64)
    shapes, others = shapely.polygons(one.corners[near]), shapely.polygons(other.corners[far])
    left, right = shapely.STRtree(others).query(shapes, predicate="intersects")
    shared = shapely.area(shapely.intersection(shapes[left], others[right]))
    real = shared > _TOUCH * np.minimum(shapely.area(shapes[left]), shapely.area(others[right]))
    return one.rows[near][left[real]], other.rows[far][right[real]]


def _touching(zone: _Zone, other: _Zone) -> NDArray[np.bool_]:
    """Which chips of a zone touch the rectangle around another's."""
    if (zone.low > other.high).any() or (zone.high < other.low).any():
        return np.zeros(len(zone.rows), np.bool_)
    low, high = zone.corners.min(axis=1), zone.corners.max(axis=1)
    return np.asarray(((high >= other.low) & (low <= other.high)).all(axis=1))
