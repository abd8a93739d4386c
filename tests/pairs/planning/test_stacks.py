"""Stacks equal those of the rule told in plain Python, scene by scene and chip by chip."""

import itertools
from dataclasses import replace

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from geograft.pairs.grid import Grid, metric_corners, to_degrees
from geograft.pairs.planning import stacks as stacks_module
from geograft.pairs.planning.cover import Metric
from geograft.pairs.planning.ground import DEGREE, Ground
from geograft.pairs.planning.stacks import MAX_SCENES, MAX_STACKS, Chips, Stacker, Stacks, median_times
from geograft.pairs.planning.survey import INSET_PX, Survey
from geograft.pairs.times import DAY, NEVER

EAST, NORTH, ZONE, GRID = 500_000.0, 5_000_000.0, 32632, Grid(64, 1.0)


def day_of(text):
    return NEVER if text is None else int(pd.Timestamp(text, tz="UTC").value // 1000)


def ground_of(boxes, taken="2024-06-01", clouds=0.0):
    """Scenes: left, top, right and bottom in metres right and down of a corner."""
    left, top, right, bottom = np.asarray(boxes, float).T
    outline = np.stack([[left, right, right, left], [top, top, bottom, bottom]], -1).swapaxes(0, 1)
    shapes = shapely.polygons(to_degrees(ZONE, [EAST, NORTH] + outline * [1, -1]))
    dates = pd.Series(taken, range(len(boxes)))
    table = {"taken": pd.to_datetime(dates, utc=True, format="ISO8601"), "cloud_share": clouds}
    return Ground.of(gpd.GeoDataFrame(table, index=range(len(boxes)), geometry=shapes, crs=4326))


def looking(ground, right, down, middle="2024-06-01"):
    """A survey of photos, and the chips centred on them with the time that each looks for."""
    where = Metric(EAST + np.asarray(right, float), NORTH - np.asarray(down, float))
    survey = Survey.of(ground, ZONE, GRID, where)
    times = [middle] * len(where.east) if middle is None or isinstance(middle, str) else middle
    times = np.array([one if isinstance(one, int) else day_of(one) for one in times], np.int64)
    return survey, Chips(np.arange(len(where.east)), *GRID.centred(where.east, where.north), times)


def listed(stacks, chips=1):
    """The scenes of each chip's stacks, by chip."""
    out = [[] for _ in range(chips)]
    for row, (chip, lead) in enumerate(zip(stacks.chip.tolist(), stacks.lead.tolist(), strict=True)):
        out[chip].append((lead, *stacks.more.get(row, ())))
    return out


def found_for(boxes, taken, clouds=0.0, *, middle="2024-06-01", max_gap_days=None, at=(0.0, 0.0)):
    """The stacks of one chip, whose centre lies right and down of the corner."""
    survey, chips = looking(ground_of(boxes, taken, clouds), [at[0]], [at[1]], middle)
    return listed(Stacker(survey, max_gap_days).find(chips))[0]


WHOLE = (-100, -100, 100, 100)
LEFT, RIGHT = (-100, -100, 0, 100), (0, -100, 100, 100)


def test_the_nearest_in_time_is_first_and_of_equal_days_the_clearest():
    taken = ["2024-05-01", "2024-06-03", "2024-06-02T20:00", "2024-05-31", None, "2024-05-31T01:00"]
    found = found_for([WHOLE] * 6, taken, [0, 0.2, 0.1, 0.5, 0, 0.5])
    assert found == [(5,), (3,), (2,), (1,), (0,), (4,)], "1 day cloudy, 2 days by cloud, 31 days, unknown last"


def test_scenes_of_one_day_are_put_together_only_where_they_hold_the_chip_together():
    assert found_for([LEFT, RIGHT], ["2024-06-02T10:00", "2024-06-02T09:00"]) == [(1, 0)]
    assert found_for([LEFT, (2, -100, 100, 100)], "2024-06-02") == []
    assert found_for([LEFT, RIGHT, WHOLE], ["2024-06-02", "2024-06-02", "2024-07-01"]) == [(0, 1), (2,)]


def test_scenes_of_several_days_are_put_together_only_where_nothing_else_serves():
    assert found_for([LEFT, RIGHT], ["2024-06-08", "2024-06-03"]) == [(1, 0)]
    assert found_for([LEFT, RIGHT, WHOLE], ["2024-06-01", "2024-06-02", "2010-01-01"]) == [(2,)]
    assert found_for([LEFT, RIGHT, LEFT], ["2024-06-01", "2024-06-30", "2024-06-30T12:00"]) == [(1, 2)]


def test_a_day_ends_at_midnight():
    late = ["2024-06-02T23:59", "2024-06-03T00:01", "2010-01-01"]
    assert found_for([LEFT, RIGHT, WHOLE], late) == [(2,)]
    assert found_for([LEFT, RIGHT, WHOLE], ["2024-06-02T00:01", late[0], late[2]]) == [(0, 1), (2,)]


def test_a_mosaic_is_as_cloudy_as_its_worst_scene():
    taken = ["2024-06-01T10:00", "2024-06-01T11:00", "2024-06-01T12:00"]
    assert found_for([LEFT, RIGHT, WHOLE], taken, [0.0, 0.4, 0.3]) == [(2,), (0, 1)]
    assert found_for([LEFT, RIGHT, WHOLE], taken, [0.0, 0.2, 0.3]) == [(0, 1), (2,)]


def test_of_one_footprint_a_mosaic_takes_one_scene_so_that_others_have_room():
    taken = [f"2024-06-{day:02d}" for day in range(2, 15)] + ["2024-06-20"]
    assert found_for([LEFT] * 13 + [RIGHT], taken) == [(0, 13)]
    assert found_for([LEFT, LEFT, RIGHT], ["2024-06-01T03:00", "2024-06-01T01:00", "2024-06-01T02:00"]) == [(1, 2)]


def test_the_window_of_time_forgets_scenes_beyond_it_but_not_those_of_unknown_time():
    taken = ["2024-06-11", "2024-06-12", None, "2024-05-22"]
    assert found_for([WHOLE] * 4, taken, max_gap_days=10) == [(0,), (3,), (2,)]
    assert found_for([LEFT, RIGHT], ["2024-06-02", "2024-07-02"], max_gap_days=10) == []
    assert found_for([WHOLE] * 2, taken[:2], middle=None, max_gap_days=10) == [(0,), (1,)]


def test_at_most_so_many_stacks_of_so_many_scenes_are_kept():
    taken = pd.date_range("2024-06-02", periods=30, tz="UTC").astype(str)
    assert found_for([WHOLE] * 30, list(taken)) == [(row,) for row in range(MAX_STACKS)]
    strips = [(-36 + 6 * row, -100, -30 + 6 * row, 100) for row in range(12)]
    assert found_for(strips, "2024-06-02") == []
    wide = [(-40 + 16 * row, -100, -24 + 16 * row, 100) for row in range(5)]
    assert found_for(wide, "2024-06-02") == [(0, 1, 2, 3, 4)]
    assert MAX_SCENES == 8


def test_gaps_are_signed_days_and_unknown_ones_are_no_number():
    ground = ground_of([WHOLE] * 3, ["2024-06-03T12:00", "2024-05-31", None])
    stacks = Stacker(looking(ground, [0], [0])[0]).find(looking(ground, [0], [0])[1])
    assert stacks.gap_days.tolist()[:2] == [-1.0, 2.5]
    assert np.isnan(stacks.gap_days[2])
    assert stacks.gap_days.dtype == np.float32


# --- against plain Python ---------------------------------------------------------------------------------


def plain_stacks(survey, chips, max_gap_days):
    """The rule of `stacks`, chip by chip."""
    ground, unions, reach = survey.ground, {}, survey.seam / DEGREE
    corners = metric_corners(*GRID.corner(chips.x, chips.y), GRID.extent, -INSET_PX * GRID.gsd)
    out = []
    for square, middle in zip(shapely.polygons(to_degrees(ZONE, corners)), chips.middle.tolist(), strict=True):
        far = {scene: days(ground.taken[scene], middle) for scene in range(len(ground.shapes))}
        near = [scene for scene, gap in far.items() if max_gap_days is None or not gap > max_gap_days or gap == np.inf]
        touching = [scene for scene in near if ground.shapes[scene].intersects(square)]
        whole = [scene for scene in touching if ground.shapes[scene].covers(square)]
        rest = sorted(set(touching) - set(whole), key=lambda scene: (far[scene], ground.clouds[scene], scene))
        by_day = [
            tuple(scene for scene in rest if day_number(ground.taken[scene]) == day)
            for day in {day_number(ground.taken[scene]) for scene in rest}
        ]
        found = [(scene,) for scene in whole] + mosaics(by_day, square, ground, unions, reach)
        found = found or mosaics([tuple(rest)], square, ground, unions, reach)
        ranked = [(np.rint(far[one[0]]), max(ground.clouds[list(one)]), far[one[0]], one[0], one) for one in found]
        out.append([one for *_, one in sorted(ranked)[:MAX_STACKS]])
    return out


def mosaics(groups, square, ground, unions, reach):
    """The groups, each footprint once, whose scenes hold a square together; cracks of twice the reach are closed."""
    out = []
    for group in groups:
        first = {ground.shapes[scene].wkb: scene for scene in reversed(group)}
        members = tuple(scene for scene in group if scene in first.values())[:MAX_SCENES]
        if members not in unions:
            shapes = shapely.buffer(ground.shapes[list(members)], reach, join_style="mitre")
            unions[members] = shapely.buffer(shapely.union_all(shapes), -reach, join_style="mitre")
        if len(members) > 1 and unions[members].covers(square):
            out.append(members)
    return out


def days(taken, middle):
    return np.inf if NEVER in {taken, middle} else abs(int(taken) - int(middle)) / DAY


def day_number(taken):
    return None if taken == NEVER else int(taken) // DAY


@st.composite
def archives(draw):
    """Scenes on a raster of tiles and off it, at a few times, with chips between them."""
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    count = draw(st.integers(1, 24))
    corner = rng.integers(-2, 3, (count, 2)) * 60.0
    corner[rng.random(count) < 0.3] += rng.uniform(-20, 20, 2)
    size = rng.choice([60.0, 120.0, 400.0], (count, 1), p=[0.6, 0.3, 0.1])
    boxes = np.hstack([corner, corner + size])
    boxes = boxes[rng.integers(0, count, count)] if draw(st.booleans()) else boxes
    times = ["2024-06-01T09:00", "2024-06-01T10:00", "2024-06-02T10:00", "2024-06-20", "2025-06-01", None]
    taken = [times[row] for row in rng.integers(0, draw(st.integers(1, 6)), count)]
    ground = ground_of(boxes, taken, rng.choice([0.0, 0.1, 0.5], count))
    right, down = rng.uniform(-120, 240, (2, 25))
    survey, chips = looking(
        ground, right, down, list(rng.choice([day_of(times[0]), day_of(times[3]), NEVER], 25).tolist())
    )
    return survey, chips, draw(st.sampled_from([None, 0.5, 15.0]))


@settings(max_examples=120, deadline=None)
@given(archives())
def test_stacks_are_those_of_the_plain_rule(archive):
    survey, chips, max_gap_days = archive
    stacks = Stacker(survey, max_gap_days).find(chips)
    assert listed(stacks, 25) == plain_stacks(survey, chips, max_gap_days)
    gaps = [
        days(survey.ground.taken[lead], chips.middle[chip]) for chip, lead in zip(stacks.chip, stacks.lead, strict=True)
    ]
    assert np.abs(np.nan_to_num(stacks.gap_days, nan=np.inf)).tolist() == pytest.approx(gaps, rel=1e-6)


@settings(max_examples=30, deadline=None)
@given(archives(), st.integers(0, 1000))
def test_neither_the_order_of_scenes_nor_how_many_chips_are_asked_at_once_matters(archive, seed):
    survey, chips, max_gap_days = archive
    ground = replace(survey.ground, clouds=survey.ground.clouds + np.arange(len(survey.ground.shapes)) / 1000)
    order = np.random.default_rng(seed).permutation(len(ground.shapes))
    where = Metric(*(GRID.corner(chips.x, chips.y) + np.array([[32.0], [-32.0]])))
    whole, mixed = (Stacker(Survey.of(one, ZONE, GRID, where), max_gap_days) for one in (ground, ground.take(order)))
    found = listed(whole.find(chips), 25)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stacks_module, "CHUNK", 4)
        assert listed(whole.find(chips), 25) == found
        assert listed(mixed.find(chips).of_table(order), 25) == found


