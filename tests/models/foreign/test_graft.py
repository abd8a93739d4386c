"""GRAFT's own checkpoints become satellite encoders that answer as the released code does."""

import logging

import pytest
import torch
from torch import nn
from torch.nn import functional
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from geograft.errors import CheckpointMismatch
from geograft.models.foreign import graft, read_foreign, sniff
from geograft.models.foreign.architectures import KNOWN
from geograft.models.satellite import EncoderSettings, SatelliteEncoder, load_strictly


class Graft(nn.Module):
    """GRAFT's module, in the layout of the released code."""

    def __init__(self, config, *, bias=False):
        super().__init__()
        self.satellite_image_backbone = CLIPVisionModelWithProjection(config)
        self.projector = nn.Sequential(
            nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps),
            nn.Linear(config.hidden_size, config.projection_dim, bias=bias),
        )
        self.register_buffer("logit_scale", torch.ones([]) * (1 / 0.07))

    def image(self, images):
        return functional.normalize(self.satellite_image_backbone(images).image_embeds, dim=-1)

    def pixel(self, images):
        hidden = self.satellite_image_backbone(images).last_hidden_state
        return functional.normalize(self.projector(hidden), dim=-1)[:, 1:]


CONFIG = CLIPVisionConfig(
    hidden_size=24, intermediate_size=96, num_hidden_layers=2, num_attention_heads=3, image_size=32, patch_size=8,
    projection_dim=12, hidden_act="quick_gelu",
)  # fmt: skip


@pytest.fixture(autouse=True)
def tiny_text_encoder(monkeypatch):
    monkeypatch.setitem(graft.TEXT_ENCODERS, "ViT-tiny-8", "openai/tiny")


@pytest.fixture
def make_graft():
    """A factory of small GRAFTs; the heads named in `untrained` hold weights that float16 holds exactly."""

    def make(*, untrained=(), **options):
        torch.manual_seed(0)
        made = Graft(CONFIG, **options).eval()
        heads = {"image": made.satellite_image_backbone.visual_projection, "pixel": made.projector[1]}
        with torch.no_grad():
            for value in made.parameters():
                value.normal_(std=0.3)
            for level in untrained:
                heads[level].weight.copy_(heads[level].weight.half())
        return made

    return make


def write(model, path, change=None, **beside):
    """A Lightning file with the buffer that older versions of transformers store."""
    weights = {key: value.clone() for key, value in model.state_dict().items()}
    weights["satellite_image_backbone.vision_model.embeddings.position_ids"] = torch.arange(17)[None]
    if change is not None:
        change(weights)
    torch.save({"epoch": 9, "pytorch-lightning_version": "1.9.0", "state_dict": weights, **beside}, path)
    return path


def encoder_of(foreign):
    vision = foreign.config.vision_config
    settings = EncoderSettings(
        ("red", "green", "blue"), foreign.config.projection_dim, vision.image_size, vision.patch_size,
        vision.hidden_size, vision.num_hidden_layers, vision.num_attention_heads, activation=vision.hidden_act,
    )  # fmt: skip
    encoder = SatelliteEncoder(settings)
    load_strictly(encoder, foreign.weights, source="graft")
    return encoder.eval()


@torch.no_grad()
def test_both_levels_answer_as_the_released_code(tmp_path, make_graft, images):
    original = make_graft()
    path = write(original, tmp_path / "graft.ckpt")
    foreign = read_foreign(path, level="pixel")
    assert sniff(path) == foreign.kind == "graft"
    encoder = encoder_of(foreign)
    torch.testing.assert_close(encoder.embed(images), original.image(images), atol=1e-5, rtol=1e-5)
    tokens = encoder.tokens(images, level="pixel").flatten(2).mT
    torch.testing.assert_close(tokens, original.pixel(images), atol=1e-5, rtol=1e-5)


def test_what_is_known_of_it(tmp_path, make_graft):
    foreign = read_foreign(write(make_graft(), tmp_path / "pixel.ckpt"))
    assert foreign.text_encoder == "openai/tiny"
    assert foreign.notes["epoch"] == 9
    assert foreign.notes["temperature"] == pytest.approx(0.07)
    assert not any("position_ids" in key or key == "logit_scale" for key in foreign.weights)


def test_released_size_answers_to_clip_b_16(tmp_path):
    with torch.device("meta"):
        shapes = Graft(CLIPVisionConfig(patch_size=16, projection_dim=512)).state_dict()
    weights = {key: torch.zeros(()).expand(value.shape) for key, value in shapes.items()}
    torch.save({"state_dict": {**weights, "logit_scale": torch.tensor(1 / 0.07)}}, tmp_path / "sentinel_image.ckpt")
    foreign = read_foreign(tmp_path / "sentinel_image.ckpt")
    assert foreign.text_encoder == "openai/clip-vit-base-patch16"
    assert foreign.weights["projector.1.weight"].shape == (512, 768)
    assert foreign.config.vision_config.num_attention_heads == 12
    assert foreign.notes["architecture"] == "ViT-B-16"


