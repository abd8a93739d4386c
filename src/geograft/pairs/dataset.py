"""Pairs in memory, and batches of them: what training reads."""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
from numpy.typing import NDArray

from geograft.errors import BadSetting, EmptySplit, UnreadableTable
from geograft.pairs.cutting.shards import read_pixels, shard_paths
from geograft.pairs.embeddings import embeddings_path, read_embeddings
from geograft.pairs.streams import Chip, iter_chips, torchgeo_sample
from geograft.sensors import Sensor, get_sensor
from geograft.tables import read_table

__all__ = ["Batch", "Chip", "PairSet", "iter_chips", "load_pairs", "torchgeo_sample"]

Ints = NDArray[np.int64]

_TOUCH = 1e-3
"""Chips that share less than this part of their area do not overlap."""


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
        chips: native values of the sensor, (N, C, S, S).
        owner: for each pair the row of its chip, (P,), ascending.
        positions: row and column of each photo in its chip, pixels from the top left corner, (P, 2) float32.
        photo_ids: (P,); a photo that lies in several chips occurs several times.
        embeddings: the teacher's, (P, D) float16 unit vectors, or None.
        accuracy: stated geotag error in metres, NaN where unknown, (P,) float32.
        sensor: what the bands mean.
        gsd: metres a pixel.
        table: the chip table's rows (chip_id, epsg, left, top, gsd, size, scene_id, split, ..., geometry).
    """

    chip_ids: NDArray[np.object_]
    chips: NDArray[Any]
    owner: Ints
    positions: NDArray[np.float32]
    photo_ids: NDArray[np.object_]
    embeddings: NDArray[np.float16] | None
    accuracy: NDArray[np.float32]
    sensor: Sensor
    gsd: float
    table: gpd.GeoDataFrame

    def __len__(self) -> int:
        """The number of chips."""
        return len(self.chip_ids)

    def batches(self, size: int, *, seed: int, epoch: int) -> Iterator[Batch]:
        """Batches of chips with their photos, each chip once.

        Two chips that overlap on the ground show the same things, and would be taken for negatives of each
        other: they go into different batches wherever there is room.

        Args:
            size: chips a batch; the batches of an epoch differ by one chip at most.
            seed: of the shuffle.
            epoch: each epoch has its own order.

        Raises:
            BadSetting: the size is below 1.
        """
        if size < 1:
            raise BadSetting(f"A batch holds at least one chip, not {size}.")
        order = np.random.default_rng([seed, epoch]).permutation(len(self))
        for chips in _spread(order, self.overlaps, size):
            yield self.batch(chips)

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
            chips=self.chips[batch.chips],
            owner=batch.owner,
            positions=batch.positions,
            photo_ids=self.photo_ids[rows],
            embeddings=None if self.embeddings is None else self.embeddings[rows],
            accuracy=self.accuracy[rows],
            table=self.table.iloc[batch.chips].reset_index(drop=True),
        )

    @cached_property
    def overlaps(self) -> list[Ints]:
        """For each chip the rows of the chips whose footprints overlap its own."""
        shapes = np.asarray(self.table.geometry.array)
        left, right = shapely.STRtree(shapes).query(shapes, predicate="intersects")
        differ = left != right
        left, right = left[differ], right[differ]
        shared = shapely.area(shapely.intersection(shapes[left], shapes[right]))
        real = shared > _TOUCH * shapely.area(shapes[left])
        left, right = left[real], right[real]
        order = np.lexsort((right, left))
        stops = np.searchsorted(left[order], np.arange(1, len(self)))
        return list(np.split(right[order].astype(np.int64), stops)) if len(self) else []

    @cached_property
    def _starts(self) -> Ints:
        """The first pair of each chip, and the number of pairs at the end, (N + 1,)."""
        return np.searchsorted(self.owner, np.arange(len(self) + 1)).astype(np.int64)


def _spread(order: Ints, overlaps: list[Ints], size: int) -> list[Ints]:
    """Chips dealt in order, each to the emptiest batch without a chip that it overlaps.

    A chip that overlaps with one of every batch that has room goes to the emptiest.
    """
    count = -(-len(order) // size)
    batches: list[list[int]] = [[] for _ in range(count)]
    batch_of: dict[int, int] = {}
    room = [len(order) // count + (number < len(order) % count) for number in range(count)]
    heap = [(-room[number], number) for number in range(count)]
    heapq.heapify(heap)
    for chip in order.tolist():
        taken = {batch_of[other] for other in overlaps[chip].tolist() if other in batch_of}
        number = _emptiest(heap, taken)
        batches[number].append(chip)
        batch_of[chip] = number
        if len(batches[number]) < room[number]:
            heapq.heappush(heap, (len(batches[number]) - room[number], number))
    return [np.array(batch, np.int64) for batch in batches]


def _emptiest(heap: list[tuple[int, int]], taken: set[int]) -> int:
    """Take the emptiest batch that is not taken off the heap; the emptiest of all where all are."""
    passed = []
    while heap and heap[0][1] in taken:
        passed.append(heapq.heappop(heap))
    if not heap:
        heap.extend(passed)
        heapq.heapify(heap)
        return heapq.heappop(heap)[1]
    _, number = heapq.heappop(heap)
    for item in passed:
        heapq.heappush(heap, item)
    return number


def load_pairs(folder: Path, *, split: str | None = None, teacher: str | None = None) -> PairSet:
    """Pairs of a folder.

    Args:
        folder: what `materialise` wrote.
        split: "train", "validation" or "test"; all where None.
        teacher: the fingerprint of the teacher whose embeddings are wanted; photos that it could not read are
            left out, and chips without any other.

    Returns:
        The pairs, sorted by chip_id, then photo_id.

    Raises:
        MissingInput: the folder holds no pairs, or no embeddings of that teacher.
        EmptySplit: the split holds no chips.
        UnreadableTable: a shard is damaged or absent.
    """
    folder = Path(folder)
    chips = read_table(folder / "chips.parquet")
    pairs = read_table(folder / "pairs.parquet", ["chip_id", "photo_id", "col", "row", "accuracy_m"])
    if split is not None:
        chips = chips[chips["split"] == split]
    pairs = pairs[pairs["chip_id"].isin(chips["chip_id"])]
    embeddings = None
    if teacher is not None:
        pairs, embeddings = _with_embeddings(pairs, embeddings_path(folder, teacher))
        chips = chips[chips["chip_id"].isin(pairs["chip_id"])]
    if chips.empty:
        raise EmptySplit(f"The split {split} of {folder} holds no chips: use more photos or other fractions.")
    return _pair_set(folder, chips.sort_values("chip_id", ignore_index=True), pairs, embeddings)


def _with_embeddings(pairs: pd.DataFrame, path: Path) -> tuple[pd.DataFrame, NDArray[np.float16]]:
    """The pairs whose photo was embedded, with a column `vector`: the row of the matrix given beside."""
    ids, matrix = read_embeddings(path)
    rows = pd.Series(np.arange(len(ids)), ids).reindex(pairs["photo_id"]).to_numpy()
    pairs = pairs.assign(vector=rows)[~np.isnan(rows)]
    return pairs.astype({"vector": np.int64}), matrix


def _pair_set(
    folder: Path, chips: gpd.GeoDataFrame, pairs: pd.DataFrame, embeddings: NDArray[np.float16] | None
) -> PairSet:
    """Put tables and pixels together."""
    rows = pd.Series(np.arange(len(chips)), chips["chip_id"])
    pairs = pairs.assign(owner=rows.loc[pairs["chip_id"]].to_numpy())
    pairs = pairs.sort_values(["owner", "photo_id"], ignore_index=True)
    return PairSet(
        chip_ids=chips["chip_id"].to_numpy(object),
        chips=_pixels(folder, rows),
        owner=pairs["owner"].to_numpy(np.int64),
        positions=pairs[["row", "col"]].to_numpy(np.float32),
        photo_ids=pairs["photo_id"].to_numpy(object),
        embeddings=None if embeddings is None else embeddings[pairs["vector"].to_numpy()],
        accuracy=pairs["accuracy_m"].to_numpy(np.float32),
        sensor=get_sensor(chips["sensor"].iloc[0]),
        gsd=float(chips["gsd"].iloc[0]),
        table=chips,
    )


def _pixels(folder: Path, rows: pd.Series) -> NDArray[Any]:
    """The chips' pixels, (N, C, S, S), in the order of `rows` (chip_id to row)."""
    wanted = frozenset(rows.index)
    out: NDArray[Any] | None = None
    found = 0
    for path in shard_paths(folder):
        ids, pixels = read_pixels(path, wanted)
        if out is None:
            out = np.empty((len(rows), *pixels.shape[1:]), pixels.dtype)
        if ids:
            out[rows.loc[ids].to_numpy()] = pixels
        found += len(ids)
    if out is None or found != len(rows):
        raise UnreadableTable(f"{folder} lacks the pixels of {len(rows) - found} chips: materialise again.")
    return out
