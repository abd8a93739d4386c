"""The round earth: outlines in longitude and latitude that the antimeridian or a pole cuts, and rasters across it.

Outlines lie within -180 to 180 degrees. One that crosses the antimeridian is a MultiPolygon with a part on either
side, as GeoJSON (RFC 7946) asks, so that a photo at 179.9 and one at -179.9 both intersect it; a spatial index that
knows bounding boxes alone finds it for every longitude, so ask for `intersects`, not for boxes.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from shapely.affinity import translate

from geograft.raster.grids import to_degrees

EDGE = 20037508.342789244
"""Half the width of the Web Mercator square, metres."""

_STEPS = 24
"""Points along a side of an outline: projected sides are curves in degrees."""
_WORLD = shapely.box(-180, -90, 180, 90)


def footprint(geobox: GeoBox) -> Any:
    """The outline of a grid on the ground in longitude and latitude, a shapely Polygon or MultiPolygon.

    It lies within -180 to 180 degrees; across the antimeridian it has a part on either side, and around a pole it
    reaches the pole.
    """
    lon, lat = _to_degrees(geobox, *_edge(geobox, 0 if geobox.crs.geographic else _STEPS))
    if not geobox.crs.geographic:
        lon = _unwrapped(lon)
    return wrapped(shapely.Polygon(_over_pole(lon, lat)))


def mended(geometry: Any) -> Any:
    """A stated outline within -180 to 180 degrees: parts that jump across the antimeridian are cut there.

    Args:
        geometry: lon, lat as a catalogue gives them: cut already, running beyond 180, or jumping from 179 to -179.
    """
    parts = shapely.get_parts(geometry)
    whole = [shapely.Polygon(_unjumped(shapely.get_coordinates(shapely.get_exterior_ring(part)))) for part in parts]
    return wrapped(shapely.union_all([shapely.make_valid(part) for part in whole]))


def box_of(bounds: Sequence[float]) -> Any:
    """The outline of west, south, east, north in degrees; west > east means across the antimeridian."""
    west, south, east, north = bounds
    return wrapped(shapely.box(west, south, east + 360 if west > east else east, north))


def wrapped(geometry: Any) -> Any:
    """A geometry that may run beyond 180 degrees, brought within -180 to 180, cut at the antimeridian."""
    west, _, east, _ = geometry.bounds
    if west >= -180 and east <= 180:
        return geometry
    turns_ = range(int((west + 180) // 360), int((east + 180) // 360) + 1)
    parts = [translate(geometry, -360 * turn).intersection(_WORLD) for turn in turns_]
    areas = [each for part in parts for each in shapely.get_parts(part) if each.area > 0]
    return areas[0] if len(areas) == 1 else shapely.MultiPolygon(areas)


def turns(file: Any, geobox: GeoBox) -> tuple[float, ...]:
    """How far east a file is moved, in its own units, so that a grid near its seam finds all its pixels; 0 first.

    Only files in degrees or in Web Mercator have a seam, and only grids that reach 180 degrees meet it.
    """
    unit = 360.0 if file.crs.is_geographic else 2 * EDGE if file.crs.to_epsg() == 3857 else None
    if unit is None or geobox.crs.geographic or geobox.crs.epsg == 3857:
        return (0.0,)
    lon, _ = _to_degrees(geobox, *_edge(geobox, 2))
    return (0.0,) if np.ptp(lon) < 180 and np.abs(lon).max() < 179.9 else (0.0, unit, -unit)


def mercator_bounds(geobox: GeoBox) -> tuple[float, float, float, float]:
    """Left, bottom, right and top of a grid in Web Mercator metres.

    Left or right runs beyond the square's edge where the grid crosses the antimeridian.
    """
    if geobox.crs.epsg == 3857:
        box = geobox.boundingbox
        return box.left, box.bottom, box.right, box.top
    lon, lat = _to_degrees(geobox, *_edge(geobox, 4))
    x = _unwrapped(lon) * (EDGE / 180)
    y = np.arcsinh(np.tan(np.radians(np.clip(lat, -85.06, 85.06)))) * (EDGE / np.pi)
    return float(x.min()), float(y.min()), float(x.max()), float(y.max())


def _edge(geobox: GeoBox, steps: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The closed edge of a grid in its own CRS, with points between the corners."""
    height, width = geobox.shape
    ahead = np.arange(steps + 1) / (steps + 1)
    back, none, one = 1 - ahead, np.zeros(len(ahead)), np.ones(len(ahead))
    column = np.concatenate([ahead, one, back, none, [0.0]]) * width
    row = np.concatenate([none, ahead, one, back, [0.0]]) * height
    x, y = geobox.affine @ (column, row)
    return np.asarray(x), np.asarray(y)


def _to_degrees(geobox: GeoBox, x: NDArray[Any], y: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Points of a grid's CRS in longitude and latitude (WGS 84)."""
    if geobox.crs.epsg == 4326:
        return x, y
    lon, lat = to_degrees(str(geobox.crs)).transform(x, y)
    return np.asarray(lon), np.asarray(lat)


def _unwrapped(lon: NDArray[Any]) -> NDArray[Any]:
    """Longitudes along a line without jumps from 180 to -180."""
    steps = (np.diff(lon) + 180) % 360 - 180
    return np.concatenate([lon[:1], lon[0] + np.cumsum(steps)])


def _over_pole(lon: NDArray[Any], lat: NDArray[Any]) -> NDArray[np.float64]:
    """The ring of an outline; one that goes once around the earth is closed over the pole that it surrounds."""
    points = np.column_stack([lon, lat])
    if abs(lon[-1] - lon[0]) < 180:
        points[-1] = points[0]  # the same but for rounding, which would make the ring cross itself
        return points
    pole = 90.0 if lat.mean() > 0 else -90.0
    return np.concatenate([points, [[lon[-1], pole], [lon[0], pole]]])


def _unjumped(points: NDArray[Any]) -> NDArray[Any]:
    """A stated ring without jumps of more than half the earth; a step of the whole earth is a side of a world map."""
    step = np.diff(points[:, 0])
    jump = (np.abs(step) > 180) & (np.abs(step) < 359.9)
    moved = np.concatenate([[0.0], np.cumsum(np.where(jump, -360 * np.sign(step), 0.0))])
    return np.column_stack([points[:, 0] + moved, points[:, 1]])
