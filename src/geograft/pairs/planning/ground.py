"""What ground the scenes cover, told from the scene table alone: no file is opened to plan.

A chip lies on the ground where one scene holds it whole, or several together do. Longitudes are unrolled: a footprint
that crosses the antimeridian runs beyond 180 degrees, and every scene near it stands on both sides.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import shapely
from numpy.typing import NDArray

from geograft.pairs.grid import Floats, Ints
from geograft.pairs.planning.arrays import load_arrays, save_arrays
from geograft.pairs.times import microseconds

Bools = NDArray[np.bool_]

CHUNK = 50_000
"""Chips that are looked up at once, so that archives of hundreds of dates do not fill the memory."""

DEGREE = 111_000
"""Metres along a degree of latitude, nearly."""


@dataclass(frozen=True)
class Ground:
    """The footprints of scenes of one sensor.

    Attributes:
        number: the row of the whole scene table, ascending, (S,).
        shapes: footprints in degrees, unrolled, (S,).
        taken: microseconds since 1970, `times.NEVER` where unknown, (S,).
        clouds: cloud_share, 0 where unknown, (S,).
    """

    number: Ints
    shapes: NDArray[np.object_]
    taken: Ints
    clouds: Floats

    @classmethod
    def of(cls, table: gpd.GeoDataFrame) -> "Ground":
        """The ground of a scene table that is sorted by scene_id."""
        clouds = table["cloud_share"].to_numpy(np.float64) if "cloud_share" in table else np.zeros(len(table))
        shapes = np.asarray(table.geometry.array)
        return cls(np.arange(len(table)), unrolled(shapes), microseconds(table["taken"]), np.nan_to_num(clouds))

    def take(self, rows: Ints) -> "Ground":
        """Some of the scenes."""
        return Ground(self.number[rows], self.shapes[rows], self.taken[rows], self.clouds[rows])

    def near(self, lon: Floats, lat: Floats, margin: float) -> "Ground":
        """The scenes whose bounds come within about a margin in metres of the bounds of points."""
        high = 1.1 * margin / DEGREE
        wide = high / max(np.cos(np.radians(min(85.0, np.abs(lat).max() + high))), 0.05)
        west, south, east, north = self._bounds.T
        level = (south <= lat.max() + high) & (north >= lat.min() - high)
        beside = [
            (west + turn <= lon.max() + wide) & (east + turn >= lon.min() - wide) for turn in (-360.0, 0.0, 360.0)
        ]
        return self.take(np.flatnonzero(level & np.logical_or.reduce(beside)))

    def save(self, path: Path) -> None:
        """Write the ground for a worker."""
        wkb = shapely.to_wkb(self.shapes)
        size = np.array([len(one) for one in wkb], np.int64)
        data = np.frombuffer(b"".join(wkb), np.uint8)
        save_arrays(path, number=self.number, taken=self.taken, clouds=self.clouds, size=size, wkb=data)

    @classmethod
    def load(cls, path: Path) -> "Ground":
        """What `save` wrote."""
        with load_arrays(path) as file:
            ends, data = np.cumsum(file["size"]), file["wkb"].tobytes()
            spans = zip((ends - file["size"]).tolist(), ends.tolist(), strict=True)
            shapes = shapely.from_wkb(np.array([data[start:stop] for start, stop in spans], dtype=object))
            return cls(file["number"], shapes, file["taken"], file["clouds"])

    @cached_property
    def _bounds(self) -> Floats:
        return np.asarray(shapely.bounds(self.shapes))

    def on_any(self, lon: Floats, lat: Floats) -> Bools:
        """Whether each point lies on a scene, (N,)."""
        found = np.zeros(len(lon), np.bool_)
        for start in range(0, len(lon), CHUNK):
            points = shapely.points(lon[start : start + CHUNK], lat[start : start + CHUNK])
            rows, _ = self._outlines.query(points, predicate="intersects")
            found[start + rows] = True
        return found

    def holds(self, corners: Floats, seam: float) -> Bools:
        """Whether squares lie wholly on one scene or on several together, (N,).

        Args:
            corners: of the squares, (N, 4, 2) in degrees.
            seam: metres; see `joined`.
        """
        found = np.zeros(len(corners), np.bool_)
        for start in range(0, len(corners), CHUNK):
            found[start : start + CHUNK] = self._holds(shapely.polygons(corners[start : start + CHUNK]), seam)
        return found

    def _holds(self, squares: NDArray[np.object_], seam: float) -> Bools:
        found = np.zeros(len(squares), np.bool_)
        whole, _ = self._outlines.query(squares, predicate="covered_by")
        found[whole] = True
        rest = np.flatnonzero(~found)
        row, outline = self._outlines.query(squares[rest], predicate="intersects")
        shapes = self._outlines.geometries
        for rows, members in _same_sets(row, outline):
            union = joined(shapes[list(members)], seam)
            found[rest[rows]] = shapely.covers(union, squares[rest[rows]])
        return found

    def met(self, corners: Floats, predicate: str) -> tuple[Ints, Ints]:
        """(square, scene) of squares, (N, 4, 2) in degrees, that touch or are covered by a scene, each once.

        Args:
            corners: of the squares.
            predicate: "intersects" or "covered_by".
        """
        tree, scene_of = self.tree
        square, shape = tree.query(shapely.polygons(corners), predicate=predicate)
        square, scene = square.astype(np.int64), scene_of[shape]
        if len(scene_of) == len(self.shapes):
            return square, scene
        keys = np.unique(square * len(self.shapes) + scene)
        return keys // len(self.shapes), keys % len(self.shapes)

    @cached_property
    def tree(self) -> tuple[Any, Ints]:
        """A tree of the footprints, each on both sides of the antimeridian where it comes near; the scene of each."""
        shapes, scene_of = mirrored(self.shapes)
        return shapely.STRtree(shapes), scene_of

    @cached_property
    def outline(self) -> Ints:
        """A number for each scene, the same where footprints are the same, (S,)."""
        return np.unique(shapely.to_wkb(self.shapes, hex=True), return_inverse=True)[1].astype(np.int64)

    @cached_property
    def _outlines(self) -> Any:
        """A tree of the distinct footprints, on both sides of the antimeridian."""
        distinct = np.unique(self.outline, return_index=True)[1]
        return shapely.STRtree(mirrored(self.shapes[distinct])[0])


def _same_sets(row: Ints, member: Ints) -> Iterable[tuple[Ints, tuple[int, ...]]]:
    """Rows that have the same two or more members, with these."""
    if not len(row):
        return ()
    order = np.lexsort((member, row))
    rows, starts = np.unique(row[order], return_index=True)
    sets: dict[tuple[int, ...], list[int]] = {}
    for one, members in zip(rows.tolist(), np.split(member[order], starts[1:]), strict=True):
        if len(members) > 1:
            sets.setdefault(tuple(members.tolist()), []).append(one)
    return ((np.array(found), members) for members, found in sets.items())


def joined(shapes: NDArray[np.object_], seam: float) -> Any:
    """The ground of several shapes together, prepared for questions.

    Neighbours whose edges were computed apart leave cracks of a last digit between them, or slivers where the points
    along a common edge differ; both are closed.

    Args:
        shapes: in degrees.
        seam: half the width in metres of a crack that is closed.
    """
    reach = seam / DEGREE
    grown = shapely.union_all(shapely.buffer(shapes, reach, join_style="mitre"))
    union = shapely.buffer(grown, -reach, join_style="mitre")
    shapely.prepare(union)
    return union


def bend(side: float) -> float:
    """How far a side of so many metres on the grid bends at most beside one that is straight in degrees, metres."""
    return side**2 / 5e6  # by 8 earth radii over the tangent of 84 degrees


def unrolled(shapes: NDArray[np.object_]) -> NDArray[np.object_]:
    """Footprints, those on both sides of the antimeridian made one that runs beyond 180 degrees."""
    bounds = shapely.bounds(shapes)
    out = shapes.copy()
    for row in np.flatnonzero((bounds[:, 0] <= -179.9) & (bounds[:, 2] >= 179.9)):
        parts = shapely.get_parts(shapes[row])
        west, _, east, _ = shapely.bounds(parts).T
        turned = [_turned(part, 360) for part in parts[(east < 0) | (west <= -179.9)]]
        out[row] = shapely.union_all([*parts[east >= 0], *turned])
    return out


def _turned(shape: Any, degrees: float) -> Any:
    """A shape so many degrees further east."""
    return shapely.transform(shape, lambda xy: xy + np.array([degrees, 0.0]))


def mirrored(shapes: NDArray[np.object_]) -> tuple[NDArray[np.object_], Ints]:
    """Shapes, and those near the antimeridian a turn further too; and the row that each came of."""
    bounds = shapely.bounds(shapes)
    west, east = np.flatnonzero(bounds[:, 0] < -170), np.flatnonzero(bounds[:, 2] > 170)
    rows = np.concatenate([np.arange(len(shapes)), west, east])
    if len(rows) == len(shapes):
        return shapes, rows
    moved = [*(_turned(shape, 360) for shape in shapes[west]), *(_turned(shape, -360) for shape in shapes[east])]
    return np.array([*shapes, *moved], dtype=object), rows
