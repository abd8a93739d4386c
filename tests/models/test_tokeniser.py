import json
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geograft.models.tokeniser import CONTEXT, END, canonical, clean, clip_tokenizer

REFERENCE = json.loads(Path(__file__).with_name("clip_ids.json").read_text())
"""Texts and ids of the reference implementation; `make_clip_ids.py` says how they were made."""


@pytest.mark.parametrize("entry", REFERENCE, ids=lambda entry: ascii(entry["text"])[:30])
def test_the_ids_are_those_of_the_reference_implementation(entry):
    found = clip_tokenizer()([entry["text"]], truncation=True, max_length=CONTEXT)["input_ids"][0]
    assert found == entry["ids"]


def test_the_vocabulary_is_that_of_the_released_models():
    vocabulary = clip_tokenizer().get_vocab()
    assert len(vocabulary) == 49408
    assert vocabulary[END] == clip_tokenizer().eos_token_id == 49407
    assert sorted(vocabulary.values()) == list(range(49408))
    assert (vocabulary["photo</w>"], vocabulary["!"]) == (1125, 0)


def test_a_single_text_is_taken_as_a_list_of_texts_is():
    tokenizer = clip_tokenizer()
    assert tokenizer("A Forest’s edge")["input_ids"] == tokenizer(["a forest's edge"])["input_ids"][0]


def test_no_text_ends_itself_early():
    ids = clip_tokenizer()(["a <|endoftext|> b"])["input_ids"][0]
    assert ids.count(49407) == 1


def test_padding_stands_on_the_right_and_reads_as_the_end():
    ids = clip_tokenizer()(["a", "a photo of a forest"], padding="longest")["input_ids"]
    assert ids[0] == [49406, 320, 49407, 49407, 49407, 49407, 49407]


def test_the_vocabulary_of_transformers_gives_the_same_ids_to_plain_texts(tmp_path):
    from transformers import AutoTokenizer

    clip_tokenizer().save_pretrained(tmp_path)
    texts = ["a photo of a forest", "Häuser am Fluss, 1990"]
    other = AutoTokenizer.from_pretrained(tmp_path)
    assert other(texts)["input_ids"] == clip_tokenizer()(texts)["input_ids"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The farmer’s “field”", 'the farmer\'s "field"'),
        ("schÃ¶n", "schã¶n"),  # wrongly decoded text is not guessed at
        ("cafe\u0301", "café"),
        ("&amp;lt;b&amp;gt;", "<b>"),
        ("a\x00b\x0bc d\u3000e", "abc d e"),
        ("ﬁre", "fire"),
        ("", ""),
    ],
)
def test_texts_are_cleaned_as_in_training(text, expected):
    assert clean(text) == expected


def test_siglips_first_version_reads_no_punctuation():
    assert canonical("  A photo: of a Farmer's_field!\n") == "a photo of a farmersfield"


@given(st.text())
def test_any_text_has_ids_between_a_start_and_an_end(text):
    ids = clip_tokenizer()([text], truncation=True, max_length=CONTEXT)["input_ids"][0]
    assert (ids[0], ids[-1]) == (49406, 49407)
    assert max(ids[1:-1], default=0) < 49406
    assert len(ids) <= CONTEXT


def test_the_tokeniser_travels_to_other_processes():
    again = pickle.loads(pickle.dumps(clip_tokenizer()))
    assert again(["A Forest’s edge"])["input_ids"] == clip_tokenizer()(["A Forest’s edge"])["input_ids"]
