"""The card World-1: who knows everything gets 1, who guesses gets chance, and all see the same chips."""

import numpy as np
import pytest

from geograft.errors import BadSetting, MissingInput, SceneTooSmall
from geograft.evaluate.methods import SupervisedMethod, graft_method, teacher_method, window_starts
from geograft.evaluate.regions import clearest_scene, coarsen_classes, load_region
from geograft.evaluate.results import read_results
from geograft.evaluate.run import diagnose_card, evaluate_card
from geograft.evaluate.world1 import World1Settings, class_words, evaluate_method, evaluate_world1
from geograft.raster import write_cog
from geograft.world.classes import CLASSES

COUNT = len(CLASSES)


def knowing(pixels):
    """Class index of every pixel, read from the red band of the test's regions."""
    return pixels[:, 0].astype(np.int64) // 10 - 1


def whole(pixels):
    """Scores of chips: how much of each class they hold."""
    return np.stack([(knowing(pixels) == index).mean(axis=(1, 2)) for index in range(COUNT)], axis=1)


@pytest.fixture
def region(make_region_folder):
    return load_region(make_region_folder(), "world-1m", chip=(32, 32), per_class=60)


def values(rows):
    return {row.metric: row.value for row in rows}


def test_who_knows_everything_gets_one(region):
    rows, classes = evaluate_method(SupervisedMethod("oracle", whole, knowing), region)
    assert values(rows) == dict.fromkeys(("top1", "balanced", "map20", "map100", "miou", "pixel_accuracy"), 1.0)
    assert {row.value for row in classes} == {1.0}
    assert {row.label for row in classes} == {one.name for one in CLASSES}


def test_who_guesses_gets_chance(region):
    draw = np.random.default_rng(0)
    guessing = SupervisedMethod(
        "oracle",
        lambda pixels: draw.random((len(pixels), COUNT)).astype(np.float32),
        lambda pixels: draw.integers(0, COUNT, (len(pixels), 32, 32)),
    )
    found = values(evaluate_method(guessing, region)[0])
    assert found["pixel_accuracy"] == pytest.approx(1 / COUNT, abs=0.01)
    assert found["miou"] < 2 / COUNT
    assert found["top1"] < 4 / COUNT
    assert found["map100"] < 0.3


def test_shifted_truth_is_wrong_everywhere(region):
    wrong = SupervisedMethod("oracle", lambda p: np.roll(whole(p), 1, axis=1), lambda p: (knowing(p) + 1) % COUNT)
    found = values(evaluate_method(wrong, region)[0])
    assert found["top1"] == found["miou"] == found["pixel_accuracy"] == 0


def test_a_random_model_runs_through_the_whole_card(make_region_folder, make_model, tmp_path):
    make_region_folder(301)
    make_region_folder(302)
    settings = World1Settings(model_10m="", oracle_1m="", seeds=(301, 302), size=512)
    found = evaluate_world1(tmp_path / "work", settings=settings, models={"world-1m": make_model()})
    keys = {(row.method, row.metric, row.seed, row.phrasing) for row in found.results}
    assert len(keys) == len(found.results) == 3 * 6 * 2 * 2
    assert {row.method for row in found.results} == {"teacher", "graft-image", "graft-pixel"}
    assert all(0 <= row.value <= 1 for row in found.results)
    assert found.value("graft-pixel", "top1", sensor="world-1m") < 0.3
    assert set(found.provenance.models) == {"model world-1m", "teacher"}


def test_all_methods_see_the_same_chips(region, make_model):
    model = make_model()
    words = class_words(model)
    seen = []
    for method in (teacher_method(model.teacher, model.sensor, words), graft_method(model, "pixel", words)):
        _, classes = evaluate_method(method, region)
        seen.append({(row.metric, row.label, row.count) for row in classes if row.phrasing == "seen"})
    assert seen[0] == seen[1]


def test_seen_and_held_out_words_are_scored_apart(region, make_model):
    model = make_model()
    rows, _ = evaluate_method(graft_method(model, "image", class_words(model)), region)
    assert values([r for r in rows if r.phrasing == "seen"]) != values([r for r in rows if r.phrasing == "held-out"])


def test_common_classes_are_thinned_by_a_seeded_draw(make_region_folder):
    folder = make_region_folder()
    few, again = (load_region(folder, "world-1m", chip=(32, 32), per_class=3) for _ in range(2))
    assert (few.picked == again.picked).all()
    assert np.bincount(few.labels[few.picked]).max() == 3
    assert (few.labels[few.picked] >= 0).all()
    assert len(few.mapped) == 256


