import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional
from transformers import AutoModel, CLIPModel, CLIPVisionModelWithProjection, SiglipConfig, SiglipModel

from geograft.errors import CheckpointMismatch, ModelMismatch, NoTextEncoder
from geograft.models import numerics
from geograft.models.clip import ClipTeacher, read_vision_tower
from geograft.models.rgb import SiglipEncoder, SiglipSettings, clip_encoder, rgb_model, siglip_encoder
from geograft.sensors import get_sensor


@pytest.fixture(autouse=True)
def exact(monkeypatch):
    """float32 everywhere, so that references can be compared closely."""
    monkeypatch.setattr(numerics, "has_bfloat16", lambda _device="cpu": False)


def scenes(count, size, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 3, size, size)).astype(np.uint8)


def as_pictures(chips):
    return [Image.fromarray(chip.transpose(1, 2, 0)) for chip in chips]


def unit(vectors):
    return functional.normalize(torch.as_tensor(vectors), dim=1).numpy()


def test_a_clip_gives_chips_the_vectors_that_it_gives_pictures(make_clip):
    teacher = ClipTeacher(make_clip())
    model, chips = rgb_model(teacher), scenes(5, 32)
    np.testing.assert_allclose(model.embed_chips(chips), teacher.encode_photos(as_pictures(chips)), atol=1e-5)
    assert (model.levels, model.chip_size, model.sensor.name, model.gsd) == (("image",), 32, "rgb", 1.0)
    assert model.sensor.mean == teacher.preprocess.mean
    assert model.teacher is teacher


def test_a_siglip_gives_chips_the_vectors_that_it_gives_pictures(siglip_folder):
    teacher = ClipTeacher(siglip_folder)
    chips = scenes(5, 32)
    model = rgb_model(teacher, gsd=0.5, name="mine")
    np.testing.assert_allclose(model.embed_chips(chips), teacher.encode_photos(as_pictures(chips)), atol=1e-5)
    assert (model.gsd, model.sensor.gsd, model.name, model.dim) == (0.5, 0.5, "mine", teacher.dim)


@pytest.mark.parametrize("grid", [4, 3])
def test_a_siglip2_of_native_aspect_ratio_is_fixed_at_a_grid_of_patches(make_siglip2, grid):
    teacher = ClipTeacher(make_siglip2())
    chips = scenes(3, 8 * grid)
    model = rgb_model(teacher, chip_size=8 * grid)
    pixels = torch.from_numpy(model.prepare(chips))
    patches = pixels.unfold(2, 8, 8).unfold(3, 8, 8).permute(0, 2, 3, 4, 5, 1).reshape(3, grid * grid, -1)
    with torch.inference_mode():
        expected = AutoModel.from_pretrained(teacher.name).get_image_features(
            pixel_values=patches,
            pixel_attention_mask=torch.ones(3, grid * grid, dtype=torch.long),
            spatial_shapes=torch.tensor([[grid, grid]] * 3),
        )
    np.testing.assert_allclose(model.embed_chips(chips), unit(expected.pooler_output), atol=1e-5)


