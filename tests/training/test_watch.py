"""What an epoch is watched by: who knows everything gets 1, and chips of any folder can be watched."""

import dataclasses
import math

import numpy as np
import pytest
import rasterio
import torch
from torch import nn
from torch.nn.functional import avg_pool2d, normalize, one_hot

from geograft.errors import BadSetting, EmptyTable, MissingInput, ModelMismatch, SensorMismatch, UnreadableScene
from geograft.evaluate import metrics
from geograft.models.satellite import EncoderSettings, SatelliteEncoder
from geograft.models.teacher import load_teacher
from geograft.pairs.dataset import load_pairs
from geograft.sensors import Sensor
from geograft.tasks.queries import ClassVectors
from geograft.tasks.segment import upsample
from geograft.training.watch import Truth, Watch, watch_folder, watch_world
from geograft.world.classes import CLASSES

SENSOR = Sensor("plain", ("class", "other"), 1.0, "uint8", 1.0, 0.0, None, (0.0, 0.0), (1.0, 1.0), (0.0, 255.0))
WORDS = ClassVectors(np.eye(4, dtype=np.float32), np.array([0, 0, 1, 2]), ("lake", "road", "forest"))
"""Three classes, the first of two phrasings."""
DIRECTION = torch.tensor([1, 2, 3])


class Knowing(nn.Module):
    """Reads the class of each patch of 4 px off the first band, and answers with a vector of that class."""

    def __init__(self, shift=0):
        super().__init__()
        self.weight, self.shift = nn.Parameter(torch.ones(1)), shift

    def tokens(self, chips, *, level="pixel"):  # noqa: ARG002 - an encoder has it
        classes = (chips[:, 0].long() - 1 + self.shift).clamp(min=0) % 3
        vectors = one_hot(DIRECTION[classes], 4).permute(0, 3, 1, 2).float()
        return normalize(avg_pool2d(vectors, 4), dim=1)

    def embed(self, chips):
        return normalize(self.tokens(chips).mean(dim=(2, 3)), dim=1)


def make_truth(count=6, *, labelled=True, seed=0):
    """Chips of 16 px that are half one class and half another, whose label is the first one's."""
    draw = np.random.default_rng(seed)
    first, second = draw.integers(1, 4, (2, count))
    cover = np.repeat(np.stack([first, first, first, second], axis=1), 4, axis=1)[:, :, None].repeat(16, axis=2)
    pixels = np.stack([cover, np.zeros_like(cover)], axis=1).astype(np.uint8)
    labels = first - 1 if labelled else np.full(count, -1)
    return Truth(pixels, cover - 1, labels, SENSOR)


@pytest.mark.parametrize("level", ["image", "pixel"])
def test_who_knows_everything_names_every_chip(level):
    found = Watch(make_truth(), WORDS, level=level)(Knowing())
    assert found["val_top1"] == 1
    assert found["val_miou"] > 0.8  # the border between two classes is interpolated


def test_who_takes_each_class_for_the_next_gets_nothing():
    found = Watch(make_truth(), WORDS, level="pixel")(Knowing(shift=1))
    assert found["val_top1"] == 0
    assert found["val_miou"] < 0.2


def test_pixels_and_chips_of_no_class_do_not_count():
    truth = make_truth()
    cover = truth.cover.copy()
    cover[:, 8:] = -1  # the part where classes meet
    found = Watch(dataclasses.replace(truth, cover=cover), WORDS, level="pixel")(Knowing())
    assert found["val_miou"] == 1
    assert "val_top1" not in Watch(make_truth(labelled=False), WORDS, level="pixel")(Knowing())


def test_figures_are_those_of_the_evaluation():
    torch.manual_seed(0)
    shape = EncoderSettings(("class", "other"), dim=4, image_size=16, patch_size=4, width=16, depth=1, heads=2)
    encoder, truth = SatelliteEncoder(shape).eval(), make_truth(100)
    found = Watch(truth, WORDS, level="pixel")(encoder)
    with torch.inference_mode():
        tokens = encoder.tokens(torch.from_numpy(SENSOR.normalise(truth.pixels))).numpy()
    guess = upsample(WORDS.dense_scores(tokens), 16).argmax(axis=1)
    whole = WORDS.scores(tokens.mean(axis=(2, 3))).argmax(axis=1)
    assert found["val_miou"] == pytest.approx(metrics.mean_iou(metrics.confusion(truth.cover, guess, classes=3)))
    assert found["val_top1"] == pytest.approx((whole == truth.labels).mean())


def test_chips_of_another_size_are_refused():
    shape = EncoderSettings(("class", "other"), dim=4, image_size=8, patch_size=4, width=16, depth=1, heads=2)
    with pytest.raises(ModelMismatch, match="8, 8"):
        Watch(make_truth(), WORDS, level="pixel")(SatelliteEncoder(shape).eval())


# --- the simulated world ----------------------------------------------------------------------------------


