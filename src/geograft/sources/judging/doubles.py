"""Photos that say what another says already: same id, same bytes, same moment, same look."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from geograft.hashing import Hashes
from geograft.sources.judging.hashes import SeenHashes, mixed, text_hashes

Flags = NDArray[np.bool_]
Keys = dict[str, tuple[Hashes, Flags]]
"""By reason: what a photo may share with another, hashed, and where it is known; (N,) each."""

NOBODY = np.uint64(0)
"""The user of photos that state none; they count as one user's doubles, and under no user's cap."""

_MINUTE_US = 60_000_000
_PLACES_A_DEGREE = 1e5
"""Two photos of one place are less than about a metre apart."""


class Doubles:
    """Finds doubled photos batch by batch; the first that was kept stays, whatever the size of the batches.

    Args:
        perceptual: the largest number of bits by which the perceptual hashes of near-duplicates differ; looks do
            not count where None.
    """

    def __init__(self, perceptual: int | None = None) -> None:
        self._seen = {name: SeenHashes() for name in ("duplicate-id", "duplicate-content", "duplicate")}
        self._likeness: Any = None
        if perceptual is not None:
            from geograft.sources.judging.likeness import Likeness

            self._likeness = Likeness(perceptual)

    def reasons(self, photos: pd.DataFrame, ids: Hashes, users: Hashes) -> NDArray[np.object_]:
        """Why each photo is a double, in the order of the class's reasons, or ""; what is kept is remembered, (N,).

        Args:
            photos: lon, lat, taken, uri, digest.
            ids: hashes of the photos' ids, (N,).
            users: hashes of the photos' users, `NOBODY` where unknown, (N,).
        """
        keys = _keys(photos, ids, users)
        before = {name: self._seen[name].holds(hashes) & known for name, (hashes, known) in keys.items()}
        verdicts = np.full(len(photos), "", object)
        for name, flags in before.items():
            verdicts[flags & (verdicts == "")] = name
        rows = np.flatnonzero(~before["duplicate-id"])
        if self._likeness is None:
            rows = rows[_entangled([(hashes[rows], known[rows]) for hashes, known in keys.values()])]
        verdicts[rows] = list(self._one_by_one(photos, keys, before, rows))
        for name, (hashes, known) in keys.items():
            self._seen[name].add(hashes[(verdicts == "") & known])
        return verdicts

    def _one_by_one(
        self, photos: pd.DataFrame, keys: Keys, before: dict[str, Flags], rows: NDArray[np.intp]
    ) -> Iterator[str]:
        """The verdicts of rows that may be doubles of other rows of the batch, in order."""
        seen: dict[str, set[int]] = {name: set() for name in keys}
        own = {
            name: (hashes[rows].tolist(), known[rows].tolist(), before[name][rows].tolist())
            for name, (hashes, known) in keys.items()
        }
        for at, looks_alike in enumerate(self._alike(photos.iloc[rows])):
            mine = {name: (hashes[at], held[at]) for name, (hashes, known, held) in own.items() if known[at]}
            verdict = next((name for name, (value, held) in mine.items() if held or value in seen[name]), "")
            if not verdict and looks_alike():
                verdict = "near-duplicate"
            if not verdict:
                for name, (value, _) in mine.items():
                    seen[name].add(value)
            yield verdict

    def _alike(self, photos: pd.DataFrame) -> Iterator[Callable[[], bool]]:
        """For each photo, in order, a question whether it looks like a kept one; asking keeps it if not."""
        if self._likeness is None:
            yield from (_never for _ in range(len(photos)))
            return
        from geograft.sources.judging.likeness import hash_places, photo_hash

        cells, around = hash_places(photos["lon"], photos["lat"])
        with ThreadPoolExecutor() as pool:
            values = pool.map(lambda uri: photo_hash(uri) if _is_local(uri) else None, photos["uri"])
            for cell, near, value in zip(cells.tolist(), around, values, strict=True):
                yield partial(self._looks_alike, value, cell, near)

    def _looks_alike(self, value: int | None, cell: int, around: NDArray[np.int64]) -> bool:
        """Whether a photo looks like a kept one of its neighbourhood; it is kept itself if not."""
        if value is None:
            return False
        if self._likeness.alike(value, around):
            return True
        self._likeness.add(value, cell)
        return False


def _keys(photos: pd.DataFrame, ids: Hashes, users: Hashes) -> Keys:
    """What makes two photos doubles of each other, in order."""
    minutes = np.asarray(photos["taken"].dt.tz_localize(None), "datetime64[us]").view(np.int64) // _MINUTE_US
    lon, lat = (np.rint(np.asarray(photos[name], np.float64) * _PLACES_A_DEGREE) for name in ("lon", "lat"))
    moments = mixed(users, minutes, lon.astype(np.int64), lat.astype(np.int64))
    return {
        "duplicate-id": (ids, np.ones(len(ids), np.bool_)),
        "duplicate-content": (text_hashes(photos["digest"]), np.asarray(photos["digest"].notna(), np.bool_)),
        "duplicate": (moments, np.asarray(photos["taken"].notna(), np.bool_)),
    }


def user_hashes(users: pd.Series) -> Hashes:
    """Hashes of users, (N,); `NOBODY` where none is stated."""
    hashes = text_hashes(users)
    hashes[np.asarray(users.isna() | (users == ""), np.bool_)] = NOBODY
    return hashes


def _entangled(keys: Iterable[tuple[Hashes, Flags]]) -> Flags:
    """Which rows share something with another row, (N,)."""
    found: Any = False
    for hashes, known in keys:
        _, inverse, counts = np.unique(hashes, return_inverse=True, return_counts=True)
        found = found | ((counts[inverse] > 1) & known)
    return np.asarray(found, np.bool_)


def _never() -> bool:
    """Nothing looks alike where looks do not count."""
    return False


def _is_local(uri: Any) -> bool:
    """Whether an address is a path of this machine."""
    return isinstance(uri, str) and "://" not in uri
