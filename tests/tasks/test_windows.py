"""Where chips lie, and how a scene looks to a model of other bands, units and ground sample distance."""

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st

from geograft.errors import ModelMismatch, SceneTooSmall
from geograft.raster import open_scene
from geograft.sensors import get_sensor
from geograft.tasks.windows import chip_starts, chips, count_blocks, open_view


@given(length=st.integers(4, 500), size=st.integers(1, 64), stride=st.integers(1, 64))
def test_chips_cover_a_side_and_stay_inside(length, size, stride):
    if size > length:
        with pytest.raises(SceneTooSmall):
            chip_starts(length, size, stride)
        return
    starts = chip_starts(length, size, stride)
    assert starts[0] == 0
    assert starts[-1] + size == length
    assert (np.diff(starts) > 0).all()
    assert (np.diff(starts) <= stride).all()


def test_chips_of_all_blocks_are_those_of_one_block(make_scene):
    view = open_view(open_scene(make_scene(size=100)), sensor=get_sensor("rgb"), gsd=1.0)
    parts = list(chips(view, size=16, stride=12, block=30))
    assert len(parts) == count_blocks(view, size=16, stride=12, block=30)
    (whole,) = chips(view, size=16, stride=12, block=1000)
    places = {(r, c): p for part in parts for r, c, p in zip(part.rows, part.columns, part.pixels, strict=True)}
    assert len(places) == len(whole.rows)
    for row, column, pixels in zip(whole.rows, whole.columns, whole.pixels, strict=True):
        assert (places[row, column] == pixels).all()


def test_bands_come_in_the_models_order(tmp_path, write_scene):
    pixels = np.stack([np.full((32, 32), value, np.uint8) for value in (10, 20, 30, 40)])
    scene = open_scene(write_scene("four.tif", pixels, sensor="naip"), sensor="naip")
    view = open_view(scene, sensor=get_sensor("rgb"), gsd=1.0)
    read, _ = view.read(slice(0, 2), slice(0, 2))
    assert read[:, 0, 0].tolist() == [10, 20, 30]


def test_units_are_those_of_the_models_sensor(write_scene):
    digits = np.stack([np.full((32, 32), value, np.uint16) for value in (1500, 2000, 3000, 4000, 5000)])
    scene = open_scene(write_scene("ten.tif", digits, sensor="world-10m", resolution=10.0, nodata=0))
    view = open_view(scene, sensor=get_sensor("naip"), gsd=10.0)
    read, _ = view.read(slice(0, 1), slice(0, 1))
    np.testing.assert_allclose(read[:3, 0, 0] / 255, [0.2, 0.1, 0.05], rtol=1e-5)


def test_a_model_of_pictures_sees_a_scene_by_its_own_stretch(write_scene):
    digits = np.stack([np.full((32, 32), value, np.uint16) for value in (1500, 2000, 3000, 4000, 5000)])
    scene = open_scene(write_scene("ten.tif", digits, sensor="world-10m", resolution=10.0, nodata=0))
    view = open_view(scene, sensor=get_sensor("rgb"), gsd=10.0)
    read, _ = view.read(slice(0, 1), slice(0, 1))
    assert read[:, 0, 0].tolist() == scene.sensor.rgb(digits[:, :1, :1])[0, 0].tolist()


def test_a_missing_band_is_named(make_scene):
    with pytest.raises(ModelMismatch, match="nir"):
        open_view(open_scene(make_scene()), sensor=get_sensor("naip"), gsd=1.0)


def test_pixels_without_data_hold_the_sensors_mean(make_scene, tmp_path):
    path = make_scene(nodata=0)
    with rasterio.open(path) as file:
        pixels, profile = file.read(), {**file.profile, "driver": "GTiff"}
    pixels[:, :8] = 0
    with rasterio.open(tmp_path / "hole.tif", "w", **profile) as file:
        file.write(pixels)
    sensor = get_sensor("rgb")
    view = open_view(open_scene(tmp_path / "hole.tif", sensor="rgb"), sensor=sensor, gsd=1.0)
    read, valid = view.read(slice(0, 16), slice(0, 16))
    assert not valid[:8].any()
    assert valid[8:].all()
    np.testing.assert_allclose(read[:, 0, 0] / 255, sensor.mean, atol=1 / 255)


def test_a_grid_of_the_models_distance_is_kept(make_scene):
    scene = open_scene(make_scene(resolution=1.01))
    view = open_view(scene, sensor=get_sensor("rgb"), gsd=1.0)
    assert view.grid == scene.geobox
    assert view.note == ""


def test_web_mercator_is_read_in_true_metres(make_scene):
    scene = open_scene(make_scene(crs="EPSG:3857", resolution=1.0, origin=(1.5e6, 8.4e6)))
    view = open_view(scene, sensor=get_sensor("rgb"), gsd=0.5)
    assert view.grid.crs.epsg == 32633
    assert view.shape[0] == pytest.approx(64, rel=0.15)