def test_a_patch_of_a_siglip_is_what_its_head_makes_of_that_token_alone(siglip_folder):
    encoder = siglip_encoder(ClipTeacher(siglip_folder))
    chips = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        tokens = encoder.tokens(chips, level="image")
        hidden = encoder.tower(pixel_values=chips).last_hidden_state
        for number in range(2):
            for place in range(16):
                alone = encoder.tower.head(hidden[number : number + 1, place : place + 1])[0]
                expected = alone / alone.norm()
                torch.testing.assert_close(tokens[number, :, place // 4, place % 4], expected, atol=1e-5, rtol=0)


def test_a_clips_projector_reads_patches_as_its_head_does(make_clip):
    encoder = clip_encoder(ClipTeacher(make_clip()))
    chips = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(encoder.tokens(chips, level="pixel"), encoder.tokens(chips, level="image"))


def test_a_siglip_whose_patches_leave_a_rest_takes_chips_without_it(tmp_path, siglip_folder):
    body = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision = {**body, "image_size": 35, "patch_size": 8}
    model = SiglipModel(SiglipConfig(vision_config=vision, text_config={**body, "vocab_size": 15}))
    parts = ClipTeacher(siglip_folder).parts
    teacher = ClipTeacher(type(parts)(model, parts.tokenizer, parts.preprocess), name="rest")
    encoder = siglip_encoder(teacher)
    whole = torch.randn(2, 3, 35, 35)
    with torch.inference_mode():
        expected = functional.normalize(model.get_image_features(whole).pooler_output, dim=1)
        torch.testing.assert_close(encoder.embed(whole[:, :, :32, :32]), expected)


def test_scenes_of_any_sensor_become_pictures_by_their_own_stretch(make_clip):
    model = rgb_model(ClipTeacher(make_clip()))
    sensor = get_sensor("sentinel-2-l2a")
    pixels = np.random.default_rng(0).integers(1000, 4000, (4, 5, 32, 32)).astype(np.uint16)
    pictures = np.stack([sensor.rgb(chip).transpose(2, 0, 1) for chip in pixels])
    np.testing.assert_allclose(model.embed_chips(pixels, sensor=sensor), model.embed_chips(pictures), atol=1e-6)


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_words_find_the_same_chips_as_in_transformers(make_clip, siglip_folder, kind):
    folder = make_clip() if kind == "clip" else siglip_folder
    model, chips = rgb_model(ClipTeacher(folder)), scenes(6, 32)
    texts = ["a photo of a forest", "river"]
    scores = model.embed_chips(chips) @ model.encode_text(texts).T
    expected = model.teacher.encode_photos(as_pictures(chips)) @ model.teacher.encode_text(texts).T
    np.testing.assert_allclose(scores, expected, atol=1e-5)


def test_a_text_tower_alone_makes_no_satellite_model(make_text_tower):
    folder, _ = make_text_tower("clip")
    with pytest.raises(CheckpointMismatch, match="needs an image tower"):
        rgb_model(ClipTeacher(folder))


def test_chips_of_another_size_are_refused_where_the_tower_is_fixed(make_clip, make_siglip2):
    with pytest.raises(ModelMismatch, match="takes chips of 32 px, not of 64 px"):
        rgb_model(ClipTeacher(make_clip()), chip_size=64)
    with pytest.raises(ModelMismatch, match="multiple of 8 px"):
        rgb_model(ClipTeacher(make_siglip2()), chip_size=60)


def test_a_tower_of_another_shape_is_refused_with_what_it_can_still_do(make_clip):
    teacher = ClipTeacher(make_clip())
    teacher.model.config.vision_config.layer_norm_eps = 1e-6
    with pytest.raises(CheckpointMismatch, match="can be a teacher, but no satellite model"):
        rgb_model(teacher)


def test_a_siglip_encoder_says_what_it_does_not_take(siglip_folder):
    encoder = siglip_encoder(ClipTeacher(siglip_folder))
    with pytest.raises(ModelMismatch, match=r"shape \(N, 3, 32, 32\)"):
        encoder.embed(torch.zeros(1, 3, 16, 16))
    with pytest.raises(ModelMismatch, match="image level only"):
        encoder.tokens(torch.zeros(1, 3, 32, 32), level="pixel")


def test_settings_of_a_siglip_go_to_plain_values_and_back():
    settings = SiglipSettings(("red", "green", "blue"), 32, 8, 16, 1, 2, 20)
    assert SiglipSettings.from_dict(settings.to_dict()) == settings
    assert (settings.dim, settings.grid) == (16, 4)
    assert SiglipEncoder(settings).tokens(torch.zeros(1, 3, 32, 32), level="image").shape == (1, 16, 4, 4)
    for wrong in ({"patch_size": 7}, {"heads": 3}, {"stranger": 1}):
        with pytest.raises(CheckpointMismatch):
            SiglipSettings.from_dict(settings.to_dict() | wrong)


def test_an_image_tower_alone_is_a_model_that_knows_no_words(make_clip, tmp_path):
    folder = make_clip()
    config = CLIPModel.from_pretrained(folder).config.vision_config
    config.projection_dim = 16
    tower = CLIPVisionModelWithProjection(config)
    tower.load_state_dict(read_vision_tower(folder))
    tower.save_pretrained(tmp_path / "tower")
    shutil.copy(folder / "preprocessor_config.json", tmp_path / "tower")
    alone, chips = rgb_model(ClipTeacher(tmp_path / "tower")), scenes(3, 32)
    np.testing.assert_allclose(alone.embed_chips(chips), rgb_model(ClipTeacher(folder)).embed_chips(chips), atol=1e-6)
    with pytest.raises(NoTextEncoder):
        alone.encode_text(["a lake"])
