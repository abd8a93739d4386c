import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geograft.hashing import hash_ids
from geograft.pairs.grid import Grid
from geograft.pairs.planning.cover import Cover, Metric, cover_zone, fair_draw

EAST, NORTH = 500_000.0, 5_000_000.0
GRIDS = [Grid(16, 2.0), Grid(5, 0.3), Grid(64, 1.0), Grid(33, 4.77731), Grid(2, 0.7), Grid(1, 0.3)]


def cover_of(right, down, *, grid=GRIDS[0], opens=None, covered=None, max_overlap=1.0):
    """The cover of photos at offsets in metres, in that order; all may open a chip and none is covered by default."""
    where = Metric(EAST + np.asarray(right, float), NORTH - np.asarray(down, float))
    count = len(where.east)
    opens = np.ones(count, bool) if opens is None else np.asarray(opens)
    covered = np.zeros(count, bool) if covered is None else covered
    return where, covered, cover_zone(where, opens, covered, grid, max_overlap=max_overlap)


def members_of(cover):
    """Each chip's centre with its photos, in the order of the visit."""
    return [(centre, cover.photo[cover.chip == chip].tolist()) for chip, centre in enumerate(cover.centre.tolist())]


def naive_cover(where, opens, covered, grid, max_overlap):
    """The greedy cover by plain loops over Python's floats."""
    covered, found, kept = list(covered), [], []
    size, gsd = grid.size, grid.gsd
    points = [(east / gsd, north / gsd) for east, north in zip(where.east.tolist(), where.north.tolist(), strict=True)]
    for visited, (column, row) in enumerate(points):
        if covered[visited] or not opens[visited]:
            continue
        x, y = math.floor(column - size / 2 + 0.5), math.ceil(row + size / 2 - 0.5)
        if any(shared(x - i, y - j, size) > max_overlap for i, j in kept):
            continue
        inside = [one for one, (i, j) in enumerate(points) if x <= i < x + size and y - size < j <= y]
        kept.append((x, y))
        found.append((visited, inside))
        for one in inside:
            covered[one] = True
    return found


def shared(right, down, size):
    """The share of its ground that a chip of `size` pixels has in common with one so many pixels off."""
    return max(size - abs(right), 0) * max(size - abs(down), 0) / size**2


@st.composite
def clusters(draw):
    """Offsets of photos in clumps and alone, many on whole metres, with a grid to cover them."""
    grid = draw(st.sampled_from(GRIDS))
    spread = 5 * grid.extent
    seed, count = draw(st.integers(0, 10_000)), draw(st.integers(1, 70))
    rng = np.random.default_rng(seed)
    clumps = rng.uniform(0, spread, (4, 2))
    points = clumps[rng.integers(0, 4, count)] + rng.normal(0, grid.extent / 2, (count, 2))
    points[rng.random(count) < 0.3] = rng.uniform(0, spread, 2)
    snapped = rng.random(count) < 0.4
    points[snapped] = np.round((points[snapped] + EAST) / grid.gsd) * grid.gsd - EAST
    return grid, points[:, 0], points[:, 1], rng.random(count) < 0.8, rng.random(count) < 0.1


@settings(max_examples=150, deadline=None)
@given(clusters(), st.sampled_from([1.0, 0.5, 0.3, 0.1, 0.0]))
def test_the_cover_equals_plain_loops(photos, max_overlap):
    grid, right, down, opens, before = photos
    where, covered, cover = cover_of(
        right, down, grid=grid, opens=opens, covered=before.copy(), max_overlap=max_overlap
    )
    assert members_of(cover) == naive_cover(where, opens, before, grid, max_overlap)
    assert (np.diff(cover.chip) >= 0).all()
    inside = np.zeros(len(right), bool)
    inside[cover.photo] = True
    assert covered.tolist() == (before | inside).tolist()


@settings(max_examples=100, deadline=None)
@given(clusters(), st.sampled_from([0.4, 0.2, 0.05, 0.0]))
def test_no_two_chips_share_more_than_allowed_and_each_photo_left_out_would_have_broken_that(photos, limit):
    grid, right, down, _, _ = photos
    where, covered, cover = cover_of(right, down, grid=grid, max_overlap=limit)
    corners = list(zip(*(values.tolist() for values in grid.centred(where.east, where.north)), strict=True))
    chips = [corners[centre] for centre in cover.centre]
    assert all(shared(a[0] - b[0], a[1] - b[1], grid.size) <= limit for a, b in itertools.combinations(chips, 2))
    for photo in np.flatnonzero(~covered):
        x, y = corners[photo]
        assert any(shared(x - a, y - b, grid.size) > limit for a, b in chips)


@settings(max_examples=60, deadline=None)
@given(clusters())
def test_every_photo_is_covered_and_two_chips_share_at_most_half_their_ground(photos):
    grid, right, down, _, _ = photos
    where, covered, cover = cover_of(right, down, grid=grid)
    assert covered.all()
    assert set(cover.photo.tolist()) == set(range(len(right)))
    x, y = (values[cover.centre] for values in grid.centred(where.east, where.north))
    pairs = itertools.combinations(range(len(x)), 2)
    assert all(shared(x[a] - x[b], y[a] - y[b], grid.size) <= 0.5 for a, b in pairs)


