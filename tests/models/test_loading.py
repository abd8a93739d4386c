import dataclasses
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPConfig, CLIPModel

import geograft
from geograft.errors import BadSetting, CheckpointMismatch, ModelMismatch, NoTextEncoder, UnknownModel, UnknownSensor
from geograft.models import numerics, zoo
from geograft.models.checkpoints import save_model
from geograft.models.clip import ClipTeacher
from geograft.models.foreign import architectures, graft
from geograft.models.loading import load
from geograft.models.satellite import EncoderSettings, SatelliteEncoder
from geograft.models.teacher import load_teacher
from geograft.sensors import get_sensor

VOCABULARY = 49408
TINY = architectures.Architecture(
    "ViT-tiny-8", patch=8, width=24, layers=2, dim=16, text_width=16, text_layers=2, image_size=32, head_width=8,
    text_heads=2, vocabulary=VOCABULARY,
)  # fmt: skip
TOWER = dataclasses.replace(TINY, name="ViT-tower-8", text_width=0, text_layers=0)


@pytest.fixture(autouse=True)
def exact(monkeypatch):
    """float32 everywhere, and the tests' small architectures among the known ones."""
    monkeypatch.setattr(numerics, "has_bfloat16", lambda _device="cpu": False)
    monkeypatch.setattr(architectures, "KNOWN", (*architectures.KNOWN, TINY))
    monkeypatch.setitem(graft.TEXT_ENCODERS, TINY.name, "openai/clip-vit-base-patch16")


def small_clip(seed=0):
    """A CLIP of the small architecture that reads CLIP's own vocabulary."""
    torch.manual_seed(seed)
    body = {"num_hidden_layers": 2, "hidden_act": "gelu"}
    config = CLIPConfig(
        vision_config={
            **body, "hidden_size": 24, "intermediate_size": 96, "num_attention_heads": 3, "image_size": 32,
            "patch_size": 8,
        },
        text_config={
            **body, "hidden_size": 16, "intermediate_size": 64, "num_attention_heads": 2, "vocab_size": VOCABULARY,
        },
        projection_dim=16,
    )  # fmt: skip
    return CLIPModel(config).eval()


def as_openclip(model):
    """The weights of a CLIP under open_clip's names."""
    weights, found = model.state_dict(), {"logit_scale": model.logit_scale.detach()}
    for tower, new in (("vision_model", "visual."), ("text_model", "")):
        for layer in range(2):
            old, block = f"{tower}.encoder.layers.{layer}.", f"{new}transformer.resblocks.{layer}."
            for kind in ("weight", "bias"):
                parts = [weights[f"{old}self_attn.{name}_proj.{kind}"] for name in "qkv"]
                found[f"{block}attn.in_proj_{kind}"] = torch.cat(parts)
                found[f"{block}attn.out_proj.{kind}"] = weights[f"{old}self_attn.out_proj.{kind}"]
                for number in (1, 2):
                    found[f"{block}ln_{number}.{kind}"] = weights[f"{old}layer_norm{number}.{kind}"]
                for name, other in (("c_fc", "fc1"), ("c_proj", "fc2")):
                    found[f"{block}mlp.{name}.{kind}"] = weights[f"{old}mlp.{other}.{kind}"]
    for name, old in {
        "visual.class_embedding": "vision_model.embeddings.class_embedding",
        "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
        "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
        "visual.ln_pre.weight": "vision_model.pre_layrnorm.weight",
        "visual.ln_pre.bias": "vision_model.pre_layrnorm.bias",
        "visual.ln_post.weight": "vision_model.post_layernorm.weight",
        "visual.ln_post.bias": "vision_model.post_layernorm.bias",
        "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
        "positional_embedding": "text_model.embeddings.position_embedding.weight",
        "ln_final.weight": "text_model.final_layer_norm.weight",
        "ln_final.bias": "text_model.final_layer_norm.bias",
    }.items():
        found[name] = weights[old]
    found["visual.proj"] = weights["visual_projection.weight"].T.contiguous()
    found["text_projection"] = weights["text_projection.weight"].T.contiguous()
    return found


@pytest.fixture
def openclip_file(tmp_path):
    """A CLIP of open_clip's layout with a suffix that says nothing, and the same in transformers'."""
    path, folder = tmp_path / "some-clip.weights", tmp_path / "same"
    model = small_clip()
    torch.save(as_openclip(model), path)
    model.save_pretrained(folder)
    preprocessing = '"size": {"shortest_edge": 32}, "crop_size": 32, "resample": 3, '
    mean, std = "[0.48145466, 0.4578275, 0.40821073]", "[0.26862954, 0.26130258, 0.27577711]"
    (folder / "preprocessor_config.json").write_text(f'{{{preprocessing}"image_mean": {mean}, "image_std": {std}}}')
    return path, folder


