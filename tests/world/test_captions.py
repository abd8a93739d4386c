import re

import numpy as np
import pytest

from geograft.world.camera import Poses
from geograft.world.captions import count_in_view, with_article, write_captions
from geograft.world.classes import BY_NAME, CLASSES, HELD_OUT_TEMPLATES
from geograft.world.terrain import make_land

FOREST, LAKE, HOUSES = (BY_NAME[n].id for n in ("forest", "lake", "houses"))


def captions_of(shares, *, count=1, things=None, seed=0, **pose):
    seen = np.zeros((count, 256), np.float32)
    for class_id, share in shares.items():
        seen[:, class_id] = share
    counts = np.zeros((count, 256), int)
    for class_id, number in (things or {}).items():
        counts[:, class_id] = number
    return write_captions(seen, Poses.of(x=np.zeros(count), y=0, **pose), counts, seed)


def all_captions():
    """Captions of every class beside every other, in all seasons."""
    rng = np.random.default_rng(0)
    seen = np.zeros((1500, 256), np.float32)
    for row in range(len(seen)):
        chosen = rng.choice(len(CLASSES), 3, replace=False) + 1
        seen[row, chosen] = (0.5, 0.2, 0.1)
    poses = Poses.of(x=np.zeros(1500), y=0, season=rng.uniform(0, 365, 1500), hour=rng.uniform(6, 20, 1500), haze=1.5)
    return write_captions(seen, poses, rng.integers(0, 12, (1500, 256)), 5)


@pytest.fixture(scope="module")
def many():
    return all_captions()


def test_each_photo_has_three_to_five_different_captions(many):
    numbers = [len(captions) for captions in many]
    assert min(numbers) >= 3
    assert max(numbers) == 5
    assert all(len(set(captions)) == len(captions) for captions in many)


def test_every_class_and_every_word_occurs(many):
    text = "\n".join(caption for captions in many for caption in captions)
    for cover in CLASSES:
        for word in cover.words:
            assert re.search(rf"\b{word}\b", text), word


def test_no_held_out_word_occurs(many):
    allowed = sorted((word for cover in CLASSES for word in cover.words), key=len, reverse=True)
    usual = re.compile("|".join(rf"\b{re.escape(word)}\b" for word in allowed))
    rest = "\n".join(usual.sub("_", caption) for captions in many for caption in captions)
    for cover in CLASSES:
        for word in cover.held_out:
            assert not re.search(rf"\b{word}\b", rest), word


def test_no_held_out_phrasing_occurs(many):
    text = "\n".join(caption for captions in many for caption in captions)
    for template in HELD_OUT_TEMPLATES:
        assert template.replace("{}", "").strip() not in text


def test_the_first_caption_names_what_fills_the_picture(many):
    forest = captions_of({FOREST: 0.8, LAKE: 0.01}, count=30)
    words = BY_NAME["forest"].words
    assert all(any(word in captions[0] for word in words) for captions in forest)


def test_relations_join_two_things():
    text = "\n".join("\n".join(c) for c in captions_of({LAKE: 0.5, FOREST: 0.2}, count=60))
    for relation in ("next to", "behind", "near", " and "):
        assert relation in text


@pytest.mark.parametrize(
    ("number", "word"), [(1, "one house"), (2, "two houses"), (5, "several houses"), (20, "many houses")]
)
def test_numbers_are_said(number, word):
    text = "\n".join("\n".join(c) for c in captions_of({HOUSES: 0.6}, count=40, things={HOUSES: number}))
    assert word in text


def test_the_season_and_the_time_of_day_are_said():
    text = "\n".join("\n".join(c) for c in captions_of({FOREST: 0.6}, count=40, season=10, hour=18.5))
    assert "in winter" in text
    assert "in the evening" in text


def test_an_indoor_photo_is_called_a_room():
    text = " ".join(captions_of({})[0])
    assert "room" in text or "indoors" in text or "inside" in text


def test_the_seed_decides():
    first, same, other = (captions_of({LAKE: 0.5, FOREST: 0.2}, count=9, seed=s) for s in (1, 1, 2))
    assert first == same
    assert first != other


@pytest.mark.parametrize(
    ("word", "said"), [("lake", "a lake"), ("airfield", "an airfield"), ("houses", "houses"), ("quarry", "a quarry")]
)
def test_articles(word, said):
    assert with_article(word) == said


def test_buildings_in_front_of_the_camera_are_counted_and_those_behind_are_not():
    land = make_land(7, 512)
    land.cover[:], land.height[:], land.material[:] = BY_NAME["grassland"].id, 0, 0
    from geograft.world.materials import INDEX

    for column in (200, 230, 260):
        land.cover[100:110, column : column + 10] = HOUSES
        land.height[100:110, column : column + 10] = 7
        land.material[100:110, column : column + 10] = INDEX["red tile roof"]
    poses = Poses.of(x=[235, 235], y=140, heading_deg=[0, 180], fov_deg=90)
    assert count_in_view(land, poses)[:, HOUSES].tolist() == [3, 0]
