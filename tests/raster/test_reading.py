import multiprocessing
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from affine import Affine
from odc.geo.geobox import GeoBox

from geograft.errors import MissingInput, UnreadableScene
from geograft.raster import cloud_share, ground_gsd, open_scene, read, utm_geobox, write_cog

NAMED = {"GEOGRAFT_SENSOR": "world-1m"}
UTM = "EPSG:32632"


def grid(left, top, *, gsd=1.0, shape=(16, 16), crs=UTM):
    return GeoBox(shape, Affine(gsd, 0, left, 0, -gsd, top), crs)


def ramp(bands=4, size=64):
    """Bands that grow linearly eastward and southward, so that any resampling has a known answer."""
    rows, columns = np.mgrid[:size, :size]
    return np.stack([20 + 2 * columns + rows + 5 * band for band in range(bands)])


def test_a_grid_on_the_scenes_own_pixels_is_read_as_it_is(make_scene):
    scene = open_scene(make_scene(pixels=ramp()))
    found = read(scene, grid(500_010, 4_999_980))
    assert np.array_equal(found.pixels, ramp()[:, 20:36, 10:26])
    assert found.pixels.dtype == np.uint8
    assert found.valid.all()
    assert found.geobox == grid(500_010, 4_999_980)


def test_a_shifted_grid_is_interpolated_between_pixels(make_scene):
    scene = open_scene(make_scene(pixels=ramp()))
    found = read(scene, grid(500_010.5, 4_999_980))
    expected = ramp()[:, 20:36, 10:26] + 1.0
    assert np.abs(found.pixels - expected).max() <= 1
    assert found.valid.all()


def test_a_coarser_grid_is_averaged_not_thinned(make_scene):
    checks = np.indices((64, 64)).sum(axis=0) % 2 * 200 + 20
    scene = open_scene(make_scene(pixels=np.stack([checks] * 4)))
    found = read(scene, grid(500_000, 5_000_000, gsd=8.0, shape=(8, 8)))
    assert np.abs(found.pixels[:, 1:-1, 1:-1].astype(int) - 120).max() < 15


def test_pixels_outside_the_scene_are_invalid_and_zero(make_scene):
    scene = open_scene(make_scene())
    found = read(scene, grid(499_992, 5_000_008))
    assert found.valid[8:, 8:].all()
    assert found.valid.sum() == 64
    assert (found.pixels[:, ~found.valid] == 0).all()


@pytest.mark.parametrize("box", [grid(600_000, 5_000_000), utm_geobox(151, -33, gsd=1, size=16)])
def test_a_grid_far_away_is_all_invalid(make_scene, box):
    found = read(open_scene(make_scene()), box)
    assert not found.valid.any()
    assert found.pixels.shape == (4, 16, 16)


def test_the_result_does_not_depend_on_the_window(make_scene):
    scene = open_scene(make_scene())
    whole = read(scene, utm_geobox(9.0002, 45.1533, gsd=0.7, size=60))
    part = read(scene, whole.geobox[20:40, 10:50])
    assert whole.valid.any()
    assert np.array_equal(part.valid, whole.valid[20:40, 10:50])
    assert np.abs(part.pixels.astype(int) - whole.pixels[:, 20:40, 10:50]).max() <= 1


@pytest.mark.parametrize(
    "box",
    [
        grid(37_000, 5_010_000, gsd=10.0, shape=(128, 128), crs="EPSG:32633"),
        GeoBox((128, 128), Affine(1e-4, 0, 9.03, 0, -1e-4, 45.1), "EPSG:4326"),
    ],
    ids=["another zone", "degrees"],
)
def test_even_noise_in_another_projection_is_the_same_whatever_the_window(make_scene, box):
    noise = np.random.default_rng(0).integers(1000, 4000, (5, 1200, 1200))
    scene = open_scene(make_scene(sensor="world-10m", pixels=noise))
    whole, part = read(scene, box), read(scene, box[17:117, 40:101])
    assert whole.valid.mean() > 0.9
    assert np.array_equal(part.valid, whole.valid[17:117, 40:101])
    assert np.abs(part.pixels.astype(int) - whole.pixels[:, 17:117, 40:101]).max() <= 5


def holes(size=64):
    hole = np.zeros((size, size), bool)
    hole[10:30, 10:30] = True
    return hole


