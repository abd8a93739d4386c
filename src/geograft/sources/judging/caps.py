"""Caps: no traveller and no landmark dominates; which photos stay is a fair draw by the hash of the id."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from geograft.hashing import Hashes
from geograft.sources.judging.doubles import NOBODY

_PARTS = 64
"""In which many rows are looked through, to save memory."""


class Caps:
    """The kept photos by user and place, until all are known and the draw can be made.

    Args:
        per_user: photos a user, or None.
        per_place: photos a place, or None.
    """

    def __init__(self, per_user: int | None, per_place: int | None) -> None:
        self._per_user, self._per_place = per_user, per_place
        self._ids: list[Hashes] = []
        self._users: list[Hashes] = []
        self._places: list[NDArray[np.int64]] = []

    def add(self, ids: Hashes, users: Hashes, places: NDArray[np.int64]) -> None:
        """Remember kept photos: hashes of their ids and users (`NOBODY` where unknown), and their cells, (N,) each."""
        self._ids.append(ids)
        if self._per_user is not None:
            self._users.append(users)
        if self._per_place is not None:
            self._places.append(places)

    def draw(self) -> tuple[Hashes, dict[str, int]]:
        """The ids that the caps leave out, sorted, and how many by reason; users first, then places among the rest.

        What was remembered is forgotten.
        """
        if not self._ids or (self._per_user is None and self._per_place is None):
            return np.empty(0, np.uint64), {}
        ids: Hashes = _taken(self._ids)
        out = np.zeros(len(ids), np.bool_)
        counts = {}
        if self._per_user is not None:
            users = _taken(self._users)
            out = _beyond(users, ids, np.flatnonzero(users != NOBODY), self._per_user)
            counts["user-cap"] = int(out.sum())
            del users
        if self._per_place is not None:
            crowded = _beyond(_taken(self._places), ids, np.flatnonzero(~out), self._per_place)
            counts["place-cap"] = int(crowded.sum())
            out |= crowded
        return np.sort(ids[out]), {reason: count for reason, count in counts.items() if count}


def _taken(parts: list[Any]) -> Any:
    """Arrays as one; the list is emptied, so that they are not held twice."""
    whole = np.concatenate(parts)
    parts.clear()
    return whole


def _beyond(groups: NDArray[np.int64] | Hashes, ids: Hashes, members: NDArray[np.intp], most: int) -> NDArray[np.bool_]:
    """Which members come after the first `most` of their group, in the order of their ids' hashes, (N,).

    Only groups that are larger are put in order: most are not, and ten million rows cost memory.
    """
    ordered = np.sort(groups[members])
    large = np.unique(ordered[most:][ordered[most:] == ordered[:-most]])
    del ordered
    rows = np.concatenate([part[np.isin(groups[part], large)] for part in np.array_split(members, _PARTS)])
    rows = rows[np.lexsort((ids[rows], groups[rows]))]
    beyond = np.zeros(len(groups), np.bool_)
    beyond[rows[most:]] = groups[rows[most:]] == groups[rows[:-most]]
    return beyond
