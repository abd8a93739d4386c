from collections import Counter

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely.affinity import translate

from geograft.hashing import hash_ids
from geograft.pairs.grid import Grid, metric_corners, to_degrees
from geograft.pairs.planning.dividing import divide, metric_table, scene_groups
from geograft.pairs.planning.draft import Draft
from geograft.pairs.planning.ground import Ground
from geograft.pairs.planning.intake import Photos
from geograft.pairs.planning.split import SplitSettings, blocks
from geograft.pairs.planning.stacks import Stacks
from geograft.pairs.settings import Tally
from geograft.pairs.times import NEVER

GRID, ZONE = Grid(64, 1.0), 32632
MINUTE = 60_000_000


def settings_of(**changes):
    base = {"by": "blocks", "fractions": (0.6, 0.2, 0.2), "block_m": 256, "buffer_m": 32, "seed": 0}
    return SplitSettings(**(base | changes))


def draft_of(right, down, members=None, stacks=None):
    """Chips so many metres right and down of a corner; one photo each, and the scene 0, unless given."""
    x, y = 500_000 + np.asarray(right, np.int64), 5_000_000 - np.asarray(down, np.int64)
    members = [[row] for row in range(len(x))] if members is None else members
    rows = [(chip, photo) for chip, photos in enumerate(members) for photo in sorted(photos)]
    pairs = pd.DataFrame(rows, columns=["chip", "photo"]).astype(np.int32).assign(col=np.float32(1), row=np.float32(1))
    chips = pd.DataFrame({"epsg": np.int32(ZONE), "x": x, "y": y, "bin": 0})
    outline = to_degrees(ZONE, metric_corners(*GRID.corner(x, y), GRID.extent))
    found = [[(0,)]] * len(x) if stacks is None else stacks
    return Draft(chips, outline, pairs, stacks_of(found), 1 + max((photo for _, photo in rows), default=0))


def stacks_of(by_chip):
    rows = [(chip, scenes) for chip, found in enumerate(by_chip) for scenes in found]
    chip, lead = np.array([row for row, _ in rows], np.int64), np.array([scenes[0] for _, scenes in rows], np.int64)
    more = {row: scenes[1:] for row, (_, scenes) in enumerate(rows) if len(scenes) > 1}
    return Stacks(chip, np.zeros(len(rows), np.float32), lead, more)


def scenes_of(stacks):
    """All scenes that each chip may be cut of."""
    out = [set() for _ in range(stacks.chip.max() + 1)]
    for row, (chip, lead) in enumerate(zip(stacks.chip.tolist(), stacks.lead.tolist(), strict=True)):
        out[chip] |= {lead, *stacks.more.get(row, ())}
    return out


def photos_of(count, user=None, taken=None, place=None):
    """Photos by anyone, at no time and of no place unless given."""
    names, code = ((), np.full(count, -1)) if place is None else reversed(pd.factorize(np.asarray(place, object)))
    some = np.zeros(count)
    return Photos(
        ids=pa.array([f"p{row:04d}" for row in range(count)]),
        lon=some,
        lat=some,
        taken=np.full(count, NEVER) if taken is None else np.asarray(taken, np.int64),
        accuracy=some.astype(np.float32),
        heading=some.astype(np.float32),
        user=np.zeros(count, np.uint64) if user is None else hash_ids(list(user), "user"),
        place=np.asarray(code, np.int32),
        row=np.arange(count),
        places=tuple(names),
    )


def scene_table(boxes=((8, 44, 10, 46),)):
    shapes = [box if isinstance(box, shapely.Geometry) else shapely.box(*box) for box in boxes]
    table = {"scene_id": [f"s{row}" for row in range(len(shapes))], "taken": pd.Series([None] * len(shapes))}
    return gpd.GeoDataFrame(table, geometry=shapes, crs=4326)


def divided(draft, photos=None, scenes=None, **changes):
    """A draft with its split, and what was lost."""
    tally = Tally()
    photos, scenes = photos_of(draft.photos) if photos is None else photos, scene_table() if scenes is None else scenes
    return divide(draft, photos, scenes, GRID, settings_of(**changes), tally), tally


def least_gap(draft):
    """The smallest distance in metres between footprints of different splits."""
    left, top = GRID.corner(draft.chips["x"].to_numpy(), draft.chips["y"].to_numpy())
    shapes = shapely.box(left, top - 64, left + 64, top)
    split = draft.chips["split"].to_numpy()
    return shapely.distance(shapes[:, None], shapes[None])[split[:, None] != split].min(initial=np.inf)


