from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from pyproj import Geod

from geograft.errors import BadSetting
from geograft.raster.grids import chip_geobox, ground_gsd, to_crs, utm_epsg, utm_epsgs, utm_geobox


@pytest.mark.parametrize(
    ("lon", "lat", "epsg"),
    [(9, 47, 32632), (-180, 1, 32601), (180, 1, 32660), (151.2, -33.9, 32756), (0, 0, 32631), (-0.001, -0.001, 32730)],
)
def test_the_zone_of_a_place_is_the_regular_one(lon, lat, epsg):
    assert utm_epsg(lon, lat) == epsg


@pytest.mark.parametrize(("lon", "lat"), [(181, 0), (0, 84.5), (float("nan"), 0)])
def test_a_place_outside_utm_is_refused(lon, lat):
    with pytest.raises(BadSetting, match="outside"):
        utm_epsg(lon, lat)


def test_many_zones_come_as_one_array():
    assert utm_epsgs([9, 151.2], [47, -33.9]).tolist() == [32632, 32756]


@settings(max_examples=60, deadline=None)
@given(
    lon=st.floats(-180, 180),
    lat=st.floats(-83.9, 83.9),
    gsd=st.sampled_from([0.3, 1.0, 10.0]),
    size=st.sampled_from([32, 63, 224]),
)
def test_a_chip_is_centred_on_its_place_and_lies_on_whole_pixels_of_its_zone(lon, lat, gsd, size):
    box = utm_geobox(lon, lat, gsd=gsd, size=size)
    x, y = to_crs(utm_epsg(lon, lat)).transform(lon, lat)
    column, row = ~box.affine @ (x, y)
    assert box.shape == (size, size)
    assert max(abs(column - size / 2), abs(row - size / 2)) <= 0.5 + 1e-6
    for edge in (box.affine.c, box.affine.f):
        assert abs(edge / gsd - round(edge / gsd)) < 1e-4


@pytest.mark.parametrize("lat", [-60, 0, 47, 70])
def test_a_chip_is_as_wide_as_high_on_the_ground(lat):
    box = utm_geobox(10.5, lat, gsd=10, size=100)
    metres = [box.affine @ corner for corner in ((0, 0), (100, 0), (100, 100), (0, 100), (0, 0))]
    corners = [to_crs(box.crs.epsg).transform(*place, direction="INVERSE") for place in metres]
    sides = [Geod(ellps="WGS84").inv(*a, *b)[2] for a, b in pairwise(corners)]
    assert np.allclose(sides, 1000, rtol=0.005)


@pytest.mark.parametrize(("gsd", "size"), [(0, 64), (1, 0)])
def test_an_empty_chip_is_refused(gsd, size):
    with pytest.raises(BadSetting):
        utm_geobox(9, 47, gsd=gsd, size=size)


def test_the_ground_size_of_a_pixel_is_right_in_degrees_and_web_mercator():
    degrees = GeoBox.from_bbox((10, 59.9, 10.2, 60.1), "EPSG:4326", shape=(200, 200))
    mercator = GeoBox.from_bbox((1_100_000, 8_390_000, 1_110_000, 8_400_000), "EPSG:3857", shape=(1000, 1000))
    assert ground_gsd(chip_geobox(32632, 500_000, 5_000_000, gsd=0.3, size=10)) == pytest.approx(0.3, abs=1e-12)
    assert ground_gsd(degrees) == pytest.approx(111_300 * 0.001 * np.sqrt(0.5), rel=0.01)
    assert ground_gsd(mercator) == pytest.approx(5.0, rel=0.02)
