"""Where chips' pixels lie in the shards, and reading some of them: a block, one row group of a shard, at a time."""

import json
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from geograft.engine import cores
from geograft.errors import GeograftError, MissingShard, MixedSensors, UnreadableTable
from geograft.hashing import Hashes, hash_ids
from geograft.pairs.cutting.shards import shard_metadata, shard_paths
from geograft.pairs.encoding import decode

Ints = NDArray[np.int64]

READERS = 4
"""Threads that read and decode blocks; each holds one."""

_SALT = "chip"
_SAME = ("sensor", "shape", "dtype")


@dataclass(frozen=True)
class Blocks:
    """The shards of a folder as one sequence of chips, divided into blocks.

    Attributes:
        folder: of pairs.
        paths: the shards.
        abouts: their metadata.
        shard: the shard of each block, (B,).
        group: its row group there, (B,).
        starts: the first chip of each block in the sequence, and the number of chips, (B + 1,).
        keys: hashes of the chips' ids, (M,).
    """

    folder: Path
    paths: Sequence[Path]
    abouts: Sequence[dict[str, str]]
    shard: Ints
    group: Ints
    starts: Ints
    keys: Hashes

    @classmethod
    def open(cls, folder: Path) -> "Blocks":
        """The blocks of all shards; only ids are read.

        Raises:
            MissingShard: there are no shards.
            UnreadableTable: a shard is damaged.
            MixedSensors: the shards' chips are of several sensors or sizes.
        """
        paths = shard_paths(folder)
        if not paths:
            raise MissingShard(f"{folder} holds no shards: make them with `geograft pairs materialise`.")
        with ThreadPoolExecutor(min(READERS, cores())) as pool:
            abouts = list(pool.map(shard_metadata, paths))
            _refuse_mixed(paths, abouts)
            found = list(pool.map(_ids, paths))
        counts = np.array([len(ids) for groups in found for ids in groups], np.int64)
        return cls(
            folder,
            paths,
            abouts,
            np.repeat(np.arange(len(found)), [len(groups) for groups in found]),
            np.array([number for groups in found for number in range(len(groups))], np.int64),
            np.concatenate([[0], np.cumsum(counts)]),
            np.concatenate([np.empty(0, np.uint64), *(ids for groups in found for ids in groups)]),
        )

    @property
    def shape(self) -> tuple[int, int, int]:
        """Bands, rows and columns of a chip."""
        bands, rows, columns = json.loads(self.abouts[0]["shape"])
        return bands, rows, columns

    @property
    def dtype(self) -> np.dtype[Any]:
        """The data type of pixels."""
        return np.dtype(self.abouts[0]["dtype"])

    @cached_property
    def _sorted(self) -> tuple[Hashes, Ints]:
        """Hashes of ids, ascending, and their places."""
        order = np.argsort(self.keys, kind="stable")
        return self.keys[order], order

    def find(self, ids: Any) -> Ints:
        """The place of each chip in the sequence, (n,).

        Raises:
            MissingShard: no shard holds some of them.
        """
        keys, places = self._sorted
        wanted = hash_ids(ids, _SALT)
        at = np.minimum(np.searchsorted(keys, wanted), max(0, len(keys) - 1))
        there = keys[at] == wanted if len(keys) else np.zeros(len(wanted), np.bool_)
        if not there.all():
            raise MissingShard(
                f"{self.folder} lacks the pixels of {int((~there).sum())} chips ({self._absent()}): "
                "run `geograft pairs materialise` again."
            )
        return places[at]

    def _absent(self) -> str:
        """Which shards are not there, in words."""
        numbers = [int(path.stem.removeprefix("part-")) for path in self.paths]
        last = max(numbers)
        absent = sorted(set(range(last + 1)) - set(numbers))
        names = [f"part-{number:05d}.parquet" for number in absent[:3]]
        more = f" and {len(absent) - 3} more" if len(absent) > 3 else ""
        return f"{', '.join(names)}{more} absent" if names else f"no shard after part-{last:05d}.parquet"

    def of(self, places: Ints) -> Ints:
        """The block of each place, (n,)."""
        return np.searchsorted(self.starts, places, side="right") - 1

    def read(
        self, places: Ints, *, out: NDArray[Any] | None = None, stopped: Callable[[], bool] = lambda: False
    ) -> NDArray[Any]:
        """Pixels of chips, by place, (n, C, S, S).

        Args:
            places: in any order; each block is read once.
            out: takes the pixels, (n, C, S, S); a new array where None.
            stopped: asked before each block; what is left is not read once it is true.

        Raises:
            MissingShard: a shard is gone.
            UnreadableTable: a shard is damaged, or holds other chips than it did.
        """
        pixels = np.empty((len(places), *self.shape), self.dtype) if out is None else out
        order = np.argsort(places, kind="stable")
        blocks, first = np.unique(self.of(places[order]), return_index=True)
        runs = np.split(order, first[1:])

        def fill(block: int, slots: Ints) -> None:
            if not stopped():
                self._read_block(block, places[slots] - self.starts[block], pixels, slots)

        _each(fill, zip(blocks.tolist(), runs, strict=False), len(blocks))
        return pixels

    def _read_block(self, block: int, rows: Ints, out: NDArray[Any], slots: Ints) -> None:
        """Put the pixels of some rows of a block into some slots of an array."""
        path, about = self.paths[self.shard[block]], self.abouts[self.shard[block]]
        table = _row_group(path, int(self.group[block]))
        known = self.keys[self.starts[block] : self.starts[block + 1]]
        if not np.array_equal(hash_ids(table["chip_id"], _SALT), known):
            raise UnreadableTable(f"{path} holds other chips than when it was opened: load the pairs again.")
        chip = _decoder(table["pixels"].combine_chunks(), about)
        try:
            for slot, row in zip(slots.tolist(), rows.tolist(), strict=True):
                out[slot] = chip(row)
        except GeograftError as error:
            raise UnreadableTable(f"{path}: {error}") from error


