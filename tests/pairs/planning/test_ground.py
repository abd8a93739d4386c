"""The scenes' ground: every answer is compared with one of plain geometry, in one frame around the place."""

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from shapely.affinity import rotate, translate

from geograft.pairs.grid import Grid, project
from geograft.pairs.planning import ground as ground_module
from geograft.pairs.planning.cover import Metric
from geograft.pairs.planning.ground import Ground, joined, mirrored, unrolled
from geograft.pairs.planning.survey import COARSE, Survey
from geograft.pairs.planning.zones import by_zone
from geograft.pairs.times import NEVER
from geograft.raster import footprint
from geograft.raster.globe import wrapped

PLACES = [(9.0, 45.0), (33.0, 0.0), (180.0, -16.5), (-180.0, 65.0), (15.0, 83.5), (0.01, -40.0)]
"""Longitude and latitude; scenes there may run beyond 180 degrees."""


def ground_of(shapes, taken="2024-06-01", clouds=0.0):
    table = {"taken": pd.to_datetime(pd.Series(taken, range(len(shapes))), utc=True), "cloud_share": clouds}
    return Ground.of(gpd.GeoDataFrame(table, index=range(len(shapes)), geometry=list(shapes), crs=4326))


def random_scene(rng, lon, lat):
    """A box, turned or with a hole or neither, some hundredths of a degree wide."""
    width, height = rng.uniform(0.01, 0.06, 2)
    at = (lon + rng.uniform(-0.08, 0.08), min(lat + rng.uniform(-0.08, 0.08), 83.9))
    shape = shapely.box(at[0] - width, at[1] - height, at[0] + width, at[1] + height)
    if rng.random() < 0.4:
        shape = rotate(shape, rng.uniform(0, 90))
    if rng.random() < 0.3:
        shape = shape.difference(shapely.box(at[0], at[1], at[0] + width / 3, at[1] + height / 3))
    return shape


def written(shape, way):
    """A scene near the antimeridian as tables write it: as it runs, or cut into -180 to 180."""
    return {"cut": wrapped, "runs": lambda one: one, "turned": lambda one: translate(one, -360)}[way](shape)


@st.composite
def scenes_and_squares(draw):
    """Scenes in a frame around a place, as they are written, and squares: in that frame, and as chips have them."""
    lon, lat = draw(st.sampled_from(PLACES))
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    frame = [random_scene(rng, lon, lat) for _ in range(draw(st.integers(1, 8)))]
    near = abs(lon) == 180
    ways = ["cut", "runs", "turned"] if lon == 180 else ["cut", "runs"]
    scenes = [written(shape, rng.choice(ways)) if near else shape for shape in frame]
    middle = np.stack([lon + rng.uniform(-0.1, 0.1, 60), lat + rng.uniform(-0.1, 0.1, 60)], -1)
    half = rng.uniform(0.0005, 0.01, (60, 1, 1))
    corners = middle[:, None] + half * np.array([[-1, 1], [1, 1], [1, -1], [-1, -1]])
    return frame, scenes, corners, as_chips_have_them(corners)


def as_chips_have_them(corners):
    """Longitudes from -180 to 180, those of a square across the antimeridian beyond 180."""
    out = corners.copy()
    out[..., 0] = (out[..., 0] + 180) % 360 - 180
    crossing = np.ptp(out[..., 0], axis=1) > 180
    out[crossing, :, 0] %= 360
    return out


@settings(max_examples=120, deadline=None)
@given(scenes_and_squares())
def test_squares_held_touched_and_covered_are_those_of_plain_geometry(given_):
    frame, scenes, corners, chips = given_
    ground, squares, union = ground_of(scenes), shapely.polygons(corners), shapely.union_all(frame)
    assert ground.holds(chips, 1e-3).tolist() == shapely.covers(union, squares).tolist()
    for predicate, plain in (("intersects", shapely.intersects), ("covered_by", shapely.covers)):
        found = list(zip(*(part.tolist() for part in ground.met(chips, predicate)), strict=True))
        wanted = [
            (row, scene) for row, one in enumerate(squares) for scene, shape in enumerate(frame) if plain(shape, one)
        ]
        assert sorted(found) == wanted
        assert [row for row, _ in found] == [row for row, _ in wanted]
    on_any = ground.on_any(*chips[:, 0].T)
    inside = np.abs(chips[:, 0, 0]) <= 180
    assert on_any[inside].tolist() == shapely.intersects(union, shapely.points(corners[:, 0]))[inside].tolist()