# --- which level ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "level"),
    [
        ("graft_naip_patch.ckpt", "pixel"),
        ("pixel_level/last.ckpt", "pixel"),
        ("clip-vit-base-patch16/sentinel_image.ckpt", "image"),
        ("Cross_Image_Only_wd_1e-2/checkpoints/last.ckpt", "image"),
    ],
)
def test_names_tell_the_level(tmp_path, make_graft, name, level):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    foreign = read_foreign(write(make_graft(), tmp_path / name))
    assert foreign.level == level
    assert foreign.notes["level_certain"]


def test_hyper_parameters_tell_the_level(tmp_path, make_graft):
    path = write(make_graft(), tmp_path / "last.ckpt", hyper_parameters={"model": "pixel_level"})
    assert read_foreign(path).level == "pixel"


@pytest.mark.parametrize(
    "said", [{"image_size": 224, "patch_size": 16}, {"runs": ["image_level", "pixel_level"]}, "images of patches"]
)
def test_hyper_parameters_that_only_speak_of_images_tell_nothing(tmp_path, make_graft, said):
    path = write(make_graft(untrained=["image"]), tmp_path / "last.ckpt", hyper_parameters=said)
    foreign = read_foreign(path)
    assert foreign.level == "pixel"
    assert "exact in float16" in foreign.notes["level_source"]


@pytest.mark.parametrize(("untrained", "level"), [("image", "pixel"), ("pixel", "image")])
def test_the_head_that_was_never_trained_tells_the_level(tmp_path, make_graft, untrained, level):
    foreign = read_foreign(write(make_graft(untrained=[untrained]), tmp_path / "last.ckpt"))
    assert foreign.level == level
    assert "exact in float16" in foreign.notes["level_source"]


def test_level_that_nothing_tells_is_a_guess_with_a_warning(tmp_path, make_graft, caplog):
    path = write(make_graft(), tmp_path / "last.ckpt")
    with caplog.at_level(logging.WARNING):
        foreign = read_foreign(path)
    assert foreign.level == "image"
    assert not foreign.notes["level_certain"]
    assert "level='pixel'" in caplog.text
    assert read_foreign(path, level="pixel").level == "pixel"


# --- what is refused --------------------------------------------------------------------------------------


def turned(weights):
    weights["projector.1.weight"] = weights["projector.1.weight"].T.contiguous()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (turned, r"projector\.1\.weight is \(24, 12\) instead of \(12, 24\) \(it is transposed\)"),
        (lambda w: w.pop("projector.0.bias"), r"missing projector\.0\.bias"),
        (lambda w: w.update({"decoder.weight": torch.zeros(2)}), r"unknown decoder\.weight"),
        (lambda w: w["projector.1.weight"].fill_(float("nan")), r"projector\.1\.weight is not finite"),
        (lambda w: w.update({"projector.1.bias": torch.zeros(12)}), "projector with a bias"),
        (lambda w: w.pop("satellite_image_backbone.visual_projection.weight"), "lacks satellite_image_backbone"),
        (
            lambda w: [w.pop(key) for key in list(w) if ".layers.1." in key],
            r"no known architecture: nearest is ViT-tiny-8",
        ),
    ],
)
def test_every_key_counts(tmp_path, make_graft, change, said):
    with pytest.raises(CheckpointMismatch, match=said):
        read_foreign(write(make_graft(), tmp_path / "graft.ckpt", change))


def test_backbone_that_no_clip_of_openai_has(tmp_path, make_graft, monkeypatch):
    monkeypatch.delitem(graft.TEXT_ENCODERS, "ViT-tiny-8")
    with pytest.raises(CheckpointMismatch, match="unknown which text encoder"):
        read_foreign(write(make_graft(), tmp_path / "graft.ckpt"))


def test_text_encoders_are_of_known_architectures():
    assert set(graft.TEXT_ENCODERS) <= {one.name for one in KNOWN} | {"ViT-tiny-8"}


def test_models_of_this_package_are_not_graft_checkpoints(tmp_path, make_graft):
    from safetensors.torch import save_file

    weights = {f"pixel.{key}": value for key, value in make_graft().state_dict().items()}
    save_file(weights, tmp_path / "model.safetensors")
    assert sniff(tmp_path / "model.safetensors") is None
