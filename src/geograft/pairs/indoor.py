"""Indoor photos, told by the teacher's own text side: what they show is nowhere to be seen from above."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
from numpy.typing import NDArray

from geograft.models.teacher import Teacher
from geograft.pairs.embeddings import embed_table, parts_folder

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
        best = []
        for prompts in (INDOOR_PROMPTS, OUTDOOR_PROMPTS):
            text = self.teacher.encode_text(prompts)
            best.append((embeddings.astype(np.float32) @ text.T).max(axis=1))
        indoor, outdoor = best
        return np.asarray(indoor - outdoor > self.margin)


def keep_outdoor(photos: gpd.GeoDataFrame, check: IndoorCheck, out: Path) -> tuple[gpd.GeoDataFrame, dict[str, int]]:
    """The photos that were not taken indoors, and the counts of those left out.

    Embeddings are kept in `out`, where training finds them again.

    Args:
        photos: photo_id, uri.
        check: how indoor photos are told.
        out: the folder of pairs.
    """
    parts = parts_folder(out, check.teacher.fingerprint)
    (ids, embeddings), unreadable = embed_table(photos, parts, check.teacher)
    indoor = {photo_id for photo_id, inside in zip(ids, check.is_indoor(embeddings), strict=True) if inside}
    kept = photos[~photos["photo_id"].isin(indoor | set(unreadable))].reset_index(drop=True)
    counts = {"indoor": len(indoor), "unreadable-photo": len(unreadable)}
    return kept, {reason: count for reason, count in counts.items() if count}
