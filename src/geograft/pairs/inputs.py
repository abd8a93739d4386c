"""Photo and scene tables in: joined, checked, and reduced to the photos that may be used."""

from collections.abc import Sequence
from pathlib import Path

import geopandas as gpd
import pandas as pd

from geograft.errors import EmptyTable, MissingColumns, UnreadableTable
from geograft.models.teacher import Teacher, load_teacher
from geograft.pairs.filters import keep_usable
from geograft.pairs.indoor import IndoorCheck, keep_outdoor
from geograft.pairs.settings import PairSettings, Tally, reasons
from geograft.tables import read_table

PHOTO_COLUMNS = (
    "photo_id", "geometry", "accuracy_m", "heading_deg", "fov_deg", "taken", "user", "licence", "uri", "width",
    "height", "source", "tags", "place",
)  # fmt: skip
"""The photo table's columns; those after `uri`, and `fov_deg`, may be absent."""

NEEDED_PHOTO = ("photo_id", "geometry", "accuracy_m", "heading_deg", "taken", "user", "licence", "uri")
NEEDED_SCENE = ("scene_id", "geometry", "uri", "sensor", "taken")


def as_paths(given: Path | str | Sequence[Path]) -> list[Path]:
    """One or several paths as a list."""
    return [Path(given)] if isinstance(given, (str, Path)) else [Path(path) for path in given]


def join_tables(paths: Sequence[Path], needed: Sequence[str], optional: Sequence[str]) -> gpd.GeoDataFrame:
    """Tables as one, in degrees, with all the columns that are known."""
    if not paths:
        raise EmptyTable("No table was named: give at least one photo table and one scene table.")
    tables = []
    for path in paths:
        table = read_table(path)
        if missing := [name for name in needed if name not in table.columns]:
            raise MissingColumns(f"{path} has no column {', '.join(missing)}: make it with `geograft photos` or "
                                 "`geograft scenes`.")  # fmt: skip
        if not isinstance(table, gpd.GeoDataFrame) or table.crs is None:
            raise UnreadableTable(f"{path} is no GeoParquet with a CRS: make it with `geograft photos` or "
                                  "`geograft scenes`.")  # fmt: skip
        extra = {name: None for name in optional if name not in table.columns}
        tables.append(table.assign(**extra).to_crs(4326))
    tables = [table for table in tables if len(table)] or tables[:1]
    joined = pd.concat(tables, ignore_index=True)
    if joined.empty:
        raise EmptyTable(f"{', '.join(map(str, paths))} has no rows: read photos and scenes into the tables first.")
    return joined


def usable_photos(
    table: gpd.GeoDataFrame, out: Path, settings: PairSettings, teacher: Teacher | None, tally: Tally
) -> gpd.GeoDataFrame:
    """The photos that may be used, sorted by id, with lon and lat."""
    table = table.assign(photo_id=table["photo_id"].astype(str), lon=table.geometry.x, lat=table.geometry.y)
    table = table.sort_values(["photo_id", "lon", "lat", "uri"], ignore_index=True)
    table, refused = keep_usable(table, licences=settings.licences, max_accuracy_m=settings.max_accuracy_m)
    tally.photos.update(refused)
    if settings.split == "place":
        table = _with_place(table, tally)
    if teacher is None and settings.indoor_teacher is not None:
        teacher = load_teacher(settings.indoor_teacher)
    if teacher is not None and len(table):
        check = IndoorCheck(teacher, settings.indoor_margin)
        table, refused = keep_outdoor(table, check, out)
        tally.photos.update(refused)
        tally.about["indoor"] = check.about
    if table.empty:
        raise EmptyTable(f"No photo may be used ({reasons(tally.photos)}): relax licences, accuracy or indoor_margin.")
    return table


def _with_place(table: gpd.GeoDataFrame, tally: Tally) -> gpd.GeoDataFrame:
    """The photos that say which place they belong to."""
    known = table["place"].notna()
    if len(table) and not known.any():
        raise MissingColumns("Split by place needs the photo table's column `place`: fill it, or split by blocks.")
    tally.photos["no-place"] += int((~known).sum())
    return table[known].reset_index(drop=True)
