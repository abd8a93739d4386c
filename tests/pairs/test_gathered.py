import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from geograft.errors import MissingInput, UnreadableTable
from geograft.pairs import gathered
from geograft.pairs.dataset import load_pairs
from geograft.pairs.embeddings import embed_photos
from geograft.pairs.gathered import Gathered, gather, open_vectors
from geograft.pairs.materialise import materialise

MATRIX = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float16)
ROWS = np.array([3, -1, 8, 3, 0])


@pytest.fixture
def table(tmp_path):
    """A table of the matrix's rows for the photos p0 to p8."""
    column = pa.FixedSizeListArray.from_arrays(pa.array(MATRIX.ravel(), pa.float16()), 4)
    path = tmp_path / "teacher-abc.parquet"
    pq.write_table(pa.table({"photo_id": [f"p{row}" for row in range(9)], "embedding": column}), path)
    return path


@pytest.mark.parametrize(
    "key", [0, 1, -1, slice(1, 4), [4, 0, 1], np.array([2, 2]), np.array([True, 0, 0, 1, 1], bool)]
)
def test_gathered_rows_are_indexed_like_an_array(key):
    plain = np.where((ROWS >= 0)[:, None], MATRIX[ROWS], np.float16(0))
    found = Gathered(MATRIX, ROWS)
    assert (found[key] == plain[key]).all()
    assert found[key].shape == plain[key].shape
    assert found[key].dtype == np.float16


def test_gathered_rows_become_an_array_when_all_are_asked_for():
    found = Gathered(MATRIX, ROWS)
    assert found.shape == (5, 4)
    assert len(found) == 5
    assert (np.asarray(found) == found[:]).all()
    assert found.astype(np.float32).dtype == np.float32
    assert (found.take(np.array([4, 2]))[:] == found[[4, 2]]).all()


def test_few_vectors_are_an_array_and_many_stay_where_they_are(table, monkeypatch):
    vectors = open_vectors(table)
    assert isinstance(gather(vectors, ROWS), np.ndarray)
    assert not isinstance(vectors.matrix, np.memmap)
    monkeypatch.setattr(gathered, "IN_MEMORY", 10)
    mapped = open_vectors(table)
    assert isinstance(mapped.matrix, np.memmap)
    found = gather(mapped, mapped.find(["p4", "nobody", "p0"]))
    assert isinstance(found, Gathered)
    assert (found[:] == np.stack([MATRIX[4], np.zeros(4), MATRIX[0]])).all()


def test_mapped_vectors_are_written_once_and_again_for_a_newer_table(table, monkeypatch):
    monkeypatch.setattr(gathered, "IN_MEMORY", 10)
    open_vectors(table)
    (made,) = (table.parent / ".vectors").iterdir()
    before = made.stat().st_mtime_ns
    open_vectors(table)
    assert made.stat().st_mtime_ns == before
    pq.write_table(pq.read_table(table).slice(0, 5), table)
    os.utime(table, ns=(before + 10**9, before + 10**9))
    assert len(open_vectors(table).matrix) == 5


def test_absent_and_damaged_vectors_are_named(table, tmp_path):
    with pytest.raises(MissingInput, match="embed the photos"):
        open_vectors(tmp_path / "teacher-none.parquet")
    table.write_bytes(table.read_bytes()[:-20])
    with pytest.raises(UnreadableTable, match=r"teacher-abc\.parquet is damaged"):
        open_vectors(table)


def test_pairs_of_mapped_vectors_are_those_of_held_ones(grid_plan, make_pictures, teacher, monkeypatch):
    colours = [tuple(colour) for colour in np.random.default_rng(0).integers(0, 255, (31, 3)).tolist()]
    out = grid_plan(30, uris=make_pictures(colours))
    materialise(out, workers=1)
    embed_photos(out, teacher)
    held = load_pairs(out, teacher=teacher.fingerprint)
    monkeypatch.setattr(gathered, "IN_MEMORY", 10)
    mapped = load_pairs(out, teacher=teacher.fingerprint)
    assert isinstance(mapped.embeddings, Gathered)
    assert (mapped.embeddings[:] == held.embeddings).all()
    some, same = mapped.select(np.array([9, 4])), held.select(np.array([9, 4]))
    assert isinstance(some.embeddings, Gathered)
    assert (some.embeddings[:] == same.embeddings).all()
