from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from geograft.errors import BadSetting, MissingInput
from geograft.evaluate import walks
from geograft.evaluate.map_colours import PALETTE
from geograft.evaluate.walks import WalksSettings, chance_recall, evaluate_walks
from geograft.models.teacher import Teacher
from geograft.pairs.plan import PairSettings
from geograft.training.trainer import TrainingSettings

ZOOM, COLUMN, ROW = 15, 30000, 19600


class ColourTeacher(Teacher):
    """Green photos are forest, blue ones water: enough to learn a map's colours by."""

    name = "words"
    fingerprint = "colours"
    dim = 3

    def encode_photos(self, images):
        means = np.array([np.asarray(image, np.float32).mean(axis=(0, 1)) for image in images])
        return (means / np.linalg.norm(means, axis=1, keepdims=True)).astype(np.float32)

    def encode_text(self, texts):
        colours = [(0.1, 1, 0.1) if "forest" in text or "wood" in text else (0.1, 0.1, 1) for text in texts]
        return (np.array(colours) / np.linalg.norm(colours, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def colours(monkeypatch):
    """The teacher of colours in place of the real one."""
    from geograft.models import teacher
    from geograft.training import trainer

    monkeypatch.setattr(trainer, "load_teacher", lambda _: ColourTeacher())
    monkeypatch.setattr(teacher, "load_teacher", lambda _: ColourTeacher())
    monkeypatch.setattr("geograft.models.model.load_teacher", lambda _: ColourTeacher())


def degrees(x, y):
    """Longitude and latitude of a place in tiles at the zoom."""
    count = 2**ZOOM
    return x / count * 360 - 180, np.degrees(np.arctan(np.sinh(np.pi * (1 - 2 * y / count))))


@pytest.fixture
def region(tmp_path):
    """Six walks over stripes of forest and water, five photos each, far enough apart."""
    draw, rows = np.random.default_rng(0), []
    for tile in range(24):
        name = "forest" if tile % 2 else "water"
        for row in range(3):
            path = tmp_path / "tiles" / str(ZOOM) / str(COLUMN + tile) / f"{ROW + row}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (256, 256), PALETTE[name]).save(path, quality=95)
        for number in range(3):
            lon, lat = degrees(COLUMN + tile + draw.uniform(0.3, 0.7), ROW + 0.6 + 0.9 * number)
            shade = np.array((20, 160, 20) if tile % 2 else (20, 20, 160)) + draw.integers(0, 20, 3)
            path = tmp_path / "photos" / f"{tile}-{number}.png"
            path.parent.mkdir(exist_ok=True)
            noise = draw.integers(0, 9, (12, 16, 3))
            Image.fromarray((shade + noise).astype(np.uint8)).save(path)
            rows.append({"path": f"photos/{path.name}", "walk": f"walk{tile // 4}", "lat": lat, "lon": lon})
    pd.DataFrame(rows).to_csv(tmp_path / "photos.csv", index=False)
    return tmp_path


@pytest.fixture
def settings(region):
    return WalksSettings(
        photos=str(region / "photos.csv"),
        tiles=str(region / "tiles"),
        pairs=PairSettings(split="place", fractions=(0.5, 0.17, 0.33), buffer_m=0.0),
        training=TrainingSettings(level="image", teacher="words", jitter=0.0, epochs=6, batch=16, lr=2e-3, bf16="off"),
        sheet=str(region / "sheet.png"),
    )


def test_from_a_csv_and_tiles_to_measured_retrieval_and_back_to_the_same_figures(colours, settings, tmp_path):
    result = evaluate_walks(tmp_path / "work", settings=settings)
    values = {row.metric: row.value for row in result.results if row.method == "graft-image"}
    assert {row.sensor for row in (*result.results, *result.classes)} == {"map-tiles"}
    assert values["recall_10pc_over_chance"] == pytest.approx(values["recall_10pc"] / values["recall_10pc_chance"])
    assert 0 <= values["median_rank"] <= 1
    precision = {row.label: row.value for row in result.classes if row.metric == "ap"}
    assert {row.method for row in result.results} == {"graft-image", "graft-image-cosine"}
    assert precision["forest"] > 0.95
    assert precision["water"] > 0.95
    assert "beach" not in precision
    assert Image.open(settings.sheet).height > 10 * 128
    again = evaluate_walks(tmp_path / "work", settings=replace(settings, model=str(tmp_path / "work" / "model-0")))
    assert [row.value for row in again.results] == [row.value for row in result.results]


def test_photos_and_tiles_must_be_named(tmp_path):
    with pytest.raises(BadSetting, match="--config"):
        evaluate_walks(tmp_path)


def test_missing_photos_are_a_named_error(settings, tmp_path):
    with pytest.raises(MissingInput):
        evaluate_walks(tmp_path / "work", settings=replace(settings, photos=str(tmp_path / "no.csv")))


@pytest.mark.parametrize("wrong", [{"seeds": ()}, {"training": TrainingSettings(level="pixel")}])
def test_settings_that_measure_nothing_are_refused(wrong):
    with pytest.raises(BadSetting):
        WalksSettings(**wrong)


def test_chance_is_that_of_a_random_order():
    draw, count, k = np.random.default_rng(0), 20, 4
    for owned in (1, 2, 5):
        hits = [min(draw.permutation(count)[:owned]) < k for _ in range(4000)]
        assert chance_recall(np.array([owned]), count, k)[0] == pytest.approx(np.mean(hits), abs=0.03)


def test_a_photo_in_two_chips_counts_once_with_its_better_chip():
    class Pairs:
        embeddings = np.array([[1, 0], [1, 0], [0, 1]], np.float16)
        owner = np.array([0, 1, 2])
        photo_ids = np.array(["a", "a", "b"], object)

        def __len__(self):
            return 3

    chips = np.array([[1, 0], [0.6, 0.8], [0.8, 0.6]], np.float32)
    view = walks.WalksView(Pairs(), None, chips, chips)
    ranks, owned = walks.best_ranks(view, by_likelihood=False)
    assert ranks.tolist() == [1, 2]
    assert owned.tolist() == [2, 1]


def test_a_photo_is_looked_for_by_its_likelihood_among_photos():
    draw = np.random.default_rng(0)
    chips, photos = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in draw.normal(size=(2, 6, 4)))
    scores = np.exp(chips @ photos.T / 0.2)
    likelihood = scores / scores.mean(axis=1, keepdims=True)
    usual = walks.usual_fit(chips, photos, 0.2)
    np.testing.assert_allclose(chips @ photos.T - usual[:, None], 0.2 * np.log(likelihood), atol=1e-6)


def test_words_look_for_the_photos_that_they_mean():
    photos = np.array([[1, 0, 0], [0.8, 0.6, 0], [0.6, 0.8, 0]], np.float32)
    text = np.array([[0.5, 0.1, 5]], np.float32)  # most of it points where no photo does
    meant = walks.meant_photos(text, photos)[0]
    assert meant[0] > 0 > meant[1]
    assert meant[2] == 0
    np.testing.assert_allclose(walks.meant_photos(3 * text, photos)[0], meant, rtol=1e-5)


def test_a_random_order_reaches_chance():
    draw = np.random.default_rng(0)
    relevant = draw.random(4000) < 0.2
    values = walks.precision_and_chance(relevant, draw.random(4000))
    assert values["ap_chance"] == pytest.approx(relevant.mean())
    assert values["ap_over_chance"] == pytest.approx(1, abs=0.1)
