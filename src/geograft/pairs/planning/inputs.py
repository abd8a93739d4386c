"""Scene tables in: joined, of one sensor, each scene once."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import geopandas as gpd
import pandas as pd

from geograft.errors import BadSetting, EmptyTable, MissingColumns, UnreadableTable
from geograft.sensors import Sensor, get_sensor
from geograft.tables import read_table

NEEDED_SCENE = ("scene_id", "geometry", "uri", "sensor", "taken")


def as_paths(given: Path | str | Sequence[Path]) -> list[Path]:
    """One or several paths as a list."""
    return [Path(given)] if isinstance(given, (str, Path)) else [Path(path) for path in given]


def read_scene_tables(paths: Sequence[Path], sensor: str | None) -> tuple[Sensor, gpd.GeoDataFrame]:
    """The scenes of one sensor, sorted by scene_id, footprints in degrees.

    Args:
        paths: scene tables.
        sensor: the wanted one; may be None where the tables have only one.

    Raises:
        MissingInput, UnreadableTable, MissingColumns: a table is absent, damaged, or lacks columns.
        EmptyTable: there are no scenes.
        UnknownSensor: a table or the setting names a sensor that nobody knows.
        BadSetting: the tables have several sensors and none was chosen, or have none of the wanted.
    """
    if not paths:
        raise EmptyTable("No table was named: give at least one photo table and one scene table.")
    tables = [table for table in map(_read, paths) if len(table)]
    if not tables:
        raise EmptyTable(f"{', '.join(map(str, paths))} has no rows: read scenes into the table first.")
    joined = pd.concat(tables, ignore_index=True)
    chosen = _choose_sensor(joined["sensor"].dropna().unique().tolist(), sensor)
    return chosen, unique_ids(joined[joined["sensor"].isin({chosen.name, sensor or chosen.name})])


def _read(path: Path) -> gpd.GeoDataFrame:
    """A scene table, in degrees; see `read_scene_tables`."""
    table = read_table(path)
    if missing := [name for name in NEEDED_SCENE if name not in table.columns]:
        raise MissingColumns(f"{path} has no column {', '.join(missing)}: make it with `geograft scenes`.")
    if not isinstance(table, gpd.GeoDataFrame) or table.crs is None:
        raise UnreadableTable(f"{path} is no GeoParquet with a CRS: make it with `geograft scenes`.")
    if (table.geometry.isna() | table.geometry.is_empty).any():
        raise UnreadableTable(f"{path} has scenes without a footprint: make it with `geograft scenes`.")
    return table.to_crs(4326)


def unique_ids(table: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    """Scenes sorted by id, each once; scenes of several regions that share an id get one each.

    Tiles of one address that were read for two regions are two scenes. The suffix of a shared id is made of the
    footprint, so it does not depend on where the files lie.
    """
    outline = [hashlib.sha256(shape).hexdigest()[:8] for shape in table.geometry.to_wkb()]
    order = ["scene_id", "uri", "@outline", *(name for name in ("taken", "cloud_share", "gsd") if name in table)]
    table = table.assign(**{"@outline": outline}).sort_values(order)
    table = table.drop_duplicates(["uri", "@outline"], ignore_index=True)
    shared, outline = table["scene_id"].duplicated(keep=False), table.pop("@outline")
    if not shared.any():
        return table
    ids = table["scene_id"].astype(str) + ("@" + outline).where(shared, "")
    again = ids.groupby(ids).cumcount()
    ids += ("." + again.astype(str)).where(again > 0, "")
    return table.assign(scene_id=ids).sort_values("scene_id", ignore_index=True)


def _choose_sensor(found: Sequence[str], wanted: str | None) -> Sensor:
    """The sensor to cut chips of."""
    for name in found:
        get_sensor(name)
    if wanted is not None:
        sensor = get_sensor(wanted)
        if not {sensor.name, wanted} & set(found):
            raise BadSetting(f"No scene is of the sensor {sensor.name}; the table has {', '.join(sorted(found))}.")
        return sensor
    if len(found) != 1:
        raise BadSetting(f"The scenes are of several sensors ({', '.join(sorted(found))}): choose one by `sensor`.")
    return get_sensor(found[0])
