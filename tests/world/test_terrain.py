import hashlib
from itertools import combinations

import numpy as np
import pytest
from scipy.ndimage import binary_dilation

from geograft.errors import BadSetting
from geograft.world.classes import BY_ID, BY_NAME
from geograft.world.lines import route, strip
from geograft.world.materials import INDEX, MATERIALS
from geograft.world.noise import fractal, nodes, upsample
from geograft.world.terrain import make_land, place_of


@pytest.fixture(scope="module")
def land():
    return make_land(seed=1, size=2000)


def fingerprint(land):
    rasters = (land.cover, land.ground, land.height, land.material)
    return hashlib.sha256(b"".join(raster.tobytes() for raster in rasters)).hexdigest()


def near(land, name, metres):
    return binary_dilation((land.cover == BY_NAME[name].id)[::4, ::4], iterations=max(1, metres // 4))


def test_every_class_occurs_in_a_region_of_two_kilometres(land):
    assert set(np.unique(land.cover)) == set(BY_ID)


def test_no_class_crowds_out_the_others(land):
    shares = np.bincount(land.cover.ravel(), minlength=23) / land.cover.size
    assert shares[[1, 4, 5]].sum() < 0.55
    assert shares.max() < 0.35
    assert (shares[1:] > 0.0015).all()


def test_rasters_have_the_stated_types_and_ranges(land):
    for raster, kind in ((land.cover, np.uint8), (land.material, np.uint8), (land.ground, np.float32)):
        assert raster.shape == (2000, 2000)
        assert raster.dtype == kind
    assert land.height.dtype == np.float32
    assert land.height.min() >= 0
    assert 60 <= land.height.max() < 100
    assert land.material.min() > 0
    assert land.material.max() < len(MATERIALS)
    assert np.isfinite(land.ground).all()


def test_the_same_seed_gives_the_same_land_whatever_the_global_random_state_is():
    np.random.seed(3)  # noqa: NPY002
    first = make_land(5, 400)
    np.random.seed(4)  # noqa: NPY002
    second = make_land(5, 400)
    assert fingerprint(first) == fingerprint(second)
    assert first.objects.equals(second.objects)


def test_other_seeds_give_other_land():
    assert fingerprint(make_land(5, 400)) != fingerprint(make_land(6, 400))


@pytest.mark.parametrize("size", [256, 333, 512])
def test_small_and_odd_sizes_are_filled_completely(size):
    land = make_land(11, size)
    assert land.cover.shape == (size, size)
    assert land.cover.min() > 0
    assert len(np.unique(land.cover)) >= 9


@pytest.mark.parametrize(("seed", "size"), [(-1, 512), (1, 100)])
def test_a_negative_seed_or_a_tiny_region_is_refused(seed, size):
    with pytest.raises(BadSetting, match="at least 256"):
        make_land(seed, size)


def test_the_grid_lies_on_whole_tens_of_metres_of_its_zone(land):
    assert land.geobox.shape == (2000, 2000)
    assert land.geobox.crs.epsg == land.epsg == land.objects.crs.to_epsg()
    assert land.left % 10 == land.top % 10 == 0
    assert tuple(land.geobox.extent.boundingbox) == (land.left, land.top - 2000, land.left + 2000, land.top)
    lon, lat = land.centre
    assert -1 < lon < 18
    assert 43 < lat < 53


def test_regions_of_different_seeds_never_overlap():
    places = [place_of(seed) for seed in [*range(1, 9), *range(101, 105), 201, 301, 302, 303, 504 + 1, 1008 + 301]]
    for (zone, left, top), (other_zone, other_left, other_top) in combinations(places, 2):
        assert zone != other_zone or max(abs(left - other_left), abs(top - other_top)) >= 9000


def test_all_seeds_of_one_round_get_a_slot_of_their_own():
    assert len({place_of(seed) for seed in range(504)}) == 504


def test_harbours_touch_the_lake(land):
    harbour = land.cover[::4, ::4] == BY_NAME["harbour"].id
    assert (harbour & near(land, "lake", 8)).any()


def test_beaches_lie_along_the_lake(land):
    beach = land.cover[::4, ::4] == BY_NAME["beach"].id
    assert (beach & near(land, "lake", 72)).sum() > 0.9 * beach.sum()


def test_solar_farms_keep_out_of_the_woods(land):
    solar = near(land, "solar farm", 12) & (land.cover[::4, ::4] != BY_NAME["solar farm"].id)
    woods = land.cover[::4, ::4] == BY_NAME["forest"].id
    assert woods[solar].mean() < woods.mean()


def test_roads_cross_rivers_on_raised_bridges(land):
    road = land.cover == BY_NAME["road"].id
    bridge = road & (land.height > 3)
    assert bridge.any()
    assert (binary_dilation(bridge, iterations=6) & (land.cover == BY_NAME["river"].id)).any()


def test_water_is_level_and_lower_than_what_surrounds_it(land):
    lake = land.ground[land.cover == BY_NAME["lake"].id]
    assert np.ptp(lake) == 0
    assert land.ground[land.cover == BY_NAME["forest"].id].min() > lake[0]


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [("apartment blocks", 12, 42), ("warehouses", 7, 16), ("houses", 5, 14), ("wind turbines", 60, 91)],
)
def test_each_kind_of_building_has_its_own_height(land, name, low, high):
    top = land.height[land.cover == BY_NAME[name].id].max()
    assert low <= top <= high


def test_vineyards_alternate_between_vines_and_soil(land):
    material = land.material[land.cover == BY_NAME["vineyard"].id]
    assert 0.3 < (material == INDEX["vine"]).mean() < 0.6


def test_objects_carry_ids_names_and_outlines_inside_the_region(land):
    table = land.objects
    assert list(table.columns) == ["object_id", "class_id", "class_name", "height_m", "geometry"]
    assert table.object_id.is_unique
    assert all(BY_ID[number].name == name for number, name in zip(table.class_id, table.class_name, strict=True))
    assert table.within(land.geobox.extent.geom.buffer(0.01)).all()
    assert table.is_valid.all()


def test_an_object_lies_where_the_class_raster_shows_it(land):
    for name in ("solar farm", "greenhouses", "harbour", "quarry", "apartment blocks", "wind turbines"):
        for outline in land.objects.geometry[land.objects.class_name == name]:
            middle = outline.representative_point()
            row, col = int(land.top - middle.y), int(middle.x - land.left)
            around = land.cover[max(0, row - 20) : row + 20, max(0, col - 20) : col + 20]
            assert (around == BY_NAME[name].id).mean() > 0.4


def test_a_route_goes_round_a_wall_through_its_gap():
    cost = np.ones((20, 30), np.float32)
    cost[:, 15] = 100
    cost[3, 15] = 1
    rows = route(cost, np.full(30, 12, np.float32), pull=0.01, climb=0.1)
    assert rows[15] == 3
    assert np.abs(np.diff(rows)).max() <= 1


def test_a_strip_holds_each_pixel_once_with_its_distance():
    band = strip(np.array([[5.0, 20.0], [25.0, 20.0], [35.0, 20.0]]), 4.0, 40)
    assert len(set(zip(band.rows.tolist(), band.cols.tolist(), strict=True))) == len(band.rows)
    inner = (band.cols >= 5) & (band.cols < 35)
    np.testing.assert_allclose(band.across[inner], np.abs(band.rows[inner] + 0.5 - 20), atol=1e-5)
    np.testing.assert_allclose(band.along[inner], band.cols[inner] + 0.5 - 5, atol=1e-5)


def test_upsampling_keeps_the_nodes_and_is_linear_between_them():
    grid = fractal(np.random.default_rng(0), nodes(41), 4)
    fine = upsample(grid, 41)
    assert fine.shape == (41, 41)
    np.testing.assert_allclose(fine[::4, ::4], grid[:11, :11], atol=1e-6)
    np.testing.assert_allclose(fine[2, 0], (grid[0, 0] + grid[1, 0]) / 2, atol=1e-6)
