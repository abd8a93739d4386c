import json
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
import rasterio.shutil
import shapely
from affine import Affine
from PIL import Image
from typer.testing import CliRunner

from geograft.cli import app
from geograft.errors import (
    BadSetting,
    EmptyTable,
    MissingInput,
    NoGeoreference,
    SensorMismatch,
    UnreadableTable,
)
from geograft.raster import chip_geobox, cloud_share, read, signing, utm_geobox, write_cog
from geograft.raster.tiles import TileSource, tile_square
from geograft.sensors import get_sensor
from geograft.settings import settings_from
from geograft.sources.scenes import COLUMNS, SceneSettings, read_scenes, scene_of
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


@pytest.mark.parametrize(
    "wrong",
    [
        {"bounds": (10, 5, 1, 2)},
        {"bounds": (0, 0, 400, 1)},
        {"zoom": 99},
        {"max_cloud": 12.5},
        {"limit": 0},
        {"datetime": "last summer"},
        {"datetime": "2024-09-01/2024-06-01"},
    ],
)
def test_settings_that_no_scene_can_meet_are_refused(wrong):
    with pytest.raises(BadSetting):
        SceneSettings(**wrong)


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("2024-06-01", "2024-06-01T00:00:00+00:00", "2024-06-01T23:59:59.999999+00:00"),
        ("2024-06-01/..", "2024-06-01T00:00:00+00:00", None),
        ("../2024-06-01T12:00:00+02:00", None, "2024-06-01T10:00:00+00:00"),
    ],
)
def test_an_interval_holds_the_whole_of_its_last_day(text, first, last):
    found = SceneSettings(datetime=text).interval
    assert [None if each is None else each.isoformat() for each in found] == [first, last]


def test_a_day_of_a_yaml_file_needs_no_quotes(tmp_path):
    (tmp_path / "s.yaml").write_text("datetime: 2024-06-01\nbounds: [170, -20, -170, -10]\nmax_cloud: 0.5\n")
    found = settings_from(SceneSettings, tmp_path / "s.yaml")
    assert (found.when, found.max_cloud) == ("2024-06-01", 0.5)
    assert found.interval[1] - found.interval[0] == timedelta(days=1, microseconds=-1)
    assert found.area.geom_type == "MultiPolygon"


# --- rows back into scenes --------------------------------------------------------------------------------


def test_a_row_gives_back_the_scene_with_its_clouds(tmp_path, make_scene):
    path = make_scene("s/x_20240701.tif", sensor="world-10m")
    clouds = np.zeros((1, 64, 64))
    clouds[:, :16] = 1
    make_scene("s/x_20240701_clouds.tif", pixels=clouds, sensor="world-10m", dtype="uint8", descriptions=None)
    row = read_table(read_scenes(tmp_path / "s", tmp_path / "out.parquet", sensor="world-10m").out).iloc[0]
    scene = scene_of(row)
    assert (scene.path, scene.sensor.name, scene.taken) == (str(path), "world-10m", row.taken)
    assert scene_of(row) is scene_of(dict(row))
    assert cloud_share(scene, scene.geobox) == 0.25
    assert scene_of({"uri": str(path), "sensor": "world-10m"}) == scene


def test_a_scene_that_was_written_anew_is_opened_anew(tmp_path, make_scene):
    row = {"uri": str(make_scene("a.tif", size=64)), "sensor": "world-1m"}
    assert scene_of(row).geobox.shape == (64, 64)
    make_scene("a.tif", size=32)
    assert scene_of(row).geobox.shape == (32, 32)


# --- folders, lists and patterns --------------------------------------------------------------------------


