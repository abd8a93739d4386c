"""Photo tables in, as columns of numbers: 10 million photos fit into a gigabyte, and their order says nothing.

Photos get a number by the hash of their id and the seed: the order in which the cover visits them. So a photo's
number, and all that follows, is the same whatever the order of the rows or the number of tables.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from geograft.errors import EmptyTable, MissingColumns
from geograft.geoparquet import coordinates, geometry_crs
from geograft.hashing import Hashes, hash_ids, mix
from geograft.pairs.planning.photo_rows import naming_damage, pick_rows
from geograft.pairs.times import microseconds
from geograft.tables import read_schema, track

NEEDED = ("photo_id", "geometry", "accuracy_m", "heading_deg", "taken", "user", "licence", "uri")
"""Columns that a photo table must have."""

MAX_LAT = 84.0
"""Degrees; UTM ends there."""

_BATCH = 500_000

_WHOLE = frozenset({"ids", "places", "addresses"})
"""Fields of `Photos` that are no arrays with a value a photo."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Photos:
    """Photos in the order of the visit.

    Attributes:
        ids: photo_id, Arrow strings, (N,).
        lon: degrees east, (N,).
        lat: degrees north, (N,).
        taken: microseconds since 1970, `times.NEVER` where unknown, (N,).
        accuracy: stated geotag error in metres, NaN where unknown, (N,) float32.
        heading: degrees, NaN where unknown, (N,) float32.
        user: a hash of the user, 0 where unknown, (N,).
        place: the photo table's place by number, -1 where unknown, (N,) int32.
        row: the row in all tables one after another, (N,).
        places: the names that `place` counts.
        addresses: a number that any id or `uri` of the tables changes, and no order of rows.
    """

    ids: Any
    lon: Floats
    lat: Floats
    taken: Ints
    accuracy: NDArray[np.float32]
    heading: NDArray[np.float32]
    user: Hashes
    place: NDArray[np.int32]
    row: Ints
    places: tuple[str, ...] = ()
    addresses: int = 0

    def __len__(self) -> int:
        """The number of photos."""
        return len(self.lon)

    def take(self, rows: Any) -> "Photos":
        """Some photos, by number or mask, in the order given."""
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows
        arrays = {f.name: getattr(self, f.name)[rows] for f in fields(self) if f.name not in _WHOLE}
        return replace(self, ids=self.ids.take(pa.array(rows)), **arrays)


