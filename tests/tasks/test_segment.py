"""Maps from words: right classes in the right place, on the right grid, in files that GIS programs colour."""

import logging

import numpy as np
import pytest
import rasterio

from geograft.errors import BadQuery, BadSetting, ModelMismatch, SceneTooSmall
from geograft.raster import open_scene
from geograft.tasks.queries import encode_classes, parse_classes
from geograft.tasks.segment import blend_weight, dense_map, segment, text_scorer
from geograft.tasks.windows import open_view

CLASSES = "red; green; blue; grey"


def inner(labels, margin=8):
    """The middle of each quarter of a map."""
    half = labels.shape[0] // 2
    quarters = [labels[r : r + half, c : c + half] for r in (0, half) for c in (0, half)]
    return [quarter[margin:-margin, margin:-margin] for quarter in quarters]


def test_every_quarter_of_a_painted_scene_gets_its_word(model, make_scene):
    found = segment(make_scene(), CLASSES, model=model)
    for number, quarter in enumerate(inner(found.labels), start=1):
        assert (quarter == number).mean() > 0.95
    assert found.classes == ("red", "green", "blue", "grey")
    assert sum(found.shares().values()) == pytest.approx(1)


def test_the_order_of_the_classes_numbers_them(model, make_scene):
    found = segment(make_scene(), "grey; blue; green; red", model=model)
    assert [np.bincount(quarter.ravel()).argmax() for quarter in inner(found.labels)] == [4, 3, 2, 1]


def test_a_synonym_lets_its_class_win(model, make_scene):
    found = segment(make_scene(), "green, red; blue, grey", model=model)
    assert [np.bincount(quarter.ravel()).argmax() for quarter in inner(found.labels)] == [1, 1, 2, 2]


def test_the_window_size_does_not_change_the_map(model, make_scene):
    view = open_view(open_scene(make_scene(size=100)), sensor=model.sensor, gsd=1.0)
    scorer = text_scorer(model, encode_classes(model, parse_classes(CLASSES)), "pixel")
    maps = [dense_map(view, scorer, size=16, classes=4, window=w, batch=b) for w, b in ((100, 64), (32, 7), (45, 64))]
    for labels, scores in maps[1:]:
        assert (labels == maps[0][0]).mean() > 0.999
        np.testing.assert_allclose(scores, maps[0][1], atol=2e-3)


def test_a_crop_gets_the_same_classes_away_from_its_border(model, make_scene, write_scene):
    path = make_scene(size=96)
    whole = segment(path, CLASSES, model=model).labels
    with rasterio.open(path) as file:
        crop = write_scene("crop.tif", file.read()[:, 16:80, 24:88])
    assert (segment(crop, CLASSES, model=model).labels[16:-16, 16:-16] == whole[32:64, 40:72]).all()


def test_blend_weights_are_positive_and_sum_to_one_at_half_a_chip():
    weight = blend_weight(16)
    assert weight.min() > 0
    overlapped = weight[:8, :8] + weight[8:, :8] + weight[:8, 8:] + weight[8:, 8:]
    np.testing.assert_allclose(overlapped, 1, atol=1e-6)


def test_no_data_stays_no_data(model, tmp_path, make_scene):
    path = make_scene(nodata=0)
    with rasterio.open(path) as file:
        pixels, profile = file.read(), file.profile
    pixels[:, :20, :30] = 0
    with rasterio.open(tmp_path / "holes.tif", "w", **{**profile, "driver": "GTiff"}) as file:
        file.write(pixels)
        file.descriptions = ("red", "green", "blue")
    found = segment(tmp_path / "holes.tif", CLASSES, model=model, sensor="rgb")
    assert (found.labels[:20, :30] == 0).all()
    assert np.isnan(found.scores[:20, :30]).all()
    assert (found.labels[20:] > 0).all()
    assert (found.picture()[:20, :30] == 0).all()


def test_the_file_holds_classes_colours_names_and_provenance(model, make_scene, tmp_path):
    out = tmp_path / "map.tif"
    found = segment(make_scene(), "red; green, grey; blue", model=model, out=out)
    with rasterio.open(out) as file:
        assert file.crs.to_epsg() == 32633
        assert file.read(1).tolist() == found.labels.tolist()
        assert file.colormap(1)[2] == (*found.colours[1], 255)
        assert file.nodata == 0
        assert file.tags()["GEOGRAFT_CLASSES"] == "red; green, grey; blue"
        assert file.tags()["GEOGRAFT_MODEL"] == model.fingerprint
    assert "<Category>green</Category>" in (tmp_path / "map.tif.aux.xml").read_text()


def test_scores_are_written_with_scale_and_offset(model, make_scene, tmp_path):
    found = segment(make_scene(), CLASSES, model=model)
    found.to_cog(tmp_path / "map.tif", scores=tmp_path / "scores.tif")
    with rasterio.open(tmp_path / "scores.tif") as file:
        values = file.read(1) * file.scales[0] + file.offsets[0]
    np.testing.assert_allclose(values, found.scores.astype(np.float32), atol=0.006)


def test_a_coarser_scene_is_resampled_and_that_is_said(model, make_scene, caplog):
    with caplog.at_level(logging.WARNING):
        found = segment(make_scene(resolution=2.0), CLASSES, model=model)
    assert found.labels.shape == (128, 128)
    assert "resampled from 2 m to 1 m" in caplog.text
    assert "resampled from 2 m" in found.tags["GEOGRAFT_GRID"]
    assert [np.bincount(quarter.ravel()).argmax() for quarter in inner(found.labels)] == [1, 2, 3, 4]


def test_a_scene_in_degrees_is_mapped_in_metres(model, make_scene):
    scene = make_scene(crs="EPSG:4326", resolution=2e-5, origin=(15.0, 45.0))
    found = segment(scene, CLASSES, model=model)
    assert found.geobox.crs.epsg == 32633
    assert found.geobox.resolution.x == 1
    counts = np.bincount(found.labels.ravel(), minlength=5)
    assert (counts[1:] > 0.15 * found.labels.size).all()


def test_a_scene_smaller_than_a_chip_is_refused(model, make_scene):
    with pytest.raises(SceneTooSmall, match="a chip needs 16 x 16"):
        segment(make_scene(size=12), CLASSES, model=model)


def test_a_scene_that_lacks_a_band_is_refused(make_model, make_scene):
    with pytest.raises(ModelMismatch, match="nir"):
        segment(make_scene(), CLASSES, model=make_model(sensor="naip"))


def test_a_level_that_the_model_lacks_is_refused(model, make_scene):
    with pytest.raises(ModelMismatch, match="image"):
        segment(make_scene(), CLASSES, model=model, level="image")


@pytest.mark.parametrize("stride", [0, 17])
def test_a_stride_that_leaves_gaps_is_refused(model, make_scene, stride):
    with pytest.raises(BadSetting, match="stride"):
        segment(make_scene(), CLASSES, model=model, stride=stride)


def test_an_empty_class_list_is_refused_before_anything_is_read(model, tmp_path):
    with pytest.raises(BadQuery):
        segment(tmp_path / "absent.tif", " ", model=model)
