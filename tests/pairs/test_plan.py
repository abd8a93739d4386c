import json

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio
from affine import Affine

from geograft.errors import (
    BadSetting,
    EmptyTable,
    MissingColumns,
    MissingInput,
    NoPairs,
    OutputExists,
    SceneTooSmall,
    UnreadableTable,
)
from geograft.pairs.dataset import load_pairs
from geograft.pairs.leakage import leakage
from geograft.pairs.plan import PairSettings, make_pairs
from geograft.raster.grids import to_crs
from geograft.tables import read_manifest, read_table

SMALL = PairSettings(chip_size=32, block_m=96, buffer_m=16, fractions=(0.6, 0.2, 0.2))


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_every_photo_is_paired_or_counted(scattered, make_ground, tmp_path):
    summary = make_pairs(scattered(300, 460), make_ground(400), tmp_path / "out", settings=SMALL)
    assert summary.photos + sum(summary.skipped.values()) == 300
    assert summary.skipped["no-scene"] > 10
    assert summary.skipped["scene-edge"] > 1
    assert summary.chips == sum(summary.splits.values()) == len(read_table(tmp_path / "out" / "chips.parquet"))
    assert read_manifest(tmp_path / "out").counts == {
        "done": summary.photos,
        "skipped": dict(summary.skipped),
        "failed": {},
    }


def test_the_pixels_are_those_of_the_footprint(scattered, make_ground, tmp_path):
    scenes = make_ground(400)
    make_pairs(scattered(), scenes, tmp_path / "out", settings=SMALL)
    found = load_pairs(tmp_path / "out")
    with rasterio.open(read_table(scenes)["uri"][0]) as file:
        whole = file.read()
    for chip, pixels in zip(found.table.itertuples(), found.chips, strict=True):
        row, column = int(5_000_000 - chip.top), int(chip.left - 500_000)
        assert (pixels == whole[:, row : row + 32, column : column + 32]).all()
    assert len(found) > 30


def test_positions_point_to_the_photo(scattered, make_ground, tmp_path):
    photos = scattered()
    make_pairs(photos, make_ground(400), tmp_path / "out", settings=SMALL)
    found = load_pairs(tmp_path / "out")
    points = read_table(photos).set_index("photo_id").geometry[found.photo_ids]
    east, north = to_crs(32632).transform(points.x.to_numpy(), points.y.to_numpy())
    chips = found.table.iloc[found.owner]
    assert found.positions[:, 0] == pytest.approx(chips["top"].to_numpy() - north, abs=1e-3)
    assert found.positions[:, 1] == pytest.approx(east - chips["left"].to_numpy(), abs=1e-3)


def test_nothing_leaks_between_the_splits(scattered, make_ground, tmp_path):
    summary = make_pairs(scattered(300), make_ground(400), tmp_path / "out", settings=SMALL)
    found = leakage(tmp_path / "out")
    assert found.none
    assert min(summary.splits.values()) > 0
    assert 16 < found.nearest_m < 100


def test_a_leak_is_found(scattered, make_ground, tmp_path):
    make_pairs(scattered(), make_ground(400), tmp_path / "out", settings=PairSettings(chip_size=32, split="none"))
    chips = read_table(tmp_path / "out" / "chips.parquet")
    chips.assign(split=np.where(np.arange(len(chips)) % 2, "train", "test")).to_parquet(
        tmp_path / "out" / "chips.parquet"
    )
    found = leakage(tmp_path / "out")
    assert not found.none
    assert found.footprints > 0
    assert found.photos > 0
    assert found.nearest_m == 0


def test_the_order_of_the_rows_changes_nothing(scattered, make_ground, tmp_path):
    scenes = make_ground(400)
    for name, shuffle in (("a", None), ("b", 5)):
        photos = scattered(name="photos.parquet", shuffle=shuffle)
        make_pairs(photos, scenes, tmp_path / name / "pairs", settings=SMALL)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert {"README.md", "collection.json", "chips.parquet"} <= {path.name for path in contents(tmp_path / "a")}


