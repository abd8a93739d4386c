from types import SimpleNamespace

import numpy as np
import pytest

from geograft.errors import BadSetting
from geograft.world.camera import Poses, Scenery, depths, look, render_photos
from geograft.world.classes import BY_NAME
from geograft.world.materials import INDEX

SIZE = 256
GRASS, FOREST, HOUSES, LAKE, TURBINES = (
    BY_NAME[n].id for n in ("grassland", "forest", "houses", "lake", "wind turbines")
)


def make_meadow():
    """Flat grass 100 m above the sea, to be built upon."""
    shape = (SIZE, SIZE)
    return SimpleNamespace(
        seed=0,
        size=SIZE,
        cover=np.full(shape, GRASS, np.uint8),
        material=np.full(shape, INDEX["lush grass"], np.uint8),
        height=np.zeros(shape, np.float32),
        ground=np.full(shape, 100, np.float32),
    )


def build(land, rows, columns, *, class_id, material, height):
    land.cover[rows, columns] = class_id
    land.material[rows, columns] = INDEX[material]
    land.height[rows, columns] = height
    return land


def see(land, *, among_trees=False, **pose):
    values = {"x": 128.0, "y": 128.0, "pitch_deg": 0.0, **pose}
    return look(Scenery.of(land), Poses.of(**values), size=64, among_trees=among_trees)


def test_flat_land_fills_the_picture_up_to_the_horizon():
    picture = see(make_meadow())
    assert not picture.sky[:31].any()
    assert picture.sky[33:].all()


def test_looking_down_shows_less_sky():
    shares = render_photos(make_meadow(), Poses.of(x=[128, 128], y=128, pitch_deg=[0, -15])).seen
    assert shares[0, 0] > shares[1, 0] + 0.1


def test_depth_of_flat_ground_is_the_height_of_the_eye_over_the_slope():
    picture = see(make_meadow(), eye_m=1.65)
    np.testing.assert_allclose(picture.depth[:28], 1.65 / -picture.slopes[:28], rtol=2e-3)


@pytest.mark.parametrize(
    ("heading", "rows", "columns"),
    [
        (0, slice(90, 100), slice(None)),
        (90, slice(None), slice(156, 166)),
        (180, slice(156, 166), slice(None)),
        (270, slice(None), slice(90, 100)),
    ],
)
def test_heading_is_clockwise_from_north(heading, rows, columns):
    land = build(make_meadow(), rows, columns, class_id=HOUSES, material="red tile roof", height=9)
    poses = Poses.of(x=128, y=128, heading_deg=[heading, heading + 180], pitch_deg=0)
    seen = render_photos(land, poses).seen
    assert seen[0, HOUSES] > 0.1
    assert seen[1, HOUSES] == 0


def test_a_thing_on_the_right_is_in_the_right_half():
    land = build(make_meadow(), slice(90, 110), slice(135, 150), class_id=HOUSES, material="slate roof", height=9)
    columns = np.flatnonzero((see(land, heading_deg=0).cover == HOUSES).any(axis=0))
    assert len(columns) > 3
    assert columns.min() >= 32


def test_a_wall_appears_as_high_as_perspective_says():
    land = build(make_meadow(), slice(100, 108), slice(None), class_id=HOUSES, material="slate roof", height=12)
    picture = see(land, heading_deg=0, fov_deg=60)
    top = np.flatnonzero(picture.cover[:, 32] == HOUSES).max() + 0.5
    expected = 32 + 64 * (12 - 1.65) / 21 / (2 * np.tan(np.radians(30)))
    assert abs(top - expected) < 4


def test_a_nearer_wall_hides_a_farther_one():
    land = build(make_meadow(), slice(60, 70), slice(None), class_id=FOREST, material="broadleaf", height=8)
    build(land, slice(100, 110), slice(None), class_id=HOUSES, material="slate roof", height=12)
    assert not (see(land, heading_deg=0).cover == FOREST).any()


def test_a_wall_is_a_side_and_a_meadow_a_top():
    land = build(make_meadow(), slice(100, 110), slice(None), class_id=HOUSES, material="slate roof", height=12)
    picture = see(land, heading_deg=0)
    assert picture.side[picture.cover == HOUSES].mean() > 0.9
    assert not picture.side[picture.cover == GRASS].any()


def test_inside_a_forest_one_sees_trunks_floor_and_crowns():
    land = build(make_meadow(), slice(None), slice(None), class_id=FOREST, material="broadleaf", height=15)
    picture = see(land, among_trees=True)
    assert picture.canopy.any()
    assert (picture.side & ~picture.canopy).any()
    assert (~picture.side & ~picture.canopy & ~picture.sky).any()
    assert picture.shares()[0, FOREST] > 0.95


