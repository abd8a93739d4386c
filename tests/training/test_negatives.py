import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from geograft.errors import BadSetting
from geograft.training import negatives
from geograft.training.negatives import (
    Alike,
    Near,
    NegativeSettings,
    Owned,
    SameGroup,
    Transposed,
    hide_any,
    on_sphere,
    own_photos,
    spare,
)

EARTH_M = 6_371_008.8


def make_places(lon, lat):
    return on_sphere(torch.tensor(lon, dtype=torch.float64), torch.tensor(lat, dtype=torch.float64))


def make_photos(count, dim=4, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(count, dim, generator=draw), dim=1)


def a_metre_around(lon, lat, metres, bearing):
    """The place so many metres from another one, by great circle."""
    lat, lon, turn, angle = math.radians(lat), math.radians(lon), math.radians(bearing), metres / EARTH_M
    to = math.asin(math.sin(lat) * math.cos(angle) + math.cos(lat) * math.sin(angle) * math.cos(turn))
    east = math.sin(turn) * math.sin(angle) * math.cos(lat)
    return math.degrees(lon + math.atan2(east, math.cos(angle) - math.sin(lat) * math.sin(to))), math.degrees(to)


@given(
    place=st.tuples(st.floats(-180, 180), st.floats(-90, 90)),
    bearing=st.floats(0, 360),
    metres=st.sampled_from([10.0, 500.0, 50_000.0, 1e7]),
)
def test_near_tells_metres_apart_everywhere_on_earth(place, bearing, metres):
    inside, outside = (a_metre_around(*place, metres + off, bearing) for off in (-0.01, 0.01))
    columns = make_places([inside[0], outside[0]], [inside[1], outside[1]])
    near = Near(make_places([place[0]], [place[1]]), columns, metres)
    assert near.mask(0, 1).tolist() == [[True, False]]


def test_near_holds_across_the_antimeridian_and_at_the_antipode():
    here, there = make_places([179.99999, 0.0], [0.0, 0.0]), make_places([-179.99999, 180.0], [0.0, 0.0])
    assert Near(here, there, 10.0).mask(0, 2).tolist() == [[True, True], [False, False]]
    assert bool(Near(here, there, 3e7).mask(0, 2).all())


def test_a_place_that_is_unknown_hides_nothing():
    known, unknown = make_places([1.0], [2.0]), torch.full((1, 3), torch.nan)
    assert Near(known, torch.cat([known, unknown]), 1e6).mask(0, 1).tolist() == [[True, False]]
    assert Near(unknown, known, 1e6).mask(0, 1).tolist() == [[False]]


def test_alike_hides_what_looks_like_any_own_photo():
    photos = make_photos(12, dim=2)
    own = own_photos(torch.tensor([0, 1, 0, 2, 1, 1, 2, 0, 2, 0, 1, 2]))
    found = Alike(photos, own, 0.9).mask(0, 3)
    for row in range(3):
        mine = own.photo[own.row == row]
        for photo in range(12):
            assert bool(found[row, photo]) == (max(float(photos[j] @ photos[photo]) for j in mine) > 0.9)


def test_a_copy_of_a_photo_in_another_chip_is_alike():
    photos = make_photos(3)[[0, 1, 0, 2]]
    hidden = NegativeSettings(max_similarity=0.999).for_chips(photos, torch.tensor([0, 0, 1, 1]))
    assert hidden.mask(0, 1)[0].tolist() == [True, True, True, False]


@given(
    counts=st.lists(st.integers(1, 4), min_size=1, max_size=6),
    cut=st.tuples(st.integers(0, 6), st.integers(0, 6), st.integers(0, 24), st.integers(0, 24)),
    seed=st.integers(0, 100),
)
def test_a_tile_of_a_mask_is_the_tile_of_the_whole_mask(counts, cut, seed):
    draw = torch.Generator().manual_seed(seed)
    owner = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    owner = owner[torch.randperm(len(owner), generator=draw)]
    rows, columns = len(counts), len(owner)
    start, stop, first, last = (*sorted(min(c, rows) for c in cut[:2]), *sorted(min(c, columns) for c in cut[2:]))
    places, photos, own = make_photos(rows, 3, seed).double(), make_photos(columns, 3, seed), own_photos(owner)
    masks = [
        SameGroup(torch.arange(rows), owner),
        Near(places, places[owner], 5e6),
        Alike(photos, own, 0.5),
    ]
    masks.append(hide_any(*masks[1:], None))
    masks.append(spare(masks[-1], own, columns))
    masks.append(Transposed(masks[-1], rows))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(negatives, "_SCRATCH", 7)
        for mask in masks[:-1]:
            whole = mask.mask(0, rows)
            assert torch.equal(mask.mask(start, stop, slice(first, last)), whole[start:stop, first:last])
        assert torch.equal(masks[-1].mask(first, last, slice(start, stop)), whole[start:stop, first:last].T)
        assert torch.equal(masks[-1].mask(0, columns), whole.T)
        assert not bool(whole[owner, torch.arange(columns)].any())