@pytest.fixture
def make_graft(tmp_path):
    """A factory of GRAFT's files."""

    def make(name="naip_image.ckpt", *, seed=0):
        torch.manual_seed(seed)
        shape = {"image_size": 32, "patch_size": 8, "width": 24, "depth": 2, "heads": 3, "activation": "quick_gelu"}
        encoder = SatelliteEncoder(EncoderSettings(bands=("red", "green", "blue"), dim=16, **shape)).eval()
        weights = {**encoder.state_dict(), "logit_scale": torch.tensor(1 / 0.07)}
        torch.save({"state_dict": weights, "epoch": 9}, tmp_path / name)
        return tmp_path / name, encoder

    return make


def chips(count=3, size=32, bands=3):
    return np.random.default_rng(0).integers(0, 256, (count, bands, size, size)).astype(np.uint8)


def as_pictures(pixels):
    return [Image.fromarray(chip.transpose(1, 2, 0)) for chip in pixels]


# --- ours -------------------------------------------------------------------------------------------------


def test_shipped_models_load_by_name_as_before():
    assert geograft.load("mini").name == load("mini-1m").name
    assert load("mini-10m").sensor.name == "world-10m"


def test_a_model_folder_loads_with_the_teacher_that_is_given(make_model, teacher, tmp_path):
    model = make_model()
    save_model(model, tmp_path / "m")
    assert load(tmp_path / "m", text=teacher).fingerprint == model.fingerprint
    other = type(teacher)(fingerprint="f" * 16)
    with pytest.raises(ModelMismatch, match="was trained on the teacher"):
        load(tmp_path / "m", text=other)


@pytest.mark.parametrize("wish", [{"sensor": "naip"}, {"gsd": 2.0}, {"activation": "gelu"}, {"pixel": "x.ckpt"}])
def test_what_a_model_knows_of_itself_cannot_be_chosen(make_model, tmp_path, wish):
    save_model(make_model(), tmp_path / "m")
    with pytest.raises(BadSetting, match=f"{next(iter(wish))}= cannot be chosen"):
        load(tmp_path / "m", **wish)


# --- CLIP and SigLIP --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["clip", "siglip", "siglip2"])
def test_a_folder_of_transformers_is_a_model_of_true_colour_imagery(make_clip, siglip_folder, make_siglip2, kind):
    folder = {"clip": make_clip, "siglip": lambda: siglip_folder, "siglip2": make_siglip2}[kind]()
    model = load(folder, gsd=0.3)
    assert (model.sensor.name, model.gsd, model.levels, model.name) == ("rgb", 0.3, ("image",), folder.name)
    own = ClipTeacher(folder)
    assert model.teacher_fingerprint == own.fingerprint
    np.testing.assert_allclose(model.embed_chips(chips()), own.encode_photos(as_pictures(chips())), atol=1e-5)


def test_a_file_of_open_clip_is_what_the_same_model_is_in_transformers_layout(openclip_file):
    path, folder = openclip_file
    file, same = load(path), load(folder)
    np.testing.assert_allclose(file.embed_chips(chips()), same.embed_chips(chips()), atol=1e-5)
    texts = ["a photo of a forest", "Häuser"]
    np.testing.assert_allclose(file.encode_text(texts), same.encode_text(texts), atol=1e-5)
    assert file.fingerprint == same.fingerprint
    assert file.teacher_fingerprint == same.teacher_fingerprint
    assert (file.teacher_name, file.name) == (str(path), "some-clip")


def test_a_teacher_of_open_clip_is_found_again_by_its_name(openclip_file):
    path, folder = openclip_file
    teacher = load_teacher(path)
    assert load_teacher(teacher.name).fingerprint == teacher.fingerprint == load_teacher(folder).fingerprint
    np.testing.assert_allclose(
        teacher.encode_photos(as_pictures(chips())), load_teacher(folder).encode_photos(as_pictures(chips())), atol=1e-5
    )


def test_the_activation_of_a_file_can_be_said(openclip_file):
    path, _ = openclip_file
    plain, quick = (load(path, activation=one).embed_chips(chips()) for one in ("gelu", "quick_gelu"))
    assert np.abs(plain - quick).max() > 1e-4
    with pytest.raises(CheckpointMismatch, match="is no ViT-B-32"):
        load(path, architecture="ViT-B-32")


