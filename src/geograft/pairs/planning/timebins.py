"""Chips of one place at several times, without ever repeating pixels.

The photos of a chip are divided into bins of time, and each bin becomes a chip of its own where another scene is
nearer to it. Bins that would be cut of the same scenes stay one chip: the same pixels twice in a batch would be taken
for negatives of each other, and one of them might leak into the test set.
"""

from dataclasses import dataclass

import numpy as np

from geograft.pairs.grid import Ints
from geograft.pairs.planning.cover import Bools, Cover
from geograft.pairs.times import DAY, NEVER


@dataclass(frozen=True)
class Binned:
    """A cover whose chips have times.

    Attributes:
        cover: chips of a place follow each other, by bin.
        bin: the bin of each chip: days since 1970 by the length of a bin; `times.NEVER` for photos without a time.
    """

    cover: Cover
    bin: Ints


def divide(cover: Cover, taken: Ints, bin_days: float) -> Binned:
    """Divide each chip's photos by time; those without a time join the fullest bin of their chip.

    Args:
        cover: chips and their photos.
        taken: the time of every photo of the zone, (N,).
        bin_days: length of a bin.
    """
    times = taken[cover.photo]
    known = times != NEVER
    number = np.where(known, np.floor_divide(times, int(bin_days * DAY)), NEVER)
    number = np.where(known, number, _fullest(cover.chip, number, known, len(cover.centre))[cover.chip])
    return _regrouped(cover, cover.chip, number)


def _fullest(chip: Ints, number: Ints, known: Bools, chips: int) -> Ints:
    """Each chip's bin of most photos, the earliest of equals; `NEVER` where no photo has a time, (chips,)."""
    pairs, counts = np.unique(np.stack([chip[known], number[known]]), axis=1, return_counts=True)
    out = np.full(chips, NEVER, np.int64)
    order = np.lexsort((pairs[1], -counts, pairs[0]))
    first = np.unique(pairs[0][order], return_index=True)[1]
    out[pairs[0][order[first]]] = pairs[1][order[first]]
    return out


def _regrouped(cover: Cover, place: Ints, number: Ints) -> Binned:
    """A cover with one chip for each (place, bin)."""
    keys, chip = np.unique(np.stack([place, number]), axis=1, return_inverse=True)
    chip = chip.reshape(-1)
    order = np.lexsort((cover.photo, chip))
    return Binned(Cover(cover.centre[keys[0]], chip[order], cover.photo[order]), keys[1])


def merge(binned: Binned, best: Ints) -> tuple[Binned, Ints]:
    """Put together the bins of a place that would be cut of the same scenes.

    Args:
        binned: chips by place and bin.
        best: a number of each chip's best stack (see `Stacks.best`); chips without any, -1, are left apart.

    Returns:
        The merged chips, each under its earliest bin, and for each of them the old chip whose stacks it keeps.
    """
    cover = binned.cover
    keys = np.stack([cover.centre, np.where(best < 0, -1 - np.arange(len(best)), best)])
    _, first, same = np.unique(keys, axis=1, return_index=True, return_inverse=True)
    keeper = first[same.reshape(-1)]
    kept = np.unique(keeper)
    chip = np.searchsorted(kept, keeper[cover.chip])
    order = np.lexsort((cover.photo, chip))
    return Binned(Cover(cover.centre[kept], chip[order], cover.photo[order]), binned.bin[kept]), kept
