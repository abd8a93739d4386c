"""Rasters as they are found: turned, flipped, without overviews, with nodata that contradicts itself, tiny."""

import numpy as np
import pytest
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.control import GroundControlPoint

from geograft.errors import NoGeoreference, SensorMismatch
from geograft.raster import cloud_share, open_scene, read
from geograft.sensors import get_sensor

OWN = """
description: One band of heights.
bands: [height]
gsd: 1.0
dtype: float32
scale: 1.0
offset: 0.0
nodata: -9999
mean: [100.0]
std: [50.0]
display: [0.0, 500.0]
"""


def grid(left, top, *, gsd=1.0, shape=(16, 16), crs="EPSG:32632"):
    return GeoBox(shape, Affine(gsd, 0, left, 0, -gsd, top), crs)


@pytest.fixture
def height(tmp_path):
    """A sensor of one float band, by its YAML file."""
    path = tmp_path / "height.yaml"
    path.write_text(OWN)
    return get_sensor(path)


def test_a_south_up_scene_comes_out_right_side_up_pixel_for_pixel(make_scene):
    rows = np.repeat(np.arange(64)[:, None], 64, 1) + 10
    path = make_scene(pixels=np.stack([rows] * 4), transform=Affine(1, 0, 500_000, 0, 1, 4_999_936))
    found = read(open_scene(path), grid(500_000, 5_000_000, shape=(64, 64)))
    assert found.valid.all()
    assert np.array_equal(found.pixels[0], rows[::-1])  # the file's last row lies northernmost


def test_a_scene_turned_by_ninety_degrees_comes_out_as_computed_by_hand(make_scene):
    pixels = np.arange(64 * 64).reshape(64, 64) // 20 + 5
    # columns of the file run south and rows run east: x = 500000 + row, y = 5000000 - column
    path = make_scene(pixels=np.stack([pixels] * 4), transform=Affine(0, 1, 500_000, -1, 0, 5_000_000))
    found = read(open_scene(path), grid(500_000, 5_000_000, shape=(64, 64)))
    assert found.valid.all()
    assert np.array_equal(found.pixels[0], pixels.T)


def test_the_files_nodata_comes_before_the_sensors(make_scene):
    pixels = np.full((5, 64, 64), 2000)
    pixels[:, :10] = 0
    pixels[:, 20:30] = 65535
    scene = open_scene(make_scene(sensor="world-10m", pixels=pixels, nodata=65535))
    for left in (500_000, 500_002.5):
        found = read(scene, grid(left, 5_000_000, gsd=10.0, shape=(64, 60)))
        assert found.valid[:8].all()
        assert not found.valid[21:29].any()
        assert (found.pixels[:, 21:29] == 0).all()  # the sensor's word for nodata


def per_band(folder, make_scene, values):
    """A VRT whose bands have a nodata each."""
    source = make_scene("plain.tif", sensor="rgb", pixels=np.stack([np.full((64, 64), 100)] * 3), tags={})
    with rasterio.open(source, "r+") as file:
        block = file.read()
        for k, value in enumerate(values):
            block[k, :20] = value
        block[0, 40:50] = values[0]
        file.write(block)
    bands = "".join(
        f'<VRTRasterBand dataType="Byte" band="{k}"><NoDataValue>{value}</NoDataValue><SimpleSource>'
        f'<SourceFilename relativeToVRT="1">plain.tif</SourceFilename><SourceBand>{k}</SourceBand></SimpleSource>'
        "</VRTRasterBand>"
        for k, value in enumerate(values, start=1)
    )
    place = "<SRS>EPSG:32632</SRS><GeoTransform>500000,1,0,5000000,0,-1</GeoTransform>"
    text = f'<VRTDataset rasterXSize="64" rasterYSize="64">{place}{bands}</VRTDataset>'
    (folder / "bands.vrt").write_text(text)
    return folder / "bands.vrt"


@pytest.mark.parametrize("left", [500_000, 500_000.25])
def test_each_band_may_have_its_own_nodata(tmp_path, make_scene, left):
    scene = open_scene(per_band(tmp_path, make_scene, (0, 7, 255)), sensor="rgb")
    found = read(scene, grid(left, 5_000_000, shape=(64, 60)))
    assert scene.kind == "file"
    assert not found.valid[:18].any()
    assert found.valid[22:].all()
    assert (found.pixels[:, ~found.valid] == 0).all()
    assert found.pixels[:, 45, 5].tolist() == [0, 100, 100]
    assert found.pixels[:, 60, 5].tolist() == [100, 100, 100]


