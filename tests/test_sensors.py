import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from geograft.errors import SensorMismatch, UnknownSensor
from geograft.sensors import get_sensor, measure, sensor_names

NAMES = ("landsat", "map-tiles", "naip", "rgb", "rgb-drone", "sentinel-2-l2a", "world-10m", "world-1m")


def test_every_shipped_sensor_is_listed():
    assert sensor_names() == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_sensor_describes_all_of_its_bands(name):
    sensor = get_sensor(name)
    assert sensor.name == name
    assert len(sensor.mean) == len(sensor.std) == len(sensor.bands)
    assert {"red", "green", "blue"} <= set(sensor.bands)
    assert sensor.description.endswith(".")
    assert np.dtype(sensor.dtype).kind == "u"


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(UnknownSensor, match="map-tiles, naip"):
        get_sensor("nap")


def test_the_mean_becomes_zero_and_one_deviation_becomes_one():
    sensor = get_sensor("world-10m")
    mean, std = np.array(sensor.mean), np.array(sensor.std)
    native = ((np.stack([mean, mean + std], axis=1) - sensor.offset) / sensor.scale).round().astype("uint16")
    found = sensor.normalise(native[:, :, None])
    assert found.dtype == np.float32
    assert np.allclose(found[:, 0], 0, atol=0.01)
    assert np.allclose(found[:, 1], 1, atol=0.01)


def test_normalise_takes_batches_and_gives_each_the_same_values():
    sensor = get_sensor("naip")
    pixels = np.random.default_rng(0).integers(0, 255, (3, 4, 5, 6), np.uint8)
    batch = sensor.normalise(pixels)
    assert batch.shape == pixels.shape
    assert np.array_equal(batch[1], sensor.normalise(pixels[1]))


def test_nodata_in_all_bands_becomes_the_mean_and_a_dark_band_alone_does_not():
    sensor = get_sensor("world-10m")
    pixels = np.full((5, 1, 2), 2000, np.uint16)
    pixels[:, 0, 0] = 0
    pixels[2, 0, 1] = 0
    found = sensor.normalise(pixels)
    assert (found[:, 0, 0] == 0).all()
    assert found[2, 0, 1] < -1


def test_a_picture_shows_red_green_blue_over_the_display_range():
    sensor = get_sensor("world-10m")
    pixels = np.full((5, 1, 2), 1000, np.uint16)
    pixels[sensor.bands.index("red"), 0, 0] = 4500
    pixels[sensor.bands.index("blue"), 0, 1] = 9000
    assert sensor.rgb(pixels).tolist() == [[[255, 0, 0], [0, 0, 255]]]


def test_a_sensor_without_colours_is_shown_grey():
    sensor = replace(get_sensor("rgb"), bands=("vv", "vh", "angle"))
    pixels = np.arange(3, dtype=np.uint8)[:, None, None] * 100 + 5
    assert sensor.rgb(pixels).tolist() == [[[5, 5, 5]]]


def test_pixels_of_another_number_of_bands_are_refused():
    with pytest.raises(SensorMismatch, match=r"4 bands \(red, green, blue, nir\)"):
        get_sensor("naip").normalise(np.zeros((3, 8, 8), np.uint8))


def test_a_specification_that_contradicts_itself_is_refused():
    with pytest.raises(SensorMismatch):
        replace(get_sensor("naip"), mean=(0.5,))


def test_measured_statistics_make_normalised_pixels_standard():
    sensor = get_sensor("world-10m")
    pixels = np.random.default_rng(0).integers(1200, 3000, (2, 5, 32, 32)).astype(np.uint16)
    pixels[0, :, :4] = 0
    mean, std = measure(pixels, sensor)
    values = replace(sensor, mean=mean, std=std).normalise(pixels)[:, :, 4:]
    assert np.allclose(values.mean(axis=(0, 2, 3)), 0, atol=0.05)
    assert np.allclose(values.std(axis=(0, 2, 3)), 1, atol=0.05)


def test_sensors_import_no_heavy_library():
    heavy = "{'torch', 'pandas', 'rasterio'}"
    code = f"import sys, geograft.sensors as s; s.sensor_names(); print(sorted({heavy} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
