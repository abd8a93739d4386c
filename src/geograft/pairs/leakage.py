"""A proof that splits share nothing, made of the written tables alone."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import shapely
from scipy.spatial import cKDTree

from geograft.tables import read_table

_EARTH_M = 6_371_008.8


@dataclass(frozen=True)
class Leakage:
    """What two splits share.

    Attributes:
        footprints: pairs of chips of different splits that overlap on the ground.
        photos: photos in chips of several splits.
        user_minutes: minutes in which one user took photos of several splits.
        places: values of the photos' `place` that occur in several splits (harmless where the split is by blocks).
        nearest_m: the distance between the nearest two photos of different splits, infinite with one split.
    """

    footprints: int
    photos: int
    user_minutes: int
    places: int
    nearest_m: float

    @property
    def none(self) -> bool:
        """Whether no footprint, photo or user's minute is shared."""
        return self.footprints + self.photos + self.user_minutes == 0


def leakage(folder: Path) -> Leakage:
    """Look for anything that the splits of a folder of pairs share.

    Args:
        folder: what `make_pairs` wrote.

    Raises:
        MissingInput: the folder holds no pairs.
    """
    chips = read_table(Path(folder) / "chips.parquet", ["chip_id", "split", "geometry"])
    pairs = read_table(Path(folder) / "pairs.parquet", ["chip_id", "photo_id"])
    photos = read_table(Path(folder) / "photos.parquet", ["photo_id", "taken", "user", "place", "geometry"])
    joined = pairs.merge(chips[["chip_id", "split"]], on="chip_id").merge(photos, on="photo_id")
    minute = pd.to_datetime(joined["taken"], utc=True, errors="coerce", format="ISO8601").dt.floor("min")
    joined = joined.assign(minute=minute)
    return Leakage(
        footprints=_overlapping(chips),
        photos=_in_several(joined, ["photo_id"]),
        user_minutes=_in_several(joined, ["user", "minute"]),
        places=_in_several(joined, ["place"]),
        nearest_m=_nearest(joined),
    )


def _overlapping(chips: Any) -> int:
    """Pairs of chips of different splits that share more than an edge."""
    shapes = np.asarray(chips.geometry.array)
    split = chips["split"].to_numpy(object)
    left, right = shapely.STRtree(shapes).query(shapes, predicate="intersects")
    across = (left < right) & (split[left] != split[right])
    left, right = left[across], right[across]
    shared = shapely.area(shapely.intersection(shapes[left], shapes[right]))
    return int((shared > 1e-6 * shapely.area(shapes[left])).sum())


def _in_several(joined: pd.DataFrame, keys: list[str]) -> int:
    """How many values of the keys, where known, occur in several splits."""
    known = joined.dropna(subset=keys)
    return int(known.groupby(keys)["split"].nunique().gt(1).sum())


def _nearest(joined: Any) -> float:
    """The smallest distance between photos of different splits, metres."""
    where = np.asarray(joined["geometry"].array)
    lon, lat = np.radians(shapely.get_x(where)), np.radians(shapely.get_y(where))
    points = _EARTH_M * np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], 1)
    split = joined["split"].to_numpy(object)
    nearest = np.inf
    for name in np.unique(split.astype(str)):
        mine, others = points[split == name], points[split != name]
        if len(others):
            nearest = min(nearest, float(cKDTree(others).query(mine)[0].min()))
    return nearest
