"""A folder of pairs as others read it: where its tables lie, finished or only planned, and columns in small memory."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from geograft.errors import MissingColumns, MissingInput, UnreadableTable
from geograft.geoparquet import coordinates
from geograft.pairs.cutting.shards import shard_paths
from geograft.tables import Manifest, read_manifest

BATCH = 2**18
"""Rows that are held at once where a table is streamed."""


@dataclass(frozen=True)
class PairFolder:
    """The tables of a folder of pairs.

    Attributes:
        root: the folder that was named.
        tables: where chips.parquet, pairs.parquet and photos.parquet lie: `root`, or its `plan`.
    """

    root: Path
    tables: Path

    @property
    def chips(self) -> Path:
        """The chip table."""
        return self.tables / "chips.parquet"

    @property
    def pairs(self) -> Path:
        """The table of photos in chips."""
        return self.tables / "pairs.parquet"

    @property
    def photos(self) -> Path:
        """The photo table."""
        return self.tables / "photos.parquet"

    @cached_property
    def planned(self) -> bool:
        """Whether the pairs are planned only: chips have stacks of scenes to try and no pixels yet."""
        return "stacks" in names(self.chips)

    @cached_property
    def shards(self) -> list[Path]:
        """The shards of pixels; none where the pairs are planned only."""
        return [] if self.planned else shard_paths(self.tables)

    @cached_property
    def manifest(self) -> Manifest:
        """The manifest beside the tables; an empty one where there is none."""
        path = self.tables / "manifest.json"
        return read_manifest(path) if path.is_file() else Manifest("pairs")

    @cached_property
    def chip_of_pair(self) -> NDArray[np.int32]:
        """The row of the chip table that each pair names, -1 where none does, (P,)."""
        return places(column(self.pairs, "chip_id"), column(self.chips, "chip_id"))

    @cached_property
    def photo_of_pair(self) -> NDArray[np.int32]:
        """The row of the photo table that each pair names, -1 where none does, (P,)."""
        return places(column(self.pairs, "photo_id"), column(self.photos, "photo_id"))

    @property
    def split_by(self) -> str | None:
        """What the split goes by: "blocks", "place", "scene"; None where there is none."""
        settings = self.manifest.settings
        found = settings.get("split") if isinstance(settings, dict) else None
        return None if found == "none" else found


def open_folder(folder: "str | Path | PairFolder") -> PairFolder:
    """The tables of a folder: finished pairs, or a plan (the folder's own or in its `plan`); open ones pass through.

    Raises:
        MissingInput: the folder holds neither.
    """
    if isinstance(folder, PairFolder):
        return folder
    root = Path(folder)
    for tables in (root, root / "plan"):
        if all((tables / f"{name}.parquet").is_file() for name in ("chips", "pairs", "photos")):
            return PairFolder(root, tables)
    raise MissingInput(
        f"{root} holds no pairs (chips.parquet, pairs.parquet and photos.parquet): name a folder that "
        "`geograft pairs plan` or `geograft pairs make` wrote."
    )


# --- columns ----------------------------------------------------------------------------------------------


def names(path: Path) -> list[str]:
    """The columns of a Parquet table.

    Raises:
        UnreadableTable: the file is no whole Parquet table.
    """
    with _reading(path):
        return list(pq.read_schema(path).names)


def column(path: Path, name: str) -> pa.ChunkedArray:
    """One column of a table.

    Raises:
        MissingColumns: the table has no such column.
        UnreadableTable: the table is damaged.
    """
    if name not in names(path):
        raise MissingColumns(f"{path} has no column {name}: write it again with `geograft pairs`.")
    with _reading(path):
        return pq.read_table(path, columns=[name]).column(0)


def numbers(path: Path, name: str) -> NDArray[Any]:
    """A numeric column as an array, NaN or NaT where a value is missing."""
    return np.asarray(column(path, name).to_numpy())


def stream(
    path: Path, columns: Sequence[str], *, optional: Sequence[str] = (), rows: int = BATCH
) -> Iterator[pa.Table]:
    """The rows of a table, so many at a time; optional columns that are absent come out as nulls.

    Raises:
        MissingColumns: another column is absent.
        UnreadableTable: the table is damaged.
    """
    there = names(path)
    if missing := [name for name in columns if name not in there]:
        raise MissingColumns(f"{path} has no column {', '.join(missing)}: write it again with `geograft pairs`.")
    absent = [name for name in optional if name not in there]
    wanted = [*columns, *(name for name in optional if name in there)]
    with _reading(path):
        for batch in pq.ParquetFile(path).iter_batches(batch_size=rows, columns=wanted):
            table = pa.Table.from_batches([batch])
            for name in absent:
                table = table.append_column(name, pa.nulls(len(table), pa.string()))
            yield table


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Say which table is damaged."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise UnreadableTable(f"{path} is not a whole Parquet table ({error}): write it again.") from error


# --- codes and positions ----------------------------------------------------------------------------------


def codes(values: pa.ChunkedArray) -> tuple[NDArray[np.int32], list[Any]]:
    """Each value's place in the sorted list of distinct ones, -1 where it is missing, and that list."""
    distinct = pc.drop_null(pc.unique(values))
    distinct = distinct.take(pc.array_sort_indices(distinct))
    return places(values, distinct), distinct.to_pylist()


def places(values: pa.ChunkedArray, among: Any) -> NDArray[np.int32]:
    """Each value's place among others, -1 where it is not there."""
    among = among.combine_chunks() if isinstance(among, pa.ChunkedArray) else among
    found = pc.index_in(values, value_set=among, skip_nulls=True)
    return np.asarray(pc.fill_null(found, -1).to_numpy(), np.int32)


def lon_lat(values: pa.ChunkedArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Longitudes and latitudes of a WKB column of points."""
    parts = [coordinates(chunk) for chunk in values.chunks]
    lon, lat = (np.concatenate([*(part[axis] for part in parts), np.empty(0)]) for axis in (0, 1))
    return lon, lat
