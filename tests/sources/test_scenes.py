from datetime import UTC, datetime

import numpy as np
import pytest
import shapely
from affine import Affine
from PIL import Image

from geograft.errors import BadSetting, EmptyTable, MissingInput, NoGeoreference, SensorMismatch
from geograft.raster import chip_geobox, write_cog
from geograft.raster.tiles import TileSource, tile_square
from geograft.sources.scenes import COLUMNS, SceneSettings, read_scenes
from geograft.tables import read_manifest, read_table


def test_a_folder_becomes_a_table_of_footprints(tmp_path, make_scene):
    make_scene("s/b/world-1m_2024-07-01.tif")
    make_scene("s/a.tif", transform=Affine(2, 0, 400_000, 0, -2, 5_000_000))
    table = read_table(read_scenes(tmp_path / "s", tmp_path / "out.parquet", sensor="world-1m").out)
    assert table.columns.tolist() == [*COLUMNS, "geometry"]
    assert table.scene_id.tolist() == ["s/a", "s/b/world-1m_2024-07-01"]
    assert table.gsd.tolist() == [2.0, 1.0]
    assert table.epsg.tolist() == [32632, 32632]
    assert table.taken.isna().tolist() == [True, False]
    assert table.taken[1] == datetime(2024, 7, 1, tzinfo=UTC)
    assert table[["width", "height", "kind", "cloud_share"]].to_numpy().tolist() == [[64, 64, "file", 0.0]] * 2
    assert table.crs.to_epsg() == 4326
    assert table.to_crs(32632).area.round().tolist() == [128**2, 64**2]


def test_scenes_of_two_regions_have_different_ids(tmp_path, make_scene):
    ids = []
    for region in ("w1", "w2"):
        make_scene(f"{region}/scenes/summer.tif")
        out = tmp_path / f"{region}.parquet"
        ids += read_table(read_scenes(tmp_path / region / "scenes", out, sensor="world-1m").out).scene_id.tolist()
    assert ids == ["w1/summer", "w2/summer"]


def test_clouds_are_counted_and_masks_are_no_scenes(tmp_path, make_scene):
    make_scene("s/x.tif", sensor="world-10m")
    clouds = np.zeros((1, 64, 64))
    clouds[:, :16] = 1
    make_scene("s/x_clouds.tif", pixels=clouds, sensor="world-10m", dtype="uint8", descriptions=None)
    table = read_table(read_scenes(tmp_path / "s", tmp_path / "out.parquet", sensor="world-10m").out)
    assert table[["scene_id", "cloud_share"]].to_numpy().tolist() == [["s/x", 0.25]]


def test_files_that_cannot_be_used_are_counted_by_reason(tmp_path, make_scene):
    make_scene("s/good.tif")
    make_scene("s/other.tif", sensor="world-10m")
    make_scene("s/nowhere.tif", crs=None)
    (tmp_path / "s" / "text.tif").write_text("not a raster")
    noise = np.random.default_rng(0).integers(0, 255, (4, 512, 512), np.uint8)
    cut = write_cog(tmp_path / "s" / "cut.tif", noise, chip_geobox(32632, 5e5, 5e6, gsd=1, size=512))
    cut.write_bytes(cut.read_bytes()[:-5000])
    (tmp_path / "s" / ".left.part.tif").write_bytes(b"left by a killed run")
    summary = read_scenes(tmp_path / "s", tmp_path / "out.parquet", sensor="world-1m")
    assert summary.scenes == 1
    assert summary.skipped == {"no-georeference": 1, "sensor-mismatch": 1, "unreadable-scene": 2}
    assert read_manifest(summary.out).counts["skipped"] == summary.skipped


def test_each_file_may_say_its_own_sensor(tmp_path, make_scene):
    make_scene("s/a.tif")
    make_scene("s/b.tif", sensor="world-10m")
    make_scene("s/c.tif", sensor="naip", tags={})
    summary = read_scenes(tmp_path / "s", tmp_path / "out.parquet")
    assert read_table(summary.out).sensor.tolist() == ["world-1m", "world-10m"]
    assert summary.skipped == {"unknown-sensor": 1}


