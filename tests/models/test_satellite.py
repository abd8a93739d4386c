import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from geograft.errors import BadSetting, CheckpointMismatch, ModelMismatch, UnknownModel
from geograft.models.satellite import (
    PRESETS,
    EncoderSettings,
    SatelliteEncoder,
    init_from_clip,
    load_strictly,
    preset_settings,
    sample_tokens,
)


def norms(vectors, dim):
    return torch.allclose(vectors.norm(dim=dim), torch.ones(()), atol=1e-5)


def naive_sample(tokens, owner, positions, image_size, mode):
    """One place at a time, one weight at a time."""
    rows, columns = tokens.shape[-2:]
    result = []
    for chip, (row, column) in zip(owner.tolist(), positions.tolist(), strict=True):
        y, x = row * rows / image_size, column * columns / image_size
        total = torch.zeros(tokens.shape[1], dtype=tokens.dtype)
        for i in range(rows):
            for j in range(columns):
                if mode == "nearest":
                    inside = i == min(max(math.floor(y), 0), rows - 1) and j == min(max(math.floor(x), 0), columns - 1)
                    weight = float(inside)
                else:
                    y_in = min(max(y, 0.5), rows - 0.5)
                    x_in = min(max(x, 0.5), columns - 0.5)
                    weight = max(0.0, 1 - abs(y_in - (i + 0.5))) * max(0.0, 1 - abs(x_in - (j + 0.5)))
                total += weight * tokens[chip, :, i, j]
        result.append(total / total.norm())
    return torch.stack(result)


def random_tokens(chips=3, dim=5, rows=4, columns=4):
    return normalize(torch.randn(chips, dim, rows, columns, dtype=torch.float64), dim=1)


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
@given(seed=st.integers(0, 10_000), grid=st.integers(1, 6))
@settings(max_examples=20, deadline=None)
def test_sampling_equals_a_naive_loop(mode, seed, grid):
    torch.manual_seed(seed)
    tokens = random_tokens(rows=grid, columns=grid)
    owner = torch.randint(0, 3, (17,))
    positions = torch.rand(17, 2, dtype=torch.float64) * 40 - 4  # some lie outside a chip of 32 px
    expected = naive_sample(tokens, owner, positions, 32, mode)
    torch.testing.assert_close(sample_tokens(tokens, owner, positions, 32, mode=mode), expected, atol=1e-12, rtol=0)


def test_a_place_at_a_patch_centre_reads_that_patch_alone():
    torch.manual_seed(0)
    tokens = random_tokens()
    position = torch.tensor([[2.5 * 8, 1.5 * 8]], dtype=torch.float64)
    torch.testing.assert_close(sample_tokens(tokens, torch.tensor([1]), position, 32)[0], tokens[1, :, 2, 1])


def test_the_border_token_holds_beyond_the_outermost_centres():
    torch.manual_seed(0)
    tokens = random_tokens()
    corners = torch.tensor([[0.0, 0.0], [3.9, 3.9], [-5.0, 1.0]], dtype=torch.float64)
    read = sample_tokens(tokens, torch.zeros(3, dtype=torch.long), corners, 32)
    torch.testing.assert_close(read, tokens[0, :, 0, 0].expand(3, -1))


def test_gradients_reach_the_four_patches_around_a_place():
    tokens = random_tokens().requires_grad_()
    position = torch.tensor([[12.0, 13.0]], dtype=torch.float64)
    sample_tokens(tokens, torch.tensor([2]), position, 32).sum().backward()
    touched = tokens.grad.abs().sum(dim=1).nonzero().tolist()
    assert touched == [[2, 1, 1], [2, 1, 2]]  # the row lies on a patch centre, the column between two


def test_another_way_of_reading_is_refused():
    with pytest.raises(BadSetting, match="bicubic"):
        sample_tokens(random_tokens(), torch.tensor([0]), torch.zeros(1, 2), 32, mode="bicubic")


def test_tokens_stand_where_their_patches_are(make_encoder):
    encoder = make_encoder()
    with torch.inference_mode():
        hidden = encoder.satellite_image_backbone(pixel_values=(x := torch.randn(2, 3, 16, 16))).last_hidden_state
        tokens = encoder.tokens(x)
        patch = hidden[1, 1 + 2 * 4 + 3]  # row 2, column 3, after the class token
        torch.testing.assert_close(tokens[1, :, 2, 3], normalize(encoder.projector(patch), dim=0), atol=1e-6, rtol=0)
    assert tokens.shape == (2, 16, 4, 4)
    assert norms(tokens, dim=1)


def test_the_image_level_is_read_out_densely_by_its_own_head(make_encoder):
    encoder = make_encoder()
    backbone = encoder.satellite_image_backbone
    with torch.inference_mode():
        output = backbone(pixel_values=(x := torch.randn(2, 3, 16, 16)))
        dense, embedding = encoder.tokens(x, level="image"), encoder.embed(x)
        states = backbone.vision_model.post_layernorm(output.last_hidden_state)
        read = normalize(backbone.visual_projection(states), dim=-1)
    torch.testing.assert_close(embedding, read[:, 0], atol=1e-6, rtol=0)
    torch.testing.assert_close(dense.flatten(2).transpose(1, 2), read[:, 1:], atol=1e-6, rtol=0)
    assert norms(embedding, dim=1)