# --- what would leak --------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 2000)), min_size=1, max_size=120),
    st.integers(0, 50),
    st.sampled_from([0, 32, 100]),
)
def test_chips_of_different_splits_keep_the_buffer_and_each_one_lost_is_counted(points, seed, buffer_m):
    right, down = np.array(points).T
    draft, tally = divided(draft_of(right, down), seed=seed, buffer_m=buffer_m)
    assert least_gap(draft) >= buffer_m - 0.5
    assert len(draft.chips) + tally.chips["split-buffer"] == len(points)
    assert len(draft.pairs) + tally.photos["split-buffer"] == len(points)
    assert draft.pairs["chip"].tolist() == list(range(len(draft.chips)))
    block = blocks(*draft.centre, 256)
    assert draft.chips["split"].groupby(block).nunique().max() <= 1 if len(draft.chips) else True


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 5))
def test_photos_of_a_user_s_minute_that_spans_splits_are_those_that_pandas_leaves_out(seed, users):
    rng = np.random.default_rng(seed)
    right, down = rng.integers(0, 3000, (2, 80))
    user, minute = rng.integers(0, users, 200).astype(str), rng.integers(0, 8, 200)
    members = [set(rng.integers(0, 200, 3).tolist()) for _ in range(80)]
    before, _ = divided(draft_of(right, down, members))
    taken = minute * MINUTE + rng.integers(0, MINUTE, 200)
    draft, tally = divided(draft_of(right, down, members), photos_of(200, user, taken))
    pairs = before.pairs.assign(split=before.chips["split"].to_numpy()[before.pairs["chip"]])
    pairs = pairs.assign(user=user[pairs["photo"]], minute=minute[pairs["photo"]])
    mixed = pairs.groupby(["user", "minute"])["split"].transform("nunique") > 1
    assert place_of(draft) == place_of(before, np.flatnonzero(~mixed))
    lost = set(pairs["photo"]) - set(pairs["photo"][~mixed])
    assert tally.photos["user-minute-across-splits"] == len(lost)
    assert tally.chips["user-minute-across-splits"] == len(before.chips) - len(draft.chips)


def place_of(draft, rows=None):
    """(x, y, photo, split) of pairs."""
    pairs = draft.pairs if rows is None else draft.pairs.iloc[rows]
    chips = draft.chips.iloc[pairs["chip"]]
    return sorted(zip(chips["x"], chips["y"], pairs["photo"], chips["split"], strict=True))


def test_another_seed_divides_otherwise_and_the_same_one_alike():
    right, down = np.random.default_rng(2).integers(0, 3000, (2, 200))
    first, _ = divided(draft_of(right, down))
    assert place_of(divided(draft_of(right, down))[0]) == place_of(first)
    assert place_of(divided(draft_of(right, down), seed=1)[0]) != place_of(first)
    turned = divided(draft_of(right[::-1], down[::-1]))[0]
    assert sorted(row[:2] + row[3:] for row in place_of(turned)) == sorted(row[:2] + row[3:] for row in place_of(first))


def test_none_puts_everything_into_training():
    draft, tally = divided(draft_of([0, 10, 20], [0, 0, 0]), by=None)
    assert draft.chips["split"].tolist() == [0, 0, 0]
    assert not tally.chips


def test_the_metric_table_says_where_chips_lie():
    table = metric_table(draft_of([0, 10], [5, 0]), Grid(64, 0.5))
    assert table["left"].tolist() == [250_000, 250_005]
    assert table["top"].tolist() == [2_499_997.5, 2_500_000]
    assert table[["epsg", "gsd", "size"]].drop_duplicates().to_numpy().tolist() == [[ZONE, 0.5, 64]]


# --- by place ---------------------------------------------------------------------------------------------


def test_by_place_the_photos_of_a_walk_stay_together():
    walks = np.repeat([f"walk {number}" for number in range(30)], 4)
    right = np.arange(120) * 40 + np.repeat(np.arange(30) * 500, 4)
    draft, tally = divided(draft_of(right, np.zeros(120)), photos_of(120, place=walks), by="place", buffer_m=0)
    split = draft.chips["split"].to_numpy()[draft.pairs["chip"]]
    assert pd.Series(split).groupby(walks[draft.pairs["photo"]]).nunique().max() == 1
    assert set(split) == {0, 1, 2}
    assert not tally.chips


def test_a_chip_that_mixes_walks_keeps_the_photos_of_its_foremost_split_only():
    members, walks = [[0, 1], [2], [3], [4, 5]], list("ababaa")
    for seed in range(6):
        photos, chips = photos_of(6, place=walks), draft_of([0, 1000, 2000, 3000], [0] * 4, members)
        draft, tally = divided(chips, photos, by="place", fractions=(0.5, 0.0, 0.5), buffer_m=0, seed=seed)
        splits = draft.chips["split"].tolist()
        assert splits[0] == 2
        assert sorted(splits[1:3]) == [0, 2]
        owner = 0 if splits[1] == 2 else 1
        assert draft.pairs.loc[draft.pairs["chip"] == 0, "photo"].tolist() == [owner]
        assert splits[3] == splits[1]
        assert dict(+tally.photos) == {"mixed-places": 1}
        assert not +tally.chips


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000))
def test_no_walk_serves_two_splits_whatever_the_chips_mix(seed):
    rng = np.random.default_rng(seed)
    members = [set(rng.integers(0, 60, rng.integers(1, 4)).tolist()) for _ in range(40)]
    walks = rng.integers(0, 12, 60).astype(str)
    chips = draft_of(*rng.integers(0, 6000, (2, 40)), members)
    draft, tally = divided(chips, photos_of(60, place=walks), by="place", buffer_m=0)
    split = draft.chips["split"].to_numpy()[draft.pairs["chip"]]
    assert pd.Series(split).groupby(walks[draft.pairs["photo"]]).nunique().max() <= 1
    assert tally.photos.total() == len(set().union(*members)) - draft.pairs["photo"].nunique()


