"""CLIPs of open_clip's and OpenAI's layout give the same vectors in transformers'."""

import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from transformers import CLIPModel

from geograft.errors import BadSetting, CheckpointMismatch, UnknownModel
from geograft.models.foreign import read_foreign, sniff
from geograft.models.foreign.architectures import KNOWN, identify, measure
from geograft.models.foreign.openclip import convert
from geograft.models.foreign.projects import choose_activation
from geograft.models.satellite import EncoderSettings, SatelliteEncoder, load_strictly


def load(foreign):
    """The CLIP of a result, every key accounted for."""
    model = CLIPModel(foreign.config)
    model.load_state_dict(foreign.weights, strict=True)
    return model.eval()


@torch.no_grad()
def agree(foreign, original, images, ids):
    """Both towers answer as the original's."""
    model = load(foreign)
    torch.testing.assert_close(
        model.get_image_features(pixel_values=images).pooler_output, original.visual(images), atol=1e-5, rtol=1e-5
    )
    torch.testing.assert_close(
        model.get_text_features(input_ids=ids).pooler_output, original.encode_text(ids), atol=1e-5, rtol=1e-5
    )
    return True


def save(model, path, **beside):
    torch.save({"state_dict": model.state_dict(), **beside} if beside else model.state_dict(), path)
    return path


@pytest.mark.parametrize("quick", [False, True])
def test_both_towers_answer_as_the_original(tmp_path, make_openclip, images, ids, quick):
    original = make_openclip(quick=quick)
    path = save(original, tmp_path / "model.pt")
    foreign = read_foreign(path, activation="quick_gelu" if quick else "gelu")
    assert sniff(path) == foreign.kind == "openclip"
    assert foreign.level is None
    assert foreign.notes["architecture"] == "ViT-tiny-8"
    assert agree(foreign, original, images, ids)


def test_the_other_activation_gives_other_vectors(tmp_path, make_openclip, images):
    original = make_openclip(quick=True)
    path = save(original, tmp_path / "model.pt")
    with torch.no_grad():
        wrong = load(read_foreign(path, activation="gelu")).get_image_features(pixel_values=images).pooler_output
        assert (wrong - original.visual(images)).abs().max() > 1e-3


def test_training_checkpoint_with_prefixes_and_optimiser(tmp_path, make_openclip, images, ids):
    original = make_openclip()
    wrapped = {f"module.{key}": value for key, value in original.state_dict().items()}
    optimiser = torch.optim.AdamW(original.parameters())
    path = tmp_path / "epoch_20.pt"
    torch.save({"epoch": 20, "name": "run", "state_dict": wrapped, "optimizer": optimiser.state_dict()}, path)
    foreign = read_foreign(path)
    assert sniff(path) == "openclip"
    assert foreign.notes["epoch"] == 20
    assert foreign.notes["name"] == "run"
    assert "optimizer" in foreign.notes["left_out"]
    assert agree(foreign, original, images, ids)


def test_text_tower_of_its_own_module(tmp_path, make_openclip, images, ids):
    original = make_openclip()
    towers = {
        key if key.startswith(("visual.", "logit")) else f"text.{key}": v for key, v in original.state_dict().items()
    }
    path = tmp_path / "custom.pt"
    torch.save({**towers, "text.attn_mask": original.attn_mask, "logit_bias": torch.tensor(-10.0)}, path)
    foreign = read_foreign(path)
    assert sorted(foreign.notes["left_out"]) == ["attn_mask", "logit_bias"]
    assert agree(foreign, original, images, ids)


def test_layout_of_itra_training(tmp_path, make_openclip, images, ids):
    original = make_openclip()
    towers = {
        key.replace("visual.", "image_backbone.") if key.startswith("visual.") else f"text_backbone.{key}": value
        for key, value in original.state_dict().items()
    }
    path = tmp_path / "epoch_5.pt"
    torch.save({"state_dict": towers}, path)
    assert sniff(path) == "openclip"
    assert agree(read_foreign(path), original, images, ids)


