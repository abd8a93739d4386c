import dataclasses

import numpy as np
import pytest
import torch

from geograft.errors import BadQuery, ModelMismatch, SensorMismatch
from geograft.models import model as module
from geograft.models import numerics
from geograft.models.model import Model


@pytest.fixture
def exact(monkeypatch):
    """float32 everywhere."""
    monkeypatch.setattr(numerics, "has_bfloat16", lambda _device="cpu": False)


@pytest.fixture
def other_sensor(small_sensor):
    """More bands in another order, stored as eight bits of brightness."""
    return dataclasses.replace(
        small_sensor,
        name="other",
        bands=("nir", "blue", "green", "red"),
        dtype="uint8",
        scale=1 / 255,
        offset=0.0,
        nodata=None,
        mean=(0.0,) * 4,
        std=(9.0,) * 4,
    )


def test_chips_become_unit_vectors_of_the_normalised_pixels(make_model, small_sensor, chips, exact):
    model = make_model()
    model.batch = 3
    with torch.inference_mode():
        inputs = torch.from_numpy(small_sensor.normalise(chips))
        expected = model.encoders["image"].embed(inputs).numpy()
    vectors = model.embed_chips(chips)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, expected, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert np.linalg.norm(vectors[0] - vectors[1]) > 1e-3


@pytest.mark.parametrize("level", ["pixel", "image"])
def test_dense_vectors_come_from_the_encoder_of_their_level(make_model, small_sensor, chips, level, exact):
    model = make_model()
    model.batch = 3
    with torch.inference_mode():
        inputs = torch.from_numpy(small_sensor.normalise(chips))
        expected = model.encoders[level].tokens(inputs, level=level).numpy()
    assert expected.shape == (7, 16, 4, 4)
    np.testing.assert_allclose(model.dense(chips, level=level), expected, atol=1e-5)


def test_bfloat16_where_the_machine_has_it_keeps_the_vectors(make_model, chips, monkeypatch):
    model = make_model()
    monkeypatch.setattr(numerics, "has_bfloat16", lambda _device="cpu": False)
    plain = model.embed_chips(chips)
    monkeypatch.setattr(numerics, "has_bfloat16", lambda _device="cpu": True)
    fast = model.embed_chips(chips)
    assert fast.dtype == np.float32
    assert (fast * plain).sum(axis=1).min() > 0.999
    assert not np.array_equal(fast, plain)


def test_another_sensors_bands_are_picked_by_name_and_brought_to_the_models_scale(
    make_model, small_sensor, other_sensor, exact
):
    model = make_model()
    brightness = np.random.default_rng(2).integers(0, 256, (2, 4, 16, 16)).astype(np.uint8)
    assert model.match_bands(other_sensor) == (2, 3, 0)
    physical = brightness[:, [2, 3, 0]] / 255
    mean, std = np.array(small_sensor.mean)[:, None, None], np.array(small_sensor.std)[:, None, None]
    np.testing.assert_allclose(model.prepare(brightness, other_sensor), (physical - mean) / std, atol=1e-5)
    assert model.embed_chips(brightness, sensor=other_sensor).shape == (2, 16)


def test_missing_bands_are_listed(make_model, other_sensor):
    poor = dataclasses.replace(other_sensor, bands=("green", "blue", "a", "b"))
    with pytest.raises(ModelMismatch, match="it lacks red, nir"):
        make_model().match_bands(poor)


def test_pixels_with_another_number_of_bands_are_refused(make_model):
    with pytest.raises(SensorMismatch, match="green, red, nir"):
        make_model().embed_chips(np.zeros((1, 4, 16, 16), np.uint16))


def test_chips_of_another_size_are_refused(make_model):
    with pytest.raises(ModelMismatch, match=r"\(N, 3, 16, 16\)"):
        make_model().dense(np.zeros((1, 3, 20, 20), np.uint16))


def test_no_chips_give_no_vectors(make_model):
    assert make_model().embed_chips(np.zeros((0, 3, 16, 16), np.uint16)).shape == (0, 16)