# --- columns ----------------------------------------------------------------------------------------------


@st.composite
def plain_columns(draw):
    """Stacks, and the same as a list of lists of scenes by chip."""
    scenes = st.lists(st.integers(0, 9), min_size=1, max_size=3).map(tuple)
    by_chip = draw(st.lists(st.lists(scenes, max_size=4), max_size=12))
    return stacks_of(by_chip), by_chip


def stacks_of(by_chip):
    rows = [(chip, scenes) for chip, found in enumerate(by_chip) for scenes in found]
    chip, lead = np.array([row for row, _ in rows], np.int64), np.array([scenes[0] for _, scenes in rows], np.int64)
    more = {row: scenes[1:] for row, (_, scenes) in enumerate(rows) if len(scenes) > 1}
    return Stacks(chip, np.arange(len(rows), dtype=np.float32), lead, more)


@settings(max_examples=100, deadline=None)
@given(plain_columns(), st.randoms(use_true_random=False))
def test_some_chips_take_their_stacks_along_in_any_order(columns, random):
    stacks, by_chip = columns
    chips = random.sample(range(len(by_chip)), random.randint(0, len(by_chip)))
    taken = stacks.take(np.array(chips, np.int64))
    assert listed(taken, len(chips)) == [by_chip[chip] for chip in chips]
    assert taken.gap_days.tolist() == [gap for chip in chips for gap in stacks.gap_days[stacks.chip == chip].tolist()]


