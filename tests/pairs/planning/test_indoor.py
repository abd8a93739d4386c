from collections import Counter

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest

from geograft.errors import EmptyTable, NoTextEncoder
from geograft.models.teacher import Teacher
from geograft.pairs import embeddings
from geograft.pairs.planning import photo_rows
from geograft.pairs.planning.indoor import IndoorCheck, addresses, outdoor
from geograft.pairs.planning.intake import read_photos
from geograft.pairs.settings import Tally

GREY, GREEN, GREENISH = (100, 100, 100), (0, 250, 0), (80, 130, 80)


@pytest.fixture
def look(tmp_path):
    """A function that reads photo tables and leaves indoor photos out; gives the ids kept and the tally."""

    def run(paths, teacher, indoor_margin=0.0):
        tally = Tally()
        photos = read_photos(paths, seed=0, skipped=Counter())
        kept = outdoor(photos, paths, tmp_path / "out", IndoorCheck(teacher, indoor_margin), tally)
        return sorted(kept.ids.to_pylist()), tally

    return run


def table(make_photos, uris, **more):
    return make_photos(np.arange(len(uris)), np.arange(len(uris)), uri=uris, **more)


def test_photos_that_the_teacher_s_text_calls_indoor_are_left_out(make_photos, make_pictures, teacher, look):
    uris = [*make_pictures([GREY, GREEN, GREEN, GREY]), "/nowhere.jpg", None]
    kept, tally = look([table(make_photos, uris)], teacher)
    assert kept == ["p00001", "p00002"]
    assert tally.photos == {"indoor": 2, "unreadable-photo": 2}
    assert tally.about["indoor"]["margin"] == 0
    assert tally.about["indoor"]["teacher"] == "colour"


def test_a_larger_margin_keeps_more(make_photos, make_pictures, teacher, look):
    photos = [table(make_photos, make_pictures([GREY, GREENISH, GREEN]))]
    assert look(photos, teacher)[0] == ["p00002"]
    assert look(photos, teacher, indoor_margin=0.3)[0] == ["p00001", "p00002"]
    kept, tally = look(photos, teacher, indoor_margin=0.9)
    assert len(kept) == 3
    assert tally.photos == {"indoor": 0, "unreadable-photo": 0}
    assert teacher.seen == 3, "embedded once for all margins"


def test_photos_of_several_tables_are_told_each_by_its_own_picture(make_photos, make_pictures, teacher, look):
    uris = make_pictures([GREY, GREEN, GREEN, GREY, GREEN])
    one = table(make_photos, uris[:2], name="one.parquet", ids=["b", "a"])
    two = table(make_photos, uris[2:], name="two.parquet", ids=["a", "c", "d"], place=["x", "y", "z"])
    kept, tally = look([one, two], teacher)
    assert kept == ["a", "d"]
    assert tally.photos["indoor"] == 2
    assert teacher.seen == 4, "a doubled photo is embedded once"


def test_a_killed_run_goes_on_without_embedding_photos_again(make_photos, make_pictures, teacher, look, monkeypatch):
    monkeypatch.setattr(embeddings, "BATCH", 2)
    monkeypatch.setattr(embeddings, "PART_BATCHES", 1)
    photos = [table(make_photos, make_pictures([GREEN, GREY] * 4))]
    whole = teacher.encode_photos

    def dies(images):
        if teacher.seen >= 4:
            raise KeyboardInterrupt
        return whole(images)

    monkeypatch.setattr(teacher, "encode_photos", dies)
    with pytest.raises(KeyboardInterrupt):
        look(photos, teacher)
    monkeypatch.setattr(teacher, "encode_photos", whole)
    kept, tally = look(photos, teacher)
    assert kept == ["p00000", "p00002", "p00004", "p00006"]
    assert tally.photos["indoor"] == 4
    assert teacher.seen == 8


def test_no_photo_left_is_an_error_that_says_why(make_photos, make_pictures, teacher, look):
    with pytest.raises(EmptyTable, match="2 indoor, 1 unreadable-photo"):
        look([table(make_photos, [*make_pictures([GREY, GREY]), "/nowhere.jpg"])], teacher)


def test_ids_that_are_numbers_are_the_same_here_as_in_the_plan(make_photos, make_pictures, teacher, look):
    path = table(make_photos, make_pictures([GREY, GREEN, GREEN]))
    gpd.read_parquet(path).assign(photo_id=pd.array([7, 8, None], "Float64")).to_parquet(path)
    kept, tally = look([path], teacher)
    assert kept == ["8"]
    assert tally.photos == {"indoor": 1, "unreadable-photo": 0}


def test_addresses_are_those_of_the_rows_asked_for(make_photos, monkeypatch):
    monkeypatch.setattr(photo_rows, "BUCKET", 2)
    paths = []
    for name in "ab":
        uris, ids = [f"/{name}{row}.jpg" for row in range(3)], [f"{name}{row}" for row in range(3)]
        paths.append(table(make_photos, uris, name=f"{name}.parquet", ids=ids))
    found = pd.concat(list(addresses(paths, np.array([4, 1, 2]))))
    assert found["photo_id"].tolist() == ["a1", "a2", "b1"]
    assert found["uri"].tolist() == ["/a1.jpg", "/a2.jpg", "/b1.jpg"]


def test_the_prompts_are_encoded_once(teacher, monkeypatch):
    asked = []
    whole = teacher.encode_text
    monkeypatch.setattr(teacher, "encode_text", lambda texts: asked.append(texts) or whole(texts))
    check = IndoorCheck(teacher)
    for _ in range(3):
        assert check.is_indoor(np.array([[1, 1, 1], [0, 1, 0]]) / np.sqrt([[3], [1]])).tolist() == [True, False]
    assert len(asked) == 2


def test_a_teacher_without_text_cannot_tell():
    class Mute(Teacher):
        name, fingerprint, dim = "mute", "0", 3

        def encode_photos(self, images):
            return np.ones((len(images), 3), np.float32)

    with pytest.raises(NoTextEncoder):
        IndoorCheck(Mute()).is_indoor(np.ones((1, 3)))
