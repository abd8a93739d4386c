"""What a plan is made of: tables read, photos that may be used, settings, and a tally of what was left out."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import geopandas as gpd

from geograft.errors import MissingColumns
from geograft.models.teacher import Teacher
from geograft.pairs.grid import Grid
from geograft.pairs.planning.indoor import IndoorCheck, outdoor
from geograft.pairs.planning.inputs import read_scene_tables
from geograft.pairs.planning.intake import Photos, read_photos
from geograft.pairs.planning.record import plan_folder
from geograft.pairs.settings import PairSettings, Tally
from geograft.sensors import Sensor


@dataclass(frozen=True)
class Job:
    """What a plan is made of.

    Attributes:
        folder: the plan's.
        inputs: photo and scene tables.
        photos: those that may be used.
        scenes: of one sensor, sorted by scene_id.
        sensor: theirs.
        grid: the chips' size and sampling.
        settings: how.
        tally: what was left out so far.
    """

    folder: Path
    inputs: Mapping[str, list[Path]]
    photos: Photos
    scenes: gpd.GeoDataFrame
    sensor: Sensor
    grid: Grid
    settings: PairSettings
    tally: Tally

    @property
    def work(self) -> Path:
        """What a killed run goes on from."""
        return self.folder / ".work"


def read_job(photos: list[Path], scenes: list[Path], out: Path, settings: PairSettings) -> Job:
    """Read the tables."""
    tally = Tally()
    sensor, table = read_scene_tables(scenes, settings.sensor)
    grid = Grid(settings.chip_size, sensor.gsd if settings.gsd is None else settings.gsd)
    found = read_photos(photos, seed=settings.seed, skipped=tally.photos)
    if settings.split == "place":
        found = _with_place(found, tally)
    inputs = {"photos": photos, "scenes": scenes}
    return Job(plan_folder(out), inputs, found, table, sensor, grid, settings, tally)


def without_indoor(job: Job, out: Path, teacher: Teacher) -> Job:
    """The same of outdoor photos only."""
    check = IndoorCheck(teacher, job.settings.indoor_margin)
    photos = outdoor(job.photos, job.inputs["photos"], out, check, job.tally)
    return replace(job, photos=photos)


def _with_place(photos: Photos, tally: Tally) -> Photos:
    """The photos that say which place they belong to."""
    known = photos.place >= 0
    if not known.any():
        raise MissingColumns("Split by place needs the photo table's column `place`: fill it, or split by blocks.")
    tally.photos["no-place"] += int((~known).sum())
    return photos if known.all() else photos.take(known)
