"""Training, validation and test by place: whole blocks, places or scenes, never neighbours on both sides.

A split by place takes two steps. Chips are assigned, by the block of the ground that they lie in, by the `place` of
their photos, or by the scene nearest to them. Then whatever would leak is dropped: in a chip that mixes places the
photos of other splits, chips whose footprint comes nearer than the buffer to one of another split, and photos of a
user's minute that spans splits. Test chips stay before validation chips, and those before training chips, so that the
evaluation sets keep their size.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import shapely
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from geograft.errors import BadSetting
from geograft.hashing import Hashes, hash_ids, mix
from geograft.pairs.grid import Floats, Ints, corners
from geograft.pairs.planning.ground import bend, mirrored
from geograft.pairs.times import NEVER

SPLITS = ("train", "validation", "test")
KINDS = ("blocks", "place", "scene")

_EARTH_M = 6_371_008.8
_MINUTE = 60_000_000

Codes = NDArray[np.int8]
"""Splits by number, -1 for none."""


@dataclass(frozen=True)
class SplitSettings:
    """How chips are divided.

    Attributes:
        by: "blocks" of ground, "place" (the photo table's column), "scene", or None for training alone.
        fractions: shares of chips for train, validation and test; they sum to 1.
        block_m: side of a block in metres.
        buffer_m: chips of different splits are at least this far apart.
        seed: another seed gives another division.
    """

    by: str | None
    fractions: tuple[float, float, float]
    block_m: float
    buffer_m: float
    seed: int

    def __post_init__(self) -> None:
        """Refuse fractions that are no division."""
        if self.by is not None and self.by not in KINDS:
            raise BadSetting(f"A split is by blocks, by place, by scene, or none, not {self.by!r}.")
        if not (min(self.fractions) >= 0 and abs(sum(self.fractions) - 1) <= 1e-6):
            raise BadSetting(f"The fractions of train, validation and test must sum to 1, not {self.fractions}.")
        if not (self.block_m > 0 and self.buffer_m >= 0):
            raise BadSetting(
                f"block_m must be above 0 and buffer_m 0 or more, not {self.block_m:g} and {self.buffer_m:g}."
            )


# --- assignment -------------------------------------------------------------------------------------------


def assign(names: Sequence[str], counts: Sequence[int], settings: SplitSettings) -> Codes:
    """The split of each name.

    Names are visited in a pseudo-random order; each goes to the split that is furthest below its share.

    Args:
        names: distinct.
        counts: how many rows each name stands for.
        settings: fractions and seed.
    """
    keys = np.asarray(names, dtype=object)
    order = np.lexsort((keys.astype(str), hash_ids(keys, f"split {settings.seed}")))
    wanted = settings.fractions
    filled = [0.0] * len(SPLITS)
    out = np.full(len(keys), -1, np.int8)
    for name in order.tolist():
        total = sum(filled) + counts[name]
        lacking = [share * total - have if share > 0 else -np.inf for share, have in zip(wanted, filled, strict=True)]
        split = lacking.index(max(lacking))
        filled[split] += counts[name]
        out[name] = split
    return out


def by_block(lon: Floats, lat: Floats, settings: SplitSettings) -> Codes:
    """The split of each chip, by the block that its centre lies in, (N,)."""
    rows, columns = block_numbers(lon, lat, settings.block_m)
    code, blocks_ = pd.factorize(_joined(rows, columns))
    first = np.unique(code, return_index=True)[1]
    names = [f"{row}/{column}" for row, column in zip(rows[first].tolist(), columns[first].tolist(), strict=True)]
    of_block = assign(names, np.bincount(code, minlength=len(blocks_)).tolist(), settings)
    return np.asarray(of_block[code])


def by_name(code: NDArray[np.integer], names: Sequence[str], settings: SplitSettings) -> Codes:
    """The split of each row, by its name, (N,).

    Args:
        code: the name of each row, by number.
        names: those; a name that no row has goes to no split.
        settings: fractions and seed.
    """
    counts = np.bincount(code, minlength=len(names))
    used = np.flatnonzero(counts)
    out = np.full(len(names), -1, np.int8)
    out[used] = assign([names[number] for number in used.tolist()], counts[used].tolist(), settings)
    return np.asarray(out[code])


def foremost(chip: NDArray[np.integer], splits: Codes, chips: int) -> Codes:
    """The split of each chip: the foremost of its photos', test before validation before training, (chips,)."""
    out = np.full(chips, -1, np.int8)
    np.maximum.at(out, chip, splits)
    return out


def block_numbers(lon: Floats, lat: Floats, block_m: float) -> tuple[Ints, Ints]:
    """Row and column of the blocks that points lie in, (N,) each.

    Blocks are rows of equal height from the equator, each cut into columns about as wide as it is high, the same
    all over the globe and free of zones.
    """
    step = np.degrees(block_m / _EARTH_M)
    row = np.floor(lat / step)
    around = 2 * np.pi * _EARTH_M * np.cos(np.radians((row + 0.5) * step))
    columns = np.maximum(1, np.floor(around / block_m))
    column = np.minimum(np.floor((lon % 360) / 360 * columns), columns - 1)
    return row.astype(np.int64), column.astype(np.int64)


def blocks(lon: Floats, lat: Floats, block_m: float) -> Ints:
    """One number for the block that each point lies in, (N,)."""
    return _joined(*block_numbers(lon, lat, block_m))


def _joined(rows: Ints, columns: Ints) -> Ints:
    """Two numbers as one."""
    return rows * (1 << 32) + columns


# --- what would leak --------------------------------------------------------------------------------------


def near_other_split(chips: pd.DataFrame, outline: Floats, split: Codes, buffer_m: float) -> NDArray[np.bool_]:
    """Chips to drop so that no two of different splits are nearer than the buffer, (N,).

    Validation gives way to test, training to both.

    Args:
        chips: epsg, left, top, gsd, size.
        outline: their corners in degrees, (N, 4, 2).
        split: of each chip, (N,).
        buffer_m: metres.
    """
    points = _on_sphere(outline.mean(axis=1))
    extent = float((chips["gsd"] * chips["size"]).max()) if len(chips) else 0.0
    reach, margin = 1.5 * (extent + buffer_m), buffer_m + bend(extent + 2 * buffer_m)
    drop = np.zeros(len(chips), np.bool_)
    for level in (1, 0):
        mine, others = np.flatnonzero(split == level), np.flatnonzero((split > level) & ~drop)
        mine = mine[_within(points[mine], points[others], reach)]
        others = others[_within(points[others], points[mine], reach)]
        shapes, _ = mirrored(shapely.polygons(outline[others]))
        wide = shapely.polygons(corners(chips.iloc[mine], margin))
        hit, _ = shapely.STRtree(shapes).query(wide, predicate="intersects")
        drop[mine[hit]] = True
    return drop


def _within(points: Floats, others: Floats, reach: float) -> NDArray[np.bool_]:
    """Which points have one of others within reach, (N,)."""
    if not len(points) or not len(others):
        return np.zeros(len(points), np.bool_)
    distance, _ = cKDTree(others).query(points, distance_upper_bound=reach, workers=-1)
    return np.asarray(np.isfinite(distance))


def _on_sphere(lonlat: Floats) -> Floats:
    """Points on a sphere of the Earth's size, metres, (N, 3)."""
    lon, lat = np.radians(lonlat[:, 0]), np.radians(lonlat[:, 1])
    return _EARTH_M * np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], 1)