@settings(max_examples=40, deadline=None)
@given(scenes_and_squares())
def test_the_ground_comes_back_from_its_file(tmp_path_factory, given_):
    _, scenes, _, chips = given_
    path = tmp_path_factory.mktemp("ground") / "ground.npz"
    dates = [None if row % 3 == 1 else f"2024-06-{row + 1:02d}" for row in range(len(scenes))]
    ground = ground_of(scenes, dates, np.arange(len(scenes)) / 10).take(np.arange(len(scenes))[::2])
    ground.save(path)
    again = Ground.load(path)
    assert shapely.equals_exact(again.shapes, ground.shapes).all()
    for name in ("number", "taken", "clouds"):
        assert getattr(again, name).tolist() == getattr(ground, name).tolist()
    assert again.holds(chips, 0.01).tolist() == ground.holds(chips, 0.01).tolist()


def test_a_ground_without_scenes_holds_nothing_and_can_be_written(tmp_path):
    empty = ground_of([shapely.box(8, 44, 10, 46)]).near(np.array([100.0]), np.array([10.0]), 1000)
    empty.save(tmp_path / "none.npz")
    square = np.array([[[9, 45], [9.1, 45], [9.1, 45.1], [9, 45.1]]], float)
    for ground in (empty, Ground.load(tmp_path / "none.npz")):
        assert not ground.holds(square, 0.1).any()
        assert [len(part) for part in ground.met(square, "intersects")] == [0, 0]
        assert not ground.on_any(np.array([9.0]), np.array([45.0])).any()


def test_unknown_times_and_clouds_have_numbers_too():
    ground = ground_of([shapely.box(0, 0, 1, 1)] * 2, ["2024-06-01T00:00:01", None], [0.5, None])
    assert ground.taken.tolist() == [1_717_200_001_000_000, NEVER]
    assert ground.clouds.tolist() == [0.5, 0.0]
    bare = gpd.GeoDataFrame({"taken": pd.Series([None])}, geometry=[shapely.box(0, 0, 1, 1)], crs=4326)
    assert Ground.of(bare).clouds.tolist() == [0.0]


def test_the_number_of_squares_asked_at_once_changes_nothing(monkeypatch):
    rng = np.random.default_rng(5)
    ground = ground_of([random_scene(rng, 9, 45) for _ in range(6)])
    corners = rng.uniform([8.9, 44.9], [9.1, 45.1], (200, 1, 2)) + np.array(
        [[0, 0], [0.02, 0], [0.02, 0.02], [0, 0.02]]
    )
    whole, points = ground.holds(corners, 0.1), ground.on_any(*corners[:, 0].T)
    monkeypatch.setattr(ground_module, "CHUNK", 7)
    assert ground.holds(corners, 0.1).tolist() == whole.tolist()
    assert ground.on_any(*corners[:, 0].T).tolist() == points.tolist()
    assert 0 < whole.sum() < points.sum() < 200


# --- seams ------------------------------------------------------------------------------------------------


def raster(left, top, width, height, gsd):
    return footprint(GeoBox((height, width), Affine(gsd, 0, left, 0, -gsd, top), "EPSG:32632"))


def opens_along(shapes, east, gsd):
    """Whether chips of 64 px along a line to the south open."""
    where = Metric(np.full(40, east) + np.linspace(-20, 20, 40) * gsd, 5e6 - np.linspace(100, 900, 40) * gsd)
    return Survey.of(ground_of(shapes), 32632, Grid(64, gsd), where).opens(where)


@pytest.mark.parametrize("gsd", [0.3, 0.6, 1.0, 4.77731, 10.0])
@pytest.mark.parametrize("left", [500_000.0, 612_345.6, 731_111.3])
def test_a_chip_over_the_seam_of_two_scenes_opens_and_over_a_gap_of_some_pixels_does_not(gsd, left):
    seam = left + 1000 * gsd
    west = raster(left, 5e6, 1000, 1000, gsd)
    assert opens_along([west, raster(seam, 5e6, 1000, 1000, gsd)], seam, gsd).all()
    assert opens_along([west, raster(seam, 5e6 + 500 * gsd, 1000, 2000, gsd)], seam, gsd).all(), "edges' points differ"
    assert not opens_along([west, raster(seam + 2 * gsd, 5e6, 1000, 1000, gsd)], seam, gsd).any()


