"""Which scenes hold a chip, and which of them to try first."""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import shapely
from numpy.typing import NDArray
from pyproj import Transformer

from geograft.errors import BadSetting, SceneTooSmall, UnreadableScene
from geograft.pairs.filters import seconds
from geograft.pairs.grid import Floats, Grid, Ints, Places, groups
from geograft.raster import Scene, open_scene
from geograft.sensors import Sensor, get_sensor

logger = logging.getLogger(__name__)

MAX_TRIES = 16
"""The most scenes that are tried for one chip."""

_TOLERANCE_PX = 1e-3


@dataclass(frozen=True)
class SceneSet:
    """The scenes of one sensor, opened.

    Attributes:
        table: scene_id, geometry, uri, sensor, taken, ...; sorted by scene_id.
        scenes: one a row.
        sensor: of all.
        skipped: number of scenes left out, by reason.
    """

    table: pd.DataFrame
    scenes: tuple[Scene, ...]
    sensor: Sensor
    skipped: dict[str, int]

    @cached_property
    def by_id(self) -> dict[str, Scene]:
        """Scenes by scene_id."""
        return dict(zip(self.table["scene_id"], self.scenes, strict=True))

    def refuse_too_small(self, grid: Grid) -> None:
        """Refuse a chip size that no scene can hold.

        Raises:
            SceneTooSmall: every scene is narrower or lower than a chip.
        """
        sides = [min(scene.geobox.shape) * scene.gsd for scene in self.scenes]
        if max(sides) < grid.extent * 0.999:
            raise SceneTooSmall(
                f"A chip of {grid.size} px at {grid.gsd:g} m is {grid.extent:g} m wide, but the largest scene is "
                f"{max(sides):.0f} m: choose a smaller chip size or gsd."
            )

    def on_any(self, places: Places) -> NDArray[np.bool_]:
        """Whether each point lies in the footprint of a scene, (N,)."""
        rows, _ = self._tree.query(shapely.points(places.lon, places.lat), predicate="intersects")
        found = np.zeros(len(places.lon), np.bool_)
        found[rows] = True
        return found

    def holding(self, centres: Places, boxes: "Boxes") -> pd.DataFrame:
        """Every (box, scene) where a whole chip lies on the scene.

        Args:
            centres: a point inside each box, (N,).
            boxes: the chips.

        Returns:
            box and scene, row numbers of boxes and scenes; sorted by both.
        """
        points = shapely.points(centres.lon, centres.lat)
        box, scene = self._tree.query(points, predicate="intersects")
        found = pd.DataFrame({"box": box.astype(np.int64), "scene": scene.astype(np.int64)})
        keep = np.zeros(len(found), np.bool_)
        for number, rows in groups(found["scene"].to_numpy()):
            keep[rows] = _fits(self.scenes[number], boxes, found["box"].to_numpy()[rows])
        return found[keep].sort_values(["box", "scene"], ignore_index=True)

    @cached_property
    def _tree(self) -> Any:
        return shapely.STRtree(np.asarray(self.table["geometry"].array))


@dataclass(frozen=True)
class Boxes:
    """Chip outlines in metric CRS.

    Attributes:
        epsg: (N,).
        left: metres, (N,).
        top: metres, (N,).
        extent: side in metres.
    """

    epsg: Ints
    left: Floats
    top: Floats
    extent: float


def open_scenes(table: pd.DataFrame, sensor: str | None) -> SceneSet:
    """Open the scenes of one sensor.

    Args:
        table: scene_id, geometry, uri, sensor, taken.
        sensor: the wanted one; may be None where the table has only one.

    Raises:
        UnknownSensor: the table or the setting names a sensor that nobody knows.
        BadSetting: the table has several sensors and none was chosen, or has none of the wanted.
        UnreadableScene: no scene can be opened.
    """
    chosen = _choose_sensor(table["sensor"].dropna().unique().tolist(), sensor)
    table = unique_ids(table[table["sensor"] == chosen.name])
    opened = [_open(uri, chosen) for uri in table["uri"]]
    whole = [scene is not None for scene in opened]
    if not any(whole):
        raise UnreadableScene(
            f"None of the {len(table)} scenes of {chosen.name} can be read, the first is {table['uri'].iloc[0]}: "
            "check the paths, and make the scene table again."
        )
    skipped = {"unreadable-scene": len(whole) - sum(whole)} if not all(whole) else {}
    scenes = tuple(scene for scene in opened if scene is not None)
    return SceneSet(table[whole].reset_index(drop=True), scenes, chosen, skipped)


