import numpy as np
import pandas as pd
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Transformer

from geograft.errors import BadSetting
from geograft.hashing import hash_ids
from geograft.pairs.grid import corners, project
from geograft.pairs.planning.split import (
    SplitSettings,
    assign,
    blocks,
    by_block,
    by_name,
    check_fractions,
    count_by_split,
    foremost,
    near_other_split,
    shared_minutes,
)
from geograft.pairs.times import NEVER
from geograft.raster.grids import utm_epsg

SIDE = 64
EARTH = 6_371_008.8
PLACES = [(9.0, 45.0), (6.0, 45.0), (12.0, 0.0), (180.0, -16.5), (24.0, 70.0)]
"""Amid a zone, and where two or four zones meet."""


def settings_of(**changes):
    base = {"by": "blocks", "fractions": (0.6, 0.2, 0.2), "block_m": 256, "buffer_m": 32, "seed": 0}
    return SplitSettings(**(base | changes))


# --- assignment -------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=80),
    st.sampled_from([(0.6, 0.2, 0.2), (0.8, 0.1, 0.1), (0.5, 0.0, 0.5), (1.0, 0.0, 0.0), (0.0, 0.0, 1.0)]),
    st.integers(0, 20),
)
def test_shares_are_met_up_to_one_name(counts, fractions, seed):
    names = [f"n{row}" for row in range(len(counts))]
    split = assign(names, counts, settings_of(fractions=fractions, seed=seed))
    found = np.bincount(split, counts, minlength=3)
    assert np.abs(found - np.array(fractions) * sum(counts)).max() <= 2 * max(counts)
    assert not found[np.array(fractions) == 0].any()


def test_names_are_assigned_by_themselves_and_the_seed_in_any_order():
    names = [f"block {row}" for row in range(300)]
    order = np.random.default_rng(0).permutation(300)
    first = assign(names, [1] * 300, settings_of())
    again = assign([names[row] for row in order], [1] * 300, settings_of())
    assert again.tolist() == first[order].tolist()
    assert assign(names, [1] * 300, settings_of(seed=1)).tolist() != first.tolist()
    assert assign([], [], settings_of()).tolist() == []


def test_chips_of_a_block_go_together_and_blocks_meet_the_fractions():
    rng = np.random.default_rng(1)
    lon, lat = 9 + rng.uniform(0, 0.3, 4000), 45 + rng.uniform(0, 0.2, 4000)
    split = by_block(lon, lat, settings_of(fractions=(0.5, 0.3, 0.2), block_m=400))
    assert pd.Series(split).groupby(blocks(lon, lat, 400)).nunique().max() == 1
    assert (np.bincount(split) / 4000).tolist() == pytest.approx([0.5, 0.3, 0.2], abs=0.01)
    order = rng.permutation(4000)
    assert (
        by_block(lon[order], lat[order], settings_of(fractions=(0.5, 0.3, 0.2), block_m=400)).tolist()
        == split[order].tolist()
    )


def test_rows_of_a_name_go_together_and_names_without_rows_nowhere():
    code = np.random.default_rng(0).integers(0, 30, 900)
    code[code == 7] = 8
    names = [f"walk {row}" for row in range(30)]
    split = by_name(code, names, settings_of())
    assert pd.Series(split).groupby(code).nunique().max() == 1
    assert (np.bincount(split) / 900).tolist() == pytest.approx([0.6, 0.2, 0.2], abs=0.06)
    without = by_name(np.where(code > 7, code - 1, code), names[:7] + names[8:], settings_of())
    assert without.tolist() == split.tolist()


def test_a_chip_belongs_to_the_foremost_split_of_its_photos():
    chip, split = np.array([0, 0, 1, 1, 1, 3]), np.array([0, 1, 2, 0, 1, 0], np.int8)
    assert foremost(chip, split, 4).tolist() == [1, 2, -1, 0]


