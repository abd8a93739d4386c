"""Point geometries of tables: out of WKB or GeoArrow in any coordinate reference system."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import shapely
from numpy.typing import NDArray
from pyproj import CRS, Transformer

from geograft.errors import BadCoordinates, UnreadableTable
from geograft.sources.reading.columns import GEOMETRY

Degrees = NDArray[np.float64]


class Geometry:
    """The point column of a table, and how it becomes degrees.

    Args:
        column: its name.
        crs: what its coordinates mean.
        encoding: `WKB`, or `point` for GeoArrow's structs of x and y.
    """

    def __init__(self, column: str, crs: CRS, encoding: str = "WKB") -> None:
        self.column = column
        self._native = encoding.lower() == "point"
        self._to_degrees = None if crs.equals(CRS(4326), ignore_axis_order=True) else _to_degrees(crs)

    def degrees(self, table: pa.Table) -> pa.Table:
        """A table with the columns of `GEOMETRY` in the place of its geometry; NaN where it is no point."""
        cells = table[self.column].combine_chunks()
        x, y = _native(cells) if self._native else _from_wkb(cells)
        if self._to_degrees is not None:
            x, y = self._to_degrees.transform(x, y)
        x, y = (np.where(np.isfinite(value), value, np.nan) for value in (x, y))
        table = table.drop_columns([self.column])
        return table.append_column(GEOMETRY["lon"], pa.array(x)).append_column(GEOMETRY["lat"], pa.array(y))


def _to_degrees(crs: CRS) -> Transformer:
    """What turns coordinates into longitudes and latitudes."""
    return Transformer.from_crs(crs, 4326, always_xy=True)


def _from_wkb(cells: pa.Array) -> tuple[Degrees, Degrees]:
    """Coordinates of WKB points, NaN for anything else, (N,) each."""
    points = shapely.from_wkb(cells.to_numpy(zero_copy_only=False), on_invalid="ignore")
    points[shapely.is_empty(points)] = None
    return shapely.get_x(points), shapely.get_y(points)


def _native(cells: pa.Array) -> tuple[Degrees, Degrees]:
    """Coordinates of GeoArrow points, (N,) each."""
    x, y = (pc.struct_field(cells, name).to_numpy(zero_copy_only=False) for name in ("x", "y"))
    return np.asarray(x, np.float64), np.asarray(y, np.float64)


def parquet_geometry(schema: Any, path: Path) -> Geometry | None:
    """The geometry of a Parquet file, by its GeoParquet metadata; None where it has none.

    Raises:
        BadCoordinates: the file says that it does not know what its coordinates mean.
        UnreadableTable: the metadata is broken.
    """
    geo = (schema.metadata or {}).get(b"geo")
    if geo is None:
        return None
    try:
        about = json.loads(geo)
        name = about["primary_column"]
        column = about["columns"][name]
        crs = column.get("crs", "OGC:CRS84")  # the specification's default where the key is absent
        return Geometry(name, known_crs(crs, path), column.get("encoding", "WKB"))
    except (ValueError, KeyError, TypeError) as error:
        raise UnreadableTable(f"{path} has broken GeoParquet metadata ({error}): write it again.") from error


def known_crs(crs: Any, path: Path) -> CRS:
    """A coordinate reference system.

    Raises:
        BadCoordinates: there is none, or none that is known.
    """
    if not crs:
        raise BadCoordinates(
            f"{path} does not say which coordinate reference system its points have: write it again with one, "
            'such as `table.set_crs("EPSG:4326")` in geopandas.'
        )
    try:
        return CRS.from_user_input(crs)
    except Exception as error:
        raise BadCoordinates(
            f"{path} names a coordinate reference system that is not known ({error}): write it again in EPSG:4326."
        ) from error