@pytest.mark.parametrize("kind", ["nodata", "sensor-nodata", "alpha", "mask"])
@pytest.mark.parametrize("shift", [0.0, 0.25])
def test_every_kind_of_mask_makes_invalid_pixels(make_scene, kind, shift):
    hole = holes()
    pixels = np.full((5, 64, 64), 2000)
    options = {"sensor": "world-10m", "pixels": pixels}
    if kind in {"nodata", "sensor-nodata"}:
        pixels[:, hole] = 0
        options["nodata"] = 0 if kind == "nodata" else None
    elif kind == "alpha":
        options["alpha"] = np.where(hole, 0, 65535)
    else:
        options["mask"] = ~hole
    scene = open_scene(make_scene(**options), sensor="world-10m")
    found = read(scene, grid(500_000 + 10 * shift, 5_000_000, gsd=10.0, shape=(64, 60)))
    assert not found.valid[11:29, 11:29].any()
    assert found.valid[:8].all()
    assert found.valid[:, 32:].all()
    assert (found.pixels[:, found.valid] == 2000).all()
    assert (found.pixels[:, ~found.valid] == 0).all()


def test_one_dark_band_is_data_not_a_hole(make_scene):
    pixels = np.full((5, 64, 64), 2000)
    pixels[2, 10:30, 10:30] = 0
    scene = open_scene(make_scene(sensor="world-10m", pixels=pixels, nodata=0))
    for left in (500_000, 500_002.5):
        assert read(scene, grid(left, 5_000_000, gsd=10.0, shape=(64, 60))).valid.all()


@pytest.mark.parametrize(
    "transform",
    [
        Affine(1, 0, 500_000, 0, 1, 4_999_936),
        Affine(1, 0, 500_000, 0, -1, 5_000_000) @ Affine.rotation(20),
    ],
    ids=["south-up", "rotated"],
)
def test_south_up_and_rotated_scenes_come_out_north_up(make_scene, transform):
    scene = open_scene(make_scene(pixels=ramp(), transform=transform))
    row, column = 30, 25
    x, y = transform @ (column + 0.5, row + 0.5)
    found = read(scene, grid(round(x) - 4, round(y) + 4, shape=(8, 8)))
    near = ramp()[:, row - 4 : row + 5, column - 4 : column + 5]
    line, pixel = int(round(y) + 4 - y), int(x - round(x) + 4)
    assert found.valid.all()
    assert np.abs(found.pixels[:, line, pixel] - ramp()[:, row, column]).max() <= 4
    assert found.pixels.min() >= near.min() - 6


def test_a_scene_in_degrees_reads_onto_metres(make_scene):
    scene = open_scene(make_scene(crs="EPSG:4326", transform=Affine(1e-5, 0, 9.0, 0, -1e-5, 45.0), pixels=ramp()))
    box = utm_geobox(9.0003, 44.9997, gsd=1, size=16)
    found = read(scene, box)
    place = box[8:9, 8:9].footprint("EPSG:4326").centroid.coords[0]
    column, row = ~scene.geobox.affine @ place
    assert found.valid.all()
    assert found.pixels[0, 8, 8] == pytest.approx(20 + 2 * (column - 0.5) + row - 0.5, abs=1.5)
    assert scene.gsd == pytest.approx(0.93, abs=0.02)


def test_bands_come_in_the_sensors_order(make_scene):
    path = make_scene(pixels=ramp(), descriptions=["nir", "blue", "green", "red"])
    scene = open_scene(path, sensor="naip")
    assert np.array_equal(read(scene, scene.geobox).pixels, ramp()[::-1])


def test_missing_and_damaged_files_are_named(make_scene, tmp_path):
    with pytest.raises(MissingInput):
        open_scene(tmp_path / "none.tif")
    text = tmp_path / "text.tif"
    text.write_text("not a raster")
    with pytest.raises(UnreadableScene):
        open_scene(text)
    noise = np.random.default_rng(0).integers(0, 255, (4, 512, 512), np.uint8)
    cut = write_cog(tmp_path / "cut.tif", noise, grid(500_000, 5_000_000, shape=(512, 512)), tags=NAMED)
    cut.write_bytes(cut.read_bytes()[:-4000])
    scene = open_scene(cut)
    with pytest.raises(UnreadableScene, match="cut"):
        read(scene, scene.geobox)


