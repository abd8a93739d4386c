"""From a photo table and a scene table to pairs: chips with all the photos taken inside them.

The stages, each counted in the manifest: photos that may not be used are refused (`filters`, `indoor`); the rest
are covered by chips on the UTM grid (`cover`) where a scene holds a whole chip (`candidates`); chips are divided
by place (`split`); each is cut of the scene nearest in time that is clear there (`shards`).

The plan depends on the rows of the tables, not on their order, and a run that was killed goes on from the last
whole shard.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd

from geograft.errors import NoPairs
from geograft.models.teacher import Teacher
from geograft.pairs.candidates import Boxes, SceneSet, open_scenes, rank
from geograft.pairs.cover import Cover, fair_draw, greedy_cover
from geograft.pairs.filters import seconds
from geograft.pairs.grid import Grid, Places, corners, hash_ids
from geograft.pairs.inputs import NEEDED_PHOTO, NEEDED_SCENE, PHOTO_COLUMNS, as_paths, join_tables, usable_photos
from geograft.pairs.output import write_pairs
from geograft.pairs.record import Made, Plan, is_done, plan_digest, read_summary, write_record
from geograft.pairs.settings import PairSettings, PairSummary, Tally, reasons
from geograft.pairs.shards import write_shards
from geograft.pairs.split import SPLITS, divide

__all__ = ["PairSettings", "PairSummary", "make_pairs"]

logger = logging.getLogger(__name__)


def make_pairs(
    photos: Path | Sequence[Path],
    scenes: Path | Sequence[Path],
    out: Path,
    *,
    settings: PairSettings | None = None,
    teacher: Teacher | None = None,
) -> PairSummary:
    """Pair chips with the photos taken inside them, split by place.

    Args:
        photos: photo tables (see `sources.photos`); regions may lie far apart.
        scenes: scene tables (see `sources.scenes`).
        out: folder to write: chips.parquet, pairs.parquet, photos.parquet, shards/, manifest.json. A run that
            was killed goes on where it stopped; one that is done is not done again.
        settings: how; the defaults where None.
        teacher: finds indoor photos; the one that `settings.indoor_teacher` names where None.

    Returns:
        Counts of what was made and what was left out.

    Raises:
        MissingInput, MissingColumns, UnreadableTable: a table is absent, lacks columns or is damaged.
        EmptyTable: no photos, or none that may be used.
        UnknownSensor, BadSetting: the scenes' sensor is unknown, or one of several must be chosen.
        SceneTooSmall: no scene can hold a chip.
        NoPairs: no photo lies on any scene.
        OutputExists: `out` holds pairs of other tables or settings.
        DiskFull: what was written stays, to go on from.
    """
    settings = settings or PairSettings()
    out = Path(out)
    inputs = {"photos": as_paths(photos), "scenes": as_paths(scenes)}
    scene_set = open_scenes(join_tables(inputs["scenes"], NEEDED_SCENE, ()), settings.sensor)
    grid = Grid(settings.chip_size, scene_set.sensor.gsd if settings.gsd is None else settings.gsd)
    scene_set.refuse_too_small(grid)
    tally = Tally()
    table = join_tables(inputs["photos"], NEEDED_PHOTO, PHOTO_COLUMNS)
    table = usable_photos(table, out, settings, teacher, tally)
    plan = _plan(table, scene_set, grid, settings, tally)
    if is_done(out, digest := plan_digest(plan, scene_set, settings)):
        return read_summary(out)
    outcome = write_shards(
        plan.chips, scene_set, out / "shards", shard_chips=settings.shard_chips, max_cloud=settings.max_cloud
    )
    chips, pairs = _served(plan, outcome, tally)
    write_pairs(out, chips, pairs, plan.photos, scene_set.table)
    write_record(out, Made(chips, pairs, scene_set, grid, inputs, tally), settings, digest)
    return read_summary(out)


def _plan(photos: gpd.GeoDataFrame, scenes: SceneSet, grid: Grid, settings: PairSettings, tally: Tally) -> Plan:
    """Cover the photos by chips, draw, rank scenes and divide."""
    cover = _cover(photos, scenes, grid, settings, tally)
    pairs = fair_draw(cover.pairs, photos["photo_id"].to_numpy(object), settings.max_photos, settings.seed)
    tally.lose(cover.pairs, pairs, "not-drawn")
    chips = cover.chips.assign(candidates=_candidates(cover.chips, pairs, photos, scenes))
    division = divide(chips, pairs, photos, settings.division(grid))
    tally.photos.update(division.lost)
    tally.chips.update(division.dropped)
    _note_empty_splits(division.chips, settings)
    return Plan(division.chips, division.pairs, photos)


def _note_empty_splits(chips: pd.DataFrame, settings: PairSettings) -> None:
    """Say in the log which wanted splits hold no chip."""
    if settings.split in {None, "none"}:
        return
    found = set(chips["split"])
    empty = [name for name, share in zip(SPLITS, settings.fractions, strict=True) if share > 0 and name not in found]
    if empty:
        logger.warning("No chip fell to %s: use smaller blocks, more ground or other fractions.", " and ".join(empty))


def _cover(photos: gpd.GeoDataFrame, scenes: SceneSet, grid: Grid, settings: PairSettings, tally: Tally) -> Cover:
    """The greedy cover, and a count of the photos that it leaves out."""
    places = Places(photos["lon"].to_numpy(np.float64), photos["lat"].to_numpy(np.float64))
    on_scene = scenes.on_any(places)
    if not on_scene.any():
        raise NoPairs(
            f"No photo lies on any scene. Photos span {_bounds(photos)}, scenes {_bounds(scenes.table)} (west, south, "
            "east, north): give scenes of the photos' region, and check that lon and lat are not swapped."
        )
    x, y = grid.centred(*places.metric)
    boxes = Boxes(places.epsg, *grid.corner(x, y), grid.extent)
    eligible = np.zeros(len(photos), np.bool_)
    eligible[scenes.holding(places, boxes)["box"]] = True
    order = hash_ids(photos["photo_id"], f"visit {settings.seed}")
    cover = greedy_cover(places, order, eligible, grid)
    covered = np.zeros(len(photos), np.bool_)
    covered[cover.pairs["photo"]] = True
    tally.photos.update({"no-scene": int((~covered & ~on_scene).sum()), "scene-edge": int((~covered & on_scene).sum())})
    if cover.chips.empty:
        raise NoPairs(
            f"No chip of {grid.extent:g} m centred on a photo lies wholly on a scene; photos span {_bounds(photos)}, "
            f"scenes {_bounds(scenes.table)}: choose a smaller chip size or gsd."
        )
    return cover


def _candidates(chips: pd.DataFrame, pairs: pd.DataFrame, photos: pd.DataFrame, scenes: SceneSet) -> list[list[str]]:
    """The scenes to try for each chip, best first."""
    centre = corners(chips).mean(axis=1)
    boxes = Boxes(
        chips["epsg"].to_numpy(np.int64),
        chips["left"].to_numpy(np.float64),
        chips["top"].to_numpy(np.float64),
        float(chips["gsd"].iloc[0] * chips["size"].iloc[0]),
    )
    held = scenes.holding(Places(centre[:, 0], centre[:, 1]), boxes)
    box = pd.Index(chips["chip_id"]).get_indexer(pairs["chip_id"])
    taken = pd.Series(seconds(photos["taken"])[pairs["photo"]])
    middle = taken.groupby(box).median().reindex(range(len(chips)))
    return rank(held, scenes.table, middle.to_numpy(np.float64))


def _served(plan: Plan, outcome: pd.DataFrame, tally: Tally) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The chips that were cut, with the scene of each, and their pairs."""
    pairs = plan.pairs
    failed = outcome[outcome["reason"] != ""]
    for reason, rows in failed.groupby("reason"):
        kept = pairs[~pairs["chip_id"].isin(rows["chip_id"])]
        tally.lose(pairs, kept, str(reason))
        tally.chips[str(reason)] += len(rows)
        pairs = kept
    cut = outcome.loc[outcome["reason"] == "", ["chip_id", "scene_id"]]
    chips = plan.chips.merge(cut, on="chip_id").sort_values("chip_id", ignore_index=True)
    if chips.empty:
        raise NoPairs(f"No chip could be cut ({reasons(tally.chips)}): give scenes of other dates, or raise max_cloud.")
    return chips.drop(columns="candidates"), pairs.reset_index(drop=True)


def _bounds(table: gpd.GeoDataFrame) -> str:
    """A table's bounds in degrees, for people."""
    return ", ".join(f"{value:.4f}" for value in table.total_bounds)
