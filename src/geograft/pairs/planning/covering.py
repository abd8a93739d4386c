"""The task of planning one UTM zone: chips, their photos and their scenes, from arrays in a file to arrays in a file.

A zone's result is kept until the plan is whole, so a killed run does not cover the zone again.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from geograft.hashing import Hashes, hash_ids
from geograft.pairs.grid import Floats, Grid, Ints, project
from geograft.pairs.planning import timebins
from geograft.pairs.planning.arrays import load_arrays, save_arrays
from geograft.pairs.planning.cover import Bools, Cover, Metric, cover_zone, fair_draw
from geograft.pairs.planning.ground import Ground
from geograft.pairs.planning.stacks import Chips, Stacker, Stacks, median_times
from geograft.pairs.planning.survey import Survey
from geograft.pairs.planning.timebins import Binned
from geograft.pairs.settings import PairSettings

LEFT_OUT = ("no-scene", "scene-edge", "overlap-limit")
"""Why a photo lies in no chip, by number."""


@dataclass(frozen=True)
class ZoneTask:
    """What a worker needs to plan a zone.

    Attributes:
        zone: EPSG code.
        folder: holds the photos of each zone, the scenes, and the results.
        grid: the chips' size and sampling.
        settings: see `PairSettings`.
        before: the zones beside it that were planned before it.
    """

    zone: int
    folder: Path
    grid: Grid
    settings: PairSettings
    before: tuple[int, ...] = ()

    @property
    def photos(self) -> Path:
        """Arrays photo, lon, lat, taken, lot and own of the photos in the zone and near it, in visiting order."""
        return self.folder / f"photos-{self.zone}.npz"

    @property
    def scenes(self) -> Path:
        """The ground under them."""
        return self.folder / f"scenes-{self.zone}.npz"

    @property
    def result(self) -> Path:
        """The arrays that planning the zone gives."""
        return result_path(self.folder, self.zone)


def result_path(folder: Path, zone: int) -> Path:
    """Where the result of a zone lies."""
    return folder / f"zone-{zone}.npz"


def plan_zone(task: ZoneTask) -> dict[str, Any]:
    """Plan a zone, unless that was done before.

    Returns:
        The zone and its counts of photos, chips and pairs.
    """
    if not task.result.exists():
        _plan(task)
    with load_arrays(task.result) as done:
        found: dict[str, Any] = json.loads(str(done["counts"]))
    return found


def _plan(task: ZoneTask) -> None:
    """Cover, draw and stack the photos of a zone, and write the result."""
    with load_arrays(task.photos) as file:
        photo, lon, lat = file["photo"], file["lon"], file["lat"]
        taken, lot, own = file["taken"], file["lot"], file["own"]
    where = Metric(*project(lon, lat, task.zone))
    covered = _covered_elsewhere(task, photo)
    survey = Survey.of(Ground.load(task.scenes), task.zone, task.grid, where)
    may_open = own & survey.opens(where)
    cover = cover_zone(where, may_open, covered, task.grid, max_overlap=task.settings.max_overlap)
    binned, stacks = _chips(cover, where, taken, lot, survey, task)
    rest = np.flatnonzero(own & ~covered)
    inside = np.zeros(len(photo), np.bool_)
    inside[cover.photo] = True
    save_arrays(
        task.result,
        counts=json.dumps({"zone": task.zone, "photos": int(own.sum()), "chips": len(binned.bin)}),
        covered=photo[inside],
        stranger=photo[inside & ~own],
        rest=photo[rest],
        why=_why_left(survey.ground, lon[rest], lat[rest], may_open[rest]),
        **_chip_columns(binned, where, survey),
        **_pair_columns(binned, photo, where, task.grid),
        **stack_columns(stacks.of_table(survey.ground.number)),
    )


def _covered_elsewhere(task: ZoneTask, photo: Ints) -> Bools:
    """Which photos are covered by chips of the zones that were planned before."""
    covered = np.zeros(len(photo), np.bool_)
    for zone in task.before:
        with load_arrays(result_path(task.folder, zone)) as beside:
            covered |= np.isin(photo, beside["stranger"])
    return covered


def _why_left(ground: Ground, lon: Floats, lat: Floats, may_open: Bools) -> Any:
    """Why each photo lies in no chip of its zone: a row of `LEFT_OUT`, (N,) uint8."""
    on_any = ground.on_any(lon, lat)
    return np.where(may_open, 2, np.where(on_any, 1, 0)).astype(np.uint8)


# --- chips ------------------------------------------------------------------------------------------------


def _chips(cover: Cover, where: Metric, taken: Ints, lot: Any, survey: Survey, task: ZoneTask) -> tuple[Binned, Stacks]:
    """Chips by place and time with the photos drawn, and their scenes."""
    settings = task.settings
    stacker = Stacker(survey, settings.max_gap_days)
    if settings.time_bin_days is None:
        binned = _ordered(Binned(cover, np.zeros(len(cover.centre), np.int64)), where, task.grid)
        binned = _drawn(binned, where, lot, task)
        return binned, stacker.find(_looking(binned, where, taken, task.grid))
    binned = _ordered(timebins.divide(cover, taken, settings.time_bin_days), where, task.grid)
    stacks = stacker.find(_looking(_drawn(binned, where, lot, task), where, taken, task.grid))
    binned, kept = timebins.merge(binned, stacks.best(len(binned.bin)))
    return _drawn(binned, where, lot, task), stacks.take(kept)


def _ordered(binned: Binned, where: Metric, grid: Grid) -> Binned:
    """The chips in place order."""
    return in_place_order(binned, *_positions(binned.cover, where, grid))


def _drawn(binned: Binned, where: Metric, lot: Any, task: ZoneTask) -> Binned:
    """A fair draw of the photos of each chip that has too many."""
    cover, limit = binned.cover, task.settings.max_photos
    full = np.flatnonzero(np.bincount(cover.chip, minlength=len(cover.centre)) > limit)
    x, y = _positions(Cover(cover.centre[full], cover.chip, cover.photo), where, task.grid)
    lots = np.zeros(len(cover.centre), np.uint64)
    lots[full] = hash_ids(task.grid.names(np.full(len(x), task.zone), x, y), f"draw {task.settings.seed}")
    return Binned(fair_draw(cover, lot, lots, limit), binned.bin)


def _positions(cover: Cover, where: Metric, grid: Grid) -> tuple[Ints, Ints]:
    """Grid position of each chip."""
    return grid.centred(where.east[cover.centre], where.north[cover.centre])


def _looking(binned: Binned, where: Metric, taken: Ints, grid: Grid) -> Chips:
    """The chips as they look for scenes."""
    cover = binned.cover
    middle = median_times(cover.chip, taken[cover.photo], len(cover.centre))
    return Chips(cover.centre, *_positions(cover, where, grid), middle)


def in_place_order(binned: Binned, x: Ints, y: Ints) -> Binned:
    """Chips along a curve that keeps neighbours together (Morton's); the bins of a place stay together, by time."""
    along = _spread_bits(x) | (_spread_bits(y) << np.uint64(1))
    order = np.argsort(along, kind="stable")
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    chip = place[binned.cover.chip]
    pairs = np.argsort(chip, kind="stable")
    cover = Cover(binned.cover.centre[order], chip[pairs], binned.cover.photo[pairs])
    return Binned(cover, binned.bin[order])


def _spread_bits(values: Ints) -> Hashes:
    """The lower 32 bits of numbers with a zero between each."""
    out = (values + (1 << 31)).astype(np.uint64) & np.uint64(0xFFFFFFFF)
    for shift, mask in _SPREAD:
        out = (out | (out << np.uint64(shift))) & np.uint64(mask)
    return out


_SPREAD = (
    (16, 0x0000FFFF0000FFFF),
    (8, 0x00FF00FF00FF00FF),
    (4, 0x0F0F0F0F0F0F0F0F),
    (2, 0x3333333333333333),
    (1, 0x5555555555555555),
)


# --- results ----------------------------------------------------------------------------------------------


def _chip_columns(binned: Binned, where: Metric, survey: Survey) -> dict[str, Any]:
    """The chips' grid position, bin and corners in degrees."""
    x, y = _positions(binned.cover, where, survey.grid)
    return {"x": x, "y": y, "bin": binned.bin, "outline": survey.outline(x, y)}


def _pair_columns(binned: Binned, photo: Ints, where: Metric, grid: Grid) -> dict[str, Any]:
    """Each pair's chip, photo, and the photo's offset from the chip's top left corner in pixels."""
    cover = binned.cover
    x, y = _positions(cover, where, grid)
    col = where.east[cover.photo] / grid.gsd - x[cover.chip]
    row = y[cover.chip] - where.north[cover.photo] / grid.gsd
    chip = cover.chip.astype(np.int32)
    return {
        "chip": chip,
        "photo": photo[cover.photo].astype(np.int32),
        "col": _offsets(col, grid),
        "row": _offsets(row, grid),
    }


def _offsets(values: Floats, grid: Grid) -> Any:
    """Pixel offsets as float32 that stay inside the chip when rounded."""
    last = np.nextafter(np.float32(grid.size), np.float32(0))
    return np.clip(values.astype(np.float32), np.float32(0), last)


def stack_columns(stacks: Stacks) -> dict[str, Any]:
    """Stacks as plain arrays."""
    rows = sorted(stacks.more)
    rest = [stacks.more[row] for row in rows]
    return {
        "stack_chip": stacks.chip,
        "stack_gap": stacks.gap_days,
        "stack_lead": stacks.lead,
        "more_row": np.array(rows, np.int64),
        "more_size": np.array([len(scenes) for scenes in rest], np.int64),
        "more_scene": np.array([scene for scenes in rest for scene in scenes], np.int64),
    }


def stacks_of(file: Any) -> Stacks:
    """Stacks of the arrays that `stack_columns` gave."""
    ends = np.cumsum(file["more_size"])
    scenes = np.split(file["more_scene"], ends[:-1]) if len(ends) else []
    more = {int(row): tuple(found.tolist()) for row, found in zip(file["more_row"], scenes, strict=True)}
    return Stacks(file["stack_chip"], file["stack_gap"], file["stack_lead"], more)
