"""The diagnosis: words, probe and oracle on the same pixels, and what is taken for what."""

import dataclasses
import json

import numpy as np
import pytest

from geograft.errors import BadSetting, EmptyTable, ModelMismatch
from geograft.evaluate.diagnosis import Diagnosis, Reading, diagnose
from geograft.evaluate.methods import graft_method
from geograft.evaluate.regions import load_region
from geograft.evaluate.world1 import class_words, evaluate_method
from geograft.world.classes import CLASSES

COUNT = len(CLASSES)
NAMES = [one.name for one in CLASSES]


class Knowing:
    """An oracle that reads the class off the red band of the test's regions."""

    def segment(self, pixels):
        return pixels[:, 0] // 10


@pytest.fixture
def load(make_region_folder):
    def make(seed, **changes):
        folder = make_region_folder(seed, **changes)
        return load_region(folder, "world-1m", chip=(32, 32), per_class=60)

    return make


@pytest.fixture
def found(load, make_model):
    model = make_model()
    words = class_words(model)["seen"]
    return diagnose(model, regions=[load(301)], probe_regions=[load(1), load(2)], words=words, oracle=Knowing())


def test_a_probe_reads_what_the_words_of_a_random_model_cannot(found):
    assert found.oracle.miou == 1
    assert found.words.miou < 0.1
    assert found.probe.miou > 0.8
    assert found.share_of_oracle == round(found.words.miou, 4)
    assert found.share_of_probe == round(found.words.miou / found.probe.miou, 4)


def test_words_are_measured_as_the_card_measures_them(found, load, make_model):
    model, region = make_model(), load(301)
    rows, _ = evaluate_method(graft_method(model, "pixel", class_words(model)), region)
    card = {row.metric: row.value for row in rows if row.phrasing == "seen"}
    assert found.words.miou == pytest.approx(card["miou"])
    assert found.words.pixel_accuracy == pytest.approx(card["pixel_accuracy"])


def reading(*rows):
    counts = np.zeros((COUNT, COUNT + 1), np.int64)
    for truth, guess, count in rows:
        counts[NAMES.index(truth), COUNT if guess is None else NAMES.index(guess)] = count
    return Reading({301: counts})


def test_confusions_name_the_commonest_mistakes_with_their_shares():
    one = reading(
        ("lake", "lake", 50), ("lake", "river", 30), ("lake", "beach", 5), ("lake", "harbour", 10),
        ("lake", "road", 5), ("road", "road", 7),
    )  # fmt: skip
    assert one.confusions() == {"lake": [("river", 0.3), ("harbour", 0.1), ("beach", 0.05)], "road": []}
    assert one.confusions(most=1)["lake"] == [("river", 0.3)]


def test_pixels_of_no_class_are_wrong_but_no_confusion():
    one = reading(("lake", "lake", 6), ("lake", None, 4))
    assert one.confusions() == {"lake": []}
    assert one.recall[0] == 0.6


def test_figures_are_means_over_regions_and_classes_are_summed():
    first, second = reading(("lake", "lake", 10)), reading(("lake", "river", 30))
    both = Reading({301: first.counts[301], 302: second.counts[301]})
    assert both.miou == 0.5
    assert both.pixel_accuracy == 0.5
    assert both.recall[0] == 0.25


def test_the_diagnosis_is_a_table_for_people_and_plain_values_for_programs(found):
    text = found.to_markdown()
    assert "| words | 0.0" in text
    assert "| oracle | 1.000 | 1.000 | 100% |" in text
    assert all(f"| {name} |" in text for name in NAMES)
    plain = json.loads(json.dumps(found.to_dict()))
    assert plain["regions"] == [301]
    assert plain["oracle"]["miou"] == 1
    assert 1 <= len(plain["classes"]["lake"]["taken_for"]) <= 3
    widths = {line.count("|") for line in text.split("\n| class |")[1].splitlines()[1:] if line}
    assert len(widths) == 1


def test_without_an_oracle_the_probe_is_the_measure():
    lone = Diagnosis("m", "world-1m", "pixel", reading(("lake", "river", 1)), reading(("lake", "lake", 1)))
    assert lone.share_of_oracle is None
    assert "share of the probe's mIoU" in lone.to_markdown()
    assert lone.to_dict()["share_of_oracle"] is None


def test_a_share_of_nothing_is_no_number():
    wrong = reading(("lake", "river", 1))
    lost = Diagnosis("m", "world-1m", "pixel", wrong, wrong)
    assert lost.share_of_probe is None
    assert "| words | 0.000 | 0.000 | – |" in lost.to_markdown()


def test_a_region_is_not_both_measured_and_fitted_on(load, make_model):
    model, region = make_model(), load(301)
    with pytest.raises(BadSetting, match="301"):
        diagnose(model, regions=[region], probe_regions=[region], words=class_words(model)["seen"])
    with pytest.raises(BadSetting, match="at least one"):
        diagnose(model, regions=[region], probe_regions=[], words=class_words(model)["seen"])


def test_chips_or_words_of_something_else_are_refused(load, make_model):
    model, region, other = make_model(), load(301), load(1)
    words = class_words(model)["seen"]
    small = dataclasses.replace(region, size=16, stride=16)
    with pytest.raises(ModelMismatch, match="32 px"):
        diagnose(model, regions=[small], probe_regions=[other], words=words)
    with pytest.raises(ModelMismatch, match="words"):
        diagnose(model, regions=[region], probe_regions=[other], words=dataclasses.replace(words, names=("lake",)))


def test_probe_regions_without_truth_are_refused(load, make_model):
    model, region, other = make_model(), load(301), load(1)
    empty = dataclasses.replace(other, truth=np.zeros_like(other.truth))
    with pytest.raises(EmptyTable):
        diagnose(model, regions=[region], probe_regions=[empty], words=class_words(model)["seen"])
