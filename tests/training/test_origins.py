"""A model's card knows where its photos are from."""

import pytest

from geograft.pairs.dataset import load_pairs
from geograft.tables import read_table
from geograft.training.origins import data_facts


def test_places_times_and_licences_are_those_of_the_tables(pairs):
    learn = load_pairs(pairs, split="train")
    facts = data_facts([learn, learn])
    west, south, east, north = learn.table.total_bounds
    assert west <= facts["bounds"][0] <= facts["bounds"][2] <= east
    assert south <= facts["bounds"][1] <= facts["bounds"][3] <= north
    photos = read_table(pairs / "photos.parquet")
    assert sum(facts["photo_licences"].values()) == len(photos)
    assert facts["period"] == [str(photos["taken"].min().date()), str(photos["taken"].max().date())]


def test_a_folder_without_photos_still_says_where(pairs, tmp_path):
    import shutil

    shutil.copytree(pairs, tmp_path / "pairs")
    (tmp_path / "pairs" / "photos.parquet").unlink()
    facts = data_facts([load_pairs(tmp_path / "pairs", split="train")])
    assert set(facts) == {"bounds"}
    assert facts["bounds"][0] == pytest.approx(facts["bounds"][2], abs=1)
