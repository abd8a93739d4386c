from itertools import pairwise

import duckdb
import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from geograft.pairs.grid import Grid, metric_corners, to_degrees
from geograft.pairs.planning.draft import Draft
from geograft.pairs.planning.intake import Photos
from geograft.pairs.planning.plan_files import CHIPS, PAIRS, shard_starts, write_chips, write_pairs, write_scenes
from geograft.pairs.planning.stacks import Stacks
from geograft.pairs.times import NEVER
from geograft.tables import read_table

GRID, ZONE = Grid(64, 1.0), 32632
SCENES = [f"scene-{row}" for row in range(6)]


def draft_of(places, members=None, stacks=None, zone=ZONE):
    """Chips at grid positions, each with its photos and stacks of (gap, scenes)."""
    x, y = np.array(places, np.int64).reshape(-1, 2).T
    members = [[row] for row in range(len(x))] if members is None else members
    rows = [(chip, photo) for chip, photos in enumerate(members) for photo in sorted(photos)]
    pairs = pd.DataFrame(rows, columns=["chip", "photo"]).astype(np.int32)
    pairs = pairs.assign(col=pairs["photo"].astype(np.float32) + np.float32(0.25), row=pairs["chip"].astype(np.float32))
    table = {
        "epsg": np.int32(zone),
        "x": x,
        "y": y,
        "bin": np.arange(len(x)),
        "split": np.arange(len(x), dtype=np.int8) % 3,
    }
    outline = to_degrees(zone, metric_corners(*GRID.corner(x, y), GRID.extent))
    found = [[(0.0, (0,))]] * len(x) if stacks is None else stacks
    return Draft(pd.DataFrame(table), outline, pairs, stacks_of(found), 1 + max((one for _, one in rows), default=0))


def stacks_of(by_chip):
    rows = [(chip, gap, scenes) for chip, found in enumerate(by_chip) for gap, scenes in found]
    chip, lead = np.array([row[0] for row in rows], np.int64), np.array([row[2][0] for row in rows], np.int64)
    more = {row: scenes[1:] for row, (_, _, scenes) in enumerate(rows) if len(scenes) > 1}
    return Stacks(chip, np.array([row[1] for row in rows], np.float32), lead, more)


def row_of(count):
    """Chips side by side."""
    return [(500_000 + 64 * row, 5_000_000) for row in range(count)]


def photos_of(count):
    """Photos of which every third states nothing."""
    number = np.arange(count)
    stated = np.where(number % 3 == 2, np.nan, number).astype(np.float32)
    return Photos(
        ids=pa.array([f"p{row:03d}" for row in range(count)], pa.large_string()),
        lon=number * 1.0,
        lat=number * 1.0,
        taken=np.where(number % 3 == 2, NEVER, number * 1_000_001),
        accuracy=stated,
        heading=stated * 2,
        user=np.zeros(count, np.uint64),
        place=np.full(count, -1, np.int32),
        row=number,
    )


def written(folder, draft, starts):
    """The plan's chips and pairs as files."""
    names = draft.names(GRID, 1.0)
    write_chips(folder / "chips.parquet", draft, names, GRID, starts, SCENES)
    write_pairs(folder / "pairs.parquet", draft, names, photos_of(draft.photos), starts)
    return [pq.ParquetFile(folder / f"{name}.parquet") for name in ("chips", "pairs")]


# --- shards -----------------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=40), st.integers(1, 12))
def test_shards_are_as_full_as_can_be_and_the_bins_of_a_place_stay_together(bins, limit):
    places = np.repeat(np.arange(len(bins)), bins)
    draft = draft_of([(500_000 + 64 * place, 5_000_000) for place in places])
    starts = shard_starts(draft, limit).tolist()
    assert starts[0] == 0
    assert starts[-1] == len(places)
    for start, stop in pairwise(starts):
        inside = set(places[start:stop])
        assert start < stop
        assert not inside & set(places[stop:]), "a place lies in one shard"
        assert stop - start <= limit or len(inside) == 1
        after = np.count_nonzero(places == places[stop]) if stop < len(places) else limit
        assert stop - start + after > limit, "the next place would not have fitted"


def test_chips_of_one_position_in_two_zones_are_two_places():
    draft = draft_of([(500_000, 5_000_000)] * 4)
    assert shard_starts(draft, 1).tolist() == [0, 4]
    draft.chips["epsg"] = [32631, 32631, 32632, 32632]
    assert shard_starts(draft, 1).tolist() == [0, 2, 4]
    assert shard_starts(draft, 3).tolist() == [0, 2, 4]
    assert shard_starts(draft, 4).tolist() == [0, 4]
    draft.chips["y"] += [0, 1, 0, 0]
    assert shard_starts(draft, 1).tolist() == [0, 1, 2, 4]


def test_a_row_group_of_chips_is_a_shard_and_that_of_pairs_holds_its_pairs(tmp_path):
    rng = np.random.default_rng(0)
    draft = draft_of(row_of(50), [set(rng.integers(0, 30, rng.integers(1, 6)).tolist()) for _ in range(50)])
    starts = shard_starts(draft, 7)
    chips, pairs = written(tmp_path, draft, starts)
    assert chips.num_row_groups == pairs.num_row_groups == len(starts) - 1 == 8
    for group, (start, stop) in enumerate(pairwise(starts)):
        rows, inside = chips.read_row_group(group).to_pandas(), pairs.read_row_group(group).to_pandas()
        assert rows["chip_id"].tolist() == draft.names(GRID, 1.0)[start:stop].to_pylist()
        assert rows["photos"].tolist() == inside["chip_id"].value_counts()[rows["chip_id"]].tolist()
        assert inside["chip_id"].drop_duplicates().tolist() == rows["chip_id"].tolist()
        assert inside.groupby("chip_id")["photo_id"].is_monotonic_increasing.all()
    assert sum(chips.read()["photos"].to_pylist()) == len(draft.pairs) == pairs.metadata.num_rows


