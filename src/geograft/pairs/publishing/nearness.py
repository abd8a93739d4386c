"""Finding what lies near another kind among millions: cells that are mixed, so that few rows need an exact look."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from geograft.sources.judging.cells import EARTH_RADIUS_M

_METRES_A_DEGREE = 110_500
"""At most as many as a degree of latitude has anywhere: cells come out a little too large, never too small."""
_FEW = 400_000
_SAMPLE = 100_000

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Kinds = NDArray[np.uint8]


def beside_others(x: Ints, y: Ints, kinds: Kinds) -> NDArray[np.bool_]:
    """Whether a row's cell, or one of the eight around it, holds a row of another kind.

    Args:
        x: columns of the cells, (N,).
        y: rows of the cells, (N,).
        kinds: of the rows, (N,), values below 64.
    """
    if not len(x):
        return np.zeros(0, np.bool_)
    width = np.int64(y.max() - y.min() + 3)
    row, cells = pd.factorize((x - x.min()) * width + (y - y.min() + 1), sort=True)
    held = np.zeros(len(cells), np.uint64)
    for kind in np.unique(kinds):
        here = np.zeros(len(cells), np.bool_)
        here[row[kinds == kind]] = True
        held |= here.astype(np.uint64) << np.uint64(kind)
    around = held.copy()
    for step in (-width - 1, -width, -width + 1, -1, 1, width - 1, width, width + 1):
        place = np.minimum(np.searchsorted(cells, cells + step), len(cells) - 1)
        around |= np.where(cells[place] == cells + step, held[place], np.uint64(0))
    mixed = (around & (around - np.uint64(1))) != 0
    return np.asarray(mixed[row])


def nearest_of_other_kind(lon: Floats, lat: Floats, kinds: Kinds) -> float:
    """The smallest distance between two points of different kinds, metres; infinite where there is one kind.

    A sample gives a bound; only points with another kind within the bound's cells can be nearer.
    """
    if len(np.unique(kinds)) < 2:
        return float("inf")
    while len(lon) > _FEW:
        bound = _nearest(*_sample(lon, lat, kinds))
        near = _within(lon, lat, kinds, bound)
        shrunk = near.mean()
        lon, lat, kinds = lon[near], lat[near], kinds[near]
        if shrunk > 0.7:
            break
    return _nearest(lon, lat, kinds)


def _sample(lon: Floats, lat: Floats, kinds: Kinds) -> tuple[Floats, Floats, Kinds]:
    """Points of every kind, evenly drawn: neighbours in the tables are neighbours on the ground, so runs are kept."""
    rows = []
    for kind in np.unique(kinds):
        mine = np.flatnonzero(kinds == kind)
        rows.append(mine[:: max(1, len(mine) // _SAMPLE)])
    chosen = np.concatenate(rows)
    return lon[chosen], lat[chosen], kinds[chosen]


def _within(lon: Floats, lat: Floats, kinds: Kinds, bound: float) -> NDArray[np.bool_]:
    """Points that may have one of another kind within a bound in metres."""
    step = max(bound, 1.0) / _METRES_A_DEGREE
    wide = step / max(np.cos(np.radians(min(89.0, float(np.abs(lat).max()) + step))), 0.01)
    x, y = np.floor((lon + 180) / wide).astype(np.int64), np.floor((lat + 90) / step).astype(np.int64)
    return np.asarray(beside_others(x, y, kinds) | (np.abs(lon) > 180 - wide))


def _nearest(lon: Floats, lat: Floats, kinds: Kinds) -> float:
    """The smallest distance between points of different kinds, by trees; the bound so far keeps the search short."""
    lon, lat = np.radians(lon), np.radians(lat)
    points = EARTH_RADIUS_M * np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], 1)
    best = np.inf
    for kind in np.unique(kinds)[1:]:
        tree = cKDTree(points[kinds == kind])
        others = points[kinds < kind]
        for start in range(0, len(others), _SAMPLE):
            found, _ = tree.query(others[start : start + _SAMPLE], distance_upper_bound=best)
            best = min(best, float(found.min()))
    return float(best)