def shared_minutes(user: Hashes, taken: Ints, split: Codes) -> NDArray[np.bool_]:
    """Pairs whose photo was taken by a user in a minute of which other splits have photos too, (P,).

    Args:
        user: a hash of the user, 0 where unknown, (P,).
        taken: microseconds, `times.NEVER` where unknown, (P,).
        split: of the pair's chip, (P,).
    """
    out = np.zeros(len(user), np.bool_)
    known = np.flatnonzero((user != 0) & (taken != NEVER))
    minute = np.floor_divide(taken[known], _MINUTE).astype(np.uint64)
    keys = mix(user[known], minute)
    order = np.argsort(keys, kind="stable")
    keys, splits = keys[order], split[known[order]]
    if not len(keys):
        return out
    starts = np.flatnonzero(np.append(True, keys[1:] != keys[:-1]))
    mixed = np.minimum.reduceat(splits, starts) != np.maximum.reduceat(splits, starts)
    out[known[order[np.repeat(mixed, np.diff(np.append(starts, len(keys))))]]] = True
    return out


def count_by_split(splits: Codes) -> dict[str, int]:
    """How many chips each split holds, zeros included."""
    return {name: int((splits == number).sum()) for number, name in enumerate(SPLITS)}


def check_fractions(fractions: Sequence[float]) -> tuple[float, float, float]:
    """Three fractions.

    Raises:
        BadSetting: there are not three.
    """
    if len(fractions) != len(SPLITS):
        raise BadSetting(f"Give three fractions, for train, validation and test, not {tuple(fractions)}.")
    train, validation, test = fractions
    return float(train), float(validation), float(test)