def test_a_coarse_grid_of_a_scene_without_overviews_is_averaged(make_scene):
    checks = np.indices((512, 512)).sum(axis=0) % 2 * 200 + 20
    path = make_scene(pixels=np.stack([checks] * 4))
    with rasterio.open(path) as file:
        assert file.overviews(1) == []
    found = read(open_scene(path), grid(500_000, 5_000_000, gsd=32.0, shape=(16, 16)))
    assert found.valid.all()
    assert np.abs(found.pixels[:, 1:-1, 1:-1].astype(int) - 120).max() < 10


def test_a_float_band_keeps_its_fractions_and_its_nodata(make_scene, height):
    pixels = np.linspace(0, 300, 64 * 64).reshape(1, 64, 64)
    pixels[:, :10] = -9999
    path = make_scene(sensor=height, pixels=pixels, dtype="float32", nodata=-9999, descriptions=["height"], tags={})
    found = read(open_scene(path, sensor=height), grid(500_000, 5_000_000, shape=(64, 64)))
    assert found.pixels.dtype == np.float32
    assert np.array_equal(found.pixels, pixels.astype(np.float32))
    assert (found.valid == (pixels[0] != -9999)).all()
    with pytest.raises(SensorMismatch, match="has the bands height"):
        open_scene(path, sensor="rgb-drone")


def test_nan_is_nodata_where_the_file_says_so(make_scene, height):
    pixels = np.full((1, 64, 64), 5.5)
    pixels[:, 10:20] = np.nan
    path = make_scene(sensor=height, pixels=pixels, dtype="float32", nodata=np.nan, descriptions=["height"], tags={})
    scene = open_scene(path, sensor=height)
    for left in (500_000, 500_000.25):
        found = read(scene, grid(left, 5_000_000, shape=(64, 60)))
        assert not found.valid[11:19].any()
        assert (found.pixels[0, 11:19] == -9999).all()
        assert (found.pixels[0, 25:] == 5.5).all()


def test_a_band_of_a_colour_table_is_refused_with_what_to_do(make_scene, tmp_path, height):
    path = make_scene(sensor=height, pixels=np.ones((1, 64, 64)), dtype="uint8", descriptions=None, tags={})
    with rasterio.open(path, "r+") as file:
        file.write_colormap(1, {1: (255, 0, 0, 255)})
    own = tmp_path / "grey.yaml"
    own.write_text(OWN.replace("float32", "uint8").replace("-9999", "null"))
    with pytest.raises(SensorMismatch, match="-expand rgb"):
        open_scene(path, sensor=own)


def test_ground_control_points_alone_are_no_grid(make_scene):
    points = [GroundControlPoint(row, col, 500_000 + col, 5_000_000 - row) for row in (0, 64) for col in (0, 64)]
    path = make_scene(crs="EPSG:32632", transform=Affine.identity(), gcps=points)
    with pytest.raises(NoGeoreference, match="gdalwarp"):
        open_scene(path)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_tiny_scene_is_read(make_scene, size):
    scene = open_scene(make_scene(size=size))
    for left in (500_000, 500_000.3):
        found = read(scene, grid(left, 5_000_000))
        assert found.valid[:size, : size - 1].all()
        assert found.valid.sum() <= size * size
    assert cloud_share(scene, scene.geobox) == 0


def test_rgb_files_may_leave_their_fourth_band_without_a_name(make_scene):
    path = make_scene(descriptions=None, tags={}, photometric="RGB", alpha=None, ALPHA="NO")
    scene = open_scene(path, sensor="naip")
    assert scene.bands == (1, 2, 3, 4)


@pytest.mark.shared
def test_a_real_float_raster_is_read_by_a_sensor_of_the_users_own(shared_data, height):
    scene = open_scene(shared_data / "rasters" / "dem.tif", sensor=height)
    found = read(scene, scene.geobox)
    assert found.valid.any()
    assert found.pixels[0][found.valid].min() > -100
    near = read(scene, scene.geobox.translate_pix(0.3, 0.3))
    assert np.abs(near.pixels - found.pixels)[0][near.valid & found.valid].max() < 60
