import math

import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from PIL import Image
from pyproj import Geod
from shapely.geometry import Point

from geograft.raster import footprint, open_scene, read, utm_geobox
from geograft.raster.globe import EDGE, box_of, mended, wrapped
from geograft.raster.tiles import TileSource, read_tiles

EARTH = Geod(ellps="WGS84")
LON, LAT = st.floats(-180, 180), st.floats(-84, 84)


def area(shape):
    """Square metres on the ellipsoid."""
    return sum(
        abs(EARTH.geometry_area_perimeter(shapely.segmentize(part, 0.05))[0]) for part in shapely.get_parts(shape)
    )


@settings(max_examples=150, deadline=None)
@given(lon=LON, lat=LAT, gsd=st.sampled_from([0.3, 1.0, 10.0, 30.0]), size=st.sampled_from([64, 224]))
def test_a_chip_anywhere_covers_its_nominal_area_within_half_a_percent(lon, lat, gsd, size):
    outline = footprint(utm_geobox(lon, lat, gsd=gsd, size=size))
    assert area(outline) == pytest.approx((gsd * size) ** 2, rel=0.005)


@settings(max_examples=150, deadline=None)
@given(lon=LON, lat=LAT)
def test_a_footprint_holds_its_place_and_stays_within_the_world(lon, lat):
    outline = footprint(utm_geobox(lon, lat, gsd=10.0, size=128))
    west, south, east, north = outline.bounds
    assert -180 <= west <= east <= 180
    assert -90 <= south <= north <= 90
    assert outline.is_valid
    assert outline.distance(Point(lon, lat)) < 1e-9


@pytest.mark.parametrize("lon", [179.9999, -179.9999, 180.0, -180.0])
@pytest.mark.parametrize("lat", [-84.0, -17.0, 0.0, 65.0, 84.0])
def test_a_footprint_across_the_antimeridian_has_a_part_on_either_side(lon, lat):
    outline = footprint(utm_geobox(lon, lat, gsd=10.0, size=256))
    assert outline.geom_type == "MultiPolygon"
    assert sorted(part.bounds[0] < 0 for part in outline.geoms) == [False, True]
    tree = shapely.STRtree([outline])
    near = [Point(179.9999, lat), Point(-179.9999, lat), Point(0, lat), Point(170, lat)]
    assert tree.query(near, predicate="intersects")[0].tolist() == [0, 1]


def test_a_scene_around_a_pole_reaches_it():
    box = GeoBox((100, 100), Affine(10_000, 0, -500_000, 0, -10_000, 500_000), "EPSG:3413")
    outline = footprint(box)
    assert outline.is_valid
    assert area(outline) == pytest.approx(1e12, rel=0.07)  # polar stereographic is not equal in area
    assert all(outline.covers(Point(lon, 88)) for lon in (-179.999, -90, 0, 90, 179.999))
    assert not outline.intersects(Point(20, 80))


def test_the_sides_of_a_large_scene_follow_their_curve():
    box = GeoBox((1098, 1098), Affine(100, 0, 300_000, 0, -100, 8_900_000), "EPSG:32632")
    assert area(footprint(box)) == pytest.approx(109_800**2, rel=0.002)


@pytest.mark.parametrize(
    ("ring", "parts"),
    [
        ([(179, 1), (-179, 1), (-179, 2), (179, 2)], 2),
        ([(179, 1), (181, 1), (181, 2), (179, 2)], 2),
        ([(-181, 1), (-179, 1), (-179, 2), (-181, 2)], 2),
        ([(10, 1), (11, 1), (11, 2), (10, 2)], 1),
        ([(-180, -85), (180, -85), (180, 85), (-180, 85)], 1),
    ],
)
def test_stated_outlines_are_cut_at_the_antimeridian_however_they_are_written(ring, parts):
    found = mended(shapely.Polygon(ring))
    assert len(shapely.get_parts(found)) == parts
    assert found.bounds[0] >= -180
    assert found.bounds[2] <= 180
    assert found.area == pytest.approx(2 if parts == 2 else shapely.Polygon(ring).area)


