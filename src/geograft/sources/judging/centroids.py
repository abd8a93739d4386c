"""Positions that no camera measured: the middle of a country, whole degrees."""

from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from geograft.sources.judging.cells import EARTH_RADIUS_M

NEAR_M = 100.0
"""How near to a country's centroid a position is taken for it."""

_EXACT_DEG = 1e-7
"""A centimetre: what float rounding and text may add to a whole degree."""


def on_centroid(lon: Any, lat: Any) -> NDArray[np.bool_]:
    """Which positions lie on the point that gazetteers give for a whole country, (N,).

    The points are those of `assets/country_centroids.csv`: Google's DSPL countries and the CIA's World Factbook.

    Args:
        lon: degrees east, (N,).
        lat: degrees north, (N,).
    """
    distance, _ = _tree().query(_on_sphere(lon, lat), distance_upper_bound=NEAR_M / EARTH_RADIUS_M)
    return np.asarray(np.isfinite(distance), np.bool_)


def on_whole_degrees(lon: Any, lat: Any) -> NDArray[np.bool_]:
    """Which positions are whole degrees on both axes, (N,): rounded, not measured."""
    return _whole(lon) & _whole(lat)


def _whole(degrees: Any) -> NDArray[np.bool_]:
    degrees = np.asarray(degrees, np.float64)
    return np.asarray(np.abs(degrees - np.rint(degrees)) < _EXACT_DEG, np.bool_)


@cache
def _tree() -> Any:
    """The centroids, to be searched by distance."""
    from scipy.spatial import cKDTree

    with (files("geograft") / "assets" / "country_centroids.csv").open(encoding="utf-8") as file:
        table = pd.read_csv(file, comment="#", keep_default_na=False)
    return cKDTree(_on_sphere(table["lon"], table["lat"]))


def _on_sphere(lon: Any, lat: Any) -> NDArray[np.float64]:
    """Positions as unit vectors, (N, 3); a chord of so few metres is as long as its arc."""
    lon, lat = np.radians(np.asarray(lon, np.float64)), np.radians(np.asarray(lat, np.float64))
    return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=1)