@pytest.mark.parametrize("preset", ["mini", "mini-10m"])
def test_mini_presets_have_64_patches_and_fit_into_their_share_of_the_package(preset):
    encoder = SatelliteEncoder(preset_settings(preset, bands=("a", "b", "c", "d", "e"), dim=128))
    size = encoder.settings.image_size
    assert encoder.tokens(torch.zeros(1, 5, size, size)).shape == (1, 128, 8, 8)
    assert sum(value.numel() for value in encoder.parameters()) * 2 < 3.4e6  # bytes in float16


def test_vit_b_16_has_the_released_layout():
    settings = preset_settings("vit-b-16", bands=("red", "green", "blue"), dim=512)
    with torch.device("meta"):
        ours = SatelliteEncoder(settings)
        released = CLIPVisionModelWithProjection(CLIPVisionConfig(patch_size=16))
    shapes = {key: value.shape for key, value in ours.state_dict().items()}
    expected = {f"satellite_image_backbone.{key}": value.shape for key, value in released.state_dict().items()}
    projector = {"projector.0.weight": (768,), "projector.0.bias": (768,), "projector.1.weight": (512, 768)}
    assert shapes == {**expected, **projector}
    assert ours.settings.grid == 14
    assert ours.satellite_image_backbone.config.hidden_act == released.config.hidden_act


def test_an_unknown_preset_lists_the_known_ones():
    with pytest.raises(UnknownModel, match=", ".join(PRESETS)):
        preset_settings("maxi", bands=("red",), dim=8)


@pytest.mark.parametrize("shape", [(1, 4, 16, 16), (1, 3, 32, 32), (1, 3, 16, 8)])
def test_chips_of_another_shape_are_refused_with_the_expected_one(make_encoder, shape):
    with pytest.raises(ModelMismatch, match=r"\(N, 3, 16, 16\).*green, red, nir"):
        make_encoder().embed(torch.zeros(shape))


def test_an_unknown_level_is_refused(make_encoder):
    with pytest.raises(ModelMismatch, match="image and pixel"):
        make_encoder().tokens(torch.zeros(1, 3, 16, 16), level="object")


@pytest.mark.parametrize("change", [{"patch_size": 5}, {"heads": 5}, {"depth": 0}, {"bands": ()}])
def test_a_shape_that_cannot_be_built_is_refused(change):
    shape = {"bands": ("a",), "dim": 8, "image_size": 16, "patch_size": 4, "width": 24, "depth": 1, "heads": 2}
    EncoderSettings(**shape)
    with pytest.raises(BadSetting):
        EncoderSettings(**{**shape, **change})


def test_settings_survive_their_dictionary():
    settings = preset_settings("mini", bands=("red", "nir"), dim=32)
    assert EncoderSettings.from_dict(settings.to_dict()) == settings
    with pytest.raises(CheckpointMismatch):
        EncoderSettings.from_dict({**settings.to_dict(), "colour": "blue"})


def clip_shaped(**changes):
    """An encoder of the small CLIP's shape."""
    shape = {"bands": ("red", "green", "blue"), "dim": 16, "image_size": 32, "patch_size": 8, "width": 32}
    rest = {"depth": 2, "heads": 2, "activation": "quick_gelu"}
    return SatelliteEncoder(EncoderSettings(**{**shape, **rest, **changes}))


def widen(model):
    """The intermediate size of the small CLIP is no whole multiple of its width; replace it by one that is."""
    for layer in model.vision_model.encoder.layers:
        layer.mlp.fc1, layer.mlp.fc2 = torch.nn.Linear(32, 64), torch.nn.Linear(64, 32)
    model.config.vision_config.intermediate_size = 64


def test_an_encoder_starts_as_a_clips_image_tower(make_clip):
    from geograft.models.clip import read_model

    folder = make_clip(change=widen)
    encoder = clip_shaped(expansion=2)
    projector = encoder.projector[1].weight.clone()
    init_from_clip(encoder, folder)
    pixels = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        expected = read_model(folder).eval().get_image_features(pixel_values=pixels).pooler_output
        torch.testing.assert_close(encoder.eval().embed(pixels), normalize(expected, dim=1), atol=1e-5, rtol=0)
    assert torch.equal(encoder.projector[1].weight, projector)


@pytest.mark.parametrize("change", [{"depth": 1}, {"depth": 3}, {"bands": ("red", "green", "blue", "nir")}, {"dim": 8}])
def test_a_clip_of_another_shape_is_refused(make_clip, change):
    with pytest.raises(CheckpointMismatch, match="another architecture"):
        init_from_clip(clip_shaped(expansion=2, **change), make_clip(change=widen))


def test_weights_that_are_not_finite_are_refused(make_encoder):
    weights = make_encoder().state_dict()
    weights["projector.1.weight"] = weights["projector.1.weight"] * float("inf")
    with pytest.raises(CheckpointMismatch, match=r"projector\.1\.weight is not finite"):
        load_strictly(make_encoder(), weights, source="The file")
