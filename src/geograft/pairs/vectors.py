"""Embeddings of many photos found by id, on disk: no process holds more than it asks for.

The matrix is memory-mapped, and photos are found by a 64-bit hash of their id (two of ten million photos share one
with a probability below one in 100,000). The files are scratch: they can be made again from the embeddings' tables.
"""

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from geograft.errors import MissingInput, UnreadableTable
from geograft.hashing import hash_ids
from geograft.tables import atomic

_SALT = "photo"


@dataclass(frozen=True)
class Vectors:
    """Embeddings by photo.

    Attributes:
        keys: hashes of photo ids, ascending, (N,).
        rows: the row of the matrix of each, (N,).
        matrix: (N, D) float16, memory-mapped.
    """

    keys: NDArray[np.uint64]
    rows: NDArray[np.int64]
    matrix: NDArray[np.float16]

    @classmethod
    def open(cls, folder: Path, fingerprint: str) -> "Vectors":
        """What `pack` wrote for a teacher.

        Raises:
            MissingInput: it wrote nothing yet.
        """
        place = scratch(folder, fingerprint)
        if not place.is_dir():
            raise MissingInput(f"There are no embeddings of the teacher {fingerprint} in {folder}: embed its photos.")
        return cls(*(np.load(place / f"{name}.npy", mmap_mode="r") for name in ("keys", "rows", "matrix")))

    def find(self, ids: Any) -> NDArray[np.int64]:
        """The matrix's row of each photo, -1 where it has none, (n,)."""
        wanted = hash_ids(ids, _SALT)
        at = np.minimum(np.searchsorted(self.keys, wanted), max(0, len(self.keys) - 1))
        return np.where(self.keys[at] == wanted, self.rows[at], -1)

    def take(self, rows: NDArray[np.int64]) -> NDArray[np.float16]:
        """Rows of the matrix, (n, D), read in the order in which they lie on the disk."""
        order = np.argsort(rows, kind="stable")
        out = np.empty((len(rows), self.matrix.shape[1]), np.float16)
        out[order] = self.matrix[rows[order]]
        return out

    def column(self, ids: Any) -> pa.Array:
        """The embeddings of photos as Arrow lists, missing where a photo has none, (n,)."""
        rows = self.find(ids)
        flat = self.take(rows[rows >= 0]).ravel()
        counts = np.where(rows >= 0, self.matrix.shape[1], 0)
        offsets = np.concatenate([[0], np.cumsum(counts)])
        return pa.ListArray.from_arrays(
            pa.array(offsets, pa.int32()), pa.array(flat, pa.float16()), mask=pa.array(rows < 0)
        )


def scratch(folder: Path, fingerprint: str) -> Path:
    """Where the memory-mapped files of a teacher lie while they are needed."""
    return Path(folder) / f".teacher-{fingerprint}.vectors"


def pack(files: Iterable[Path], folder: Path, fingerprint: str) -> Vectors:
    """Put tables of embeddings into memory-mapped files.

    Args:
        files: tables of photo_id and embedding.
        folder: the folder of pairs.
        fingerprint: of the teacher.

    Raises:
        UnreadableTable: a table is damaged.
        DiskFull: the disk filled up; nothing was left behind.
    """
    place = scratch(folder, fingerprint)
    if place.is_dir():
        return Vectors.open(folder, fingerprint)
    files = list(files)
    try:
        count, dim = sum(pq.read_metadata(path).num_rows for path in files), _dim(files[0])
        with atomic(place) as temporary:
            temporary.mkdir(parents=True)
            _fill(files, temporary, (count, dim))
    except pa.ArrowException as error:
        raise UnreadableTable(f"Embeddings in {folder} are damaged ({error}): remove them and embed again.") from error
    return Vectors.open(folder, fingerprint)


def _dim(path: Path) -> int:
    """The length of a table's embeddings."""
    return int(pq.read_schema(path).field("embedding").type.list_size)


def _fill(files: Iterable[Path], place: Path, shape: tuple[int, int]) -> None:
    """Write the matrix of all tables, and the hashes that find its rows."""
    matrix = np.lib.format.open_memmap(place / "matrix.npy", mode="w+", dtype=np.float16, shape=shape)
    keys = np.empty(shape[0], np.uint64)
    start = 0
    for path in files:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(columns=["photo_id", "embedding"]):
                stop = start + len(batch)
                keys[start:stop] = hash_ids(batch["photo_id"], _SALT)
                matrix[start:stop] = batch["embedding"].flatten().to_numpy(zero_copy_only=False).reshape(-1, shape[1])
                start = stop
    matrix.flush()
    order = np.argsort(keys, kind="stable")
    np.save(place / "keys.npy", keys[order])
    np.save(place / "rows.npy", order.astype(np.int64))


def unpack(folder: Path, fingerprint: str) -> None:
    """Remove the memory-mapped files of a teacher."""
    shutil.rmtree(scratch(folder, fingerprint), ignore_errors=True)
