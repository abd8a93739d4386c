import json
import subprocess
import sys
from dataclasses import asdict, replace

import numpy as np
import pytest

from geograft.errors import BadSetting, MissingInput, SensorMismatch, UnknownSensor
from geograft.sensors import CloudMask, Sensor, get_sensor, measure, sensor_names

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


def own_sensor(folder, **changes):
    """A sensor of one band of heights, as a YAML file."""
    fields = {
        "bands": ["Height"], "gsd": 1, "dtype": "float32", "scale": 1.0, "offset": 0.0, "nodata": -9999,
        "mean": [100], "std": [50], "display": [0, 500],
    } | changes  # fmt: skip
    (folder / "height.yaml").write_text(json.dumps(fields))
    return folder / "height.yaml"


def test_a_sensor_of_the_users_own_is_called_by_its_file(tmp_path, monkeypatch):
    path = own_sensor(tmp_path, stac={"assets": {"height": "dem"}, "harmonise": False})
    monkeypatch.chdir(tmp_path)
    sensor = get_sensor("height.yaml")
    assert sensor.name == str(path)
    assert get_sensor(sensor.name) == sensor
    assert (sensor.bands, sensor.gsd, sensor.mean) == (("height",), 1.0, (100.0,))
    assert sensor.stac.assets == (("height", ("dem",)),)
    own_sensor(tmp_path, mean=[7])
    path.touch()
    assert get_sensor("height.yaml").mean == (7.0,)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mean": [1, 2]}, "same length"),
        ({"colour": "red"}, "unknown fields colour"),
        ({"dtype": "number"}, "number"),
        ({"gsd": "wide"}, "wide"),
        ({"bands": "height"}, "must be a list"),
        ({"mask": {"asset": "scl"}}, "cloudy classes or the cloudy bits"),
        ({"stac": {"asset": {}}}, "asset"),
    ],
)
def test_a_sensor_file_that_is_wrong_says_where(tmp_path, changes, message):
    with pytest.raises((BadSetting, SensorMismatch), match=message):
        get_sensor(own_sensor(tmp_path, **changes))


def test_a_sensor_file_that_is_absent_or_no_yaml_is_named(tmp_path):
    with pytest.raises(MissingInput):
        get_sensor(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(BadSetting, match="valid YAML"):
        get_sensor(tmp_path / "bad.yaml")
    (tmp_path / "few.yaml").write_text("bands: [a]")
    with pytest.raises(BadSetting, match="lacks the fields"):
        get_sensor(tmp_path / "few.yaml")


def test_a_sensor_survives_json_with_its_assets_and_mask():
    sensor = get_sensor("sentinel-2-l2a")
    fields = json.loads(json.dumps(asdict(sensor)))
    back = Sensor(**{key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()})
    assert (back, back.stac, back.mask) == (sensor, sensor.stac, sensor.mask)
    assert hash(back) == hash(sensor)


def test_classes_and_bits_say_what_is_cloud():
    assert CloudMask("scl", classes=(3, 9)).cloudy(np.array([3, 4, 9])).tolist() == [True, False, True]
    assert CloudMask("qa", bits=(1, 3)).cloudy(np.array([2, 8, 5, 0], np.uint16)).tolist() == [True, True, False, False]


def test_nan_in_all_bands_becomes_the_mean():
    sensor = replace(get_sensor("rgb"), dtype="float32", nodata=float("nan"), scale=1.0)
    pixels = np.full((3, 1, 2), 0.5, np.float32)
    pixels[:, 0, 0] = np.nan
    found = sensor.normalise(pixels)
    assert (found[:, 0, 0] == 0).all()
    assert np.isfinite(found).all()
