"""Training, validation and test by place: whole blocks or whole walks, never neighbours on both sides.

A split by place takes two steps. Chips are assigned, by the block of the ground that they lie in or by the
`place` of their photos. Then whatever would leak is dropped: in a chip that mixes places the photos of other
splits, chips whose footprint comes nearer than the buffer to one of another split, and photos of a user's minute
that spans splits. Test chips stay before validation chips, and those before training chips, so that the
evaluation sets keep their size.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import shapely
from numpy.typing import NDArray

from geograft.errors import BadSetting
from geograft.pairs.filters import minutes
from geograft.pairs.grid import Floats, corners, hash_ids

SPLITS = ("train", "validation", "test")

_EARTH_M = 6_371_008.8
_RANK = {name: rank for rank, name in enumerate(SPLITS)}


@dataclass(frozen=True)
class SplitSettings:
    """How chips are divided.

    Attributes:
        by: "blocks" of ground, "place" (the photo table's column), or None for training alone.
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
        if self.by not in {"blocks", "place", None}:
            raise BadSetting(f"A split is by blocks, by place, or none, not {self.by!r}.")
        if min(self.fractions) < 0 or abs(sum(self.fractions) - 1) > 1e-6:
            raise BadSetting(f"The fractions of train, validation and test must sum to 1, not {self.fractions}.")
        if self.block_m <= 0 or self.buffer_m < 0:
            raise BadSetting(
                f"block_m must be above 0 and buffer_m 0 or more, not {self.block_m:g} and {self.buffer_m:g}."
            )


@dataclass(frozen=True)
class Division:
    """Chips with their split, and what was dropped to keep the splits apart.

    Attributes:
        chips: the chips kept, with the column `split`.
        pairs: their pairs.
        dropped: chips dropped, by reason.
        lost: photos that lie in no chip any more, by reason.
    """

    chips: pd.DataFrame
    pairs: pd.DataFrame
    dropped: Mapping[str, int]
    lost: Mapping[str, int]


def divide(chips: pd.DataFrame, pairs: pd.DataFrame, photos: pd.DataFrame, settings: SplitSettings) -> Division:
    """Assign every chip to train, validation or test, and drop what would leak.

    Args:
        chips: chip_id, epsg, left, top, gsd, size.
        pairs: chip_id, photo (row of `photos`).
        photos: user and taken, and place where the split is by place.
        settings: how.
    """
    if settings.by is None:
        return Division(chips.assign(split="train"), pairs, {}, {})
    if settings.by == "place":
        splits = _assign(pd.Series(photos["place"].to_numpy(object)[pairs["photo"]]), settings)
        chips = chips.assign(split=_foremost(chips, pairs, splits))
    else:
        chips = chips.assign(split=_by_block(chips, settings))
    steps = _Steps(chips, pairs)
    if settings.by == "place":
        own = chips.set_index("chip_id")["split"].reindex(pairs["chip_id"]).to_numpy(object)
        steps.keep_pairs(splits.to_numpy(object) == own, "mixed-places")
    steps.keep_chips(~near_other_split(steps.chips, settings.buffer_m), "split-buffer")
    steps.keep_pairs(~_shared_minutes(steps.chips, steps.pairs, photos), "user-minute-across-splits")
    return Division(steps.chips, steps.pairs, steps.dropped, steps.lost)


class _Steps:
    """Chips and pairs on their way through the steps, and what each step cost."""

    def __init__(self, chips: pd.DataFrame, pairs: pd.DataFrame) -> None:
        self.chips = chips
        self.pairs = pairs
        self.dropped: dict[str, int] = {}
        self.lost: dict[str, int] = {}

    def keep_chips(self, keep: pd.Series | NDArray[np.bool_], reason: str) -> None:
        """Keep some chips, and the pairs of those."""
        kept = self.chips[np.asarray(keep)].reset_index(drop=True)
        pairs = self.pairs[self.pairs["chip_id"].isin(kept["chip_id"])].reset_index(drop=True)
        self._replace(kept, pairs, reason)

    def keep_pairs(self, keep: NDArray[np.bool_], reason: str) -> None:
        """Keep some pairs, and the chips that still own one."""
        pairs = self.pairs[keep].reset_index(drop=True)
        chips = self.chips[self.chips["chip_id"].isin(pairs["chip_id"])].reset_index(drop=True)
        self._replace(chips, pairs, reason)

    def _replace(self, chips: pd.DataFrame, pairs: pd.DataFrame, reason: str) -> None:
        """Take over the tables and count."""
        if fewer := len(self.chips) - len(chips):
            self.dropped[reason] = fewer
        if fewer := self.pairs["photo"].nunique() - pairs["photo"].nunique():
            self.lost[reason] = fewer
        self.chips, self.pairs = chips, pairs


# --- assignment -------------------------------------------------------------------------------------------


def _by_block(chips: pd.DataFrame, settings: SplitSettings) -> Any:
    """The split of each chip, by the block that its centre lies in."""
    centre = corners(chips).mean(axis=1)
    names = blocks(centre[:, 0], centre[:, 1], settings.block_m)
    return _assign(pd.Series(names, index=chips.index), settings)


def _foremost(chips: pd.DataFrame, pairs: pd.DataFrame, splits: pd.Series) -> Any:
    """The split of each chip: the foremost of its photos', test before validation before training; None without."""
    ranks = splits.map(_RANK).groupby(pairs["chip_id"].to_numpy(object)).max()
    return ranks.map(dict(enumerate(SPLITS))).reindex(chips["chip_id"]).to_numpy(object)


def _assign(names: pd.Series, settings: SplitSettings) -> pd.Series:
    """The split of each row, by its name; rows without a name have none.

    Names are visited in a pseudo-random order; each goes to the split that is furthest below its share.
    """
    counts = names.value_counts()
    keys = counts.index.to_numpy(object)
    order = np.lexsort((keys.astype(str), hash_ids(keys, f"split {settings.seed}")))
    filled = np.zeros(len(SPLITS))
    wanted = np.asarray(settings.fractions)
    chosen = {}
    for key, count in zip(keys[order], counts.to_numpy()[order], strict=True):
        lacking = np.where(wanted > 0, wanted * (filled.sum() + count) - filled, -np.inf)
        split = int(np.argmax(lacking))
        filled[split] += count
        chosen[key] = SPLITS[split]
    return names.map(chosen)


def blocks(lon: Floats, lat: Floats, block_m: float) -> NDArray[np.object_]:
    """The names of the blocks that points lie in, (N,).

    Blocks are rows of equal height from the equator, each cut into columns about as wide as it is high, the same
    all over the globe and free of zones.
    """
    step = np.degrees(block_m / _EARTH_M)
    row = np.floor(lat / step)
    around = 2 * np.pi * _EARTH_M * np.cos(np.radians((row + 0.5) * step))
    columns = np.maximum(1, np.floor(around / block_m))
    column = np.floor((lon % 360) / 360 * columns)
    pairs = zip(row.astype(np.int64).tolist(), column.astype(np.int64).tolist(), strict=True)
    return np.array([f"{r}/{c}" for r, c in pairs], dtype=object)


# --- what would leak --------------------------------------------------------------------------------------


def near_other_split(chips: pd.DataFrame, buffer_m: float) -> NDArray[np.bool_]:
    """Chips to drop so that no two of different splits are nearer than the buffer, (N,).

    Validation gives way to test, training to both.
    """
    rank = chips["split"].map(_RANK).to_numpy(np.int64)
    shapes = shapely.polygons(corners(chips))
    wide = shapely.polygons(corners(chips, buffer_m))
    drop = np.zeros(len(chips), np.bool_)
    for level in (1, 0):
        mine = np.flatnonzero(rank == level)
        others = np.flatnonzero((rank > level) & ~drop)
        hit, _ = shapely.STRtree(shapes[others]).query(wide[mine], predicate="intersects")
        drop[mine[hit]] = True
    return drop


def _shared_minutes(chips: pd.DataFrame, pairs: pd.DataFrame, photos: pd.DataFrame) -> NDArray[np.bool_]:
    """Pairs whose photo was taken by a user in a minute of which other splits have photos too, (P,)."""
    table = minute_table(chips, pairs, photos)
    splits = table.groupby(["user", "minute"])["split"].transform("nunique")
    return np.asarray(splits.reindex(range(len(pairs))).fillna(1) > 1)


def minute_table(chips: pd.DataFrame, pairs: pd.DataFrame, photos: pd.DataFrame) -> pd.DataFrame:
    """user, minute and split of every pair whose photo states user and time; the index is the pair's row."""
    row = pairs["photo"].to_numpy()
    split = chips.set_index("chip_id")["split"].reindex(pairs["chip_id"]).to_numpy(object)
    table = pd.DataFrame(
        {
            "user": photos["user"].to_numpy(object)[row],
            "minute": minutes(photos).to_numpy()[row],
            "split": split,
        }
    )
    return table.dropna(subset=["user", "minute"])


def count_by_split(chips: pd.DataFrame) -> dict[str, int]:
    """How many chips each split holds, zeros included."""
    found = chips["split"].value_counts()
    return {name: int(found.get(name, 0)) for name in SPLITS}


def check_fractions(fractions: Sequence[float]) -> tuple[float, float, float]:
    """Three fractions.

    Raises:
        BadSetting: there are not three.
    """
    if len(fractions) != len(SPLITS):
        raise BadSetting(f"Give three fractions, for train, validation and test, not {tuple(fractions)}.")
    train, validation, test = fractions
    return float(train), float(validation), float(test)