def test_a_folder_of_several_zones_keeps_each_scenes_own(tmp_path, make_scene):
    make_scene("s/a.tif", crs="EPSG:32632")
    make_scene("s/b.tif", crs="EPSG:32755", transform=Affine(1, 0, 500_000, 0, -1, 6_000_000))
    make_scene("s/c.tif", crs="EPSG:4326", transform=Affine(1e-5, 0, 9, 0, -1e-5, 45))
    make_scene("s/d.tif", crs="EPSG:32601", transform=Affine(10, 0, 165_800, 0, -10, 100_000))
    table = read_table(read_scenes(tmp_path / "s", tmp_path / "out.parquet", sensor="world-1m").out)
    assert table.epsg.tolist() == [32632, 32755, 4326, 32601]
    assert table.geometry[3].geom_type == "MultiPolygon"  # zone 1 reaches across 180 degrees
    for _, row in table.iterrows():
        lon, lat = row.geometry.representative_point().coords[0]
        assert read(scene_of(row), utm_geobox(lon, lat, gsd=row.gsd, size=4)).valid.any()


def test_a_jpeg_2000_is_a_scene(tmp_path, make_scene):
    rasterio.shutil.copy(make_scene("a.tif", sensor="rgb"), tmp_path / "s.jp2", driver="JP2OpenJPEG", reversible="YES")
    (tmp_path / "j").mkdir()
    (tmp_path / "s.jp2").rename(tmp_path / "j" / "s.jp2")
    table = read_table(read_scenes(tmp_path / "j", tmp_path / "out.parquet", sensor="rgb").out)
    assert table.scene_id.tolist() == ["j/s"]
    assert read(scene_of(table.iloc[0]), scene_of(table.iloc[0]).geobox).valid.all()


def test_a_list_names_its_scenes_and_comments(tmp_path, make_scene):
    first, second = make_scene("a/x.tif"), make_scene("b/x.tif")
    (tmp_path / "mine.txt").write_text(f"# two places\n{first}\n\nb/{second.name}\nnone.tif\n")
    summary = read_scenes(tmp_path / "mine.txt", tmp_path / "out.parquet", sensor="world-1m")
    table = read_table(summary.out)
    assert table.scene_id.tolist() == ["mine/a/x", "mine/b/x"]
    assert table.uri.tolist() == [str(first), str(second)]
    assert summary.skipped == {"missing-file": 1}
    (tmp_path / "raw.txt").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(UnreadableTable):
        read_scenes(tmp_path / "raw.txt", tmp_path / "out.parquet", sensor="world-1m")


def test_a_pattern_names_the_scenes_that_fit(tmp_path, make_scene):
    for name in ("p/one/a.tif", "p/two/a.tif", "p/two/b.tif"):
        make_scene(name)
    out = tmp_path / "out.parquet"
    assert read_table(read_scenes(f"{tmp_path}/p/*/a.tif", out, sensor="world-1m").out).scene_id.tolist() == [
        "p/one/a",
        "p/two/a",
    ]
    with pytest.raises(MissingInput, match="pattern"):
        read_scenes(f"{tmp_path}/p/*/c.tif", out, sensor="world-1m")


def test_settings_leave_files_out_too(tmp_path, make_scene):
    make_scene("s/a_20240701.tif")
    make_scene("s/b_20230701.tif")
    make_scene("s/c_20240702.tif", transform=Affine(1, 0, 700_000, 0, -1, 5_000_000))
    make_scene("s/d.tif")
    settings = SceneSettings(bounds=(8.9, 45, 9.1, 45.3), datetime="2024-01-01/..")
    summary = read_scenes(tmp_path / "s", tmp_path / "out.parquet", sensor="world-1m", settings=settings)
    assert read_table(summary.out).scene_id.tolist() == ["s/a_20240701", "s/d"]
    assert summary.skipped == {"outside-datetime": 1, "outside-bounds": 1}


