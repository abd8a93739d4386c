import numpy as np
import pandas as pd
import pytest

from geograft.errors import NoTextEncoder
from geograft.models.teacher import Teacher
from geograft.pairs.indoor import IndoorCheck, keep_outdoor

GREY, GREEN = (100, 100, 100), (0, 250, 0)


def table(uris):
    return pd.DataFrame({"photo_id": [f"p{row}" for row in range(len(uris))], "uri": uris})


def test_photos_that_the_teacher_s_text_calls_indoor_are_left_out(make_pictures, teacher, tmp_path):
    photos = table([*make_pictures([GREY, GREEN, GREEN]), "/nowhere.jpg"])
    kept, counts = keep_outdoor(photos, IndoorCheck(teacher), tmp_path)
    assert kept["photo_id"].tolist() == ["p1", "p2"]
    assert counts == {"indoor": 1, "unreadable-photo": 1}


def test_a_larger_margin_keeps_more(make_pictures, teacher, tmp_path):
    photos = table(make_pictures([GREY, GREEN]))
    kept, counts = keep_outdoor(photos, IndoorCheck(teacher, margin=0.9), tmp_path)
    assert len(kept) == 2
    assert counts == {}


def test_embeddings_are_kept_for_training(make_pictures, teacher, tmp_path):
    photos = table(make_pictures([GREY, GREEN]))
    keep_outdoor(photos, IndoorCheck(teacher), tmp_path)
    keep_outdoor(photos, IndoorCheck(teacher), tmp_path)
    assert teacher.seen == 2


def test_a_teacher_without_text_cannot_tell():
    class Mute(Teacher):
        name, fingerprint, dim = "mute", "0", 3

        def encode_photos(self, images):
            return np.ones((len(images), 3), np.float32)

    with pytest.raises(NoTextEncoder):
        IndoorCheck(Mute()).is_indoor(np.ones((1, 3)))