def test_two_tables_of_positions_become_the_one_that_long_clip_adds_up(tmp_path, make_openclip, images):
    original = make_openclip(context=248)
    later = torch.randn(248, 16)
    path = save(original, tmp_path / "longclip-B.pt")
    torch.save({**original.state_dict(), "positional_embedding_res": later}, path)
    early = torch.arange(248)[:, None] < 20
    with torch.no_grad():
        original.positional_embedding.copy_(original.positional_embedding * early + later * ~early)
    ids = torch.randint(1, 38, (2, 60), generator=torch.Generator().manual_seed(0))
    ids[0, 40], ids[1, 59] = 39, 39
    foreign = read_foreign(path, activation="gelu")
    assert foreign.config.text_config.max_position_embeddings == 248
    assert agree(foreign, original, images, ids)


def test_safetensors_and_half_precision(tmp_path, make_openclip, images):
    original = make_openclip()
    path = tmp_path / "open_clip_model.safetensors"
    save_file({key: value.half() for key, value in original.state_dict().items()}, path)
    foreign = read_foreign(path)
    assert all(value.dtype == torch.float32 for value in foreign.weights.values())
    with torch.no_grad():
        found = load(foreign).get_image_features(pixel_values=images).pooler_output
        torch.testing.assert_close(found, original.visual(images), atol=0.05, rtol=0.05)


def test_scale_of_logits_as_a_row_or_not_at_all(tmp_path, make_openclip):
    weights = make_openclip().state_dict()
    torch.save({**weights, "logit_scale": torch.tensor([4.5])}, tmp_path / "row.pt")
    assert read_foreign(tmp_path / "row.pt").weights["logit_scale"].shape == ()
    del weights["logit_scale"]
    torch.save(weights, tmp_path / "none.pt")
    assert float(read_foreign(tmp_path / "none.pt").weights["logit_scale"]) == pytest.approx(2.6592)


@pytest.mark.parametrize("prefix", ["visual.", ""])
def test_image_tower_alone_becomes_a_satellite_encoder(tmp_path, make_openclip, images, prefix):
    original = make_openclip()
    path = tmp_path / "tower.pt"
    torch.save({prefix + key: value for key, value in original.visual.state_dict().items()}, path)
    foreign = read_foreign(path)
    assert foreign.level == "image"
    vision = foreign.config.vision_config
    encoder = SatelliteEncoder(
        EncoderSettings(("red", "green", "blue"), dim=12, image_size=32, patch_size=8, width=24, depth=2, heads=3)
    )
    assert (vision.hidden_size, vision.num_attention_heads, vision.hidden_act) == (24, 3, "gelu")
    load_strictly(encoder, foreign.weights, source="tower")
    with torch.no_grad():
        unit = nn.functional.normalize(original.visual(images), dim=-1)
        torch.testing.assert_close(encoder.eval().embed(images), unit, atol=1e-5, rtol=1e-5)
        dense = nn.functional.normalize(
            original.visual.ln_post(original.visual.tokens(images)[:, 1:]) @ original.visual.proj, dim=-1
        )
        torch.testing.assert_close(encoder.tokens(images).flatten(2).mT, dense, atol=1e-5, rtol=1e-5)


# --- architectures ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ViT-B-32", "ViT-B-16", "ViT-L-14", "ViT-L-14-336", "ViT-H-14", "ViT-bigG-14"])
def test_full_size_is_found_by_its_shapes(tmp_path, large, name):
    one = next(one for one in KNOWN if one.name == name)
    path = tmp_path / "weights.pt"
    torch.save(large(one), path)
    assert path.stat().st_size < 1 << 20
    converted, _ = convert(torch.load(path, weights_only=True), source="weights")
    found = identify(measure(converted, source="weights"), source="weights")
    assert found == one
    config = found.config("gelu")
    with torch.device("meta"):
        expected = CLIPModel(config).state_dict()
    assert {key: value.shape for key, value in converted.items()} == {key: v.shape for key, v in expected.items()}
    assert config.vision_config.num_attention_heads == one.width // one.head_width


