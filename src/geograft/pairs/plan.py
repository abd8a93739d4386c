"""From a photo table and a scene table to pairs: chips with all the photos taken inside them.

The stages, each counted in the manifest: photos that may not be used are refused (`filters`, `indoor`); the rest
are covered by chips on the UTM grid (`cover`) where a scene holds a whole chip (`candidates`); chips are divided
by place (`split`); each is cut of the scene nearest in time that is clear there (`shards`).

The plan depends on the rows of the tables, not on their order, and a run that was killed goes on from the last
whole shard.
"""

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd

from geograft.errors import BadSetting, EmptyTable, MissingColumns, NoPairs, OutputExists
from geograft.models.teacher import Teacher, load_teacher
from geograft.pairs.candidates import Boxes, SceneSet, open_scenes, rank
from geograft.pairs.cover import Cover, fair_draw, greedy_cover
from geograft.pairs.filters import FREE_LICENCES, keep_usable, seconds
from geograft.pairs.grid import Grid, Places, hash_ids
from geograft.pairs.indoor import IndoorCheck, keep_outdoor
from geograft.pairs.output import write_pairs
from geograft.pairs.shards import write_shards
from geograft.pairs.split import SPLITS, SplitSettings, check_fractions, divide
from geograft.tables import Manifest, atomic, read_manifest, read_table, write_manifest

logger = logging.getLogger(__name__)

PLAN_VERSION = 1
"""Raised when the same tables and settings would give another plan."""

PHOTO_COLUMNS = (
    "photo_id", "geometry", "accuracy_m", "heading_deg", "fov_deg", "taken", "user", "licence", "uri", "width",
    "height", "source", "tags", "place",
)  # fmt: skip
"""The photo table's columns; those after `uri`, and `fov_deg`, may be absent."""

_NEEDED_PHOTO = ("photo_id", "geometry", "accuracy_m", "heading_deg", "taken", "user", "licence", "uri")
_NEEDED_SCENE = ("scene_id", "geometry", "uri", "sensor", "taken")


@dataclass(frozen=True)
class PairSettings:
    """How pairs are made.

    Attributes:
        chip_size: pixels along a chip's side.
        gsd: metres a pixel; the sensor's where None.
        max_photos: photos a chip at most, by a fair draw.
        seed: of the visiting order, the draw and the split.
        split: "blocks" of ground, "place" (the photo table's column, such as a walk), or "none" for training only.
        fractions: shares of chips for train, validation and test.
        block_m: side of a block in metres; eight chips where None.
        buffer_m: least distance between chips of different splits; half a chip where None, 0 by place.
        max_accuracy_m: the largest stated geotag error; any where None.
        licences: names of licences that may be used (see `filters.licence_name`); any where None. Photos that
            state none are kept.
        max_cloud: the largest share of a footprint under clouds.
        sensor: of which scenes chips are cut; may be None where the scene tables have one sensor only.
        indoor_teacher: teacher whose text side tells indoor photos, which are left out; None keeps them.
        indoor_margin: a photo is indoor where its similarity to the indoor prompts exceeds that to the outdoor
            ones by more than this.
        shard_chips: chips a shard: what a killed run loses at most.
    """

    chip_size: int = 64
    gsd: float | None = None
    max_photos: int = 25
    seed: int = 0
    split: str | None = "blocks"
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1)
    block_m: float | None = None
    buffer_m: float | None = None
    max_accuracy_m: float | None = None
    licences: tuple[str, ...] | None = FREE_LICENCES
    max_cloud: float = 0.01
    sensor: str | None = None
    indoor_teacher: str | None = None
    indoor_margin: float = 0.0
    shard_chips: int = 2048

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        if self.max_photos < 1 or self.shard_chips < 1:
            raise BadSetting("max_photos and shard_chips must be at least 1.")
        if not 0 <= self.max_cloud <= 1:
            raise BadSetting(f"max_cloud is a share from 0 to 1, not {self.max_cloud}.")
        check_fractions(self.fractions)

    def division(self, grid: Grid) -> SplitSettings:
        """The split's settings for chips of a grid."""
        by = None if self.split in {None, "none"} else self.split
        buffer = 0.0 if by == "place" else grid.extent / 2
        return SplitSettings(
            by=by,
            fractions=check_fractions(self.fractions),
            block_m=8 * grid.extent if self.block_m is None else self.block_m,
            buffer_m=buffer if self.buffer_m is None else self.buffer_m,
            seed=self.seed,
        )


@dataclass(frozen=True)
class PairSummary:
    """What came of a run.

    Attributes:
        folder: where the pairs are.
        sensor: of the chips.
        chips: number of chips.
        photos: number of photos in them.
        pairs: number of (chip, photo) pairs.
        splits: chips a split.
        skipped: photos left out, by reason.
        chips_dropped: planned chips left out, by reason.
    """

    folder: Path
    sensor: str
    chips: int
    photos: int
    pairs: int
    splits: Mapping[str, int]
    skipped: Mapping[str, int]
    chips_dropped: Mapping[str, int]


