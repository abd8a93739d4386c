"""Several pair sets as one: batches of several sensors or regions, dealt among each other."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from geograft.errors import BadSetting
from geograft.pairs.dataset import Batch, PairSet, load_pairs
from geograft.pairs.windows import pixel_memory


class Mixed(NamedTuple):
    """A batch of one of several sets.

    Attributes:
        set: which.
        batch: rows of that set.
    """

    set: int
    batch: Batch


@dataclass(frozen=True)
class PairMix:
    """Pair sets that train together; a batch comes of one of them.

    Attributes:
        sets: of any sensors, sizes and places.
    """

    sets: tuple[PairSet, ...]

    def __post_init__(self) -> None:
        """Take any sequence, and refuse none."""
        object.__setattr__(self, "sets", tuple(self.sets))
        if not self.sets:
            raise BadSetting("A mix of pairs needs at least one set.")

    def __len__(self) -> int:
        """The number of chips of all sets."""
        return sum(map(len, self.sets))

    def steps(self, size: int) -> int:
        """The number of batches of an epoch."""
        return sum(one.steps(size) for one in self.sets)

    def order(self, size: int, *, seed: int, epoch: int) -> NDArray[np.int64]:
        """The set of each batch of an epoch, in a seeded random order, (K,)."""
        counts = [one.steps(size) for one in self.sets]
        return np.random.default_rng([seed, epoch, len(counts), 2]).permutation(
            np.repeat(np.arange(len(counts)), counts)
        )

    def batches(
        self, size: int, *, seed: int, epoch: int, skip: int = 0, share: tuple[int, int] = (0, 1)
    ) -> Iterator[Mixed]:
        """Batches of all sets, every chip of every set once.

        A set's batches come in the order in which it deals them alone, and sets take turns by `order`; so every
        stretch of an epoch holds of each set about its part.

        Args:
            size: chips a batch.
            seed: of the order and of the sets' shuffles.
            epoch: each epoch has its own order.
            skip: batches to leave out at the beginning; the pixels that only they need are not read.
            share: see `PairSet.batches`.
        """
        order = self.order(size, seed=seed, epoch=epoch)
        done = np.bincount(order[:skip], minlength=len(self.sets)).tolist()
        dealt = [
            one.batches(size, seed=seed, epoch=epoch, skip=gone, share=share)
            for one, gone in zip(self.sets, done, strict=True)
        ]
        for number in order[skip:].tolist():
            yield Mixed(number, next(dealt[number]))

    def pixels(self, mixed: Mixed, rows: Any = None) -> NDArray[Any]:
        """Native values of a batch's chips, or of those in some places of it, (n, C, S, S)."""
        chips = mixed.batch.chips if rows is None else mixed.batch.chips[rows]
        return self.sets[mixed.set].pixels(chips)


def load_mix(
    folders: Sequence[Path | str],
    *,
    memory_gb: float | None = None,
    windows: Sequence[int] | None = None,
    **options: Any,
) -> PairMix:
    """Pairs of several folders; each may fill a part of the memory as large as its part of the pixels.

    Args:
        folders: what `materialise` wrote, one a sensor or region.
        memory_gb: gigabytes that the pixels of all may take; see `load_pairs`.
        windows: of each folder, as another machine may have chosen them.
        options: `split`, `teacher` and `tags` of `load_pairs`, the same for all.

    Raises:
        BadSetting: no folder is named, or `windows` are not one a folder.
        Others: see `load_pairs`.
    """
    if windows is not None and len(windows) != len(folders):
        raise BadSetting(f"{len(folders)} folders need as many windows, not {len(windows)}.")
    sets = [load_pairs(Path(folder), **options) for folder in folders]
    sizes = [one.source.nbytes for one in sets]
    memory = pixel_memory(memory_gb)
    parts = [memory * size // max(1, sum(sizes)) for size in sizes]
    given = list(windows) if windows is not None else [None for _ in sets]
    return PairMix(tuple(map(PairSet.within, sets, parts, given)))