def test_a_list_of_addresses_is_read_and_a_failing_server_is_counted_as_failed(tmp_path, make_scene, file_server):
    for name in ("f/one/a_20240701.tif", "f/two/b.tif"):
        make_scene(name)
    (tmp_path / "f" / "page.tif").write_text("<html/>")
    names = ("one/a_20240701.tif", "two/b.tif", "page.tif", "gone.tif")
    (tmp_path / "far.txt").write_text("\n".join(f"{file_server.url}/f/{name}" for name in names))
    summary = read_scenes(tmp_path / "far.txt", tmp_path / "out.parquet", sensor="world-1m")
    table = read_table(summary.out)
    assert table.scene_id.tolist() == ["far/one/a_20240701", "far/two/b"]
    assert table.uri[1] == f"{file_server.url}/f/two/b.tif"
    assert table.taken[0] == datetime(2024, 7, 1, tzinfo=UTC)
    assert (summary.skipped, summary.failed) == ({"unreadable-scene": 2}, {})
    scene = scene_of(table.iloc[1])
    assert read(scene, scene.geobox).valid.all()
    file_server.refuse = lambda _: 503
    (tmp_path / "far.txt").write_text(f"{file_server.url}/f/busy.tif\n{tmp_path}/f/two/b.tif\n")
    summary = read_scenes(tmp_path / "far.txt", tmp_path / "out.parquet", sensor="world-1m")
    assert (summary.scenes, summary.skipped, summary.failed) == (1, {}, {"unreachable-scene": 1})


# --- a sensor of the user's own ---------------------------------------------------------------------------


def own_sensor(folder, **changes):
    """A sensor of one band of heights, as a YAML file."""
    fields = {
        "bands": ["height"], "gsd": 1.0, "dtype": "float32", "scale": 1.0, "offset": 0.0, "nodata": -9999,
        "mean": [100], "std": [50], "display": [0, 500],
    } | changes  # fmt: skip
    (folder / "height.yaml").write_text(json.dumps(fields))
    return folder / "height.yaml"


def test_a_sensor_of_the_users_own_works_from_file_to_pixels(tmp_path, make_scene, monkeypatch):
    sensor = own_sensor(tmp_path)
    make_scene("s/a.tif", sensor=get_sensor(sensor), dtype="float32", descriptions=["Height"], tags={})
    monkeypatch.chdir(tmp_path)
    table = read_table(read_scenes("s", "out.parquet", sensor="height.yaml").out)
    assert table.sensor[0] == str(sensor)
    monkeypatch.chdir("/")
    scene = scene_of(table.iloc[0])
    assert scene.sensor.bands == ("height",)
    assert read(scene, scene.geobox).pixels.dtype == np.float32


# --- the command ------------------------------------------------------------------------------------------


def test_the_command_counts_what_failed_and_says_so_by_its_exit_code(tmp_path, make_scene):
    make_scene("i.tif", sensor="naip", tags={})
    item = {
        "type": "Feature", "id": "i", "geometry": None, "bbox": [9, 45, 9.1, 45.1], "properties": {},
        "assets": {"image": {"href": "i.tif"}},
    }  # fmt: skip
    (tmp_path / "i.json").write_text(json.dumps(item))
    links = [{"rel": "item", "href": name} for name in ("i.json", "gone.json")]
    (tmp_path / "c.json").write_text(json.dumps({"type": "Catalog", "id": "c", "links": links}))
    words = ["scenes", str(tmp_path / "c.json"), str(tmp_path / "o.parquet"), "--sensor", "naip", "--json"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 1
    assert json.loads(result.stdout) | {"out": ""} == {
        "out": "", "scenes": 1, "skipped": {}, "failed": {"unreadable-item": 1},
    }  # fmt: skip


def test_a_signer_stays_a_name_in_the_table(tmp_path, make_scene, monkeypatch):
    monkeypatch.setattr(signing, "_registered", {"mine": lambda uri: f"{uri}?secret"})
    make_scene("s/a.tif")
    settings = SceneSettings(signer="mine")
    table = read_table(read_scenes(tmp_path / "s", tmp_path / "o.parquet", sensor="world-1m", settings=settings).out)
    assert table.signer.tolist() == ["mine"]
    assert "secret" not in table.to_csv()
