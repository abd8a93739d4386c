import numpy as np
import pandas as pd
import pytest

from geograft.errors import EmptyTable, MissingInput, NoTextEncoder, UnreadableTable
from geograft.models.teacher import Teacher
from geograft.pairs import tags
from geograft.pairs.dataset import load_pairs
from geograft.pairs.embeddings import embed_photos
from geograft.pairs.tags import embed_tags, phrase_of, tags_path
from geograft.tables import read_manifest, write_manifest


class LetterTeacher(Teacher):
    """Embeds texts by their letters a, e and i, and photos all alike."""

    name, fingerprint, dim = "letters", "1e77e5", 3

    def __init__(self):
        self.texts = []

    def encode_photos(self, images):
        return np.full((len(images), 3), 1 / np.sqrt(3), np.float32)

    def encode_text(self, texts):
        self.texts += texts
        return vectors_of(texts)


def vectors_of(texts):
    counts = np.array([[text.count(letter) + 1 for letter in "aei"] for text in texts], np.float32)
    return counts / np.linalg.norm(counts, axis=1, keepdims=True)


@pytest.fixture
def letters():
    return LetterTeacher()


@pytest.fixture
def folder(many_chips):
    """Pairs of 61 photos, p00000 to p00060, of which every third has no tags."""
    for path in (many_chips / "photos.parquet", many_chips / "plan" / "photos.parquet"):
        table = pd.read_parquet(path)
        numbers = table["photo_id"].str[1:].astype(int)
        table["tags"] = [
            None if number % 3 == 0 else f"field {number % 7},tea, geo:lat=4{number}" for number in numbers
        ]
        table.to_parquet(path)
    return many_chips


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(tags, "PART", 8)
    monkeypatch.setattr(tags, "ROWS", 10)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("barn,  Field ,barn,,BARN", "barn, Field"),
        ("Moor|See; Berg", "Moor, See, Berg"),
        ("golden gate bridge", "golden gate bridge"),
        ("geo:lat=45.1 pier geo:lon=7", "pier"),
        ('upcoming:event=12,ns:key="two words, more",quay', "quay"),
        ('["rice terrace", "棚田", null, ""]', "rice terrace, 棚田"),
        ("[ruin", "[ruin"),
        (["wood", None, " pond "], "wood, pond"),
        ("12:30 train", "12:30 train"),
        (None, ""),
        (" , ;", ""),
        ("geo:lat=45", ""),
    ],
)
def test_a_phrase_is_the_tags_joined_by_commas(given, expected):
    assert phrase_of(given) == expected


def test_a_title_goes_first_and_is_not_said_twice():
    assert phrase_of("mill,river", "Old mill, at dusk") == "Old mill, at dusk, mill, river"
    assert phrase_of("Mill", "mill") == "mill"
    assert phrase_of(None, "Mill") == "Mill"


def test_photos_with_tags_are_embedded_and_the_others_counted(folder, letters):
    summary = embed_tags(folder, letters)
    assert (summary.photos, summary.tagged) == (61, 40)
    assert summary.path == tags_path(folder, letters.fingerprint)
    assert read_manifest(summary.path).counts == {"done": 40, "skipped": {"no-tags": 21}, "failed": {}}
    table = pd.read_parquet(summary.path).set_index("photo_id")["embedding"]
    assert sorted(table.index) == [f"p{number:05d}" for number in range(61) if number % 3]
    expected = vectors_of([f"field {int(name[1:]) % 7}, tea" for name in table.index])
    assert np.stack(table.to_list()) == pytest.approx(expected, abs=1e-3)
    assert not summary.path.with_suffix(".parts").exists()
    asked = len(letters.texts)
    assert embed_tags(folder, letters) == summary
    assert len(letters.texts) == asked


def test_a_killed_run_goes_on_from_its_last_part(folder, letters, monkeypatch):
    encode = letters.encode_text

    def tired(texts):
        if len(letters.texts) > 14:
            raise KeyboardInterrupt
        return encode(texts)

    monkeypatch.setattr(letters, "encode_text", tired)
    with pytest.raises(KeyboardInterrupt):
        embed_tags(folder, letters)
    parts = tags_path(folder, letters.fingerprint).with_suffix(".parts")
    assert len(list(parts.iterdir())) >= 2
    monkeypatch.undo()
    monkeypatch.setattr(tags, "PART", 8)
    kept = sum(len(pd.read_parquet(part)) for part in parts.iterdir())
    written = []
    monkeypatch.setattr(
        tags, "_write", lambda path, *rest, write=tags._write: written.append(len(rest[0])) or write(path, *rest)
    )
    summary = embed_tags(folder, letters)
    assert summary.tagged == 40
    assert sum(written) == 40 - kept
    assert pd.read_parquet(summary.path)["photo_id"].is_unique