def test_a_missing_level_says_which_there_are(make_model, chips):
    model = make_model(levels=("pixel",))
    assert model.dense(chips).shape == (7, 16, 4, 4)
    with pytest.raises(ModelMismatch, match="no image level, only pixel"):
        model.embed_chips(chips)


def test_text_is_the_mean_over_its_phrasings(make_model, teacher):
    templates = ("a photo of {}", "{}", "{} from above")
    vectors = make_model().encode_text(["lake", "forest"], templates)
    for text, vector in zip(("lake", "forest"), vectors, strict=True):
        mean = teacher.encode_text([template.format(text) for template in templates]).mean(axis=0)
        np.testing.assert_allclose(vector, mean / np.linalg.norm(mean), atol=1e-6)


def test_braces_in_a_text_are_left_alone(make_model, teacher):
    expected = teacher.encode_text(["a {0} b"])
    np.testing.assert_allclose(make_model().encode_text(["a {0} b"]), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("texts", "templates"), [([], ["{}"]), ([" "], ["{}"]), (["a"], []), (["a"], ["a photo"]), (["a"], ["{} {}"])]
)
def test_queries_without_sense_are_refused(make_model, texts, templates):
    with pytest.raises(BadQuery):
        make_model().encode_text(texts, templates)


def test_a_teacher_that_changed_is_refused(make_model, teacher, monkeypatch):
    monkeypatch.setattr(module, "load_teacher", lambda _name: teacher)
    assert make_model(teacher=("named", teacher.fingerprint)).encode_text(["lake"]).shape == (1, 16)
    with pytest.raises(ModelMismatch, match="trained on the teacher named"):
        make_model(teacher=("named", "another")).encode_text(["lake"])


def test_a_teacher_that_moved_is_given_by_hand(make_model, teacher):
    model = make_model(teacher=("/where/it/was", teacher.fingerprint))
    model.use_teacher(teacher)
    assert model.encode_text(["lake"]).shape == (1, 16)
    with pytest.raises(ModelMismatch, match="named has 0123"):
        make_model(teacher=("/where/it/was", "another")).use_teacher(teacher)


def test_the_fingerprint_follows_weights_normalisation_and_teacher(make_model, small_sensor):
    first = make_model().fingerprint
    assert make_model().fingerprint == first
    brighter = dataclasses.replace(small_sensor, mean=(0.3, 0.3, 0.4))
    others = [
        make_model(seed=9),
        make_model(levels=("image",)),
        make_model(sensor=brighter),
        make_model(gsd=3.0),
        make_model(teacher=("named", "another")),
    ]
    assert len({first, *(model.fingerprint for model in others)}) == 6
    renamed = dataclasses.replace(small_sensor, name="renamed", description="the same pixels")
    assert make_model(sensor=renamed).fingerprint == first


def test_the_fingerprint_follows_training(make_model):
    model = make_model()
    before = model.fingerprint
    with torch.no_grad():
        model.encoders["pixel"].projector[1].weight.mul_(2)
    assert model.fingerprint != before


def test_encoders_that_do_not_fit_together_are_refused(make_encoder, small_sensor, teacher):
    pair = {"image": make_encoder(), "pixel": make_encoder(dim=8)}
    with pytest.raises(ModelMismatch, match="embedding length"):
        Model(pair, sensor=small_sensor, teacher=teacher)
    with pytest.raises(ModelMismatch, match="levels image and pixel"):
        Model({}, sensor=small_sensor, teacher=teacher)
    with pytest.raises(ModelMismatch, match="give 8 numbers, the teacher named 16"):
        Model({"image": make_encoder(dim=8)}, sensor=small_sensor, teacher=teacher)
    turned = dataclasses.replace(small_sensor, bands=("nir", "red", "green"))
    with pytest.raises(ModelMismatch, match="in this order"):
        Model({"image": make_encoder()}, sensor=turned, teacher=teacher)


def test_a_model_shows_what_it_is(make_model):
    shown = repr(make_model())
    for fact in ("'small'", "image, pixel", "green, red, nir at 2 m", "16 px in patches of 4 px", "named (0123"):
        assert fact in shown
