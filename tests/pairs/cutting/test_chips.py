import numpy as np
import pytest
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from geograft.errors import UnreadableScene
from geograft.pairs.cutting.chips import Cut, PlannedChip, Stack, cut, cut_chips, reading_order, without_repeats
from geograft.raster import chip_geobox, open_scene, read

LEFT, TOP, EPSG = 500_000, 5_000_000, 32632


def chip(*stacks, left=LEFT, top=TOP, size=32, epsg=EPSG, gsd=1.0, name="c"):
    """A chip; stacks are (gap in days, names of scenes)."""
    return PlannedChip(name, epsg, left, top, gsd, size, tuple(Stack(gap, tuple(names)) for gap, names in stacks))


@pytest.fixture
def shelf(make_scene, tmp_path):
    """A factory of scenes by name, 64 m at the ground's corner; `cloud` is top, left, bottom, right of a cloud."""
    scenes = {}

    def make(name, *, cloud=None, corner=(LEFT, TOP), size=64, pixels=None, **more):
        place = Affine(1, 0, corner[0], 0, -1, corner[1])
        more = {"transform": place, "crs": f"EPSG:{EPSG}", "size": size, "pixels": pixels, "seed": len(scenes)} | more
        path = make_scene(f"{name}.tif", **more)
        if cloud is not None:
            mask = np.zeros((1, size, size), np.uint8)
            top, left, bottom, right = cloud
            mask[0, top:bottom, left:right] = 1
            make_scene(f"{name}_clouds.tif", pixels=mask, descriptions=None, transform=place, crs=more["crs"])
        scenes[name] = open_scene(path, sensor=more.get("sensor", "world-1m"))
        return scenes[name]

    make.scenes = scenes
    make.find = scenes.__getitem__
    return make


def same(found, scene, box):
    return (found.pixels == read(scene, box).pixels).all()


# --- which stack serves -----------------------------------------------------------------------------------


def test_the_nearest_day_goes_first(shelf):
    far, near = shelf("far"), shelf("near")
    some = chip((1.2, ["near"]), (-40.0, ["far"]))
    found = cut(some, shelf.find, 0.01)
    assert found.scenes == ("near",)
    assert same(found, near, some.geobox)
    assert not same(found, far, some.geobox)


def test_of_one_day_the_scene_with_the_least_cloud_in_the_footprint_wins(shelf):
    shelf("hazy", cloud=(0, 0, 8, 8))
    shelf("clear", cloud=(40, 40, 64, 64))
    shelf("later")
    some = chip((0.3, ["hazy"]), (-0.4, ["clear"]), (3.0, ["later"]))
    found = cut(some, shelf.find, 0.2)
    assert (found.scenes, found.cloud) == (("clear",), 0.0)


def test_of_equal_clouds_the_plan_s_order_stays(shelf):
    shelf("one")
    shelf("two")
    assert cut(chip((0.0, ["two"]), (0.0, ["one"])), shelf.find, 0.01).scenes == ("two",)


def test_a_cloudy_day_falls_back_to_the_next(shelf):
    shelf("cloudy", cloud=(0, 0, 32, 32))
    shelf("next", cloud=(0, 0, 1, 5))
    some = chip((0.0, ["cloudy"]), (9.0, ["next"]))
    found = cut(some, shelf.find, 0.01)
    assert found.scenes == ("next",)
    assert found.cloud == pytest.approx(5 / 32**2)
    assert cut(some, shelf.find, 0.0).reason == "cloudy"


def test_scenes_of_unknown_time_are_one_day(shelf):
    shelf("hazy", cloud=(0, 0, 2, 2))
    shelf("clear")
    assert cut(chip((None, ["hazy"]), (float("nan"), ["clear"])), shelf.find, 0.5).scenes == ("clear",)


def test_a_chip_that_hangs_over_the_edge_has_no_data(shelf):
    shelf("small")
    found = cut(chip((0.0, ["small"]), left=LEFT + 40), shelf.find, 0.01)
    assert (found.pixels, found.reason) == (None, "nodata")


def test_a_scene_that_cannot_be_read_is_passed_over(shelf):
    shelf("good")

    def find(name):
        if name == "bad":
            raise UnreadableScene("bad.tif is damaged: fetch it again.")
        return shelf.find(name)

    assert cut(chip((0.0, ["bad"]), (5.0, ["good"])), find, 0.01).scenes == ("good",)
    assert cut(chip((0.0, ["bad"])), find, 0.01).reason == "unreadable-scene"


