import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geograft.hashing import hash_ids, mix

SALT = "visit 0"
KEY = f"{SALT:<16}"


def by_pandas(ids):
    """The same by pandas: its SipHash, too, ends in the finaliser of SplitMix64."""
    return pd.util.hash_array(np.array(ids, dtype=object), hash_key=KEY, categorize=False)


@settings(deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=20))
def test_hashes_are_the_siphash_of_any_text(ids):
    assert hash_ids(ids, SALT).tolist() == by_pandas(ids).tolist()


def test_every_length_of_id_up_to_some_words_is_hashed_whole():
    ids = ["é" * (length % 2) + "x" * length for length in range(70)]
    found = hash_ids(ids, SALT)
    assert found.tolist() == by_pandas(ids).tolist()
    assert len(set(found.tolist())) == 70


@pytest.mark.parametrize(
    "ids",
    [
        pa.array(["zero", "a", "bb", "", "ü"])[1:],
        pa.array(["zero", "a", "bb", "", "ü", "five"], pa.large_string())[1:5],
        pa.chunked_array([["a"], [], ["bb", "", "ü"]], pa.string()),
        pa.chunked_array([pa.array(["zero", "a", "bb"])[1:], pa.array(["", "ü"])]),
        pa.array(["a", "bb", "", "ü"]).dictionary_encode(),
        pa.array(["a", "bb", "", "ü"], pa.string_view()),
        np.array(["a", "bb", "", "ü"], dtype=object),
        pd.Series(["a", "bb", "", "ü"], dtype="string[pyarrow]"),
        pd.Series(["a", "bb", "", "ü"]).astype("category"),
    ],
    ids=["slice", "large-slice", "chunks", "chunks-of-slices", "dictionary", "views", "objects", "strings", "category"],
)
def test_hashes_are_the_same_however_the_ids_are_held(ids):
    assert hash_ids(ids, SALT).tolist() == by_pandas(["a", "bb", "", "ü"]).tolist()


@pytest.mark.parametrize("ids", [[], pa.array([], pa.string()), pa.chunked_array([], pa.string())])
def test_no_ids_have_no_hashes(ids):
    assert hash_ids(ids, SALT).shape == (0,)
    assert hash_ids(ids, SALT).dtype == np.uint64


def test_hashes_depend_on_id_and_salt_only():
    ids = np.array(["a", "b", "c"], dtype=object)
    assert hash_ids(ids, "x").tolist() == hash_ids(ids[::-1], "x")[::-1].tolist()
    assert not set(hash_ids(ids, "x").tolist()) & set(hash_ids(ids, "y").tolist())
    assert len(set(mix(hash_ids(ids, "x"), hash_ids(ids, "y")).tolist())) == 3


def test_all_of_a_long_salt_counts():
    salts = ["visit 1234567890", "visit 12345678901", "visit 12345678902", "visit 123456789023", "é" * 9, "é" * 10]
    assert len({int(hash_ids(["a"], salt)[0]) for salt in salts}) == len(salts)


def test_hashes_fill_the_range_evenly():
    shares = hash_ids([f"photo-{row}" for row in range(20_000)], SALT).astype(float) / 2**64
    counts, _ = np.histogram(shares, bins=20, range=(0, 1))
    assert counts.min() > 850
    assert counts.max() < 1150


def test_hashes_stay_the_same_from_release_to_release():
    assert hash_ids(["p00001"], "visit 0").tolist() == [1183353558168741133]
