"""Chips to calibrate on: of pairs and scenes, as the model sees them."""

import numpy as np
import pytest

from geograft.errors import EmptyTable, MissingInput
from geograft.tasks.calibration import _sample, calibration_chips


def test_chips_of_scenes_are_the_models_and_the_same_each_time(model, make_scene):
    found = calibration_chips(make_scene(size=100), model, count=20)
    assert found.shape == (20, 3, 16, 16)
    np.testing.assert_array_equal(found, calibration_chips(make_scene(size=100), model, count=20))
    assert len({chip.tobytes() for chip in found}) > 5


def test_a_scene_without_data_has_no_chips(model, write_scene):
    path = write_scene("empty.tif", np.zeros((3, 64, 64), np.uint8), sensor="rgb", nodata=0)
    with pytest.raises(EmptyTable, match="no chip with data"):
        calibration_chips(path, model, count=4)


def test_a_source_that_is_not_there_is_named(model, tmp_path):
    with pytest.raises(MissingInput, match=r"away\.tif"):
        calibration_chips(tmp_path / "away.tif", model)


def test_a_sample_takes_each_item_as_often_as_any_other():
    rng = np.random.default_rng(0)
    counts = np.zeros(20)
    for _ in range(4000):
        counts[_sample(iter(range(20)), 5, rng)] += 1
    assert abs(counts / 1000 - 1).max() < 0.15
    assert _sample(iter(range(3)), 5, rng) == [0, 1, 2]