def test_a_clip_that_has_its_own_words_refuses_those_of_another(openclip_file, make_clip):
    path, folder = openclip_file
    assert load(path, text=folder).has_teacher
    with pytest.raises(ModelMismatch, match="answers to its own text encoder"):
        load(path, text=make_clip())


def test_a_clip_can_do_without_words(openclip_file):
    model = load(openclip_file[0], text="none")
    assert model.embed_chips(chips()).shape == (3, 16)
    with pytest.raises(NoTextEncoder):
        model.encode_text(["a lake"])


def test_an_image_tower_alone_answers_to_the_words_that_are_named(openclip_file, tmp_path, make_clip, siglip_folder):
    path, folder = openclip_file
    tower = {key: value for key, value in as_openclip(small_clip()).items() if key.startswith("visual.")}
    torch.save(tower, tmp_path / "tower.pt")
    model = load(tmp_path / "tower.pt", text=folder)
    np.testing.assert_allclose(model.embed_chips(chips()), load(path).embed_chips(chips()), atol=1e-5)
    assert model.encode_text(["a lake"]).shape == (1, 16)
    assert not load(tmp_path / "tower.pt").has_teacher
    with pytest.raises(ModelMismatch, match="16 numbers"):
        load(tmp_path / "tower.pt", text=siglip_folder)
    with pytest.raises(CheckpointMismatch, match="no teacher"):
        load_teacher(tmp_path / "tower.pt")


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_a_loaded_clip_can_be_kept_as_a_model_folder(openclip_file, siglip_folder, tmp_path, kind):
    model = load(openclip_file[0] if kind == "clip" else siglip_folder, gsd=0.5)
    save_model(model, tmp_path / "kept")
    again = load(tmp_path / "kept")
    assert (again.fingerprint, again.gsd, again.sensor.mean) == (model.fingerprint, 0.5, model.sensor.mean)
    np.testing.assert_allclose(again.embed_chips(chips()), model.embed_chips(chips()), atol=5e-3)
    assert again.encode_text(["a lake"]).shape == (1, model.dim)


# --- GRAFT ------------------------------------------------------------------------------------------------


def test_a_graft_file_answers_to_the_clip_that_is_named(make_graft, make_clip):
    path, encoder = make_graft()
    model = load(path, sensor="naip", text=make_clip())
    pixels = chips(bands=4)
    with torch.inference_mode():
        expected = encoder.embed(torch.from_numpy(model.prepare(pixels[:, :3])))
    np.testing.assert_allclose(model.embed_chips(pixels[:, :3]), expected, atol=1e-5)
    np.testing.assert_allclose(
        model.embed_chips(pixels, sensor=get_sensor("naip")), model.embed_chips(pixels[:, :3]), atol=1e-6
    )
    assert (model.levels, model.gsd, model.bands) == (("image",), 1.0, ("red", "green", "blue"))
    assert model.encode_text(["a lake"]).shape == (1, 16)


def test_graft_of_sentinel_2_sees_at_ten_metres(make_graft):
    assert load(make_graft()[0], sensor="sentinel-2", text="none").gsd == 10.0
    assert load(make_graft()[0], sensor="sentinel-2-l2a", gsd=5.0, text="none").gsd == 5.0


def test_two_graft_files_are_joined(make_graft):
    (image, first), (pixel, second) = make_graft("a.ckpt"), make_graft("b.ckpt", seed=1)
    model = load(image, pixel=pixel, sensor="naip", text="none")
    prepared = torch.from_numpy(model.prepare(chips()))
    with torch.inference_mode():
        np.testing.assert_allclose(model.embed_chips(chips()), first.embed(prepared), atol=1e-5)
        np.testing.assert_allclose(model.dense(chips()), second.tokens(prepared), atol=1e-5)


def test_the_level_of_a_graft_file_is_that_of_its_name(make_graft):
    assert load(make_graft("sentinel_pixel.ckpt")[0], sensor="sentinel-2", text="none").levels == ("pixel",)


def test_a_graft_file_without_its_sensor_says_what_to_give(make_graft):
    with pytest.raises(UnknownSensor, match="sensor='naip' or sensor='sentinel-2'"):
        load(make_graft()[0], text="none")


def test_a_graft_file_without_its_words_says_how_to_name_them(make_graft, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UnknownModel, match=r"openai/clip-vit-base-patch16.*text="):
        load(make_graft()[0], sensor="naip")


def test_words_of_another_length_are_refused(make_graft, siglip_folder):
    with pytest.raises(ModelMismatch, match="16 numbers"):
        load(make_graft()[0], sensor="naip", text=siglip_folder)


