import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geograft.pairs.planning.zones import by_zone, phases, touching
from geograft.raster.grids import utm_epsgs

ALL = [*range(32601, 32661), *range(32701, 32761)]


def box(zone):
    """West, south, east, north of a zone, degrees."""
    west = (zone % 100) * 6 - 186
    return (west, 0, west + 6, 84) if zone < 32700 else (west, -84, west + 6, 0)


def distance(lon, lat, zone):
    """Metres from a point to a zone, nearly: along a parallel, along a meridian, whichever is longer."""
    west, south, east, north = box(zone)
    across = min(max(west - x, x - east, 0) for x in (lon - 360, lon, lon + 360))
    along = max(south - lat, lat - north, 0)
    return max(across * np.cos(np.radians(lat)) * 111_320, along * 110_574)


places = st.one_of(
    st.tuples(st.floats(-180, 180), st.floats(-84, 84)),
    st.tuples(st.sampled_from(range(-180, 181, 6)), st.sampled_from([-84.0, -0.001, 0.0, 0.001, 45.0, 84.0])),
    st.tuples(st.integers(-30, 30).map(lambda zone: zone * 6.0), st.floats(-0.02, 0.02), st.floats(-0.02, 0.02)).map(
        lambda near: (float(np.clip(near[0] + near[1], -180, 180)), near[2])
    ),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(places, min_size=1, max_size=30), st.sampled_from([50.0, 640.0, 5000.0]))
def test_each_zone_comes_with_what_lies_in_it_and_near_it(points, margin):
    lon, lat = np.array(points, float).T
    own = utm_epsgs(lon, lat)
    found = {zone: (rows, inside) for zone, rows, inside in by_zone(lon, lat, margin)}
    assert sorted(found) == sorted(set(own.tolist()))
    for zone, (rows, inside) in found.items():
        assert rows.tolist() == sorted(set(rows.tolist()))
        assert rows[inside].tolist() == np.flatnonzero(own == zone).tolist()
        far = np.array([distance(*point, zone) for point in points])
        assert set(np.flatnonzero(far < margin * 0.99)) <= set(rows.tolist())
        assert (far[rows] < margin * 1.03).all()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((5.9999, 48.0), (6.0001, 48.0)),
        ((179.9999, 10.0), (-179.9999, 10.0)),
        ((180.0, 10.0), (-180.0, 10.0)),
        ((9.0, 0.0001), (9.0, -0.0001)),
        ((6.0001, 0.0001), (5.9999, -0.0001)),
        ((180.0, -0.0001), (-180.0, 0.0001)),
        ((11.9999, 84.0), (12.0001, 84.0)),
    ],
    ids=["edge", "antimeridian", "on-the-antimeridian", "equator", "corner", "corner-of-the-map", "84-degrees"],
)
def test_neighbours_across_an_edge_are_told_to_both_zones(one, other):
    lon, lat = np.array([one, other]).T
    found = list(by_zone(lon, lat, 200))
    assert len(found) == 2
    assert [rows.tolist() for _, rows, _ in found] == [[0, 1], [0, 1]]
    assert sum(inside.sum() for _, _, inside in found) == 2


def test_zones_without_a_photo_of_their_own_are_left_out():
    assert [zone for zone, _, _ in by_zone(np.array([5.9999]), np.array([0.0001]), 200)] == [32631]


@pytest.mark.parametrize("zones", [ALL, [32601, 32660], [32631, 32632, 32731, 32732], [32632]])
def test_zones_of_a_phase_do_not_touch(zones):
    found = phases(zones)
    assert sorted(zone for phase in found for zone in phase) == sorted(zones)
    for phase in found:
        assert not any(set(touching(zone)) & set(phase) for zone in phase)


def test_four_phases_cover_the_globe():
    assert len(phases(ALL)) == 4
    assert phases([]) == []


def test_touching_is_mutual_and_tells_what_shares_an_edge_or_corner():
    for zone in ALL:
        beside = touching(zone)
        assert len(set(beside)) == 5
        assert all(zone in touching(other) for other in beside)
        west, south, east, north = box(zone)
        for other in beside:
            left, bottom, right, top = box(other)
            assert bottom <= north
            assert top >= south
            assert any(left + turn <= east and right + turn >= west for turn in (-360, 0, 360))