def test_the_scene_nearest_in_time_is_cut(scattered, make_ground, tmp_path):
    times = pd.Timestamp("2019-05-01", tz="UTC") + pd.to_timedelta(np.arange(150), "h")
    scenes = make_ground(400, dates=("2018-06-01", "2024-06-01"))
    make_pairs(scattered(taken=times), scenes, tmp_path / "out", settings=SMALL)
    chips = read_table(tmp_path / "out" / "chips.parquet")
    assert set(chips["taken"].dt.year) == {2018}
    gaps = read_table(tmp_path / "out" / "pairs.parquet")["time_gap_days"]
    assert gaps.between(333, 341).all()


def test_a_cloudy_footprint_is_cut_of_another_date_or_not_at_all(scattered, make_ground, tmp_path):
    scenes = make_ground(400, dates=("2024-06-01", "2024-08-01"))
    for uri, columns in zip(sorted(read_table(scenes)["uri"]), (slice(0, 200), slice(100, 400)), strict=True):
        cloud = np.zeros((1, 400, 400), np.uint8)
        cloud[0, :, columns] = 1
        with rasterio.open(
            uri.replace(".tif", "_clouds.tif"), "w", driver="GTiff", count=1, height=400, width=400, dtype="uint8",
            crs="EPSG:32632", transform=Affine(1, 0, 500_000, 0, -1, 5_000_000),
        ) as file:  # fmt: skip
            file.write(cloud)
    summary = make_pairs(scattered(300), scenes, tmp_path / "out", settings=PairSettings(chip_size=32, split="none"))
    chips = read_table(tmp_path / "out" / "chips.parquet")
    left = chips["left"] - 500_000
    assert left[chips["taken"].dt.month == 6].min() >= 200
    assert (left[chips["taken"].dt.month == 8] + 32).max() <= 100
    assert summary.chips_dropped["cloudy"] > 10
    assert summary.skipped["cloudy"] > 10
    assert summary.photos + sum(summary.skipped.values()) == 300


def test_a_footprint_with_holes_is_not_cut(scattered, make_ground, make_scene, tmp_path):
    pixels = np.full((4, 400, 400), 9, np.uint8)
    pixels[:, :, :200] = 0
    scenes = make_ground(400, pixels=pixels, nodata=0)
    summary = make_pairs(scattered(), scenes, tmp_path / "out", settings=PairSettings(chip_size=32, split="none"))
    chips = read_table(tmp_path / "out" / "chips.parquet")
    assert chips["left"].min() >= 500_200
    assert summary.chips_dropped == {"nodata": summary.chips_dropped["nodata"]}


def test_several_regions_and_zones_make_one_set(scattered, make_ground, make_photos, tmp_path):
    rng = np.random.default_rng(5)
    far = {"epsg": 32756, "corner": (330_000, 6_250_000)}
    photos = [
        scattered(),
        make_photos(
            *rng.uniform(0, 400, (2, 100)),
            name="far.parquet",
            user="traveller",
            ids=[f"far{row}" for row in range(100)],
            **far,
        ),
    ]
    scenes = [make_ground(400), make_ground(400, name="away", crs=32756, corner=far["corner"])]
    summary = make_pairs(photos, scenes, tmp_path / "out", settings=SMALL)
    chips = read_table(tmp_path / "out" / "chips.parquet")
    assert set(chips["epsg"]) == {32632, 32756}
    assert summary.photos > 100
    assert leakage(tmp_path / "out").none


def test_indoor_photos_are_left_out_by_the_teacher(make_photos, make_ground, make_pictures, teacher, tmp_path):
    rng = np.random.default_rng(6)
    uris = make_pictures([(120, 120, 120) if row % 3 == 0 else (10, 200, 20) for row in range(60)])
    photos = make_photos(*rng.uniform(50, 350, (2, 60)), uri=uris)
    settings = PairSettings(chip_size=32, split="none")
    summary = make_pairs(photos, make_ground(400), tmp_path / "out", settings=settings, teacher=teacher)
    assert summary.skipped["indoor"] == 20
    used = read_table(tmp_path / "out" / "photos.parquet")["photo_id"].str[1:].astype(int)
    assert (used % 3 != 0).all()
    assert len(used) == 40
    about = read_manifest(tmp_path / "out").extra["indoor"]
    assert (about["teacher"], about["margin"]) == ("colour", 0.0)


