import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geograft.errors import BadSetting
from geograft.pairs.grid import Grid, Places, corners, geobox, hash_ids, mix, to_crs


@given(
    st.integers(1, 300),
    st.floats(0.1, 60),
    st.floats(170_000, 830_000),
    st.floats(0, 9_300_000),
)
def test_a_chip_is_centred_on_its_photo_to_half_a_pixel(size, gsd, east, north):
    grid = Grid(size, gsd)
    x, y = grid.centred(np.array([east]), np.array([north]))
    left, top = grid.corner(x, y)
    assert abs((east - left[0]) / gsd - size / 2) <= 0.5 + 1e-6
    assert abs((top[0] - north) / gsd - size / 2) <= 0.5 + 1e-6


def test_a_chip_name_says_zone_size_and_place():
    names = Grid(64, 4.0).names(np.array([32656]), np.array([83120]), np.array([1562300]))
    assert names == ["32656-64x4-83120-1562300"]


def test_a_grid_without_area_is_refused():
    with pytest.raises(BadSetting, match="no area"):
        Grid(0, 1.0)
    with pytest.raises(BadSetting, match="no area"):
        Grid(64, -1.0)


def test_points_keep_their_own_zone():
    places = Places(np.array([5.99, 6.01, 9.0]), np.array([48.0, 48.0, -0.1]))
    assert places.epsg.tolist() == [32631, 32632, 32732]
    east, north = places.metric
    assert east[0] == pytest.approx(723_000, abs=1000)
    assert north[2] == pytest.approx(10_000_000 - 11_057, abs=50)


def test_points_beside_a_zone_are_near_it_and_far_ones_are_not():
    places = Places(np.array([5.999, 6.5, 7.0, 9.0]), np.array([48.0, 48.0, 48.0, -0.0005]))
    assert places.near(32632, 200).tolist() == [0, 1, 2, 3]
    assert places.near(32631, 200).tolist() == [0]
    assert places.near(32732, 200).tolist() == [3]


def test_points_across_the_antimeridian_are_near():
    places = Places(np.array([179.9995, -179.9995]), np.array([10.0, 10.0]))
    assert places.near(32601, 200).tolist() == [0, 1]
    assert places.near(32660, 200).tolist() == [0, 1]


def test_footprints_have_the_chip_s_true_area_at_any_latitude():
    for lat in (-70.0, 0.5, 45.0, 80.0):
        places = Places(np.array([10.0]), np.array([lat]))
        grid = Grid(64, 10.0)
        left, top = grid.corner(*grid.centred(*places.metric))
        chip = pd.DataFrame({"epsg": places.epsg, "left": left, "top": top, "gsd": 10.0, "size": 64})
        lon, lats = corners(chip)[0].T
        metres = 111_320 * np.cos(np.radians(lat))
        assert np.ptp(lon) * metres == pytest.approx(640, rel=0.03)
        assert np.ptp(lats) * 111_200 == pytest.approx(640, rel=0.03)


def test_a_margin_moves_every_side_outwards():
    chip = pd.DataFrame({"epsg": [32632], "left": [500_000.0], "top": [5e6], "gsd": [1.0], "size": [64]})
    outer = corners(chip, 100.0)[0]
    east, north = to_crs(32632).transform(outer[:, 0], outer[:, 1])
    assert east == pytest.approx([499_900, 500_164, 500_164, 499_900], abs=1e-3)
    assert north == pytest.approx([5_000_100, 5_000_100, 4_999_836, 4_999_836], abs=1e-3)


def test_a_footprint_on_the_antimeridian_stays_small():
    grid, places = Grid(64, 10.0), Places(np.array([179.9999]), np.array([-17.0]))
    left, top = grid.corner(*grid.centred(*places.metric))
    chip = pd.DataFrame({"epsg": places.epsg, "left": left, "top": top, "gsd": 10.0, "size": 64})
    assert np.ptp(corners(chip)[0][:, 0]) < 0.01


def test_a_geobox_lies_where_the_row_says():
    row = next(pd.DataFrame({"epsg": [32632], "left": [500.0], "top": [900.0], "gsd": [2.0], "size": [8]}).itertuples())
    box = geobox(row)
    assert tuple(box.boundingbox) == (500.0, 884.0, 516.0, 900.0)
    assert box.shape == (8, 8)
    assert box.crs.epsg == 32632


def test_hashes_depend_on_id_and_salt_only():
    ids = np.array(["a", "b", "c"], dtype=object)
    assert hash_ids(ids, "x").tolist() == hash_ids(ids[::-1], "x")[::-1].tolist()
    assert hash_ids(ids, "x").tolist() != hash_ids(ids, "y").tolist()
    assert len(set(mix(hash_ids(ids, "x"), hash_ids(ids, "y")).tolist())) == 3


def test_hashes_stay_the_same_from_release_to_release():
    assert hash_ids(["p00001"], "visit 0").tolist() == [1183353558168741133]