# --- mosaics ----------------------------------------------------------------------------------------------


def halves(shelf, pixels, at=30, axis=2, **more):
    """One scene as a whole and as two files that touch."""
    whole = shelf("whole", pixels=pixels, **more)
    parts = np.split(pixels, [at], axis=axis)
    moved = Affine.translation(at, 0) if axis == 2 else Affine.translation(0, at)
    place = more.get("transform", Affine(1, 0, LEFT, 0, -1, TOP))
    shelf("first", **more | {"pixels": parts[0], "transform": place})
    shelf("second", **more | {"pixels": parts[1], "transform": place @ moved})
    return whole


@pytest.mark.parametrize("axis", [1, 2])
def test_a_chip_of_two_halves_is_that_of_the_whole_scene(shelf, axis):
    pixels = np.random.default_rng(3).integers(0, 255, (4, 64, 64))
    whole = halves(shelf, pixels, axis=axis)
    some = chip((0.0, ["second", "first"]), left=LEFT + 13, top=TOP - 13)
    found = cut(some, shelf.find, 0.01)
    assert found.scenes == ("second", "first")
    assert same(found, whole, some.geobox)


@pytest.mark.parametrize("axis", [1, 2])
def test_a_warped_chip_of_two_halves_has_no_seam(shelf, axis):
    pixels = np.random.default_rng(3).integers(0, 255, (4, 64, 64))
    whole = halves(shelf, pixels, axis=axis, nodata=0)
    some = chip((0.0, ["first", "second"]), left=LEFT + 13.4, top=TOP - 13.3)
    found = cut(some, shelf.find, 0.01)
    expected = read(whole, some.geobox)
    assert expected.valid.all()
    assert np.abs(found.pixels.astype(int) - expected.pixels).max() <= 1


@pytest.mark.parametrize(("sensor", "bands", "gsd"), [("world-1m", 4, 3.0), ("world-10m", 5, 1.7)])
def test_coarser_chips_of_two_halves_have_no_seam_either(shelf, sensor, bands, gsd):
    high = 250 if sensor == "world-1m" else 9000
    pixels = np.random.default_rng(3).integers(1, high, (bands, 64, 64))
    whole = halves(shelf, pixels, sensor=sensor, nodata=0)
    some = chip((0.0, ["first", "second"]), left=LEFT + 8.2, top=TOP - 8.1, size=14, gsd=gsd)
    found = cut(some, shelf.find, 0.01)
    assert np.abs(found.pixels.astype(int) - read(whole, some.geobox).pixels).max() <= 1


def test_a_chip_between_two_zones_is_put_together_of_both(shelf):
    rows, columns = np.mgrid[:120, :120]
    field = np.stack([100 + 40 * np.sin(rows / 20) + 40 * np.sin(columns / 25)] * 4)
    edge = 166_021.0  # about where zone 33 begins, at the equator
    west = shelf("west", pixels=field, crs="EPSG:32633", transform=Affine(1, 0, edge, 0, -1, 1000.0))
    own = chip_geobox(32633, edge + 3, 1000.0 - 3, gsd=1.0, size=110)
    warped = read(west, chip_geobox(32632, *corner_in(own, 32632), gsd=1.0, size=100))
    shelf("other", pixels=warped.pixels, crs="EPSG:32632", transform=warped.geobox.affine)
    left = shelf("left", pixels=field[:, :, :70], crs="EPSG:32633", transform=Affine(1, 0, edge, 0, -1, 1000.0))
    some = chip((0.0, ["left", "other"]), epsg=32633, left=edge + 20.5, top=1000 - 20.5, size=64)
    found = cut(some, shelf.find, 0.01)
    assert found.scenes == ("left", "other")
    assert not read(left, some.geobox).valid.all()
    assert np.abs(found.pixels.astype(int) - read(west, some.geobox).pixels).max() <= 2


def corner_in(box, epsg):
    """The top left corner of a grid, moved inside, in another zone's metres."""
    inside = box.extent.to_crs(f"EPSG:{epsg}").boundingbox
    return np.ceil(inside.left) + 1, np.floor(inside.top) - 1