def test_heads_of_the_large_ones_are_not_64_wide():
    heads = {one.name: one.width // one.head_width for one in KNOWN}
    assert (heads["ViT-H-14"], heads["ViT-g-14"], heads["ViT-bigG-14"], heads["ViT-L-14"]) == (16, 16, 16, 16)


def test_unknown_sizes_name_the_nearest_architecture(tmp_path, make_openclip):
    path = save(make_openclip(layers=3), tmp_path / "model.pt")
    with pytest.raises(CheckpointMismatch, match=r"nearest is ViT-tiny-8.* 3 layers instead of 2.*open_clip_config"):
        read_foreign(path)


def test_named_architecture_must_be_the_one(tmp_path, large, make_openclip):
    path = tmp_path / "weights.pt"
    torch.save(large(next(one for one in KNOWN if one.name == "ViT-B-32")), path)
    with pytest.raises(CheckpointMismatch, match=r"no ViT-B-16: .*patches of 32 px instead of 16.*those of ViT-B-32"):
        read_foreign(path, architecture="ViT-B-16")
    with pytest.raises(CheckpointMismatch, match=r"images of 224 px instead of 256; its sizes are those of ViT-B-32"):
        read_foreign(path, architecture="ViT-B-32-256")
    assert read_foreign(path, architecture="ViT-B/32").notes["architecture"] == "ViT-B-32"


@pytest.mark.parametrize(("name", "hint"), [("ViT-Q-9", "Known are"), ("RN50", "ResNet CLIPs are not read")])
def test_name_of_no_architecture(tmp_path, make_openclip, name, hint):
    path = save(make_openclip(), tmp_path / "model.pt")
    with pytest.raises(UnknownModel, match=hint):
        read_foreign(path, architecture=name)


def test_another_vocabulary_is_no_known_architecture(tmp_path, make_openclip):
    path = save(make_openclip(vocabulary=50), tmp_path / "model.pt")
    with pytest.raises(CheckpointMismatch, match="a vocabulary of 50 instead of 40"):
        read_foreign(path)


# --- the configuration beside the weights -----------------------------------------------------------------


def test_configuration_beside_the_weights_gives_heads_activation_and_preprocessing(
    tmp_path, make_openclip, write_config, images, ids
):
    original = make_openclip(layers=3, head_width=4, quick=True)
    save(original, tmp_path / "open_clip_pytorch_model.bin")
    write_config(
        tmp_path,
        vision={"layers": 3, "head_width": 4},
        model={"quick_gelu": True},
        preprocess={
            "mean": [0.5, 0.5, 0.5],
            "std": [0.2, 0.2, 0.2],
            "interpolation": "bilinear",
            "resize_mode": "squash",
        },
    )
    foreign = read_foreign(tmp_path)
    assert sniff(tmp_path) == "openclip"
    assert foreign.notes["activation_certain"]
    assert foreign.notes["preprocess"] == {
        "size": 32, "resize": "squash", "resample": "bilinear", "mean": [0.5] * 3, "std": [0.2] * 3,
    }  # fmt: skip
    assert agree(foreign, original, images, ids)


def test_configuration_of_timm_does_not_hide_the_weights(tmp_path, make_openclip, write_config):
    save(make_openclip(), tmp_path / "open_clip_pytorch_model.bin")
    write_config(tmp_path)
    (tmp_path / "config.json").write_text('{"architecture": "vit_base_patch32_clip_224"}')
    assert sniff(tmp_path) == "openclip"
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    assert sniff(tmp_path) is None


def test_configuration_of_other_sizes_is_refused(tmp_path, make_openclip, write_config):
    path = save(make_openclip(), tmp_path / "open_clip_pytorch_model.bin")
    write_config(tmp_path, vision={"layers": 4})
    with pytest.raises(CheckpointMismatch, match="2 layers instead of 4; its sizes are those of ViT-tiny-8"):
        read_foreign(path)


@pytest.mark.parametrize(
    ("vision", "text", "asked"),
    [
        ({"timm_model_name": "convnext_base"}, {}, "timm_model_name"),
        ({"pool_type": "avg"}, {}, "pool_type = 'avg'"),
        ({}, {"hf_tokenizer_name": "xlm-v"}, "hf_tokenizer_name"),
    ],
)
def test_configuration_of_other_towers_is_refused(tmp_path, make_openclip, write_config, vision, text, asked):
    path = save(make_openclip(), tmp_path / "open_clip_pytorch_model.bin")
    write_config(tmp_path, vision=vision, text=text)
    with pytest.raises(CheckpointMismatch, match=asked):
        read_foreign(path)


def test_damaged_configuration(tmp_path, make_openclip):
    path = save(make_openclip(), tmp_path / "open_clip_pytorch_model.bin")
    (tmp_path / "open_clip_config.json").write_text('{"model_cfg": ')
    with pytest.raises(CheckpointMismatch, match="no configuration of open_clip"):
        read_foreign(path)


# --- what is refused by name ------------------------------------------------------------------------------


def resnet_keys():
    """The keys of a CLIP with a ResNet-50."""
    blocks = {1: 3, 2: 4, 3: 6, 4: 3}
    return {f"visual.layer{layer}.{block}.conv1.weight": 1 for layer, count in blocks.items() for block in range(count)}


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (resnet_keys(), r"ResNet as its image tower \(RN50\).*Take the ViT checkpoint"),
        ({"visual.trunk.patch_embed.proj.weight": 1, "visual.head.proj.weight": 1}, "timm.*ONNX"),
        ({"visual.conv1.weight": 1, "text.transformer.embeddings.word_embeddings.weight": 1}, "language model"),
        ({"visual.conv1.weight": 1, "text_decoder.ln_final.weight": 1}, "CoCa"),
        ({"visual.conv1.weight": 1, "visual.transformer.resblocks.0.ls_1.gamma": 1}, "scaled layers"),
        ({"visual.conv1.weight": 1, "text.text_projection.weight": 1}, "text head is a layer"),
    ],
)
def test_other_towers_are_refused_by_name(tmp_path, keys, said):
    path = tmp_path / "RemoteCLIP-other.pt"
    torch.save({key: torch.zeros(1) for key in keys}, path)
    assert sniff(path) == "openclip"
    with pytest.raises(CheckpointMismatch, match=said):
        read_foreign(path)