def test_a_file_written_anew_is_read_anew(make_scene):
    scene = open_scene(make_scene(pixels=ramp()))
    read(scene, scene.geobox)
    make_scene(pixels=255 - ramp())
    assert np.array_equal(read(scene, scene.geobox).pixels, 255 - ramp())


def test_the_cloud_share_of_a_chip_is_that_of_its_own_ground(make_scene):
    path = make_scene("s.tif", sensor="world-10m")
    scene = open_scene(path)
    box = grid(500_000, 5_000_000, gsd=10.0, shape=(32, 32))
    assert cloud_share(scene, box) == 0
    clouds = np.zeros((1, 64, 64))
    clouds[:, :16, :16] = 1
    make_scene("s_clouds.tif", pixels=clouds, sensor="world-10m", dtype="uint8", descriptions=None)
    assert cloud_share(scene, box) == 0.25
    assert cloud_share(scene, grid(500_320, 5_000_000, gsd=10.0, shape=(32, 32))) == 0
    assert cloud_share(scene, grid(500_000, 5_000_000, gsd=5.0, shape=(32, 32))) == 1
    assert cloud_share(scene, grid(600_000, 5_000_000, gsd=10.0, shape=(32, 32))) == 0


def test_a_scene_travels_to_other_processes(make_scene):
    scene = open_scene(make_scene())
    assert pickle.loads(pickle.dumps(scene)) == scene
    assert hash(scene) == hash(open_scene(scene.path))


def total(scene):
    return int(read(scene, scene.geobox).pixels.sum())


def test_threads_and_forked_processes_read_the_same(make_scene):
    scene = open_scene(make_scene(size=256))
    expected = total(scene)
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(total, [scene] * 8)) == {expected}
    with multiprocessing.get_context("fork").Pool(2) as workers:
        assert set(workers.map(total, [scene] * 4)) == {expected}


@pytest.mark.shared
def test_a_real_naip_scene_opens_when_its_sensor_is_named(shared_data):
    path = next((shared_data / "naip").glob("*_2012*.tif"))
    scene = open_scene(path, sensor="naip")
    lon, lat = scene.geobox.geographic_extent.centroid.coords[0]
    found = read(scene, utm_geobox(lon, lat, gsd=5, size=64))
    assert (scene.gsd, scene.taken.date().isoformat()) == (5.0, "2012-07-31")
    assert found.valid.all()
    assert found.pixels.std() > 10


@pytest.mark.shared
def test_a_real_landsat_scene_in_degrees_reads_onto_utm(shared_data):
    scene = open_scene(shared_data / "landsat" / "2010.tif", sensor="naip")
    lon, lat = scene.geobox.geographic_extent.centroid.coords[0]
    found = read(scene, utm_geobox(lon, lat, gsd=90, size=128))
    assert scene.gsd == pytest.approx(89.2, abs=0.1)
    assert found.valid.mean() > 0.99


QUIRKS = {
    "201404_13SED190110_201404_0x1500m_CL_1": 1.0,
    "201404_13SED190110_201404_0x1500m_CL_1_alpha": 0.887,
    "201404_13SED190110_201404_0x1500m_CL_1_mask": 0.969,
    "201404_13SED190110_201404_0x1500m_CL_1_nodata": 0.973,
    "TCI": 0.740,
    "cog_rgb": 1.0,
    "pix4d_alpha_nodata": 0.876,
}


@pytest.mark.shared
@pytest.mark.parametrize("name", QUIRKS)
def test_real_rasters_give_the_same_mask_read_directly_and_warped(shared_data, name):
    scene = open_scene(shared_data / "rasters" / f"{name}.tif", sensor="rgb")
    direct = read(scene, scene.geobox)
    nudged = GeoBox(scene.geobox.shape, scene.geobox.affine @ Affine.translation(0.01, 0.01), scene.geobox.crs)
    warped = read(scene, nudged)
    assert direct.valid.mean() == pytest.approx(QUIRKS[name], abs=0.001)
    assert warped.valid.mean() == pytest.approx(QUIRKS[name], abs=0.015)
    both = direct.valid & warped.valid
    assert np.abs(direct.pixels[:, both].astype(int) - warped.pixels[:, both]).mean() < 2
    assert ground_gsd(scene.geobox) == scene.gsd
