import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geograft.pairs.cover import Lookup, fair_draw, greedy_cover
from geograft.pairs.grid import Grid, Places, hash_ids, to_crs

GRID = Grid(16, 2.0)


def places_at(east, north, epsg=32632):
    lon, lat = to_crs(epsg).transform(np.asarray(east, float), np.asarray(north, float), direction="INVERSE")
    return Places(np.asarray(lon), np.asarray(lat))


def naive_cover(places, order, eligible, grid):
    """The greedy cover by two plain loops, one zone only."""
    east, north = places.metric
    x, y = grid.centred(east, north)
    found, covered = {}, set()
    for row in np.argsort(order, kind="stable").tolist():
        if row in covered or not eligible[row]:
            continue
        left, top = x[row] * grid.gsd, y[row] * grid.gsd
        inside = [
            other
            for other in range(len(east))
            if left <= east[other] < left + grid.extent and top - grid.extent < north[other] <= top
        ]
        found[int(x[row]), int(y[row])] = inside
        covered |= {row, *inside}
    return {name: members for (i, j), members in found.items() for name in grid.names(*np.array([[32632], [i], [j]]))}


def members_of(cover):
    return {name: sorted(rows["photo"]) for name, rows in cover.pairs.groupby("chip_id")}


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 200), st.floats(0, 200), st.booleans()), min_size=1, max_size=60),
    st.integers(0, 99),
)
def test_the_cover_equals_two_plain_loops(points, seed):
    right, down, eligible = (np.array(values) for values in zip(*points, strict=True))
    places = places_at(500_000 + right, 5_000_000 - down)
    order = np.random.default_rng(seed).permutation(len(points)).astype(np.uint64)
    cover = greedy_cover(places, order, eligible, GRID)
    assert members_of(cover) == naive_cover(places, order, eligible, GRID)
    assert sorted(cover.chips["chip_id"]) == sorted(members_of(cover))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 300), st.floats(0, 300)), min_size=1, max_size=60))
def test_every_photo_lies_inside_the_chips_that_hold_it(points):
    right, down = np.array(points).T
    cover = greedy_cover(
        places_at(500_000 + right, 5_000_000 - down),
        hash_ids([str(row) for row in range(len(points))], "o"),
        np.ones(len(points), bool),
        GRID,
    )
    assert set(cover.pairs["photo"]) == set(range(len(points)))
    assert cover.pairs[["col", "row"]].ge(0).all(axis=None)
    assert cover.pairs[["col", "row"]].lt(GRID.size).all(axis=None)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 300), st.floats(0, 300)), min_size=2, max_size=60))
def test_no_chip_s_centre_lies_deep_in_another_chip(points):
    right, down = np.array(points).T
    order = hash_ids([str(row) for row in range(len(points))], "o")
    cover = greedy_cover(places_at(500_000 + right, 5e6 - down), order, np.ones(len(points), bool), GRID)
    chips = cover.chips[["left", "top"]].to_numpy()
    apart = np.abs(chips[:, None] - chips[None]).max(axis=-1) + np.eye(len(chips)) * 1e9
    assert (apart >= GRID.extent / 2 - 2 * GRID.gsd).all()


def test_offsets_are_exact_in_the_metric_grid():
    places = places_at([500_100.0, 500_110.5], [4_999_900.0, 4_999_903.25])
    cover = greedy_cover(places, np.array([0, 1], np.uint64), np.array([True, False]), GRID)
    chip = cover.chips.iloc[0]
    assert (chip["left"], chip["top"]) == (500_084.0, 4_999_916.0)
    assert cover.pairs["col"].tolist() == pytest.approx([8.0, (110.5 - 84) / 2], abs=1e-3)
    assert cover.pairs["row"].tolist() == pytest.approx([8.0, (16 - 3.25) / 2], abs=1e-3)


