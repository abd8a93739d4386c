"""Chips and pairs on the way to a plan: numbers only, so that 15 million pairs cost some 300 megabytes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from geograft.hashing import hash_ids
from geograft.pairs.grid import Floats, Grid
from geograft.pairs.planning.arrays import load_arrays
from geograft.pairs.planning.covering import LEFT_OUT, result_path, stacks_of
from geograft.pairs.planning.split import blocks
from geograft.pairs.planning.stacks import Stacks
from geograft.pairs.settings import Tally
from geograft.pairs.times import DAY, NEVER

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Draft:
    """Chips, their photos and their scenes.

    Attributes:
        chips: epsg, x, y (grid position), bin, and split once it is known; a row a chip.
        outline: corners in degrees, (N, 4, 2).
        pairs: chip (row), photo (number), col, row; sorted by chip, then photo.
        stacks: the chips' scenes.
        photos: number of all photos.
    """

    chips: pd.DataFrame
    outline: Floats
    pairs: pd.DataFrame
    stacks: Stacks
    photos: int

    @property
    def centre(self) -> tuple[Floats, Floats]:
        """Longitude and latitude of the chips' middles, (N,) each; longitudes may run beyond 180."""
        middle = self.outline.mean(axis=1)
        return middle[:, 0], middle[:, 1]

    @property
    def paired(self) -> Bools:
        """Whether each photo lies in a chip, (photos,)."""
        found = np.zeros(self.photos, np.bool_)
        found[self.pairs["photo"].to_numpy()] = True
        return found

    def names(self, grid: Grid, bin_days: float | None) -> pa.Array:
        """The chips' ids: where they are, and with bins of time the day on which theirs begins; Arrow strings."""
        names = grid.names(*(self.chips[name].to_numpy() for name in ("epsg", "x", "y")))
        if bin_days is None:
            return names
        number, starts = np.unique(self.chips["bin"].to_numpy(np.int64), return_inverse=True)
        days = pa.array([_day(one, bin_days) for one in number.tolist()], pa.string())
        return pc.binary_join_element_wise(names, days.take(pa.array(starts)), "@")


def _day(number: int, bin_days: float) -> str:
    """The day on which a bin begins, such as 20240601."""
    if number == NEVER:
        return "undated"
    return str(np.datetime64(number * int(bin_days * DAY), "us").astype("datetime64[D]")).replace("-", "")


class Sieve:
    """A draft that loses chips and pairs step by step, with what each step cost; it is copied once, at the end."""

    def __init__(self, draft: Draft, tally: Tally) -> None:
        self.draft = draft
        self.tally = tally
        self.chips = np.ones(len(draft.chips), np.bool_)
        self.pairs = np.ones(len(draft.pairs), np.bool_)
        self._chip, self._photo = draft.pairs["chip"].to_numpy(), draft.pairs["photo"].to_numpy()

    def keep_chips(self, keep: Bools, reason: str) -> None:
        """Keep some of all chips; others are counted under a reason, and so are photos that lie in none any more."""
        if not keep[self.chips].all():
            self._lose(self.pairs & keep[self._chip], self.chips & keep, reason)

    def keep_pairs(self, keep: Bools, reason: str) -> None:
        """Keep some of all pairs, and the chips that still own one."""
        if keep[self.pairs].all():
            return
        pairs = self.pairs & keep
        owned = np.zeros(len(self.chips), np.bool_)
        owned[self._chip[pairs]] = True
        self._lose(pairs, self.chips & owned, reason)

    def _lose(self, pairs: Bools, chips: Bools, reason: str) -> None:
        """Take over fewer chips and pairs, and count."""
        before, after = self._paired(self.pairs), self._paired(pairs)
        self.tally.chips[reason] += int(self.chips.sum() - chips.sum())
        self.tally.photos[reason] += int((before & ~after).sum())
        self.chips, self.pairs = chips, pairs

    def _paired(self, pairs: Bools) -> Bools:
        """Whether each photo lies in a chip."""
        found = np.zeros(self.draft.photos, np.bool_)
        found[self._photo[pairs]] = True
        return found

    def result(self) -> Draft:
        """What is left."""
        if self.chips.all() and self.pairs.all():
            return self.draft
        number = np.cumsum(self.chips, dtype=np.int32) - np.int32(1)
        kept = {name: column.to_numpy()[self.pairs] for name, column in self.draft.pairs.items()}
        kept["chip"] = number[kept["chip"]]
        rows = np.flatnonzero(self.chips)
        table = self.draft.chips.take(rows).reset_index(drop=True)
        stacks = self.draft.stacks.take(rows)
        return Draft(table, self.draft.outline[rows], pd.DataFrame(kept), stacks, self.draft.photos)


