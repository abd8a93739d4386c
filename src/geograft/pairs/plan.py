"""From a photo table and a scene table to a plan: which chips to cut of which scenes, and which photos lie in each.

The stages, each counted in the manifest: photos without a position are left out (`intake`), indoor ones where a teacher
is named (`indoor`); the rest are covered by chips on the UTM grid, zone by zone (`covering`), where scenes hold a whole
chip (`survey`, `stacks`); chips are thinned where they are dense (`draft`) and divided by place (`dividing`).

No scene is opened to plan. The plan depends on the rows of the tables, not on their order, nor on the engine, the
number of workers, or on how often a run was killed.
"""

import logging
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np

from geograft.engine import Engine, open_engine
from geograft.errors import EmptyTable, MissingColumns, NoPairs, SceneTooSmall
from geograft.hashing import hash_ids
from geograft.models.teacher import Teacher, load_teacher
from geograft.pairs.grid import Grid
from geograft.pairs.materialise import materialise
from geograft.pairs.planning.arrays import save_arrays
from geograft.pairs.planning.covering import ZoneTask, plan_zone
from geograft.pairs.planning.dividing import divide
from geograft.pairs.planning.draft import Draft, Sieve, counts_by_zone, density_cap, gather
from geograft.pairs.planning.ground import Ground
from geograft.pairs.planning.indoor import IndoorCheck, outdoor
from geograft.pairs.planning.inputs import as_paths, read_scene_tables
from geograft.pairs.planning.intake import Photos, read_photos
from geograft.pairs.planning.photo_rows import Dealt
from geograft.pairs.planning.plan_files import shard_starts, write_chips, write_pairs, write_scenes
from geograft.pairs.planning.record import Planned, is_planned, plan_digest, plan_folder, read_summary, write_record
from geograft.pairs.planning.split import SPLITS, count_by_split
from geograft.pairs.planning.survey import COARSE
from geograft.pairs.planning.zones import by_zone, phases, touching
from geograft.pairs.settings import PairSettings, PairSummary, Tally
from geograft.sensors import Sensor
from geograft.tables import remove_leftovers, track

__all__ = ["PairSettings", "PairSummary", "make_pairs", "plan_pairs"]

logger = logging.getLogger(__name__)


def make_pairs(
    photos: Path | Sequence[Path],
    scenes: Path | Sequence[Path],
    out: Path,
    *,
    settings: PairSettings | None = None,
    teacher: Teacher | None = None,
    engine: str = "local",
    workers: int | None = None,
) -> PairSummary:
    """Plan pairs and materialise them: both stages in one call; see `plan_pairs` and `materialise`."""
    plan_pairs(photos, scenes, out, settings=settings, teacher=teacher, engine=engine, workers=workers)
    return materialise(out, engine=engine, workers=workers)


def plan_pairs(
    photos: Path | Sequence[Path],
    scenes: Path | Sequence[Path],
    out: Path,
    *,
    settings: PairSettings | None = None,
    teacher: Teacher | None = None,
    engine: str = "local",
    workers: int | None = None,
) -> PairSummary:
    """Plan which chips to cut, with the photos taken inside them, split by place.

    Args:
        photos: photo tables (see `sources.photos`); regions may lie far apart.
        scenes: scene tables (see `sources.scenes`).
        out: folder of pairs; the plan goes to its folder `plan`. A run that was killed goes on where it stopped; one
            that is done is not done again.
        settings: how; the defaults where None.
        teacher: finds indoor photos; the one that `settings.indoor_teacher` names where None.
        engine: where zones are planned (see `engine.open_engine`).
        workers: zones at once.

    Returns:
        Counts of what is planned and what was left out.

    Raises:
        MissingInput, MissingColumns, UnreadableTable: a table is absent, damaged or lacks columns.
        EmptyTable: no photos, or none that may be used.
        UnknownSensor, BadSetting: the scenes' sensor is unknown, or one of several must be chosen.
        SceneTooSmall: no scene can hold a chip.
        NoPairs: no photo lies on any scene.
        OutputExists: `out` holds pairs of other tables or settings.
        DiskFull: what was written stays, to go on from.
    """
    out, settings = Path(out), settings or PairSettings()
    if teacher is None and settings.indoor_teacher is not None:
        teacher = load_teacher(settings.indoor_teacher)
    job = _job(as_paths(photos), as_paths(scenes), out, settings)
    digest = plan_digest(job.photos, job.scenes, settings, teacher.fingerprint if teacher else "")
    if not is_planned(out, digest):
        remove_leftovers(job.folder)
        with _nothing_stays_of_no_plan(out):
            _plan(job if teacher is None else _without_indoor(job, out, teacher), digest, engine, workers)
    shutil.rmtree(job.work, ignore_errors=True)
    return read_summary(out, job.folder)


