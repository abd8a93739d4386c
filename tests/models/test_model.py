import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from geograft.errors import BadQuery, ModelMismatch, NoTextEncoder, SensorMismatch, UnknownModel
from geograft.models import model as module
from geograft.models import numerics
from geograft.models.model import Model
from geograft.sensors import get_sensor


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


# --- one encoder for both levels, none for text, encoders of other kinds -----------------------------------


def test_a_joint_encoder_answers_at_both_levels_and_is_stored_once(make_encoder, small_sensor, teacher, chips):
    encoder = make_encoder()
    joint = Model({"image": encoder, "pixel": encoder}, sensor=small_sensor, teacher=teacher)
    apart = Model({"image": encoder, "pixel": make_encoder()}, sensor=small_sensor, teacher=teacher)
    assert joint.joint
    assert not apart.joint
    np.testing.assert_array_equal(joint.embed_chips(chips), apart.embed_chips(chips))
    np.testing.assert_array_equal(joint.dense(chips), apart.dense(chips))
    assert {key.split(".")[0] for key in joint.weights()} == {"joint"}
    assert len(apart.weights()) == 2 * len(joint.weights())
    assert joint.fingerprint != apart.fingerprint
    assert "image, pixel by one encoder" in repr(joint)


def test_a_model_without_a_teacher_embeds_chips_and_says_that_it_knows_no_words(make_encoder, small_sensor, chips):
    model = Model({"image": make_encoder()}, sensor=small_sensor, teacher=None, name="mute")
    assert not model.has_teacher
    assert model.embed_chips(chips).shape == (7, 16)
    with pytest.raises(NoTextEncoder, match="mute has no teacher"):
        model.encode_text(["lake"])
    assert "teacher  none" in repr(model)


def test_a_teacher_that_is_not_found_is_asked_for_by_its_fingerprint(make_model):
    model = make_model(teacher=("/gone/away", "0123456789abcdef"))
    with pytest.raises(UnknownModel, match="0123456789abcdef by hand"):
        model.encode_text(["lake"])


def test_any_encoder_with_a_shape_and_two_readings_makes_a_model(small_sensor, teacher, chips):
    class Shape:
        bands, dim, image_size, patch_size, grid = small_sensor.bands, 16, 16, 8, 2

        def to_dict(self):
            return {"bands": list(self.bands)}

    class Means(nn.Module):
        """The mean of each band, eight times over; no weights at all."""

        settings = Shape()

        def embed(self, chips):
            return nn.functional.normalize(chips.mean(dim=(2, 3)).repeat(1, 6)[:, :16], dim=1)

        def tokens(self, chips, *, level="pixel"):  # noqa: ARG002
            return nn.functional.normalize(nn.functional.avg_pool2d(chips, 8).repeat(1, 6, 1, 1)[:, :16], dim=1)

    model = Model({"image": Means(), "pixel": Means()}, sensor=small_sensor, teacher=teacher)
    assert model.embed_chips(chips).shape == (7, 16)
    assert model.dense(chips).shape == (7, 16, 2, 2)
    assert "encoder  Means" in repr(model)


# --- pictures ---------------------------------------------------------------------------------------------


@pytest.fixture
def picture_model(make_encoder, teacher):
    """A model of the sensor `rgb` with the mean and std of a CLIP."""
    sensor = dataclasses.replace(get_sensor("rgb"), mean=(0.48, 0.46, 0.41), std=(0.27, 0.26, 0.28))
    encoder = make_encoder(bands=sensor.bands)
    return Model({"image": encoder}, sensor=sensor, teacher=teacher)


def test_a_model_of_pictures_sees_any_sensor_by_that_sensors_own_stretch(picture_model):
    satellite = dataclasses.replace(get_sensor("sentinel-2-l2a"), nodata=None)
    pixels = np.random.default_rng(3).integers(900, 4000, (5, len(satellite.bands), 16, 16)).astype(np.uint16)
    found = picture_model.prepare(pixels, satellite)
    for chip, values in zip(pixels, found, strict=True):
        picture = satellite.rgb(chip).astype(np.float64).transpose(2, 0, 1) / 255
        mean, std = (np.array(part)[:, None, None] for part in (picture_model.sensor.mean, picture_model.sensor.std))
        np.testing.assert_allclose(values, (picture - mean) / std, atol=1e-5)
    assert picture_model.embed_chips(pixels, sensor=satellite).shape == (5, 16)


def test_a_model_of_pictures_takes_pixels_without_data_for_the_mean(picture_model):
    satellite = get_sensor("sentinel-2-l2a")
    pixels = np.full((2, len(satellite.bands), 16, 16), 1500, np.uint16)
    pixels[0, :, :4] = satellite.nodata
    found = picture_model.prepare(pixels, satellite)
    assert (found[0, :, :4] == 0).all()
    assert (found[0, :, 4:] != 0).all()
    assert (found[1] != 0).all()


def test_a_model_of_pictures_takes_pictures_as_they_are(picture_model):
    plain = get_sensor("rgb")
    pixels = np.random.default_rng(4).integers(0, 256, (3, 3, 16, 16)).astype(np.uint8)
    np.testing.assert_allclose(picture_model.prepare(pixels, plain), picture_model.prepare(pixels), atol=1e-6)
    drone = get_sensor("rgb-drone")
    np.testing.assert_allclose(picture_model.prepare(pixels, drone), picture_model.prepare(pixels), atol=1e-6)


# --- backends ---------------------------------------------------------------------------------------------


def test_the_backend_is_torch_until_another_is_asked_for(make_model, chips, exact):
    model = make_model()
    before = model.embed_chips(chips)
    assert model.backend == "torch"
    assert model.use_backend("torch-bf16") == model.backend == "torch-bf16"
    assert not np.array_equal(model.embed_chips(chips), before)
    assert model.use_backend("torch-fp32") == "torch-fp32"
    np.testing.assert_array_equal(model.embed_chips(chips), before)


def test_torch_sees_weights_that_changed(make_model, chips):
    model = make_model()
    before = model.embed_chips(chips)
    with torch.no_grad():
        model.encoders["image"].satellite_image_backbone.visual_projection.weight.normal_()
    assert not np.allclose(model.embed_chips(chips), before, atol=1e-2)
