import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoTokenizer, CLIPModel, CLIPVisionModelWithProjection

from geograft.errors import CheckpointMismatch, NoPhotoEncoder, NoTextEncoder
from geograft.models import folders, numerics, tokeniser
from geograft.models.clip import ClipTeacher, find_folder, read_vision_tower
from geograft.models.preprocess import NaflexPreprocess
from geograft.models.teacher import load_teacher

TEXTS = ["a photo of a forest", "River", "a harbour with boats of the town", "lake"]


@pytest.fixture(autouse=True)
def exact(monkeypatch):
    """float32 everywhere, so that references can be compared closely."""
    monkeypatch.setattr(numerics, "has_bfloat16", lambda _device="cpu": False)


def reference_text(folder, texts, **padding):
    """What transformers itself answers, text by text."""
    model, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    rows = []
    for text in texts:
        ids = tokenizer([text.lower()], return_tensors="pt", **padding)["input_ids"]
        with torch.inference_mode():
            rows.append(model.get_text_features(input_ids=ids).pooler_output)
    return torch.nn.functional.normalize(torch.cat(rows), dim=1).numpy()


def unit(vectors):
    return np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_photos_become_what_transformers_makes_of_them(make_clip, pictures):
    folder = make_clip()
    vectors = ClipTeacher(folder, batch=3).encode_photos(pictures)
    from transformers import CLIPImageProcessor

    pixels = CLIPImageProcessor.from_pretrained(folder)(pictures, return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        expected = CLIPModel.from_pretrained(folder).get_image_features(pixel_values=pixels).pooler_output
    expected = torch.nn.functional.normalize(expected, dim=1).numpy()
    assert vectors.dtype == np.float32
    assert unit(vectors)
    np.testing.assert_allclose(vectors, expected, atol=1e-5)
    assert np.linalg.norm(vectors[0] - vectors[1]) > 0.01


def test_texts_become_what_transformers_makes_of_each_alone(make_clip):
    folder = make_clip(end=3)
    vectors = ClipTeacher(folder, batch=3).encode_text(TEXTS)
    assert unit(vectors)
    np.testing.assert_allclose(vectors, reference_text(folder, TEXTS), atol=1e-5)
    assert np.linalg.norm(vectors[0] - vectors[1]) > 0.05


@pytest.mark.parametrize("configured", [2, 53])
def test_an_original_vocabulary_reads_the_same_under_the_old_and_the_new_configuration(make_original_clip, configured):
    folder = make_original_clip(configured=configured)
    vectors = ClipTeacher(folder).encode_text(["abc", "a z"])
    np.testing.assert_allclose(vectors, reference_text(folder, ["abc", "a z"]), atol=1e-5)
    assert np.linalg.norm(vectors[0] - vectors[1]) > 0.05


def test_the_tokeniser_decides_where_a_text_ends_when_the_configuration_names_an_absent_token(make_clip):
    right = ClipTeacher(make_clip("right", end=3, configured=3)).encode_text(TEXTS)
    forgotten = ClipTeacher(make_clip("forgotten", end=3, configured=49407)).encode_text(TEXTS)
    np.testing.assert_allclose(forgotten, right, atol=1e-6)


def test_the_end_token_of_old_checkpoints_is_refused_where_it_is_not_the_highest(make_clip):
    with pytest.raises(CheckpointMismatch, match="Give the end-of-text token another id"):
        ClipTeacher(make_clip(end=2))


def test_padding_and_batches_do_not_change_a_text(make_clip):
    folder = make_clip()
    together, alone = ClipTeacher(folder).encode_text(TEXTS), ClipTeacher(folder, batch=1).encode_text(TEXTS)
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_a_text_that_is_too_long_is_cut_and_still_read_at_its_end(make_clip):
    teacher = ClipTeacher(make_clip())
    long, longer = teacher.encode_text(["forest " * 10, "forest " * 50])
    np.testing.assert_allclose(long, longer, atol=1e-5)


def test_nothing_in_gives_no_rows_out(make_clip):
    teacher = ClipTeacher(make_clip())
    assert teacher.encode_text([]).shape == teacher.encode_photos([]).shape == (0, 16)


def test_siglip_texts_are_lower_case_and_padded_to_their_full_length(siglip_folder):
    vectors = ClipTeacher(siglip_folder, batch=3).encode_text(TEXTS)
    expected = reference_text(siglip_folder, TEXTS, padding="max_length", max_length=64)
    np.testing.assert_allclose(vectors, expected, atol=1e-5)
    unpadded = reference_text(siglip_folder, TEXTS)
    assert np.abs(vectors - unpadded).max() > 1e-3


def test_siglip_photos_are_squashed_as_its_processor_says(siglip_folder, pictures):
    from transformers import SiglipImageProcessor

    teacher = ClipTeacher(siglip_folder)
    pixels = SiglipImageProcessor.from_pretrained(siglip_folder)(pictures, return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        expected = AutoModel.from_pretrained(siglip_folder).get_image_features(pixel_values=pixels).pooler_output
    expected = torch.nn.functional.normalize(expected, dim=1).numpy()
    np.testing.assert_allclose(teacher.encode_photos(pictures), expected, atol=1e-5)
    assert teacher.dim == expected.shape[1]


def test_the_fingerprint_names_weights_preprocessing_and_vocabulary(make_clip):
    first, again = ClipTeacher(make_clip("a")).fingerprint, ClipTeacher(make_clip("b")).fingerprint
    assert first == again
    assert len(first) == 16
    other = {ClipTeacher(make_clip("seed", seed=1)).fingerprint, ClipTeacher(make_clip("end", end=4)).fingerprint}
    folder = make_clip("mean")
    path = folder / "preprocessor_config.json"
    path.write_text(path.read_text().replace("0.48145466", "0.5"))
    assert len({first, ClipTeacher(folder).fingerprint, *other}) == 4


def test_the_fingerprint_does_not_depend_on_the_file_format(make_clip):
    folder = make_clip()
    before = ClipTeacher(folder).fingerprint
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert ClipTeacher(folder).fingerprint == before


def rewrite(folder, change):
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda w: w.pop("visual_projection.weight"), "missing visual_projection.weight"),
        (lambda w: w.update({"stranger.weight": torch.zeros(2)}), "unknown stranger.weight"),
        (lambda w: w.update({"text_projection.weight": torch.zeros(3, 3)}), "cannot be read|text_projection"),
        (lambda w: w["visual_projection.weight"].fill_(float("nan")), "not finite"),
    ],
)
def test_weights_that_are_not_the_architectures_are_refused(make_clip, change, sentence):
    folder = make_clip()
    rewrite(folder, change)
    with pytest.raises(CheckpointMismatch, match=sentence):
        ClipTeacher(folder)


