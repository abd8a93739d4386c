"""Pairs as training reads them: tables in memory, pixels in memory or window by window from the shards, batches."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
from numpy.typing import NDArray

from geograft.errors import BadSetting
from geograft.pairs.blocks import Blocks
from geograft.pairs.dealing import Deal
from geograft.pairs.footprints import Neighbours, Squares, neighbours
from geograft.pairs.gathered import Gathered, Matrix
from geograft.pairs.loading import read_pairs
from geograft.pairs.streams import Chip, iter_chips, torchgeo_sample
from geograft.pairs.windows import ChipPixels, Pixels, pixel_memory
from geograft.sensors import Sensor, get_sensor
from geograft.tables import read_table

__all__ = ["Batch", "Chip", "PairSet", "iter_chips", "load_pairs", "torchgeo_sample"]

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Batch:
    """Some chips with all their photos.

    Attributes:
        chips: rows of the pair set's chips, (n,).
        photos: rows of the pair set's photos, (p,).
        owner: for each of these photos its chip's place in `chips`, (p,), values in [0, n), ascending.
        positions: row and column of each photo in its chip, pixels, (p, 2) float32.
    """

    chips: Ints
    photos: Ints
    owner: Ints
    positions: NDArray[np.float32]


@dataclass(frozen=True)
class PairSet:
    """Chips and their photos.

    Attributes:
        chip_ids: (N,).
        owner: for each pair the row of its chip, (P,), ascending.
        positions: row and column of each photo in its chip, pixels from the top left corner, (P, 2) float32.
        photo_ids: (P,); a photo that lies in several chips occurs several times.
        accuracy: stated geotag error in metres, NaN where unknown, (P,) float32.
        heading: where the camera looked, degrees clockwise from north, NaN where unknown, (P,) float32.
        sensor: what the bands mean.
        gsd: metres a pixel.
        squares: the chips' footprints.
        source: the pixels, wherever they are.
        chip_table: the file of the chip table.
        chip_rows: the chips' rows in it, (N,).
        embeddings: the teacher's, (P, D) float16 unit vectors, or None; memory-mapped where they are many.
        tags: the teacher's embeddings of the photos' tags, (P, D) float16 unit vectors, zeros where a photo has none;
            None where they were not asked for.
        has_tags: whether a photo has tags, (P,); None where they were not asked for.
    """

    chip_ids: NDArray[np.object_]
    owner: Ints
    positions: NDArray[np.float32]
    photo_ids: NDArray[np.object_]
    accuracy: NDArray[np.float32]
    heading: NDArray[np.float32]
    sensor: Sensor
    gsd: float
    squares: Squares
    source: Pixels
    chip_table: Path
    chip_rows: Ints
    embeddings: Matrix | None = None
    tags: Matrix | None = None
    has_tags: NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        """The number of chips."""
        return len(self.chip_ids)

    # --- pixels -------------------------------------------------------------------------------------------

    def pixels(self, rows: Ints) -> NDArray[Any]:
        """Native values of some chips, given by row, (n, C, S, S).

        They come from memory, from the window of the present batch, or else straight from the shards, a block of some
        hundred chips for each that is asked for.

        Raises:
            MissingShard: a shard is gone.
            UnreadableTable: a shard is damaged.
        """
        return self.source.read(np.asarray(rows, np.int64))

    @property
    def chips(self) -> Any:
        """Native values of all chips, (N, C, S, S): an array, or where they do not fit what reads when indexed."""
        return self.source.everything() if self.source.in_memory else ChipPixels(self.source)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Chips, bands, rows and columns; no pixels are read for it."""
        return self.source.shape

    @property
    def windows(self) -> int:
        """Parts of an epoch whose chips are mixed; batches depend on it as they do on the seed."""
        return self.source.windows

    def within(self, memory: int, windows: int | None = None) -> "PairSet":
        """The same pairs with other memory for pixels, in bytes; `windows` follow from it where None."""
        return replace(self, source=Pixels(self.source.blocks, self.source.places, memory, windows))

    # --- batches ------------------------------------------------------------------------------------------

    def steps(self, size: int) -> int:
        """The number of batches of an epoch."""
        return -(-len(self) // size)

    def batches(
        self, size: int, *, seed: int, epoch: int, skip: int = 0, share: tuple[int, int] = (0, 1)
    ) -> Iterator[Batch]:
        """Batches of chips with their photos, each chip once.

        Two chips that overlap on the ground show the same things, and would be taken for negatives of each
        other: they go into different batches wherever there is room.

        Where the pixels do not fit into memory, an epoch is a seeded order of the shards' row groups, divided into
        `windows`. The chips of a window are mixed and dealt; the next window is read meanwhile.

        Args:
            size: chips a batch; the batches of an epoch differ by one chip at most.
            seed: of the shuffle.
            epoch: each epoch has its own order.
            skip: batches to leave out at the beginning; the pixels that only they need are not read.
            share: (rank, world): the part of each batch whose pixels this process will ask for. All processes are
                given the same batches; only these pixels are read ahead.

        Raises:
            BadSetting: the size is below 1, or there is no such share.
            MissingShard: a shard is gone.
            UnreadableTable: a shard is damaged.
        """
        if size < 1:
            raise BadSetting(f"A batch holds at least one chip, not {size}.")
        if not 0 <= share[0] < share[1]:
            raise BadSetting(f"Of {share[1]} processes there is none of the number {share[0]}: count from 0.")
        deal = Deal(self._blocks, self.overlaps, self.windows, size, seed, epoch)
        for chips in self._dealt(deal, skip, share):
            yield self.batch(chips)

    def _dealt(self, deal: Deal, skip: int, share: tuple[int, int]) -> Iterator[Ints]:
        """The chips of each batch."""
        bounds = deal.bounds
        count, first = len(bounds) - 1, int(np.searchsorted(bounds, skip, side="right")) - 1

        def window(number: int) -> list[Ints]:
            return deal.window(number)[max(0, skip - int(bounds[number])) :]

        if self.source.in_memory:
            for number in range(first, count):
                yield from window(number)
        elif first < count:
            for some in self.source.windowed(window, first, count, share):
                yield from some

    def batch(self, chips: Ints) -> Batch:
        """The batch of some chips, given by row."""
        starts, stops = self._starts[chips], self._starts[chips + 1]
        counts = stops - starts
        owner = np.repeat(np.arange(len(chips)), counts)
        first = np.concatenate([[0], np.cumsum(counts)[:-1]])
        photos = np.arange(counts.sum()) - np.repeat(first - starts, counts)
        return Batch(chips, photos, owner, self.positions[photos])

    def select(self, chips: Ints) -> "PairSet":
        """The pairs of some chips, given by row, in that order."""
        batch = self.batch(np.asarray(chips, np.int64))
        rows = batch.photos
        return replace(
            self,
            chip_ids=self.chip_ids[batch.chips],
            owner=batch.owner,
            positions=batch.positions,
            photo_ids=self.photo_ids[rows],
            accuracy=self.accuracy[rows],
            heading=self.heading[rows],
            squares=self.squares.take(batch.chips),
            source=self.source.take(batch.chips),
            chip_rows=self.chip_rows[batch.chips],
            embeddings=_take(self.embeddings, rows),
            tags=_take(self.tags, rows),
            has_tags=None if self.has_tags is None else self.has_tags[rows],
        )

    # --- places -------------------------------------------------------------------------------------------

    @cached_property
    def table(self) -> gpd.GeoDataFrame:
        """The chip table's rows (chip_id, epsg, left, top, gsd, size, scene_id, ..., geometry); read when asked for."""
        return read_table(self.chip_table).iloc[self.chip_rows].reset_index(drop=True)

    @cached_property
    def centres(self) -> NDArray[np.float64]:
        """The chips' middles on the unit sphere, (N, 3); times 6,371,000 m their distances along the ground."""
        return self.squares.centres()

    @cached_property
    def overlaps(self) -> Neighbours:
        """For each chip the rows of the chips whose footprints overlap its own."""
        return neighbours(self.squares)

    @cached_property
    def _blocks(self) -> Ints:
        """The block of the shards that each chip lies in, (N,)."""
        return self.source.blocks.of(self.source.places)

    @cached_property
    def _starts(self) -> Ints:
        """The first pair of each chip, and the number of pairs at the end, (N + 1,)."""
        return np.searchsorted(self.owner, np.arange(len(self) + 1)).astype(np.int64)


def _take(matrix: Matrix | None, rows: Ints) -> Matrix | None:
    """Some rows of vectors, which stay where they are if they are memory-mapped."""
    if matrix is None:
        return None
    return matrix.take(rows) if isinstance(matrix, Gathered) else matrix[rows]


def load_pairs(
    folder: Path,
    *,
    split: str | None = None,
    teacher: str | None = None,
    tags: bool = False,
    memory_gb: float | None = None,
    windows: int | None = None,
) -> PairSet:
    """Pairs of a folder: its tables now, its pixels when they are asked for.

    Args:
        folder: what `materialise` wrote.
        split: "train", "validation" or "test"; all where None.
        teacher: the fingerprint of the teacher whose embeddings are wanted; photos that it could not read are
            left out, and chips without any other.
        tags: whether the teacher's embeddings of the photos' tags are wanted too (see `embed_tags`).
        memory_gb: gigabytes that pixels may take; 0.4 of the machine's memory, divided by the training processes on
            it, where None. Pixels that fit are held; others are read window by window, two of which fit.
        windows: parts of an epoch, as another machine may have chosen them (`PairSet.windows`): the batches of an
            epoch depend on them.

    Returns:
        The pairs, sorted by chip_id, then photo_id.

    Raises:
        MissingInput: the folder holds no pairs, or no embeddings of that teacher.
        EmptySplit: the split holds no chips.
        MissingShard: a shard is absent.
        UnreadableTable: a table or a shard is damaged.
        MixedSensors: the chips are of several sensors or sizes.
        BadSetting: a setting is out of its range, or tags are asked for without a teacher.
    """
    budget = pixel_memory(memory_gb)
    found = read_pairs(Path(folder), split=split, teacher=teacher, tags=tags)
    blocks = Blocks.open(Path(folder))
    return PairSet(
        chip_ids=found.chips["chip_id"].to_numpy(object),
        owner=found.column("owner").astype(np.int64),
        positions=found.positions,
        photo_ids=found.column("photo_id").astype(object),
        accuracy=found.column("accuracy_m").astype(np.float32),
        heading=found.column("heading_deg").astype(np.float32),
        sensor=get_sensor(found.chips["sensor"].iloc[0]),
        gsd=float(found.chips["gsd"].iloc[0]),
        squares=found.squares,
        source=Pixels(blocks, blocks.find(found.chips["chip_id"]), budget, windows),
        chip_table=Path(folder) / "chips.parquet",
        chip_rows=found.chips["at"].to_numpy(np.int64),
        embeddings=found.embeddings,
        tags=found.tags,
        has_tags=found.has_tags,
    )