def test_many_chips_and_photos_outgrow_the_first_arrays():
    across = np.arange(1500) * 40.0
    _, _, cover = cover_of(np.tile(across, 4), np.zeros(6000), opens=np.arange(6000) < 1500)
    assert len(cover.centre) == 1500
    assert len(cover.photo) == 6000
    assert np.bincount(cover.chip).tolist() == [4] * 1500
    assert cover.centre.tolist() == list(range(1500))


def test_a_photo_on_an_edge_belongs_to_one_side_only():
    right = [0, -16, 16, 0, 0, 15.999, -16]
    down = [0, 0, 0, -16, 16, 15.999, -16]
    opens = [True, *[False] * 6]
    _, _, cover = cover_of(right, down, opens=opens)
    assert members_of(cover) == [(0, [0, 1, 3, 5, 6])], "west and north edges are in, east and south are out"


def test_chips_side_by_side_hold_a_photo_of_their_common_edge_once():
    _, _, cover = cover_of([0, 32, 16, 0, 0], [0, 0, 0, 32, 16], opens=[True, True, False, True, False])
    assert members_of(cover) == [(0, [0]), (1, [1, 2]), (3, [3, 4])]


def test_a_photo_that_may_open_no_chip_joins_one():
    _, covered, cover = cover_of([0, 10], [0, 0], opens=[False, True])
    assert members_of(cover) == [(1, [0, 1])]
    assert covered.all()


def test_a_photo_covered_elsewhere_opens_no_chip_but_joins_one():
    covered = np.array([True, False, True])
    _, covered, cover = cover_of([0, 10, 100], [0, 0, 0], covered=covered)
    assert members_of(cover) == [(1, [0, 1])]
    assert covered.tolist() == [True, True, True]


def test_photos_that_may_open_nothing_stay_uncovered():
    _, covered, cover = cover_of([0.0, 5.0], [0.0, 0.0], opens=[False, False])
    assert members_of(cover) == []
    assert not covered.any()


def test_photos_south_of_northing_0_and_west_of_easting_0_are_covered():
    where = Metric(np.array([-1.0, -40.0, 0.0, 5.0]), np.array([-1.0, -40.0, 0.0, 5.0]))
    cover = cover_zone(where, np.ones(4, bool), np.zeros(4, bool), GRIDS[0])
    assert members_of(cover) == [(0, [0, 2, 3]), (1, [1])]


# --- the draw ---------------------------------------------------------------------------------------------


def lots_of(count, seed=0):
    return hash_ids([f"p{row}" for row in range(count)], f"draw {seed}")


def test_at_most_the_limit_of_photos_a_chip_is_drawn():
    cover = Cover(
        np.arange(3), np.repeat([0, 1, 2], [30, 3, 10]), np.concatenate([np.arange(30), [5, 6, 7], range(10)])
    )
    drawn = fair_draw(cover, lots_of(30), lots_of(3, 1), 10)
    assert np.bincount(drawn.chip).tolist() == [10, 3, 10]
    assert drawn.photo[drawn.chip == 1].tolist() == [5, 6, 7]
    assert (np.diff(drawn.photo[drawn.chip == 0]) > 0).all()
    assert drawn.centre is cover.centre


def test_the_draw_is_fair_not_the_first_ones_and_not_the_same_in_every_chip():
    cover = Cover(np.arange(2000), np.repeat(np.arange(2000), 40), np.tile(np.arange(40), 2000))
    drawn = fair_draw(cover, lots_of(40), lots_of(2000, 1), 10)
    times = np.bincount(drawn.photo)
    assert len(times) == 40
    assert times.min() > 400
    assert times.max() < 600
    together = np.isin(drawn.photo, [0, 1])
    both = np.bincount(drawn.chip[together]) == 2
    assert both.sum() == pytest.approx(2000 * 10 / 40 * 9 / 39, rel=0.3)


def test_the_draw_hangs_on_the_lots_not_on_the_order_of_photos():
    lots, chip_lots, order = lots_of(40), lots_of(1, 1), np.random.default_rng(0).permutation(40)
    cover = Cover(np.arange(1), np.zeros(40, int), np.arange(40))
    drawn = fair_draw(cover, lots, chip_lots, 10).photo
    again = fair_draw(cover, lots[order], chip_lots, 10).photo
    assert set(order[again].tolist()) == set(drawn.tolist())
    assert set(fair_draw(cover, lots_of(40, 5), chip_lots, 10).photo.tolist()) != set(drawn.tolist())


def test_a_cover_within_the_limit_is_drawn_whole():
    empty = Cover(np.empty(0, int), np.empty(0, int), np.empty(0, int))
    assert len(fair_draw(empty, lots_of(1), lots_of(1), 3).photo) == 0
    cover = Cover(np.arange(1), np.zeros(3, int), np.array([4, 6, 8]))
    assert fair_draw(cover, lots_of(9), lots_of(1), 3).photo.tolist() == [4, 6, 8]