def test_a_graft_file_is_no_teacher(make_graft):
    with pytest.raises(CheckpointMismatch, match="no teacher"):
        load_teacher(make_graft()[0])


def test_only_a_graft_file_is_joined(make_graft, openclip_file, make_clip):
    with pytest.raises(CheckpointMismatch, match="no file of GRAFT"):
        load(make_graft()[0], pixel=openclip_file[0], sensor="naip", text="none")
    with pytest.raises(BadSetting, match="pixel= cannot be chosen"):
        load(make_clip(), pixel=make_graft()[0])


# --- names ------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A cache of the hub that holds what is put there."""
    from huggingface_hub import constants

    cache = tmp_path / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    def put(source, repo, file=None):
        snapshot = cache / f"models--{repo.replace('/', '--')}" / "snapshots" / ("a" * 40)
        snapshot.mkdir(parents=True)
        (snapshot.parents[1] / "refs").mkdir()
        (snapshot.parents[1] / "refs" / "main").write_text("a" * 40)
        if file is None:
            shutil.copytree(source, snapshot, dirs_exist_ok=True)
        else:
            (snapshot / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, snapshot / file)
        return snapshot

    return put


def test_a_name_on_the_hub_is_kept_as_the_teachers_name(make_clip, hub):
    hub(make_clip(), "some-org/some-clip")
    model = load("hf-hub:some-org/some-clip@main")
    assert model.teacher_name == model.name == "hf-hub:some-org/some-clip@main"


def test_a_model_folder_of_ours_loads_from_the_hub(make_model, tmp_path, hub):
    save_model(make_model(), tmp_path / "m")
    hub(tmp_path / "m", "some-org/ours")
    assert load("some-org/ours").fingerprint == make_model().fingerprint


def test_a_name_of_the_zoo_is_its_file_on_the_hub(openclip_file, hub, monkeypatch):
    entry = dataclasses.replace(zoo.zoo()["remoteclip-vit-b-32"], architecture=TINY.name, gsd=0.25, licence="MIT")
    monkeypatch.setitem(zoo.zoo(), entry.name, entry)
    hub(openclip_file[0], entry.hub, entry.file)
    model = load("RemoteCLIP-ViT-B-32")
    assert (model.name, model.teacher_name, model.gsd) == (entry.name, entry.name, 0.25)
    assert model.origin.licence == "mit"
    assert load(entry.name, gsd=2.0).gsd == 2.0
    assert load_teacher(entry.name).fingerprint == model.teacher_fingerprint


def test_a_name_of_the_zoo_is_its_folder_on_the_hub(make_clip, hub):
    hub(make_clip(), "openai/clip-vit-base-patch16")
    assert load_teacher("clip-vit-b-16").name == "clip-vit-b-16"
    assert load("clip-vit-b-16").teacher_name == "clip-vit-b-16"


def test_weights_that_cannot_be_fetched_say_what_to_bring():
    with pytest.raises(UnknownModel, match=r"bring|load your own \.ckpt.*sensor=\"naip\""):
        load("graft-naip-image")
    with pytest.raises(UnknownModel, match="is no teacher that can be fetched"):
        load_teacher("graft-naip-image")
    with pytest.raises(UnknownModel, match="a teacher only"):
        load("words")


def test_an_unknown_name_lists_names_that_are_near():
    with pytest.raises(UnknownModel, match="did you mean remoteclip-vit-l-14, remoteclip-vit-b-32"):
        load("remotclip-vit")
    with pytest.raises(UnknownModel, match=r"clip-vit-b-16.*`geograft models`"):
        load_teacher("clip-vit-b16")


@pytest.mark.parametrize("name", ["nothing.ckpt", "/no/such/model.pt"])
def test_a_missing_file_is_named(name):
    with pytest.raises(UnknownModel, match="There is no file"):
        load(name)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_an_exported_encoder_of_photos_is_no_model(tmp_path):
    torch.jit.trace(torch.nn.Flatten(), torch.zeros(1, 3, 8, 8)).save(str(tmp_path / "encoder.pt"))
    with pytest.raises(CheckpointMismatch, match="can be a teacher"):
        load(tmp_path / "encoder.pt")


def test_a_folder_of_nothing_is_no_model(tmp_path):
    with pytest.raises(UnknownModel, match=r"give a folder with a config\.json"):
        load(tmp_path)


def test_a_damaged_file_is_refused(openclip_file):
    path, _ = openclip_file
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(CheckpointMismatch):
        load(path)