@dataclass
class _Tally:
    """Photos and chips left out so far, by reason, and what the manifest tells beside."""

    photos: Counter[str] = field(default_factory=Counter)
    chips: Counter[str] = field(default_factory=Counter)
    about: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Plan:
    """Chips to cut, with their candidates and split, and their pairs."""

    chips: pd.DataFrame
    pairs: pd.DataFrame
    photos: gpd.GeoDataFrame


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
    photo_paths, scene_paths = _paths(photos), _paths(scenes)
    scene_set = open_scenes(_join(scene_paths, _NEEDED_SCENE, ()), settings.sensor)
    grid = Grid(settings.chip_size, settings.gsd or scene_set.sensor.gsd)
    scene_set.refuse_too_small(grid)
    tally = _Tally()
    table = _join(photo_paths, _NEEDED_PHOTO, PHOTO_COLUMNS)
    table = _usable(table, out, settings, teacher, tally)
    plan = _plan(table, scene_set, grid, settings, tally)
    if _is_done(out, digest := _digest(plan, scene_set, settings)):
        return _summary(out)
    outcome = write_shards(
        plan.chips, scene_set, out / "shards", shard_chips=settings.shard_chips, max_cloud=settings.max_cloud
    )
    chips, pairs = _served(plan, outcome, tally)
    write_pairs(out, chips, pairs, plan.photos, scene_set.table)
    _write_manifest(out, (photo_paths, scene_paths), settings, grid, digest, (chips, pairs, tally, scene_set))
    return _summary(out)


# --- tables in --------------------------------------------------------------------------------------------


def _paths(given: Path | str | Sequence[Path]) -> list[Path]:
    """One or several paths as a list."""
    return [Path(given)] if isinstance(given, (str, Path)) else [Path(path) for path in given]


def _join(paths: Sequence[Path], needed: Sequence[str], optional: Sequence[str]) -> gpd.GeoDataFrame:
    """Tables as one, in degrees, with all the columns that are known."""
    if not paths:
        raise EmptyTable("No table was named: give at least one photo table and one scene table.")
    tables = []
    for path in paths:
        table = read_table(path)
        if missing := [name for name in needed if name not in table.columns]:
            raise MissingColumns(f"{path} has no column {', '.join(missing)}: make it with `geograft photos` or "
                                 "`geograft scenes`.")  # fmt: skip
        extra = {name: None for name in optional if name not in table.columns}
        tables.append(table.assign(**extra).to_crs(4326))
    tables = [table for table in tables if len(table)] or tables[:1]
    joined = pd.concat(tables, ignore_index=True)
    if joined.empty:
        raise EmptyTable(f"{', '.join(map(str, paths))} has no rows: read photos and scenes into the tables first.")
    return joined