def test_the_union_of_masks_hides_what_any_hides_and_none_hides_nothing():
    one = SameGroup(torch.tensor([0, 1]), torch.tensor([0, 2, 1]))
    other = SameGroup(torch.tensor([7, 8]), torch.tensor([8, 7, 9]))
    assert hide_any(one, None, other).mask(0, 2).tolist() == [[True, True, False], [True, False, True]]
    assert hide_any(None, one) is one
    assert hide_any(None) is None
    assert spare(None, Owned(torch.tensor([0]), torch.tensor([0])), 3) is None


def test_masks_that_hide_nothing_for_some_rows_compose():
    class Nothing:
        def mask(self, *_):
            return None

    some = SameGroup(torch.tensor([0, 1]), torch.tensor([0, 1]))
    assert hide_any(Nothing(), some).mask(0, 1).tolist() == [[True, False]]
    assert hide_any(Nothing(), Nothing()).mask(0, 1) is None
    assert spare(Nothing(), own_photos(torch.tensor([0, 1])), 2).mask(0, 1) is None
    assert Transposed(Nothing(), 2).mask(0, 1) is None


def test_sparing_leaves_a_stored_mask_as_it_was():
    class Stored:
        matrix = torch.ones(2, 2, dtype=torch.bool)

        def mask(self, start, stop, columns=slice(None)):
            return self.matrix[start:stop, columns]

    found = spare(Stored(), own_photos(torch.tensor([0, 1])), 2).mask(0, 2)
    assert found.tolist() == [[False, True], [True, False]]
    assert bool(Stored.matrix.all())


@given(
    owner=st.lists(st.integers(0, 5), min_size=0, max_size=20),
    mine=st.lists(st.integers(0, 5), unique=True, max_size=6),
)
def test_own_photos_are_found_for_any_part_of_the_chips(owner, mine):
    found = own_photos(torch.tensor(owner, dtype=torch.long), torch.tensor(mine, dtype=torch.long))
    expected = [(row, photo) for row, chip in enumerate(mine) for photo, one in enumerate(owner) if one == chip]
    assert list(zip(found.row.tolist(), found.photo.tolist(), strict=True)) == expected
    assert own_photos(torch.tensor(owner, dtype=torch.long)).row.tolist() == sorted(owner)


def test_settings_build_the_masks_of_a_share_of_chips():
    photos, owner = make_photos(5), torch.tensor([0, 0, 1, 2, 2])
    places = make_places([0.0, 0.0, 1.0], [0.0, 0.001, 0.0])
    settings = NegativeSettings(min_distance_m=200)
    whole = settings.for_chips(photos, owner, chip_places=places).mask(0, 3)
    assert whole[0].tolist() == [True, True, True, False, False]
    part = settings.for_chips(photos, owner, mine=torch.tensor([2, 0]), chip_places=places)
    assert torch.equal(part.mask(0, 2), whole[[2, 0]])
    far = settings.for_chips(photos, owner, chip_places=places, photo_places=make_places([9.0] * 5, [0.0] * 5))
    assert not bool(far.mask(0, 3).any())


def test_settings_build_the_masks_of_photos_patches():
    photos, places = make_photos(4), make_places([0.0, 0.0, 0.0, 1.0], [0.0, 0.00005, 1.0, 0.0])
    settings = NegativeSettings(min_distance_m=10, max_similarity=0.5)
    mask = settings.for_photos(photos, mine=torch.tensor([1, 3]), photo_places=places).mask(0, 2)
    near = torch.tensor([[True, True, False, False], [False, False, False, True]])
    assert torch.equal(mask, near | (photos[[1, 3]] @ photos.T > 0.5))
    assert torch.equal(settings.for_photos(photos, photo_places=places).mask(1, 2), mask[:1])


def test_the_defaults_hide_nothing_and_bad_settings_are_named():
    photos, owner = make_photos(2), torch.tensor([0, 1])
    assert NegativeSettings().for_chips(photos, owner) is None
    assert NegativeSettings().for_photos(photos) is None
    with pytest.raises(BadSetting, match="needs the places"):
        NegativeSettings(min_distance_m=5).for_chips(photos, owner)
    with pytest.raises(BadSetting, match="needs the places"):
        NegativeSettings(min_distance_m=5).for_photos(photos)
    with pytest.raises(BadSetting, match="min_distance_m is -1"):
        NegativeSettings(min_distance_m=-1)
    with pytest.raises(BadSetting, match=r"max_similarity is 1\.5"):
        NegativeSettings(max_similarity=1.5)
