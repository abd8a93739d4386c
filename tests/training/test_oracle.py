import json

import numpy as np
import pytest

from geograft.errors import CheckpointMismatch, EmptyTable, ModelMismatch, UnknownModel
from geograft.models.satellite import PRESETS
from geograft.pairs.dataset import load_pairs
from geograft.training.oracle import OracleSettings, load_oracle, train_oracle
from geograft.world.classes import CLASSES
from geograft.world.labels import truth_for_chips

TINY = {"image_size": 64, "patch_size": 16, "width": 32, "depth": 1, "heads": 2}


@pytest.fixture
def trained(pairs, region, tmp_path, monkeypatch):
    monkeypatch.setitem(PRESETS, "tiny", TINY)
    settings = OracleSettings(preset="tiny", epochs=25, batch=16, lr=5e-3)
    return train_oracle(pairs, [region], tmp_path / "oracle", validation=(pairs, [region]), settings=settings)


def test_the_oracle_learns_what_the_truth_says(trained, pairs, region):
    oracle = load_oracle(trained.folder)
    chips = load_pairs(pairs)
    cover = truth_for_chips([region], chips.table).cover
    known = cover > 0
    right = (oracle.segment(chips.chips) == cover)[known].mean()
    commonest = np.bincount(cover[known]).max() / known.sum()
    assert right > commonest
    assert oracle.classify(chips.chips).shape == (len(chips), len(CLASSES))


def test_a_saved_oracle_says_the_same(trained, pairs):
    chips = load_pairs(pairs).chips
    first, again = load_oracle(trained.folder), load_oracle(trained.folder)
    np.testing.assert_array_equal(first.segment(chips), again.segment(chips))


def test_an_oracle_of_other_classes_is_refused(trained):
    path = trained.folder / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "classes": config["classes"][1:]}))
    with pytest.raises(CheckpointMismatch, match="other classes"):
        load_oracle(trained.folder)


def test_pixels_of_other_bands_are_refused(trained):
    with pytest.raises(ModelMismatch, match="red, green, blue, nir"):
        load_oracle(trained.folder).segment(np.zeros((1, 3, 64, 64), np.uint8))


def test_an_absent_oracle_is_named(tmp_path):
    with pytest.raises(UnknownModel):
        load_oracle(tmp_path)


def test_chips_outside_the_regions_are_refused(pairs, region, tmp_path):
    with pytest.raises(EmptyTable, match="None of the chips"):
        train_oracle(pairs, [], tmp_path / "oracle", validation=(pairs, [region]))