def test_a_rotor_turns_over_its_tower():
    land = build(make_meadow(), slice(40, 43), slice(127, 130), class_id=TURBINES, material="turbine white", height=60)
    picture = see(land, heading_deg=0, pitch_deg=25, fov_deg=80)
    turbine = picture.cover == TURBINES
    beside_the_tower = np.flatnonzero(turbine.any(axis=0))
    assert beside_the_tower.max() - beside_the_tower.min() > 12
    assert turbine[:32].any(axis=0).sum() < 8


def test_shares_sum_to_one_and_count_the_sky():
    photos = render_photos(make_meadow(), Poses.of(x=np.linspace(20, 230, 40), y=128))
    np.testing.assert_allclose(photos.seen.sum(axis=1), 1, atol=1e-5)
    assert (photos.seen[:, 0] > 0.2).all()
    assert (photos.seen[:, GRASS] > 0.2).all()


def test_a_photo_does_not_depend_on_the_batch_it_is_rendered_in(monkeypatch):
    rng = np.random.default_rng(0)
    land = build(make_meadow(), slice(0, 100), slice(0, 100), class_id=FOREST, material="broadleaf", height=12)
    build(land, slice(120, 130), slice(None), class_id=BY_NAME["railway"].id, material="ballast", height=0)
    poses = Poses.of(x=rng.uniform(0, 256, 40), y=rng.uniform(0, 256, 40), heading_deg=rng.uniform(0, 360, 40))
    usual = render_photos(land, poses, seed=3)
    monkeypatch.setattr("geograft.world.camera._BATCH", 3)
    small = render_photos(land, poses, seed=3)
    assert np.array_equal(usual.rgb, small.rgb)
    assert np.array_equal(usual.seen, small.seen)


def test_other_seeds_give_other_skies_of_the_same_place():
    poses = Poses.of(x=128, y=128)
    first, second = (render_photos(make_meadow(), poses, seed=seed) for seed in (1, 2))
    assert not np.array_equal(first.rgb, second.rgb)
    assert np.array_equal(first.seen, second.seen)


@pytest.mark.parametrize("size", [64, 96, 128])
def test_pictures_have_the_size_asked_for(size):
    photos = render_photos(make_meadow(), Poses.of(x=[100, 120], y=128), size=size)
    assert photos.rgb.shape == (2, size, size, 3)
    assert photos.rgb.std() > 10


def test_grass_is_green_in_summer_and_the_sky_blue_at_noon():
    rgb = render_photos(make_meadow(), Poses.of(x=np.full(20, 128), y=128, hour=12.5, season=172)).rgb.astype(float)
    ground = rgb[:, 48:].mean((0, 1, 2))
    sky = rgb[:, :12].mean((0, 1, 2))
    assert ground[1] > max(ground[0], ground[2]) + 10
    assert sky[2] > sky[0]


def test_water_mirrors_the_sky():
    land = build(make_meadow(), slice(None), slice(None), class_id=LAKE, material="deep water", height=0)
    rgb = render_photos(land, Poses.of(x=np.full(10, 128), y=128, pitch_deg=0)).rgb.astype(float)
    far, near = rgb[:, 34:38].mean((0, 1, 2)), rgb[:, 56:].mean((0, 1, 2))
    assert far.mean() > near.mean() + 20


def test_haze_bleaches_what_is_far():
    land = build(make_meadow(), slice(0, 30), slice(None), class_id=FOREST, material="conifer dark", height=25)
    haze = np.repeat([0.1, 12.0], 12)
    rgb = render_photos(land, Poses.of(x=128, y=128, haze=haze, pitch_deg=0)).rgb.astype(float)
    clear, misty = rgb[:12, 26:30].mean(), rgb[12:, 26:30].mean()
    assert misty > clear + 20


def test_beyond_the_edge_the_land_goes_on():
    photos = render_photos(make_meadow(), Poses.of(x=[1, 254], y=[1, 254], heading_deg=[315, 135]))
    assert (photos.seen[:, GRASS] > 0.2).all()


def test_no_photos_give_empty_arrays():
    photos = render_photos(make_meadow(), Poses.of(x=[], y=[]))
    assert photos.rgb.shape == (0, 64, 64, 3)
    assert photos.seen.shape == (0, 256)


@pytest.mark.parametrize("wrong", [{"eye_m": 0}, {"fov_deg": 2}, {"fov_deg": 150}])
def test_impossible_poses_are_refused(wrong):
    with pytest.raises(BadSetting, match="eye above the ground"):
        render_photos(make_meadow(), Poses.of(x=1, y=1, **wrong))


def test_tiny_pictures_are_refused():
    with pytest.raises(BadSetting, match="64 px or more"):
        render_photos(make_meadow(), Poses.of(x=1, y=1), size=32)


def test_depths_grow_and_reach_far():
    steps = np.diff(depths())
    assert (np.diff(steps[1:]) > -1e-4).all()
    assert depths()[-1] > 600
    assert 70 < len(depths()) < 120
