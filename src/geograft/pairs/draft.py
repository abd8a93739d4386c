"""Chips and pairs on the way to a plan: numbers only, so that 15 million pairs cost some 300 megabytes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from geograft.pairs.arrays import load_arrays
from geograft.pairs.covering import LEFT_OUT, result_path, stacks_of
from geograft.pairs.grid import Floats, Grid, Ints
from geograft.pairs.hashing import hash_ids
from geograft.pairs.settings import Tally
from geograft.pairs.split import blocks
from geograft.pairs.stacks import Stacks
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

    def take(self, chips: Ints) -> "Draft":
        """Some chips with their pairs, renumbered in the order given."""
        chip = self.pairs["chip"].to_numpy()
        starts, stops = np.searchsorted(chip, chips), np.searchsorted(chip, chips, side="right")
        counts = stops - starts
        rows = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts - starts, counts)
        pairs = self.pairs.take(rows).reset_index(drop=True)
        pairs["chip"] = np.repeat(np.arange(len(chips), dtype=np.int32), counts)
        table = self.chips.take(chips).reset_index(drop=True)
        return replace(self, chips=table, outline=self.outline[chips], pairs=pairs, stacks=self.stacks.take(chips))

    def keep_pairs(self, keep: Bools) -> "Draft":
        """Some pairs, and the chips that still own one."""
        kept = replace(self, pairs=self.pairs[keep])
        return kept.take(np.unique(kept.pairs["chip"].to_numpy()).astype(np.int64))

    def names(self, grid: Grid, bin_days: float | None) -> list[str]:
        """The chips' ids: where they are, and with bins of time the day on which theirs begins."""
        names = grid.names(*(self.chips[name].to_numpy(np.int64) for name in ("epsg", "x", "y")))
        if bin_days is None:
            return names
        starts = self.chips["bin"].to_numpy(np.int64)
        days = [_day(start, bin_days) for start in starts.tolist()]
        return [f"{name}@{day}" for name, day in zip(names, days, strict=True)]


def _day(number: int, bin_days: float) -> str:
    """The day on which a bin begins, such as 20240601."""
    if number == NEVER:
        return "undated"
    return f"{pd.Timestamp(number * int(bin_days * DAY), unit='us'):%Y%m%d}"


@dataclass
class Sieve:
    """A draft that loses chips and pairs, with what each loss cost."""

    draft: Draft
    tally: Tally
    lost: dict[str, int] = field(default_factory=dict)

    def keep_chips(self, keep: Bools, reason: str) -> None:
        """Keep some chips; the others are counted under a reason, and so are photos that lie in none any more."""
        if not keep.all():
            self._replace(self.draft.take(np.flatnonzero(keep)), reason)

    def keep_pairs(self, keep: Bools, reason: str) -> None:
        """Keep some pairs, and the chips that still own one."""
        if not keep.all():
            self._replace(self.draft.keep_pairs(keep), reason)

    def _replace(self, draft: Draft, reason: str) -> None:
        """Take over a smaller draft and count."""
        self.tally.chips[reason] += len(self.draft.chips) - len(draft.chips)
        self.tally.photos[reason] += int((self.draft.paired & ~draft.paired).sum())
        self.draft = draft


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
    parts = [_load(result_path(folder, zone), zone, covered, why) for zone in zones]
    starts = np.cumsum([0, *(len(part.chips) for part in parts)])[:-1].tolist()
    pairs = pd.concat([_shifted(part.pairs, by) for part, by in zip(parts, starts, strict=True)], ignore_index=True)
    stacks = [replace(part.stacks, chip=part.stacks.chip + by) for part, by in zip(parts, starts, strict=True)]
    for number, reason in enumerate(LEFT_OUT):
        tally.photos[reason] += int((~covered & (why == number)).sum())
    draft = Draft(
        chips=pd.concat([part.chips for part in parts], ignore_index=True),
        outline=np.concatenate([part.outline for part in parts]),
        pairs=pairs,
        stacks=Stacks.joined(stacks),
        photos=photos,
    )
    tally.photos["not-drawn"] += int((covered & ~draft.paired).sum())
    return draft


def _load(path: Path, zone: int, covered: Bools, why: Any) -> Draft:
    """A zone's draft; marks the photos that it covers, and why others are left."""
    with load_arrays(path) as file:
        covered[file["covered"]] = True
        why[file["rest"]] = file["why"]
        chips = {"epsg": np.int32(zone), "x": file["x"], "y": file["y"], "bin": file["bin"]}
        pairs = {name: file[name] for name in ("chip", "photo", "col", "row")}
        return Draft(pd.DataFrame(chips), file["outline"], pd.DataFrame(pairs), stacks_of(file), len(covered))


def _shifted(pairs: pd.DataFrame, by: int) -> pd.DataFrame:
    """Pairs whose chips are counted from another start."""
    return pairs.assign(chip=(pairs["chip"] + by).astype(np.int32))


def density_cap(draft: Draft, ids: Sequence[str], limit: int, side_km: float, seed: int) -> Bools:
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


def in_place_order(draft: Draft, grid: Grid) -> Draft:
    """Chips along a curve that keeps neighbours together (Morton's), zone by zone; the bins of a place by time."""
    x, y = (draft.chips[name].to_numpy(np.int64) for name in ("x", "y"))
    along = _spread_bits(x // grid.size) | (_spread_bits(y // grid.size) << np.uint64(1))
    keys = (draft.chips["bin"].to_numpy(), y, x, along, draft.chips["epsg"].to_numpy())
    return draft.take(np.lexsort(keys))


def _spread_bits(values: Ints) -> NDArray[np.uint64]:
    """The lower 32 bits of numbers with a zero between each."""
    out = (values + (1 << 31)).astype(np.uint64) & np.uint64(0xFFFFFFFF)
    for shift, mask in _SPREAD:
        out = (out | (out << np.uint64(shift))) & np.uint64(mask)
    return out


_SPREAD: Sequence[tuple[int, int]] = (
    (16, 0x0000FFFF0000FFFF),
    (8, 0x00FF00FF00FF00FF),
    (4, 0x0F0F0F0F0F0F0F0F),
    (2, 0x3333333333333333),
    (1, 0x5555555555555555),
)


def counts_by_zone(results: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    """Photos and chips of each zone, for the manifest."""
    return {str(found["zone"]): {"photos": found["photos"], "chips": found["chips"]} for found in results}
