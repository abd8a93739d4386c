"""Vectors of photos by pair: in memory where they are few, else from a memory-mapped file as they are asked for."""

import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from geograft.errors import MissingInput, UnreadableTable, UnwritableOutput
from geograft.hashing import hash_ids
from geograft.pairs.vectors import Vectors, pack, scratch

logger = logging.getLogger(__name__)

IN_MEMORY = 2**29
"""Bytes of vectors that are simply held."""

_PLACE = ".vectors"
"""Folder of memory-mapped vectors inside a folder of pairs; it may be removed at any time."""

_SALT = "photo"


class Gathered:
    """Rows of a matrix, indexed like an array (P, D): what is asked for is gathered.

    Args:
        matrix: vectors, (M, D), such as a memory-mapped file.
        rows: of the matrix for each row of this one, (P,); -1 gives zeros.

    Attributes:
        shape: rows and length of the vectors.
        dtype: the matrix's.
    """

    def __init__(self, matrix: NDArray[np.float16], rows: NDArray[np.int64]) -> None:
        self._matrix, self._rows = matrix, rows
        self.shape = (len(rows), matrix.shape[1])
        self.ndim = 2
        self.dtype = matrix.dtype

    def __len__(self) -> int:
        """The number of rows."""
        return len(self._rows)

    def __getitem__(self, rows: Any) -> NDArray[np.float16]:
        """Vectors of a row, or of some, by number, slice, rows or mask; they are read in the file's order."""
        wanted = self._rows[rows]
        flat = np.atleast_1d(wanted)
        order = np.argsort(flat, kind="stable")
        out = np.empty((len(flat), self.shape[1]), self.dtype)
        out[order] = self._matrix[np.maximum(flat[order], 0)]
        out[flat < 0] = 0
        return out[0] if np.ndim(wanted) == 0 else out

    def take(self, rows: NDArray[np.int64]) -> "Gathered":
        """Some rows, still not gathered."""
        return Gathered(self._matrix, self._rows[rows])

    def astype(self, dtype: Any) -> NDArray[Any]:
        """All vectors in another type, in memory."""
        return self[:].astype(dtype)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """All vectors, in memory."""
        return self[:] if dtype is None else self.astype(dtype)


Matrix = NDArray[np.float16] | Gathered
"""Vectors by pair, (P, D) float16; `matrix[rows]` is an array either way."""


def gather(vectors: Vectors, rows: NDArray[np.int64]) -> Matrix:
    """Vectors by row of their matrix, -1 for zeros: an array where they are few, (P, D)."""
    found = Gathered(vectors.matrix, rows)
    return found[:] if len(rows) * vectors.matrix.shape[1] * 2 <= IN_MEMORY else found


def open_vectors(table: Path) -> Vectors:
    """The vectors of a table of photo_id and embedding: in memory where they are few, else memory-mapped.

    The memory-mapped files lie in the table's folder, are written once, and again where the table is newer.

    Raises:
        MissingInput: there is no such table.
        UnreadableTable: the table is damaged.
        DiskFull: the disk filled up; nothing was left behind.
    """
    if not table.is_file():
        raise MissingInput(f"There are no embeddings {table}: embed the photos with this teacher first.")
    try:
        count, dim = pq.read_metadata(table).num_rows, pq.read_schema(table).field("embedding").type.list_size
        return _in_memory(table) if count * dim * 2 <= IN_MEMORY else _mapped(table)
    except (pa.ArrowException, OSError, KeyError, AttributeError) as error:
        raise UnreadableTable(f"{table} is damaged ({error}): remove it and embed again.") from error


def _mapped(table: Path) -> Vectors:
    """Memory-mapped vectors of a table, or all in memory where its folder cannot be written."""
    folder, name = table.parent / _PLACE, table.stem.removeprefix("teacher-")
    made = scratch(folder, name)
    if made.is_dir() and made.stat().st_mtime_ns < table.stat().st_mtime_ns:
        shutil.rmtree(made)
    try:
        return pack([table], folder, name)
    except UnwritableOutput as error:
        logger.warning("All embeddings are held in memory, since %s cannot be written: %s", folder, error)
        return _in_memory(table)


def _in_memory(table: Path) -> Vectors:
    """Vectors of a table, read whole."""
    found = pq.read_table(table, columns=["photo_id", "embedding"]).combine_chunks()
    column = found["embedding"].combine_chunks()
    flat = column.flatten().to_numpy(zero_copy_only=False).astype(np.float16, copy=False)
    keys = hash_ids(found["photo_id"], _SALT)
    order = np.argsort(keys, kind="stable")
    return Vectors(keys[order], order.astype(np.int64), flat.reshape(len(found), column.type.list_size))