def test_a_truncated_file_is_refused(make_clip):
    folder = make_clip()
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointMismatch, match="cannot be read"):
        ClipTeacher(folder)


def test_another_architecture_is_refused_by_its_type(make_clip):
    folder = make_clip()
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"model_type": "clip"', '"model_type": "bert"'))
    with pytest.raises(CheckpointMismatch, match="'bert'"):
        ClipTeacher(folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "preprocessor_config.json", "tokenizer.json"])
def test_a_folder_that_lacks_a_file_is_refused(make_clip, name):
    folder = make_clip()
    (folder / name).unlink()
    with pytest.raises(CheckpointMismatch):
        ClipTeacher(folder)


def test_a_cached_hub_model_is_found_without_the_network(make_clip, tmp_path, monkeypatch):
    from huggingface_hub import constants

    cache = tmp_path / "hub"
    snapshot = cache / "models--some-org--some-clip" / "snapshots" / ("a" * 40)
    shutil.copytree(make_clip(), snapshot)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("a" * 40)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert find_folder("hf-hub:some-org/some-clip") == find_folder("some-org/some-clip@main") == snapshot


def test_the_vision_tower_alone_answers_as_the_whole_model(make_clip):
    folder = make_clip()
    whole = CLIPModel.from_pretrained(folder)
    tower = CLIPVisionModelWithProjection(whole.config.vision_config).eval()
    tower.visual_projection = torch.nn.Linear(32, 16, bias=False)
    tower.load_state_dict(read_vision_tower(folder))
    pixels = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        expected = whole.get_image_features(pixel_values=pixels).pooler_output
        torch.testing.assert_close(tower(pixels).image_embeds, expected)


# --- SigLIP 2 ---------------------------------------------------------------------------------------------


def test_siglip2_photos_keep_their_shape_as_its_processor_says(make_siglip2, pictures):
    from transformers import Siglip2ImageProcessor

    folder = make_siglip2()
    teacher = ClipTeacher(folder, batch=3)
    inputs = Siglip2ImageProcessor.from_pretrained(folder)([p.convert("RGB") for p in pictures], return_tensors="pt")
    pixels, mask, shapes = teacher.preprocess(pictures)
    np.testing.assert_allclose(pixels, inputs["pixel_values"], atol=1e-6)
    assert mask.tolist() == inputs["pixel_attention_mask"].tolist()
    assert shapes.tolist() == inputs["spatial_shapes"].tolist()
    with torch.inference_mode():
        expected = AutoModel.from_pretrained(folder).get_image_features(**inputs).pooler_output
    expected = torch.nn.functional.normalize(expected, dim=1).numpy()
    np.testing.assert_allclose(teacher.encode_photos(pictures), expected, atol=1e-5)
    assert teacher.dim == 32


@pytest.mark.parametrize("size", [(1, 1), (3000, 2), (640, 480), (17, 900), (1024, 1024)])
def test_a_photo_gets_the_most_patches_that_are_allowed(size):
    from transformers.models.siglip2.image_processing_pil_siglip2 import get_image_size_for_max_num_patches

    rows, columns = NaflexPreprocess(patch_size=16, patches=256).shape(*size)
    assert get_image_size_for_max_num_patches(*size, 16, 256) == (rows * 16, columns * 16)


