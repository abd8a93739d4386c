"""The plan alone: options, workers, scenes that are never opened."""

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely

from geograft.errors import NoPairs
from geograft.pairs import grid
from geograft.pairs.plan import PairSettings, plan_pairs
from geograft.raster.grids import utm_epsg
from geograft.tables import read_manifest, read_table

LOOSE = {"chip_size": 32, "split": "none"}


@pytest.fixture
def make_scenes(tmp_path):
    """A factory of scene tables without files: boxes in metres right and down of a corner, one a row."""

    def make(boxes, *, name="scenes.parquet", corner=(500_000, 5_000_000), epsg=32632, dates="2024-06-01", clouds=0.0):
        boxes = np.asarray(boxes, float)
        left, top = corner[0] + boxes[:, 0], corner[1] - boxes[:, 1]
        right, bottom = corner[0] + boxes[:, 2], corner[1] - boxes[:, 3]
        outline = np.stack([[left, right, right, left], [top, top, bottom, bottom]], -1).swapaxes(0, 1)
        shapes = shapely.polygons(grid.to_degrees(epsg, outline))
        ids = [f"s{row}" for row in range(len(boxes))]
        table = pd.DataFrame({"scene_id": ids, "uri": [f"/nowhere/{one}.tif" for one in ids], "sensor": "world-1m"})
        table = table.assign(taken=pd.to_datetime(dates, utc=True), cloud_share=clouds, width=400, height=400, gsd=1.0)
        gpd.GeoDataFrame(table, geometry=shapes, crs=4326).to_parquet(tmp_path / name)
        return tmp_path / name

    return make


@pytest.fixture
def planned(tmp_path):
    """A function that plans, and gives the chips and pairs of the plan with its summary."""

    def plan(photos, scenes, *, name="out", workers=1, engine="local", **settings):
        folder = tmp_path / name
        options = PairSettings(**(LOOSE | settings))
        summary = plan_pairs(photos, scenes, folder, settings=options, workers=workers, engine=engine)
        return read_table(folder / "plan" / "chips.parquet"), read_table(folder / "plan" / "pairs.parquet"), summary

    return plan


