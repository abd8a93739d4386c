from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geograft.pairs.grid import Grid, metric_corners, to_degrees
from geograft.pairs.planning.arrays import save_arrays
from geograft.pairs.planning.covering import LEFT_OUT, result_path, stack_columns
from geograft.pairs.planning.draft import Draft, Sieve, counts_by_zone, density_cap, gather
from geograft.pairs.planning.stacks import Stacks
from geograft.pairs.settings import Tally
from geograft.pairs.times import DAY, NEVER

GRID = Grid(64, 1.0)


def make_draft(chips, members, photos, zone=32632):
    """Chips at grid positions (x, y), each with its photos and one stack of a scene of its own number."""
    x, y = np.array(chips, np.int64).reshape(-1, 2).T
    rows = [(chip, photo) for chip, found in enumerate(members) for photo in sorted(found)]
    pairs = pd.DataFrame(rows, columns=["chip", "photo"]).astype(np.int32)
    pairs = pairs.assign(col=pairs["photo"].astype(np.float32), row=np.float32(1))
    table = pd.DataFrame({"epsg": np.int32(zone), "x": x, "y": y, "bin": np.arange(len(x))})
    outline = to_degrees(zone, metric_corners(*GRID.corner(x, y), GRID.extent))
    number = np.arange(len(x))
    stacks = Stacks(number, number.astype(np.float32), 100 + number, {row: (row,) for row in range(0, len(x), 3)})
    return Draft(table, outline, pairs, stacks, photos)


def random_draft(rng, photos=30, chips=12):
    members = [set(rng.integers(0, photos, rng.integers(1, 6)).tolist()) for _ in range(chips)]
    return make_draft(rng.integers([500_000, 5_000_000], [502_000, 5_002_000], (chips, 2)), members, photos)


# --- the sieve --------------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10_000), st.lists(st.booleans(), max_size=6))
def test_each_chip_and_photo_is_lost_once_under_its_first_reason(seed, steps):
    rng = np.random.default_rng(seed)
    draft, tally = random_draft(rng), Tally()
    sieve, pairs = Sieve(draft, tally), draft.pairs
    chips, photos = Counter(), Counter()
    for number, by_chip in enumerate(steps):
        before = pairs
        if by_chip:
            keep = rng.random(12) < 0.8
            sieve.keep_chips(keep, f"step-{number}")
            pairs = pairs[keep[pairs["chip"]]]
        else:
            keep = rng.random(len(draft.pairs)) < 0.8
            sieve.keep_pairs(keep, f"step-{number}")
            pairs = pairs[keep[pairs.index]]
        chips[f"step-{number}"] = before["chip"].nunique() - pairs["chip"].nunique()
        photos[f"step-{number}"] = before["photo"].nunique() - pairs["photo"].nunique()
    assert +tally.chips == +chips
    assert +tally.photos == +photos
    assert np.flatnonzero(sieve.chips).tolist() == sorted(pairs["chip"].unique())


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10_000))
def test_what_is_left_is_numbered_afresh_as_pandas_would(seed):
    rng = np.random.default_rng(seed)
    draft = random_draft(rng)
    sieve = Sieve(draft, Tally())
    sieve.keep_pairs(rng.random(len(draft.pairs)) < 0.7, "one")
    sieve.keep_chips(rng.random(12) < 0.7, "two")
    left = sieve.result()
    pairs = draft.pairs[sieve.pairs]
    kept = sorted(pairs["chip"].unique())
    pd.testing.assert_frame_equal(left.chips, draft.chips.iloc[kept].reset_index(drop=True))
    wanted = pairs.assign(chip=pairs["chip"].map({old: new for new, old in enumerate(kept)})).reset_index(drop=True)
    pd.testing.assert_frame_equal(left.pairs, wanted, check_dtype=False)
    assert left.pairs["chip"].dtype == np.int32
    assert np.array_equal(left.outline, draft.outline[kept])
    assert left.stacks.chip.tolist() == list(range(len(kept)))
    assert left.stacks.lead.tolist() == [100 + old for old in kept]
    assert left.stacks.more == {new: (old,) for new, old in enumerate(kept) if old % 3 == 0}
    assert np.flatnonzero(left.paired).tolist() == sorted(set(pairs["photo"]))


def test_a_draft_that_loses_nothing_is_the_same_and_counts_nothing():
    draft, tally = make_draft([(0, 0), (64, 0)], [{0}, {1}], 2), Tally()
    sieve = Sieve(draft, tally)
    sieve.keep_chips(np.ones(2, bool), "nothing")
    sieve.keep_pairs(np.ones(2, bool), "nothing")
    assert sieve.result() is draft
    assert not tally.chips
    assert not tally.photos


# --- zones put together -----------------------------------------------------------------------------------


def save_zone(folder, zone, draft, rest=(), why=(), covered=None):
    """A zone's result as `covering.plan_zone` writes it."""
    chips = {name: draft.chips[name].to_numpy() for name in ("x", "y", "bin")}
    pairs = {name: draft.pairs[name].to_numpy() for name in ("chip", "photo", "col", "row")}
    covered = np.flatnonzero(draft.paired) if covered is None else np.array(covered, np.int64)
    more = {"outline": draft.outline, "rest": np.array(rest, np.int64), "why": np.array(why, np.uint8)}
    save_arrays(result_path(folder, zone), covered=covered, **chips, **pairs, **more, **stack_columns(draft.stacks))