def read_photos(paths: Sequence[Path], *, seed: int, skipped: Counter[str]) -> Photos:
    """The photos of tables that have a position on the UTM grid, each id once.

    Args:
        paths: photo tables.
        seed: of the visiting order.
        skipped: gains the counts of `no-id`, `bad-position` and `duplicate-id`.

    Raises:
        MissingInput, UnreadableTable, MissingColumns: a table is absent, damaged, or lacks columns.
        EmptyTable: no photo is left.
    """
    if not paths:
        raise EmptyTable("No table was named: give at least one photo table and one scene table.")
    schemas = {path: _schema(path) for path in paths}
    total = sum(pq.read_metadata(path).num_rows for path in paths)
    names = ", ".join(map(str, paths))
    if not total:
        raise EmptyTable(f"{names} has no rows: read photos into the table first.")
    batches = track(_batches(paths, schemas, skipped), "Reading photos", -(-total // _BATCH))
    photos = _sorted(list(batches), paths, seed, skipped)
    if not len(photos):
        raise EmptyTable(f"No photo of {names} has an id and a position: read the photos again.")
    return photos


def _schema(path: Path) -> Any:
    """A photo table's schema.

    Raises:
        MissingColumns: a needed column is absent.
        UnreadableTable: it is no GeoParquet.
    """
    schema = read_schema(path)
    if missing := [name for name in NEEDED if name not in schema.names]:
        raise MissingColumns(f"{path} has no column {', '.join(missing)}: make it with `geograft photos`.")
    geometry_crs(schema, path)
    return schema


# --- batches ----------------------------------------------------------------------------------------------


def _batches(paths: Sequence[Path], schemas: dict[Path, Any], skipped: Counter[str]) -> Iterator[Photos]:
    """The photos of all tables, in parts; those left out are counted."""
    first = 0
    for path in paths:
        wanted = [name for name in (*NEEDED[:6], "uri", "place") if name in schemas[path].names]
        crs = geometry_crs(schemas[path], path)
        with naming_damage(path), pq.ParquetFile(path) as file:
            for batch in file.iter_batches(_BATCH, columns=wanted):
                yield _part(batch, crs, first, skipped)
                first += len(batch)


def _part(batch: Any, crs: str | None, first: int, skipped: Counter[str]) -> Photos:
    """A batch as columns of numbers, without the rows that have no id or position."""
    ids = batch["photo_id"].cast(pa.large_string())
    lon, lat = coordinates(batch["geometry"], crs)
    nameless = np.asarray(pc.is_null(ids))
    placed = (np.abs(lon) <= 180) & (np.abs(lat) <= MAX_LAT)
    keep = placed & ~nameless
    skipped["no-id"] += int(nameless.sum())
    skipped["bad-position"] += int((~placed & ~nameless).sum())
    names, place = _places(batch)
    photos = Photos(
        ids=ids,
        lon=lon,
        lat=lat,
        taken=microseconds(batch["taken"]),
        accuracy=_numbers(batch["accuracy_m"]),
        heading=_numbers(batch["heading_deg"]),
        user=_users(batch["user"]),
        place=place,
        row=first + np.arange(len(batch)),
        places=names,
        addresses=_addresses(ids, batch["uri"]),
    )
    return photos if keep.all() else photos.take(keep)


def _addresses(ids: Any, uris: Any) -> int:
    """A number of all ids with their addresses, the same in any order."""
    texts = [pc.fill_null(column.cast(pa.large_string()), "") for column in (ids, uris)]
    return int(mix(hash_ids(texts[0], "photo"), hash_ids(texts[1], "uri")).sum(dtype=np.uint64))


def _numbers(column: Any) -> NDArray[np.float32]:
    """Numbers, NaN where a cell is none."""
    if pa.types.is_floating(column.type) or pa.types.is_integer(column.type):
        return np.asarray(pc.fill_null(column.cast(pa.float32(), safe=False), np.nan))
    return np.asarray(pd.to_numeric(column.to_pandas(), errors="coerce"), np.float32)


def _users(column: Any) -> Hashes:
    """A hash of each user's name, 0 where there is none."""
    known = np.asarray(pc.is_valid(column))
    hashes = hash_ids(pc.fill_null(column.cast(pa.large_string()), ""), "user")
    return np.where(known, np.maximum(hashes, 1), 0).astype(np.uint64)


def _places(batch: Any) -> tuple[tuple[str, ...], NDArray[np.int32]]:
    """The places' names, and each row's number among them, -1 where it has none."""
    if "place" not in batch.schema.names or batch["place"].null_count == len(batch):
        return (), np.full(len(batch), -1, np.int32)
    coded = batch["place"].cast(pa.large_string()).dictionary_encode()
    return tuple(coded.dictionary.to_pylist()), np.asarray(pc.fill_null(coded.indices, -1), np.int32)


# --- order ------------------------------------------------------------------------------------------------


def _sorted(parts: list[Photos], paths: Sequence[Path], seed: int, skipped: Counter[str]) -> Photos:
    """Parts as one, in the order of the visit, each id once; columns are joined one by one, to spare memory."""
    ids = pa.concat_arrays([part.ids for part in parts])
    names, place = _joined_places(parts)
    columns: dict[str, list[Any]] = {"place": [place]}
    for name in (field.name for field in fields(Photos) if field.name not in {*_WHOLE, "place"}):
        columns[name] = [getattr(part, name) for part in parts]
    addresses = sum(part.addresses for part in parts) % 2**64
    parts.clear()
    order = _order(ids, columns["row"], paths, seed)
    skipped["duplicate-id"] += len(ids) - len(order)
    ids = ids.take(pa.array(order))
    sorted_: dict[str, Any] = {name: np.concatenate(columns.pop(name))[order] for name in list(columns)}
    return Photos(ids=ids, places=names, addresses=addresses, **sorted_)


def _joined_places(parts: Sequence[Photos]) -> tuple[tuple[str, ...], NDArray[np.int32]]:
    """The names of all places, and each photo's number among them."""
    names = sorted({name for part in parts for name in part.places})
    number = {name: code for code, name in enumerate(names)}
    codes = [np.array([*(number[name] for name in part.places), -1], np.int32)[part.place] for part in parts]
    return tuple(names), np.concatenate(codes)


def _order(ids: Any, row: Sequence[Ints], paths: Sequence[Path], seed: int) -> Ints:
    """The photos in the order of the visit, each id once."""
    visit = hash_ids(ids, f"visit {seed}")
    order = np.argsort(visit)
    visit = visit[order]
    tied = np.append(False, visit[1:] == visit[:-1])
    if not tied.any():
        return order
    tied[:-1] |= tied[1:]
    same = order[tied]
    contents = _contents(paths, np.concatenate(row)[same])
    ranked, again = _untangled(visit[tied], ids.take(pa.array(same)), contents)
    order[tied] = same[ranked]
    tied[tied] = again
    return np.asarray(order[~tied])


def _untangled(visit: Hashes, ids: Any, contents: Hashes) -> tuple[Ints, NDArray[np.bool_]]:
    """Photos of equal hash sorted by id and by what they hold, and which of them repeat the id before."""
    keys = ("visit", "id", "content")
    table = pa.table([visit, ids, contents, np.arange(len(ids))], names=[*keys, "at"])
    table = table.sort_by([(key, "ascending") for key in keys]).combine_chunks()
    again = np.append(False, pc.equal(table["id"][1:], table["id"][:-1]))
    return table["at"].to_numpy(), again


def _contents(paths: Sequence[Path], rows: Ints) -> Hashes:
    """A hash of all that each of some rows of all tables holds."""
    found = np.empty(len(rows), np.uint64)
    for table, place in pick_rows(paths, rows):
        found[place] = pd.util.hash_pandas_object(table.to_pandas(), index=False)
    return found