def _usable(
    table: gpd.GeoDataFrame, out: Path, settings: PairSettings, teacher: Teacher | None, tally: _Tally
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
        raise EmptyTable(f"No photo may be used ({_reasons(tally.photos)}): relax licences, accuracy or indoor_margin.")
    return table


def _with_place(table: gpd.GeoDataFrame, tally: _Tally) -> gpd.GeoDataFrame:
    """The photos that say which place they belong to."""
    known = table["place"].notna()
    if len(table) and not known.any():
        raise MissingColumns("Split by place needs the photo table's column `place`: fill it, or split by blocks.")
    tally.photos["no-place"] += int((~known).sum())
    return table[known].reset_index(drop=True)


# --- the plan ---------------------------------------------------------------------------------------------


def _plan(photos: gpd.GeoDataFrame, scenes: SceneSet, grid: Grid, settings: PairSettings, tally: _Tally) -> _Plan:
    """Cover the photos by chips, draw, rank scenes and divide."""
    cover = _cover(photos, scenes, grid, settings, tally)
    pairs = fair_draw(cover.pairs, photos["photo_id"].to_numpy(object), settings.max_photos, settings.seed)
    _lose(tally, cover.pairs, pairs, "not-drawn")
    chips = cover.chips.assign(candidates=_candidates(cover.chips, pairs, photos, scenes))
    division = divide(chips, pairs, photos, settings.division(grid))
    tally.photos.update(division.lost)
    tally.chips.update(division.dropped)
    return _Plan(division.chips, division.pairs, photos)


def _cover(photos: gpd.GeoDataFrame, scenes: SceneSet, grid: Grid, settings: PairSettings, tally: _Tally) -> Cover:
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
    from geograft.pairs.grid import corners

    centre = corners(chips).mean(axis=1)
    boxes = Boxes(
        chips["epsg"].to_numpy(np.int64),
        chips["left"].to_numpy(np.float64),
        chips["top"].to_numpy(np.float64),
        float(chips["gsd"].iloc[0] * chips["size"].iloc[0]),
    )
    held = scenes.holding(Places(centre[:, 0], centre[:, 1]), boxes)
    box = pd.Series(np.arange(len(chips)), chips["chip_id"]).loc[pairs["chip_id"]].to_numpy()
    taken = pd.Series(seconds(photos["taken"])[pairs["photo"]])
    ranked = rank(held, scenes.table, taken.groupby(box).median())
    return [ranked.get(number, []) for number in range(len(chips))]


def _served(plan: _Plan, outcome: pd.DataFrame, tally: _Tally) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The chips that were cut, with the scene of each, and their pairs."""
    pairs = plan.pairs
    failed = outcome[outcome["reason"] != ""]
    for reason, rows in failed.groupby("reason"):
        kept = pairs[~pairs["chip_id"].isin(rows["chip_id"])]
        _lose(tally, pairs, kept, str(reason))
        tally.chips[str(reason)] += len(rows)
        pairs = kept
    cut = outcome.loc[outcome["reason"] == "", ["chip_id", "scene_id"]]
    chips = plan.chips.merge(cut, on="chip_id").sort_values("chip_id", ignore_index=True)
    if chips.empty:
        raise NoPairs(
            f"No chip could be cut ({_reasons(tally.chips)}): give scenes of other dates, or raise max_cloud."
        )
    return chips.drop(columns="candidates"), pairs.reset_index(drop=True)


def _lose(tally: _Tally, before: pd.DataFrame, after: pd.DataFrame, reason: str) -> None:
    """Count the photos that no pair holds any more."""
    tally.photos[reason] += int(before["photo"].nunique() - after["photo"].nunique())


def _bounds(table: gpd.GeoDataFrame) -> str:
    """A table's bounds in degrees, for people."""
    return ", ".join(f"{value:.4f}" for value in table.total_bounds)


def _reasons(counts: Mapping[str, int]) -> str:
    """Counts by reason, for people."""
    return ", ".join(f"{count} {reason}" for reason, count in sorted(counts.items()) if count) or "no rows"


# --- once and only once -----------------------------------------------------------------------------------


def _digest(plan: _Plan, scenes: SceneSet, settings: PairSettings) -> str:
    """What the output depends on, in 16 hex digits."""
    digest = hashlib.sha256(json.dumps([PLAN_VERSION, asdict(settings)], default=list).encode())
    photos = plan.photos.loc[:, ["photo_id", "lon", "lat", "uri"]].astype(str)
    used = scenes.table.loc[:, ["scene_id", "uri", "taken"]].astype(str)
    pairs = plan.pairs.astype({"chip_id": str})
    for table in (plan.chips.drop(columns="candidates"), pairs, photos, used):
        digest.update(pd.util.hash_pandas_object(table, index=False).to_numpy().tobytes())
    digest.update(json.dumps(plan.chips["candidates"].tolist()).encode())
    return digest.hexdigest()[:16]


def _is_done(out: Path, digest: str) -> bool:
    """Whether `out` holds these pairs already; claims the folder for them where it is new.

    Raises:
        OutputExists: it holds others.
    """
    claim = out / "plan.json"
    if claim.exists():
        if json.loads(claim.read_text(encoding="utf-8")).get("digest") != digest:
            raise OutputExists(f"{out} holds pairs of other tables or settings: name another folder or remove it.")
        return (out / "manifest.json").exists()
    if (out / "manifest.json").exists() or (out / "shards").exists():
        raise OutputExists(f"{out} is in use already: name another folder.")
    with atomic(claim) as temporary:
        temporary.write_text(json.dumps({"digest": digest}) + "\n", encoding="utf-8")
    return False


def _write_manifest(
    out: Path,
    inputs: tuple[list[Path], list[Path]],
    settings: PairSettings,
    grid: Grid,
    digest: str,
    made: tuple[pd.DataFrame, pd.DataFrame, _Tally, SceneSet],
) -> None:
    """Say what was read, how, and what came of it."""
    chips, pairs, tally, scenes = made
    done = int(pairs["photo"].nunique())
    skipped = {reason: count for reason, count in sorted(tally.photos.items()) if count}
    splits = chips["split"].value_counts()
    about = {
        "sensor": scenes.sensor.name,
        "gsd": grid.gsd,
        "plan": digest,
        "split": asdict(settings.division(grid)),
        "chips": len(chips),
        "pairs": len(pairs),
        "splits": {name: int(splits.get(name, 0)) for name in SPLITS},
        "chips_dropped": {reason: count for reason, count in sorted(tally.chips.items()) if count},
        **tally.about,
        "scenes": {"used": int(chips["scene_id"].nunique()), "skipped": scenes.skipped},
    }
    counts = {"done": done, "skipped": skipped, "failed": {}}
    photos, tables = inputs
    write_manifest(
        out / "manifest.json",
        Manifest("pairs", {"photos": photos, "scenes": tables}, settings, counts, extra=about),
    )


def _summary(out: Path) -> PairSummary:
    """The summary of finished pairs."""
    manifest = read_manifest(out / "manifest.json")
    about = manifest.extra
    return PairSummary(
        folder=out,
        sensor=about["sensor"],
        chips=about["chips"],
        photos=manifest.counts["done"],
        pairs=about["pairs"],
        splits=about["splits"],
        skipped=manifest.counts["skipped"],
        chips_dropped=about["chips_dropped"],
    )