def test_one_file_is_read_or_refused_by_name(tmp_path, make_scene):
    out = tmp_path / "out.parquet"
    assert read_scenes(make_scene(), out, sensor="world-1m").scenes == 1
    with pytest.raises(SensorMismatch):
        read_scenes(make_scene(), out, sensor="world-10m")
    with pytest.raises(NoGeoreference):
        read_scenes(make_scene("n.tif", crs=None), out, sensor="world-1m")


def test_a_folder_without_usable_scenes_says_why(tmp_path, make_scene):
    make_scene("s/nowhere.tif", crs=None)
    with pytest.raises(EmptyTable, match="coordinate reference system"):
        read_scenes(tmp_path / "s", tmp_path / "out.parquet", sensor="world-1m")
    with pytest.raises(MissingInput):
        read_scenes(tmp_path / "none", tmp_path / "out.parquet", sensor="world-1m")
    assert not (tmp_path / "out.parquet").exists()


def test_tiles_become_one_row_whose_footprint_is_where_tiles_are(tmp_path):
    places = [(30145, 19663), (30146, 19663), (30150, 19670)]
    for x, y in places:
        path = tmp_path / "map" / "15" / str(x) / f"{y}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (256, 256), (200, 220, 200)).save(path)
    table = read_table(read_scenes(tmp_path / "map", tmp_path / "out.parquet", sensor="map-tiles").out)
    squares = [tile_square(TileSource("", 15), x, y) for x, y in places]
    found = table.iloc[0]
    assert (len(table), found.scene_id, found.kind, found.epsg) == (1, "map-15", "xyz", 3857)
    assert found.uri == str(tmp_path / "map" / "15" / "{x}" / "{y}.jpg")
    assert found.gsd == pytest.approx(4.0, abs=0.05)
    assert found.geometry.area == pytest.approx(sum(square.area for square in squares))
    assert not found.geometry.contains(shapely.Point(tile_square(TileSource("", 15), 30148, 19666).centroid))


def test_remote_tiles_take_their_bounds_from_the_settings(tmp_path):
    settings = SceneSettings(zoom=15, bounds=(150.0, -34.0, 152.0, -33.0))
    url = "https://example.org/{z}/{x}/{y}.jpg"
    table = read_table(read_scenes(url, tmp_path / "o.parquet", sensor="map-tiles", settings=settings).out)
    assert table.geometry[0].bounds == (150.0, -34.0, 152.0, -33.0)
    assert table.uri[0] == "https://example.org/15/{x}/{y}.jpg"
    assert table.gsd[0] == pytest.approx(4.0, abs=0.05)


@pytest.mark.shared
def test_the_real_naip_years_become_ten_scenes(tmp_path, shared_data):
    summary = read_scenes(shared_data / "naip", tmp_path / "out.parquet", sensor="naip")
    table = read_table(summary.out)
    assert (summary.scenes, summary.skipped) == (10, {})
    assert table.taken.dt.year.tolist() == [2009, 2010, 2012, 2014, 2015, 2016, 2017, 2018, 2019, 2020]
    assert (table.gsd == 5).all()


@pytest.mark.shared
def test_of_the_real_landsat_years_the_one_cut_short_is_skipped(tmp_path, shared_data):
    summary = read_scenes(shared_data / "landsat", tmp_path / "out.parquet", sensor="naip")
    assert (summary.scenes, summary.skipped) == (7, {"unreadable-scene": 1})


@pytest.mark.parametrize("wrong", [{"bounds": (10, 5, 1, 2)}, {"bounds": (0, 0, 400, 1)}, {"zoom": 99}])
def test_bounds_and_zooms_that_no_tiles_have_are_refused(wrong):
    with pytest.raises(BadSetting):
        SceneSettings(**wrong)
