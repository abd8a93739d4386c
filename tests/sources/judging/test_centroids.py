import numpy as np
import pytest

from geograft.sources.judging.centroids import NEAR_M, on_centroid, on_whole_degrees

METRE = 1 / 111_195


@pytest.mark.parametrize(
    ("lon", "lat"),
    [(10.451526, 51.165691), (9, 51), (-95.712891, 37.09024), (-97, 38), (18.49041, -22.95764), (0, -90)],
)
def test_the_points_of_both_gazetteers_are_known(lon, lat):
    assert on_centroid([lon], [lat]).tolist() == [True]


def test_a_hundred_metres_are_near_on_both_axes_and_at_every_latitude():
    for lon, lat in ((23.670272, 77.553604), (37.906193, -0.023559)):
        east = METRE / np.cos(np.radians(lat))
        near, far = NEAR_M - 1, NEAR_M + 1
        lons = lon + np.array([near, far, -near, -far, 0, 0]) * east
        lats = lat + np.array([0, 0, 0, 0, near, far]) * METRE
        assert on_centroid(lons, lats).tolist() == [True, False, True, False, True, False]


def test_whole_degrees_are_whole_on_both_axes():
    lons, lats = [10.0, 10.0, 10.5, -180.0, np.float32(77) + 1e-9], [50.0, 50.1, 50.0, 0.0, 20.0]
    assert on_whole_degrees(lons, lats).tolist() == [True, False, False, True, True]
