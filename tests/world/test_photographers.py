import numpy as np
import pytest

from geograft.errors import BadSetting
from geograft.world.camera import Scenery, render_photos
from geograft.world.photographers import choose_poses
from geograft.world.terrain import make_land


@pytest.fixture(scope="module")
def scenery():
    return Scenery.of(make_land(7, 640))


@pytest.fixture(scope="module")
def shots(scenery):
    return choose_poses(scenery, 500, seed=1)


def test_as_many_photos_as_asked_in_order_of_time(shots):
    assert len(shots) == 500
    assert (np.diff(shots.taken.astype(np.int64)) >= 0).all()


def test_photos_lie_on_the_land(shots, scenery):
    for place in (shots.poses.x, shots.poses.y):
        assert place.min() >= 0
        assert place.max() < scenery.size


def test_every_larger_class_is_photographed(shots, scenery):
    areas = np.bincount(scenery.cover, minlength=256)
    large = np.flatnonzero(areas > 400)
    assert len(large) > 8
    assert set(large) <= set(shots.subject.tolist())


def test_nobody_stands_inside_a_building(shots, scenery):
    cells = scenery.cells(shots.poses.x, shots.poses.y)
    trees_or_deck = np.isin(scenery.cover[cells], [4, 20])
    inside = (scenery.height[cells] > 2.5) & ~trees_or_deck
    assert inside.mean() < 0.02


def test_photos_mostly_show_the_place_where_they_were_taken(shots, scenery):
    seen = render_photos(scenery, shots.poses).seen
    seen[:, 0] = 0
    underfoot = scenery.cover[scenery.cells(shots.poses.x, shots.poses.y)]
    agreement = (seen.argmax(axis=1) == underfoot).mean()
    assert 0.7 < agreement < 0.97
    assert (seen.argmax(axis=1) == shots.subject).mean() > 0.8


def test_some_users_walk_and_photograph_along_the_way(shots):
    walks = np.unique(shots.walk[shots.walk >= 0])
    assert len(walks) >= 3
    for walk in walks[:3]:
        own = shots.walk == walk
        assert len(set(shots.user[own])) == 1
        steps = np.hypot(np.diff(shots.poses.x[own]), np.diff(shots.poses.y[own]))
        assert np.median(steps) < 150


def test_few_users_take_most_photos(shots):
    counts = np.sort(np.unique(shots.user[shots.walk < 0], return_counts=True)[1])[::-1]
    assert counts[: max(1, len(counts) // 10)].sum() > 0.3 * counts.sum()


def test_more_photos_are_taken_in_summer_and_by_day(shots):
    months = shots.taken.astype("datetime64[M]").astype(int) % 12 + 1
    assert np.isin(months, [6, 7, 8]).sum() > 2 * np.isin(months, [12, 1, 2]).sum()
    assert shots.poses.hour.min() >= 6
    assert shots.poses.hour.max() <= 24


def test_the_seed_decides(scenery, shots):
    same, other = choose_poses(scenery, 500, seed=1), choose_poses(scenery, 500, seed=2)
    assert np.array_equal(same.poses.x, shots.poses.x)
    assert not np.array_equal(other.poses.x, shots.poses.x)


@pytest.mark.parametrize("count", [0, 1, 7])
def test_few_photos_can_be_asked_for(scenery, count):
    assert len(choose_poses(scenery, count, seed=0)) == count


def test_a_negative_count_is_refused(scenery):
    with pytest.raises(BadSetting):
        choose_poses(scenery, -1, seed=0)
