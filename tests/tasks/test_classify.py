"""Classes of chips, scenes and folders of images."""

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from geograft.errors import BadSetting, EmptyTable, ModelMismatch
from geograft.tables import read_table
from geograft.tasks.classify import _with_scores, classify
from geograft.tasks.queries import ClassVectors

CLASSES = "red; green; blue, grey"


def test_chips_get_the_class_that_they_look_like(model):
    chips = np.zeros((2, 3, 16, 16), np.uint8)
    chips[0, 0], chips[1, 1] = 200, 200
    found = classify(chips, CLASSES, model=model)
    assert found["label"].tolist() == ["red", "green"]
    assert found[["red", "green", "blue"]].to_numpy().argmax(axis=1).tolist() == [0, 1]


def test_a_scene_is_classified_chip_by_chip_and_written_with_footprints(model, make_scene, tmp_path):
    classify(make_scene(), CLASSES, model=model, out=tmp_path / "classes.parquet")
    found = read_table(tmp_path / "classes.parquet")
    assert isinstance(found, gpd.GeoDataFrame)
    assert found["label"].value_counts().to_dict() == {"red": 4, "green": 4, "blue": 8}
    red = found[found["label"] == "red"].to_crs(32633).total_bounds
    np.testing.assert_allclose(red, [5e5, 5e6 - 32, 5e5 + 32, 5e6], atol=0.01)


def test_both_levels_answer(make_model, make_scene):
    both = make_model(levels=("image", "pixel"))
    image = classify(make_scene(), CLASSES, model=both)
    pixel = classify(make_scene(), CLASSES, model=both, level="pixel")
    assert pixel["label"].value_counts()["red"] == 4
    assert not np.allclose(image["red"], pixel["red"])


def test_a_folder_of_images_is_classified_and_broken_ones_left_out(model, tmp_path):
    for name, colour in (("a.png", (200, 20, 20)), ("deep/b.jpg", (20, 200, 20))):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (50, 40), colour).save(tmp_path / name)
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    found = classify(tmp_path, CLASSES, model=model)
    assert dict(zip(found["chip_id"], found["label"], strict=True)) == {"a.png": "red", "deep/b.jpg": "green"}


def test_plain_images_lack_bands_that_some_models_need(make_model, tmp_path):
    Image.new("RGB", (50, 40)).save(tmp_path / "a.png")
    with pytest.raises(ModelMismatch, match="nir"):
        classify(tmp_path, CLASSES, model=make_model(sensor="naip"))


def test_no_chips_are_refused(model):
    with pytest.raises(EmptyTable):
        classify(np.zeros((0, 3, 16, 16), np.uint8), CLASSES, model=model)


def test_a_class_named_like_a_column_keeps_both():
    vectors = ClassVectors(np.eye(2, dtype=np.float32), np.arange(2), ("size", "b"))
    found = _with_scores(pd.DataFrame({"chip_id": ["x"], "size": [64]}), np.array([[0.5, 0.1]], np.float32), vectors)
    assert found.loc[0, ["label", "size", "size (score)"]].tolist() == ["size", 64, 0.5]


def test_a_class_may_have_the_name_of_a_column(model):
    vectors = ClassVectors(names=("label", "chip_id"), vectors=np.eye(2, dtype=np.float32), owner=np.arange(2))
    found = _with_scores(pd.DataFrame({"chip_id": ["a"]}), np.array([[0.1, 0.9]], np.float32), vectors)
    assert found["label"].tolist() == ["chip_id"]
    np.testing.assert_allclose(found[["label (score)", "chip_id (score)"]], [[0.1, 0.9]])


def test_a_table_of_another_format_is_refused_before_the_work(model, tmp_path):
    with pytest.raises(BadSetting, match=r"\.parquet"):
        classify(np.zeros((1, 3, 16, 16), np.uint8), CLASSES, model=model, out=tmp_path / "classes.csv")
