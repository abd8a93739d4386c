import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from geograft.pairs.footprints import Squares, neighbours
from geograft.pairs.grid import metric_corners, to_degrees
from geograft.raster.grids import to_crs, utm_epsgs


def squares_at(left, top, side=32.0, epsg=32632):
    return Squares(np.broadcast_to(epsg, len(left)).astype(int), np.asarray(left, float), np.asarray(top, float), side)


def squares_on(lon, lat, side=210.0):
    """Squares centred on places, each in its own zone, on whole metres."""
    epsg = utm_epsgs(lon, lat)
    points = [to_crs(int(zone)).transform(x, y) for zone, x, y in zip(epsg, lon, lat, strict=True)]
    east, north = (np.round([point[axis] for point in points]) for axis in (0, 1))
    return Squares(epsg, east - side / 2, north + side / 2, side)


def overlapping_plainly(squares):
    """Rows of the polygons in degrees that share a thousandth of their ground."""
    corners = np.stack(
        [
            to_degrees(int(zone), metric_corners(np.array([left]), np.array([top]), squares.side))[0]
            for zone, left, top in zip(squares.epsg, squares.left, squares.top, strict=True)
        ]
    )
    lon = corners[..., 0]
    lon -= 360 * np.round((lon.mean(axis=1, keepdims=True) - lon[0, 0]) / 360)
    shapes = shapely.polygons(corners)
    return [
        [
            other
            for other in range(len(shapes))
            if other != one and shapely.area(shapely.intersection(shapes[one], shapes[other])) > 1e-3 * shapes[one].area
        ]
        for one in range(len(shapes))
    ]


@given(st.integers(1, 60), st.integers(10, 300), st.integers(0, 99))
def test_overlaps_within_a_zone_are_those_of_the_polygons(count, spread, seed):
    left, top = np.random.default_rng(seed).integers(0, spread, (2, count))
    squares = squares_at(500_000 + left, 5_000_000 - top)
    assert [some.tolist() for some in neighbours(squares)] == overlapping_plainly(squares)


@pytest.mark.parametrize("corner", [(12.0, 45.0), (0.0, 60.0), (-6.0, 0.0), (180.0, -17.0), (9.0, 0.0)])
def test_overlaps_across_the_edges_of_zones_are_found(corner):
    lon, lat = np.random.default_rng(1).normal(0, 0.003, (2, 80)) + np.array(corner)[:, None]
    squares = squares_on((lon + 180) % 360 - 180, lat)
    found = [some.tolist() for some in neighbours(squares)]
    assert len(set(squares.epsg)) >= 2
    assert found == overlapping_plainly(squares)
    across = [
        (one, other) for one, some in enumerate(found) for other in some if squares.epsg[one] != squares.epsg[other]
    ]
    assert len(across) > 20


def test_squares_that_touch_do_not_overlap():
    assert [some.tolist() for some in neighbours(squares_at([0, 32, 0, 31.98], [0, 0, 32, 0]))] == [[], [3], [], [1]]


def test_the_same_square_at_several_times_overlaps_itself():
    assert [some.tolist() for some in neighbours(squares_at([64, 64, 64], [64, 64, 64]))] == [[1, 2], [0, 2], [0, 1]]


def test_no_squares_have_no_neighbours():
    found = neighbours(squares_at([], []))
    assert len(found) == 0
    assert list(found) == []
    with pytest.raises(IndexError):
        found[0]


def test_centres_lie_on_the_unit_sphere_at_the_squares_middles():
    lon, lat = np.array([12.01, -71.5, 179.9999, 0.0]), np.array([45.0, -33.2, -17.0, 0.0])
    found = squares_on(lon, lat, side=10.0).centres()
    assert np.linalg.norm(found, axis=1) == pytest.approx(1)
    away = 6_371_000 * np.hypot(
        np.degrees(np.arcsin(found[:, 2])) - lat,
        (np.degrees(np.arctan2(found[:, 1], found[:, 0])) - lon + 180) % 360 - 180,
    )
    assert (np.radians(away) < 1).all()