# --- chips ------------------------------------------------------------------------------------------------

STACKS_OF = [
    [(0.5, (2,)), (-3.0, (0, 1, 5))],
    [(np.nan, (4,))],
    [(1.0, (1, 0)), (1.25, (3,)), (np.nan, (5, 4))],
    [],
]


def as_text(found):
    return [
        [(None if np.isnan(gap) else gap, [SCENES[one] for one in scenes]) for gap, scenes in chip] for chip in found
    ]


@pytest.mark.parametrize("limit", [1, 3, 10])
def test_stacks_come_back_in_pyarrow_and_duckdb_from_every_shard(tmp_path, limit):
    draft = draft_of(row_of(4), stacks=STACKS_OF)
    chips, _ = written(tmp_path, draft, shard_starts(draft, limit))
    listed = lambda rows: [[(one["gap_days"], one["scenes"]) for one in stacks] for stacks in rows]  # noqa: E731
    assert listed(chips.read()["stacks"].to_pylist()) == as_text(STACKS_OF)
    found = duckdb.sql(f"SELECT stacks FROM '{tmp_path / 'chips.parquet'}'").fetchall()
    assert listed(stacks for (stacks,) in found) == as_text(STACKS_OF)
    query = f"SELECT unnest(stacks) AS one FROM '{tmp_path / 'chips.parquet'}'"
    query = f"SELECT count(*) FROM ({query}) WHERE list_contains(one.scenes, 'scene-0')"
    assert duckdb.sql(query).fetchall() == [(2,)]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.lists(
            st.tuples(st.floats(-99, 99, width=32), st.lists(st.integers(0, 5), min_size=1, max_size=3)), max_size=4
        ),
        min_size=1,
        max_size=12,
    ),
    st.integers(1, 5),
)
def test_any_stacks_come_back(tmp_path_factory, found, limit):
    found = [[(gap, tuple(scenes)) for gap, scenes in chip] for chip in found]
    draft = draft_of(row_of(len(found)), stacks=found)
    chips, _ = written(tmp_path_factory.mktemp("plan"), draft, shard_starts(draft, limit))
    rows = chips.read()["stacks"].to_pylist()
    assert [[(one["gap_days"], one["scenes"]) for one in stacks] for stacks in rows] == as_text(found)


def test_the_chip_table_is_geoparquet_of_footprints(tmp_path):
    draft = draft_of([(500_000, 5_000_000), (500_064, 4_999_000)])
    written(tmp_path, draft, np.array([0, 1, 2]))
    chips = gpd.read_parquet(tmp_path / "chips.parquet")
    assert chips.crs.to_epsg() == 4326
    assert (chips.to_crs(ZONE).area / 64**2).round(4).tolist() == [1, 1]
    assert chips.geometry.iloc[1].equals(shapely.Polygon(draft.outline[1]))
    assert chips[["left", "top"]].to_numpy().tolist() == [[500_000, 5_000_000], [500_064, 4_999_000]]
    assert chips["split"].tolist() == ["train", "validation"]
    assert set(chips["gsd"]) == {1.0}
    assert set(chips["size"]) == {64}
    schema = pq.read_schema(tmp_path / "chips.parquet")
    assert schema.equals(CHIPS)
    bounds = gpd.read_parquet(tmp_path / "chips.parquet", columns=["geometry"]).total_bounds
    assert b'"bbox"' in schema.metadata[b"geo"]
    assert bounds.tolist() == [*draft.outline.reshape(-1, 2).min(0), *draft.outline.reshape(-1, 2).max(0)]


# --- pairs, scenes ----------------------------------------------------------------------------------------


def test_pairs_say_what_their_photos_state_and_nothing_else(tmp_path):
    draft = draft_of(row_of(3), [[0, 2], [1], [2, 4]])
    _, pairs = written(tmp_path, draft, np.array([0, 2, 3]))
    assert pairs.schema_arrow.equals(PAIRS)
    rows = pairs.read().to_pylist()
    names = draft.names(GRID, 1.0).to_pylist()
    assert [(row["chip_id"], row["photo_id"]) for row in rows] == [
        (names[0], "p000"), (names[0], "p002"), (names[1], "p001"), (names[2], "p002"), (names[2], "p004"),
    ]  # fmt: skip
    assert [row["accuracy_m"] for row in rows] == [0, None, 1, None, 4]
    assert [row["heading_deg"] for row in rows] == [0, None, 2, None, 8]
    assert [row["taken"] and row["taken"].microsecond for row in rows] == [0, None, 1, None, 4]
    assert [(row["col"], row["row"]) for row in rows] == [(0.25, 0), (2.25, 0), (1.25, 1), (2.25, 2), (4.25, 2)]


def test_only_scenes_that_stacks_name_are_written_in_the_order_of_their_ids(tmp_path):
    shapes = [shapely.box(row, 0, row + 1, 1) for row in range(6)]
    table = gpd.GeoDataFrame({"scene_id": SCENES, "uri": list("abcdef")}, geometry=shapes, crs=4326)
    draft = draft_of(row_of(3), stacks=[[(0.0, (4, 0))], [(1.0, (4,))], [(2.0, (1, 0))]])
    assert write_scenes(tmp_path / "scenes.parquet", table, draft) == 3
    found = read_table(tmp_path / "scenes.parquet")
    assert found["scene_id"].tolist() == ["scene-0", "scene-1", "scene-4"]
    assert found["uri"].tolist() == ["a", "b", "e"]
