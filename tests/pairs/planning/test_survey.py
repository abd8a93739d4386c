"""What the survey says of chips by the cell is what plain geometry says of each chip."""

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely.affinity import rotate

from geograft.pairs.grid import Grid, metric_corners, project, to_degrees
from geograft.pairs.planning import survey as survey_module
from geograft.pairs.planning.cover import Metric
from geograft.pairs.planning.ground import Ground
from geograft.pairs.planning.survey import COARSE, INSET_PX, Survey
from geograft.raster.globe import wrapped
from geograft.raster.grids import utm_epsg

PLACES = [(9.0, 45.0), (5.9999, 45.0), (33.0, 0.0), (180.0, -16.5), (-180.0, 65.0), (15.0, 83.5)]
GRIDS = [Grid(64, 1.0), Grid(16, 10.0), Grid(33, 0.3)]


def ground_of(shapes):
    table = gpd.GeoDataFrame({"taken": pd.Series([None] * len(shapes))}, geometry=list(shapes), crs=4326)
    return Ground.of(table)


def beside(corners, lon):
    """Corners in the frame around a longitude, which may run beyond 180."""
    out = corners.copy()
    out[..., 0] = lon + (out[..., 0] - lon + 180) % 360 - 180
    return out


@st.composite
def surveys(draw):
    """A place with scenes, from smaller than a chip to larger than a cell, and photos; scenes in a frame around it."""
    lon, lat = draw(st.sampled_from(PLACES))
    grid = draw(st.sampled_from(GRIDS))
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    stretch = np.array([1 / np.cos(np.radians(lat)), 1]) / 111_000
    frame = []
    for _ in range(draw(st.integers(1, 7))):
        middle = [lon, lat] + rng.uniform(-12, 12, 2) * grid.extent * stretch
        half = rng.uniform(0.4, 16, 2) * grid.extent * stretch
        shape = shapely.box(*(middle - half), *(middle + half))
        if rng.random() < 0.3:
            shape = shape.difference(shapely.box(*middle, *(middle + half / rng.uniform(1.5, 20))))
        frame.append(rotate(shape, rng.choice([0.0, rng.uniform(0, 90)])))
    points = np.array([lon, lat]) + rng.uniform(-16, 16, (80, 2)) * grid.extent * stretch
    zone = utm_epsg((lon + 180) % 360 - 180, lat)
    where = Metric(*project((points[:, 0] + 180) % 360 - 180, points[:, 1], zone))
    scenes = [wrapped(shape) if rng.random() < 0.7 else shape for shape in frame]
    return Survey.of(ground_of(scenes), zone, grid, where), where, frame, lon


@settings(max_examples=120, deadline=None)
@given(surveys())
def test_photos_open_a_chip_and_chips_meet_scenes_as_one_by_one(given_):
    survey, where, frame, lon = given_
    x, y = survey.grid.centred(where.east, where.north)
    inset = metric_corners(*survey.grid.corner(x, y), survey.grid.extent, -INSET_PX * survey.grid.gsd)
    squares = shapely.polygons(beside(to_degrees(survey.zone, inset), lon))
    assert survey.opens(where).tolist() == shapely.covers(shapely.union_all(frame), squares).tolist()
    chips = np.random.default_rng(0).permutation(len(x))[:50]
    found = zip(*(part.tolist() for part in survey.met(chips, x[chips], y[chips])), strict=True)
    assert list(found) == [
        (row, scene, shapely.covers(shape, squares[chip]))
        for row, chip in enumerate(chips)
        for scene, shape in enumerate(frame)
        if shapely.intersects(shape, squares[chip])
    ]