def test_chips_of_the_world_are_watched_by_its_words(pairs, region, tiny_teacher):
    teacher, chips = load_teacher(str(tiny_teacher.folder)), load_pairs(pairs)
    watch = watch_world(chips, [region], encoder=teacher, level="pixel", most=10)
    assert len(watch.truth) == min(10, len(chips))
    assert watch.words.names == tuple(cover.name for cover in CLASSES)
    shape = EncoderSettings(chips.sensor.bands, dim=16, image_size=64, patch_size=16, width=16, depth=1, heads=2)
    found = watch(SatelliteEncoder(shape).eval())
    assert 0 <= found["val_miou"] < 0.5
    again = watch_world(chips, [region], encoder=teacher, level="pixel", most=10)
    np.testing.assert_array_equal(again.truth.pixels, watch.truth.pixels)


def test_the_truth_of_drawn_chips_is_their_own(pairs, region, tiny_teacher):
    from geograft.world.labels import truth_for_chips

    teacher, chips = load_teacher(str(tiny_teacher.folder)), load_pairs(pairs)
    few = watch_world(chips, [region], encoder=teacher, level="image", most=5).truth
    whole = truth_for_chips([region], chips.table)
    for number in range(len(few)):
        row = next(at for at in range(len(chips)) if np.array_equal(chips.chips[at], few.pixels[number]))
        ids = np.array([0, *(cover.id for cover in CLASSES)])
        np.testing.assert_array_equal(ids[few.cover[number] + 1], whole.cover[row])
        assert ids[few.labels[number] + 1] == whole.labels[row]


def test_chips_outside_the_regions_are_refused(pairs, tiny_teacher):
    teacher = load_teacher(str(tiny_teacher.folder))
    with pytest.raises(EmptyTable, match="None of the chips"):
        watch_world(load_pairs(pairs), [], encoder=teacher, level="pixel")


# --- any folder -------------------------------------------------------------------------------------------


def write(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    driver = "PNG" if path.suffix == ".png" else "GTiff"
    count, height, width = pixels.shape
    with rasterio.open(path, "w", driver=driver, count=count, height=height, width=width, dtype="uint8") as file:
        file.write(pixels)


@pytest.fixture
def make_folder(tmp_path):
    """A factory of folders of chips and masks of 40 x 33 px, two squares of 16 px each way."""

    def make(count=3):
        draw = np.random.default_rng(0)
        for number in range(count):
            mask = draw.integers(1, 4, (1, 5, 3)).repeat(8, axis=1).repeat(11, axis=2).astype(np.uint8)
            write(tmp_path / "masks" / f"{number}.png", mask)
            write(tmp_path / "chips" / f"{number}.tif", np.concatenate([mask, mask * 0]))
        return tmp_path

    return make


def watch(folder, **changes):
    return watch_folder(folder, **{"words": WORDS, "sensor": SENSOR, "size": 16, "level": "pixel", **changes})


def test_large_chips_are_cut_into_squares_side_by_side(make_folder):
    truth = watch(make_folder()).truth
    assert truth.pixels.shape == (3 * 2 * 2, 2, 16, 16)
    np.testing.assert_array_equal(truth.cover + 1, truth.pixels[:, 0])
    assert set(truth.labels.tolist()) <= {-1, 0, 1, 2}
    half = [(cover == label).mean() >= 0.5 for cover, label in zip(truth.cover, truth.labels, strict=True)]
    assert (np.array(half) == (truth.labels >= 0)).all()


def test_a_folder_is_watched_by_any_words(make_folder):
    found = watch(make_folder())(Knowing())
    assert found["val_miou"] > 0.4
    assert not math.isnan(found["val_top1"])


def test_few_chips_are_drawn_by_a_seed(make_folder):
    folder = make_folder()
    few, again = (watch(folder, most=2, seed=3).truth for _ in range(2))
    assert len(few) == 2
    np.testing.assert_array_equal(few.pixels, again.pixels)


def test_what_is_missing_or_does_not_fit_is_named(make_folder, tmp_path):
    with pytest.raises(MissingInput, match="no rasters"):
        watch(tmp_path)
    folder = make_folder()
    with pytest.raises(BadSetting, match="64 px"):
        watch(folder, size=64)
    with pytest.raises(BadSetting, match="words for 2"):
        watch(folder, words=ClassVectors(WORDS.vectors[:3], WORDS.owner[:3], WORDS.names[:2]))
    write(folder / "masks" / "0.png", np.ones((3, 40, 33), np.uint8))
    with pytest.raises(SensorMismatch, match="one band"):
        watch(folder)
    (folder / "masks" / "0.png").write_bytes(b"nothing")
    with pytest.raises(UnreadableScene, match=r"0\.png"):
        watch(folder)
    (folder / "masks" / "0.png").unlink()
    with pytest.raises(MissingInput, match="no mask"):
        watch(folder)


def test_masks_without_a_class_are_refused(make_folder):
    folder = make_folder(1)
    write(folder / "masks" / "0.png", np.zeros((1, 40, 33), np.uint8))
    with pytest.raises(EmptyTable, match="hold no class"):
        watch(folder)