# --- by scene ---------------------------------------------------------------------------------------------


def test_dates_of_one_ground_are_one_group_and_neighbours_are_not():
    tile = (8.0, 44.0, 8.1, 44.1)
    shapes = [
        tile,
        (8.1, 44.0, 8.2, 44.1),
        (8.001, 44.0, 8.101, 44.1),
        tile,
        (8.0, 44.0, 8.04, 44.04),
        (8.06, 44, 8.16, 44.1),
    ]
    group = scene_groups(Ground.of(scene_table(shapes)))
    assert group[0] == group[2] == group[3] == group[4]
    assert len({group[0], group[1], group[5]}) == 2, (
        "6 of 10 parts shared with its eastern neighbour, 4 with the western"
    )
    assert group[1] == group[5]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 25), st.sampled_from([9.0, 180.0]))
def test_groups_are_those_of_plain_geometry_on_both_sides_of_the_antimeridian(seed, count, lon):
    rng = np.random.default_rng(seed)
    corner = rng.uniform([lon - 0.1, 0], [lon + 0.1, 0.2], (count, 2))
    size = rng.uniform(0.02, 0.12, (count, 2))
    frame = [shapely.box(*low, *(low + side)) for low, side in zip(corner, size, strict=True)]
    frame = [frame[row] for row in rng.integers(0, count, count)]
    table = scene_table([translate(one, -360) if lon == 180 and rng.random() < 0.5 else one for one in frame])
    found = scene_groups(Ground.of(table))
    wanted = list(range(count))
    for one in range(count):
        for two in range(one):
            smaller = min(frame[one].area, frame[two].area)
            if frame[one].intersection(frame[two]).area > 0.5 * smaller:
                wanted = [wanted[two] if number == wanted[one] else number for number in wanted]
    same = lambda numbers: [[a == b for a in numbers] for b in numbers]  # noqa: E731
    assert same(found.tolist()) == same(wanted)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000))
def test_no_scene_nor_another_date_of_its_ground_serves_two_splits(seed):
    rng = np.random.default_rng(seed)
    boxes = [(8 + 0.01 * (row // 3), 44, 8.01 + 0.01 * (row // 3), 44.01) for row in range(24)]
    draw = lambda: tuple(rng.choice(24, rng.integers(1, 3), replace=False).tolist())  # noqa: E731
    stacks = [[draw() for _ in range(rng.integers(1, 4))] for _ in range(60)]
    chips = draft_of(*rng.integers(0, 9000, (2, 60)), stacks=stacks)
    draft, tally = divided(chips, scenes=scene_table(boxes), by="scene", buffer_m=0)
    splits = {}
    for split, scenes in zip(
        draft.chips["split"].tolist(), scenes_of(draft.stacks) if len(draft.chips) else [], strict=True
    ):
        assert scenes, "every chip kept has a scene"
        for scene in scenes:
            splits.setdefault(scene // 3, set()).add(split)
    assert all(len(found) == 1 for found in splits.values())
    assert len(draft.chips) + tally.chips.total() == 60


def test_by_scene_a_chip_goes_with_its_nearest_scene_and_keeps_the_stacks_of_its_split():
    boxes = [(8, 44, 8.1, 44.1), (8.1, 44, 8.2, 44.1), (8, 44, 8.1, 44.1), (8.1, 44, 8.2, 44.1)]
    stacks = [[(0,), (1,), (2,)], [(1,), (3,)], [(0, 1)], [(1, 0), (3,)], [(2, 0)]]
    found = Counter()
    for seed in range(8):
        chips = draft_of([0, 1000, 2000, 3000, 4000], [0] * 5, stacks=stacks)
        options = {"by": "scene", "fractions": (0.5, 0.0, 0.5), "seed": seed}
        draft, tally = divided(chips, scenes=scene_table(boxes), **options)
        splits = draft.chips["split"].tolist()
        assert scenes_of(draft.stacks) == [{0, 2}, {1, 3}, {3}, {2, 0}]
        assert splits[0] == splits[3] != splits[1] == splits[2]
        assert dict(+tally.chips) == dict(+tally.photos) == {"split-scene": 1}
        found[tuple(splits)] += 1
    assert len(found) == 2


def test_the_fractions_count_chips_of_scenes():
    rng = np.random.default_rng(0)
    boxes = [(8 + 0.01 * row, 44, 8.01 + 0.01 * row, 44.01) for row in range(100)]
    chips = draft_of(
        np.arange(2000) * 200, np.zeros(2000), stacks=[[(int(row),)] for row in rng.integers(0, 100, 2000)]
    )
    draft, _ = divided(chips, scenes=scene_table(boxes), by="scene")
    assert (draft.chips["split"].value_counts(normalize=True).sort_index()).tolist() == pytest.approx(
        [0.6, 0.2, 0.2], abs=0.03
    )