def bytes_of(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def far_apart(make_photos, count=120):
    """Photo tables in five zones, two of which touch, and on both sides of the equator."""
    tables = []
    places = [(5.999, 48.0), (6.001, 48.0), (151.0, -33.9), (-60.0, 0.0005), (-60.0, -0.0005)]
    for number, (lon, lat) in enumerate(places):
        epsg = utm_epsg(lon, lat)
        east, north = grid.project(np.array([lon]), np.array([lat]), epsg)
        right, down = np.random.default_rng(number).uniform(0, 500, (2, count))
        ids = [f"{number}-{row}" for row in range(count)]
        corner = (east[0] - 250, north[0] + 250)
        tables.append(make_photos(right, down, name=f"p{number}.parquet", ids=ids, epsg=epsg, corner=corner))
    return tables


@pytest.fixture
def world(tmp_path):
    """A scene table of one scene that covers everything."""
    table = pd.DataFrame({"scene_id": ["all"], "uri": ["/nowhere.tif"], "sensor": ["world-1m"], "taken": [pd.NaT]})
    table["taken"] = pd.to_datetime(table["taken"], utc=True)
    gpd.GeoDataFrame(table, geometry=[shapely.box(-179, -80, 179, 80)], crs=4326).to_parquet(tmp_path / "all.parquet")
    return tmp_path / "all.parquet"


def test_any_order_of_rows_tables_and_any_number_of_workers_give_the_same_bytes(make_photos, world, planned, tmp_path):
    photos = far_apart(make_photos)
    planned(photos, world, name="one", split="blocks", block_m=200)
    whole = pd.concat([gpd.read_parquet(path) for path in photos]).sample(frac=1, random_state=3)
    whole.to_parquet(tmp_path / "mixed.parquet")
    planned([tmp_path / "mixed.parquet"], world, name="two", split="blocks", block_m=200, workers=2)
    one, two = bytes_of(tmp_path / "one"), bytes_of(tmp_path / "two")
    assert {path.name for path in one} == {path.name for path in two} >= {"chips.parquet", "pairs.parquet"}
    same = {path for path in one if path.name != "manifest.json"}
    assert {path: one[path] for path in same} == {path: two[path] for path in same}


def test_chips_of_zones_that_touch_do_not_cover_a_photo_s_neighbourhood_twice(make_photos, world, planned):
    chips, pairs, summary = planned(far_apart(make_photos), world, max_photos=1000)
    assert set(chips["epsg"]) == {32631, 32632, 32756, 32620, 32720, 32621, 32721} & set(chips["epsg"])
    assert len(set(chips["epsg"])) >= 5
    assert summary.photos == 600
    centres = chips.to_crs(6933).geometry.centroid
    tree = shapely.STRtree(centres)
    near = tree.query(centres, predicate="dwithin", distance=8)
    assert len(near[0]) == len(chips)
    assert pairs.groupby("photo_id").size().max() <= 4


def test_two_chips_share_no_more_ground_than_allowed(scattered, make_scenes, planned):
    scenes = make_scenes([(-100, -100, 500, 500)])
    for limit in (1.0, 0.3, 0.0):
        chips, _, summary = planned(scattered(300), scenes, name=f"o{limit}", max_overlap=limit)
        across = 32 - np.abs(chips["left"].to_numpy()[:, None] - chips["left"].to_numpy())
        down = 32 - np.abs(chips["top"].to_numpy()[:, None] - chips["top"].to_numpy())
        shared = np.clip(across, 0, None) * np.clip(down, 0, None) / 32**2
        np.fill_diagonal(shared, 0)
        assert shared.max() <= min(limit, 0.6)
        assert summary.photos + sum(summary.skipped.values()) == 300
    assert summary.skipped["overlap-limit"] > 10


def test_a_chip_over_the_seam_of_two_scenes_is_planned_as_a_mosaic(make_photos, make_scenes, planned):
    halves = make_scenes([(0, 0, 100, 200), (100, 0, 200, 200)])
    chips, _, summary = planned(make_photos([100, 40], [100, 40]), halves)
    stacks = {tuple(row["scenes"]) for stacks in chips["stacks"] for row in stacks}
    assert {tuple(sorted(one)) for one in stacks} == {("s0",), ("s0", "s1")}
    assert summary.photos == 2


def test_a_chip_over_a_gap_between_scenes_is_not_planned(make_photos, make_scenes, planned):
    apart = make_scenes([(0, 0, 98, 200), (102, 0, 200, 200)])
    _, pairs, summary = planned(make_photos([100, 40], [100, 40]), apart)
    assert pairs["photo_id"].tolist() == ["p00001"]
    assert summary.skipped == {"no-scene": 1}


def test_the_nearest_day_comes_first_and_of_one_day_the_clearest(make_photos, make_scenes, planned):
    dates = ["2024-06-01T08:00", "2024-06-01T11:00", "2024-08-01T00:00"]
    scenes = make_scenes([(0, 0, 200, 200)] * 3, dates=dates, clouds=[0.3, 0.1, 0.0])
    chips, _, _ = planned(make_photos([100], [100], taken=pd.Timestamp("2024-06-01T07:00", tz="UTC")), scenes)
    assert [list(row["scenes"]) for row in chips["stacks"][0]] == [["s1"], ["s0"], ["s2"]]
    assert chips["stacks"][0][2]["gap_days"] == pytest.approx(60.7, abs=0.1)


def test_scenes_outside_the_window_of_time_are_not_used(make_photos, make_scenes, planned):
    scenes = make_scenes([(0, 0, 200, 200)] * 2, dates=["2020-06-01", "2024-06-20"])
    photos = make_photos([100, 40], [100, 40], taken=pd.to_datetime(["2024-06-01", "2022-06-01"], utc=True))
    chips, pairs, summary = planned(photos, scenes, max_gap_days=30)
    assert pairs["photo_id"].tolist() == ["p00000"]
    assert [list(row["scenes"]) for row in chips["stacks"][0]] == [["s1"]]
    assert summary.chips_dropped == summary.skipped == {"no-scene-in-time": 1}


def test_bins_of_time_make_chips_of_other_pixels_only(make_photos, make_scenes, planned):
    times = pd.to_datetime(["2020-05-20", "2020-06-10", "2020-07-20", "2023-06-01", "2023-06-02", None], utc=True)
    photos = make_photos([100] * 6, [100, 101, 102, 103, 104, 105], taken=times)
    scenes = make_scenes([(0, 0, 200, 200)] * 2, dates=["2020-06-01", "2023-06-01"])
    chips, pairs, _ = planned(photos, scenes, time_bin_days=30)
    assert len(chips) == 2
    assert chips["chip_id"].str.contains("@20").all()
    first = {row.chip_id: row.stacks[0]["scenes"][0] for row in chips.itertuples()}
    assert sorted(first.values()) == ["s0", "s1"]
    old = next(chip for chip, scene in first.items() if scene == "s0")
    assert set(pairs.loc[pairs["chip_id"] == old, "photo_id"]) >= {"p00000", "p00001", "p00002"}
    assert pairs["photo_id"].is_unique


def test_dense_ground_is_thinned_by_a_fair_draw(scattered, make_scenes, planned):
    scenes = make_scenes([(-100, -100, 500, 500)])
    chips, _, summary = planned(scattered(300), scenes, density_cap=5, density_km=50.0)
    assert len(chips) <= 5 * 4
    assert summary.chips_dropped["density-cap"] > 50
    assert summary.photos + sum(summary.skipped.values()) == 300


def test_photos_on_both_sides_of_the_antimeridian_share_a_chip(make_photos, planned, tmp_path):
    epsg, corner = 32660, grid.project(np.array([179.9995]), np.array([10.0]), 32660)
    photos = make_photos([0, 90], [0, 10], epsg=epsg, corner=(corner[0][0], corner[1][0]))
    lon = gpd.read_parquet(photos).geometry.x
    assert lon.min() < -179.9 < 179.9 < lon.max()
    both = shapely.MultiPolygon([shapely.box(179.9, 9.9, 180, 10.1), shapely.box(-180, 9.9, -179.9, 10.1)])
    table = pd.DataFrame({"scene_id": ["s"], "uri": ["/s.tif"], "sensor": ["world-1m"]})
    table["taken"] = pd.to_datetime(["2024-06-01"], utc=True)
    gpd.GeoDataFrame(table, geometry=[both], crs=4326).to_parquet(tmp_path / "scenes.parquet")
    chips, pairs, summary = planned(photos, tmp_path / "scenes.parquet", chip_size=256)
    assert summary.photos == 2
    assert len(pairs) > len(chips)


def test_a_row_group_of_chips_and_of_pairs_is_a_shard(scattered, make_scenes, planned, tmp_path):
    import pyarrow.parquet as pq

    scenes = make_scenes([(-100, -100, 500, 500)])
    planned(scattered(400), scenes, chip_size=256, gsd=0.125, shard_mb=1)
    chips, pairs = (pq.ParquetFile(tmp_path / "out" / "plan" / f"{name}.parquet") for name in ("chips", "pairs"))
    assert chips.num_row_groups == pairs.num_row_groups == read_manifest(tmp_path / "out" / "plan").extra["shards"] > 10
    for group in range(chips.num_row_groups):
        rows, inside = chips.read_row_group(group), pairs.read_row_group(group)
        assert inside["chip_id"].unique().to_pylist() == rows["chip_id"].to_pylist()
        assert len(inside) == sum(rows["photos"].to_pylist())
        assert len(rows) <= 4


def test_a_plan_without_any_scene_in_time_says_so(make_photos, make_scenes, planned, tmp_path):
    scenes = make_scenes([(0, 0, 200, 200)], dates="2010-01-01")
    with pytest.raises(NoPairs, match="max_gap_days"):
        planned(make_photos([100], [100]), scenes, max_gap_days=10)
    assert not (tmp_path / "out").exists()
