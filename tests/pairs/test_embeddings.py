import geopandas as gpd
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from geograft.errors import EmptyTable, MissingInput, UnreadableTable
from geograft.pairs import embeddings
from geograft.pairs.embeddings import (
    embed_missing,
    embed_photos,
    open_photo,
    part_paths,
    parts_folder,
    read_embeddings,
    unreadable_photos,
)
from geograft.pairs.vectors import Vectors, pack, scratch
from geograft.tables import read_manifest


@pytest.fixture
def folder(grid_plan, make_pictures, tmp_path, monkeypatch):
    """The plan of 40 photos, three of them unreadable, embedded eight at a time."""
    monkeypatch.setattr(embeddings, "BATCH", 4)
    monkeypatch.setattr(embeddings, "PART_BATCHES", 2)
    rng = np.random.default_rng(0)
    uris = make_pictures([tuple(colour) for colour in rng.integers(0, 255, (40, 3)).tolist()])
    (tmp_path / "pictures" / "0003.png").write_bytes(b"")
    (tmp_path / "pictures" / "0004.png").write_bytes((tmp_path / "pictures" / "0005.png").read_bytes()[:40])
    (tmp_path / "pictures" / "0030.png").unlink()
    return grid_plan(39, uris=uris)


def test_unreadable_photos_are_counted_not_fatal(folder, teacher):
    path = embed_photos(folder, teacher)
    ids, matrix = read_embeddings(path)
    assert path.name == "teacher-c0105.parquet"
    assert matrix.shape == (37, 3)
    assert matrix.dtype == np.float16
    assert np.linalg.norm(matrix.astype(float), axis=1) == pytest.approx(1, abs=1e-3)
    assert ids == sorted(ids)
    assert not {"p00003", "p00004", "p00030"} & set(ids)
    assert read_manifest(path).counts == {"done": 37, "skipped": {}, "failed": {"unreadable-photo": 3}}


def test_what_is_embedded_is_not_embedded_again(folder, teacher):
    embed_photos(folder, teacher)
    assert teacher.seen == 37
    embed_photos(folder, teacher)
    assert teacher.seen == 37


def test_an_interrupted_run_goes_on_where_it_stopped(folder, teacher, monkeypatch):
    encode = teacher.encode_photos

    def tired(images):
        if teacher.seen >= 10:
            raise KeyboardInterrupt
        return encode(images)

    monkeypatch.setattr(teacher, "encode_photos", tired)
    with pytest.raises(KeyboardInterrupt):
        embed_photos(folder, teacher)
    parts = sorted(path.name for path in parts_folder(folder, teacher.fingerprint).iterdir())
    assert parts == ["part-00000.parquet"]
    monkeypatch.undo()
    before = teacher.seen
    ids, _ = read_embeddings(embed_photos(folder, teacher))
    assert len(ids) == 37
    assert teacher.seen - before <= 37 - 5


def test_a_folder_without_pairs_and_one_without_photos_are_named(folder, teacher, tmp_path):
    with pytest.raises(MissingInput):
        embed_photos(tmp_path / "nowhere", teacher)
    for path in (tmp_path / "pictures").iterdir():
        path.unlink()
    with pytest.raises(EmptyTable, match="None of the 40 photos"):
        embed_photos(folder, teacher)


@pytest.mark.parametrize("batch", [3, 8, 100])
def test_photos_are_streamed_whatever_the_batch(folder, teacher, monkeypatch, batch):
    whole = read_embeddings(embed_photos(folder, teacher))
    (folder / "teacher-c0105.parquet").unlink()
    for part in parts_folder(folder, "c0105").iterdir():
        part.unlink()
    monkeypatch.setattr(embeddings, "TABLE_BATCH", batch)
    ids, matrix = read_embeddings(embed_photos(folder, teacher))
    assert ids == whole[0]
    assert (matrix == whole[1]).all()


def test_photos_that_another_stage_embedded_are_not_embedded_again(folder, teacher):
    photos = gpd.read_parquet(folder / "plan" / "photos.parquet")[["photo_id", "uri"]].iloc[::-1].iloc[5:25]
    parts = parts_folder(folder, teacher.fingerprint)
    embed_missing([photos.iloc[:9], photos.iloc[9:]], parts, teacher)
    assert teacher.seen == 19
    assert [photo for path in part_paths(parts) for photo in unreadable_photos(path)] == ["p00030"]
    earlier = [read_embeddings(path) for path in part_paths(parts)]
    found = dict(zip(*read_embeddings(embed_photos(folder, teacher)), strict=True))
    assert teacher.seen == 37
    assert all((found[photo] == vector).all() for part in earlier for photo, vector in zip(*part, strict=True))


def test_embeddings_are_found_by_photo_without_being_held(folder, teacher):
    path = embed_photos(folder, teacher)
    ids, matrix = read_embeddings(path)
    assert not scratch(folder, teacher.fingerprint).exists()
    with pytest.raises(MissingInput, match="embed its photos"):
        Vectors.open(folder, teacher.fingerprint)
    vectors = pack([path], folder, teacher.fingerprint)
    assert isinstance(vectors.matrix, np.memmap)
    wanted = [ids[5], "p00003", ids[0], ids[5], "nobody"]
    rows = vectors.column(pa.array(wanted)).to_pylist()
    assert rows == [matrix[5].tolist(), None, matrix[0].tolist(), matrix[5].tolist(), None]
    assert vectors.column(pa.array([], pa.string())).to_pylist() == []


def test_damaged_embeddings_are_named(tmp_path):
    (tmp_path / "teacher-x.parquet").write_bytes(b"nothing")
    with pytest.raises(UnreadableTable, match="remove it"):
        read_embeddings(tmp_path / "teacher-x.parquet")


def test_photos_are_seen_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 20)).save(tmp_path / "lying.jpg", exif=exif)
    Image.new("L", (30, 20)).save(tmp_path / "grey.png")
    assert open_photo(str(tmp_path / "lying.jpg")).size == (20, 30)
    assert open_photo(str(tmp_path / "grey.png")).mode == "RGB"
    assert open_photo(str(tmp_path / "none.jpg")) is None
