from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from geograft.world.classes import BY_NAME
from geograft.world.light import DOUBLINGS, Sun, horizon, sun_of, sunlight
from geograft.world.overhead import render_1m, render_10m
from geograft.world.terrain import make_land

SUMMER = datetime(2024, 6, 20, 10, tzinfo=UTC)
WINTER = datetime(2024, 1, 10, 11, tzinfo=UTC)
NIR = 3


@pytest.fixture(scope="module")
def land():
    return make_land(seed=4, size=1004)


@pytest.fixture(scope="module")
def sharp(land):
    return render_1m(land, SUMMER)


@pytest.fixture(scope="module")
def coarse(land):
    return render_10m(land, SUMMER, clouds=False)[0]


def of(land, name):
    return land.cover == BY_NAME[name].id


def reflectance(numbers):
    return numbers / 10_000 - 0.1


def test_the_1_m_picture_has_four_bands_of_bytes_that_use_their_range(land, sharp):
    assert sharp.shape == (4, 1004, 1004)
    assert sharp.dtype == np.uint8
    assert all(30 < band.mean() < 180 and band.std() > 15 for band in sharp)
    assert (sharp == 255).mean() < 0.02


def test_the_10_m_picture_leaves_out_the_odd_metres_and_never_uses_nodata(coarse):
    assert coarse.shape == (5, 100, 100)
    assert coarse.dtype == np.uint16
    assert coarse.min() > 0
    assert -0.02 < reflectance(coarse.astype(float)).min() < reflectance(coarse.astype(float)).max() < 1


@pytest.mark.parametrize("clouds", [False, True])
def test_the_same_date_gives_the_same_pictures(land, sharp, clouds):
    first, second = (render_10m(land, SUMMER, clouds=clouds) for _ in range(2))
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])
    np.testing.assert_array_equal(render_1m(land, SUMMER), sharp)


def test_plants_shine_and_water_is_black_in_the_infrared(land, sharp, coarse):
    assert sharp[NIR][of(land, "grassland")].mean() > 2 * sharp[NIR][of(land, "lake")].mean()
    water = of(land, "lake")[:1000, :1000].reshape(100, 10, 100, 10).all((1, 3))
    assert reflectance(coarse[NIR][water].mean()) < 0.05


def test_rapeseed_is_yellow_in_summer_only(land, sharp):
    rape = of(land, "rapeseed field")
    yellow = {
        date: image[0][rape].mean() - image[2][rape].mean()
        for date, image in ((1, sharp), (2, render_1m(land, WINTER)))
    }
    assert yellow[1] > 60
    assert yellow[2] < 30


def test_clouds_brighten_what_the_mask_marks_and_leave_the_rest(land, coarse):
    cloudy, mask = render_10m(land, SUMMER, clouds=True)
    clear, no_mask = render_10m(land, SUMMER, clouds=False)
    assert not no_mask.any()
    assert 0.03 < mask.mean() < 0.6
    change = np.abs(cloudy.astype(int) - clear.astype(int))[0]
    assert change[mask == 1].mean() > 5 * change[mask == 0].mean()
    assert cloudy[0].max() > 5000


def test_a_tower_throws_its_shadow_away_from_the_sun():
    ground, height = np.zeros((200, 200), np.float32), np.zeros((200, 200), np.float32)
    height[98:102, 98:102] = 30
    light = sunlight(ground, height, Sun(azimuth=180.0, elevation=45.0))
    assert light[80, 100] < 0.5
    assert light[120, 100] == pytest.approx(1.0, abs=0.01)
    assert light[60, 100] == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("azimuth", [0.0, 77.0, 135.0, 200.0, 301.0])
def test_doubling_strides_find_the_same_shadows_as_a_plain_march(azimuth):
    rng = np.random.default_rng(int(azimuth))
    surface = np.zeros((160, 160), np.float32)
    for row, col in rng.integers(10, 140, (12, 2)):
        surface[row : row + 9, col : col + 9] = rng.uniform(5, 30)
    sun = Sun(azimuth, 35.0)
    shaded = horizon(surface, sun) - surface > 0.5
    assert (shaded == plain_shadows(surface, sun)).mean() > 0.97
    assert shaded.mean() > 0.05


def plain_shadows(surface, sun):
    x, y = sun.towards()
    slope = np.tan(np.radians(sun.elevation))
    rows, cols = np.mgrid[: surface.shape[0], : surface.shape[1]]
    shaded = np.zeros(surface.shape, bool)
    for step in range(1, 2**DOUBLINGS):
        r, c = np.rint(rows + step * y).astype(int), np.rint(cols + step * x).astype(int)
        inside = (r >= 0) & (c >= 0) & (r < len(surface)) & (c < len(surface))
        there = np.where(inside, surface[r.clip(0, len(surface) - 1), c.clip(0, len(surface) - 1)], 0)
        shaded |= there - step * slope - surface > 0.5
    return shaded


def test_flat_open_ground_has_light_one():
    flat = np.zeros((50, 50), np.float32)
    np.testing.assert_allclose(sunlight(flat, flat, Sun(140.0, 50.0)), 1.0, atol=1e-6)


def test_slopes_towards_the_sun_are_brighter():
    rise = np.tile(np.arange(100, dtype=np.float32) * 0.3, (100, 1))
    flat = np.zeros_like(rise)
    west, east = (sunlight(rise, flat, Sun(azimuth, 50.0))[50, 50] for azimuth in (270.0, 90.0))
    assert west > 1.1
    assert east < 0.9


@pytest.mark.parametrize(
    ("taken", "azimuth", "elevation"),
    [(datetime(2024, 6, 21, 12, tzinfo=UTC), 180, 63.4), (datetime(2024, 12, 21, 12, tzinfo=UTC), 180, 16.6)],
)
def test_the_noon_sun_stands_in_the_south_at_its_height(taken, azimuth, elevation):
    sun = sun_of(0.0, 50.0, taken)
    assert sun.azimuth == pytest.approx(azimuth, abs=1.5)
    assert sun.elevation == pytest.approx(elevation, abs=0.6)


def test_the_morning_sun_stands_in_the_east_and_night_is_never_dark():
    assert 60 < sun_of(10.0, 48.0, datetime(2024, 6, 21, 6, tzinfo=UTC)).azimuth < 100
    assert sun_of(10.0, 48.0, datetime(2024, 6, 21, 0, tzinfo=UTC)).elevation == 14.0


def test_height_alone_changes_the_picture_through_shadows(land, sharp):
    flat = replace(land, height=np.zeros_like(land.height))
    town = of(land, "apartment blocks")
    assert render_1m(flat, SUMMER)[1][town].mean() > 1.03 * sharp[1][town].mean()