def unique_ids(table: pd.DataFrame) -> pd.DataFrame:
    """Scenes sorted by id, each file once; scenes of several regions that share an id get one each.

    The suffix is made of the footprint, so it does not depend on where the files lie.
    """
    table = table.sort_values(["scene_id", "uri"]).drop_duplicates("uri", ignore_index=True)
    shared = table["scene_id"].duplicated(keep=False)
    if not shared.any():
        return table
    outline = [hashlib.sha256(shape.wkb).hexdigest()[:8] for shape in table["geometry"]]
    ids = table["scene_id"].astype(str) + np.where(shared, "@" + np.array(outline, dtype=object), "")
    again = ids.groupby(ids).cumcount()
    ids = ids + np.where(again > 0, "." + again.astype(str), "")
    return table.assign(scene_id=ids).sort_values("scene_id", ignore_index=True)


def _choose_sensor(found: Sequence[str], wanted: str | None) -> Sensor:
    """The sensor to cut chips of."""
    for name in found:
        get_sensor(name)
    if wanted is not None:
        sensor = get_sensor(wanted)
        if sensor.name not in found:
            raise BadSetting(f"No scene is of the sensor {sensor.name}; the table has {', '.join(sorted(found))}.")
        return sensor
    if len(found) != 1:
        raise BadSetting(f"The scenes are of several sensors ({', '.join(sorted(found))}): choose one by `sensor`.")
    return get_sensor(found[0])


def _open(uri: str, sensor: Sensor) -> Scene | None:
    """A scene, or None with a note in the log where it cannot be read."""
    from geograft.errors import GeograftError

    try:
        return open_scene(uri, sensor=sensor)
    except GeograftError as error:
        logger.warning("Scene left out: %s", error)
        return None


def _fits(scene: Scene, boxes: Boxes, rows: Ints) -> NDArray[np.bool_]:
    """Whether boxes lie wholly on a scene's grid."""
    inverse = ~scene.geobox.affine
    height, width = scene.geobox.shape
    fits = np.ones(len(rows), np.bool_)
    for zone, group in groups(boxes.epsg[rows]):
        to_scene = Transformer.from_crs(zone, scene.geobox.crs.to_wkt(), always_xy=True)
        for right, down in ((0, 0), (1, 0), (1, 1), (0, 1)):
            east = boxes.left[rows[group]] + right * boxes.extent
            north = boxes.top[rows[group]] - down * boxes.extent
            x, y = to_scene.transform(east, north)
            column, row = inverse.a * x + inverse.b * y + inverse.c, inverse.d * x + inverse.e * y + inverse.f
            fits[group] &= (column >= -_TOLERANCE_PX) & (column <= width + _TOLERANCE_PX)
            fits[group] &= (row >= -_TOLERANCE_PX) & (row <= height + _TOLERANCE_PX)
    return fits


def rank(held: pd.DataFrame, table: pd.DataFrame, middle: Floats) -> list[list[str]]:
    """The scenes to try for each chip, best first.

    The scene nearest in time to the chip's photos comes first. Where times are unknown, or equal, the scene with
    fewer clouds as a whole, then the smaller scene_id.

    Args:
        held: box, scene (see `SceneSet.holding`).
        table: the scene table, sorted by scene_id.
        middle: the median time of each box's photos (seconds since 1970, NaN where unknown), (N,).

    Returns:
        At most `MAX_TRIES` scene ids for each of the N boxes.
    """
    box, scene = held["box"].to_numpy(np.int64), held["scene"].to_numpy(np.int64)
    gap = np.abs(seconds(table["taken"])[scene] - middle[box])
    clouds = np.zeros(len(table))
    if "cloud_share" in table:
        clouds = table["cloud_share"].fillna(0.0).to_numpy(np.float64)
    order = np.lexsort((scene, clouds[scene], np.where(np.isnan(gap), np.inf, gap), box))
    names = table["scene_id"].to_numpy(object)[scene[order]].tolist()
    ends = np.searchsorted(box[order], np.arange(len(middle) + 1)).tolist()
    return [names[a : min(b, a + MAX_TRIES)] for a, b in pairwise(ends)]