def gather(folder: Path, zones: Sequence[int], photos: int, tally: Tally) -> Draft:
    """The results of all zones as one draft; photos that no chip covers are counted by reason.

    Args:
        folder: holds the results.
        zones: EPSG codes, in the order that chips are to have.
        photos: number of all photos.
        tally: gains the counts.
    """
    covered = np.zeros(photos, np.bool_)
    why = np.full(photos, 255, np.uint8)
    paths = [result_path(folder, zone) for zone in zones]
    sizes = np.array([_sizes(path) for path in paths], np.int64).reshape(-1, 3)
    ends = np.cumsum(sizes, axis=0)
    found = {name: np.empty((ends[-1, kind], *shape), dtype) for name, (kind, dtype, shape) in _COLUMNS.items()}
    more: dict[int, tuple[int, ...]] = {}
    for path, zone, start, end in zip(paths, zones, (ends - sizes).tolist(), ends.tolist(), strict=True):
        with load_arrays(path) as file:
            covered[file["covered"]] = True
            why[file["rest"]] = file["why"]
            _fill(found, file, start, end)
            more |= {row + start[_STACK]: scenes for row, scenes in stacks_of(file).more.items()}
        found["epsg"][start[_CHIP] : end[_CHIP]] = zone
    for number, reason in enumerate(LEFT_OUT):
        tally.photos[reason] += int((~covered & (why == number)).sum())
    draft = Draft(
        chips=pd.DataFrame({name: found[name] for name in ("epsg", "x", "y", "bin")}),
        outline=found["outline"],
        pairs=pd.DataFrame({name: found[name] for name in ("chip", "photo", "col", "row")}),
        stacks=Stacks(found["stack_chip"], found["stack_gap"], found["stack_lead"], more),
        photos=photos,
    )
    tally.photos["not-drawn"] += int((covered & ~draft.paired).sum())
    return draft


_CHIP, _PAIR, _STACK = range(3)
_COLUMNS: dict[str, tuple[int, Any, tuple[int, ...]]] = {
    "epsg": (_CHIP, np.int32, ()),
    "x": (_CHIP, np.int32, ()),
    "y": (_CHIP, np.int32, ()),
    "bin": (_CHIP, np.int64, ()),
    "outline": (_CHIP, np.float64, (4, 2)),
    "chip": (_PAIR, np.int32, ()),
    "photo": (_PAIR, np.int32, ()),
    "col": (_PAIR, np.float32, ()),
    "row": (_PAIR, np.float32, ()),
    "stack_chip": (_STACK, np.int32, ()),
    "stack_gap": (_STACK, np.float32, ()),
    "stack_lead": (_STACK, np.int32, ()),
}
"""What each column has a row for, its type, and the shape of a row."""


def _sizes(path: Path) -> tuple[int, int, int]:
    """The number of chips, pairs and stacks of a zone."""
    with load_arrays(path) as file:
        return len(file["x"]), len(file["chip"]), len(file["stack_chip"])


def _fill(found: dict[str, Any], file: Any, start: Sequence[int], end: Sequence[int]) -> None:
    """Copy a zone's columns to their places; chips are counted from the zone's first."""
    for name, (kind, _, _) in _COLUMNS.items():
        if name != "epsg":
            shift = start[_CHIP] if name in {"chip", "stack_chip"} else 0
            found[name][start[kind] : end[kind]] = file[name] + shift if shift else file[name]


def density_cap(draft: Draft, ids: pa.Array, limit: int, side_km: float, seed: int) -> Bools:
    """Which chips stay where each square of ground may keep so many, by a fair draw, (N,).

    Args:
        draft: the chips.
        ids: their names, which decide the draw.
        limit: chips a square.
        side_km: side of a square.
        seed: of the draw.
    """
    square = pd.factorize(blocks(*draft.centre, side_km * 1000))[0]
    order = np.lexsort((hash_ids(ids, f"density {seed}"), square))
    rank = np.arange(len(order)) - np.searchsorted(square[order], square[order])
    keep = np.zeros(len(order), np.bool_)
    keep[order[rank < limit]] = True
    return keep


def counts_by_zone(results: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    """Photos and chips of each zone, for the manifest."""
    return {str(found["zone"]): {"photos": found["photos"], "chips": found["chips"]} for found in results}