def test_the_teacher_of_the_settings_finds_indoor_photos(
    make_photos, make_ground, make_pictures, teacher, tmp_path, monkeypatch
):
    monkeypatch.setattr("geograft.pairs.plan.load_teacher", lambda name: {"mini": teacher}[name])
    photos = make_photos([100, 200], [100, 200], uri=make_pictures([(120, 120, 120), (10, 200, 20)]))
    settings = PairSettings(chip_size=32, split="none", indoor_teacher="mini")
    assert make_pairs(photos, make_ground(400), tmp_path / "out", settings=settings).skipped == {"indoor": 1}


def test_photos_that_moved_are_other_photos(scattered, make_ground, tmp_path):
    scenes = make_ground(400)
    make_pairs(scattered(), scenes, tmp_path / "out", settings=SMALL)
    moved = scattered(uri=[f"/elsewhere/{row}.jpg" for row in range(150)])
    with pytest.raises(OutputExists, match="other tables"):
        make_pairs(moved, scenes, tmp_path / "out", settings=SMALL)


def test_a_run_that_is_done_is_not_done_again(scattered, make_ground, tmp_path):
    photos, scenes = scattered(), make_ground(400)
    first = make_pairs(photos, scenes, tmp_path / "out", settings=SMALL)
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    assert make_pairs(photos, scenes, tmp_path / "out", settings=SMALL) == first
    assert times == {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}


def test_a_folder_of_other_settings_is_refused(scattered, make_ground, tmp_path):
    photos, scenes = scattered(), make_ground(400)
    make_pairs(photos, scenes, tmp_path / "out", settings=SMALL)
    before = contents(tmp_path / "out")
    with pytest.raises(OutputExists, match="other tables or settings"):
        make_pairs(photos, scenes, tmp_path / "out", settings=PairSettings(chip_size=32, seed=1))
    assert contents(tmp_path / "out") == before


def test_no_photo_on_any_scene_names_both_bounds(make_photos, make_ground, tmp_path):
    with pytest.raises(NoPairs, match=r"Photos span 10\.1449.*scenes 9\.0000, 45\.\d+"):
        make_pairs(make_photos([90_000], [0]), make_ground(64), tmp_path / "out", settings=SMALL)
    assert not (tmp_path / "out").exists()
    make_pairs(make_photos([60], [60]), make_ground(160), tmp_path / "out", settings=SMALL)


def test_photos_on_the_scene_s_rim_only_are_no_pairs(make_photos, make_ground, tmp_path):
    with pytest.raises(NoPairs, match="smaller chip size"):
        make_pairs(make_photos([5], [5]), make_ground(64), tmp_path / "out", settings=SMALL)


def test_an_empty_photo_table_is_refused(make_photos, make_ground, tmp_path):
    with pytest.raises(EmptyTable, match="no rows"):
        make_pairs(make_photos([], [], taken=None, user=None), make_ground(64), tmp_path / "out", settings=SMALL)


def test_missing_tables_and_columns_are_named(scattered, make_ground, tmp_path):
    photos, scenes = scattered(), make_ground(64)
    with pytest.raises(MissingInput, match=r"none\.parquet"):
        make_pairs(tmp_path / "none.parquet", scenes, tmp_path / "out")
    gpd.read_parquet(photos).drop(columns=["user"]).to_parquet(tmp_path / "poor.parquet")
    with pytest.raises(MissingColumns, match="no column user"):
        make_pairs(tmp_path / "poor.parquet", scenes, tmp_path / "out")
    gpd.read_parquet(scenes).drop(columns=["uri"]).to_parquet(tmp_path / "poor.parquet")
    with pytest.raises(MissingColumns, match="no column uri"):
        make_pairs(photos, tmp_path / "poor.parquet", tmp_path / "out")


