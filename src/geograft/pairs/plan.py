"""From a photo table and a scene table to a plan: which chips to cut of which scenes, and which photos lie in each.

The stages, each counted in the manifest: photos without a position are left out (`intake`), indoor ones where a teacher
is named (`indoor`); the rest are covered by chips on the UTM grid, zone by zone (`covering`), where scenes hold a whole
chip (`ground`, `stacks`); chips are thinned where they are dense (`draft`) and divided by place (`dividing`).

No scene is opened to plan. The plan depends on the rows of the tables, not on their order, nor on the engine, the
number of workers, or on how often a run was killed.
"""

import logging
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np

from geograft.engine import Engine, open_engine
from geograft.errors import MissingColumns, NoPairs, SceneTooSmall
from geograft.models.teacher import Teacher
from geograft.pairs.arrays import save_arrays
from geograft.pairs.covering import ZoneTask, plan_zone
from geograft.pairs.dividing import divide
from geograft.pairs.draft import Draft, Sieve, counts_by_zone, density_cap, gather
from geograft.pairs.grid import Grid
from geograft.pairs.ground import Ground
from geograft.pairs.hashing import hash_ids
from geograft.pairs.indoor import outdoor
from geograft.pairs.inputs import as_paths, read_scene_tables
from geograft.pairs.intake import Photos, read_photos
from geograft.pairs.photo_rows import copy_rows
from geograft.pairs.plan_files import shard_starts, write_chips, write_pairs, write_scenes
from geograft.pairs.record import Planned, is_planned, plan_digest, plan_folder, read_summary, write_record
from geograft.pairs.settings import PairSettings, PairSummary, Tally
from geograft.pairs.split import SPLITS, count_by_split
from geograft.pairs.survey import COARSE
from geograft.pairs.zones import by_zone, phases, touching
from geograft.sensors import Sensor
from geograft.tables import remove_leftovers, track

__all__ = ["PairSettings", "PairSummary", "make_pairs", "plan_pairs"]