def test_an_outline_that_is_cut_already_stays_as_it_is():
    cut = shapely.MultiPolygon([shapely.box(179, 1, 180, 2), shapely.box(-180, 1, -179, 2)])
    assert mended(cut).equals(cut)


def test_bounds_may_cross_the_antimeridian():
    assert box_of((170, -20, -170, -10)).equals(
        shapely.union(shapely.box(170, -20, 180, -10), shapely.box(-180, -20, -170, -10))
    )
    assert box_of((-10, 0, 10, 5)).equals(shapely.box(-10, 0, 10, 5))
    assert wrapped(shapely.box(350, 0, 370, 5)).equals(shapely.box(-10, 0, 10, 5))


def world(folder, make_scene, west, columns):
    """A raster in degrees of half a degree a pixel whose value says the longitude."""
    lon = west + 0.5 * (np.arange(columns) + 0.5)
    rows = np.broadcast_to((lon % 360) / 2, (1, 80, columns))
    return make_scene(
        f"w{west}.tif", sensor="rgb", pixels=np.repeat(rows, 3, 0), crs="EPSG:4326", descriptions=None,
        transform=Affine(0.5, 0, west, 0, -0.5, 20), tags={},
    )  # fmt: skip


@pytest.mark.parametrize(("west", "columns"), [(-180, 720), (0, 720), (170, 40), (-190, 40)])
@pytest.mark.parametrize("lon", [179.97, -179.97])
def test_a_chip_across_the_antimeridian_reads_both_ends_of_a_raster_in_degrees(
    tmp_path, make_scene, west, columns, lon
):
    scene = open_scene(world(tmp_path, make_scene, west, columns), sensor="rgb")
    box = utm_geobox(lon, 3, gsd=2000, size=64)
    found = read(scene, box)
    assert found.valid.mean() > 0.97
    across = found.pixels[0, 32][found.valid[32]]
    assert across.min() >= 88
    assert across.max() <= 92
    assert (np.diff(across.astype(int)) >= 0).all()


@pytest.mark.parametrize("lat", [-83.9, 83.9])
def test_a_chip_near_a_pole_reads_a_polar_scene(make_scene, lat):
    crs = "EPSG:3413" if lat > 0 else "EPSG:3031"
    rows, columns = np.mgrid[:400, :400]
    path = make_scene(
        sensor="rgb", pixels=np.stack([columns // 2, rows // 2, columns * 0 + 9]), crs=crs, descriptions=None, tags={},
        transform=Affine(5000, 0, -1_000_000, 0, -5000, 1_000_000),
    )  # fmt: skip
    scene, box = open_scene(path, sensor="rgb"), utm_geobox(100.0, lat, gsd=1000, size=64)
    found = read(scene, box)
    assert found.valid.all()
    for row, col in ((10, 12), (50, 30)):
        place = box[row : row + 1, col : col + 1].footprint(crs).centroid.coords[0]
        column, line = ~scene.geobox.affine @ place
        assert found.pixels[0, row, col] == pytest.approx(column / 2, abs=1.5)
        assert found.pixels[1, row, col] == pytest.approx(line / 2, abs=1.5)


def test_tiles_on_both_sides_of_the_antimeridian_are_one_chip(tmp_path):
    zoom = 8
    for x, red in ((255, 50), (0, 200)):
        for y in range(120, 136):
            path = tmp_path / "t" / str(zoom) / str(x) / f"{y}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (256, 256), (red, 90, 90)).save(path)
    source = TileSource(str(tmp_path / "t" / str(zoom) / "{x}" / "{y}.png"), zoom)
    for lon in (179.99, -179.99):
        pixels, valid = read_tiles(source, utm_geobox(lon, 1.0, gsd=500, size=100))
        assert valid.mean() > 0.98
        assert pixels[0, 50, 5] == 50
        assert pixels[0, 50, 95] == 200


def test_the_width_of_the_web_mercator_square_is_that_of_the_equator():
    assert pytest.approx(math.pi * 6378137.0) == EDGE
