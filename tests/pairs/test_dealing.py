import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geograft.pairs.dealing import Deal, even, spread
from geograft.pairs.footprints import Neighbours


def neighbours_of(lists):
    counts = [len(some) for some in lists]
    others = np.concatenate([np.empty(0, int), *lists]).astype(np.int32)
    return Neighbours(np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), others)


def random_overlaps(count, seed):
    rng = np.random.default_rng(seed)
    touching = np.triu(rng.random((count, count)) < rng.random(), 1)
    return [np.flatnonzero(row) for row in touching | touching.T]


def dealt_plainly(order, overlaps, rooms):
    """Each chip to the emptiest batch without a neighbour of it, else to the emptiest; the lowest first."""
    batches = [[] for _ in rooms]
    for chip in order:
        open_ones = [number for number, batch in enumerate(batches) if len(batch) < rooms[number]]
        free = [number for number in open_ones if not set(batches[number]) & set(overlaps[chip])]
        batches[min(free or open_ones, key=lambda number: (len(batches[number]) - rooms[number], number))].append(chip)
    return batches


@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 99))
def test_chips_are_dealt_as_a_plain_loop_deals_them(count, size, seed):
    overlaps = random_overlaps(count, seed)
    order, rooms = np.random.default_rng(seed).permutation(count), even(count, -(-count // size))
    dealt = [batch.tolist() for batch in spread(order, neighbours_of(overlaps), rooms)]
    assert dealt == dealt_plainly(order.tolist(), [some.tolist() for some in overlaps], rooms.tolist())


@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 99))
def test_chips_are_dealt_evenly_whatever_overlaps(count, size, seed):
    overlaps = neighbours_of(random_overlaps(count, seed))
    dealt = spread(np.random.default_rng(seed).permutation(count), overlaps, even(count, -(-count // size)))
    assert sorted(np.concatenate(dealt)) == list(range(count))
    assert max(map(len, dealt)) <= size
    assert max(map(len, dealt)) - min(map(len, dealt)) <= 1


def test_a_chip_that_overlaps_all_others_takes_no_one_s_place():
    overlaps = neighbours_of([np.arange(1, 10), *[np.array([0])] * 9])
    dealt = spread(np.arange(10), overlaps, even(10, 2))
    assert [len(batch) for batch in dealt] == [5, 5]


@given(
    st.integers(1, 60), st.integers(1, 12), st.integers(1, 9), st.integers(1, 7), st.integers(0, 5), st.integers(0, 3)
)
def test_windows_divide_an_epoch_into_runs_of_batches(count, size, windows, block, seed, epoch):
    deal = Deal(np.arange(count) // block, neighbours_of([[]] * count), windows, size, seed, epoch)
    parts = [deal.window(number) for number in range(len(deal.bounds) - 1)]
    assert [len(part) for part in parts] == np.diff(deal.bounds).tolist()
    batches = [batch for part in parts for batch in part]
    assert [len(batch) for batch in batches] == deal.rooms.tolist()
    assert len(batches) == -(-count // size)
    assert sorted(np.concatenate(batches)) == list(range(count))


@given(st.integers(2, 6), st.integers(0, 9))
def test_a_window_holds_whole_blocks_but_for_its_first_and_last(windows, seed):
    blocks = np.arange(400) // 10
    deal = Deal(blocks, neighbours_of([[]] * 400), windows, 20, seed, 0)
    for number in range(windows):
        found = blocks[np.concatenate(deal.window(number))]
        assert (np.bincount(found, minlength=40) % 10 > 0).sum() <= 2


def test_one_window_is_a_shuffle_of_everything():
    deal = Deal(np.zeros(50, int), neighbours_of([[]] * 50), 1, 7, 3, 5)
    order = np.random.default_rng([3, 5]).permutation(50)
    expected = dealt_plainly(order.tolist(), [[]] * 50, deal.rooms.tolist())
    assert [batch.tolist() for batch in deal.window(0)] == expected


def test_epochs_and_seeds_order_blocks_otherwise():
    def first(seed, epoch):
        return deal_of(seed, epoch).window(0)[0].tolist()

    def deal_of(seed, epoch):
        return Deal(np.arange(400) // 10, neighbours_of([[]] * 400), 4, 20, seed, epoch)

    assert first(0, 0) == first(0, 0)
    assert len({tuple(sorted(np.concatenate(deal_of(*which).window(0)))) for which in ((0, 0), (0, 1), (1, 0))}) == 3


@pytest.mark.parametrize(("count", "parts"), [(10, 3), (3, 10), (0, 4), (7, 7)])
def test_even_parts_differ_by_one_at_most(count, parts):
    found = even(count, parts)
    assert found.sum() == count
    assert found.max() - found.min() <= 1
    assert (np.diff(found) <= 0).all()
