"""Shares of patches equal those of photos drawn by the model of the docstring, and turn with their chip."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from geograft.errors import BadSetting
from geograft.training.augment import turn_headings, turn_positions
from geograft.training.places import QUANTILES, PlaceSettings, place_shares

SIZE, GRID = 64, 8


def shares_of(position, error, heading=math.nan, *, gsd=1.0, **settings):
    """The shares of one photo's patches, (8, 8)."""
    given = torch.tensor([position]).double(), torch.tensor([error]).double(), torch.tensor([heading]).double()
    return place_shares(*given, size=SIZE, grid=GRID, gsd=gsd, settings=PlaceSettings(**settings)).view(GRID, GRID)


def drawn(position, error, heading, settings, gsd=1.0, count=400_000):
    """Shares counted over draws of the same five distances."""
    draw = torch.Generator().manual_seed(0)
    shares = torch.tensor(QUANTILES).double()
    distance = -settings.reach_m * torch.log1p(-shares)
    distance = distance[torch.randint(len(shares), (count,), generator=draw)]
    noise = torch.randn(count, 2, generator=draw, dtype=torch.float64)
    angle = math.radians(heading)
    ahead = torch.tensor([-math.cos(angle), math.sin(angle)]).double()
    sigma = torch.sqrt(error**2 + (settings.spread * distance) ** 2)
    place = torch.tensor(position).double() * gsd + distance[:, None] * ahead + noise * sigma[:, None]
    patch = (place / (gsd * SIZE / GRID)).floor()
    inside = ((patch >= 0) & (patch < GRID)).all(dim=1)
    index = (patch[inside, 0] * GRID + patch[inside, 1]).long()
    found = torch.bincount(index, minlength=GRID * GRID).double() / int(inside.sum())
    return ((1 - settings.doubt) * found + settings.doubt / GRID**2).view(GRID, GRID)


@pytest.mark.parametrize("heading", [0.0, 75.0, 200.0])
def test_shares_are_those_of_places_drawn_by_the_same_rule(heading):
    settings = PlaceSettings(reach_m=9.0)
    found = shares_of([20.0, 37.0], 6.0, heading, reach_m=9.0)
    assert found == pytest.approx(drawn([20.0, 37.0], 6.0, heading, settings), abs=3e-3)


def test_a_place_that_is_known_exactly_lies_in_one_patch():
    found = shares_of([17.0, 41.0], 1e-3, reach_m=0.0, doubt=1e-9)
    assert found[2, 5] == pytest.approx(1)
    assert found.sum() == pytest.approx(1)


def test_errors_far_below_a_patch_are_the_published_rule():
    found = shares_of([20.0, 20.0], 8.0, 90.0, gsd=10.0, doubt=1e-9)
    assert found[2, 2] > 0.97


def test_content_lies_ahead_of_the_camera():
    found = shares_of([32.0, 32.0], 2.0, 0.0, reach_m=12.0)
    assert found[:4].sum() > 0.8
    east = shares_of([32.0, 32.0], 2.0, 90.0, reach_m=12.0)
    assert east == pytest.approx(found.rot90(-1), abs=1e-9)


def test_without_a_heading_the_content_may_lie_on_any_side():
    found = shares_of([32.0, 32.0], 2.0, reach_m=12.0)
    assert found == pytest.approx(found.flip(0), abs=1e-9)
    assert found == pytest.approx(found.T, abs=1e-9)
    assert found.max() < shares_of([32.0, 32.0], 2.0, reach_m=0.0).max()


def test_a_photo_far_outside_its_chip_tells_nothing_of_where():
    assert shares_of([900.0, 900.0], 2.0) == pytest.approx(torch.full((GRID, GRID), 1 / GRID**2).double(), abs=1e-9)


def test_errors_are_stated_or_usual_and_never_too_good_to_be_true():
    stated = torch.tensor([3.0, 20.0, math.nan])
    found = PlaceSettings().error(stated, usual=15.0) / PlaceSettings().error(torch.tensor([1.0]), 1.0)
    assert found.tolist() == pytest.approx([1.0, 20 / 4.5, 15 / 4.5])
    own = PlaceSettings(unknown_error_m=45.0).error(stated, usual=15.0)
    assert own[2] / own[0] == pytest.approx(10)


def test_the_stated_radius_holds_two_thirds_of_the_photos():
    error = PlaceSettings().error(torch.tensor([30.0]).double(), usual=1.0)
    noise = torch.randn(200_000, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * error
    assert float((noise.norm(dim=1) < 30).double().mean()) == pytest.approx(0.68, abs=5e-3)


@given(st.tuples(st.floats(0, 64), st.floats(0, 64)), st.floats(0, 359), st.integers(0, 7))
def test_shares_turn_with_their_chip(position, heading, way):
    ways = torch.tensor([way])
    place, look = torch.tensor([position]).double(), torch.tensor([heading]).double()
    turned = shares_of(
        turn_positions(place, ways, SIZE)[0].tolist(), 3.0, float(turn_headings(look, ways)[0]), reach_m=8.0
    )
    plain = shares_of(position, 3.0, heading, reach_m=8.0)
    moved = plain.T if way & 1 else plain
    moved = moved.flip(0) if way & 2 else moved
    moved = moved.flip(1) if way & 4 else moved
    assert turned == pytest.approx(moved, abs=1e-6)


@pytest.mark.parametrize(
    "wrong",
    [{"reach_m": -1}, {"least_error_m": 0}, {"spread": -0.1}, {"doubt": 0}, {"doubt": 1}, {"unknown_error_m": 0}],
)
def test_beliefs_that_are_no_distribution_are_refused(wrong):
    with pytest.raises(BadSetting, match=next(iter(wrong))):
        PlaceSettings(**wrong)
