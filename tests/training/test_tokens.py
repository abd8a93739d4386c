import numpy as np
import pytest
from transformers import AutoTokenizer

from geograft.training.tokens import END, PAD, SPECIAL, START, BrokenWords, learn_tokenizer, tokenise
from geograft.world.classes import CLASSES, SEEN_TEMPLATES

CAPTIONS = [template.format(word) for cover in CLASSES for word in cover.words for template in SEEN_TEMPLATES]
HELD_OUT = [word for cover in CLASSES for word in cover.held_out]


@pytest.fixture(scope="module")
def tokenizer():
    return learn_tokenizer(CAPTIONS, vocabulary=600, context=16)


def test_words_never_seen_break_into_known_pieces(tokenizer):
    ids, mask = tokenise(tokenizer, HELD_OUT)
    assert SPECIAL.index("<unk>") not in ids[mask.bool()].tolist()
    assert tokenizer.batch_decode(ids, skip_special_tokens=True) == [f" {word}" for word in HELD_OUT]


def test_case_makes_no_difference(tokenizer):
    upper, _ = tokenise(tokenizer, ["A Photo of a FOREST"])
    lower, _ = tokenise(tokenizer, ["a photo of a forest"])
    assert upper.tolist() == lower.tolist()


def test_the_tokenizer_reloads_as_it_was(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    texts = [*HELD_OUT, "a very long text " * 20]
    assert again(texts, truncation=True)["input_ids"] == tokenizer(texts, truncation=True)["input_ids"]


def test_a_long_text_is_cut_and_still_ends(tokenizer):
    ids, _ = tokenise(tokenizer, ["woods " * 50])
    assert ids.shape == (1, 16)
    assert (int(ids[0, 0]), int(ids[0, -1])) == (SPECIAL.index(START), SPECIAL.index(END))


def test_unbroken_words_are_the_tokenizers_own(tokenizer):
    ids, mask = BrokenWords(tokenizer, broken=0.0)(CAPTIONS, np.random.default_rng(0))
    expected, expected_mask = tokenise(tokenizer, CAPTIONS)
    assert ids.tolist() == expected.tolist()
    assert mask.tolist() == expected_mask.tolist()


def test_broken_words_still_spell_the_text(tokenizer):
    breaker = BrokenWords(tokenizer, broken=0.4)
    ids, mask = breaker(CAPTIONS, np.random.default_rng(0))
    kept = [[token for token in row if token != SPECIAL.index(PAD)] for row in ids.tolist()]
    shorter = [row for row in kept if row[-1] == SPECIAL.index(END) and len(row) < 16]
    whole = tokenizer.batch_decode(tokenise(tokenizer, CAPTIONS)[0], skip_special_tokens=True)
    assert set(tokenizer.batch_decode(shorter, skip_special_tokens=True)) <= set(whole)
    assert mask.sum() > tokenise(tokenizer, CAPTIONS)[1].sum() * 1.2


def test_the_same_seed_breaks_words_alike(tokenizer):
    draws = [BrokenWords(tokenizer, broken=0.3, seed=seed)(CAPTIONS, np.random.default_rng(5))[0] for seed in (1, 1, 2)]
    assert draws[0].tolist() == draws[1].tolist()
    assert draws[0].tolist() != draws[2].tolist()