def _plan(job: "_Job", digest: str, engine: str, workers: int | None) -> None:
    """Make the plan and write it."""
    with open_engine(engine, workers=workers) as running:
        zones = _cover(job, running)
    with ThreadPoolExecutor(1) as pool:  # tables are read again while chips are chosen
        dealing = _Dealing(job, pool)
        draft = _chosen(job, sorted(map(int, zones)), dealing)
    with dealing.done() as dealt:
        planned = _write(draft, job, lambda path: dealt.write(path, draft.paired[dealing.photos]))
    write_record(job.folder, replace(planned, digest=digest, zones=zones), job.settings, job.tally)


@dataclass(frozen=True)
class _Job:
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


def _job(photos: list[Path], scenes: list[Path], out: Path, settings: PairSettings) -> _Job:
    """Read the tables."""
    tally = Tally()
    sensor, table = read_scene_tables(scenes, settings.sensor)
    grid = Grid(settings.chip_size, sensor.gsd if settings.gsd is None else settings.gsd)
    found = read_photos(photos, seed=settings.seed, skipped=tally.photos)
    if settings.split == "place":
        found = _with_place(found, tally)
    inputs = {"photos": photos, "scenes": scenes}
    return _Job(plan_folder(out), inputs, found, table, sensor, grid, settings, tally)


def _without_indoor(job: _Job, out: Path, teacher: Teacher) -> _Job:
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


@contextmanager
def _nothing_stays_of_no_plan(out: Path) -> Iterator[None]:
    """Remove a plan's folder, and `out` where it holds nothing else, when there turns out to be nothing to plan."""
    try:
        yield
    except (EmptyTable, NoPairs, SceneTooSmall):
        shutil.rmtree(plan_folder(out), ignore_errors=True)
        if not any(out.iterdir()):
            out.rmdir()
        raise


# --- cover ------------------------------------------------------------------------------------------------


def _cover(job: _Job, engine: Engine) -> dict[str, dict[str, int]]:
    """Plan all zones; gives what each holds."""
    zones = _deal(job)
    done = list(track(_zone_by_zone(zones, job, engine), "Planning zones", len(zones)))
    return counts_by_zone(sorted(done, key=lambda found: int(found["zone"])))


def _deal(job: _Job) -> list[int]:
    """Write the photos of each zone, and the scenes under them, to files of its own."""
    photos, ground = job.photos, Ground.of(job.scenes)
    lot = hash_ids(photos.ids, f"draw {job.settings.seed}")
    zones = []
    for zone, rows, own in by_zone(photos.lon, photos.lat, 2 * job.grid.extent):
        task = ZoneTask(zone, job.work, job.grid, job.settings)
        zones.append(zone)
        if not task.photos.exists():
            lon, lat = photos.lon[rows], photos.lat[rows]
            ground.near(lon, lat, 2 * COARSE * job.grid.extent).save(task.scenes)
            columns = {"lon": lon, "lat": lat, "taken": photos.taken[rows], "lot": lot[rows]}
            save_arrays(task.photos, photo=rows, own=own, **columns)
    return zones


def _zone_by_zone(zones: Sequence[int], job: _Job, engine: Engine) -> Iterator[dict[str, Any]]:
    """Plan zones that do not touch at once, and those that touch one after another."""
    before: set[int] = set()
    for phase in phases(zones):
        tasks = [
            ZoneTask(
                zone, job.work, job.grid, job.settings, tuple(other for other in touching(zone) if other in before)
            )
            for zone in phase
        ]
        yield from engine.map(plan_zone, sorted(tasks, key=lambda task: -task.photos.stat().st_size))
        before.update(phase)


def _explain(job: _Job) -> None:
    """Say why there is no chip at all."""
    lon, lat = job.photos.lon, job.photos.lat
    span = ", ".join(f"{value:.4f}" for value in (lon.min(), lat.min(), lon.max(), lat.max()))
    bounds = ", ".join(f"{value:.4f}" for value in job.scenes.total_bounds)
    where = f"Photos span {span}, scenes {bounds} (west, south, east, north)"
    if not job.tally.photos["scene-edge"]:
        raise NoPairs(
            f"No photo lies on any scene. {where}: give scenes of the photos' region, and check that lon and lat are "
            "not swapped."
        )
    widest = _widest(job.scenes)
    if widest < job.grid.extent * 0.999:
        raise SceneTooSmall(
            f"A chip of {job.grid.size} px at {job.grid.gsd:g} m is {job.grid.extent:g} m wide, but the largest scene "
            f"is {widest:.0f} m: choose a smaller chip size or gsd."
        )
    raise NoPairs(
        f"No chip of {job.grid.extent:g} m centred on a photo lies wholly on scenes. {where}: choose a smaller chip "
        "size or gsd."
    )


