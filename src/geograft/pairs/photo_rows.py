"""Rows of photo tables copied in another order, without ever holding them all."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

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

BUCKET = 500_000
"""Rows that are sorted at once."""

_FORMAT: dict[str, Any] = {
    "compression": "zstd",
    "use_dictionary": ["accuracy_m", "user", "licence", "width", "height", "source", "place"],
}

_RANKED = pa.schema([*SCHEMA, ("rank", pa.int64())])


def copy_rows(sources: Sequence[Path], rows: Ints, path: Path) -> None:
    """Write some rows of photo tables in a given order.

    Rows are dealt into buckets of neighbours in that order as they are read; then each bucket is sorted and written.

    Args:
        sources: photo tables.
        rows: rows of all tables one after another, in the order wanted.
        path: the photo table to write.
    """
    rank = np.full(int(rows.max(initial=-1)) + 1, -1, np.int64)
    rank[rows] = np.arange(len(rows))
    folder = path.with_name(f".{path.stem}.buckets")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    buckets = _deal(sources, rank, [folder / f"{number}.arrow" for number in range(-(-len(rows) // BUCKET))])
    with atomic(path) as temporary, pq.ParquetWriter(temporary, SCHEMA, **_FORMAT) as writer:
        for bucket in buckets:
            writer.write_table(_sorted(bucket))
    shutil.rmtree(folder)


def _sorted(bucket: Path) -> pa.Table:
    """The rows of a bucket in order."""
    with pa.memory_map(str(bucket)) as file:
        part = pa.ipc.open_stream(file).read_all()
        order = pa.array(np.argsort(part["rank"].to_numpy()))
        return part.drop_columns("rank").take(order).cast(SCHEMA)


def _deal(sources: Sequence[Path], rank: Ints, buckets: list[Path]) -> list[Path]:
    """Write each wanted row into the bucket of its rank."""
    with ExitStack() as stack:
        writers = [stack.enter_context(pa.ipc.new_stream(str(bucket), _RANKED)) for bucket in buckets]
        for table, place in _ranked(sources, rank):
            order = np.argsort(place // BUCKET, kind="stable")
            bounds = np.searchsorted((place // BUCKET)[order], np.arange(len(writers) + 1))
            dealt = table.take(pa.array(order))
            for writer, start, stop in zip(writers, bounds[:-1], bounds[1:], strict=True):
                if stop > start:
                    writer.write_table(dealt.slice(start, stop - start))
    return buckets


def _ranked(sources: Sequence[Path], rank: Ints) -> Iterator[tuple[pa.Table, Ints]]:
    """The wanted rows of each batch, with their place in the order."""
    first = 0
    for source in sources:
        crs = geometry_crs(pq.read_schema(source), source)
        for batch in pq.ParquetFile(source).iter_batches(BUCKET):
            place = rank[first : first + len(batch)]
            place = np.append(place, np.full(len(batch) - len(place), -1))
            first += len(batch)
            wanted = np.flatnonzero(place >= 0)
            table = plain_rows(batch.take(pa.array(wanted)), crs)
            yield table.append_column("rank", pa.array(place[wanted])), place[wanted]


def plain_rows(batch: Any, crs: str | None) -> pa.Table:
    """Rows of any photo table with the columns and types of `SCHEMA`; absent columns are missing in every row."""
    columns = {name: _cast(batch, name, kind) for name, kind in COLUMNS.items() if name != "geometry"}
    geometry = batch["geometry"].cast(pa.binary())
    columns["geometry"] = geometry if crs is None else point_column(*coordinates(geometry, crs))
    return pa.table(columns, schema=SCHEMA)


def _cast(batch: Any, name: str, kind: pa.DataType) -> Any:
    """A column as a type; cells that are none of it are missing."""
    if name not in batch.schema.names:
        return pa.nulls(len(batch), kind)
    column = batch[name]
    if kind == UTC:
        return time_column(microseconds(column))
    try:
        return column.cast(kind, safe=False)
    except pa.ArrowException:
        return pa.array(pd.to_numeric(column.to_pandas(), errors="coerce"), from_pandas=True).cast(kind, safe=False)