def test_zones_follow_each_other_and_photos_left_out_are_counted_by_reason(tmp_path):
    north = make_draft([(7800, 78_000), (7864, 78_000)], [{0, 1}, {1, 2}], 9)
    south = make_draft([(7000, 99_000)], [{3}], 9, 32732)
    save_zone(tmp_path, 32632, north, rest=[5, 6], why=[0, 1])
    save_zone(tmp_path, 32733, make_draft([], [], 9), rest=[7, 3], why=[2, 2])
    save_zone(tmp_path, 32732, south, covered=[3, 4, 5])
    tally = Tally()
    draft = gather(tmp_path, [32632, 32732, 32733], 9, tally)
    assert draft.chips["epsg"].tolist() == [32632, 32632, 32732]
    assert draft.chips["x"].tolist() == [7800, 7864, 7000]
    assert draft.pairs["chip"].tolist() == [0, 0, 1, 1, 2]
    assert draft.pairs["photo"].tolist() == [0, 1, 1, 2, 3]
    assert draft.stacks.chip.tolist() == [0, 1, 2]
    assert draft.stacks.more == {0: (0,), 2: (0,)}
    assert len(draft.outline) == 3
    assert LEFT_OUT == ("no-scene", "scene-edge", "overlap-limit")
    wanted = {"scene-edge": 1, "overlap-limit": 1, "not-drawn": 2}
    assert dict(+tally.photos) == wanted, "5 is covered by the south after all, 4 and 5 were not drawn there"


def test_zones_without_any_chip_give_an_empty_draft(tmp_path):
    save_zone(tmp_path, 32632, make_draft([], [], 2), rest=[0, 1], why=[0, 0])
    tally = Tally()
    draft = gather(tmp_path, [32632], 2, tally)
    assert draft.chips.empty
    assert not draft.paired.any()
    assert +tally.photos == {"no-scene": 2}


def test_the_manifest_counts_photos_and_chips_by_zone():
    found = [{"zone": 32632, "photos": 3, "chips": 2, "pairs": 5}]
    assert counts_by_zone(found) == {"32632": {"photos": 3, "chips": 2}}


# --- names ------------------------------------------------------------------------------------------------


def test_a_name_says_where_and_with_bins_the_day_on_which_they_begin():
    draft = make_draft([(7800, 78_000), (-5, -78_000), (7800, 78_000), (7800, 78_000)], [{0}] * 4, 1)
    draft.chips["bin"] = [0, -1, 663, NEVER]
    places = ["32632-64x1-7800-78000", "32632-64x1--5--78000", "32632-64x1-7800-78000", "32632-64x1-7800-78000"]
    assert draft.names(GRID, None).to_pylist() == places
    days = ["19700101", "19691202", "20240616", "undated"]
    assert draft.names(GRID, 30).to_pylist() == [f"{place}@{day}" for place, day in zip(places, days, strict=True)]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-800_000, 4_000_000), unique=True, min_size=1, max_size=20), st.floats(1, 400))
def test_bins_have_names_of_their_own_in_any_year(days, length):
    bins = sorted({int(day * DAY // int(length * DAY)) for day in days})
    draft = make_draft([(7800, 78_000)] * len(bins), [{0}] * len(bins), 1)
    draft.chips["bin"] = bins
    assert len(set(draft.names(GRID, length).to_pylist())) == len(bins)


# --- density ----------------------------------------------------------------------------------------------


def grid_of_chips(right, down):
    """One draft of chips so many metres right and down of a corner."""
    chips = np.stack([500_000 + np.asarray(right), 5_000_000 - np.asarray(down)], -1).astype(int)
    return make_draft(chips, [{row} for row in range(len(chips))], len(chips))


def test_at_most_the_limit_stays_in_each_square_and_sparse_ground_stays_whole():
    rng = np.random.default_rng(0)
    draft = grid_of_chips(*rng.uniform(0, 30_000, (2, 800)))
    keep = density_cap(draft, draft.names(GRID, None), 20, 5.0, 0)
    square = pd.Series(squares(draft, 5000))
    counts, left = square.value_counts(), square[keep].value_counts()
    assert left.to_dict() == counts.clip(upper=20).to_dict()
    assert counts.max() > 20 > counts.min()


def squares(draft, side):
    """The square of about a side in metres that each chip's centre lies in, row by row from the equator."""
    lon, lat = draft.outline.mean(axis=1).T
    row = np.floor(lat / np.degrees(side / 6_371_008.8))
    count = np.floor(2 * np.pi * 6_371_008.8 * np.cos(np.radians((row + 0.5) * np.degrees(side / 6_371_008.8))) / side)
    return [f"{a}/{b}" for a, b in zip(row, np.floor(lon / 360 * count), strict=True)]


def test_the_draw_is_fair_and_hangs_on_names_and_seed_not_on_the_order():
    draft = grid_of_chips(np.arange(40) * 70, np.zeros(40))
    ids = draft.names(GRID, None)
    times = np.sum([density_cap(draft, ids, 10, 100.0, seed) for seed in range(400)], axis=0)
    assert times.sum() == 4000
    assert times.min() > 60
    assert times.max() < 140
    keep, order = density_cap(draft, ids, 10, 100.0, 3), np.random.default_rng(1).permutation(40)
    mixed = Draft(draft.chips.iloc[order], draft.outline[order], draft.pairs, draft.stacks, 40)
    assert density_cap(mixed, ids.take(order), 10, 100.0, 3).tolist() == keep[order].tolist()
    assert density_cap(draft, ids, 10, 100.0, 4).tolist() != keep.tolist()


@pytest.mark.parametrize("limit", [1, 40, 100])
def test_a_limit_of_one_and_one_beyond_all(limit):
    draft = grid_of_chips(np.arange(40) * 70, np.zeros(40))
    assert density_cap(draft, draft.names(GRID, None), limit, 100.0, 0).sum() == min(limit, 40)
