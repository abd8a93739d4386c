"""The tables of a folder of pairs, joined and sorted: what is known of chips and photos without their pixels."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from geograft.errors import BadSetting, EmptySplit, MissingInput, MixedSensors
from geograft.pairs.embeddings import embeddings_path
from geograft.pairs.footprints import Squares
from geograft.pairs.gathered import Matrix, gather, open_vectors
from geograft.pairs.tags import tags_path
from geograft.tables import read_schema, read_table

Ints = NDArray[np.int64]

_CHIP = ["chip_id", "split", "epsg", "left", "top", "gsd", "size", "sensor"]
_PAIR = ["chip_id", "photo_id", "col", "row", "accuracy_m"]


@dataclass(frozen=True)
class Tables:
    """Chips and pairs.

    Attributes:
        chips: chip_id, split, epsg, left, top, gsd, size, sensor, and `at`, the row of the chip table; by chip_id.
        pairs: owner (row of `chips`), photo_id, col, row, accuracy_m, heading_deg; by owner, then photo_id.
        embeddings: of the pairs' photos, (P, D), or None.
        tags: of the pairs' photos, (P, D), or None.
        has_tags: whether each photo has some, (P,), or None.
    """

    chips: pd.DataFrame
    pairs: pa.Table
    embeddings: Matrix | None = None
    tags: Matrix | None = None
    has_tags: NDArray[np.bool_] | None = None

    @property
    def squares(self) -> Squares:
        """The chips' footprints."""
        epsg, left, top = (self.chips[name].to_numpy() for name in ("epsg", "left", "top"))
        side = float(self.chips["gsd"].iloc[0] * self.chips["size"].iloc[0])
        return Squares(epsg.astype(np.int64), left.astype(np.float64), top.astype(np.float64), side)

    def column(self, name: str) -> NDArray[Any]:
        """A column of the pairs, (P,); NaN where a number is missing."""
        return np.asarray(self.pairs[name].to_numpy())

    @property
    def positions(self) -> NDArray[np.float32]:
        """Row and column of each photo in its chip, (P, 2)."""
        return np.stack([self.column("row"), self.column("col")], axis=1).astype(np.float32)


def read_pairs(folder: Path, *, split: str | None, teacher: str | None, tags: bool) -> Tables:
    """The tables of a split; see `load_pairs`."""
    if tags and teacher is None:
        raise BadSetting("Tags are embedded by a teacher: say which, by its fingerprint.")
    chips = _chips(folder, split)
    pairs = _pairs(folder, chips)
    vectors = None if teacher is None else open_vectors(embeddings_path(folder, teacher))
    rows = None
    if vectors is not None:
        rows = vectors.find(pairs["photo_id"])
        chips, pairs, rows = _with_embeddings(chips, pairs, rows)
    if chips.empty:
        raise EmptySplit(f"The split {split} of {folder} holds no chips: use more photos or other fractions.")
    _refuse_mixed(folder, chips)
    embeddings = None if vectors is None or rows is None else gather(vectors, rows)
    return Tables(chips, pairs, embeddings, *(_tags(folder, teacher, pairs) if tags and teacher else ()))


def _chips(folder: Path, split: str | None) -> pd.DataFrame:
    """The chips of a split by id."""
    chips = read_table(folder / "chips.parquet", _CHIP)
    chips = chips.assign(at=np.arange(len(chips)))
    if split is not None:
        chips = chips[chips["split"] == split]
    return chips.sort_values("chip_id", ignore_index=True)


def _pairs(folder: Path, chips: pd.DataFrame) -> pa.Table:
    """The pairs of chips, sorted."""
    path = folder / "pairs.parquet"
    headings = "heading_deg" in read_schema(path).names
    table = pa.Table.from_pandas(read_table(path, [*_PAIR, *(["heading_deg"] if headings else [])]))
    if not headings:
        table = table.append_column("heading_deg", pa.nulls(len(table), pa.float32()))
    owner = pc.index_in(table["chip_id"], value_set=pa.array(chips["chip_id"], table["chip_id"].type))
    table = table.drop_columns(["chip_id"]).append_column("owner", owner).filter(pc.is_valid(owner))
    return table.sort_by([("owner", "ascending"), ("photo_id", "ascending")])


def _with_embeddings(chips: pd.DataFrame, pairs: pa.Table, rows: Ints) -> tuple[pd.DataFrame, pa.Table, Ints]:
    """What is left where photos without an embedding, and chips without any other, are left out."""
    known = rows >= 0
    pairs = pairs.filter(pa.array(known))
    owner = pairs["owner"].to_numpy()
    used = np.bincount(owner, minlength=len(chips)) > 0
    renumbered = pa.array((np.cumsum(used) - 1)[owner])
    pairs = pairs.set_column(pairs.column_names.index("owner"), "owner", renumbered)
    return chips[used].reset_index(drop=True), pairs, rows[known]


def _refuse_mixed(folder: Path, chips: pd.DataFrame) -> None:
    """Refuse chips that cannot be one set."""
    for name in ("sensor", "size", "gsd"):
        values = chips[name].drop_duplicates().tolist()
        if len(values) > 1:
            raise MixedSensors(
                f"{folder} holds chips of several values of {name} ({', '.join(map(str, sorted(values)))}): "
                "train with one folder of pairs a sensor and size."
            )


def _tags(folder: Path, teacher: str, pairs: pa.Table) -> tuple[Matrix, NDArray[np.bool_]]:
    """Embeddings of the photos' tags, and which photos have some."""
    path = tags_path(folder, teacher)
    if not path.is_file():
        raise MissingInput(f"There are no tags {path}: embed them first (geograft.pairs.tags.embed_tags).")
    vectors = open_vectors(path)
    rows = vectors.find(pairs["photo_id"])
    return gather(vectors, rows), rows >= 0