def test_the_cover_does_not_depend_on_the_order_of_rows():
    rng = np.random.default_rng(3)
    east, north = rng.uniform(0, 400, (2, 200))
    ids = np.array([f"p{row}" for row in range(200)], dtype=object)
    seen = []
    for shuffle in (np.arange(200), rng.permutation(200)):
        places = places_at(500_000 + east[shuffle], 5e6 - north[shuffle])
        cover = greedy_cover(places, hash_ids(ids[shuffle], "o"), np.ones(200, bool), GRID)
        named = {chip: sorted(ids[shuffle][rows]) for chip, rows in members_of(cover).items()}
        seen.append(named)
    assert seen[0] == seen[1]
    assert len(seen[0]) > 50


def test_a_photo_without_a_scene_around_it_opens_no_chip_but_joins_one():
    places = places_at([500_000.0, 500_010.0], [5e6, 5e6])
    cover = greedy_cover(places, np.array([0, 1], np.uint64), np.array([False, True]), GRID)
    assert len(cover.chips) == 1
    assert sorted(cover.pairs["photo"]) == [0, 1]


def test_chips_near_a_zone_s_edge_take_photos_from_beyond_it():
    lat = 48.0
    places = Places(np.array([5.99995, 6.00005]), np.array([lat, lat]))
    assert places.epsg.tolist() == [32631, 32632]
    cover = greedy_cover(places, np.array([0, 1], np.uint64), np.array([True, True]), GRID)
    assert cover.chips["epsg"].tolist() == [32631]
    assert sorted(cover.pairs["photo"]) == [0, 1]


def test_chips_on_the_equator_take_photos_from_the_other_hemisphere():
    places = Places(np.array([9.0, 9.0]), np.array([0.00005, -0.00005]))
    cover = greedy_cover(places, np.array([0, 1], np.uint64), np.array([True, True]), GRID)
    assert cover.chips["epsg"].tolist() == [32632]
    assert sorted(cover.pairs["photo"]) == [0, 1]


def test_photos_in_no_eligible_place_give_an_empty_cover():
    cover = greedy_cover(places_at([5e5], [5e6]), np.zeros(1, np.uint64), np.array([False]), GRID)
    assert cover.chips.empty
    assert cover.pairs.empty


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(-40, 40), st.integers(-40, 40)), min_size=1, max_size=50),
    st.tuples(st.integers(-40, 40), st.integers(-40, 40)),
)
def test_lookup_finds_the_half_open_box_and_nothing_else(points, corner):
    east, north = (np.array(values) * 2.5 for values in zip(*points, strict=True))
    left, top = (value * 2.5 for value in corner)
    found = Lookup(east, north, 10.0).inside(left, top)
    right, bottom = left + 10, top - 10
    expected = (east >= left) & (east < right) & (north > bottom) & (north <= top)
    assert sorted(found.tolist()) == np.flatnonzero(expected).tolist()


def test_at_most_the_limit_of_photos_a_chip_is_drawn():
    pairs = pd.DataFrame({"chip_id": ["a"] * 30 + ["b"] * 3, "photo": [*range(30), 5, 6, 7]})
    ids = np.array([f"p{row}" for row in range(30)], dtype=object)
    drawn = fair_draw(pairs, ids, 10, seed=0)
    assert drawn["chip_id"].value_counts().to_dict() == {"a": 10, "b": 3}


def test_the_draw_is_fair_not_the_first_ones():
    ids = np.array([f"p{row}" for row in range(40)], dtype=object)
    pairs = pd.DataFrame(
        {"chip_id": np.repeat([f"c{chip}" for chip in range(2000)], 40), "photo": np.tile(range(40), 2000)}
    )
    times = fair_draw(pairs, ids, 10, seed=0)["photo"].value_counts()
    assert len(times) == 40
    assert times.between(400, 600).all()


def test_another_seed_draws_others_and_the_order_of_rows_draws_the_same():
    ids = np.array([f"p{row}" for row in range(40)], dtype=object)
    pairs = pd.DataFrame({"chip_id": ["a"] * 40, "photo": range(40)})
    drawn = set(fair_draw(pairs, ids, 10, seed=0)["photo"])
    assert drawn == set(fair_draw(pairs.iloc[::-1], ids, 10, seed=0)["photo"])
    assert drawn != set(fair_draw(pairs, ids, 10, seed=1)["photo"])