def test_most_cells_amid_a_scene_are_plain_and_those_at_its_edge_are_not():
    zone, grid = 32632, Grid(64, 1.0)
    east, north = (
        values.ravel() for values in np.meshgrid(np.arange(5e5, 505_000, 100), np.arange(5e6, 5_005_000, 100))
    )
    where = Metric(east + 10, north + 10)
    scene = shapely.polygons(to_degrees(zone, metric_corners(np.array([5e5]), np.array([5_005_000.0]), 5000.0)))
    survey = Survey.of(ground_of(scene), zone, grid, where)
    inner = (np.abs(where.east - 502_500) < 1500) & (np.abs(where.north - 5_002_500) < 1500)
    edge = np.abs(where.east - 502_500) > 2480
    assert survey.plain[survey.cell[inner]].all()
    assert not survey.plain[survey.cell[edge]].any()
    opens = survey.opens(where)
    assert opens[inner].all()
    assert not opens[edge].any()


@pytest.mark.parametrize("lat", [60.0, 83.0, -83.0])
def test_a_wide_cell_of_the_north_whose_sides_bend_is_not_plain_where_a_chip_looks_over_its_rim(lat):
    grid, zone = Grid(224, 10.0), utm_epsg(15.0, lat)
    side = COARSE * grid.extent
    east, north = (values[0] for values in project(np.array([15.0]), np.array([lat]), zone))
    left, top = np.floor(east / side) * side, np.ceil(north / side) * side
    away = 1 if lat > 0 else -1
    rim = to_degrees(zone, metric_corners(np.array([left]), np.array([top]), side, grid.extent / 2 + grid.gsd))[0]
    first, last = (rim[0], rim[1]) if away > 0 else (rim[3], rim[2])
    moved = np.array([[0, away * 1e-7], [0, away * 1e-7], [1, -away], [-1, -away]])
    wide = np.stack([first, last, last, first]) + moved
    middle = Metric(np.array([left + side / 2]), np.array([top - 1e-3 if away > 0 else top - side + 1e-3]))
    survey = Survey.of(ground_of([shapely.Polygon(wide)]), zone, grid, middle)
    x, y = grid.centred(middle.east, middle.north)
    chip = shapely.polygons(survey.outline(x, y, -INSET_PX * grid.gsd))[0]
    held = bool(shapely.covers(shapely.Polygon(wide), chip))
    assert not held
    assert survey.opens(middle).tolist() == [held]
    assert [part.tolist() for part in survey.met(np.array([0]), x, y)] == [[0], [0], [held]]


def test_the_number_of_cells_asked_at_once_changes_nothing(monkeypatch):
    rng = np.random.default_rng(3)
    where = Metric(5e5 + rng.uniform(0, 20_000, 300), 5e6 + rng.uniform(0, 20_000, 300))
    outline = metric_corners(5e5 + rng.uniform(-2000, 15_000, 9), 5e6 + rng.uniform(2000, 20_000, 9), 8000.0)
    ground = ground_of(shapely.polygons(to_degrees(32632, outline)))
    whole = Survey.of(ground, 32632, Grid(64, 1.0), where)
    monkeypatch.setattr(survey_module, "CHUNK", 10)
    parts = Survey.of(ground, 32632, Grid(64, 1.0), where)
    for name in ("cell", "plain", "starts", "scenes"):
        assert getattr(parts, name).tolist() == getattr(whole, name).tolist()
    assert 0 < whole.plain.sum() < len(whole.plain)


def test_photos_away_from_all_scenes_open_nothing():
    where = Metric(np.array([5e5, 6e5]), np.array([5e6, 5e6]))
    survey = Survey.of(ground_of([shapely.box(100, 10, 101, 11)]), 32632, Grid(64, 1.0), where)
    assert not survey.opens(where).any()
    x, y = survey.grid.centred(where.east, where.north)
    assert [len(part) for part in survey.met(np.arange(2), x, y)] == [0, 0, 0]
    nobody = Metric(np.empty(0), np.empty(0))
    assert len(Survey.of(ground_of([shapely.box(0, 0, 1, 1)]), 32632, Grid(64, 1.0), nobody).opens(nobody)) == 0