def test_a_table_without_geometry_is_named(scattered, make_ground, tmp_path):
    plain = pd.DataFrame(gpd.read_parquet(scattered())).assign(geometry="POINT (9 45)")
    plain.to_parquet(tmp_path / "plain.parquet")
    with pytest.raises(UnreadableTable, match="no GeoParquet"):
        make_pairs(tmp_path / "plain.parquet", make_ground(64), tmp_path / "out")


def test_an_empty_split_is_said_in_the_log(scattered, make_ground, tmp_path, caplog):
    settings = PairSettings(chip_size=32, block_m=50_000)
    summary = make_pairs(scattered(), make_ground(400), tmp_path / "out", settings=settings)
    assert summary.splits["test"] == 0
    assert "No chip fell to validation and test" in caplog.text


def test_a_split_by_place_needs_places(scattered, make_ground, tmp_path):
    with pytest.raises(MissingColumns, match="`place`"):
        make_pairs(scattered(), make_ground(400), tmp_path / "out", settings=PairSettings(chip_size=32, split="place"))
    some = [None, "a", "b", "c", "d", "e"] * 25
    settings = PairSettings(chip_size=32, split="place")
    summary = make_pairs(scattered(place=some), make_ground(400), tmp_path / "out", settings=settings)
    assert summary.skipped["no-place"] == 25
    assert leakage(tmp_path / "out").places == 0


def test_a_chip_larger_than_the_scene_is_refused(scattered, make_ground, tmp_path):
    with pytest.raises(SceneTooSmall, match="is 400 m"):
        make_pairs(scattered(), make_ground(400), tmp_path / "out", settings=PairSettings(chip_size=512))


@pytest.mark.parametrize(
    "values",
    [
        {"max_photos": 0},
        {"max_cloud": 2.0},
        {"fractions": (0.5, 0.5)},
        {"shard_mb": 0},
        {"max_overlap": 1.5},
        {"time_bin_days": 0},
        {"density_cap": 0},
        {"encoding": "gif"},
    ],
)
def test_settings_out_of_range_are_refused(values):
    with pytest.raises(BadSetting):
        PairSettings(**values)


def test_the_chip_table_says_what_other_tools_need(scattered, make_ground, tmp_path):
    make_pairs(scattered(), make_ground(400), tmp_path / "out", settings=SMALL)
    chips = gpd.read_parquet(tmp_path / "out" / "chips.parquet")
    assert chips.crs.to_epsg() == 4326
    assert (chips.to_crs(32632).area / 32**2).between(0.99, 1.01).all()
    assert set(chips["split"]) <= {"train", "validation", "test"}
    pairs = read_table(tmp_path / "out" / "pairs.parquet")
    assert chips.set_index("chip_id")["photos"].to_dict() == pairs["chip_id"].value_counts().to_dict()
    digest = json.loads((tmp_path / "out" / "plan" / "claim.json").read_text())["plan"]
    assert read_manifest(tmp_path / "out").extra["plan"] == digest


def test_settings_out_of_range_are_refused_and_zero_is_not_unset(scattered, make_ground, tmp_path):
    for wrong in ({"seed": -1}, {"max_gap_days": 0.0}):
        with pytest.raises(BadSetting):
            PairSettings(**wrong)
    with pytest.raises(BadSetting, match="above 0"):
        make_pairs(scattered(20, 200), make_ground(200), tmp_path / "out", settings=PairSettings(gsd=0.0))


def test_a_folder_whose_claim_is_unreadable_is_refused(scattered, make_ground, tmp_path):
    (tmp_path / "out" / "plan").mkdir(parents=True)
    (tmp_path / "out" / "plan" / "claim.json").write_text("{")
    with pytest.raises(OutputExists):
        make_pairs(scattered(60, 200), make_ground(200), tmp_path / "out", settings=SMALL)
