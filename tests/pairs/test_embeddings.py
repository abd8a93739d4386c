import numpy as np
import pytest
from PIL import Image

from geograft.errors import EmptyTable, MissingInput, UnreadableTable
from geograft.pairs import embeddings
from geograft.pairs.embeddings import embed_photos, open_photo, parts_folder, read_embeddings
from geograft.pairs.plan import PairSettings, make_pairs
from geograft.tables import read_manifest


@pytest.fixture
def folder(make_photos, make_ground, make_pictures, tmp_path, monkeypatch):
    """Pairs of 40 photos, three of them unreadable, embedded eight at a time."""
    monkeypatch.setattr(embeddings, "BATCH", 4)
    monkeypatch.setattr(embeddings, "PART_BATCHES", 2)
    rng = np.random.default_rng(0)
    uris = make_pictures([tuple(colour) for colour in rng.integers(0, 255, (40, 3)).tolist()])
    (tmp_path / "pictures" / "0003.png").write_bytes(b"")
    (tmp_path / "pictures" / "0004.png").write_bytes((tmp_path / "pictures" / "0005.png").read_bytes()[:40])
    (tmp_path / "pictures" / "0030.png").unlink()
    photos = make_photos(*rng.uniform(50, 350, (2, 40)), uri=uris)
    make_pairs(photos, make_ground(400), tmp_path / "out", settings=PairSettings(chip_size=32, split="none"))
    return tmp_path / "out"


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