@settings(max_examples=100, deadline=None)
@given(st.lists(plain_columns(), max_size=4))
def test_stacks_of_several_zones_are_joined(parts):
    starts = itertools.accumulate([len(by_chip) for _, by_chip in parts], initial=0)
    moved = [
        Stacks(one.chip + at, one.gap_days, one.lead, one.more) for at, (one, _) in zip(starts, parts, strict=False)
    ]
    joined = Stacks.joined(moved)
    wanted = [found for _, by_chip in parts for found in by_chip]
    assert listed(joined, len(wanted)) == wanted


@settings(max_examples=100, deadline=None)
@given(plain_columns())
def test_chips_have_the_same_number_where_their_best_scenes_are_the_same(columns):
    stacks, by_chip = columns
    numbers = stacks.best(len(by_chip)).tolist()
    best = [frozenset(found[0]) if found and len(set(found[0])) == len(found[0]) else None for found in by_chip]
    for (one, first), (two, second) in itertools.combinations(zip(numbers, best, strict=True), 2):
        if first and second:
            assert (one == two) == (first == second)
    assert [number == -1 for number in numbers] == [not found for found in by_chip]


def test_a_mosaic_in_another_order_shows_the_same_scenes():
    numbers = stacks_of([[(0, 1)], [(1, 0)], [(0,)], [(1, 0, 2)]]).best(4)
    assert numbers[0] == numbers[1]
    assert len(set(numbers.tolist())) == 3


def test_scenes_are_counted_in_the_whole_table():
    stacks = stacks_of([[(0, 2), (1,)], [], [(2,)]]).of_table(np.array([10, 20, 30]))
    assert listed(stacks, 3) == [[(10, 30), (20,)], [], [(30,)]]


# --- the median -------------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.one_of(st.just(NEVER), st.integers(-(10**15), 10**15))), max_size=60))
def test_the_median_time_is_numpy_s(photos):
    chip, taken = (np.array(part, np.int64) for part in (zip(*photos, strict=True) if photos else ([], [])))
    found = median_times(chip, taken, 6)
    for one in range(6):
        known = taken[(chip == one) & (taken != NEVER)]
        assert found[one] == (NEVER if not len(known) else pytest.approx(np.median(known), abs=1))
