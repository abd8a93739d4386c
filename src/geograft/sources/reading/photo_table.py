"""The photo table as a file: its columns and types, written batch by batch."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from geograft.geoparquet import coordinates, geo_metadata, point_column
from geograft.sources.judging.hashes import among, id_hashes

COLUMNS = (
    "photo_id",
    "accuracy_m",
    "heading_deg",
    "fov_deg",
    "taken",
    "user",
    "licence",
    "uri",
    "width",
    "height",
    "source",
    "tags",
    "place",
)
"""The columns of a photo table beside its geometry (Point, EPSG:4326)."""

ROW_GROUP = 100_000

_TYPES: Mapping[str, tuple[str, pa.DataType]] = {
    **dict.fromkeys(COLUMNS, ("string", pa.string())),
    **dict.fromkeys(("accuracy_m", "heading_deg", "fov_deg"), ("float32", pa.float32())),
    **dict.fromkeys(("width", "height"), ("Int32", pa.int32())),
    "taken": ("datetime64[us, UTC]", pa.timestamp("us", "UTC")),
}
_LARGEST = 2**31 - 1


def schema() -> Any:
    """The Arrow schema of a photo table, with what pandas needs to give the same types back."""
    empty = pd.DataFrame({name: pd.Series(dtype=_TYPES[name][0]) for name in COLUMNS})
    plain = pa.schema([(name, _TYPES[name][1]) for name in COLUMNS])
    known = pa.Table.from_pandas(empty, plain, preserve_index=False).schema
    return known.append(pa.field("geometry", pa.binary()))


class PhotoWriter:
    """Writes a photo table row group by row group; a context, and whole when that ends.

    Args:
        path: the Parquet file.
    """

    def __init__(self, path: Path) -> None:
        self._schema = schema()
        # without Arrow's own schema, so that metadata which is known only at the end is read as the schema's
        self._file = pq.ParquetWriter(path, self._schema, compression="zstd", store_schema=False)
        self._waiting: list[Any] = []
        self._bounds = np.array([np.inf, np.inf, -np.inf, -np.inf])
        self.rows = 0

    def __enter__(self) -> Self:
        """The writer."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Write what is left, and the metadata; after an error nothing but close the file."""
        if kind is not None:
            with suppress(Exception):
                self._file.close()
            return
        self._flush(0)
        bounds = self._bounds.tolist() if self.rows else None
        self._file.add_key_value_metadata({**self._schema.metadata, **geo_metadata("Point", bounds)})
        self._file.close()

    def append(self, photos: pd.DataFrame) -> None:
        """Add photos: the columns of a photo table, with lon and lat in degrees in the place of the geometry."""
        if photos.empty:
            return
        lon, lat = (photos[name].to_numpy(np.float64) for name in ("lon", "lat"))
        arrays = [_array(photos[name], self._schema.field(name).type) for name in COLUMNS]
        self._add(pa.Table.from_arrays([*arrays, point_column(lon, lat)], schema=self._schema), lon, lat)

    def copy(self, table: Any) -> None:
        """Add rows of another photo table."""
        lon, lat = coordinates(table["geometry"].combine_chunks())
        self._add(table.cast(self._schema), lon, lat)

    def _add(self, table: Any, lon: NDArray[np.float64], lat: NDArray[np.float64]) -> None:
        """Keep rows until they fill a row group."""
        self._bounds[:2] = np.minimum(self._bounds[:2], (lon.min(), lat.min()))
        self._bounds[2:] = np.maximum(self._bounds[2:], (lon.max(), lat.max()))
        self.rows += len(table)
        self._waiting.append(table)
        if sum(map(len, self._waiting)) >= ROW_GROUP:
            self._flush(ROW_GROUP)

    def _flush(self, size: int) -> None:
        """Write whole row groups of a size, or all that waits where it is 0."""
        if not self._waiting:
            return
        table = pa.concat_tables(self._waiting).combine_chunks()  # pages then do not depend on the batches
        whole = len(table) // size * size if size else len(table)
        self._file.write_table(table.slice(0, whole), row_group_size=ROW_GROUP)
        self._waiting = [table.slice(whole)] if whole < len(table) else []


def _array(cells: pd.Series, kind: Any) -> Any:
    """Cells as an Arrow array of a type."""
    if pa.types.is_int32(kind):
        values = cells.astype("float64")
        return pa.array(values.round().where(values.abs() <= _LARGEST), pa.float64(), from_pandas=True).cast(kind)
    if pa.types.is_string(kind):
        return pc.cast(pa.array(cells, from_pandas=True), kind)
    return pa.array(cells, kind, from_pandas=True)


def copy_without(source: Path, out: Path, hashes: NDArray[np.uint64]) -> int:
    """Copy a photo table without the photos whose id hashes (`hashes.id_hashes`, sorted) are given.

    Returns:
        The rows written.
    """
    with pq.ParquetFile(source) as file, PhotoWriter(out) as writer:
        for index in range(file.num_row_groups):
            table = file.read_row_group(index)
            kept = table.filter(pa.array(~among(id_hashes(table["photo_id"].to_pandas()), hashes)))
            if len(kept):
                writer.copy(kept)
        return writer.rows


@contextmanager
def scratch(beside: Path) -> Iterator[Path]:
    """A path for a file that is needed for a while, beside another; removed when the block ends."""
    path = beside.with_name(f"{beside.stem}.all{beside.suffix}")
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)