def test_chips_may_overlap_while_maps_lie_side_by_side(make_region_folder):
    region = load_region(make_region_folder(), "world-1m", chip=(32, 16), per_class=60)
    assert len(region.corners) == 31 * 31
    assert len(region.mapped) == 16 * 16
    assert region.truths(region.mapped).size == region.truth.size


def test_a_pixel_of_ten_metres_has_its_commonest_class():
    fine = np.full((20, 20), 4, np.uint8)
    fine[:10, :10][:4] = 9
    fine[10:, 10:][:6] = 2
    assert coarsen_classes(fine, 10).tolist() == [[4, 4], [4, 2]]
    assert coarsen_classes(fine, 1) is fine


def test_the_clearest_scene_is_taken(make_region_folder):
    folder = make_region_folder()
    first = clearest_scene(folder, "world-1m")
    write_cog(folder / "scenes" / "world-1m_2022-06-24_clouds.tif", np.ones(first.geobox.shape, np.uint8), first.geobox)
    later = folder / "scenes" / "world-1m_2023-02-09.tif"
    later.write_bytes((folder / "scenes" / "world-1m_2022-06-24.tif").read_bytes())
    assert clearest_scene(folder, "world-1m").path.endswith("2023-02-09.tif")


def test_windows_of_the_teacher_lie_inside_and_spread():
    assert window_starts(64) == (0, 8, 24, 32)
    assert all(0 <= start <= 16 for start in window_starts(32))


def test_a_region_without_truth_or_sensor_is_named(make_region_folder):
    folder = make_region_folder()
    with pytest.raises(MissingInput, match="world-10m"):
        load_region(folder, "world-10m", chip=(32, 32), per_class=3)
    (folder / "truth" / "classes.tif").unlink()
    with pytest.raises(MissingInput, match="truth"):
        load_region(folder, "world-1m", chip=(32, 32), per_class=3)


def test_a_region_smaller_than_a_chip_is_refused(make_region_folder):
    with pytest.raises(SceneTooSmall):
        load_region(make_region_folder(), "world-1m", chip=(1024, 1024), per_class=3)


def test_nothing_to_evaluate_is_said(tmp_path):
    with pytest.raises(BadSetting, match="at least one sensor"):
        evaluate_world1(tmp_path, settings=World1Settings(model_1m="", model_10m=""))
    with pytest.raises(BadSetting, match="world-1"):
        evaluate_card("eurosat", work=tmp_path)


def test_the_card_runs_by_name_and_writes_its_file(make_region_folder, make_model, tmp_path, monkeypatch):
    make_region_folder(301, size=512)
    monkeypatch.setattr("geograft.evaluate.run.QUICK_SIZE", 512)
    monkeypatch.setattr("geograft.evaluate.world1.load_model", lambda _name: make_model(levels=("pixel",)))
    config = tmp_path / "mine.yaml"
    config.write_text("model_10m: ''\noracle_1m: ''\nchips_per_class: 5\n")
    found = evaluate_card("world-1", work=tmp_path / "work", out=tmp_path / "r.json", quick=True, config=config)
    assert {row.seed for row in found.results} == {301}
    assert found.provenance.settings["size"] == 512
    assert read_results(tmp_path / "r.json").to_dict() == found.to_dict()


def test_a_diagnosis_sets_words_beside_a_probe(make_region_folder, make_model, tmp_path, monkeypatch):
    make_region_folder(301, size=512)
    make_region_folder(201, size=512)
    monkeypatch.setattr("geograft.evaluate.run.QUICK_SIZE", 512)
    monkeypatch.setattr("geograft.evaluate.world1.load_model", lambda _name: make_model(levels=("pixel",)))
    config = tmp_path / "mine.yaml"
    config.write_text("model_10m: ''\noracle_1m: ''\n")
    text = diagnose_card("world-1", work=tmp_path / "work", quick=True, config=config)
    assert "## world-1m" in text
    assert "| words |" in text
    assert "| probe |" in text


def test_only_a_pixel_level_on_world_1_is_diagnosed(make_model, tmp_path, monkeypatch):
    with pytest.raises(BadSetting, match="walks"):
        diagnose_card("walks", work=tmp_path)
    monkeypatch.setattr("geograft.evaluate.world1.load_model", lambda _name: make_model(levels=("image",)))
    with pytest.raises(BadSetting, match="pixel level"):
        diagnose_card("world-1", work=tmp_path, quick=True)
