import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geograft.errors import BadSetting
from geograft.pairs.grid import CELL_ROW, Grid, cell_keys, corners, groups, metric_corners, project, to_crs, to_degrees
from geograft.raster.grids import utm_epsg


def chip_at(lon, lat, grid):
    """The row of the chip centred on a place."""
    epsg = utm_epsg(lon, lat)
    left, top = grid.corner(*grid.centred(*project(np.array([lon]), np.array([lat]), epsg)))
    return pd.DataFrame({"epsg": epsg, "left": left, "top": top, "gsd": grid.gsd, "size": grid.size})


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
    assert names.to_pylist() == ["32656-64x4-83120-1562300"]
    names = Grid(32, 0.5).names(np.array([32601, 32760]), np.array([-3, 4]), np.array([-5, 6]))
    assert names.to_pylist() == ["32601-32x0.5--3--5", "32760-32x0.5-4-6"]


def test_a_grid_without_area_is_refused():
    with pytest.raises(BadSetting, match="no area"):
        Grid(0, 1.0)
    with pytest.raises(BadSetting, match="no area"):
        Grid(64, -1.0)


@pytest.mark.parametrize("lat", [-70.0, 0.5, 45.0, 80.0])
def test_footprints_have_the_chip_s_true_area_at_any_latitude(lat):
    lon, lats = corners(chip_at(10.0, lat, Grid(64, 10.0)))[0].T
    metres = 111_320 * np.cos(np.radians(lat))
    assert np.ptp(lon) * metres == pytest.approx(640, rel=0.03)
    assert np.ptp(lats) * 111_200 == pytest.approx(640, rel=0.03)


def test_footprints_of_several_zones_come_in_the_order_of_the_rows():
    chips = pd.concat([chip_at(lon, 48.0, Grid(64, 10.0)) for lon in (9.0, 3.0, 15.0, 3.1)], ignore_index=True)
    assert corners(chips).mean(axis=1)[:, 0] == pytest.approx([9.0, 3.0, 15.0, 3.1], abs=1e-3)


def test_a_margin_moves_every_side_outwards():
    chip = pd.DataFrame({"epsg": [32632], "left": [500_000.0], "top": [5e6], "gsd": [1.0], "size": [64]})
    outer = corners(chip, 100.0)[0]
    east, north = to_crs(32632).transform(outer[:, 0], outer[:, 1])
    assert east == pytest.approx([499_900, 500_164, 500_164, 499_900], abs=1e-3)
    assert north == pytest.approx([5_000_100, 5_000_100, 4_999_836, 4_999_836], abs=1e-3)


def test_a_footprint_on_the_antimeridian_stays_small_and_runs_beyond_180():
    lon = corners(chip_at(179.9999, -17.0, Grid(64, 10.0)))[0][:, 0]
    assert np.ptp(lon) < 0.01
    assert lon.max() > 180


@given(st.floats(200_000, 800_000), st.floats(0, 9_300_000), st.floats(1, 5000))
def test_corners_in_degrees_lead_back_to_the_metres(left, top, side):
    square = metric_corners(np.array([left]), np.array([top]), side)
    assert square[0].tolist() == [[left, top], [left + side, top], [left + side, top - side], [left, top - side]]
    lon, lat = to_degrees(32632, square)[0].T
    east, north = project(lon, lat, 32632)
    assert np.stack([east, north], -1) == pytest.approx(square[0], abs=1e-3)


@given(st.lists(st.tuples(st.floats(-3000, 3000), st.floats(-3000, 3000)), min_size=1, max_size=30))
def test_cells_have_one_key_each_and_neighbours_in_a_row_differ_by_one(points):
    east, north = np.array(points).T
    keys = cell_keys(east, north, 100.0)
    cells = [(int(np.floor(y / 100)), int(np.floor(x / 100))) for x, y in points]
    assert (keys[:, None] == keys).tolist() == [[one == other for other in cells] for one in cells]
    assert sorted(keys.tolist()) == [row * CELL_ROW + column for row, column in sorted(cells)]


def test_groups_give_each_value_with_its_rows():
    found = {value: rows.tolist() for value, rows in groups(np.array([7, 3, 7, 7]))}
    assert found == {3: [1], 7: [0, 2, 3]}
    assert list(groups(np.empty(0, int))) == []
