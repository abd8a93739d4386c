from datetime import UTC, datetime

import numpy as np
import pytest

from geograft.world.classes import BY_NAME
from geograft.world.materials import INDEX
from geograft.world.movables import site_of, with_movables
from geograft.world.terrain import make_land

JUNE, JULY, JANUARY = (datetime(2024, month, 15, 10, tzinfo=UTC) for month in (6, 7, 1))
CARS = [INDEX[name] for name in ("silver car", "dark car", "red car", "blue car")]


@pytest.fixture(scope="module")
def land():
    return make_land(seed=1, size=2000)


@pytest.fixture(scope="module")
def june(land):
    return with_movables(land, JUNE)


def test_one_date_always_brings_the_same_things(land, june):
    again = with_movables(land, JUNE)
    np.testing.assert_array_equal(again.material, june.material)
    np.testing.assert_array_equal(again.height, june.height)


def test_another_date_brings_other_things(land, june):
    assert (with_movables(land, JULY).material != june.material).sum() > 1000


def test_the_land_itself_is_left_alone(land, june):
    before = make_land(seed=1, size=2000)
    np.testing.assert_array_equal(land.material, before.material)
    np.testing.assert_array_equal(land.height, before.height)
    assert june.cover is land.cover
    assert june.ground is land.ground


def test_things_are_only_where_they_belong(land, june):
    moved = june.material != land.material
    places = {BY_NAME[name].id for name in ("lake", "harbour", "parking lot", "road", "airport runway")}
    assert moved.sum() > 5000
    assert set(np.unique(land.cover[moved])) == places


@pytest.mark.parametrize(("name", "looks"), [("parking lot", CARS), ("road", CARS), ("harbour", [INDEX["white hull"]])])
def test_cars_and_boats_stand_higher_than_the_ground(land, june, name, looks):
    stamped = (land.cover == BY_NAME[name].id) & np.isin(june.material, looks) & (june.material != land.material)
    assert stamped.sum() > 50
    assert (june.height[stamped] >= 1.5).all()


def test_a_plane_stands_at_every_airport(land, june):
    paved = land.cover == BY_NAME["airport runway"].id
    assert (june.material[paved] == INDEX["white hull"]).sum() > 100


def test_fewer_boats_are_out_in_winter(land, june):
    lake = land.cover == BY_NAME["lake"].id
    boats = {
        month: (with_movables(land, month).material[lake] == INDEX["white hull"]).sum() for month in (JUNE, JANUARY)
    }
    assert boats[JANUARY] < boats[JUNE]


def test_a_rectangle_outline_gives_its_frame_back(land):
    outline = land.objects.geometry[land.objects.class_name == "harbour"].iloc[0]
    site = site_of(outline, land)
    assert site is not None
    corners = np.asarray(site.polygon().exterior.coords)
    expected = np.asarray(outline.exterior.coords) - (land.left, land.top)
    np.testing.assert_allclose(corners, expected * (1, -1), atol=1e-6)


def test_an_outline_cut_by_the_edge_has_no_frame(land):
    round_one = land.objects.geometry[land.objects.class_name == "wind turbines"].iloc[0]
    assert site_of(round_one, land) is None