def _each(work: Callable[[int, Ints], None], items: Iterable[tuple[int, Ints]], count: int) -> None:
    """Do some work for all items, several at once where there are several."""
    if count < 2:
        for item in items:
            work(*item)
        return
    with ThreadPoolExecutor(min(READERS, cores(), count)) as pool:
        for _ in pool.map(lambda item: work(*item), items):
            pass


def _refuse_mixed(paths: Sequence[Path], abouts: Sequence[dict[str, str]]) -> None:
    """Refuse shards whose chips cannot lie in one array."""
    for path, about in zip(paths, abouts, strict=True):
        if differing := [name for name in _SAME if about[name] != abouts[0][name]]:
            name = differing[0]
            raise MixedSensors(
                f"{path} holds chips of the {name} {about[name]}, but {paths[0].name} of {abouts[0][name]}: "
                "train with one folder of pairs a sensor and size."
            )


def _ids(path: Path) -> list[Hashes]:
    """Hashes of the chips' ids of each row group of a shard."""
    with _opened(path) as file:
        return [hash_ids(table["chip_id"], _SALT) for table in _groups(file, path)]


def _groups(file: Any, path: Path) -> Iterable[Any]:
    """The ids of each row group."""
    try:
        for number in range(file.num_row_groups):
            yield file.read_row_group(number, columns=["chip_id"])
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from error


def _row_group(path: Path, number: int) -> Any:
    """Ids and pixels of a row group."""
    with _opened(path) as file:
        try:
            return file.read_row_group(number, columns=["chip_id", "pixels"])
        except (pa.ArrowException, OSError) as error:
            raise _damaged(path, error) from error


def _opened(path: Path) -> Any:
    """A shard, open.

    Raises:
        MissingShard: it is gone.
        UnreadableTable: it is no whole shard.
    """
    try:
        return pq.ParquetFile(path)
    except FileNotFoundError as error:
        raise MissingShard(
            f"{path} is gone: put it back, or run `geograft pairs materialise` to cut it again."
        ) from error
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> UnreadableTable:
    """What to do about a damaged shard."""
    why = " ".join(str(error).split())
    return UnreadableTable(f"{path} is damaged ({why}): remove it and run `geograft pairs materialise`.")


def _decoder(content: Any, about: dict[str, str]) -> Callable[[int], NDArray[Any]]:
    """What gives the pixels of a row of a column, (C, S, S); without a copy where they are stored as they are."""
    shape, dtype = tuple(json.loads(about["shape"])), np.dtype(about["dtype"])
    size = dtype.itemsize * int(np.prod(shape))
    if about["encoding"] == "lossless" and _lengths(content) == {size}:
        first = np.frombuffer(content.buffers()[1], np.int32)[content.offset]
        flat = np.frombuffer(content.buffers()[2], np.uint8, len(content) * size, int(first))
        return flat.view(dtype).reshape(len(content), *shape).__getitem__
    return lambda row: decode(content[row].as_buffer(), about)


def _lengths(content: Any) -> set[int]:
    """The lengths that a column's values have."""
    ends = np.frombuffer(content.buffers()[1], np.int32)[content.offset : content.offset + len(content) + 1]
    return set(np.unique(np.diff(ends)).tolist())
