"""Rows of photo tables copied in another order, without ever holding them all."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from geograft.errors import UnreadableTable
from geograft.geoparquet import coordinates, geo_metadata, geometry_crs, point_column
from geograft.pairs.grid import Ints
from geograft.pairs.times import UTC, microseconds, time_column
from geograft.tables import atomic

COLUMNS: dict[str, pa.DataType] = {
    "photo_id": pa.string(),
    "accuracy_m": pa.float32(),
    "heading_deg": pa.float32(),
    "fov_deg": pa.float32(),
    "taken": UTC,
    "user": pa.string(),
    "licence": pa.string(),
    "uri": pa.string(),
    "width": pa.int32(),
    "height": pa.int32(),
    "source": pa.string(),
    "tags": pa.string(),
    "place": pa.string(),
    "geometry": pa.binary(),
}
"""The columns of photos.parquet."""

SCHEMA = pa.schema(COLUMNS, metadata=geo_metadata("Point"))

BUCKET = 100_000
"""Rows that are sorted at once."""

_FORMAT: dict[str, Any] = {
    "compression": "zstd",
    "use_dictionary": ["accuracy_m", "user", "licence", "width", "height", "source", "place"],
}

_RANKED = pa.schema([*SCHEMA, ("rank", pa.int64())])


class Dealt:
    """Rows of photo tables on their way into another order: dealt into buckets of neighbours, then sorted one by one.

    Dealing reads the tables and needs no more than the order; which of the rows are wanted in the end may be known
    later.

    Args:
        sources: photo tables.
        rows: rows of all tables one after another, each once, in the order that they are to have.
        folder: holds the buckets; it is made, and removed by `close`.

    Raises:
        UnreadableTable: a table is damaged.
        DiskFull: nothing stays behind.
    """

    def __init__(self, sources: Sequence[Path], rows: Ints, folder: Path) -> None:
        self.rows = rows
        self._folder = folder
        names = [f"{number}.arrow" for number in range(-(-len(rows) // BUCKET))]
        self._buckets = [folder / name for name in names]
        self.close()
        with atomic(folder) as temporary:
            temporary.mkdir()
            _deal(pick_rows(sources, rows), [temporary / name for name in names])

    def write(self, path: Path, keep: NDArray[np.bool_] | None = None) -> None:
        """Write the rows that are wanted, all where `keep` is None, in order.

        Raises:
            DiskFull: nothing stays behind.
        """
        with atomic(path) as temporary, pq.ParquetWriter(temporary, SCHEMA, **_FORMAT) as writer:
            for bucket in self._buckets:
                writer.write_table(_sorted(bucket, keep))

    def close(self) -> None:
        """Remove the buckets."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        """The rows, until the end of the block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the buckets."""
        self.close()


def _sorted(bucket: Path, keep: NDArray[np.bool_] | None) -> pa.Table:
    """The wanted rows of a bucket in order."""
    with pa.memory_map(str(bucket)) as file:
        part = pa.ipc.open_stream(file).read_all()
        rank = part["rank"].to_numpy()
        order = np.argsort(rank)
        wanted = order if keep is None else order[keep[rank[order]]]
        return part.drop_columns("rank").take(pa.array(wanted)).cast(SCHEMA)


def _deal(rows: Iterator[tuple[pa.Table, Ints]], buckets: Sequence[Path]) -> None:
    """Write each row into the bucket of its place."""
    with ExitStack() as stack:
        writers = [stack.enter_context(pa.ipc.new_stream(str(bucket), _RANKED)) for bucket in buckets]
        for table, place in rows:
            order = np.argsort(place // BUCKET, kind="stable")
            bounds = np.searchsorted((place // BUCKET)[order], np.arange(len(writers) + 1))
            dealt = table.append_column("rank", pa.array(place)).take(pa.array(order))
            for writer, (start, stop) in zip(writers, pairwise(bounds.tolist()), strict=True):
                if stop > start:
                    writer.write_table(dealt.slice(start, stop - start))


def pick_rows(
    sources: Sequence[Path], rows: Ints, names: Sequence[str] = tuple(COLUMNS)
) -> Iterator[tuple[pa.Table, Ints]]:
    """Some rows of photo tables, batch by batch, with their places among the rows asked for.

    Args:
        sources: photo tables.
        rows: rows of all tables one after another, each once, in any order.
        names: the columns wanted.

    Raises:
        UnreadableTable: a table is damaged.
    """
    rank = np.full(int(rows.max(initial=-1)) + 1, -1, np.int64)
    rank[rows] = np.arange(len(rows))
    first = 0
    for source in sources:
        with naming_damage(source), pq.ParquetFile(source) as file:
            crs = geometry_crs(file.schema_arrow, source)
            there = [name for name in names if name in file.schema_arrow.names]
            for batch in file.iter_batches(BUCKET, columns=there):
                place = rank[first : first + len(batch)]
                first += len(batch)
                wanted = np.flatnonzero(place >= 0)
                yield _plain(batch.take(pa.array(wanted)), crs, names), place[wanted]


@contextmanager
def naming_damage(path: Path) -> Iterator[None]:
    """Say which table is damaged where reading it fails.

    Raises:
        UnreadableTable: it is.
    """
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise UnreadableTable(f"{path} is damaged ({error}): write it again.") from error


def _plain(batch: Any, crs: str | None, names: Sequence[str]) -> pa.Table:
    """Rows of any photo table with the types of `COLUMNS`; absent columns are missing in every row."""
    columns = {name: _cast(batch, name, COLUMNS[name]) for name in names if name != "geometry"}
    if "geometry" in names:
        columns["geometry"] = point_column(*coordinates(batch["geometry"], crs))
    return pa.table(columns).select(names)


def _cast(batch: Any, name: str, kind: pa.DataType) -> Any:
    """A column as a type; cells that are none of it are missing."""
    if name not in batch.schema.names:
        return pa.nulls(len(batch), kind)
    column = batch[name]
    if kind == UTC:
        return time_column(microseconds(column))
    try:
        return column.cast(kind)
    except pa.ArrowException:
        numbers = pd.to_numeric(column.to_pandas(), errors="coerce")
        return pa.array(numbers, from_pandas=True).cast(kind, safe=False)