logger = logging.getLogger(__name__)


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
        MissingInput, MissingColumns, UnreadableTable: a table is absent, lacks columns or is damaged.
        EmptyTable: no photos, or none that may be used.
        UnknownSensor, BadSetting: the scenes' sensor is unknown, or one of several must be chosen.
        SceneTooSmall: no scene can hold a chip.
        NoPairs: no photo lies on any scene.
        OutputExists: `out` holds pairs of other tables or settings.
        DiskFull: what was written stays, to go on from.
    """
    settings, out, tally = settings or PairSettings(), Path(out), Tally()
    inputs = {"photos": as_paths(photos), "scenes": as_paths(scenes)}
    sensor, table = read_scene_tables(inputs["scenes"], settings.sensor)
    grid = Grid(settings.chip_size, sensor.gsd if settings.gsd is None else settings.gsd)
    found = _usable(inputs["photos"], out, settings, teacher, tally)
    digest = plan_digest(found, table, settings)
    folder = plan_folder(out)
    if not is_planned(out, digest):
        remove_leftovers(folder)
        work = folder / ".work"
        with open_engine(engine, workers=workers) as running:
            draft, zones = _cover(found, table, work, grid, settings, tally, running)
        draft = _chosen(draft, found, table, grid, settings, tally)
        made = _write(folder, draft, found, table, sensor, grid, settings, inputs)
        write_record(out, replace(made, digest=digest, zones=zones), settings, tally)
    shutil.rmtree(folder / ".work", ignore_errors=True)
    return read_summary(out, folder)


def _usable(paths: Sequence[Path], out: Path, settings: PairSettings, teacher: Teacher | None, tally: Tally) -> Photos:
    """The photos that may be used."""
    photos = read_photos(paths, seed=settings.seed, skipped=tally.photos)
    if settings.split == "place":
        known = photos.place >= 0
        if not known.any():
            raise MissingColumns("Split by place needs the photo table's column `place`: fill it, or split by blocks.")
        tally.photos["no-place"] += int((~known).sum())
        photos = photos.take(known) if not known.all() else photos
    return outdoor(photos, paths, out, settings, teacher, tally)


# --- cover ------------------------------------------------------------------------------------------------


def _cover(
    photos: Photos,
    scenes: gpd.GeoDataFrame,
    work: Path,
    grid: Grid,
    settings: PairSettings,
    tally: Tally,
    engine: Engine,
) -> tuple[Draft, dict[str, dict[str, int]]]:
    """The chips of all zones, and what each zone holds."""
    zones = _deal(photos, Ground.of(scenes), work, grid, settings)
    done = list(track(_zone_by_zone(zones, work, grid, settings, engine), "Planning zones", len(zones)))
    draft = gather(work, zones, len(photos), tally)
    if draft.chips.empty:
        _explain(photos, scenes, grid, tally)
    return draft, counts_by_zone(sorted(done, key=lambda found: int(found["zone"])))


def _deal(photos: Photos, ground: Ground, work: Path, grid: Grid, settings: PairSettings) -> list[int]:
    """Write the photos of each zone, and the scenes under them, to files of its own."""
    lot = hash_ids(photos.ids, f"draw {settings.seed}")
    zones = []
    for zone, rows, own in by_zone(photos.lon, photos.lat, 2 * grid.extent):
        task = ZoneTask(zone, work, grid, settings)
        zones.append(zone)
        if not task.photos.exists():
            lon, lat = photos.lon[rows], photos.lat[rows]
            ground.near(lon, lat, 2 * COARSE * grid.extent).save(task.scenes)
            columns = {"lon": lon, "lat": lat, "taken": photos.taken[rows], "lot": lot[rows]}
            save_arrays(task.photos, photo=rows, own=own, **columns)
    return zones


def _zone_by_zone(
    zones: Sequence[int], work: Path, grid: Grid, settings: PairSettings, engine: Engine
) -> Iterator[dict[str, Any]]:
    """Plan zones that do not touch at once, and those that touch one after another."""
    before: set[int] = set()
    for phase in phases(zones):
        tasks = [
            ZoneTask(zone, work, grid, settings, tuple(other for other in touching(zone) if other in before))
            for zone in phase
        ]
        largest = sorted(tasks, key=lambda task: -task.photos.stat().st_size)
        yield from engine.map(plan_zone, largest)
        before.update(phase)


def _explain(photos: Photos, scenes: gpd.GeoDataFrame, grid: Grid, tally: Tally) -> None:
    """Say why there is no chip at all."""
    span = f"{photos.lon.min():.4f}, {photos.lat.min():.4f}, {photos.lon.max():.4f}, {photos.lat.max():.4f}"
    bounds = ", ".join(f"{value:.4f}" for value in scenes.total_bounds)
    where = f"Photos span {span}, scenes {bounds} (west, south, east, north)"
    if not tally.photos["scene-edge"]:
        raise NoPairs(
            f"No photo lies on any scene. {where}: give scenes of the photos' region, and check that lon and lat are "
            "not swapped."
        )
    if {"width", "height", "gsd"} <= set(scenes.columns):
        widest = float((scenes[["width", "height"]].min(axis=1) * scenes["gsd"]).max())
        if widest < grid.extent * 0.999:
            raise SceneTooSmall(
                f"A chip of {grid.size} px at {grid.gsd:g} m is {grid.extent:g} m wide, but the largest scene is "
                f"{widest:.0f} m: choose a smaller chip size or gsd."
            )
    raise NoPairs(
        f"No chip of {grid.extent:g} m centred on a photo lies wholly on scenes. {where}: choose a smaller chip size "
        "or gsd."
    )


# --- choice -----------------------------------------------------------------------------------------------


def _chosen(
    draft: Draft, photos: Photos, scenes: gpd.GeoDataFrame, grid: Grid, settings: PairSettings, tally: Tally
) -> Draft:
    """The chips to cut, in place order, with their split."""
    sieve = Sieve(draft, tally)
    served = np.zeros(len(draft.chips), np.bool_)
    served[draft.stacks.chip] = True
    sieve.keep_chips(served, "no-scene-in-time")
    draft = sieve.result()
    if settings.density_cap is not None:
        sieve, names = Sieve(draft, tally), draft.names(grid, settings.time_bin_days)
        keep = density_cap(draft, names, settings.density_cap, settings.density_km, settings.seed)
        sieve.keep_chips(keep, "density-cap")
        draft = sieve.result()
    if draft.chips.empty:
        raise NoPairs("No chip has a scene within max_gap_days of its photos: give scenes of other dates, or raise it.")
    draft = divide(draft, photos, scenes, grid, settings.division(grid), tally)
    if draft.chips.empty:
        raise NoPairs("No chip is left between the splits: use larger blocks, a smaller buffer_m, or more ground.")
    _note_empty_splits(draft, settings)
    return draft


def _note_empty_splits(draft: Draft, settings: PairSettings) -> None:
    """Say in the log which wanted splits hold no chip."""
    if settings.split in {None, "none"}:
        return
    found = count_by_split(draft.chips["split"].to_numpy())
    empty = [name for name, share in zip(SPLITS, settings.fractions, strict=True) if share > 0 and not found[name]]
    if empty:
        logger.warning("No chip fell to %s: use smaller blocks, more ground or other fractions.", " and ".join(empty))


# --- files ------------------------------------------------------------------------------------------------


def _write(
    folder: Path,
    draft: Draft,
    photos: Photos,
    scenes: gpd.GeoDataFrame,
    sensor: Sensor,
    grid: Grid,
    settings: PairSettings,
    inputs: dict[str, list[Path]],
) -> Planned:
    """Write the plan's tables."""
    names = draft.names(grid, settings.time_bin_days)
    chip_bytes = len(sensor.bands) * grid.size**2 * np.dtype(sensor.dtype).itemsize
    starts = shard_starts(draft, max(1, settings.shard_mb * 2**20 // chip_bytes))
    used = np.flatnonzero(draft.paired)
    write_scenes(folder / "scenes.parquet", scenes, draft)
    tables = (
        (copy_rows, inputs["photos"], photos.row[used], folder / "photos.parquet"),
        (write_pairs, folder / "pairs.parquet", draft, names, photos, starts),
        (write_chips, folder / "chips.parquet", draft, names, grid, starts, scenes["scene_id"].tolist()),
    )
    with ThreadPoolExecutor(len(tables)) as pool:
        writing: list[Future[None]] = [pool.submit(*table) for table in tables]
        for done in track(as_completed(writing), "Writing tables", len(tables)):
            done.result()
    counts = {"chips": len(draft.chips), "pairs": len(draft.pairs), "photos": len(used), "shards": len(starts) - 1}
    scene_count = len(np.unique(draft.stacks.lead))
    splits = count_by_split(draft.chips["split"].to_numpy())
    return Planned("", sensor.name, grid, inputs, {**counts, "scenes": scene_count}, splits, {})


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
    from geograft.pairs.materialise import materialise

    plan_pairs(photos, scenes, out, settings=settings, teacher=teacher, engine=engine, workers=workers)
    return materialise(out, engine=engine, workers=workers)