def test_pixels_at_a_scene_s_rim_give_way_to_another_scene_s_inner_ones(shelf):
    """Half a pixel beyond its rim a scene's warped pixels are made of half of their neighbours."""
    pixels = np.random.default_rng(5).integers(0, 255, (4, 64, 64))
    whole = shelf("whole", pixels=pixels)
    shelf("part", pixels=pixels[:, :, :40])
    turned = shelf("other", pixels=read(whole, chip_geobox(EPSG, LEFT + 0.5, TOP - 0.5, gsd=1, size=62)).pixels,
                   transform=Affine(1, 0, LEFT + 0.5, 0, -1, TOP - 0.5))  # fmt: skip
    some = chip((0.0, ["part", "other"]), left=LEFT + 14.25, top=TOP - 14.25)
    found = cut(some, shelf.find, 0.01).pixels
    ours, theirs = read(shelf.scenes["part"], some.geobox), read(turned, some.geobox)
    assert ours.valid[:, 25].all()
    assert (found[:, :, 25] == theirs.pixels[:, :, 25]).all()
    assert (found[:, 1:-1, 5] == ours.pixels[:, 1:-1, 5]).all()


def test_a_mosaic_with_a_hole_does_not_serve(shelf):
    shelf("left", size=20)
    shelf("right", size=20, corner=(LEFT + 22, TOP))
    assert cut(chip((0.0, ["left", "right"]), size=20, left=LEFT + 10), shelf.find, 0.01).reason == "nodata"


def test_a_mosaic_s_clouds_are_those_over_the_pixels_that_it_uses(shelf):
    shelf("below", cloud=(0, 0, 64, 20))
    shelf("above", size=16, corner=(LEFT, TOP))
    some = chip((0.0, ["above", "below"]), size=32)
    found = cut(some, shelf.find, 1.0)
    assert found.scenes == ("above", "below")
    assert found.cloud == pytest.approx((16 * 20 + 16 * 4) / 32**2)
    shelf("halves", size=32, cloud=(0, 0, 8, 32))
    shelf("east", size=32, corner=(LEFT + 32, TOP), cloud=(0, 0, 4, 32))
    found = cut(chip((0.0, ["halves", "east"]), left=LEFT + 16), shelf.find, 1.0)
    assert found.cloud == pytest.approx((8 * 16 + 4 * 16) / 32**2)


def test_a_scene_of_a_stack_that_gives_no_pixel_is_not_named(shelf):
    shelf("whole")
    shelf("behind")
    assert cut(chip((0.0, ["whole", "behind"])), shelf.find, 0.01).scenes == ("whole",)


# --- many chips -------------------------------------------------------------------------------------------


def test_chips_come_in_the_order_that_they_were_given(shelf):
    scene = shelf("scene", size=200)
    rng = np.random.default_rng(0)
    chips = [
        chip((0.0, ["scene"]), left=LEFT + x, top=TOP - y, name=f"c{x}-{y}") for x, y in rng.integers(0, 160, (40, 2))
    ]
    cuts = cut_chips(chips, shelf.find, 0.01)
    assert all(same(found, scene, some.geobox) for some, found in zip(chips, cuts, strict=True))


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 3000), st.sampled_from("ab")), max_size=40))
def test_the_reading_order_takes_every_chip_once_scene_by_scene_strip_by_strip(places):
    chips = [chip((0.0, [name]), left=x, top=-y) for x, y, name in places]
    order = reading_order(chips).tolist()
    assert sorted(order) == list(range(len(chips)))
    keys = [(places[row][2], -(-places[row][1] // 256)) for row in order]
    assert [key[0] for key in keys] == sorted(key[0] for key in keys)
    assert keys == sorted(keys)


def test_of_chips_with_the_same_pixels_the_first_stays(shelf):
    """Two time bins of one place that fall back to the same scene."""
    shelf("one")
    shelf("two")
    june = chip((0.0, ["one"]), name="b-june")
    july = chip((30.0, ["one"]), name="a-july")
    august = chip((0.0, ["two"]), name="c-august")
    beside = chip((0.0, ["one"]), left=LEFT + 1, name="d")
    cuts = cut_chips([june, july, august, beside], shelf.find, 0.01)
    assert [found.reason for found in cuts] == ["repeated-pixels", "", "", ""]
    assert cuts[0].pixels is None


def test_chips_that_were_not_cut_repeat_nothing():
    chips = [chip(name="a"), chip(name="b")]
    cuts = [Cut(reason="cloudy"), Cut(reason="cloudy")]
    assert without_repeats(chips, cuts) == cuts
