"""The encoder that pairs ask for, and what it starts from."""

from types import SimpleNamespace

import pytest
import torch
from transformers import CLIPConfig, CLIPModel

from geograft.errors import BadSetting, CheckpointMismatch, UnknownModel
from geograft.models.multi import MultiEncoder
from geograft.models.satellite import PRESETS, SatelliteEncoder
from geograft.sensors import get_sensor
from geograft.training.encoders import by_sensor, make_encoder, start_pixel_from_image
from geograft.training.settings import TrainingSettings

TINY = {"image_size": 64, "patch_size": 16, "width": 32, "depth": 1, "heads": 2}


@pytest.fixture(autouse=True)
def _tiny_preset(monkeypatch):
    monkeypatch.setitem(PRESETS, "tiny", TINY)


def some_pairs(sensor="world-1m", *, size=64, gsd=None):
    spec = get_sensor(sensor)
    return SimpleNamespace(sensor=spec, gsd=gsd or spec.gsd, shape=(5, len(spec.bands), size, size))


def learn(*sets):
    """The sets of each sensor, as `by_sensor` gives them; no pixels are needed."""
    return {one.sensor.name: SimpleNamespace(sets=(one,)) for one in sets}


def make(*sets, **settings):
    return make_encoder(learn(*sets), TrainingSettings(**({"preset": "tiny"} | settings)), dim=16)


@pytest.fixture
def clip(tmp_path):
    """A folder of a small random CLIP of the tiny preset's shape."""

    def save(**change):
        torch.manual_seed(5)
        body = {"hidden_size": 32, "intermediate_size": 128, "num_hidden_layers": 1, "num_attention_heads": 2}
        vision = {**body, "image_size": 64, "patch_size": 16, "hidden_act": "gelu"} | change
        text = {**body, "vocab_size": 9, "max_position_embeddings": 6}
        CLIPModel(CLIPConfig(vision_config=vision, text_config=text, projection_dim=16)).save_pretrained(tmp_path)
        return tmp_path

    return save


def kernels(encoder):
    return encoder.satellite_image_backbone.vision_model.embeddings.patch_embedding.weight


def test_one_sensor_gets_a_plain_encoder_and_several_get_a_stem_each():
    plain = make(some_pairs())
    assert isinstance(plain, SatelliteEncoder)
    assert plain.settings.bands == ("red", "green", "blue", "nir")
    several = make(some_pairs(), some_pairs("world-10m", size=8))
    assert isinstance(several, MultiEncoder)
    stems = [(stem.name, stem.image_size, stem.patch_size, stem.gsd) for stem in several.settings.sensors]
    assert stems == [("world-1m", 64, 16, 1.0), ("world-10m", 8, 2, 10.0)]


def test_the_seed_draws_the_weights():
    one, same, other = (kernels(make(some_pairs(), seed=seed)) for seed in (0, 0, 1))
    torch.testing.assert_close(one, same, rtol=0, atol=0)
    assert not torch.equal(one, other)


def test_sets_are_divided_by_sensor_in_the_order_in_which_they_come(pairs, coarse_pairs):
    from geograft.pairs.dataset import load_pairs

    fine, coarse = load_pairs(pairs), load_pairs(coarse_pairs)
    found = by_sensor([coarse, fine, coarse])
    assert list(found) == ["world-10m", "world-1m"]
    assert [len(mix.sets) for mix in found.values()] == [2, 1]


def test_a_clip_lends_each_band_its_colour_and_the_others_their_mean(clip):
    folder = clip()
    encoder = make(some_pairs(), init=str(folder))
    vision = CLIPModel.from_pretrained(folder).vision_model
    theirs = vision.embeddings.patch_embedding.weight
    expected = torch.stack([theirs[:, 0], theirs[:, 1], theirs[:, 2], theirs.mean(1)], dim=1) * 3 / 4
    torch.testing.assert_close(kernels(encoder), expected)
    layer, own = vision.encoder.layers[0], encoder.satellite_image_backbone.vision_model.encoder.layers[0]
    torch.testing.assert_close(own.mlp.fc1.weight, layer.mlp.fc1.weight)


def test_a_sensor_of_blue_before_red_sees_the_clip_s_colours(clip):
    from geograft.training import encoders

    spec = SimpleNamespace(name="bgr", bands=("blue", "green", "red"), gsd=1.0)
    pairs = SimpleNamespace(sensor=spec, gsd=1.0, shape=(5, 3, 64, 64))
    encoder = make(pairs, init=str(clip()))
    rgb = encoders._clip(make(some_pairs()).settings, str(clip()))
    chips = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(encoder.embed(chips.flip(1)), rgb.embed(chips), atol=1e-5, rtol=0)


def test_several_sensors_start_from_a_clip_too(clip):
    several = make(some_pairs(), some_pairs("world-10m", size=8), init=str(clip()))
    alone = make(some_pairs(), init=str(clip()))
    chips = torch.randn(2, 4, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(several.eval().embed(chips, sensor="world-1m"), alone.eval().embed(chips))


def test_a_clip_of_another_shape_and_no_clip_at_all_are_refused(clip, tmp_path):
    with pytest.raises(CheckpointMismatch, match="another architecture"):
        make(some_pairs(), init=str(clip(num_hidden_layers=2)))
    with pytest.raises(UnknownModel):
        make(some_pairs(), init=str(tmp_path / "nowhere"))


@pytest.mark.parametrize("several", [False, True])
def test_the_pixel_level_starts_as_the_image_level_reads_its_patches(several):
    sets = (some_pairs(), some_pairs("world-10m", size=8)) if several else (some_pairs(),)
    image, pixel = make(*sets, seed=1), make(*sets, seed=2)
    start_pixel_from_image(pixel, image)
    chips = torch.randn(2, 4, 64, 64)
    which = {"sensor": "world-1m"} if several else {}
    with torch.inference_mode():
        found, expected = pixel.tokens(chips, **which), image.tokens(chips, level="image", **which)
    torch.testing.assert_close(found, expected)


def test_chips_that_the_preset_does_not_take_are_refused():
    with pytest.raises(BadSetting, match="preset tiny takes chips of 64 px, but the pairs have 32 px"):
        make(some_pairs(size=32))
    with pytest.raises(BadSetting, match="Chips of 30 px of world-10m cannot be cut into 4 x 4 patches"):
        make(some_pairs(), some_pairs("world-10m", size=30))
    with pytest.raises(UnknownModel, match="No preset is called 'huge'"):
        make(some_pairs(), preset="huge")