def test_pairs_carry_the_tags_of_their_photos(folder, letters, make_pictures):
    for path in (folder / "photos.parquet", folder / "plan" / "photos.parquet"):
        table = pd.read_parquet(path)
        table["uri"] = make_pictures([(row, 0, 0) for row in range(len(table))])
        table.to_parquet(path)
    embed_photos(folder, letters)
    with pytest.raises(MissingInput, match="embed them first"):
        load_pairs(folder, teacher=letters.fingerprint, tags=True)
    embed_tags(folder, letters)
    pairs = load_pairs(folder, split="train", teacher=letters.fingerprint, tags=True)
    numbers = np.array([int(name[1:]) for name in pairs.photo_ids])
    assert (pairs.has_tags == (numbers % 3 > 0)).all()
    assert (pairs.tags[~pairs.has_tags] == 0).all()
    expected = vectors_of([f"field {number % 7}, tea" for number in numbers[pairs.has_tags]])
    assert pairs.tags[pairs.has_tags] == pytest.approx(expected, abs=1e-3)
    some = pairs.select(np.array([4, 1]))
    assert (some.tags[some.owner == 0] == pairs.tags[pairs.owner == 4]).all()
    assert (
        some.has_tags.tolist()
        == pairs.has_tags[[*np.flatnonzero(pairs.owner == 4), *np.flatnonzero(pairs.owner == 1)]].tolist()
    )
    assert load_pairs(folder, teacher=letters.fingerprint).tags is None


def without_own_tags(folder):
    for path in (folder / "photos.parquet", folder / "plan" / "photos.parquet"):
        pd.read_parquet(path).assign(tags=None).to_parquet(path)


def test_tags_come_of_named_tables_the_first_that_has_some(folder, letters, tmp_path):
    pd.DataFrame({"photo_id": ["p00001", "p00003", "p00004"], "tags": ["oak", " ", None]}).to_parquet(
        tmp_path / "a.parquet"
    )
    later = {
        "photo_id": ["p00003", "p00003", "p00001", "p09999"],
        "tags": ["a", "b", "c", "d"],
        "title": ["T", "U", "V", "W"],
    }
    pd.DataFrame(later).to_parquet(tmp_path / "b.parquet")
    summary = embed_tags(folder, letters, photos=[tmp_path / "a.parquet", tmp_path / "b.parquet"])
    assert summary.tagged == 2
    assert set(letters.texts[1:]) == {"oak", "T, a"}


def test_tags_come_of_the_tables_that_the_pairs_were_made_of(folder, letters, tmp_path):
    without_own_tags(folder)
    with pytest.raises(MissingInput, match="name one that does"):
        embed_tags(folder, letters)
    pd.DataFrame({"photo_id": ["p00005"], "tags": ["elm"]}).to_parquet(tmp_path / "made-of.parquet")
    manifest = read_manifest(folder / "manifest.json")
    manifest.inputs = {**manifest.inputs, "photos": [str(tmp_path / "made-of.parquet")]}
    write_manifest(folder / "manifest.json", manifest)
    assert embed_tags(folder, letters).tagged == 1
    assert letters.texts[-1] == "elm"


def test_what_cannot_be_embedded_is_named(folder, letters, teacher, tmp_path):
    class Blind(LetterTeacher):
        encode_text = Teacher.encode_text

    with pytest.raises(NoTextEncoder):
        embed_tags(folder, Blind())
    with pytest.raises(MissingInput):
        embed_tags(tmp_path / "nowhere", letters, photos=folder / "photos.parquet")
    pd.DataFrame({"photo_id": ["p00005"]}).to_parquet(tmp_path / "plain.parquet")
    with pytest.raises(MissingInput, match="no column tags"):
        embed_tags(folder, letters, photos=tmp_path / "plain.parquet")
    pd.DataFrame({"photo_id": ["p00005"], "tags": [";"]}).to_parquet(tmp_path / "empty.parquet")
    with pytest.raises(EmptyTable, match="has tags in"):
        embed_tags(folder, letters, photos=tmp_path / "empty.parquet")
    content = (tmp_path / "empty.parquet").read_bytes()
    (tmp_path / "empty.parquet").write_bytes(content[:4] + bytes(60) + content[64:])
    with pytest.raises(UnreadableTable, match="damaged"):
        embed_tags(folder, letters, photos=tmp_path / "empty.parquet")