def test_tower_without_its_first_normalisation_is_a_clipa(tmp_path, make_openclip):
    weights = {key: value for key, value in make_openclip().state_dict().items() if "ln_pre" not in key}
    torch.save(weights, tmp_path / "model.pt")
    with pytest.raises(CheckpointMismatch, match="CLIPA"):
        read_foreign(tmp_path / "model.pt")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda w: w.pop("visual.ln_post.bias"), r"missing vision_model\.post_layernorm\.bias"),
        (lambda w: w.update({"visual.extra.weight": torch.zeros(2)}), r"no CLIP has: visual\.extra\.weight"),
        (lambda w: w["visual.proj"][0].fill_(float("nan")), r"visual_projection\.weight is not finite"),
        (lambda w: w.update({"ln_final.weight": torch.zeros(17)}), r"final_layer_norm\.weight is \(17,\) instead"),
    ],
)
def test_every_key_counts(tmp_path, make_openclip, change, said):
    weights = {key: value.clone() for key, value in make_openclip().state_dict().items()}
    change(weights)
    torch.save(weights, tmp_path / "model.pt")
    with pytest.raises(CheckpointMismatch, match=said):
        read_foreign(tmp_path / "model.pt")


# --- activation -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "activation", "certain"),
    [
        ("SkyCLIP_ViT_L14_top30pct/epoch_20.pt", "quick_gelu", True),
        ("models/vit_b_32-quickgelu-laion400m_e32.pt", "quick_gelu", True),
        ("CLIP-ViT-B-16-DataComp.XL-s13B-b90K/open_clip_pytorch_model.bin", "gelu", True),
        ("FarSLIP1_ViT-B-16.pt", "quick_gelu", True),
        ("RemoteCLIP-ViT-B-32.pt", "gelu", False),
        ("weights.pt", "gelu", False),
    ],
)
def test_activation_by_project(tmp_path, make_openclip, caplog, name, activation, certain):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    save(make_openclip(), path)
    with caplog.at_level(logging.WARNING):
        foreign = read_foreign(path)
    assert foreign.config.vision_config.hidden_act == foreign.config.text_config.hidden_act == activation
    assert foreign.notes["activation_certain"] is certain
    assert ("activation" in caplog.text) is not certain