@settings(max_examples=60, deadline=None)
@given(st.floats(-179.9, 179.9), st.floats(-80, 80), st.sampled_from([500.0, 20_000.0]))
def test_blocks_are_about_as_wide_as_they_are_high(lon, lat, block_m):
    lon, step = round(lon, 6), np.degrees(block_m / EARTH)
    east = step / np.cos(np.radians(lat))
    here = blocks(np.array([lon]), np.array([lat]), block_m)
    assert here != blocks(np.array([lon]), np.array([lat + 1.01 * step]), block_m)
    assert here != blocks(np.array([lon + 1.2 * east]), np.array([lat]), block_m)
    assert here == blocks(np.array([lon + 360]), np.array([lat]), block_m)


def test_the_last_block_of_a_row_ends_where_the_first_begins():
    last, beside, first = blocks(np.array([-1e-300, -1e-9, 0.0]), np.zeros(3), 500.0)
    assert last == beside != first


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(PLACES), st.sampled_from([500.0, 2000.0]))
def test_no_block_is_larger_than_it_says(seed, place, block_m):
    rng = np.random.default_rng(seed)
    away = rng.uniform(-2 * block_m, 2 * block_m, (2, 60))
    lat = place[1] + np.degrees(away[1] / EARTH)
    lon = (place[0] + np.degrees(away[0] / EARTH) / np.cos(np.radians(place[1])) + 180) % 360 - 180
    table = pd.DataFrame({"block": blocks(lon, lat, block_m), "east": away[0], "north": away[1]})
    spans = table.groupby("block").agg(np.ptp)
    assert spans["north"].max() <= block_m * 1.001
    assert spans["east"].max() <= block_m * 1.02


# --- the buffer -------------------------------------------------------------------------------------------


def chips_at(right, down, epsg=32632, corner=(500_000.0, 5_000_000.0)):
    right, down = np.asarray(right, float), np.asarray(down, float)
    return pd.DataFrame({"epsg": epsg, "left": corner[0] + right, "top": corner[1] - down, "gsd": 1.0, "size": SIDE})


def scattered(place, away):
    """Chips so many metres east and north of a place, each in its own zone."""
    lat = place[1] + np.degrees(away[1] / EARTH)
    lon = (place[0] + np.degrees(away[0] / EARTH) / np.cos(np.radians(place[1])) + 180) % 360 - 180
    zones = [utm_epsg(*point) for point in zip(lon, lat, strict=True)]
    rows = [np.concatenate(project(lon[[row]], lat[[row]], zone)) for row, zone in enumerate(zones)]
    east, north = np.round(rows).T
    table = {"epsg": zones, "left": east - SIDE / 2, "top": north + SIDE / 2, "gsd": 1.0, "size": SIDE}
    return pd.DataFrame(table)


def gaps(chips, place):
    """Distances in metres between all footprints, drawn around a place."""
    local = Transformer.from_crs(4326, f"+proj=aeqd +lon_0={place[0]} +lat_0={place[1]} +datum=WGS84", always_xy=True)
    outline = corners(chips)
    east, north = local.transform(outline[..., 0].ravel(), outline[..., 1].ravel())
    shapes = shapely.polygons(np.stack([east, north], -1).reshape(-1, 4, 2))
    return shapely.distance(shapes[:, None], shapes[None])