@pytest.mark.parametrize("text", ["Forest", "forest"])
def test_siglip2_texts_are_lower_case_ended_and_padded_on_the_right(make_siglip2, text):
    folder = make_siglip2()
    model = AutoModel.from_pretrained(folder).eval()
    ids = torch.tensor([[11, 20, 23, 10, 24, 25, 1] + [0] * 9])  # f o r e s t <eos>, then padding
    with torch.inference_mode():
        expected = model.get_text_features(input_ids=ids).pooler_output
    expected = torch.nn.functional.normalize(expected, dim=1).numpy()
    np.testing.assert_allclose(ClipTeacher(folder).encode_text([text]), expected, atol=1e-5)


def test_siglips_first_version_reads_no_punctuation(siglip_folder):
    config = siglip_folder / "tokenizer_config.json"
    settings = json.loads(config.read_text())
    plain, punctuated = "a photo of a lake", "A photo of: a lake!"
    second = ClipTeacher(siglip_folder)
    assert np.abs(np.diff(second.encode_text([plain, punctuated]), axis=0)).max() > 1e-3
    config.write_text(json.dumps(settings | {"tokenizer_class": "SiglipTokenizerFast"}))
    assert folders._cleaning(siglip_folder, "siglip") is tokeniser.canonical
    first = ClipTeacher(dataclasses.replace(second.parts, clean=tokeniser.canonical))
    np.testing.assert_allclose(*first.encode_text([plain, punctuated]), atol=1e-6)


# --- towers and parts -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_a_text_tower_alone_answers_as_the_whole_model_and_refuses_photos(make_text_tower, kind, pictures):
    folder, whole = make_text_tower(kind)
    tower, model = ClipTeacher(folder), ClipTeacher(whole)
    np.testing.assert_allclose(tower.encode_text(TEXTS), model.encode_text(TEXTS), atol=1e-6)
    assert tower.dim == model.dim
    assert tower.fingerprint != model.fingerprint
    with pytest.raises(NoPhotoEncoder, match="text encoder alone"):
        tower.encode_photos(pictures)


def test_an_image_tower_alone_answers_as_the_whole_model_and_refuses_texts(make_clip, tmp_path, pictures):
    folder = make_clip()
    whole = CLIPModel.from_pretrained(folder)
    config = whole.config.vision_config
    config.projection_dim = 16
    tower = CLIPVisionModelWithProjection(config)
    tower.load_state_dict(read_vision_tower(folder))
    tower.save_pretrained(tmp_path / "tower")
    shutil.copy(folder / "preprocessor_config.json", tmp_path / "tower")
    teacher = ClipTeacher(tmp_path / "tower")
    np.testing.assert_allclose(teacher.encode_photos(pictures), ClipTeacher(folder).encode_photos(pictures), atol=1e-6)
    with pytest.raises(NoTextEncoder, match="image encoder alone"):
        teacher.encode_text(TEXTS)


def test_a_text_tower_without_its_projection_is_refused(make_text_tower):
    folder, _ = make_text_tower("clip")
    rewrite(folder, lambda weights: weights.pop("text_projection.weight"))
    with pytest.raises(CheckpointMismatch, match="missing text_projection"):
        ClipTeacher(folder)


def test_parts_in_memory_teach_as_their_folder(make_clip, pictures):
    folder = ClipTeacher(make_clip())
    parts = folders.ClipParts(folder.model, folder.tokenizer, folder.preprocess)
    memory = ClipTeacher(parts, name="mine")
    assert (memory.name, memory.fingerprint) == ("mine", folder.fingerprint)
    np.testing.assert_array_equal(memory.encode_text(TEXTS), folder.encode_text(TEXTS))
    np.testing.assert_array_equal(memory.encode_photos(pictures), folder.encode_photos(pictures))


def test_a_clip_of_the_original_vocabulary_needs_no_tokeniser_of_its_own(make_clip, monkeypatch):
    folder = make_clip()
    monkeypatch.setattr(folders, "clip_tokenizer", lambda: range(15))  # as many as the small vocabulary has
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    assert folders.read_parts(folder).tokenizer == range(15)


@pytest.mark.parametrize("words", [3, 100])
def test_a_tokeniser_of_another_model_is_refused(siglip_folder, words):
    pieces = {f"word{number}": number for number in range(words)}
    tokenizer = json.loads((siglip_folder / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"] = {**pieces, "<unk>": words}
    tokenizer["post_processor"], tokenizer["added_tokens"] = None, []
    (siglip_folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(CheckpointMismatch, match=r"tokeniser of .* numbers its tokens up to"):
        ClipTeacher(siglip_folder)


def test_the_fingerprint_of_the_shipped_teacher_stays():
    assert load_teacher("mini").fingerprint == "6d4a6825deb7ffc1"