@pytest.mark.parametrize(
    ("name", "activation"),
    [("SkyCLIP_ViT_B32_top50pct/epoch_20.pt", "gelu"), ("RS5M_ViT-B-32.pt", "quick_gelu")],
)
def test_activation_by_project_and_architecture(name, activation):
    assert choose_activation(Path(name), "ViT-B-32").activation == activation
    assert choose_activation(Path("RS5M_ViT-H-14.pt"), "ViT-H-14").activation == "gelu"


@pytest.mark.parametrize("wrong", [{"activation": "relu"}, {"level": "scene"}])
def test_settings_out_of_range(tmp_path, make_openclip, wrong):
    path = save(make_openclip(), tmp_path / "weights.pt")
    with pytest.raises(BadSetting, match="'gelu' or 'quick_gelu'"):
        read_foreign(path, **wrong)


def test_name_of_architecture_tells_the_activation(tmp_path, make_openclip):
    path = save(make_openclip(), tmp_path / "weights.pt")
    assert read_foreign(path, architecture="ViT-tiny-8-quickgelu").notes["activation"] == "quick_gelu"
    assert read_foreign(path, activation="quick_gelu").notes["activation_source"] == "given by the caller"


# --- transformers' layout without configuration -----------------------------------------------------------


def test_bare_state_of_transformers(tmp_path, make_openclip, images, ids):
    original = make_openclip(quick=True)
    path = save(original, tmp_path / "clip.pt")
    state = load(read_foreign(path, activation="quick_gelu")).state_dict()
    torch.save({**state, "vision_model.embeddings.position_ids": torch.arange(17)[None]}, tmp_path / "bare.bin")
    foreign = read_foreign(tmp_path / "bare.bin")
    assert sniff(tmp_path / "bare.bin") == foreign.kind == "clip-transformers-state"
    assert foreign.notes["activation"] == "quick_gelu"
    assert agree(foreign, original, images, ids)


# --- the library itself -----------------------------------------------------------------------------------


def test_library_gives_the_same_vectors(tmp_path):
    open_clip = pytest.importorskip("open_clip", reason="open_clip is not installed", exc_type=ImportError)
    torch.manual_seed(0)
    original = open_clip.create_model("ViT-S-32-alt", pretrained=None).eval()
    path = save(original, tmp_path / "model.pt")
    ids = open_clip.get_tokenizer("ViT-S-32-alt")(["a harbour with boats", "forest"])
    images = torch.randn(2, 3, 224, 224)
    model = load(read_foreign(path, activation="gelu"))
    with torch.no_grad():
        torch.testing.assert_close(
            model.get_image_features(pixel_values=images).pooler_output,
            original.encode_image(images),
            atol=1e-5,
            rtol=1e-4,
        )
        torch.testing.assert_close(
            model.get_text_features(input_ids=ids).pooler_output, original.encode_text(ids), atol=1e-5, rtol=1e-4
        )