@settings(max_examples=80, deadline=None)
@given(
    st.integers(0, 10_000),
    st.sampled_from(PLACES),
    st.integers(2, 60),
    st.sampled_from([0.0, 32.0, 200.0, 20_000.0]),
    st.booleans(),
)
def test_chips_of_different_splits_are_never_nearer_than_the_buffer_and_none_goes_for_nothing(
    seed, place, count, buffer_m, some_left_out
):
    rng = np.random.default_rng(seed)
    chips = scattered(place, rng.uniform(-600 - 3 * buffer_m, 600 + 3 * buffer_m, (2, count)))
    split = rng.integers(-1 if some_left_out else 0, 3, count).astype(np.int8)
    drop = near_other_split(chips, corners(chips), split, buffer_m)
    apart, slack = gaps(chips, place), 0.0015 * buffer_m + 0.1
    kept = np.where(drop, -1, split)
    across = (kept[:, None] != kept) & (kept[:, None] >= 0) & (kept >= 0)
    assert apart[across].min(initial=np.inf) >= buffer_m - slack
    for chip in np.flatnonzero(drop):
        stronger = kept > split[chip]
        assert apart[chip, stronger].min() <= buffer_m * 1.45 + slack, "near a chip that stays"
    assert not drop[split == 2].any()
    assert not drop[split == -1].any()


def test_training_gives_way_to_validation_and_both_to_test():
    chips = chips_at([0, 70, 140, 600], [0, 0, 0, 0])
    drop = lambda *split: near_other_split(chips, corners(chips), np.array(split, np.int8), 32).tolist()  # noqa: E731
    assert drop(0, 1, 2, 0) == [False, True, False, False], "what gave way drives nothing out"
    assert drop(0, 1, 0, 0) == [True, False, True, False]
    assert drop(2, 0, 2, 0) == [False, True, False, False]
    assert drop(0, 0, 0, 0) == [False] * 4
    assert drop(0, -1, 1, 2) == [False] * 4


def test_a_wide_buffer_of_the_north_reaches_its_middle_too():
    chips = chips_at([0, 0], [0, -20_000 - SIDE + 40], corner=(500_000.0, 7_770_000.0))
    assert near_other_split(chips, corners(chips), np.array([0, 2], np.int8), 20_000).tolist() == [True, False]


def test_a_buffer_of_no_chips_is_empty():
    none = chips_at([], [])
    assert near_other_split(none, corners(none), np.empty(0, np.int8), 32).tolist() == []


# --- minutes ----------------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 80))
def test_photos_of_a_minute_across_splits_are_those_that_pandas_finds(seed, count):
    rng = np.random.default_rng(seed)
    seconds = rng.integers(-300, 300, count)
    table = pd.DataFrame({"user": rng.integers(0, 4, count), "split": rng.integers(0, 3, count)})
    table["taken"] = pd.to_datetime(pd.Series(seconds), unit="s", utc=True).dt.floor("min")
    table.loc[rng.random(count) < 0.2, "taken"] = pd.NaT
    hashes = np.append(np.uint64(0), hash_ids(["a", "b", "c"], "user"))[table["user"]]
    known = table[(table["user"] > 0) & table["taken"].notna()]
    mixed = known.groupby(["user", "taken"])["split"].transform("nunique") > 1
    taken = np.where(table["taken"].isna(), NEVER, seconds * 1_000_000)
    found = shared_minutes(hashes, taken, table["split"].to_numpy(np.int8))
    assert np.flatnonzero(found).tolist() == mixed[mixed].index.tolist()


# --- settings ---------------------------------------------------------------------------------------------


def test_every_split_is_counted():
    assert count_by_split(np.array([0, 0, 2, -1], np.int8)) == {"train": 2, "validation": 0, "test": 1}


@pytest.mark.parametrize(
    "changes",
    [
        {"fractions": (0.5, 0.5, 0.5)},
        {"fractions": (1.2, -0.2, 0.0)},
        {"by": "walk"},
        {"block_m": 0},
        {"buffer_m": -1},
        {"fractions": (float("nan"), 0.5, 0.5)},
        {"block_m": float("nan")},
    ],
)
def test_settings_that_are_no_division_are_refused(changes):
    with pytest.raises(BadSetting):
        settings_of(**changes)


def test_fractions_are_three():
    assert check_fractions([1, 0, 0]) == (1.0, 0.0, 0.0)
    with pytest.raises(BadSetting, match="three"):
        check_fractions([0.5, 0.5])
