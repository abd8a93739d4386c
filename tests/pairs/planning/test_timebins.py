import collections

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from geograft.pairs.planning.cover import Cover
from geograft.pairs.planning.timebins import Binned, divide, merge
from geograft.pairs.times import DAY, NEVER


def cover_of(members):
    """A cover whose chips are centred on their first photo: lists of photos by chip."""
    chip = np.repeat(np.arange(len(members)), [len(photos) for photos in members]).astype(np.int64)
    photo = np.array([photo for photos in members for photo in sorted(photos)], np.int64)
    return Cover(np.array([photos[0] for photos in members], np.int64), chip, photo)


def times_of(*days):
    """Noon of days since 1970, `NEVER` where None."""
    return np.array([NEVER if day is None else int(day * DAY + DAY // 2) for day in days], np.int64)


def listed(binned):
    """(centre, bin, photos) of each chip."""
    cover = binned.cover
    photos = [cover.photo[cover.chip == chip].tolist() for chip in range(len(cover.centre))]
    return list(zip(cover.centre.tolist(), binned.bin.tolist(), photos, strict=True))


def test_the_photos_of_a_place_are_divided_by_time_and_bins_are_in_order():
    binned = divide(cover_of([[0, 1, 2, 3], [4, 2]]), times_of(65, 5, 61, -1, 31), 30)
    assert listed(binned) == [(0, -1, [3]), (0, 0, [1]), (0, 2, [0, 2]), (4, 1, [4]), (4, 2, [2])]


def test_photos_without_a_time_join_the_fullest_bin_the_earliest_of_equals():
    binned = divide(cover_of([[0, 1, 2, 3], [4, 5, 6]]), times_of(1, 32, 33, None, 32, None, 1), 30)
    assert listed(binned) == [(0, 0, [0]), (0, 1, [1, 2, 3]), (4, 0, [5, 6]), (4, 1, [4])]


def test_a_place_without_any_time_is_one_chip_of_no_bin():
    assert listed(divide(cover_of([[0, 1], [2]]), times_of(None, None, 7), 7)) == [(0, NEVER, [0, 1]), (2, 1, [2])]
    assert listed(divide(cover_of([[0, 1]]), times_of(None, None), 7)) == [(0, NEVER, [0, 1])]
    assert listed(divide(cover_of([]), times_of(), 7)) == []


def test_bins_that_would_be_cut_of_the_same_scenes_become_one_under_the_earliest():
    binned = divide(cover_of([[0, 1, 2, 3], [4, 5]]), times_of(1, 31, 61, 91, 1, 31), 30)
    merged, kept = merge(binned, np.array([7, 8, 7, 8, 7, 9]))
    assert listed(merged) == [(0, 0, [0, 2]), (0, 1, [1, 3]), (4, 0, [4]), (4, 1, [5])]
    assert kept.tolist() == [0, 1, 4, 5]


def test_bins_that_no_scene_serves_stay_apart():
    binned = divide(cover_of([[0, 1, 2]]), times_of(1, 31, 61), 30)
    merged, kept = merge(binned, np.array([-1, 3, -1]))
    assert listed(merged) == listed(binned)
    assert kept.tolist() == [0, 1, 2]


@st.composite
def places(draw):
    """Chips that share photos, times, and the scene nearest to each bin."""
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    count = draw(st.integers(1, 40))
    members = []
    for centre in rng.permutation(count)[: draw(st.integers(1, 8))].tolist():
        others = set(rng.integers(0, count, rng.integers(0, 12)).tolist()) - {centre}
        members.append([centre, *others])
    days = [None if rng.random() < 0.3 else int(day) for day in rng.integers(-40, 200, count)]
    return cover_of(members), times_of(*days), members, days, draw(st.sampled_from([1, 7, 30, 36.5]))


@settings(max_examples=150, deadline=None)
@given(places())
def test_every_photo_stays_in_its_place_and_in_the_bin_of_its_time(given_):
    cover, taken, members, days, length = given_
    wanted = []
    for photos in members:
        number = {photo: None if days[photo] is None else int((days[photo] + 0.5) // length) for photo in photos}
        counts = collections.Counter(one for one in number.values() if one is not None)
        fullest = min(counts, key=lambda one: (-counts[one], one)) if counts else NEVER
        bins = collections.defaultdict(list)
        for photo in sorted(photos):
            bins[fullest if number[photo] is None else number[photo]].append(photo)
        wanted += [(photos[0], number, bins[number]) for number in sorted(bins)]
    binned = divide(cover, taken, length)
    assert listed(binned) == wanted
    assert (np.diff(binned.cover.chip) >= 0).all()


@settings(max_examples=150, deadline=None)
@given(places(), st.integers(0, 1000), st.integers(1, 6))
def test_no_two_chips_of_a_place_repeat_pixels_and_no_photo_is_lost(given_, seed, scenes):
    cover, taken, _, _, length = given_
    binned = divide(cover, taken, length)
    best = np.random.default_rng(seed).integers(-1, scenes, len(binned.bin))
    merged, kept = merge(binned, best)
    table = pd.DataFrame({"centre": merged.cover.centre, "best": best[kept], "bin": merged.bin})
    assert not table[table["best"] >= 0].duplicated(["centre", "best"]).any()
    old = pd.DataFrame({"centre": binned.cover.centre, "bin": binned.bin, "best": best})
    for chip, (centre, number, photos) in enumerate(listed(merged)):
        same = old[(old["centre"] == centre) & (old["best"] == best[kept[chip]])]
        same = same if best[kept[chip]] >= 0 else old.loc[[kept[chip]]]
        assert number == same["bin"].min()
        assert kept[chip] == same["bin"].idxmin()
        assert photos == sorted(photo for one in same.index for photo in listed(binned)[one][2])
    assert len(merged.cover.photo) == len(binned.cover.photo)
    places_ = merged.cover.centre
    assert len(set(places_)) == 1 + np.count_nonzero(np.diff(places_)), "the bins of a place side by side"


def test_merging_keeps_chips_by_place_and_bin():
    binned = Binned(cover_of([[3], [3], [3], [1], [1]]), np.array([0, 1, 2, 0, 1]))
    merged, kept = merge(binned, np.array([5, 6, 6, 6, 6]))
    assert list(zip(merged.cover.centre.tolist(), merged.bin.tolist(), strict=True)) == [(3, 0), (3, 1), (1, 0)]
    assert kept.tolist() == [0, 1, 3]
