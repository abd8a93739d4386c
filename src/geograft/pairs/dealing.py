"""Chips dealt into batches: an epoch's order, in windows that fit the memory, no two of one place in a batch."""

import heapq
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from geograft.pairs.footprints import Neighbours

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Deal:
    """How the chips of an epoch are dealt.

    All batches of an epoch are known by number: window by window, each with a run of batches. So an epoch can be
    started in its middle, and every process deals the same.

    Attributes:
        blocks: the block of shard rows that each chip lies in, (N,).
        overlaps: the chips that overlap each chip.
        windows: parts of an epoch whose chips are mixed; the blocks of one are in memory together.
        size: most chips a batch.
        seed: of the order.
        epoch: each has its own order.
    """

    blocks: Ints
    overlaps: Neighbours
    windows: int
    size: int
    seed: int
    epoch: int

    @property
    def rooms(self) -> Ints:
        """Chips of each batch, (K,); they differ by one at most."""
        return even(len(self.blocks), -(-len(self.blocks) // self.size))

    @property
    def bounds(self) -> Ints:
        """The first batch of each window, and the number of batches, (W + 1,)."""
        count = len(self.rooms)
        return np.concatenate([[0], np.cumsum(even(count, min(self.windows, count)))])

    def window(self, number: int) -> list[Ints]:
        """The batches of a window, each as rows of chips."""
        first, last = self.bounds[number : number + 2]
        return spread(self._order(number, first, last), self.overlaps, self.rooms[first:last])

    def _order(self, number: int, first: int, last: int) -> Ints:
        """The chips of a window, shuffled."""
        if len(self.bounds) == 2:
            return np.random.default_rng([self.seed, self.epoch]).permutation(len(self.blocks))
        ends = np.concatenate([[0], np.cumsum(self.rooms)])
        rows = self._by_block()[ends[first] : ends[last]]
        return np.random.default_rng([self.seed, self.epoch, number]).permutation(rows)

    def _by_block(self) -> Ints:
        """All chips, block by block, the blocks shuffled; a window is a run of these."""
        draw = np.random.default_rng([self.seed, self.epoch, len(self.bounds), 1])
        place = draw.permutation(int(self.blocks.max(initial=0)) + 1)
        return np.argsort(place[self.blocks], kind="stable")


def even(count: int, parts: int) -> Ints:
    """A count divided into parts that differ by one at most, the larger first, (parts,)."""
    return count // max(1, parts) + (np.arange(parts) < count % max(1, parts)).astype(np.int64)


def spread(order: Ints, overlaps: Neighbours, rooms: Ints) -> list[Ints]:
    """Chips dealt in order, each to the emptiest batch without a chip that it overlaps.

    A chip that overlaps with one of every batch that has room goes to the emptiest.

    Args:
        order: rows of chips.
        overlaps: of all chips.
        rooms: how many chips go into each batch; they add up to the length of `order`.
    """
    found = np.empty(len(order), np.int64)
    if len(order):
        _deal(order, overlaps.starts, overlaps.others, rooms.astype(np.int64), found)
    by_batch = np.argsort(found, kind="stable")
    return np.split(order[by_batch], np.cumsum(rooms)[:-1]) if len(rooms) else []


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _deal(order: Any, starts: Any, others: Any, rooms: Any, found: Any) -> None:
    """Write the batch of each chip of an order.

    The heap holds the batches that have room, as -room * count + number: the emptiest comes first, then the lowest.
    """
    count = len(rooms)
    room = rooms.copy()
    heap = [-room[number] * count + number for number in range(count) if room[number] > 0]
    heapq.heapify(heap)
    batch_of = np.full(len(starts) - 1, -1, np.int32)
    taken = np.full(count, -1, np.int64)
    passed = np.empty(count, np.int64)
    for place in range(len(order)):
        chip = order[place]
        for at in range(starts[chip], starts[chip + 1]):
            batch = batch_of[others[at]]
            if batch >= 0:
                taken[batch] = place
        skipped = 0
        while len(heap) > 0 and taken[heap[0] % count] == place:
            passed[skipped] = heapq.heappop(heap)
            skipped += 1
        key = heapq.heappop(heap) if len(heap) > 0 else passed[0]
        for at in range(skipped):
            if passed[at] != key:
                heapq.heappush(heap, passed[at])
        number = key % count
        found[place] = number
        batch_of[chip] = number
        room[number] -= 1
        if room[number] > 0:
            heapq.heappush(heap, -room[number] * count + number)
