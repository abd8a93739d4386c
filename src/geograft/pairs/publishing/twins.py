"""Chips of different splits with the same pixels: by the hash of their stored bytes, shard after shard."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from geograft.pairs.cutting.shards import read_pixels
from geograft.pairs.publishing.folder import PairFolder, column, places, stream
from geograft.tables import track

_ROWS = 256
"""Chips whose pixels are held at once."""


@dataclass(frozen=True)
class Twins:
    """Pixel patterns that several splits hold.

    Attributes:
        pictures: patterns of more than one colour.
        blank: patterns of one colour in each band.
    """

    pictures: int
    blank: int


def shared_patterns(tables: PairFolder, split: NDArray[np.uint8]) -> Twins | None:
    """The pixel patterns that chips of several splits have; None where there are no pixels.

    Args:
        tables: the folder.
        split: a number for each chip's split, in the chip table's order.

    Raises:
        UnreadableTable: a shard is damaged.
    """
    if not tables.shards:
        return None
    ids, hashes, shard = _hashes(tables.shards)
    place = places(ids, column(tables.chips, "chip_id"))
    known = place >= 0
    of_chip = np.where(known, split[place], 0)
    rows = _in_several_splits(hashes, of_chip, np.flatnonzero(known))
    blank = sum(_blank(path, part) for path, part in _by_shard(tables.shards, shard, ids, rows))
    return Twins(len(rows) - blank, blank)


def _hashes(shards: list[Path]) -> tuple[Any, NDArray[np.uint64], NDArray[np.int64]]:
    """Chip ids, the hash of each one's stored pixels, and its shard's number."""
    ids, hashes, shard = [], [], []
    for number, path in enumerate(track(shards, "Comparing pixels")):
        for table in stream(path, ["chip_id", "pixels"], rows=_ROWS):
            ids.extend(table["chip_id"].cast(pa.string()).chunks)
            hashes.append(np.array([_hash(value) for value in table["pixels"]], np.uint64))
            shard.append(np.full(len(table), number))
    return pa.chunked_array(ids, pa.string()), np.concatenate(hashes), np.concatenate(shard)


def _hash(value: Any) -> int:
    """64 bits of a pixel value's bytes."""
    return int.from_bytes(hashlib.blake2b(value.as_buffer(), digest_size=8).digest(), "little")


def _in_several_splits(
    hashes: NDArray[np.uint64], split: NDArray[np.uint8], rows: NDArray[np.int64]
) -> NDArray[np.int64]:
    """One row of each hash that rows of several splits have."""
    order = rows[np.lexsort((split[rows], hashes[rows]))]
    if not len(order):
        return order
    starts = np.flatnonzero(np.r_[True, hashes[order][1:] != hashes[order][:-1]])
    lowest, highest = (reduce.reduceat(split[order], starts) for reduce in (np.minimum, np.maximum))
    return np.asarray(order[starts[lowest != highest]])


def _by_shard(
    shards: list[Path], shard: NDArray[np.int64], ids: Any, rows: NDArray[np.int64]
) -> Iterator[tuple[Path, frozenset[str]]]:
    """The shards that hold some rows, each with those rows' chip ids."""
    for number in np.unique(shard[rows]):
        chosen = rows[shard[rows] == number]
        yield shards[number], frozenset(ids.take(pa.array(chosen)).to_pylist())


def _blank(path: Path, wanted: frozenset[str]) -> int:
    """How many of a shard's wanted chips have one colour."""
    _, pixels = read_pixels(path, wanted)
    flat = pixels.reshape(*pixels.shape[:2], -1)
    return int((flat == flat[..., :1]).all(axis=(1, 2)).sum())
