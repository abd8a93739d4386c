"""The chips as STAC items in one Parquet table, in the columns of stac-geoparquet."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import shapely
from numpy.typing import NDArray

from geograft.pairs.publishing.folder import PairFolder, column, names, places, stream
from geograft.tables import atomic

_GEO = {
    "version": "1.1.0",
    "primary_column": "geometry",
    "columns": {"geometry": {"encoding": "WKB", "geometry_types": ["Polygon"]}},
}
_BOX = pa.struct([(name, pa.float64()) for name in ("xmin", "ymin", "xmax", "ymax")])
_ASSET = pa.struct([("href", pa.string()), ("type", pa.string()), ("roles", pa.list_(pa.string()))])
_LINK = pa.struct([("rel", pa.string()), ("href", pa.string())])
_SCHEMA = pa.schema(
    [
        ("type", pa.string()),
        ("stac_version", pa.string()),
        ("stac_extensions", pa.list_(pa.string())),
        ("id", pa.string()),
        ("collection", pa.string()),
        ("geometry", pa.binary()),
        ("bbox", _BOX),
        ("datetime", pa.timestamp("us", "UTC")),
        ("gsd", pa.float64()),
        ("proj:code", pa.string()),
        ("proj:shape", pa.list_(pa.int32())),
        ("proj:transform", pa.list_(pa.float64())),
        ("geograft:split", pa.string()),
        ("geograft:photos", pa.int64()),
        ("geograft:scene", pa.string()),
        ("assets", pa.struct([("pixels", _ASSET)])),
        ("links", pa.list_(_LINK)),
    ],
    metadata={"geo": json.dumps(_GEO), "stac-geoparquet": json.dumps({"version": "1.0.0"})},
)
_NEEDED = ("chip_id", "epsg", "left", "top", "gsd", "size", "split", "photos", "geometry")


def write_items(tables: PairFolder, collection: str, *, hrefs: Any = None) -> Path:
    """Write items.parquet beside the chip table, a row a chip, in the chip table's order.

    Args:
        tables: the pairs.
        collection: id of the collection that the items belong to.
        hrefs: the address of each chip's pixels, null where it has none; its shard's where None.

    Raises:
        MissingColumns, UnreadableTable: a table is damaged.
    """
    path = tables.tables / "items.parquet"
    shard = shard_hrefs(tables) if hrefs is None else hrefs
    done = 0
    optional = [name for name in ("scene_id", "taken") if name in names(tables.chips)]
    with atomic(path) as temporary, pq.ParquetWriter(temporary, _SCHEMA, compression="zstd") as writer:
        for rows in stream(tables.chips, [*_NEEDED, *optional]):
            writer.write_table(_items(rows, shard.slice(done, len(rows)), collection))
            done += len(rows)
    return path


def shard_hrefs(tables: PairFolder) -> Any:
    """The relative address of each chip's shard, null where it has none."""
    found = shard_numbers(tables)
    hrefs = pa.array([f"./shards/{path.name}" for path in tables.shards], pa.string())
    return hrefs.take(pa.array(found, mask=found < 0))


def shard_numbers(tables: PairFolder) -> NDArray[np.int64]:
    """The place among the folder's shards of the one that holds each chip, -1 where none does, (N,)."""
    ids = column(tables.chips, "chip_id")
    found = np.full(len(ids), -1)
    chunks, numbers = [pa.array([], pa.string())], [np.empty(0, np.int64)]
    for number, path in enumerate(tables.shards):
        held = column(path, "chip_id").cast(pa.string())
        chunks.extend(held.chunks)
        numbers.append(np.full(len(held), number))
    place = places(pa.chunked_array(chunks, pa.string()), ids)
    found[place[place >= 0]] = np.concatenate(numbers)[place >= 0]
    return found


def _items(rows: pa.Table, shard: Any, collection: str) -> pa.Table:
    """Some chips as items."""
    count = len(rows)
    geometry = rows["geometry"].combine_chunks().cast(pa.binary())
    text = {"type": "Feature", "stac_version": "1.1.0", "collection": collection}
    columns: dict[str, Any] = {name: pa.repeat(value, count) for name, value in text.items()}
    columns |= {
        "stac_extensions": pa.array([["https://stac-extensions.github.io/projection/v2.0.0/schema.json"]] * count),
        "id": rows["chip_id"],
        "geometry": geometry,
        "bbox": _boxes(geometry),
        "datetime": rows["taken"] if "taken" in rows.column_names else pa.nulls(count),
        "gsd": rows["gsd"],
        "proj:code": pc.binary_join_element_wise("EPSG", rows["epsg"].cast(pa.string()), ":"),
        "proj:shape": pa.array(np.repeat(rows["size"].to_numpy(), 2).reshape(-1, 2).tolist(), pa.list_(pa.int32())),
        "proj:transform": _transforms(rows),
        "geograft:split": rows["split"],
        "geograft:photos": rows["photos"],
        "geograft:scene": rows["scene_id"] if "scene_id" in rows.column_names else pa.nulls(count),
        "assets": _assets(shard),
        "links": pa.array([[{"rel": "collection", "href": "./collection.json"}]] * count, pa.list_(_LINK)),
    }
    return pa.table({field.name: _as(columns[field.name], field.type) for field in _SCHEMA}, schema=_SCHEMA)


def _as(values: Any, kind: Any) -> Any:
    """A column in the schema's type."""
    return values if values.type == kind else values.cast(kind)


def _boxes(geometry: Any) -> Any:
    """Bounding boxes of WKB polygons."""
    bounds = shapely.bounds(shapely.from_wkb(geometry.to_numpy(zero_copy_only=False)))
    return pa.StructArray.from_arrays([pa.array(bounds[:, place]) for place in range(4)], fields=list(_BOX))


def _transforms(rows: pa.Table) -> Any:
    """The affine of each chip's grid, row by row."""
    gsd, left, top = (rows[name].to_numpy() for name in ("gsd", "left", "top"))
    zero = np.zeros(len(rows))
    values = np.stack([gsd, zero, left, zero, -gsd, top], axis=1).ravel()
    return pa.FixedSizeListArray.from_arrays(pa.array(values), 6).cast(pa.list_(pa.float64()))


def _assets(shard: Any) -> Any:
    """The shard that holds each chip's pixels; null where there is none."""
    count = len(shard)
    kind = pa.repeat("application/vnd.apache.parquet", count)
    roles = pa.array([["data"]] * count, pa.list_(pa.string()))
    pixels = pa.StructArray.from_arrays([shard, kind, roles], fields=list(_ASSET), mask=pc.is_null(shard))
    return pa.StructArray.from_arrays([pixels], fields=[pa.field("pixels", _ASSET)])
