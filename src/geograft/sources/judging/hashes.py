"""Sixty-four bit hashes that remember ids, files and places of millions of photos in eight bytes each.

Two different ones of ten million agree with a probability of 3 in a million. Hashes are the same on every machine
and in every run.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from geograft.hashing import Hashes, hash_ids

_KEY = "geograft.photos1"


def text_hashes(texts: Any) -> Hashes:
    """Hashes of texts, (N,); what is missing counts as the empty text.

    Args:
        texts: a Series, an array or a sequence of texts.
    """
    return hash_ids(pc.fill_null(pa.array(texts, pa.large_string(), from_pandas=True), ""), _KEY)


def id_hashes(photo_ids: Any) -> Hashes:
    """Hashes of photo ids, (N,), of any kind of sequence; what `Filter.capped` speaks of."""
    return text_hashes(photo_ids)


def mixed(*columns: NDArray[Any]) -> Hashes:
    """One hash of several whole numbers, (N,), by SplitMix64 (Steele et al., 2014).

    Args:
        columns: integer arrays, (N,); their order counts.
    """
    found = np.zeros(len(columns[0]), np.uint64)
    for column in columns:
        found = _scrambled(found ^ np.asarray(column).astype(np.uint64))
    return found


def _scrambled(values: Hashes) -> Hashes:
    """SplitMix64's step: every bit of the result depends on every bit given."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def among(values: Hashes, ordered: Hashes) -> NDArray[np.bool_]:
    """Which values a sorted array holds, (N,)."""
    if not len(ordered) or not len(values):
        return np.zeros(len(values), np.bool_)
    order = np.argsort(values)  # neighbouring look-ups stay in the cache
    queries = values[order]
    at = np.minimum(np.searchsorted(ordered, queries), len(ordered) - 1)
    found = np.empty(len(values), np.bool_)
    found[order] = ordered[at] == queries
    return found


class SeenHashes:
    """A set of hashes that grows by batches: a few sorted arrays, each at least twice as long as the next."""

    def __init__(self) -> None:
        self._runs: list[Hashes] = []

    def holds(self, values: Hashes) -> NDArray[np.bool_]:
        """Which values were added before, (N,)."""
        found = np.zeros(len(values), np.bool_)
        for run in self._runs:
            found |= among(values, run)
        return found

    def add(self, values: Hashes) -> None:
        """Remember values."""
        if not len(values):
            return
        self._runs.append(np.sort(values))
        while len(self._runs) > 1 and len(self._runs[-2]) < 2 * len(self._runs[-1]):
            self._runs.append(_merged([self._runs.pop(), self._runs.pop()]))

    def __len__(self) -> int:
        """How many were added."""
        return sum(map(len, self._runs))


def _merged(runs: Sequence[Hashes]) -> Hashes:
    """Sorted arrays as one."""
    whole = np.concatenate(runs)
    whole.sort()
    return whole
