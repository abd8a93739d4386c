"""Indoor photos, told by the teacher's own text side: what they show is nowhere to be seen from above."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from geograft.errors import EmptyTable
from geograft.hashing import Hashes, hash_ids
from geograft.models.teacher import Teacher
from geograft.pairs.embeddings import (
    embed_missing,
    part_paths,
    parts_folder,
    read_embeddings,
    unreadable_photos,
)
from geograft.pairs.planning.intake import Photos
from geograft.pairs.planning.photo_rows import pick_rows
from geograft.pairs.settings import Tally, reasons

_SALT = "indoor"

INDOOR_PROMPTS = (
    "a photo taken indoors",
    "the inside of a room",
    "an interior with walls, a floor and a ceiling",
    "furniture inside a building",
)
OUTDOOR_PROMPTS = (
    "a photo taken outdoors",
    "an outdoor scene under the sky",
    "a landscape",
    "a street with buildings",
)


@dataclass(frozen=True)
class IndoorCheck:
    """How indoor photos are told.

    Attributes:
        teacher: encodes photos and prompts.
        margin: a photo is indoor where its best similarity to the indoor prompts exceeds that to the outdoor
            ones by more than this.
    """

    teacher: Teacher
    margin: float = 0.0

    @property
    def about(self) -> dict[str, Any]:
        """Teacher, margin and prompts, for the manifest."""
        teacher = {"teacher": self.teacher.name, "fingerprint": self.teacher.fingerprint}
        return {**teacher, "margin": self.margin, "indoor": INDOOR_PROMPTS, "outdoor": OUTDOOR_PROMPTS}

    def is_indoor(self, embeddings: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Whether photos, (N, D) unit vectors, were taken indoors, (N,).

        Raises:
            NoTextEncoder: the teacher encodes images only.
        """
        inside, outside = ((embeddings.astype(np.float32) @ text.T).max(axis=1) for text in self._texts)
        return np.asarray(inside - outside > self.margin)

    @cached_property
    def _texts(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The embeddings of the prompts."""
        return self.teacher.encode_text(INDOOR_PROMPTS), self.teacher.encode_text(OUTDOOR_PROMPTS)


def outdoor(photos: Photos, paths: Sequence[Path], out: Path, check: IndoorCheck, tally: Tally) -> Photos:
    """The photos that were not taken indoors.

    Embeddings are kept in `out`, where a later run and training find them again.

    Args:
        photos: from these tables.
        paths: photo tables.
        out: the folder of pairs.
        check: how indoor photos are told.
        tally: gains the counts of `indoor` and `unreadable-photo`.

    Raises:
        EmptyTable: no photo is left.
        NoTextEncoder: the teacher encodes images only.
    """
    parts = parts_folder(out, check.teacher.fingerprint)
    embed_missing(addresses(paths, photos.row), parts, check.teacher, len(photos))
    inside, unreadable = _refused(parts, check)
    keys = hash_ids(photos.ids, _SALT)
    counts = {"indoor": np.isin(keys, inside), "unreadable-photo": np.isin(keys, unreadable)}
    tally.photos.update({reason: int(rows.sum()) for reason, rows in counts.items()})
    tally.about["indoor"] = check.about
    kept = photos.take(~np.logical_or.reduce(list(counts.values())))
    if not len(kept):
        raise EmptyTable(f"No photo may be used ({reasons(tally.photos)}): relax indoor_margin, or check the paths.")
    return kept


def addresses(paths: Sequence[Path], rows: NDArray[np.int64]) -> Iterator[pd.DataFrame]:
    """photo_id and uri of some rows of all tables one after another, part by part; an unknown uri is empty."""
    for table, _ in pick_rows(paths, rows, ("photo_id", "uri")):
        yield table.to_pandas().fillna({"uri": ""})


def _refused(parts: Path, check: IndoorCheck) -> tuple[Hashes, Hashes]:
    """Hashes of the indoor and of the unreadable photos among those that were embedded."""
    inside, unreadable = [np.empty(0, np.uint64)], [np.empty(0, np.uint64)]
    for path in part_paths(parts):
        ids, vectors = read_embeddings(path)
        if ids:
            inside.append(hash_ids(ids, _SALT)[check.is_indoor(vectors)])
        unreadable.append(hash_ids(unreadable_photos(path), _SALT))
    return np.concatenate(inside), np.concatenate(unreadable)