def _widest(scenes: gpd.GeoDataFrame) -> float:
    """The shorter side of the largest scene in metres; infinite where the table does not say."""
    if not {"width", "height", "gsd"} <= set(scenes.columns):
        return np.inf
    return float((scenes[["width", "height"]].min(axis=1) * scenes["gsd"]).max())


# --- choice -----------------------------------------------------------------------------------------------


class _Dealing:
    """The photo tables' rows, put in the order of the visit by a thread of its own once it is known which may be used.

    Args:
        job: names the tables.
        pool: runs the thread.
    """

    def __init__(self, job: _Job, pool: ThreadPoolExecutor) -> None:
        self._job, self._pool = job, pool

    def begin(self, photos: Any) -> None:
        """Deal some photos, by number."""
        job, self.photos = self._job, photos
        self._dealt = self._pool.submit(Dealt, job.inputs["photos"], job.photos.row[photos], job.work / "photos")

    def done(self) -> Dealt:
        """The dealt rows."""
        return self._dealt.result()


def _chosen(job: _Job, zones: Sequence[int], dealing: _Dealing) -> Draft:
    """The chips to cut, with their split."""
    settings = job.settings
    draft = gather(job.work, zones, len(job.photos), job.tally)
    if draft.chips.empty:
        _explain(job)
    dealing.begin(np.flatnonzero(draft.paired))
    served = np.zeros(len(draft.chips), np.bool_)
    served[draft.stacks.chip] = True
    draft = _sieved(draft, served, "no-scene-in-time", job.tally)
    if draft.chips.empty:
        raise NoPairs("No chip has a scene within max_gap_days of its photos: give scenes of other dates, or raise it.")
    if settings.density_cap is not None:
        names = draft.names(job.grid, settings.time_bin_days)
        keep = density_cap(draft, names, settings.density_cap, settings.density_km, settings.seed)
        draft = _sieved(draft, keep, "density-cap", job.tally)
    draft = divide(draft, job.photos, job.scenes, job.grid, settings.division(job.grid), job.tally)
    if draft.chips.empty:
        raise NoPairs("No chip is left between the splits: use larger blocks, a smaller buffer_m, or more ground.")
    _note_empty_splits(draft, settings)
    return draft


def _sieved(draft: Draft, keep: Any, reason: str, tally: Tally) -> Draft:
    """Some chips, the others counted under a reason."""
    sieve = Sieve(draft, tally)
    sieve.keep_chips(keep, reason)
    return sieve.result()


def _note_empty_splits(draft: Draft, settings: PairSettings) -> None:
    """Say in the log which wanted splits hold no chip."""
    if settings.split in {None, "none"}:
        return
    found = count_by_split(draft.chips["split"].to_numpy())
    empty = [name for name, share in zip(SPLITS, settings.fractions, strict=True) if share > 0 and not found[name]]
    if empty:
        logger.warning("No chip fell to %s: use smaller blocks, more ground or other fractions.", " and ".join(empty))


# --- files ------------------------------------------------------------------------------------------------


def _write(draft: Draft, job: _Job, write_photos: Callable[[Path], None]) -> Planned:
    """Write the plan's tables, side by side."""
    names = draft.names(job.grid, job.settings.time_bin_days)
    starts = shard_starts(draft, max(1, job.settings.shard_mb * 2**20 // _chip_bytes(job)))
    scenes = write_scenes(job.folder / "scenes.parquet", job.scenes, draft)
    ids = job.scenes["scene_id"].tolist()
    tables = (
        (write_photos, job.folder / "photos.parquet"),
        (write_pairs, job.folder / "pairs.parquet", draft, names, job.photos, starts),
        (write_chips, job.folder / "chips.parquet", draft, names, job.grid, starts, ids),
    )
    with ThreadPoolExecutor(len(tables)) as pool:
        writing: list[Future[None]] = [pool.submit(*table) for table in tables]
        for done in track(as_completed(writing), "Writing tables", len(tables)):
            done.result()
    counts = {
        "chips": len(draft.chips),
        "pairs": len(draft.pairs),
        "photos": int(draft.paired.sum()),
        "shards": len(starts) - 1,
    }
    splits = count_by_split(draft.chips["split"].to_numpy())
    return Planned("", job.sensor.name, job.grid, job.inputs, {**counts, "scenes": scenes}, splits, {})


def _chip_bytes(job: _Job) -> int:
    """The size of a chip's pixels."""
    return int(len(job.sensor.bands) * job.grid.size**2 * np.dtype(job.sensor.dtype).itemsize)
