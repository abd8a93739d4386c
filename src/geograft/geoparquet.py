"""GeoParquet by Arrow alone: points and squares as WKB without an object a row, and the metadata that names them.

GeoPandas reads what is written here. It is not used to write, since a Python geometry a row costs some 200 bytes and
a microsecond, which 10 million rows do not forgive.
"""

import json
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
import shapely
from numpy.typing import NDArray
from pyproj import CRS, Transformer

from geograft.errors import UnreadableTable

Floats = NDArray[np.float64]

_POINT = np.dtype([("order", "u1"), ("type", "<u4"), ("x", "<f8"), ("y", "<f8")])
_SQUARE = np.dtype([("order", "u1"), ("type", "<u4"), ("rings", "<u4"), ("points", "<u4"), ("xy", "<f8", (5, 2))])


def point_column(lon: Floats, lat: Floats) -> pa.Array:
    """Points as WKB, (N,)."""
    records = np.zeros(len(lon), _POINT)
    records["order"], records["type"], records["x"], records["y"] = 1, 1, lon, lat
    return _binary(records)


def square_column(corners: Floats) -> pa.Array:
    """Four-cornered polygons as WKB, (N,).

    Args:
        corners: (N, 4, 2) as lon, lat, in order around the outline.
    """
    records = np.zeros(len(corners), _SQUARE)
    records["order"], records["type"], records["rings"], records["points"] = 1, 3, 1, 5
    records["xy"] = np.concatenate([corners, corners[:, :1]], axis=1)
    return _binary(records)


def _binary(records: NDArray[Any]) -> pa.Array:
    """Records of one size as Arrow binaries."""
    size = records.dtype.itemsize
    offsets = np.arange(len(records) + 1, dtype=np.int64) * size
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(records.tobytes())]
    return pa.Array.from_buffers(pa.large_binary(), len(records), buffers).cast(pa.binary())


def coordinates(column: pa.Array, crs: str | None = None) -> tuple[Floats, Floats]:
    """Longitude and latitude of points in WKB, degrees, (N,) each; NaN where a point is missing or empty.

    Args:
        column: WKB of points.
        crs: what the coordinates are in, as `geometry_crs` gives it; degrees where None.

    Raises:
        UnreadableTable: it is no WKB, or holds other geometries than points.
    """
    x, y = _plain_points(column.cast(pa.large_binary()))
    if crs is None:
        return x, y
    lon, lat = _to_degrees(crs).transform(x, y)
    bad = ~(np.isfinite(lon) & np.isfinite(lat))
    lon[bad] = lat[bad] = np.nan
    return lon, lat


def _plain_points(column: pa.Array) -> tuple[Floats, Floats]:
    """Easting and northing, or lon and lat, of points, at once where all are plain little-endian ones."""
    _, offsets, data = column.buffers()
    ends = np.frombuffer(offsets, np.int64)[column.offset : column.offset + len(column) + 1]
    if not column.null_count and len(column) and (np.diff(ends) == _POINT.itemsize).all():
        records = np.frombuffer(data, np.uint8)[ends[0] : ends[-1]].view(_POINT)
        if (records["order"] == 1).all() and (records["type"] == 1).all():
            return records["x"].copy(), records["y"].copy()
    try:
        shapes = shapely.from_wkb(column.to_numpy(zero_copy_only=False))
    except (shapely.errors.ShapelyError, TypeError) as error:
        raise UnreadableTable(f"A geometry is no WKB ({error}): write the table again.") from error
    if (~np.isin(shapely.get_type_id(shapes), (-1, 0))).any():
        raise UnreadableTable("A photo's geometry must be a point: write the table again with points.")
    shapes[shapely.is_empty(shapes)] = None
    return shapely.get_x(shapes), shapely.get_y(shapes)


@cache
def _to_degrees(crs: str) -> Transformer:
    return Transformer.from_crs(CRS.from_user_input(crs), 4326, always_xy=True)


def geometry_crs(schema: pa.Schema, path: Any) -> str | None:
    """The CRS of a table's geometry as JSON; None where it is longitude and latitude.

    Raises:
        UnreadableTable: the table is no GeoParquet with a column `geometry` of WKB and a CRS.
    """
    try:
        column = json.loads((schema.metadata or {})[b"geo"])["columns"]["geometry"]
    except (KeyError, TypeError, ValueError):
        column = None
    if column is None or column.get("encoding") != "WKB" or column.get("crs", "") is None:
        raise UnreadableTable(
            f"{path} is no GeoParquet with a CRS: make it with `geograft photos` or `geograft scenes`."
        )
    crs = column.get("crs")
    if crs is None or crs.get("id", {}).get("code") in {4326, "CRS84"}:
        return None
    return json.dumps(crs)


def geo_metadata(kind: str, bounds: Sequence[float] | None = None) -> dict[bytes, bytes]:
    """Schema metadata that says that the column `geometry` is WKB in EPSG:4326.

    Args:
        kind: "Point" or "Polygon".
        bounds: west, south, east, north of all rows, where known.
    """
    column: dict[str, Any] = {"encoding": "WKB", "geometry_types": [kind], "crs": _degrees()}
    if bounds is not None:
        column["bbox"] = [float(value) for value in bounds]
    about = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}
    return {b"geo": json.dumps(about).encode()}


@cache
def _degrees() -> dict[str, Any]:
    """EPSG:4326 as PROJJSON."""
    found: dict[str, Any] = CRS.from_epsg(4326).to_json_dict()
    return found
