import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoTokenizer, CLIPModel

from geograft.errors import CheckpointMismatch
from geograft.models import numerics
from geograft.models.clip import ClipTeacher, find_folder, read_vision_tower

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
    from transformers import CLIPVisionModelWithProjection

    folder = make_clip()
    whole = CLIPModel.from_pretrained(folder)
    tower = CLIPVisionModelWithProjection(whole.config.vision_config).eval()
    tower.visual_projection = torch.nn.Linear(32, 16, bias=False)
    tower.load_state_dict(read_vision_tower(folder))
    pixels = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        expected = whole.get_image_features(pixel_values=pixels).pooler_output
        torch.testing.assert_close(tower(pixels).image_embeds, expected)
