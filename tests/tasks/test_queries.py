"""Class lists and queries as people type them."""

import numpy as np
import pytest

from geograft.errors import BadQuery, MissingInput
from geograft.tasks.queries import ClassVectors, encode_classes, encode_phrasings, parse_classes, parse_query


def test_semicolons_part_classes_and_commas_phrasings():
    parsed = parse_classes("water; crops,  farmland ;trees, forest;")
    assert [one.name for one in parsed] == ["water", "crops", "trees"]
    assert parsed[1].phrasings == ("crops", "farmland")


def test_a_list_holds_one_class_a_string():
    assert parse_classes(["water", "trees, forest"])[1].phrasings == ("trees", "forest")


@pytest.mark.parametrize("classes", ["", "  ", ";", "water;;trees", "water, ;trees", [], [""]])
def test_an_empty_class_is_refused(classes):
    with pytest.raises(BadQuery):
        parse_classes(classes)


@pytest.mark.parametrize("classes", ["water; trees; Water", "trees, forest; woods, forest", "trees, trees"])
def test_a_name_given_twice_is_refused(classes):
    with pytest.raises(BadQuery, match="twice"):
        parse_classes(classes)


def test_more_classes_than_a_byte_holds_are_refused():
    assert len(parse_classes([f"class {i}" for i in range(255)])) == 255
    with pytest.raises(BadQuery, match="at most 255"):
        parse_classes([f"class {i}" for i in range(256)])


def test_a_query_is_text_photo_or_chip(tmp_path):
    photo = tmp_path / "photo.jpg"
    photo.touch()
    assert parse_query("a harbour, boats").phrasings == ("a harbour", "boats")
    assert parse_query(str(photo)).photo == photo
    assert parse_query(np.zeros((3, 8, 8))).chip.shape == (3, 8, 8)
    assert parse_query("a harbour, boats").label == "a harbour, boats"


def test_a_photo_that_is_absent_is_named(tmp_path):
    with pytest.raises(MissingInput, match=r"absent\.jpg"):
        parse_query(tmp_path / "absent.jpg")


@pytest.mark.parametrize("query", ["", " ", "a,,b", np.zeros((8, 8)), np.zeros((3, 8, 9))])
def test_an_unusable_query_is_refused(query):
    with pytest.raises(BadQuery):
        parse_query(query)


def test_a_class_scores_as_its_best_phrasing():
    vectors = ClassVectors(np.eye(3, dtype=np.float32), np.array([0, 0, 1]), ("a", "b"))
    scores = vectors.scores(np.array([[0.2, 0.9, 0.5], [0.3, 0.1, 0.8]], np.float32))
    np.testing.assert_allclose(scores, [[0.9, 0.5], [0.3, 0.8]], atol=1e-6)


class Spelling:
    """Encodes a text as counts of its letters, so that means are easy to check."""

    def encode_text(self, texts):
        counts = np.array([[text.count(letter) for letter in "abc"] for text in texts], np.float32)
        return counts / np.linalg.norm(counts, axis=1, keepdims=True)


def test_templates_are_averaged_and_scaled_to_length_one():
    vectors = encode_phrasings(Spelling(), ["a", "b"], templates=("{}", "c {}"))
    half = np.sqrt(0.5)
    expected = np.array([1 + half, 0, half])
    np.testing.assert_allclose(vectors[0], expected / np.linalg.norm(expected), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_phrasings_keep_their_classes():
    vectors = encode_classes(Spelling(), parse_classes("a; b, c"), templates=("{}",))
    assert vectors.owner.tolist() == [0, 1, 1]
    assert vectors.names == ("a", "b")


@pytest.mark.parametrize("templates", [(), ("a photo",)])
def test_a_template_without_a_place_for_the_words_is_refused(templates):
    with pytest.raises(BadQuery, match="template"):
        encode_phrasings(Spelling(), ["a"], templates=templates)
