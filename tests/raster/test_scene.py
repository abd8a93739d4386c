import pickle

import numpy as np
import pytest
from affine import Affine
from odc.geo.geobox import GeoBox

from geograft.errors import MissingInput, SensorMismatch
from geograft.raster import chip_geobox, cloud_share, open_assets, open_scene, read, write_cog

S2 = ("red", "green", "blue", "nir", "swir")
GRID = {10: chip_geobox(32632, 5e5, 5e6, gsd=10, size=120), 20: chip_geobox(32632, 5e5, 5e6, gsd=20, size=60)}


@pytest.fixture
def bands(tmp_path):
    """A factory of Sentinel-2-like files, one a band, swir at 20 m; gives band to path."""

    def make(*, value=2000, dtype=np.uint16, hole=None, **options):
        files = {}
        for k, band in enumerate(S2):
            gsd = 20 if band == "swir" else 10
            pixels = np.full((1, *GRID[gsd].shape), value + 100 * k, dtype)
            if hole is not None:
                pixels[:, : hole // gsd] = 0
            path = write_cog(tmp_path / f"{band}.tif", pixels, GRID[gsd], nodata=0, **options)
            files[band] = str(path)
        return files

    return make


def scl(folder, values):
    write_cog(folder / "scl.tif", values.astype(np.uint8), GRID[20], nodata=0)
    return str(folder / "scl.tif")


def test_bands_of_several_files_and_resolutions_become_one_scene_on_the_finest_grid(bands):
    scene = open_assets("item.json", bands(), "sentinel-2-l2a")
    found = read(scene, GRID[10][20:52, 30:62])
    assert (scene.kind, scene.gsd, scene.geobox) == ("assets", 10.0, GRID[10])
    assert found.valid.all()
    assert found.pixels[:, 5, 5].tolist() == [2000, 2100, 2200, 2300, 2400]
    assert found.pixels.dtype == np.uint16
    assert pickle.loads(pickle.dumps(scene)) == scene
    assert hash(scene) == hash(pickle.loads(pickle.dumps(scene)))


def test_holes_of_all_bands_are_invalid_in_the_whole(bands):
    scene = open_assets("item.json", bands(hole=400), "sentinel-2-l2a")
    found = read(scene, GRID[10])
    assert not found.valid[:39].any()
    assert found.valid[41:].all()
    assert (found.pixels[:, :39] == 0).all()


def test_a_coarse_band_is_interpolated_onto_the_fine_grid(tmp_path, bands):
    files = bands()
    ramp = np.broadcast_to(1000 + 40 * np.arange(60), (1, 60, 60)).astype(np.uint16)
    write_cog(files["swir"], ramp, GRID[20], nodata=0)
    found = read(open_assets("item.json", files, "sentinel-2-l2a"), GRID[10])
    expected = 1000 + 40 * ((np.arange(120) + 0.5) / 2 - 0.5)
    assert np.abs(found.pixels[4, 60, 2:-2] - expected[2:-2]).max() <= 1


def test_older_scenes_are_moved_onto_the_sensors_offset_and_nodata_stays(bands):
    files = bands(value=1500, hole=400)
    found = read(open_assets("item.json", files, "sentinel-2-l2a", shift=1000), GRID[10])
    assert found.pixels[:, 60, 60].tolist() == [2500, 2600, 2700, 2800, 2900]
    assert not found.valid[:39].any()
    assert (found.pixels[:, :39] == 0).all()


def test_values_that_leave_the_data_type_are_kept_at_its_ends(bands):
    high = read(open_assets("i", bands(value=65000), "sentinel-2-l2a", shift=1000), GRID[10])
    low = read(open_assets("i", bands(value=300), "sentinel-2-l2a", shift=-1000), GRID[10])
    assert high.pixels[:, 60, 60].tolist() == [65535] * 5
    assert low.pixels[:, 60, 60].tolist() == [1] * 5  # 0 would be nodata
    assert low.valid.all()


def test_files_that_contradict_the_sensor_or_are_missing_are_refused_by_name(bands):
    with pytest.raises(SensorMismatch, match="no asset for swir"):
        open_assets("i", {band: path for band, path in bands().items() if band != "swir"}, "sentinel-2-l2a")
    with pytest.raises(SensorMismatch, match="is int16"):
        open_assets("i", bands(value=2000, dtype=np.int16), "sentinel-2-l2a")
    with pytest.raises(SensorMismatch, match="offset 0"):
        open_assets("i", bands(scale=0.0001, offset=0.0), "sentinel-2-l2a")
    assert open_assets("i", bands(scale=0.0001, offset=0.0), "sentinel-2-l2a", shift=1000).shift == 1000
    assert open_assets("i", bands(scale=0.0001, offset=-0.1), "sentinel-2-l2a").shift == 0
    with pytest.raises(SensorMismatch, match=r"offset -0\.1"):
        open_assets("i", bands(scale=0.0001, offset=-0.1), "sentinel-2-l2a", shift=1000)
    with pytest.raises(MissingInput):
        open_assets("i", {**bands(), "nir": "/nowhere/nir.tif"}, "sentinel-2-l2a")


def test_a_file_of_several_bands_gives_the_one_that_is_meant(tmp_path, bands):
    files = bands()
    both = np.stack([np.full((120, 120), 7), np.full((120, 120), 3333)]).astype(np.uint16)
    write_cog(files["nir"], both, GRID[10], band_names=("red_edge", "nir"))
    assert read(open_assets("i", files, "sentinel-2-l2a"), GRID[10]).pixels[3, 9, 9] == 3333
    write_cog(files["nir"], both, GRID[10], band_names=("red_edge", "red_edge_2"))
    with pytest.raises(SensorMismatch, match="needs nir"):
        open_assets("i", files, "sentinel-2-l2a")


def test_the_scene_classification_says_where_clouds_are(tmp_path, bands):
    values = np.full((60, 60), 4)
    values[:10] = 0  # nodata does not count
    values[10:20], values[20:25], values[25:30], values[30:35] = 9, 8, 3, 10
    values[35:40] = 7  # unclassified is no cloud
    scene = open_assets("i", bands(), "sentinel-2-l2a", mask_uri=scl(tmp_path, values))
    assert cloud_share(scene, GRID[10]) == pytest.approx(25 / 50)
    assert cloud_share(scene, GRID[10][80:112, 0:32]) == 0
    assert cloud_share(scene, GRID[10][40:60, 0:20]) == 1
    assert cloud_share(scene, chip_geobox(32632, 6e5, 5e6, gsd=10, size=32)) == 0


def test_the_bits_of_a_quality_band_say_where_clouds_are(tmp_path):
    files = {}
    for band in ("blue", "green", "red", "nir", "swir"):
        box = chip_geobox(32632, 5e5, 5e6, gsd=30, size=40)
        files[band] = str(write_cog(tmp_path / f"{band}.tif", np.full((1, 40, 40), 9000, np.uint16), box, nodata=0))
    flags = np.full((40, 40), 21824, np.uint16)  # clear land, as Collection 2 writes it
    flags[:10] = 1  # fill
    flags[10:15], flags[15:20], flags[20:25] = 22280, 23888, 21826  # cloud, cloud shadow, dilated cloud
    flags[25:30] = 54596  # cirrus of high confidence
    write_cog(tmp_path / "qa.tif", flags, box, nodata=1)
    scene = open_assets("i", files, "landsat", mask_uri=str(tmp_path / "qa.tif"))
    assert cloud_share(scene, box) == pytest.approx(20 / 30)


def test_a_mask_that_explains_itself_is_read_as_it_says(make_scene, tmp_path):
    scene = open_scene(make_scene("a.tif", sensor="world-10m"))
    clouds = np.zeros((1, 64, 64))
    clouds[:, :16] = 1
    make_scene("a_clouds.tif", pixels=clouds, sensor="world-10m", dtype="uint8", descriptions=None)
    assert cloud_share(scene, scene.geobox) == 0.25


def test_bands_of_different_zones_are_one_scene(bands):
    files = bands()
    far = GeoBox((60, 60), Affine(20, 0, 25_800, 0, -20, 5_020_000), "EPSG:32633")
    write_cog(files["swir"], np.full((1, 60, 60), 2222, np.uint16), far, nodata=0)
    scene = open_assets("i", files, "sentinel-2-l2a")
    assert scene.geobox == GRID[10]
    assert read(scene, GRID[10]).pixels[0, 60, 60] == 2000