def test_a_crack_of_a_pixel_between_scenes_stays_open_on_every_side():
    boxes = [
        shapely.box(9.0, 45.0, 9.1, 45.1),
        shapely.box(9.1, 45.0, 9.2, 45.1 - 1e-4),
        shapely.box(9.1, 45.1, 9.2, 45.2),
    ]
    across = [[9.1, 45.1], [9.15, 45.1], [9.15, 45.09], [9.1, 45.09]]
    beside = [[9.09, 45.05], [9.11, 45.05], [9.11, 45.04], [9.09, 45.04]]
    assert ground_of(boxes).holds(np.array([across, beside]), 1.0).tolist() == [False, True]


def test_closing_cracks_moves_no_outer_edge():
    west, east = shapely.box(9, 45, 9.1, 45.1), shapely.box(9.1 + 1e-6, 45, 9.2, 45.05)
    found = joined(np.array([west, east], dtype=object), 0.1)
    whole = shapely.union_all([west, east, shapely.box(9.1, 45, 9.1 + 1e-6, 45.05)])
    assert found.symmetric_difference(whole).area < 1e-11
    assert found.hausdorff_distance(whole) < 1e-6


# --- the antimeridian -------------------------------------------------------------------------------------


def test_a_map_of_the_whole_world_holds_a_chip_across_the_antimeridian_alone():
    square = np.array([[[179.9, 10], [180.1, 10], [180.1, 9.9], [179.9, 9.9]]])
    world = shapely.box(-180, -90, 180, 90)
    for shape in (world, shapely.MultiPolygon([shapely.box(-180, -90, 10, 90), shapely.box(20, -90, 180, 90)])):
        ground = ground_of([shape])
        assert ground.holds(square, 0.1).all()
        assert [part.tolist() for part in ground.met(square, "covered_by")] == [[0], [0]]
        sides = np.stack([square[0] - [0.2, 0], square[0] - [359.8, 0]])
        assert ground.holds(sides, 0.1).all()


def test_parts_on_both_sides_become_one_that_runs_beyond_180():
    parts = [shapely.box(179, 0, 180, 1), shapely.box(-180, 0, -179, 1), shapely.box(-178, 0, -177, 1)]
    alone, whole = unrolled(np.array([shapely.box(-10, 0, 10, 1), shapely.MultiPolygon(parts)], dtype=object))
    assert alone.bounds == (-10, 0, 10, 1)
    assert whole.bounds == (179, 0, 183, 1)
    assert whole.area == pytest.approx(3)


def test_scenes_near_the_antimeridian_stand_on_both_sides_with_the_row_they_came_of():
    shapes = np.array(
        [shapely.box(0, 0, 1, 1), shapely.box(179, 0, 181, 1), shapely.box(-181, 2, -179, 3)], dtype=object
    )
    turned, rows = mirrored(shapes)
    places = {(row, shape.bounds[0]) for row, shape in zip(rows.tolist(), turned, strict=True)}
    assert places == {(0, 0.0), (1, 179.0), (1, -181.0), (2, -181.0), (2, 179.0)}


# --- near -------------------------------------------------------------------------------------------------


@settings(max_examples=80, deadline=None)
@given(scenes_and_squares(), st.sampled_from([Grid(64, 1.0), Grid(16, 10.0), Grid(64, 10.0)]))
def test_no_scene_that_a_chip_of_the_zone_could_touch_is_lost(given_, grid):
    _, scenes, corners, _ = given_
    whole = ground_of(scenes)
    lon = (corners[:, 0, 0] + 180) % 360 - 180
    lat = np.clip(corners[:, 0, 1], -84, 84)
    for zone, rows, _ in by_zone(lon, lat, 2 * grid.extent):
        where = Metric(*project(lon[rows], lat[rows], zone))
        near = whole.near(lon[rows], lat[rows], 2 * COARSE * grid.extent)
        all_, some = Survey.of(whole, zone, grid, where), Survey.of(near, zone, grid, where)
        assert np.isin(all_.scenes, near.number).all()
        assert some.opens(where).tolist() == all_.opens(where).tolist()
        assert near.number[some.scenes].tolist() == all_.scenes.tolist()


def test_scenes_far_away_are_not_near():
    ground = ground_of([shapely.box(lon, 44, lon + 1, 45) for lon in (-180, -60, 8, 12, 179)])
    assert ground.near(np.array([8.5, 9.5]), np.array([44.5, 44.6]), 10_000).number.tolist() == [2]
    assert ground.near(np.array([-179.99, 179.99]), np.array([44.5, 44.6]), 10_000).number.tolist() == [0, 1, 2, 3, 4]
    assert ground.near(np.array([179.95]), np.array([44.5]), 10_000).number.tolist() == [0, 4]
