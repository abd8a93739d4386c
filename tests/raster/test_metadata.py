from datetime import UTC, datetime

import numpy as np
import pytest
import rasterio
from affine import Affine

from geograft.errors import NoGeoreference, SensorMismatch, UnknownSensor
from geograft.raster import open_scene, read
from geograft.raster.metadata import date_taken

DAY = datetime(2020, 8, 31, tzinfo=UTC)


@pytest.mark.parametrize(
    ("stem", "tag", "expected"),
    [
        ("m_4709963_se_14_1_20200831", "", DAY),
        ("world-1m_2020-08-31", "", DAY),
        ("scene", "2020:08:31 10:30:00", DAY.replace(hour=10, minute=30)),
        ("scene_20200831", "2020:08:31 10:30:00", DAY.replace(hour=10, minute=30)),
        ("scene_20200831", "2024:01:01 00:00:00", DAY),
        ("scene", "2020-08-31T12:00:00+0200", DAY.replace(hour=10)),
        ("1985", "", None),
        ("201404_13SED190110_201404_0x1500m", "", None),
        ("scene_20200231", "", None),
        ("120200831", "", None),
        ("scene", "last summer", None),
    ],
)
def test_the_date_is_that_of_the_name_and_else_of_the_tag(stem, tag, expected):
    assert date_taken(stem, {"TIFFTAG_DATETIME": tag}) == expected


def test_a_file_without_crs_or_transform_is_refused_with_what_to_do(make_scene):
    with pytest.raises(NoGeoreference, match="-a_srs"):
        open_scene(make_scene("a.tif", crs=None))
    with pytest.raises(NoGeoreference, match="-a_ullr"):
        open_scene(make_scene("b.tif", transform=Affine.identity()))


def test_a_tag_names_the_sensor(make_scene):
    assert open_scene(make_scene(descriptions=None, photometric="MINISBLACK")).sensor.name == "world-1m"


def test_names_type_and_resolution_that_fit_one_sensor_tell_it(make_scene):
    assert open_scene(make_scene(sensor="world-10m", tags={})).sensor.name == "world-10m"


def test_a_sensor_is_never_guessed(make_scene):
    both = make_scene("both.tif", sensor="naip", tags={})
    none = make_scene("none.tif", sensor="naip", tags={}, descriptions=None, photometric="MINISBLACK")
    coarse = make_scene("coarse.tif", sensor="world-10m", tags={}, transform=Affine(60, 0, 5e5, 0, -60, 5e6))
    with pytest.raises(UnknownSensor, match="naip and world-1m fit"):
        open_scene(both)
    for path in (none, coarse):
        with pytest.raises(UnknownSensor, match="pass --sensor"):
            open_scene(path)


def test_bands_are_found_by_name_whatever_their_order(make_scene):
    path = make_scene(descriptions=["NIR", "Blue", "green", "red"])
    assert open_scene(path, sensor="naip").bands == (4, 3, 2, 1)


def test_a_named_band_that_gdal_marks_as_alpha_is_a_band_and_masks_nothing(make_scene):
    pixels = np.full((4, 64, 64), 50)
    pixels[3, :32] = 0
    path = make_scene(pixels=pixels)
    with rasterio.open(path) as file:
        assert file.colorinterp[3].name == "alpha"
    scene = open_scene(path)
    for box in (scene.geobox[:, :60], scene.geobox.translate_pix(0.4, 0)[:, :60]):
        found = read(scene, box)
        assert found.valid.all()
        assert found.pixels[:, 10, 10].tolist() == [50, 50, 50, 0]


def test_a_real_alpha_band_is_no_band(make_scene):
    path = make_scene(sensor="rgb", alpha=np.full((64, 64), 255))
    assert open_scene(path).bands == (1, 2, 3)
    with pytest.raises(SensorMismatch):
        open_scene(path, sensor="naip")


def test_unnamed_bands_are_taken_in_order(make_scene):
    path = make_scene(descriptions=None, photometric="MINISBLACK", tags={})
    assert open_scene(path, sensor="naip").bands == (1, 2, 3, 4)


@pytest.mark.parametrize(
    ("options", "sensor", "message"),
    [
        ({"descriptions": ["red", "green", "blue", "swir"]}, "naip", "needs red, green, blue, nir"),
        ({"sensor": "rgb", "descriptions": None}, "naip", "needs red, green, blue, nir"),
        ({"dtype": "uint16"}, "naip", "is uint16"),
        ({"sensor": "world-10m", "scale": 0.0001, "offset": 0.0}, "world-10m", "offset 0"),
        ({"sensor": "world-10m", "scale": 0.001, "offset": -0.1}, "world-10m", "scale 0.001"),
    ],
)
def test_a_file_that_contradicts_its_sensor_is_refused(make_scene, options, sensor, message):
    with pytest.raises(SensorMismatch, match=message):
        open_scene(make_scene(**options), sensor=sensor)


def test_the_stated_scale_and_offset_of_the_sensor_are_accepted(make_scene):
    path = make_scene(sensor="world-10m", scale=0.0001, offset=-0.1)
    assert open_scene(path, sensor="world-10m").sensor.offset == -0.1


def test_an_epsg_code_stands_for_an_equal_crs(make_scene):
    path = make_scene()
    with rasterio.open(path) as file:
        assert file.crs.to_epsg() == 32632
    assert str(open_scene(path).geobox.crs) == "EPSG:32632"
